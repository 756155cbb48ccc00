"""What the job costs on tar and Parquet shards beyond their pixels, and compared with loose files.

    python -m benchmarks.shards [FOLDER]

Small images, two workers. Compared in each round: a bare process pool that reads a shard, computes
the same pixels and writes a shard with the same names (no hashes, records, atomic writes, metadata,
checks; it keeps its memory as batchlight's workers do); the whole job on the same shards; and the
whole job on the same images as files.
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
import pyarrow as pa
import pyarrow.parquet as pq

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
"""Limit for the job's time, as a multiple of the bare pool's."""
HEADER = (
    *("shards", "images", "workers", "pool on shards, images/s", "job on shards, images/s"),
    *("job on files, images/s", "job / pool", "shards / files, time of the job"),
)


def tables(folder: str | None) -> Iterator[Table]:
    """One line for each kind of shard."""
    with tempfile.TemporaryDirectory() as work:
        photos = photographs(folder, Path(work))
        files = write_photographs(photos, Path(work) / "files", IMAGES, SIDE, SIDE)
        tars = write_shards(files, Path(work) / "tars", SHARDS)
        tables = write_tables(files, Path(work) / "parquet", SHARDS)
        lines = [
            compare("tar", files, tars, bare_tar, Path(work), ROUNDS),
            compare("Parquet", files, tables, bare_table, Path(work), ROUNDS),
        ]
        yield Table("The job on shards", HEADER, lines)


def write_shards(files: Path, folder: Path, count: int) -> Path:
    """The same images in ``count`` tars, each with a caption beside it."""
    folder.mkdir()
    paths = sorted(files.iterdir())
    each = -(-len(paths) // count)
    for number in range(count):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for path in paths[number * each : (number + 1) * each]:
                add(tar, path.name, path.read_bytes())
                add(tar, f"{path.stem}.txt", b"a caption")
    return folder


def write_tables(files: Path, folder: Path, count: int) -> Path:
    """The same images in ``count`` Parquet files, each with a caption; 100 rows per row group."""
    folder.mkdir()
    paths = sorted(files.iterdir())
    each = -(-len(paths) // count)
    for number in range(count):
        some = paths[number * each : (number + 1) * each]
        columns = {
            "image": pa.array([{"bytes": p.read_bytes(), "path": p.name} for p in some]),
            "caption": ["a caption"] * len(some),
        }
        pq.write_table(pa.table(columns), folder / f"{number:05d}.parquet", row_group_size=100)
    return folder


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a member."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def compare(
    kind: str,
    files: Path,
    shards: Path,
    bare_shard: Callable[[Path, Path, str], None],
    work: Path,
    count: int,
) -> tuple[object, ...]:
    """A line of the table."""
    with ray_with(WORKERS), pool_of(WORKERS, tuned=True) as pool:
        contestants: dict[str, Callable[[], object]] = {
            "pool": partial(bare, pool, bare_shard, shards, work),
            "shards": partial(run_on_files, shards, work, WORKERS),
            "files": partial(run_on_files, files, work, WORKERS),
        }
        seconds = rounds(contestants, count)
    images = len(list(files.iterdir()))
    speeds = [f"{images / statistics.median(times):.0f}" for times in seconds.values()]
    to_pool = ratio(seconds["shards"], seconds["pool"])
    to_files = ratio(seconds["shards"], seconds["files"])
    return (
        kind,
        f"{SIDE}x{SIDE}",
        WORKERS,
        *speeds,
        f"{to_pool:.2f} (bar: {BAR})",
        f"{to_files:.2f}",
    )


def bare(
    pool: ProcessPoolExecutor,
    bare_shard: Callable[[Path, Path, str], None],
    source: Path,
    work: Path,
) -> None:
    """The pixels and nothing else, to new shards."""
    output = new_folder(work)
    names = sorted(path.name for path in source.iterdir())
    list(pool.map(partial(bare_shard, source, output), names))


def bare_tar(source: Path, output: Path, name: str) -> None:
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
    """Members unchanged, except for images."""
    enhanced = enhanced_batch([data for name, data in members if name.endswith(".jpg")])
    for name, data in members:
        add(tar, name, next(enhanced) if name.endswith(".jpg") else data)


def bare_table(source: Path, output: Path, name: str) -> None:
    """One Parquet file, a batch in memory at a time."""
    file = pq.ParquetFile(source / name)
    with pq.ParquetWriter(output / name, file.schema_arrow) as writer:
        for batch in file.iter_batches(BATCH):
            images = batch.column("image").to_pylist()
            enhanced = enhanced_batch([image["bytes"] for image in images])
            new = [{**image, "bytes": next(enhanced)} for image in images]
            column = pa.array(new, file.schema_arrow.field("image").type)
            writer.write_batch(batch.set_column(0, "image", column))


def enhanced_batch(images: list[bytes]) -> Iterator[bytes]:
    """Images that share their mean light."""
    analysed = []
    for data in images:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert pixels is not None
        analysed.append((pixels, dehaze.analyse(pixels, PARAMETERS.window)))
    mean = batch_light(analysis.atmospheric_light for _, analysis in analysed) or 0.0
    for pixels, analysis in analysed:
        light = max(mean, analysis.atmospheric_light)
        enhanced = dehaze.enhance(pixels, analysis, light, PARAMETERS).pixels
        _, coded = cv2.imencode(".jpg", enhanced, [cv2.IMWRITE_JPEG_QUALITY, 95])
        yield coded.tobytes()


if __name__ == "__main__":
    show(tables, __doc__)
