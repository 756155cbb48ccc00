"""``status``, ``verify``, ``failures`` and ``report``: the commands on an output."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from batchlight.cli.app import AsJson, Debug, Output, end_with_the_reader
from batchlight.cli.console import plain_console, print_facts, print_trouble, telling
from batchlight.errors import ExitCode, in_bytes, shown

FollowLinks = Annotated[bool, typer.Option("--follow-links", help="Same as for the run.")]


def status(output: Output, as_json: AsJson = False, debug: Debug = False) -> None:
    """Show how far a run is, or how it ended."""
    from dataclasses import asdict

    from batchlight.output.status import read_status

    end_with_the_reader()
    found = read_status(output)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return
    unit = "images" if found.planned == found.images else "(image, method) pairs"
    more = "; the listing goes on" if found.more else ""
    print_facts(
        f"{found.output}: {found.state}",
        {
            "of the last plan": f"{found.done:,} of {found.planned:,} {unit} done{more}",
            **({"failed": f"{found.failed:,}"} if found.failed else {}),
            "lock": f"held by {found.holder}" if found.holder else "not held",
            "last run ended": found.ended or "no run has ended yet",
        },
    )


def verify(
    output: Output,
    repair: Annotated[
        bool, typer.Option("--repair", help="Regenerate outputs that are missing or differ.")
    ] = False,
    input_uri: Annotated[
        str | None,
        typer.Option("--input", metavar="URI", help="Input of the run; needed for --repair."),
    ] = None,
    follow_links: FollowLinks = False,
    copy_others: Annotated[
        bool, typer.Option("--copy-others", help="Same as for the run.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", metavar="N", min=0, help="Compare on N workers. (default: in this process)"
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="TEXT", help="Address of the Ray cluster."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", metavar="FILE", help="ABSGN weights, as given to the run."),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare every output with its record.

    Checks presence, size and sha256; --repair regenerates what differs, byte for byte.
    """
    from dataclasses import asdict

    from batchlight.driver.repair import RepairOptions
    from batchlight.driver.repair import repair as repair_output
    from batchlight.driver.verify import Verification
    from batchlight.driver.verify import verify as verify_output
    from batchlight.worker.comparing import Problem

    problems: list[Problem] = []

    def tell(problem: Problem) -> None:
        if as_json:
            problems.append(problem)
            return
        outcome = "repaired" if problem.repaired else "not repaired" if repair else ""
        print_trouble(problem.path, problem.trouble, problem.detail, outcome)

    def say(text: str) -> None:
        print(shown(text), file=sys.stderr, flush=True)

    options = RepairOptions(input_uri, follow_links, copy_others, workers, address, weights)
    with telling() as tell_progress:

        def count(so_far: Verification) -> None:
            tell_progress(f"{output}: {so_far.outputs:,} outputs compared")

        found = (
            repair_output(output, options, on_problem=tell, on_progress=count, say=say)
            if repair
            else verify_output(
                output,
                on_problem=tell,
                on_progress=count,
                say=say,
                workers=workers,
                address=address,
            )
        )
    if as_json:
        problems.sort(key=lambda problem: problem.path)
        print(json.dumps(asdict(found) | {"found": list(map(asdict, problems))}, indent=2))
    else:
        print_facts(
            f"{found.output}: {'as recorded' if found.sound else 'not as recorded'}",
            {
                "outputs": f"{found.outputs:,}, {in_bytes(found.bytes)}",
                "files of records": f"{found.record_files:,}",
                "problems": f"{found.problems:,}",
                **({"repaired": f"{found.repaired:,}"} if repair else {}),
            },
        )
    if not found.sound:
        sys.exit(ExitCode.FAILURES)


def failures(output: Output, as_json: AsJson = False, debug: Debug = False) -> None:
    """List the images that failed, with code and reason."""
    from batchlight.output.lock import holder_of
    from batchlight.output.moving import failed_rows
    from batchlight.output.status import open_output

    end_with_the_reader()
    storage = open_output(output)
    if holder := holder_of(storage):
        print(
            f"{shown(str(holder))} is running on this output; "
            "listing the failures committed so far",
            file=sys.stderr,
            flush=True,
        )
    rows = failed_rows(storage)
    columns = ("input", "method", "error_code", "error")
    if as_json:
        print(json.dumps([{name: row[name] for name in columns} for row in rows], indent=2))
        return
    failed = 0
    for row in rows:
        failed += 1
        print_trouble(*(row[name] for name in columns))
    if sys.stdout.isatty():
        plain_console().print(f"[dim]{failed:,} failed[/]" if failed else "no image failed")


def report(
    output: Output,
    input_uri: Annotated[
        str | None,
        typer.Option(
            "--input", metavar="URI", help="Input of the run, to show the originals as well."
        ),
    ] = None,
    follow_links: FollowLinks = False,
    debug: Debug = False,
) -> None:
    """Regenerate the report of an output.

    A self-contained HTML page; every run creates one at its end.
    """
    from batchlight.driver.report import make_report

    print(f"the report is {shown(make_report(output, input_uri, follow_links))}")
