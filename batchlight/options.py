"""What the options of all commands share: their base, a YAML file that holds them, messages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from batchlight.errors import UsageError

C = TypeVar("C", bound="Options")


class Options(BaseModel):
    """Base of all configs.

    Raises ``pydantic.ValidationError`` for a value out of range or an unknown name.
    """

    command: ClassVar[str]
    """The command whose options they are."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_as_number(cls, value: object, info: ValidationInfo) -> object:
        """Pydantic takes true for 1, and YAML takes a bare ``yes`` for true."""
        wanted = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and _holds_numbers(wanted):
            raise ValueError("must be a number")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_nul(cls, value: object) -> object:
        """The system cannot open a path that contains one."""
        values = value if isinstance(value, list | tuple) else (value,)
        if any("\0" in str(each) for each in values):
            raise ValueError("must not contain a NUL character")
        return value


def _holds_numbers(annotation: Any) -> bool:
    return annotation in (int, float) or any(map(_holds_numbers, get_args(annotation)))


def number_or(words: tuple[str, ...], least: int, most: int) -> BeforeValidator:
    """A number, possibly as text from the command line, or one of some words.

    ``least``: 0 is not allowed itself.
    """
    choices = ", ".join(f"'{word}'" for word in words)
    allowed = f"from {least} to {most}" if least else f"above 0 and up to {most}"

    def validate(value: object) -> object:
        if value in words:
            return value
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        if not (least <= number <= most and number):
            raise ValueError(f"must be {choices} or a number {allowed}")
        return number

    return BeforeValidator(validate)


_REASONS = {
    "value_error": "{error}",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "must be a number"),
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "literal_error": "must be {expected}",
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    "string_type": "must be a string",
    "string_too_short": "must not be empty",
    "tuple_type": "must be a string or a list of strings",
}
"""What is wrong with a value, by pydantic's name for it."""


def make_config(kind: type[C], given: Mapping[str, Any], config_file: str | None = None) -> C:
    """Build a config from a YAML file, overridden by the given options.

    Raises ``UsageError`` with one sentence that names the option, its value and the values allowed.
    """
    values = {**(_read_yaml(config_file) if config_file else {}), **given}
    try:
        return kind(**values)
    except ValidationError as error:
        raise UsageError(_one_sentence(error, kind.command)) from error


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
        raise UsageError(f"the config file {path} must be a mapping of option names to values")
    keys = [str(key.value).replace("-", "_") for key, _ in node.value]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise UsageError(f"the config file {path} gives {twice[0]} more than once; give it once")
    return {str(key).replace("-", "_"): value for key, value in loaded.items()}


def flag(name: str) -> str:
    """A field as an option of the command line: ``--batch-size``."""
    return "--" + name.replace("_", "-")


def _one_sentence(error: ValidationError, command: str) -> str:
    # An unknown name may be the missing one, mistyped.
    errors = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    first = errors[0]
    option = flag(str(first["loc"][0]))
    if first["type"] == "missing":
        return f"{option} is required"
    if first["type"] == "extra_forbidden":
        return f"unknown option {option.removeprefix('--')}; see 'batchlight {command} --help'"
    words = _REASONS.get(first["type"], "that is not valid: {msg}")
    reason = words.format(msg=first["msg"], **first.get("ctx", {}))
    return f"{option} is {first['input']!r}, but {reason}"
