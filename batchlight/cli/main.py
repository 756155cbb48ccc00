"""The program ``batchlight``: every error ends in one sentence and an exit code."""

from __future__ import annotations

import logging
import signal
import sys
import traceback
from io import TextIOWrapper
from typing import cast

import typer
from rich.console import Console
from rich.markup import escape

from batchlight.cli.app import app
from batchlight.cli.job_commands import plan, preview, run, samples
from batchlight.cli.network_commands import evaluate, train
from batchlight.cli.output_commands import failures, report, status, verify
from batchlight.errors import BatchlightError, ExitCode, brief

COMMANDS = {
    "The job": (run, plan, preview),
    "An output": (status, verify, failures, report),
    "The network ABSGN": (train, evaluate),
    "To try it": (samples,),
}
"""In the order of the help."""

for _panel, _commands in COMMANDS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)

INTERRUPTED = 128 + signal.SIGINT


def main() -> None:
    """Run the command that the words of the command line name."""
    debug = "--debug" in sys.argv
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a name shows its escapes, rather than ending the command.
        cast(TextIOWrapper, stream).reconfigure(errors="backslashreplace")
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING, format="%(levelname)s %(message)s"
    )
    try:
        if app(standalone_mode=False) == INTERRUPTED:  # so Typer tells that it caught a signal
            raise KeyboardInterrupt
    except BatchlightError as error:
        _fail(str(error), error.exit_code, debug)
    except typer.TyperException as error:
        _fail(error.format_message(), ExitCode.USAGE, debug)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted", INTERRUPTED, debug)
    except Exception as error:
        text = f"unexpected {type(error).__name__}: {brief(error)}; --debug tells more"
        _fail(text, ExitCode.FATAL, debug)


def _fail(sentence: str, exit_code: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[bold red]error:[/] {escape(sentence)}")
    sys.exit(exit_code)
