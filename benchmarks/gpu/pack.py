"""Pack training pictures into a folder that is small enough to be sent to a rented GPU.

    python -m benchmarks.gpu.pack PACK --pairs DIR [--native DIR] [--clean DIR ...] [--check DIR]

PACK then contains what ``benchmarks.gpu.train`` reads:

    pairs/{low,high}     square pairs, the dark side lossless
    native/low           dark pictures from the camera; their truth is the pair of that name
    clean/N              well-lit pictures
    check/{low,high}     pairs that are only scored, never trained on
    held_out.txt         names of pairs that are not trained on either, scene by scene
    known_scenes.txt     names of more of them, whose scenes have other pairs in the training
    contents.json        how many files each folder has, to detect losses on the way
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import typer

from batchlight.training.pairs import find_pairs, split_by_scene
from benchmarks.gpu import CONTENTS, HELD_OUT, KNOWN_SCENES

LOSSLESS = 101
"""OpenCV's value for WebP: above 100."""
HIGH_QUALITY, CLEAN_QUALITY = 92, 88
LARGEST_CLEAN = 600
"""Longer side of a well-lit picture, in pixels."""
JPEG_SHRINK = 0.8
"""Well-lit JPEG pictures are shrunk at least by this factor, removing most JPEG artefacts."""

app = typer.Typer(add_completion=False)


@app.command()
def main(
    pack: Path,
    pairs: Annotated[Path, typer.Option(help="A folder with low/ and high/.")],
    native: Annotated[Path | None, typer.Option(help="A folder with low/.")] = None,
    clean: Annotated[list[Path] | None, typer.Option(help="Well-lit pictures.")] = None,
    check: Annotated[Path | None, typer.Option(help="A folder with low/ and high/.")] = None,
    validation: Annotated[float, typer.Option(help="Share of the pairs to hold out.")] = 0.05,
    hold_out: Annotated[
        str, typer.Option(help="Names of more, with commas; not their scenes.")
    ] = "",
) -> None:
    """Write the pack."""
    found = find_pairs(str(pairs))
    _, apart = split_by_scene(found, validation, seed=0)
    scenes = {pair.name for pair in apart}
    alone = set(filter(None, hold_out.split(","))) - scenes
    pack.mkdir(parents=True)
    for file, names in ((HELD_OUT, scenes), (KNOWN_SCENES, alone)):
        (pack / file).write_text("".join(f"{name}\n" for name in sorted(names)))
    natives = {path.stem for path in (native / "low").iterdir()} if native else set()
    # If a pair's dark picture exists at native size, that one serves, shrunk.
    dark = [pairs / pair.low for pair in found if pair.name not in natives]
    jobs = [
        *_to(pack / "pairs/low", dark, LOSSLESS),
        *_to(pack / "pairs/high", [pairs / pair.high for pair in found], HIGH_QUALITY),
    ]
    if native:
        jobs += _to(pack / "native/low", (native / "low").iterdir(), LOSSLESS)
    for number, folder in enumerate(clean or []):
        jobs += _to(pack / f"clean/{number}", folder.iterdir(), CLEAN_QUALITY, LARGEST_CLEAN)
    if check:
        jobs += _to(pack / "check/low", (check / "low").iterdir(), LOSSLESS)
        jobs += _to(pack / "check/high", (check / "high").iterdir(), HIGH_QUALITY)
    with ThreadPoolExecutor() as pool:
        list(pool.map(_write, jobs))
    folders = Counter(str(job.target.parent.relative_to(pack)) for job in jobs)
    (pack / CONTENTS).write_text(json.dumps(folders, indent=1))
    size = sum(path.stat().st_size for path in pack.rglob("*") if path.is_file())
    typer.echo(
        f"{len(jobs)} pictures, {size / 2**20:.1f} MiB, {len(scenes | alone)} pairs held out"
    )


@dataclass(frozen=True)
class _Job:
    source: Path
    target: Path
    quality: int
    largest: int | None
    """Longer side that the picture is shrunk to; None: it is not shrunk."""


def _to(
    folder: Path, sources: Iterable[Path], quality: int, largest: int | None = None
) -> list[_Job]:
    folder.mkdir(parents=True)
    return [_Job(path, folder / f"{path.stem}.webp", quality, largest) for path in sources]


def _write(job: _Job) -> None:
    image = cv2.imread(str(job.source), cv2.IMREAD_COLOR)
    if image is None:
        raise SystemExit(f"cannot read {job.source}")
    if job.largest is not None:
        height, width = image.shape[:2]
        was_jpeg = job.source.suffix.lower() in (".jpg", ".jpeg")
        scale = min(JPEG_SHRINK if was_jpeg else 1.0, job.largest / max(height, width))
        if scale < 1:
            size = (round(width * scale), round(height * scale))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if not cv2.imwrite(str(job.target), image, [cv2.IMWRITE_WEBP_QUALITY, job.quality]):
        raise SystemExit(f"cannot write {job.target}")


if __name__ == "__main__":
    app()
