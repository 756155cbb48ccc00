"""``train`` and ``evaluate``."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Protocol, TypeVar

import typer
from rich.markup import escape
from rich.table import Table

from batchlight.cli.app import AsJson, Debug, end_with_the_reader
from batchlight.cli.console import Counting, counting, plain_console, print_facts
from batchlight.cli.options import TRAIN_GROUPS, takes_options_of
from batchlight.cli.streams import forgive_stdout
from batchlight.errors import ExitCode, UsageError, shown
from batchlight.training.config import TrainConfig

Rows = Iterable[Sequence[str]]


@takes_options_of(TrainConfig, TRAIN_GROUPS)
def train(config: TrainConfig, *, debug: Debug = False) -> None:
    """Train ABSGN on pairs of images.

    Run the same command again to resume after an interruption.
    """
    from batchlight.training.train import train as train_network

    forgive_stdout()
    train_network(config, functools.partial(print, flush=True))


def evaluate(
    enhanced: Annotated[
        list[str],
        typer.Option("--enhanced", metavar="DIR", help="Folder of enhanced images; repeatable."),
    ],
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="DIR", help="Reference images to compare with."),
    ] = None,
    inputs: Annotated[
        str | None,
        typer.Option(
            "--input", metavar="DIR", help="The input images, if there is no --reference."
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--size", metavar="N", help="Resize both to N x N pixels before comparing, 7 to 4096."
        ),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure enhanced images: PSNR and SSIM against references, or luminance and noise without.

    Images are compared with those of the same relative path, never by order.
    """
    end_with_the_reader()
    if reference is not None and inputs is not None:
        raise UsageError("--reference and --input cannot be combined; give one of them")
    if reference is None and size is not None:
        raise UsageError("--size needs a --reference to compare with; leave it out")
    with counting() as count:
        if reference is not None:
            measured = _evaluate(enhanced, reference, size, as_json, count)
        else:
            measured = _survey(enhanced, inputs, as_json, count)
    if not all(measured):
        sys.exit(ExitCode.FAILURES)


class _Found(Protocol):
    """Measurements of one folder of enhanced images."""

    @property
    def enhanced(self) -> str: ...

    def to_dict(self) -> dict[str, Any]: ...


F = TypeVar("F", bound=_Found)


def _evaluate(
    enhanced: Sequence[str], reference: str, size: int | None, as_json: bool, count: Counting
) -> list[int]:
    """How many images of each folder have a score."""
    from batchlight.training.evaluate import Evaluation
    from batchlight.training.evaluate import evaluate as compare

    def rows(each: Evaluation) -> Rows:
        for s in each.scores:
            yield s.path, *_numbers((s.psnr, 2), (s.ssim, 4)), s.problem or ""

    def facts(each: Evaluation) -> Mapping[str, str]:
        unmatched = {
            "without reference": each.without_reference,
            "without enhanced image": each.without_enhanced,
        }
        not_compared = each.images - each.scored
        return {
            "images": f"{each.images:,}",
            "PSNR": "" if each.psnr is None else f"{each.psnr:.2f} dB",
            "SSIM": "" if each.ssim is None else f"{each.ssim:.4f}",
            **_at_mean(each.psnr_at_mean, each.ssim_at_mean),
            **({"not compared": f"{not_compared:,}"} if not_compared else {}),
            **({"identical": f"{each.identical:,}"} if each.identical else {}),
            **{
                name: f"{some.count:,}, such as {', '.join(some.first)}"
                for name, some in unmatched.items()
                if some.count
            },
        }

    found = [compare(folder, reference, count(folder), size) for folder in enhanced]
    _print_found(found, as_json, ("image", "PSNR", "SSIM", ""), rows, facts)
    return [each.scored for each in found]


def _survey(
    enhanced: Sequence[str], inputs: str | None, as_json: bool, count: Counting
) -> list[int]:
    """How many images of each folder could be seen."""
    from batchlight.training.survey import Survey, survey

    def rows(each: Survey) -> Rows:
        for s in each.sights:
            numbers = _numbers(
                (s.luminance_before, 3), (s.luminance, 3), (s.clipped, 4), (s.noise, 2)
            )
            yield s.path, *numbers, s.problem or "darker" * s.is_darker

    def facts(each: Survey) -> Mapping[str, str]:
        before, after, clipped, noise = _numbers(
            (each.luminance_before, 3), (each.luminance, 3), (each.clipped, 4), (each.noise, 2)
        )
        found = {
            "images": f"{each.images:,}",
            "not seen": f"{each.images - each.seen:,}" if each.images > each.seen else "",
            "became darker": "" if each.darker is None else f"{each.darker:,}",
            "luminance before": before,
            "luminance": after,
            "clipped": f"{clipped}, more than 3 % in {each.much_clipped:,} images",
            "noise": f"{noise} of 255",
        }
        return {name: text for name, text in found.items() if text}

    found = [survey(folder, inputs, count(folder)) for folder in enhanced]
    header = ("image", "before", "luminance", "clipped", "noise", "")
    _print_found(found, as_json, header, rows, facts)
    return [each.seen for each in found]


def _print_found(
    found: Sequence[F],
    as_json: bool,
    header: Sequence[str],
    rows: Callable[[F], Rows],
    facts: Callable[[F], Mapping[str, str]],
) -> None:
    """The measurements of each folder, and of the images of a single one.

    As JSON, an object for one folder, a list for several.
    """
    if as_json:
        known = [each.to_dict() for each in found]
        print(json.dumps(known[0] if len(known) == 1 else known, indent=2))
        return
    for each in found:
        if len(found) == 1:
            _print_table(header, rows(each))
        print_facts(each.enhanced if len(found) > 1 else "", facts(each))


def _at_mean(psnr: float | None, ssim: float | None) -> dict[str, str]:
    if psnr is None or ssim is None:
        return {}
    return {"at the reference's mean": f"{psnr:.2f} dB, {ssim:.4f}"}


def _numbers(*values: tuple[float | None, int]) -> list[str]:
    """Values with the given number of digits; empty for unknown ones."""
    return ["" if value is None else f"{value:.{digits}f}" for value, digits in values]


def _print_table(columns: Sequence[str], rows: Rows) -> None:
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(escape(shown(text)) for text in row))
    plain_console(soft_wrap=not sys.stdout.isatty()).print(table)
