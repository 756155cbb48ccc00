"""``train`` and ``evaluate``."""

from __future__ import annotations

import functools
import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from batchlight.cli.app import AsJson, Debug, end_with_the_reader
from batchlight.cli.console import print_facts
from batchlight.cli.options import TRAIN_GROUPS, takes_options_of
from batchlight.cli.streams import forgive_stdout
from batchlight.config import TrainConfig
from batchlight.errors import shown


@takes_options_of(TrainConfig, TRAIN_GROUPS)
def train(config: TrainConfig, *, debug: Debug = False) -> None:
    """Train ABSGN on pairs of images.

    The same command again goes on after an interruption.
    """
    from batchlight.training.train import train as train_network

    forgive_stdout()
    train_network(config, functools.partial(print, flush=True))


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

    end_with_the_reader()
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
        problem = escape(shown(score.problem or ""))
        table.add_row(escape(shown(score.path)), *numbers, problem)
    Console(soft_wrap=not sys.stdout.isatty()).print(table)
    unmatched = {
        "without reference": found.without_reference,
        "without enhanced image": found.without_enhanced,
    }
    print_facts(
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
