"""A worker's peak memory, for small and for large batches of large images.

python -m benchmarks.memory [FOLDER]
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

import batchlight
from batchlight.config import JobConfig
from benchmarks.job import ray_with
from benchmarks.measuring import Table, photographs, show, watching, write_photographs

WIDTH, HEIGHT = 6000, 4000
DIFFERENT = 8
BATCHES = (8, 64)
LOOK_EVERY_S = 0.2


def tables(folder: str | None) -> Iterator[Table]:
    """A line for each batch size."""
    with tempfile.TemporaryDirectory() as work:
        images = photographs(folder, Path(work))
        few = write_photographs(images, Path(work) / "few", DIFFERENT, WIDTH, HEIGHT)
        lines = []
        for count in BATCHES:
            source = Path(work) / f"in{count}"
            source.mkdir()
            for number in range(count):
                os.link(few / f"{number % DIFFERENT:06d}.jpg", source / f"{number:06d}.jpg")
            lines.append(
                (count, f"{peak_of_worker(source, Path(work) / f'out{count}', count):.0f}")
            )
        header = ("24-megapixel images in a batch", "peak of the worker, MB")
        yield Table("The memory of a worker", header, lines)


def peak_of_worker(source: Path, output: Path, batch: int) -> float:
    """Peak resident memory in MB."""
    peaks = [0]

    def look() -> None:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if "".join(process.cmdline()[:1]).startswith("ray::"):
                    peaks.append(process.memory_info().rss)

    config = JobConfig(
        input=str(source),
        output=str(output),
        workers=1,
        batch_size=batch,
        not_dark="enhance",
        progress="off",
        max_failures="100%",
    )
    with ray_with(1), watching(look, LOOK_EVERY_S):
        assert batchlight.run(config).missing == 0
    return max(peaks) / 2**20


if __name__ == "__main__":
    show(tables, __doc__)
