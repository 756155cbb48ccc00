"""A config from command-line options and, below them, a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from batchlight.config import JobConfig
from batchlight.errors import UsageError

C = TypeVar("C", bound=BaseModel)


def make_config(kind: type[C], given: Mapping[str, Any], config_file: str | None = None) -> C:
    """Build a config from a YAML file, overridden by the given options.

    Raises ``UsageError`` with one sentence that names the option, its value and the values allowed.
    """
    values = {**(_read_yaml(config_file) if config_file else {}), **given}
    for name, value in values.items():
        # Only YAML can write it, and no path may hold it.
        if any("\0" in str(text) for text in (value if isinstance(value, list) else [value])):
            raise UsageError(
                f"{_option(name)} is {value!r}, which holds a NUL character; correct it"
            )
    try:
        return kind(**values)
    except ValidationError as error:
        command = "run" if kind is JobConfig else "train"
        raise UsageError(_one_sentence(error, command)) from error


def _read_yaml(path: str) -> dict[str, Any]:
    import yaml  # only if a file is given, since --help must be fast

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        loaded = yaml.safe_load(text)
        node: Any = yaml.compose(text, yaml.SafeLoader)
    except OSError as error:
        raise UsageError(f"cannot read the config file {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        where = " ".join(str(error).split())
        raise UsageError(f"the config file {path} is not valid YAML: {where}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise UsageError(f"the config file {path} must hold option names and values, one per line")
    keys = [str(key.value).replace("-", "_") for key, _ in node.value]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise UsageError(f"the config file {path} gives {twice[0]} more than once; give it once")
    return {str(key).replace("-", "_"): value for key, value in loaded.items()}


def _option(name: object) -> str:
    return "--" + str(name).replace("_", "-")


def _one_sentence(error: ValidationError, command: str) -> str:
    # An unknown name may be the missing one, mistyped.
    errors = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    first = errors[0]
    option = _option(first["loc"][0])
    if first["type"] == "missing":
        return f"{option} is required"
    if first["type"] == "extra_forbidden":
        return f"unknown option {option.removeprefix('--')}; see 'batchlight {command} --help'"
    reason = first["msg"].removeprefix("Value error, ")
    reason = reason[0].lower() + reason[1:]
    return f"{option} is {first['input']!r}, but {reason}"
