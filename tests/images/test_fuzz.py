"""Damaged files by the hundred through the real job: each fails or succeeds alone; none is lost.

``make test`` takes a few; ``make nightly`` takes many, others each night. An image that a failure
names can be made again: its name starts with the seed and the number to give to ``mutant``.
"""

from __future__ import annotations

import io
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from batchlight.images import pillow
from batchlight.images.memory import CODEC_BYTES_PER_PIXEL
from batchlight.images.png_text import TEXT_MAX
from batchlight.worker.pipeline import KEEP_BYTES
from tests.support.helpers import Row, measured, outcomes, rows
from tests.support.image_files import FORMATS, png_chunk, png_start, read
from tests.support.mutants import mutant

COUNT = int(os.environ.get("BATCHLIGHT_MUTANTS", "200"))
SEED = int(os.environ.get("BATCHLIGHT_MUTANTS_SEED", "0"))
ONE_IMAGE_MS = 30_000
"""For what takes less than a second on an idle machine."""

OF_BAD_CONTENT = {"corrupt", "unsupported", "too_large", "empty", "suspicious_output"}
KILLED = "it killed its worker"
"""How the reason starts where a decoder died, which is no fault of ours, and rare."""

BOMB = "bomb.png"
MUTANTS_PIXELS = 4_000_000
IDLE_BYTES = 300 * 2**20
PEAK_BYTES = IDLE_BYTES + KEEP_BYTES + 2 * CODEC_BYTES_PER_PIXEL * MUTANTS_PIXELS
"""The libraries, what is kept between the passes, one image in a codec, and what we make of it."""


@dataclass(frozen=True)
class Run:
    """What a run over a folder of mutants left."""

    output: Path
    exit_code: int
    said: str
    peak_bytes: int

    def rows(self) -> list[dict[str, Any]]:
        return rows(self.output)

    def died(self) -> list[str]:
        """The inputs that killed their worker."""
        return [row["input"] for row in self.rows() if (row["error"] or "").startswith(KILLED)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutants")
    for number in range(COUNT):
        made = mutant(SEED, number)
        (folder / made.name).write_bytes(made.data)
    side = 20_000  # sound, and 50 kB, but 400 MB in memory
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(side * (side // 8 + 1)))) + png_chunk(b"IEND")
    (folder / BOMB).write_bytes(png_start(side, side, depth=1, kind=0) + pixels)
    return folder


@pytest.fixture(scope="module")
def on_ray(folder: Path, ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    output = tmp_path_factory.mktemp("on-ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", ray_address)
        return run_job(folder, output, workers=2)


@pytest.fixture(scope="module")
def in_one_process(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_job(folder, tmp_path_factory.mktemp("in-one-process"), workers=0)


def run_job(folder: Path, output: Path, workers: int) -> Run:
    """The real command; the peak is that of the one process, without Ray's."""
    where = ["--input", folder, "--output", output, "--workers", workers]
    options = ["--max-pixels", MUTANTS_PIXELS, "--not-dark", "enhance", "--progress", "off"]
    log = output.with_suffix(".log")
    with log.open("wb") as file:
        exit_code, peak = measured("run", *where, *options, stderr=file)
    return Run(output, exit_code, log.read_text(errors="replace")[-4000:], peak)


pytestmark = pytest.mark.timeout(300 + COUNT / 2)


def test_the_run_ends_well(on_ray: Run) -> None:
    assert on_ray.exit_code == 3, on_ray.said


def test_no_image_is_lost_and_none_has_two_rows(folder: Path, on_ray: Run) -> None:
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == COUNT + 1
    assert [row["input"] for row in on_ray.rows()] == names


def test_failures_are_the_contents_fault(on_ray: Run) -> None:
    failed = [row for row in on_ray.rows() if row["status"] == "failed"]
    died = on_ray.died()
    wrong = {
        row["input"]: (row["error_code"], row["error"])
        for row in failed
        if row["error_code"] not in OF_BAD_CONTENT and row["input"] not in died
    }
    assert wrong == {}
    assert len(died) <= COUNT / 1000
    assert {row["error_code"] for row in failed} >= {"corrupt", "unsupported", "too_large"}


def test_every_output_can_be_read_and_is_as_large_as_its_input(
    folder: Path, on_ray: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", TEXT_MAX)
    good = [row for row in on_ray.rows() if row["status"] == "ok"]
    assert len(good) > COUNT / 20  # else the mutants are too mad to test anything
    for row in good:
        data = (on_ray.output / row["output"]).read_bytes()
        decoded = read(data)
        # As sets, since TIFF and AVIF are turned upright.
        size = {row["width"], row["height"]}
        assert {*decoded.pixels.shape[:2]} == size, row["input"]
        assert decoded.bit_depth == row["bit_depth"], row["input"]
        # What Pillow took for no image before, it need not take for one now.
        if by_pillow((folder / row["input"]).read_bytes()) is not None:
            assert by_pillow(data) == size, row["input"]


def by_pillow(data: bytes) -> set[int] | None:
    """Width and height; None if Pillow does not open the file, whatever it raises then."""
    try:
        with pillow.undisturbed(), Image.open(io.BytesIO(data)) as image:
            return {*image.size}
    except (OSError, TypeError, ValueError):
        return None


def test_no_image_takes_long(on_ray: Run) -> None:
    steps = ("read_ms", "decode_ms", "enhance_ms", "encode_ms", "write_ms")
    slow = {
        row["input"]: taken
        for row in on_ray.rows()
        if (taken := sum(row[step] or 0 for step in steps)) > ONE_IMAGE_MS
    }
    assert slow == {}


def test_memory_is_bounded_by_max_pixels(on_ray: Run, in_one_process: Run) -> None:
    if died := on_ray.died():
        pytest.skip(f"a decoder died, which ends a run in one process: {died}")
    assert in_one_process.exit_code == 3, in_one_process.said
    assert in_one_process.peak_bytes < PEAK_BYTES, f"{in_one_process.peak_bytes / 2**20:.0f} MB"
    assert outcomes(in_one_process.output) == outcomes(on_ray.output)
    assert outcomes(on_ray.output)[BOMB] == Row("failed", "too_large")


def test_mutants_are_the_same_each_time() -> None:
    made = [mutant(SEED, number) for number in range(60)]
    assert made == [mutant(SEED, number) for number in range(60)]
    assert {one.format for one in made} == set(FORMATS)
    assert all(one.changes for one in made)
    assert len({one.data for one in made}) > 50
    assert mutant(SEED + 1, 0) != made[0]
