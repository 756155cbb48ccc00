"""Memory is bounded by the budget and the largest image, not by the batch."""

from __future__ import annotations

import os
import threading
import time
from functools import partial
from pathlib import Path

import cv2
import pytest

from batchlight.worker.overlap import (
    GROUP_BYTES,
    READ_AHEAD_BYTES,
    WRITE_BEHIND_BYTES,
    WRITE_THREADS,
    WriteBehind,
    read_ahead,
)
from batchlight.worker.pipeline import KEEP_BYTES
from tests.support.helpers import dark_image, measured, rows

WIDTH, HEIGHT = 3000, 2000
FILES = 4
FILE_BYTES = 200 * 10**6
DECODED_BYTES = WIDTH * HEIGHT * 4
"""Colour and the dark channel beside it."""


def peak_memory(photos: Path, out: Path) -> int:
    where = ("--input", photos, "--output", out)
    exit_code, peak = measured("run", *where, "--workers", 0, "--progress", "off")
    assert exit_code == 0
    return peak


def padded(path: Path, size: int) -> None:
    """A small image in a large file: bytes after its end, which no decoder looks at."""
    path.parent.mkdir(exist_ok=True)
    _, encoded = cv2.imencode(".png", dark_image(0))
    path.write_bytes(bytes(encoded))
    os.truncate(path, size)


@pytest.mark.nightly
def test_large_files_are_not_read_far_ahead(tmp_path: Path) -> None:
    """Nor do they wait in large numbers to be written, if what follows the image is written too."""
    peaks = {}
    for count in (1, FILES):
        photos = tmp_path / f"in{count}"
        for number in range(count):
            padded(photos / f"{number}.png", FILE_BYTES)
        peaks[count] = peak_memory(photos, tmp_path / f"out{count}")
    assert READ_AHEAD_BYTES < FILE_BYTES
    assert WRITE_BEHIND_BYTES < FILE_BYTES
    # One at a time, beside what waits for the light of the batch, which has a budget.
    assert peaks[FILES] - peaks[1] < KEEP_BYTES < 2 * FILE_BYTES


def test_small_files_are_read_ahead_within_the_budget(tmp_path: Path) -> None:
    sizes = [1000] * 40 + [READ_AHEAD_BYTES // 3] * 8 + [2 * READ_AHEAD_BYTES, 1000] * 2
    lock = threading.Lock()
    ahead, at_most = 0, 0

    def read(size: int) -> int:
        nonlocal ahead, at_most
        with lock:
            ahead += size
            at_most = max(at_most, ahead)
        return size

    found = []
    for size, data in read_ahead(sizes, int, read):
        assert data == size
        found.append(size)
        with lock:
            ahead -= size
        if size > 1000:
            time.sleep(0.01)  # so that whatever may be read, is
    assert found == sizes
    assert READ_AHEAD_BYTES < at_most <= 2 * READ_AHEAD_BYTES


def test_writes_wait_within_the_budget() -> None:
    lock, release = threading.Lock(), threading.Event()
    held, most = 0, 0
    size = WRITE_BEHIND_BYTES // 3

    def write() -> None:
        nonlocal held
        release.wait()
        with lock:
            held -= size

    threading.Timer(0.2, release.set).start()
    with WriteBehind() as behind:
        for _ in range(10):
            with lock:
                held += size
                most = max(most, held)
            behind.put(write, size)
        behind.flush()
    assert held == 0
    assert size < most <= WRITE_BEHIND_BYTES + size


def test_writes_that_have_not_begun_are_dropped_after_a_failure() -> None:
    begun, release = [], threading.Event()

    def write(number: int) -> None:
        begun.append(number)
        release.wait()

    def fail() -> None:
        with WriteBehind() as behind:
            for number in range(WRITE_THREADS + 3):
                behind.put(partial(write, number), GROUP_BYTES)
            threading.Timer(0.2, release.set).start()
            raise ValueError("of the batch")

    with pytest.raises(ValueError, match="of the batch"):
        fail()
    assert sorted(begun) == list(range(WRITE_THREADS))


def test_a_large_batch_needs_no_more_than_a_small_one(tmp_path: Path) -> None:
    image = dark_image(0, HEIGHT // 8, WIDTH // 8)
    _, encoded = cv2.imencode(".jpg", cv2.resize(image, (WIDTH, HEIGHT)))
    peaks = {}
    for count in (1, 30):
        photos = tmp_path / f"in{count}"
        photos.mkdir()
        for number in range(count):
            (photos / f"{number:02d}.jpg").write_bytes(bytes(encoded))
        peaks[count] = peak_memory(photos, tmp_path / f"out{count}")
        assert len(rows(tmp_path / f"out{count}")) == count
    assert 30 * DECODED_BYTES > 2 * KEEP_BYTES  # so the batch would not fit the budget
    assert peaks[30] - peaks[1] < KEEP_BYTES + 2 * DECODED_BYTES
