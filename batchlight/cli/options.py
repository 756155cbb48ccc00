"""The options of ``run`` and ``train``, made from the fields of their configs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from batchlight.config import JobConfig
from batchlight.errors import UsageError
from batchlight.options import C, Options, flag, make_config

GROUPS = {
    "What and where": (
        *("input", "output", "include", "exclude", "follow_links", "limit"),
        *("copy_others", "image_column"),
    ),
    "Method": (
        *("method", "target_luminance", "not_dark", "strength"),
        *("batch_size", "atmospheric_light", "omega", "t0", "window", "denoise"),
        *("format", "quality", "metadata", "failed_images", "max_pixels"),
    ),
    "ABSGN": ("model", "weights", "device", "precision", "tile"),
    "Workers": ("workers", "gpu_workers", "address", "timeout", "requests_per_second"),
    "Run control": (
        *("max_failures", "fail_fast", "allow_empty"),
        *("retry_failed", "overwrite", "progress"),
    ),
}

CHOOSING_ABSGN = ("model", "weights")
"""Options that say which network is wanted; the others only say where one would run."""

PREVIEW_GROUPS = {
    "What": ("input", "include", "exclude", "follow_links", "image_column"),
    **{name: GROUPS[name] for name in ("Method", "ABSGN")},
}

TRAIN_GROUPS = {
    "What and where": ("data", "clean", "validation_data", "out"),
    "Network": ("model", "weights"),
    "Recipe": (
        *("epochs", "time_limit", "size", "batch_size", "learning_rate", "whole"),
        *("validation", "seed"),
    ),
    "Where it runs": ("device", "gpu_workers", "address"),
}

METAVARS = {
    **dict.fromkeys(("input", "output", "data", "clean", "validation_data"), "URI"),
    "time_limit": "TIME",
    **dict.fromkeys(("out", "weights"), "FILE"),
    **dict.fromkeys(("include", "exclude"), "GLOB"),
    "image_column": "NAME",
    "batch_size": "auto|N",
    "atmospheric_light": "batch|image|NUMBER",
    "max_failures": "N|P%",
    "omega": "auto|X",
}
"""For values whose type does not show what they are."""


def takes_options_of(
    kind: type[C],
    groups: Mapping[str, Sequence[str]],
    check: Callable[[C, Collection[str]], None] = lambda config, given: None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command every option of a config, and call it with the resulting config.

    Options that are not given are left out of the config, so that those of a file apply. ``check``:
    called with the config and the options given on the command line; may raise ``UsageError``.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_config(config_file: str | None, **values: Any) -> None:
            own = {name: values.pop(name) for name in own_names if name in values}
            given = {name: value for name, value in values.items() if value not in (None, [], ())}
            config = make_config(kind, given, config_file)
            check(config, given.keys())
            command(config, **own)

        own_parameters = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        own_names = [parameter.name for parameter in own_parameters]
        from_file = typer.Option("--config", metavar="FILE", help="YAML with any of these options.")
        parameters = [
            *(_parameter(kind, name, group) for group, names in groups.items() for name in names),
            _keyword("config_file", Annotated[str | None, from_file], None),
            *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own_parameters),
        ]
        with_config.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_config.__annotations__ = {p.name: p.annotation for p in parameters}
        return with_config

    return decorate


def require_effect(config: JobConfig, given: Collection[str]) -> None:
    """Raise ``UsageError`` for an option of a command line that the others make useless.

    A file of options, which several jobs may share, can hold such options.
    """
    if "address" in given and config.workers == 0:
        raise UsageError(
            "--address has no effect with --workers 0, which works in this process; leave out one"
        )
    useless = [name for name in CHOOSING_ABSGN if name in given]
    if useless and "absgn" not in config.method:
        option = flag(useless[0])
        raise UsageError(
            f"{option} has no effect without --method absgn; add that, or leave {option} out"
        )


def _parameter(kind: type[Options], name: str, group: str) -> inspect.Parameter:
    """The option for one field of a config, with its description, default and choices."""
    info = kind.model_fields[name]
    annotation = info.annotation
    default = option_default(kind, name)
    note = " (required)" if info.is_required() else f" (default: {default})" if default else ""
    is_flag = annotation is bool
    option = typer.Option(
        flag(name),
        help=f"{info.description}{note}",
        rich_help_panel=group,
        metavar=None if is_flag else _metavar(name, annotation),
        autocompletion=_completion(annotation),
    )
    value: Any = bool if is_flag else list[str] if get_origin(annotation) is tuple else str
    return _keyword(name, Annotated[value | None, option], None)


def option_default(kind: type[Options], name: str) -> str | None:
    """The default of an option in the user's terms; None if there is nothing to say."""
    info = kind.model_fields[name]
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    if "default" in extra:
        return str(extra["default"])
    if info.is_required() or info.default in (None, ()) or info.default is False:
        return None
    return ", ".join(info.default) if name == "method" else str(info.default)


def _metavar(name: str, annotation: Any) -> str:
    kind = _innermost(annotation)
    words = get_args(kind) if get_origin(kind) is Literal else ()
    return METAVARS.get(name) or "|".join(words) or {int: "N", float: "X"}.get(kind, "TEXT")


def _innermost(annotation: Any) -> Any:
    """The type of an option's value, or of one of several: a type, or a ``Literal`` of words."""
    while get_origin(annotation) in (tuple, Union, UnionType, Annotated):
        annotation = get_args(annotation)[0]
    return annotation


def _completion(annotation: Any) -> Callable[[str], list[str]] | None:
    """The values that a shell can offer for an option; None lets it offer files."""
    kind = _innermost(annotation)
    words = [str(word) for word in get_args(kind)] if get_origin(kind) is Literal else []

    def offered(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return offered if words else None


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
    )
