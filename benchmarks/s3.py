"""How much of the local speed is left when images come from an object store and go to one.

    python -m benchmarks.s3 [FOLDER]

Compared in each round: the job on local files, and on a SeaweedFS that runs on this machine and so
takes its share of the same CPUs (with one worker there is a CPU for it). Then the requests of a run
are counted by a proxy in front of the store.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from uuid import uuid4

import psutil

from batchlight.host.resources import usable_cpus
from benchmarks.job import ray_with, run_job, run_on_files
from benchmarks.measuring import Table, photographs, ratio, rounds, show, write_photographs
from tests.support.faulty_proxy import FaultPlan, faulty_proxy
from tests.support.s3_server import BUCKET, S3Server, running_s3

IMAGES, WIDTH, HEIGHT = 256, 1920, 1080
ROUNDS = 3


def tables(folder: str | None) -> Iterator[Table]:
    """Throughput, and requests."""
    with tempfile.TemporaryDirectory() as work, running_s3(made(Path(work) / "s3")) as server:
        os.environ.update(server.environment)
        images = photographs(folder, Path(work))
        source = write_photographs(images, Path(work) / "in", IMAGES, WIDTH, HEIGHT)
        server.put({path.name: path.read_bytes() for path in source.iterdir()}, "in")
        yield Table(
            "From S3 to S3",
            ("workers", "local, images/s", "S3, images/s", "S3 / local", "CPU of the store"),
            list(compare(source, Path(work), ROUNDS)),
        )
        yield Table(
            f"Requests of {IMAGES} images",
            ("request", "per image", "beyond, in all"),
            list(requests(server)),
        )


def made(folder: Path) -> Path:
    """A new folder."""
    folder.mkdir()
    return folder


def compare(source: Path, work: Path, count: int) -> Iterator[tuple[object, ...]]:
    """A line for one worker, and one for as many as there are CPUs."""
    [store] = [child for child in psutil.Process().children() if child.name() == "weed"]
    for workers in sorted({1, usable_cpus()}):
        with ray_with(workers):
            contestants: dict[str, Callable[[], object]] = {
                "local": partial(run_on_files, source, work, workers),
                "S3": partial(run_on_s3, workers),
            }
            before = sum(store.cpu_times()[:2])
            seconds = rounds(contestants, count)
            used = (sum(store.cpu_times()[:2]) - before) / (count + 1) / IMAGES
        speeds = [f"{IMAGES / statistics.median(times):.1f}" for times in seconds.values()]
        share = f"{ratio(seconds['local'], seconds['S3']):.2f}"
        yield workers, *speeds, share, f"{used * 1000:.1f} ms per image"


def run_on_s3(workers: int) -> float:
    """From the bucket to a new place in it."""
    return run_job(f"s3://{BUCKET}/in", f"s3://{BUCKET}/{uuid4()}", workers)


def requests(server: S3Server) -> Iterator[tuple[object, ...]]:
    """How many requests of each kind a run sends: per image, and in addition."""
    plan = FaultPlan()
    with faulty_proxy(server.endpoint, plan) as proxy:
        os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
        run_job(f"s3://{BUCKET}/in", f"s3://{BUCKET}/{uuid4()}", 0)
    for method, sent in sorted(plan.requests.items()):
        yield method, sent // IMAGES, sent % IMAGES


if __name__ == "__main__":
    show(tables, __doc__)
