"""What the whole job costs beyond its pixels, and how it scales with workers.

    python -m benchmarks.job [FOLDER]

Compared in each round: a bare process pool that computes the same pixels (reads, decodes, takes the
batch's mean light, enhances, encodes, writes; no hashes, records, atomic writes, metadata, checks);
the same pool tuned, keeping memory and writing durable files as batchlight's workers do; and the
whole job on Ray from the listing to the summary, which writes the same bytes. Its report is listed
separately, since it takes a second or two for any number of images.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

import batchlight
from batchlight.classical import dehaze
from batchlight.classical.light import batch_light
from batchlight.config import JobConfig
from batchlight.host.process import keep_freed_memory
from batchlight.host.resources import usable_cpus
from benchmarks.measuring import (
    Table,
    new_folder,
    photographs,
    ratio,
    rounds,
    show,
    write_photographs,
)

BATCH = 64
PARAMETERS = dehaze.DehazeParameters.of(JobConfig(input="."))
KINDS = {"1920x1080": (256, 1920, 1080), "256x256": (4096, 256, 256)}
ROUNDS = 3
TITLE = "The job beside a bare process pool"
HEADER = (
    *("images", "workers", "pool, images/s", "tuned pool, images/s", "job, images/s"),
    *("job / pool, time", "job / tuned pool, time", "against one worker: pool", "job"),
)


def tables(folder: str | None) -> Iterator[Table]:
    """For large images and for small ones."""
    with tempfile.TemporaryDirectory() as work:
        images = photographs(folder, Path(work))
        lines: list[tuple[object, ...]] = []
        for kind, (count, width, height) in KINDS.items():
            source = write_photographs(images, Path(work) / kind, count, width, height)
            lines += compare(kind, source, Path(work), usable_cpus(), ROUNDS)
        yield Table(TITLE, HEADER, lines)


def compare(
    kind: str, source: Path, work: Path, most: int, count: int
) -> Iterator[tuple[object, ...]]:
    """A line for one worker, and one for all CPUs."""
    images = len(list(source.iterdir()))
    alone: dict[str, list[float]] = {}
    for workers in sorted({1, most}):
        with ray_with(workers), pool_of(workers, False) as pool, pool_of(workers, True) as tuned:
            contestants: dict[str, Callable[[], object]] = {
                "pool": partial(bare, pool, source, work, durable=False),
                "tuned pool": partial(bare, tuned, source, work, durable=True),
                "job": partial(run_on_files, source, work, workers),
            }
            seconds = rounds(contestants, count)
        alone = alone or seconds
        speeds = [f"{images / statistics.median(times):.0f}" for times in seconds.values()]
        shares = [f"{ratio(seconds['job'], seconds[name]):.2f}" for name in ("pool", "tuned pool")]
        gains = [f"{ratio(alone[name], seconds[name]):.2f}" for name in ("pool", "job")]
        yield kind, workers, *speeds, *shares, *gains


@contextmanager
def ray_with(workers: int) -> Iterator[None]:
    """A running Ray, since its start is measured separately."""
    import ray

    ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def pool_of(workers: int, tuned: bool) -> Iterator[ProcessPoolExecutor]:
    """Processes; if tuned, set up like batchlight's workers."""
    with ProcessPoolExecutor(workers, get_context("spawn"), _set_up, (tuned,)) as pool:
        yield pool


def _set_up(tuned: bool) -> None:
    cv2.setNumThreads(1)
    if tuned:
        keep_freed_memory()


def run_job(source: str, output: str, workers: int) -> float:
    """The whole job, from the listing to the summary. Returns the seconds of the report.

    These are the same for any number of images, and would only blur the comparison of speeds.
    """
    config = JobConfig(
        input=source,
        output=output,
        workers=workers,
        batch_size=BATCH,  # as for the larger data set that these images stand for
        not_dark="enhance",  # whatever the photographs are
        progress="off",
        max_failures="100%",
    )
    summary = batchlight.run(config)
    assert summary.missing == 0, summary.reason
    return summary.report_s


def run_on_files(source: Path, work: Path, workers: int) -> float:
    """From one folder to a new one."""
    return run_job(str(source), str(new_folder(work)), workers)


def bare(pool: ProcessPoolExecutor, source: Path, work: Path, durable: bool) -> None:
    """The pixels and nothing else, to a new folder."""
    output = new_folder(work)
    names = sorted(os.listdir(source))
    batches = [names[at : at + BATCH] for at in range(0, len(names), BATCH)]
    list(pool.map(partial(bare_batch, str(source), str(output), durable), batches))


def bare_batch(source: str, output: str, durable: bool, names: list[str]) -> None:
    """One batch, all of it in memory while its mean is not known."""
    analysed = []
    for name in names:
        with open(os.path.join(source, name), "rb") as file:
            pixels = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
        assert pixels is not None
        analysed.append((name, pixels, dehaze.analyse(pixels, PARAMETERS.window)))
    mean = batch_light([analysis.atmospheric_light for _, _, analysis in analysed]) or 0.0
    for name, pixels, analysis in analysed:
        light = max(mean, analysis.atmospheric_light)
        enhanced = dehaze.enhance(pixels, analysis, light, PARAMETERS).pixels
        _, data = cv2.imencode(".jpg", enhanced, [cv2.IMWRITE_JPEG_QUALITY, 95])
        with open(os.path.join(output, name), "wb") as file:
            file.write(data.tobytes())
            if durable:
                file.flush()
                os.fsync(file.fileno())


if __name__ == "__main__":
    show(tables, __doc__)
