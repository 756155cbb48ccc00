"""Shared by the benchmarks: images to measure with, and how to compare two things.

Machines are noisy and neighbours come and go, so nothing is compared with a figure from another
day: the things to compare run one after another in each round, each round gives a ratio, and only
the median of the ratios counts.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2

from batchlight.cli.samples import write_samples
from batchlight.images.pixels import Pixels

JPEG_QUALITY = 90


def rounds(contestants: Mapping[str, Callable[[], object]], count: int) -> dict[str, list[float]]:
    """Seconds that each contestant takes in each of ``count`` rounds, after a warm-up round.

    A contestant may return a number of seconds that are measured separately.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(count + 1):
        for name, run in contestants.items():
            os.sync()  # writes that one left to the kernel must not slow the next one
            started = time.perf_counter()
            apart = run()
            taken = time.perf_counter() - started
            if number:
                seconds[name].append(taken - (apart if isinstance(apart, float) else 0.0))
    return seconds


def new_folder(work: Path) -> Path:
    """A folder for the files of one contestant in one round.

    Not one that is emptied each time: ext4 is several times slower at creating files for some
    seconds where files were just deleted.
    """
    return Path(tempfile.mkdtemp(dir=work))


def ratio(ones: Sequence[float], others: Sequence[float]) -> float:
    """The median, over the rounds, of one's seconds divided by the other's."""
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def milliseconds(seconds: Sequence[float], per: int = 1) -> str:
    """The median, for a table."""
    return f"{statistics.median(seconds) / per * 1000:.2f}"


def photographs(folder: str | None, work: Path) -> list[Pixels]:
    """The images of a folder; without one, batchlight's samples."""
    if folder is None:
        folder = str(work / "samples")
        write_samples(folder)
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    images = [cv2.imread(str(path)) for path in paths]
    return [image for image in images if image is not None]


def write_photographs(
    images: Sequence[Pixels], folder: Path, count: int, width: int, height: int
) -> Path:
    """``count`` different JPEGs of one size: resized and, from the second round on, shifted."""
    folder.mkdir(parents=True)
    for number in range(count):
        image = images[number % len(images)]
        if (image.shape[0] > image.shape[1]) != (height > width):
            image = cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE)
        shift = number // len(images) * 8
        resized = cv2.resize(image, (width + shift, height + shift), interpolation=cv2.INTER_CUBIC)
        path = str(folder / f"{number:06d}.jpg")
        cv2.imwrite(path, resized[shift:, shift:], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return folder


@dataclass(frozen=True)
class Table:
    """The result of a benchmark."""

    title: str
    header: Sequence[str]
    lines: Sequence[Sequence[object]]

    def __str__(self) -> str:
        """As Markdown."""
        rows = [self.header, ["---"] * len(self.header), *self.lines]
        return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def show(tables: Callable[[str | None], Iterable[Table]], usage: str | None) -> None:
    """The command line of a benchmark: an optional folder of photographs to measure with."""
    if len(sys.argv) > 2:
        sys.exit(usage)
    for table in tables(sys.argv[1] if len(sys.argv) == 2 else None):
        print(f"{table.title}\n\n{table}\n", flush=True)


@contextmanager
def watching(look: Callable[[], None], every_s: float) -> Iterator[None]:
    """Call ``look`` periodically during the block."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(every_s):
            look()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
