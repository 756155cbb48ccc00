"""The program's commands and what they have in common."""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
from collections import Counter
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from batchlight._version import __version__
from batchlight.errors import ExitCode, UsageError

NARROW = 70
"""A terminal with fewer columns gets help without boxes."""


PLACES = ("URI", "FILE", "DIR")
"""What help calls values that are places; giving two of an option that takes one means both."""


TAKING_INPUT = ("run", "plan", "preview")
"""Commands for which users may expect the input to need no option."""


MAY_BE_EMPTY = "setting"
"""For this option an empty value is valid: no options are changed."""


def _flags_take_no_value(params: list[Any]) -> list[Any]:
    """As help should show them; newer versions of Click also describe the value of a flag."""
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params


class Group(TyperGroup):
    """The program."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _flags_take_no_value(super().get_params(ctx))


class Command(TyperCommand):
    """A command that refuses two places if only the last would count, and empty values."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _flags_take_no_value(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        values, rest, given = self.make_parser(ctx).parse_args(args=list(args))
        if rest and ctx.info_name in TAKING_INPUT:
            raise UsageError(hint_at_input(rest[0], ctx.info_name))
        for option, times in Counter(given).items():
            is_place = option.metavar in PLACES or option.name == "address"
            if times > 1 and is_place and not option.multiple:
                raise UsageError(f"{option.opts[0]} is given {times} times; give it once")
        for param in given:
            value = values[param.name]
            # E.g. from an unset shell variable: it would mean the current folder, or nothing.
            if param.name != MAY_BE_EMPTY and "" in (value if isinstance(value, list) else [value]):
                what = param.opts[0] if param.param_type_name == "option" else param.metavar
                raise UsageError(f"{what} must not be empty")
        return super().parse_args(ctx, args)


def hint_at_input(word: str, command: str = "run") -> str:
    """What is probably meant by a word that stands alone, such as a path."""
    return f"{word} needs --input before it: batchlight {command} --input {shlex.quote(word)}"


app = typer.Typer(
    name="batchlight",
    cls=Group,
    help="Enhance whole data sets of dark images, with nothing lost and everything recorded.",
    pretty_exceptions_enable=False,
    # On a narrow terminal, boxes would leave no room for option names.
    rich_markup_mode="rich" if shutil.get_terminal_size().columns >= NARROW else None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Output = Annotated[str, typer.Argument(metavar="OUTPUT", help="The output of a run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Verbose logs, and tracebacks of errors.")]
"""``main`` looks for it itself, since it must take effect before the arguments are parsed."""


@app.callback(invoke_without_command=True)
def _without_a_command(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True)
    ] = False,
) -> None:
    if version:
        print(f"batchlight {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        sys.exit(ExitCode.USAGE)


def end_with_the_reader() -> None:
    """Make a closed pipe end this process silently, like any filter."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
