"""What the job costs on tar shards beyond their pixels, and beside the same images as files.

    python -m benchmarks.shards [FOLDER]

Small images, two workers. Compared in each round: a bare process pool that reads a tar, does the
same pixels and writes a tar of the same names (no hashes, records, atomic writes, metadata, checks;
it keeps its memory as batchlight's workers do); the whole job on the same tars; and the whole job
on the same images as files.
"""

from __future__ import annotations

import io
import statistics
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from batchlight.classical import dehaze
from batchlight.classical.light import batch_light
from benchmarks.job import BATCH, PARAMETERS, pool_of, ray_with, run_on_files
from benchmarks.measuring import (
    Table,
    new_folder,
    photographs,
    ratio,
    rounds,
    show,
    write_photographs,
)

IMAGES, SIDE = 4096, 256
SHARDS = 8
WORKERS = 2
ROUNDS = 3
BAR = 1.35
"""What the job may take, in times of the bare pool."""
HEADER = (
    *("images", "workers", "pool on tars, images/s", "job on tars, images/s"),
    *("job on files, images/s", "job / pool, tars", "tars / files, time of the job"),
)


def tables(folder: str | None) -> Iterator[Table]:
    """One line."""
    with tempfile.TemporaryDirectory() as work:
        photos = photographs(folder, Path(work))
        files = write_photographs(photos, Path(work) / "files", IMAGES, SIDE, SIDE)
        tars = write_shards(files, Path(work) / "tars", SHARDS)
        line = compare(files, tars, Path(work), ROUNDS)
        yield Table("The job on tar shards", HEADER, [line])


def write_shards(files: Path, folder: Path, count: int) -> Path:
    """The same images in so many tars, each with a caption beside it."""
    folder.mkdir()
    paths = sorted(files.iterdir())
    each = -(-len(paths) // count)
    for number in range(count):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for path in paths[number * each : (number + 1) * each]:
                add(tar, path.name, path.read_bytes())
                add(tar, f"{path.stem}.txt", b"a caption")
    return folder


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """A member."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def compare(files: Path, tars: Path, work: Path, count: int) -> tuple[object, ...]:
    """The line of the table."""
    with ray_with(WORKERS), pool_of(WORKERS, tuned=True) as pool:
        contestants: dict[str, Callable[[], object]] = {
            "pool": partial(bare, pool, tars, work),
            "tars": partial(run_on_files, tars, work, WORKERS),
            "files": partial(run_on_files, files, work, WORKERS),
        }
        seconds = rounds(contestants, count)
    images = len(list(files.iterdir()))
    speeds = [f"{images / statistics.median(times):.0f}" for times in seconds.values()]
    to_pool = ratio(seconds["tars"], seconds["pool"])
    to_files = ratio(seconds["tars"], seconds["files"])
    kind = f"{SIDE}x{SIDE}"
    return kind, WORKERS, *speeds, f"{to_pool:.2f} (bar: {BAR})", f"{to_files:.2f}"


def bare(pool: ProcessPoolExecutor, source: Path, work: Path) -> None:
    """The pixels and nothing else, to new tars."""
    output = new_folder(work)
    names = sorted(path.name for path in source.iterdir())
    list(pool.map(partial(bare_shard, source, output), names))


def bare_shard(source: Path, output: Path, name: str) -> None:
    """One tar, a batch in memory at a time."""
    with tarfile.open(source / name) as old, tarfile.open(output / name, "w") as new:
        waiting: list[tuple[str, bytes]] = []
        images = 0
        for member in old:
            file = old.extractfile(member)
            assert file is not None
            waiting.append((member.name, file.read()))
            images += member.name.endswith(".jpg")
            if images == BATCH:
                write_batch(new, waiting)
                waiting, images = [], 0
        write_batch(new, waiting)


def write_batch(tar: tarfile.TarFile, members: list[tuple[str, bytes]]) -> None:
    """Members as they are, but for images, which share their mean light."""
    analysed = {}
    for name, data in members:
        if name.endswith(".jpg"):
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            assert pixels is not None
            analysed[name] = pixels, dehaze.analyse(pixels, PARAMETERS.window)
    lights = [analysis.atmospheric_light for _, analysis in analysed.values()]
    mean = batch_light(lights) or 0.0
    for name, data in members:
        if name in analysed:
            pixels, analysis = analysed[name]
            light = max(mean, analysis.atmospheric_light)
            enhanced = dehaze.enhance(pixels, analysis, light, PARAMETERS).pixels
            _, coded = cv2.imencode(".jpg", enhanced, [cv2.IMWRITE_JPEG_QUALITY, 95])
            add(tar, name, coded.tobytes())
        else:
            add(tar, name, data)


if __name__ == "__main__":
    show(tables, __doc__)
