"""The command line: words in, sentences and exit codes out."""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import signal
import sys
import traceback
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Column, Table

from batchlight._version import __version__
from batchlight.cli.options import GROUPS, TRAIN_GROUPS, takes_options_of
from batchlight.config import JobConfig, TrainConfig
from batchlight.errors import BatchlightError, ExitCode, brief

if TYPE_CHECKING:
    from batchlight.output.summary import Summary

NARROW = 60
"""A terminal with fewer columns gets help without boxes."""

app = typer.Typer(
    name="batchlight",
    help="Enhance whole data sets of dark images, with nothing lost and everything recorded.",
    pretty_exceptions_enable=False,
    # On a narrow terminal, boxes would leave no room for the names of options.
    rich_markup_mode="rich" if shutil.get_terminal_size().columns >= NARROW else None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

THE_JOB, AN_OUTPUT = "The job", "An output"
THE_NETWORK, TO_TRY_IT = "The network ABSGN", "To try it"

INTERRUPTED = 128 + signal.SIGINT

Output = Annotated[str, typer.Argument(metavar="OUTPUT", help="The output of a run.")]
AsJson = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON.")]
Debug = Annotated[
    bool, typer.Option("--debug", metavar="", help="Verbose logs, and tracebacks of errors.")
]
"""``main`` looks for it itself, since it is to hold before the words are parsed."""


def main() -> None:
    """The program: every error ends in one sentence and its exit code."""
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


def _discard_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end_with_the_reader() -> None:
    """Let a closed pipe end this process silently, as it ends any filter."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def _fail(sentence: str, exit_code: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[bold red]error:[/] {escape(sentence)}")
    sys.exit(exit_code)


@app.callback(invoke_without_command=True)
def _without_a_command(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", metavar="", help="Print the version.", is_eager=True)
    ] = False,
) -> None:
    if version:
        print(f"batchlight {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        sys.exit(ExitCode.USAGE)


@app.command(rich_help_panel=THE_JOB)
@takes_options_of(JobConfig, GROUPS)
def run(config: JobConfig, *, debug: Debug = False) -> None:
    """Enhance a data set.

    Run the same command again to go on after an interruption, and whenever images are new.
    """
    from batchlight.driver.run import run as run_job

    summary = run_job(config)
    try:
        if config.progress == "json":
            print(json.dumps({"event": "summary", **json.loads(summary.to_json())}), flush=True)
        else:
            _print_summary(summary)
    except (BrokenPipeError, SystemExit):  # nobody reads any more; the exit code still counts
        _discard_stdout()
    sys.exit(summary.exit_code)


@app.command(rich_help_panel=THE_JOB)
@takes_options_of(JobConfig, GROUPS)
def plan(config: JobConfig, *, as_json: AsJson = False, debug: Debug = False) -> None:
    """Show what a run would do, without writing anything."""
    from dataclasses import asdict

    from batchlight.driver.dry_run import preview

    _end_with_the_reader()
    found = preview(config)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return
    counts = {
        "  new": found.new,
        "  changed": found.changed,
        "  to redo": found.retried,
        "skipped, done before": found.unchanged,
        "gone since": found.gone,
        "left of a stored plan": found.left_of_stored_plan,
    }
    _print_facts(
        f"{found.input} -> {found.output}",
        {
            "images": f"{found.inputs:,}, {_bytes(found.input_bytes)}",
            "to do": f"{found.todo:,}, {_bytes(found.todo_bytes)}, batches: {found.batches:,}",
            **{name: f"{number:,}" for name, number in counts.items() if number},
        },
    )


@app.command(rich_help_panel=AN_OUTPUT)
def status(output: Output, as_json: AsJson = False, debug: Debug = False) -> None:
    """Show how far a run is, or how it ended."""
    from dataclasses import asdict

    from batchlight.output.status import read_status

    _end_with_the_reader()
    found = read_status(output)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return
    _print_facts(
        f"{found.output}: {found.state}",
        {
            "of the last plan": f"{found.done:,} of {found.planned:,} images in committed batches",
            "held by": found.holder or "nobody",
            "last run ended": found.ended or "no run has ended yet",
        },
    )


@app.command(rich_help_panel=AN_OUTPUT)
def verify(
    output: Output,
    repair: Annotated[
        bool, typer.Option("--repair", metavar="", help="Do again what is missing or differs.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Hold every output against its record.

    Present, size, sha256; what is wrong can be made again to the same bytes.
    """
    from dataclasses import asdict

    from batchlight.driver.repair import repair as repair_output
    from batchlight.driver.verify import Problem
    from batchlight.driver.verify import verify as verify_output

    problems: list[Problem] = []

    def tell(problem: Problem) -> None:
        if as_json:
            problems.append(problem)
            return
        outcome = "repaired" if problem.repaired else "not repaired" if repair else ""
        _print_trouble(problem.path, problem.trouble, problem.detail, outcome)

    say = functools.partial(print, file=sys.stderr, flush=True)
    found = repair_output(output, tell, say) if repair else verify_output(output, tell)
    if as_json:
        print(json.dumps(asdict(found) | {"found": list(map(asdict, problems))}, indent=2))
    else:
        _print_facts(
            f"{found.output}: {'as recorded' if found.sound else 'not as recorded'}",
            {
                "outputs": f"{found.outputs:,}, {_bytes(found.bytes)}",
                "files of records": f"{found.record_files:,}",
                "problems": f"{found.problems:,}",
                **({"repaired": f"{found.repaired:,}"} if repair else {}),
            },
        )
    if not found.sound:
        sys.exit(ExitCode.FAILURES)


@app.command(rich_help_panel=AN_OUTPUT)
def failures(output: Output, as_json: AsJson = False, debug: Debug = False) -> None:
    """List the images that failed, with code and reason."""
    from batchlight.output.recordfiles import failed_rows
    from batchlight.output.status import open_output

    _end_with_the_reader()
    rows = failed_rows(open_output(output))
    columns = ("input", "method", "error_code", "error")
    if as_json:
        print(json.dumps([{name: row[name] for name in columns} for row in rows], indent=2))
        return
    failed = 0
    for row in rows:
        failed += 1
        _print_trouble(*(row[name] for name in columns))
    if sys.stdout.isatty():
        Console(highlight=False).print(
            f"[dim]{failed:,} failed[/]" if failed else "no image failed"
        )


@app.command(rich_help_panel=AN_OUTPUT)
def report(output: Output, debug: Debug = False) -> None:
    """Make the report of an output again.

    One HTML page that needs nothing beside itself; every run makes it at its end.
    """
    from batchlight.output.status import open_output
    from batchlight.report import write_report
    from batchlight.storage import Location

    open_output(output)
    print(f"the report is {write_report(Location.parse(output))}")


@app.command(rich_help_panel=THE_NETWORK)
@takes_options_of(TrainConfig, TRAIN_GROUPS)
def train(config: TrainConfig, *, debug: Debug = False) -> None:
    """Train ABSGN on pairs of images.

    The same command again goes on after an interruption.
    """
    from batchlight.training.train import train as train_network

    train_network(config, functools.partial(print, flush=True))


@app.command(rich_help_panel=THE_NETWORK)
def evaluate(
    enhanced: Annotated[str, typer.Option("--enhanced", metavar="DIR", help="Enhanced images.")],
    reference: Annotated[
        str, typer.Option("--reference", metavar="DIR", help="What they should look like.")
    ],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure PSNR and SSIM against references.

    Images are compared with those of the same relative path, never by order.
    """
    from batchlight.training.evaluate import evaluate as compare

    _end_with_the_reader()
    found = compare(enhanced, reference)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
        return
    table = Table("image", "PSNR", "SSIM", "", box=None, pad_edge=False)
    for score in found.scores:
        numbers = [
            "" if value is None else f"{value:.{digits}f}"
            for value, digits in ((score.psnr, 2), (score.ssim, 4))
        ]
        table.add_row(escape(score.path), *numbers, escape(score.problem or ""))
    Console(soft_wrap=not sys.stdout.isatty()).print(table)
    unmatched = {
        "without reference": found.without_reference,
        "without enhanced image": found.without_enhanced,
    }
    _print_facts(
        "",
        {
            "images": f"{found.images:,}",
            "PSNR": "" if found.psnr is None else f"{found.psnr:.2f} dB",
            "SSIM": "" if found.ssim is None else f"{found.ssim:.4f}",
            **(
                {"not compared": f"{found.images - found.scored:,}"}
                if found.images > found.scored
                else {}
            ),
            **({"identical": f"{found.identical:,}"} if found.identical else {}),
            **{
                name: f"{some.count:,}, such as {', '.join(some.first)}"
                for name, some in unmatched.items()
                if some.count
            },
        },
    )


@app.command(rich_help_panel=TO_TRY_IT)
def samples(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Where to write them.")],
    debug: Debug = False,
) -> None:
    """Write a few dark images, to try a run at once."""
    from batchlight.cli.samples import write_samples

    written = write_samples(folder)
    print(f"{len(written)} dark images are in {folder}; now: batchlight run --input {folder}")


def _print_summary(summary: Summary) -> None:
    colour = "green" if summary.exit_code == 0 else "yellow"
    facts = {
        "images": f"{summary.inputs:,}",
        "ok": f"{summary.ok:,}",
        "failed": f"{summary.failed:,}",
        **{f"  {code}": f"{number:,}" for code, number in summary.failed_by_code.items()},
        "done by this run": f"{summary.done_now:,}",
        "done before": f"{summary.done_before:,}",
        "gone since": f"{summary.gone:,}",
        "read, written": f"{_bytes(summary.input_bytes)}, {_bytes(summary.output_bytes)}",
        "time": f"{summary.elapsed_s:.1f} s, {summary.images_per_s:.1f} images/s"
        if summary.done_now
        else "0",
        "output": summary.output,
    }
    optional = ("failed", "done before", "gone since", "time")
    _print_facts("", {k: v for k, v in facts.items() if v != "0" or k not in optional})
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold {colour}]exit {summary.exit_code}[/]: {escape(summary.reason)}")


def _print_trouble(path: str, *words: str) -> None:
    """What is wrong with an image: tabs between words for a program, two lines for a person."""
    if not sys.stdout.isatty():
        print("\t".join(word for word in (path, *words) if word), flush=True)
        return
    console = Console(highlight=False)
    # The path on a line of its own, so that it can be copied however narrow the terminal is.
    console.print(escape(path), soft_wrap=True)
    console.print(Padding(f"[dim]{escape('  '.join(filter(None, words)))}[/]", (0, 0, 0, 4)))


def _print_facts(title: str, facts: dict[str, str]) -> None:
    """One fact per line; on a terminal, long values wrap."""
    if not sys.stdout.isatty():
        width = max(map(len, facts))
        lines = [f"{name.ljust(width)}  {value}" for name, value in facts.items()]
        print("\n".join([title, *lines] if title else lines))
        return
    console = Console(highlight=False)
    if title:
        console.print(f"[bold]{escape(title)}[/]", soft_wrap=True)
    table = Table.grid(Column(no_wrap=True, style="dim"), Column(overflow="fold"), padding=(0, 2))
    for name, value in facts.items():
        table.add_row(name, escape(value))
    console.print(table)


def _bytes(number: int) -> str:
    value = float(number)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} PB"
