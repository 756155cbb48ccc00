"""``run``, ``plan`` and ``samples``."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from batchlight.cli.app import AsJson, Debug, end_with_the_reader
from batchlight.cli.console import in_bytes, print_facts, print_summary
from batchlight.cli.options import GROUPS, takes_options_of
from batchlight.cli.streams import forgive_stdout
from batchlight.config import JobConfig


@takes_options_of(JobConfig, GROUPS)
def run(config: JobConfig, *, debug: Debug = False) -> None:
    """Enhance a data set.

    Run the same command again to go on after an interruption, and whenever images are new.
    """
    from batchlight.driver.run import run as run_job
    from batchlight.host.process import keep_freed_memory

    keep_freed_memory()
    forgive_stdout()  # if nobody can read it, the exit code still counts
    summary = run_job(config)
    if config.progress == "json":
        print(json.dumps({"event": "summary", **json.loads(summary.to_json())}), flush=True)
    else:
        print_summary(summary)
    sys.exit(summary.exit_code)


@takes_options_of(JobConfig, GROUPS)
def plan(config: JobConfig, *, as_json: AsJson = False, debug: Debug = False) -> None:
    """Show what a run would do, without writing anything."""
    from dataclasses import asdict

    from batchlight.driver.dry_run import dry_run

    end_with_the_reader()
    found = dry_run(config)
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
    print_facts(
        f"{found.input} -> {found.output}",
        {
            "images": f"{found.inputs:,}, {in_bytes(found.input_bytes)}",
            "to do": f"{found.todo:,}, {in_bytes(found.todo_bytes)}, batches: {found.batches:,}",
            **{name: f"{number:,}" for name, number in counts.items() if number},
        },
    )


def samples(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Where to write them.")],
    debug: Debug = False,
) -> None:
    """Write a few dark images, to try a run at once."""
    from batchlight.cli.samples import write_samples

    written = write_samples(folder)
    print(f"{len(written)} dark images are in {folder}; now: batchlight run --input {folder}")
