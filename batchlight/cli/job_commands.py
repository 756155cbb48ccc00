"""``run``, ``plan``, ``preview`` and ``samples``."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from batchlight._version import __version__
from batchlight.cli.app import AsJson, Debug, end_with_the_reader
from batchlight.cli.console import print_comparison, print_facts, print_summary, telling
from batchlight.cli.options import GROUPS, PREVIEW_GROUPS, require_effect, takes_options_of
from batchlight.cli.streams import forgive_stdout
from batchlight.config import JobConfig
from batchlight.driver.settings import IMAGES, IMAGES_AT_MOST
from batchlight.errors import ExitCode, counted, in_bytes, shown
from batchlight.images.names import passed_over_in_words

if TYPE_CHECKING:
    from batchlight.driver.dry_run import DryRun
    from batchlight.driver.estimates import Estimate


@takes_options_of(JobConfig, GROUPS, require_effect)
def run(config: JobConfig, *, debug: Debug = False) -> None:
    """Enhance a data set.

    Run the same command again to resume after an interruption, or to add new images.
    """
    if config.progress == "auto" and sys.stderr.isatty():  # what follows takes a second to load
        print(f"batchlight {__version__}", file=sys.stderr, flush=True)
    from batchlight.driver.run import run as run_job
    from batchlight.host.process import keep_freed_memory

    keep_freed_memory()
    forgive_stdout()  # even if nobody can read it, the exit code counts
    summary = run_job(config)
    if config.progress == "json":
        print(json.dumps({"event": "summary", **json.loads(summary.to_json())}), flush=True)
    else:
        print_summary(summary)
    sys.exit(summary.exit_code)


@takes_options_of(JobConfig, GROUPS, require_effect)
def plan(config: JobConfig, *, as_json: AsJson = False, debug: Debug = False) -> None:
    """Show what a run would do, without writing anything."""
    from dataclasses import asdict

    from batchlight.driver.dry_run import dry_run

    end_with_the_reader()
    found = dry_run(config, estimate=True)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return
    counts = {
        "  new": found.new,
        "  changed": found.changed,
        "  to redo": found.retried,
        "done before": found.unchanged,
        "records of images that no longer exist": found.gone,
        "records not selected": found.not_selected,
        "pairs left from an interrupted run": found.left_of_stored_plan,
    }
    others = ""
    if found.others:
        size = in_bytes(found.others_bytes)
        others = f"{found.others:,}, {size}; {found.todo_others:,} to copy"
    passed_over = passed_over_in_words(found.passed_over.items())
    about = "" if found.in_containers.exact else "about "
    print_facts(
        f"{found.input} -> {found.output}",
        {
            "images": f"{about}{found.inputs:,}, {in_bytes(found.input_bytes)}",
            "to do": _todo(found),
            **{name: f"{number:,}" for name, number in counts.items() if number},
            **_of_containers(found),
            **({"other files": others} if others else {}),
            **({"passed over": passed_over} if passed_over else {}),
            **(_costs(found.estimate) if found.estimate else {}),
        },
    )


def _of_containers(found: DryRun) -> dict[str, str]:
    """The facts about containers, if there are any."""
    if not found.containers:
        return {}
    inside = found.in_containers
    looked = "" if inside.exact else f", about, from {counted(inside.looked_at, 'container')}"
    met = {"images": inside.suffixes, "other members": inside.others}
    odd = {"named twice": inside.named_twice, "would fail": len(inside.unreadable)}
    reasons = (f"{path}: {reason}" for path, reason in inside.unreadable.items())
    return {
        "containers": f"{found.containers:,}; {found.todo_containers:,} to do",
        "  images to do": f"{inside.images:,}, {in_bytes(inside.image_bytes)}{looked}",
        **{
            f"  {name}": ", ".join(
                f"{number:,} {suffix or 'others'}" for suffix, number in of.items()
            )
            for name, of in met.items()
            if of
        },
        **{f"  {name}": f"{number:,}" for name, number in odd.items() if number},
        **({"  first of them": next(reasons)} if inside.unreadable else {}),
        **(
            {"beside containers": f"{found.beside:,}, which are copied along"}
            if found.beside
            else {}
        ),
    }


def _costs(estimate: Estimate) -> dict[str, str]:
    megapixels = f"{estimate.megapixels:,.1f} megapixels at {estimate.ms_per_megapixel:.0f} ms"
    costs = {"estimate from": f"{estimate.based_on}: {megapixels} of CPU each"}
    if estimate.seconds is not None:
        costs["time"] = _about(estimate.seconds)
        costs["time"] += f" with {counted(estimate.workers, 'worker')}" if estimate.workers else ""
    costs["CPU time"] = _about(3600 * estimate.cpu_hours)
    if estimate.gpu_hours is None:
        costs["GPU time"] = "not known before some images are done"
    elif estimate.gpu_hours:
        costs["GPU time"] = f"about {estimate.gpu_hours:.2f} GPU hours"
    costs["written"] = f"about {in_bytes(estimate.output_bytes)}"
    if estimate.requests:
        requests = ", ".join(f"{number:,} {kind}" for kind, number in estimate.requests.items())
        price = ""
        if estimate.price_usd is not None:
            price = f": ${estimate.price_usd:.2f} at list prices of S3 ({estimate.prices_as_of})"
        costs["requests"] = f"about {requests}{price}"
    if estimate.warning:
        costs["note"] = estimate.warning
    return costs


def _about(seconds: float) -> str:
    from batchlight.driver.progress import duration

    return f"about {duration(seconds)}" if seconds >= 0.5 else "less than 1 s"


def _todo(found: DryRun) -> str:
    if not found.todo and not found.todo_containers:
        return "0"
    pairs = "" if found.todo_pairs == found.todo else f" ({found.todo_pairs:,} pairs)"
    about = "" if found.in_containers.exact else "about "
    where = []
    if number := found.batches - found.todo_containers:
        where.append(f"{number:,} batch" + "es" * (number != 1) + f" of {found.batch_size}")
    if found.todo_containers:
        where.append(counted(found.todo_containers, "container"))
    what = f"{about}{found.todo:,}{pairs}, {in_bytes(found.todo_bytes)}"
    return f"{what}, in {' and '.join(where)}"


@takes_options_of(JobConfig, PREVIEW_GROUPS)
def preview(
    config: JobConfig,
    *,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--setting",
            metavar="'NAME=VALUE ...'",
            help="Options of a run to compare, such as 'omega=0.8 t0=0.05'; '': none; repeatable.",
        ),
    ] = None,
    images: Annotated[
        int,
        typer.Option(
            "--images",
            metavar="N",
            help=f"How many to show, up to {IMAGES_AT_MOST}. (default: {IMAGES})",
            show_default=False,
        ),
    ] = IMAGES,
    page: Annotated[
        str | None,
        typer.Option("--output", metavar="FILE", help="The page. (default: preview.html)"),
    ] = None,
    png: Annotated[
        bool, typer.Option("--png", help="Write a PNG image (preview.png) instead.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Compare settings on a few images, darkest to brightest, on one page.

    Writes only this page; without --setting, a few useful settings are compared.
    """
    from batchlight.driver.preview import preview as make_preview
    from batchlight.host.process import keep_freed_memory

    keep_freed_memory()
    with telling() as on_step:
        found = make_preview(
            config, setting or (), page=page, images=images, png=png, on_step=on_step
        )
    print_comparison(found)
    if not found.shown:
        sys.exit(ExitCode.FAILURES)


def samples(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Where to write them.")],
    debug: Debug = False,
) -> None:
    """Write a few dark images to try a run on."""
    from batchlight.cli.samples import write_samples

    written = write_samples(folder)
    print(
        f"{len(written)} dark images are in {shown(folder)}; "
        f"now: batchlight run --input {shown(shlex.quote(folder))}"
    )
