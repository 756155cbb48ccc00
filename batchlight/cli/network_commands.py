"""``train`` and ``evaluate``."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from batchlight.cli.app import AsJson, Debug, end_with_the_reader
from batchlight.cli.console import Counting, counting, print_facts
from batchlight.cli.options import TRAIN_GROUPS, takes_options_of
from batchlight.errors import UsageError
from batchlight.training.config import TrainConfig


@takes_options_of(TrainConfig, TRAIN_GROUPS)
def train(config: TrainConfig, *, debug: Debug = False) -> None:
    """Train ABSGN on pairs of images.

    The same command again goes on after an interruption.
    """
    from batchlight.training.train import train as train_network

    train_network(config, functools.partial(print, flush=True))


def evaluate(
    enhanced: Annotated[
        list[str],
        typer.Option("--enhanced", metavar="DIR", help="Enhanced images; can be repeated."),
    ],
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="DIR", help="What they should look like."),
    ] = None,
    inputs: Annotated[
        str | None,
        typer.Option("--input", metavar="DIR", help="What they were made of, if no reference."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option("--size", min=7, metavar="N", help="Compare all of them at N x N pixels."),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure enhanced images: PSNR and SSIM against references, or what can be told without.

    Images are compared with those of the same relative path, never by order.
    """
    end_with_the_reader()
    if reference is not None and inputs is not None:
        raise UsageError("--reference and --input exclude each other; give one of them")
    if reference is None and size is not None:
        raise UsageError("--size is for comparing with a --reference; leave it out")
    with counting() as count:
        if reference is not None:
            _evaluate(enhanced, reference, size, as_json, count)
        else:
            _survey(enhanced, inputs, as_json, count)


def _evaluate(
    enhanced: Sequence[str], reference: str, size: int | None, as_json: bool, count: Counting
) -> None:
    from batchlight.training.evaluate import evaluate as compare

    found = [compare(folder, reference, count(folder), size) for folder in enhanced]
    if as_json:
        _print_json([each.to_dict() for each in found])
        return
    for each in found:
        if len(found) == 1:
            rows = [
                (s.path, *_numbers((s.psnr, 2), (s.ssim, 4)), s.problem or "") for s in each.scores
            ]
            _print_table(("image", "PSNR", "SSIM", ""), rows)
        unmatched = {
            "without reference": each.without_reference,
            "without enhanced image": each.without_enhanced,
        }
        print_facts(
            each.enhanced if len(found) > 1 else "",
            {
                "images": f"{each.images:,}",
                "PSNR": "" if each.psnr is None else f"{each.psnr:.2f} dB",
                "SSIM": "" if each.ssim is None else f"{each.ssim:.4f}",
                **_at_mean(each.psnr_at_mean, each.ssim_at_mean),
                **(
                    {"not compared": f"{each.images - each.scored:,}"}
                    if each.images > each.scored
                    else {}
                ),
                **({"identical": f"{each.identical:,}"} if each.identical else {}),
                **{
                    name: f"{some.count:,}, such as {', '.join(some.first)}"
                    for name, some in unmatched.items()
                    if some.count
                },
            },
        )


def _survey(enhanced: Sequence[str], inputs: str | None, as_json: bool, count: Counting) -> None:
    from batchlight.training.survey import survey

    found = [survey(folder, inputs, count(folder)) for folder in enhanced]
    if as_json:
        _print_json([each.to_dict() for each in found])
        return
    for each in found:
        if len(found) == 1:
            rows = [
                (
                    s.path,
                    *_numbers(
                        (s.luminance_before, 3), (s.luminance, 3), (s.clipped, 4), (s.noise, 2)
                    ),
                    s.problem or "darker" * s.is_darker,
                )
                for s in each.sights
            ]
            _print_table(("image", "before", "luminance", "clipped", "noise", ""), rows)
        before, after, clipped, noise = _numbers(
            (each.luminance_before, 3), (each.luminance, 3), (each.clipped, 4), (each.noise, 2)
        )
        facts = {
            "images": f"{each.images:,}",
            "not seen": f"{each.images - each.seen:,}" if each.images > each.seen else "",
            "became darker": "" if each.darker is None else f"{each.darker:,}",
            "luminance before": before,
            "luminance": after,
            "clipped": f"{clipped}, more than 3 % in {each.much_clipped:,} images",
            "noise": f"{noise} of 255",
        }
        title = each.enhanced if len(found) > 1 else ""
        print_facts(title, {name: text for name, text in facts.items() if text})


def _at_mean(psnr: float | None, ssim: float | None) -> dict[str, str]:
    if psnr is None or ssim is None:
        return {}
    return {"at the reference's mean": f"{psnr:.2f} dB, {ssim:.4f}"}


def _numbers(*values: tuple[float | None, int]) -> list[str]:
    """With so many digits each; nothing for what is not known."""
    return ["" if value is None else f"{value:.{digits}f}" for value, digits in values]


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(escape, row))
    Console(soft_wrap=not sys.stdout.isatty()).print(table)


def _print_json(found: Sequence[Mapping[str, Any]]) -> None:
    """An object for one folder, a list for several."""
    print(json.dumps(found[0] if len(found) == 1 else found, indent=2))
