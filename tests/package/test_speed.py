"""A small form of the benchmarks: no ratio may get worse by half.

Ratios of things that run side by side, since the speed of a test machine means nothing.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from benchmarks import core, job, scale, shards
from benchmarks.measuring import (
    new_folder,
    photographs,
    ratio,
    rounds,
    write_photographs,
)

pytestmark = pytest.mark.nightly

WORSE_BY_HALF = 1.5
WITH_METHOD_TO_CODEC = {"all defaults": 1.65, "--denoise none": 1.33}
"""benchmarks/README.md says where these come from."""
JOB_TO_BARE_PIXELS = 1.05
DRIVER_MB = 300


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("speed")
    return write_photographs(photographs(None, work), work / "in", 24, core.WIDTH, core.HEIGHT)


def test_the_method_beside_the_codec(photos: Path) -> None:
    seconds = core.compare(photos, prepared=True, count=5)
    for options, expected in WITH_METHOD_TO_CODEC.items():
        found = ratio(seconds[options], seconds[f"codec of {options}"])
        assert found < 1 + (expected - 1) * WORSE_BY_HALF, options  # the codec is in both


def test_the_job_beside_its_pixels(photos: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    names = [path.name for path in photos.iterdir()]

    def pixels() -> None:
        bare.mkdir(exist_ok=True)
        job.bare_batch(str(photos), str(bare), durable=False, names=names)

    whole = partial(job.run_on_files, photos, tmp_path, 0)
    seconds = rounds({"bare": pixels, "job": whole}, 5)
    assert ratio(seconds["job"], seconds["bare"]) < JOB_TO_BARE_PIXELS * WORSE_BY_HALF


def test_shards_beside_their_pixels(tmp_path: Path) -> None:
    images = photographs(None, tmp_path)
    files = write_photographs(images, tmp_path / "files", 256, shards.SIDE, shards.SIDE)
    tars = shards.write_shards(files, tmp_path / "tars", 2)

    def pixels() -> None:
        for tar in tars.iterdir():
            shards.bare_tar(tars, new_folder(tmp_path), tar.name)

    whole = partial(job.run_on_files, tars, tmp_path, 0)
    seconds = rounds({"bare": pixels, "job": whole}, 5)
    assert ratio(seconds["job"], seconds["bare"]) < shards.BAR * WORSE_BY_HALF


def test_the_memory_of_the_driver() -> None:
    """A chunk of the plan and of the records is in memory at a time, so this is near its peak."""
    assert scale.in_own_process("--one", 100_000)["peak_mb"] < DRIVER_MB * WORSE_BY_HALF
