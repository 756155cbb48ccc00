"""The job itself on a rented GPU: a normal run, one whose actor is killed, and the benchmarks.

    python -m benchmarks.gpu.job PHOTOS OUT [--weights FILE] [--device cpu --images 4]

PHOTOS is a folder of photographs. OUT gets the enhanced images; the tables are printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import cv2
import numba
import numpy as np
import pyarrow.parquet as pq
import torch
import typer

from batchlight.config import JobConfig
from batchlight.images.pixels import Pixels
from benchmarks.absgn import against_bare, executions, model_of, precisions, read_images
from benchmarks.measuring import Table, photographs, write_photographs
from tests.support.helpers import processes_below

ACTOR = "ray::Host"
"""Ray's name for the processes that hold the network."""
WORKERS = 8
SIZES = 200
REPEATED = 3
ONE_SIZE = (600, 400)
POLL_S = 0.02
KILL_WITHIN_S = 120.0

app = typer.Typer(add_completion=False)


@app.command()
def main(
    photos: Path,
    out: Path,
    weights: Annotated[str | None, typer.Option(help="Of the full network.")] = None,
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    images: Annotated[int, typer.Option(help="Of one size, to measure with.")] = 1000,
    rounds: Annotated[int, typer.Option(help="Of each comparison.")] = 3,
    seconds: Annotated[float, typer.Option(help="Begin nothing after that.")] = 3600,
) -> None:
    """Run everything, continuing if a part fails."""
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    typer.echo(_machine())
    for name, part in _parts(photos, out, weights, device, images, rounds):
        elapsed = time.monotonic() - began
        if elapsed > seconds:
            typer.echo(f"{elapsed:.0f} s: no time is left for: {name}")
            continue
        typer.echo(f"{elapsed:.0f} s: {name}\n")
        try:
            for line in part():
                typer.echo(f"{line}\n")
        except Exception as error:  # GPU minutes are expensive: run the rest anyway
            typer.echo(f"failed: {name}: {type(error).__name__}: {error}")
    typer.echo(f"{time.monotonic() - began:.0f} s in all")


Part = tuple[str, Callable[[], Iterator[object]]]
"""Its title, and a function that runs it and yields what to print."""


def _parts(
    photos: Path, out: Path, weights: str | None, device: str, images: int, rounds: int
) -> Iterator[Part]:
    own = photographs(str(photos), out)
    one = write_photographs(own, out / "one", images, *ONE_SIZE)
    model = model_of(_config(one, weights, device))
    if device == "cuda":
        yield "precisions", lambda: iter([precisions(model, read_images(str(one)))])
    many = _many_sizes(own, out / "sizes", images)
    cases = [
        ("one size", one, weights),
        (f"{SIZES} sizes", many, weights),
        ("one size, absgn-small", _repeated(one, out / "repeated"), None),
    ]
    for name, folder, chosen in cases:
        config = _config(folder, chosen, device)
        yield name, partial(_beside_the_bare_network, config, rounds)
    if device == "cuda":
        yield "ways to run it", lambda: iter([executions(model, read_images(str(one))[0])])
    yield "a run, and one whose actor is killed", partial(_runs, photos, out, weights, device)


def _beside_the_bare_network(config: JobConfig, rounds: int) -> Iterator[object]:
    yield against_bare(config, read_images(config.input), rounds)


def _runs(photos: Path, out: Path, weights: str | None, device: str) -> Iterator[object]:
    """An undisturbed run, one whose actor is killed, and their differences."""
    options = ["--method", "absgn", "--device", device, "--workers", str(min(WORKERS, _cpus()))]
    options += ["--weights", weights] if weights else []
    runs = [
        _run(photos, out / ("killed" if kill else "calm"), options, kill) for kill in (False, True)
    ]
    yield Table("Runs", list(runs[0]), [list(run.values()) for run in runs])
    yield _compared(out / "calm", out / "killed")


def _config(folder: Path, weights: str | None, device: str) -> JobConfig:
    """The config of a measured run."""
    return JobConfig(
        input=str(folder),
        method=("absgn",),
        weights=weights,
        model="absgn-small",
        not_dark="enhance",
        device="cuda" if device == "cuda" else "cpu",
        workers=min(WORKERS * 2, _cpus()),
    )


def _repeated(folder: Path, target: Path) -> Path:
    """The same images several times, under other names: enough for a fast network."""
    target.mkdir()
    for number in range(REPEATED):
        for path in folder.iterdir():
            os.link(path, target / f"{number}-{path.name}")
    return target


def _machine() -> str:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{gpu}, {_cpus()} CPUs, Python {sys.version.split()[0]}, PyTorch {torch.__version__}, "
        f"OpenCV {cv2.__version__}, NumPy {np.__version__}, Numba {numba.__version__}"
    )


def _cpus() -> int:
    return len(os.sched_getaffinity(0))


def _run(photos: Path, output: Path, options: list[str], kill: bool) -> dict[str, Any]:
    """A run from the command line; returns how it ended."""
    command = [sys.executable, "-m", "batchlight", "run", "--input", str(photos)]
    command += ["--output", str(output), "--batch-size", "8", "--progress", "off"]
    command += ["--not-dark", "enhance", *options]
    process = subprocess.Popen(command)
    killed = _kill_actor(process, output) if kill else None
    code = process.wait()
    summary = json.loads((output / "summary.json").read_text())
    rows = pq.read_table(output / "metadata").to_pylist()
    return {
        "run": "killed" if kill else "calm",
        "killed process": killed,
        "exit code": code,
        "images": len(rows),
        "status": dict(Counter(row["status"] for row in rows)),
        "codes": dict(Counter(row["error_code"] for row in rows if row["error_code"])),
        "attempts": dict(Counter(row["attempts"] for row in rows)),
        "images/s": summary["images_per_s"],
    }


def _kill_actor(process: subprocess.Popen[bytes], output: Path) -> int | None:
    """Kill the network's process once the first batch is done; returns its process id."""
    parts = output / "_batchlight/parts"
    until = time.monotonic() + KILL_WITHIN_S
    while process.poll() is None and time.monotonic() < until:
        if parts.exists() and any(parts.iterdir()):
            for actor in processes_below(process.pid, ACTOR):
                actor.kill()
                return actor.pid
        time.sleep(POLL_S)
    return None


def _compared(one: Path, other: Path) -> str:
    """How much the images of two outputs differ."""
    differing, largest = 0, 0
    paths = sorted(path for path in (one / "absgn").rglob("*") if path.is_file())
    for path in paths:
        twin = other / path.relative_to(one)
        if path.read_bytes() != twin.read_bytes():
            differing += 1
            a, b = (np.asarray(cv2.imread(str(p)), int) for p in (path, twin))
            largest = max(largest, int(np.abs(a - b).max()))
    return f"of {len(paths)} images {differing} differ, by {largest} levels at most\n"


def _many_sizes(images: list[Pixels], folder: Path, count: int) -> Path:
    """``count`` images in ``SIZES`` sizes around ``ONE_SIZE``."""
    width, height = ONE_SIZE
    per_size = max(1, count // SIZES)
    for number in range(min(SIZES, count)):
        size = (width - 4 * (number % 50), height - 8 * (number // 50))
        write_photographs(images, folder / f"{number:03d}", per_size, *size)
    for path in folder.rglob("*.jpg"):
        path.rename(folder / f"{path.parent.name}-{path.name}")
    return folder


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app()
