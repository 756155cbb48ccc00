"""How far a run is, image by image: for programs, and for whoever asks for the status."""

from __future__ import annotations

from pathlib import Path

import pytest

import batchlight
from batchlight import JobConfig, Progress
from batchlight.engine import base
from batchlight.output.status import read_status
from tests.support.helpers import (
    COMMAND,
    kill_with_all_below,
    under_way,
    wait_until,
    write_images,
)
from tests.support.ray_head import RayHead

IMAGES = 64
WITHIN_S = 120.0


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "in"
    write_images(folder, IMAGES, height=200, width=300)
    return folder


def test_progress_counts_images_and_not_batches(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "REPORT_EVERY_S", 0.002)
    (photos / "broken.jpg").write_bytes(b"no image")
    heard: list[Progress] = []
    config = JobConfig(
        input=str(photos), output=str(tmp_path / "out"), workers=0, progress="off", batch_size=100
    )
    try:
        batchlight.run(config, on_progress=heard.append)
    finally:
        (photos / "broken.jpg").unlink()
    done = [told.done for told in heard]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, IMAGES + 1)
    assert len(set(done)) > 4, "as of a single batch"
    assert {told.total for told in heard} == {IMAGES + 1}
    assert heard[-1].failed == 1


def test_the_status_of_a_run_in_the_middle_of_its_only_batch(
    photos: Path, tmp_path: Path, deadly_ray: RayHead
) -> None:
    out = tmp_path / "out"
    # With its own light, no image waits for the others.
    options: tuple[object, ...] = ("--workers", 1, "--batch-size", IMAGES, "--progress", "off")
    options += ("--atmospheric-light", "image", "--address", deadly_ray.address)
    command = [*COMMAND, "run", "--input", photos, "--output", out, *options]
    deadly_ray.order({}, 0.25)
    with under_way(command, {}) as process:

        def is_told() -> bool:
            found = out.exists() and list(out.glob("_batchlight/plan/*.json"))
            return bool(found) and read_status(str(out)).failed is not None

        wait_until(is_told, process, WITHIN_S)
        wait_until(lambda: read_status(str(out)).done > 0, process, WITHIN_S)
        status = read_status(str(out))
        kill_with_all_below(process.pid)
    assert status.state == "running"
    assert (status.planned, status.failed) == (IMAGES, 0)
    assert 0 < status.done < IMAGES
    assert not list(out.glob("_batchlight/parts/*"))
    assert read_status(str(out)).done == 0  # of what was not committed, nothing counts
