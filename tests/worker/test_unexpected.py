"""Exceptions that no image should cause: a bug, or a broken environment."""

from __future__ import annotations

import errno
import json
import os
import pickle
from pathlib import Path
from typing import Any

import cv2
import pytest

import batchlight
from batchlight.classical import dehaze
from batchlight.errors import BatchlightError
from batchlight.storage.base import FileRefusedError
from batchlight.storage.local import LocalStorage
from tests.support.helpers import batchlight as command
from tests.support.helpers import outcomes, rows, tree, write_images
from tests.support.ray_head import RayHead

IMAGES = 6
BROKEN = "a/0003.jpg"


def run(photos: Path, **options: Any) -> batchlight.Summary:
    settings: dict[str, Any] = {"workers": 0, "progress": "off", "batch_size": IMAGES} | options
    config = batchlight.JobConfig(input=str(photos), output=str(photos.parent / "out"), **settings)
    return batchlight.run(config)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "in", IMAGES)
    return tmp_path / "in"


def break_analysis(patch: pytest.MonkeyPatch, widths: set[int]) -> None:
    """Let the disk be full where images of some widths are analysed."""
    analyse = dehaze.analyse

    def without_space(pixels: Any, window: int, **others: Any) -> dehaze.Analysis:
        if pixels.shape[1] in widths:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return analyse(pixels, window, **others)

    patch.setattr(dehaze, "analyse", without_space)


def test_an_unexpected_exception_is_an_error_that_the_next_run_redoes(
    photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (BROKEN, "b/0004.jpg"):
        image = cv2.imread(str(photos / name))
        assert image is not None
        cv2.imwrite(str(photos / name), image[:, :50])
    with monkeypatch.context() as patch:
        break_analysis(patch, {50})
        summary = run(photos)
    assert (summary.exit_code, summary.failed_by_code) == (3, {"error": 2})
    row = next(row for row in rows(photos.parent / "out") if row["input"] == BROKEN)
    assert row["error"] == "OSError: [Errno 28] No space left on device"
    [told] = [r.getMessage() for r in caplog.records if "unexpected" in r.getMessage()]
    assert "Traceback (most recent call last)" in told
    assert "without_space" in told

    summary = run(photos)
    assert (summary.exit_code, summary.done_now, summary.ok) == (0, 2, IMAGES)


def test_a_batch_of_nothing_but_errors_ends_the_run(
    photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    out = photos.parent / "out"
    with monkeypatch.context() as patch:
        break_analysis(patch, {64})
        with pytest.raises(BatchlightError, match="No space left on device") as caught:
            run(photos)
    assert caught.value.exit_code == 1
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # through Ray
    assert "Traceback" in caplog.text
    assert json.loads((out / "summary.json").read_text())["exit_code"] == 1
    assert not tree(out / "metadata")
    assert not tree(out / "classical")
    assert run(photos).ok == IMAGES


@pytest.mark.nightly
def test_on_workers_the_user_is_told_once_per_kind(
    photos: Path, tmp_path: Path, deadly_ray: RayHead
) -> None:
    """The traceback comes from the worker; without --debug too, for it is worth a report."""
    odd = photos / "a/odd.jpg"
    write_images(tmp_path / "odd", 2, height=33, width=47)
    (tmp_path / "odd/a/0000.jpg").rename(odd)
    (tmp_path / "odd/b/0001.jpg").rename(photos / "z.jpg")
    out = tmp_path / "out"
    deadly_ray.order({"33x47": "raise"})
    done = command(
        *("run", "--input", photos, "--output", out, "--workers", 1, "--batch-size", 4),
        *("--address", deadly_ray.address, "--progress", "off"),
    )
    assert done.returncode == 3, done.stderr
    failed = {name: row.error_code for name, row in outcomes(out).items() if row.error_code}
    assert failed == {"a/odd.jpg": "error", "z.jpg": "error"}
    assert done.stderr.count("Traceback") == 1
    assert "ERROR unexpected ZeroDivisionError: as ordered" in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FileNotFoundError(), "missing"),
        (PermissionError(), "unreadable"),
        (FileRefusedError("no such name can be"), "unreadable"),
        (ValueError("a bug"), "error"),
    ],
)
def test_what_reading_raises(
    photos: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    read = LocalStorage.read

    def reading(self: LocalStorage, path: str) -> bytes:
        if path == BROKEN:
            raise error
        return read(self, path)

    monkeypatch.setattr(LocalStorage, "read", reading)
    assert run(photos).failed_by_code == {code: 1}


def test_a_name_that_cannot_be_written(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = LocalStorage.write

    def writing(self: LocalStorage, path: str, data: bytes, *how: Any) -> None:
        if path.endswith(BROKEN):
            raise FileRefusedError("no such name can be")
        write(self, path, data, *how)

    monkeypatch.setattr(LocalStorage, "write", writing)
    assert run(photos).failed_by_code == {"write_failed": 1}
