"""The settings that a preview compares: options of ``run``, as words and as configs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from batchlight.config import METHODS, JobConfig, Method
from batchlight.config_file import make_config
from batchlight.errors import UsageError

DEFAULT_SETTINGS = ("", "target-luminance=0.35", "target-luminance=0.55", "denoise=none")
"""What is compared unless told otherwise; an empty one is the options of the command line alone."""

IMAGES, IMAGES_AT_MOST = 8, 24
"""How many are shown unless told otherwise, and at most."""

SETTINGS_AT_MOST = 8
"""More would be too small to be compared."""

_OF_THE_NETWORK = ("model", "weights", "device", "precision", "tile")
"""What the fingerprint of ABSGN knows by the network that comes of it."""


@dataclass(frozen=True)
class Setting:
    """One column of a preview."""

    config: JobConfig
    """With one method."""
    options: tuple[str, ...]
    """The words that a run needs for it beside ``--input``."""

    @property
    def method(self) -> Method:
        """The one of its config."""
        return self.config.method[0]

    @property
    def label(self) -> str:
        """The options as they are typed in a shell; empty for the defaults of a run."""
        return shlex.join(self.options)


def make_settings(base: JobConfig, texts: Sequence[str]) -> tuple[Setting, ...]:
    """Each text on top of ``base``, once for each method; what makes equal pixels comes once.

    ``texts``: as ``omega=0.8 t0=0.05``; none: the default ones. Raises ``UsageError``.
    """
    found: dict[tuple[Any, ...], Setting] = {}
    for text in texts or DEFAULT_SETTINGS:
        for setting in _settings_of(base, text, asked=bool(texts)):
            names = _deciding(setting.config)
            key = (setting.method, *((n, str(getattr(setting.config, n))) for n in names))
            found.setdefault(key, setting)
    if len(found) > SETTINGS_AT_MOST:
        raise UsageError(
            f"{len(found)} settings are too many to compare on one page; "
            f"give --setting at most {SETTINGS_AT_MOST} times"
        )
    return tuple(found.values())


def _settings_of(base: JobConfig, text: str, asked: bool) -> Iterable[Setting]:
    given = _parsed(text)
    try:
        merged = make_config(JobConfig, {**base.model_dump(exclude_unset=True), **given})
    except UsageError as error:
        raise UsageError(f"in --setting {text!r}: {error}") from error
    methods = [method for method in METHODS if method in merged.method]
    configs = [merged.model_copy(update={"method": (method,)}) for method in methods]
    deciding = {name for config in configs for name in _deciding(config)} | {"method"}
    useless = sorted(given.keys() - deciding)
    if useless and asked:
        raise UsageError(
            f"in --setting {text!r}: {_option(useless[0])} does not change the pictures of "
            f"{' or '.join(methods)}; leave it out"
        )
    named = {*given.keys(), *(["method"] if len(methods) > 1 else [])}
    for config in configs:
        yield Setting(config, tuple(_words(config, named)))


def _parsed(text: str) -> dict[str, str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--setting is {text!r}, in which a quotation mark is missing") from error
    given = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value) or name.startswith("-"):
            raise UsageError(
                f"--setting is {text!r}, but must be words such as 'omega=0.8 t0=0.05'"
            )
        given[name.replace("-", "_")] = value
    return given


def _deciding(config: JobConfig) -> tuple[str, ...]:
    """The options that decide the pixels of the config's method, in the order of the config."""
    [method] = config.method
    names = set(config.fingerprint(method).options) - {"method"}
    if method == "absgn":
        names.update(_OF_THE_NETWORK)
    return tuple(name for name in JobConfig.model_fields if name in names)


def _words(config: JobConfig, asked: set[str]) -> Iterable[str]:
    """The options that differ from the defaults of a run, and those that were asked for."""
    [method] = config.method
    if "method" in asked or config.method != JobConfig.model_fields["method"].default:
        yield from ("--method", method)
    for name in _deciding(config):
        value = getattr(config, name)
        if name in asked or value != JobConfig.model_fields[name].default:
            yield from [_option(name)] if value is True else [_option(name), str(value)]


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
