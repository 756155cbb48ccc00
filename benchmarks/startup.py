"""How long it takes until anything happens.

python -m benchmarks.startup [FOLDER]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchlight.host.resources import usable_cpus
from benchmarks.job import ray_with, run_job
from benchmarks.measuring import Table, photographs, show, watching, write_photographs

IMAGES, WIDTH, HEIGHT = 64, 1920, 1080
ROUNDS = 5
LOOK_EVERY_S = 0.005
COMMAND = Path(sys.executable).with_name("batchlight")


def tables(folder: str | None) -> Iterator[Table]:
    """A line for each delay."""
    with tempfile.TemporaryDirectory() as work:
        images = photographs(folder, Path(work))
        source = write_photographs(images, Path(work) / "in", IMAGES, WIDTH, HEIGHT)
        waits: dict[str, list[float]] = {}
        for number in range(ROUNDS):
            out = Path(work) / f"out{number}"
            fresh = {"NUMBA_CACHE_DIR": str(Path(work) / f"kernels{number}")}
            ray, first = first_image(source, out)
            for what, seconds in (
                ("`batchlight --help`", help_text()),
                ("Ray starts", ray),
                ("from then to the first image written", first),
                ("`batchlight run`, to the first image", command(source, out / "again", {})),
                ("the same on a new installation", command(source, out / "fresh", fresh)),
            ):
                waits.setdefault(what, []).append(seconds)
        lines = [(what, f"{statistics.median(found):.2f}") for what, found in waits.items()]
        yield Table("Waiting", ("what", "s"), lines)


def help_text() -> float:
    """Time in seconds."""
    started = time.perf_counter()
    subprocess.run([COMMAND, "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def command(source: Path, output: Path, environment: dict[str, str]) -> float:
    """Seconds until the first image exists."""
    options = ("--progress", "off", "--max-failures", "100%")
    with watched(output) as seen:
        started = time.perf_counter()
        subprocess.run(
            [COMMAND, "run", "--input", source, "--output", output, *options],
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            check=True,
        )
    return seen[0] - started


def first_image(source: Path, output: Path) -> tuple[float, float]:
    """Seconds until Ray is up, and from then until the first image exists."""
    started = time.perf_counter()
    with ray_with(usable_cpus()), watched(output) as seen:
        up = time.perf_counter()
        run_job(str(source), str(output), usable_cpus())
    return up - started, seen[0] - up


@contextmanager
def watched(output: Path) -> Iterator[list[float]]:
    """The time at which the first image appears, once it has."""
    seen: list[float] = []

    def look() -> None:
        if not seen and any((output / "classical").glob("*.jpg")):
            seen.append(time.perf_counter())

    with watching(look, LOOK_EVERY_S):
        yield seen


if __name__ == "__main__":
    show(tables, __doc__)
