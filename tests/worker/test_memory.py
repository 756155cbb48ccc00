"""Memory is bounded by the budget and the largest image, not by the batch."""

from __future__ import annotations

from pathlib import Path

import cv2

from batchlight.worker.pipeline import KEEP_BYTES
from tests.support.helpers import dark_image, measured, rows

WIDTH, HEIGHT = 3000, 2000
DECODED_BYTES = WIDTH * HEIGHT * 4
"""Colour and the dark channel beside it."""


def peak_memory(photos: Path, out: Path) -> int:
    where = ("--input", photos, "--output", out)
    exit_code, peak = measured("run", *where, "--workers", 0, "--progress", "off")
    assert exit_code == 0
    return peak


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
