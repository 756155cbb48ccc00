"""A worker's memory does not grow with its shard."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.s3_server import S3Server
from tests.support.tars import write_tar

SMALL, LARGE = 32, 480
"""Images of a shard; 160 KB each."""
GIGABYTE = 6700

ROOM, ROOM_ON_S3 = 100 * 2**20, 200 * 2**20
"""What the large shard may take more than the small one: the budgets of ``worker/shard.py``, of
reading ahead and writing behind, and of ``storage/streams.py``: blocks of the object that is read,
and parts of the upload."""
PARQUET_MORE = 80 * 2**20
"""Pages that are kept, the one that is written, and new images that wait for it."""

PROGRAM = """
import re, sys
import batchlight

def of_process(name):
    with open("/proc/self/status") as file:
        return int(re.search(rf"{name}:\\s+(\\d+)", file.read())[1]) * 1024

def run(name):
    place = sys.argv[1]
    given = {"input": f"{place}/{name}", "output": f"{place}/{name}-bright"}
    batchlight.run(batchlight.JobConfig(**given, workers=0, progress="off"))

run("small")
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # so that the peak begins anew
before = of_process("VmRSS")
run("large")
print(of_process("VmHWM") - before)
"""


def write_shards(folder: Path, large: int, kind: str = "tar") -> None:
    images = [
        cv2.imencode(".png", np.random.default_rng(n).integers(0, 60, (256, 256, 3), np.uint8))[1]
        for n in range(16)
    ]
    for name, count in (("small", SMALL), ("large", large)):
        members = {f"{n:06d}.png": images[n % 16].tobytes() for n in range(count)}
        if kind == "tar":
            write_tar(folder / name / "a.tar", members)
        else:
            (folder / name).mkdir(parents=True)
            table = pa.table({"image": list(members.values())})
            how = {"row_group_size": 100, "use_dictionary": False, "data_page_size": 2**20}
            pq.write_table(table, folder / name / "a.parquet", write_batch_size=8, **how)


def growth(place: str) -> int:
    """Bytes that a process takes more for the large shard."""
    arguments = [sys.executable, "-c", PROGRAM, place]
    return int(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that tells of peaks")
def test_memory_does_not_grow_with_a_shard(tmp_path: Path) -> None:
    write_shards(tmp_path, LARGE)
    assert (tmp_path / "large/a.tar").stat().st_size > 0.7 * ROOM
    assert growth(str(tmp_path)) < 0.7 * ROOM


@pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that tells of peaks")
@pytest.mark.nightly
@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_shard_of_a_gigabyte(tmp_path: Path, s3: S3Server, kind: str, remote: bool) -> None:
    write_shards(tmp_path, GIGABYTE, kind)
    place = str(tmp_path)
    if remote:
        for name in ("small", "large"):
            path = f"{name}/a.{kind}"
            s3.put({f"a.{kind}": (tmp_path / path).read_bytes()}, f"memory-{kind}/{name}")
        place = f"s3://data/memory-{kind}"
    room = ROOM_ON_S3 if remote else ROOM
    assert growth(place) < room + (PARQUET_MORE if kind == "parquet" else 0)
