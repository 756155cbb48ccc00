"""The settings that a preview compares: options of ``run``, as words and as configs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from batchlight.config import METHODS, JobConfig, Method
from batchlight.errors import UsageError
from batchlight.options import flag, make_config

DEFAULT_SETTINGS = ("", "target-luminance=0.35", "target-luminance=0.55", "denoise=none")
"""What is compared by default; an empty one means the command-line options alone."""

IMAGES, IMAGES_AT_MOST = 8, 24
"""Images shown by default, and at most."""

SETTINGS_AT_MOST = 8
"""With more, the pictures would be too small to compare."""

_OF_THE_NETWORK = ("model", "weights", "device", "precision", "tile")
"""Options that the fingerprint of ABSGN records through the resulting network."""


@dataclass(frozen=True)
class Setting:
    """One column of a preview."""

    config: JobConfig
    """A config with exactly one method."""
    options: tuple[str, ...]
    """The options that a run needs to reproduce it, besides ``--input``."""

    @property
    def method(self) -> Method:
        """The only method of its config."""
        return self.config.method[0]

    @property
    def label(self) -> str:
        """The options as typed in a shell; empty for a run's defaults."""
        return shlex.join(self.options)


def make_settings(base: JobConfig, texts: Sequence[str]) -> tuple[Setting, ...]:
    """Each text applied to ``base``, once per method; settings with equal pixels appear once.

    ``texts``: such as ``omega=0.8 t0=0.05``; if none, the defaults. Raises ``UsageError``.
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
            f"in --setting {text!r}: {flag(useless[0])} does not change the pictures of "
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
    """The options that determine the pixels of the config's method, in config order."""
    [method] = config.method
    names = set(config.fingerprint(method).options) - {"method"}
    if method == "absgn":
        names.update(_OF_THE_NETWORK)
    return tuple(name for name in JobConfig.model_fields if name in names)


def _words(config: JobConfig, asked: set[str]) -> Iterable[str]:
    """The options that differ from a run's defaults, and those explicitly requested."""
    [method] = config.method
    if "method" in asked or config.method != JobConfig.model_fields["method"].default:
        yield from ("--method", method)
    for name in _deciding(config):
        value = getattr(config, name)
        if name in asked or value != JobConfig.model_fields[name].default:
            yield from [flag(name)] if value is True else [flag(name), str(value)]
