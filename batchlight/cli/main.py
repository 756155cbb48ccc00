"""The program ``batchlight``: every error ends in one sentence and an exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback

import typer
from rich.markup import escape

from batchlight.cli.app import Command, app, hint_at_input
from batchlight.cli.console import plain_console
from batchlight.cli.job_commands import plan, preview, run, samples
from batchlight.cli.network_commands import evaluate, train
from batchlight.cli.output_commands import failures, report, status, verify
from batchlight.cli.streams import Shown, prepare_streams
from batchlight.errors import BatchlightError, ExitCode, UsageError, brief, shown
from batchlight.host.abandoned import any_abandoned

COMMANDS = {
    "The job": (run, plan, preview),
    "An output": (status, verify, failures, report),
    "The network ABSGN": (train, evaluate),
    "To try it": (samples,),
}
"""In the order of the help."""

for _panel, _commands in COMMANDS.items():
    for _command in _commands:
        app.command(cls=Command, rich_help_panel=_panel)(_command)

UTF8_MODE = "PYTHONUTF8"
INTERRUPTED = 128 + signal.SIGINT


def main() -> None:
    """Run the command given by the arguments."""
    debug = "--debug" in sys.argv
    _take_names_as_utf8()
    prepare_streams()
    log = logging.StreamHandler()
    log.setFormatter(Shown("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, handlers=[log])
    try:
        _end(_exit_code(debug))
    finally:
        sys.stderr.flush()


def _take_names_as_utf8() -> None:
    """Restart in Python's UTF-8 mode if the locale decoded file names as something else.

    Names are bytes, the same ones under every locale, and records hold them as UTF-8. Workers take
    the mode from the environment.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get(UTF8_MODE) != "1":
        os.environ[UTF8_MODE] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _exit_code(debug: bool) -> int:
    try:
        _require_working_directory()
        if app(standalone_mode=False) == INTERRUPTED:  # Typer's sign that it caught a signal
            raise KeyboardInterrupt
        sys.stdout.flush()
    except SystemExit as end:
        return _flushed(end.code if isinstance(end.code, int) else int(bool(end.code)), debug)
    except BatchlightError as error:
        return _failed(str(error), error.exit_code, debug)
    except typer.TyperException as error:
        return _failed(_hint() or error.format_message(), ExitCode.USAGE, debug)
    except (typer.Abort, KeyboardInterrupt):
        return _failed("interrupted", INTERRUPTED, debug)
    except Exception as error:
        text = f"unexpected {type(error).__name__}: {brief(error)}; --debug shows more"
        return _failed(text, ExitCode.FATAL, debug)
    return ExitCode.OK


def _hint() -> str | None:
    """What to type instead of a path in place of the command."""
    word = next(iter(sys.argv[1:]), "")
    names = {command.__name__ for commands in COMMANDS.values() for command in commands}
    is_path = "://" in word or (not word.startswith("-") and os.path.exists(word))
    return hint_at_input(word) if is_path and word not in names else None


def _flushed(exit_code: int, debug: bool) -> int:
    """The exit code, once the output was flushed."""
    try:
        sys.stdout.flush()
    except BatchlightError as error:
        return exit_code or _failed(str(error), error.exit_code, debug)
    return exit_code


def _failed(sentence: str, exit_code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    plain_console(stderr=True, soft_wrap=True).print(
        f"[bold red]error:[/] {escape(shown(sentence))}"
    )
    return exit_code


def _require_working_directory() -> None:
    """Raise ``UsageError`` if it is gone: relative paths and new processes would fail."""
    try:
        os.getcwd()
    except OSError as error:
        raise UsageError("the working directory was deleted; change to one that exists") from (
            error
        )


def _end(exit_code: int) -> None:
    if any_abandoned():  # the exit would wait for threads stuck on a store or in a decoder
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    sys.exit(exit_code)
