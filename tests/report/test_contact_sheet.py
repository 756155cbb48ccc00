"""The contact sheet: small for any images, at its own size where noise is judged, drawn as PNG."""

from __future__ import annotations

import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from batchlight import JobConfig
from batchlight.driver.preview import preview
from batchlight.report.contact_sheet import Cell, Comparison, Row, Sheet, Shot
from batchlight.report.detail import distinguishing_part
from batchlight.report.sheet_drawing import CELL, GAP
from batchlight.worker.trial import Measured
from tests.support.helpers import dark_image

LARGEST = 3_000_000
SETTINGS = ("", "omega=0.8", "omega=0.5", "denoise=none")


def write_noise(folder: Path, count: int) -> None:
    """The images that take the most bytes."""
    noise = np.random.default_rng(1)
    folder.mkdir()
    for number in range(count):
        image = noise.integers(0, 100 + number, (400, 600, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), image)


@pytest.mark.nightly
def test_it_is_small_for_any_images(tmp_path: Path) -> None:
    write_noise(tmp_path / "in", 8)
    page = tmp_path / "page.html"
    found = preview(JobConfig(input=str(tmp_path / "in")), SETTINGS, page=str(page))
    text = page.read_text()
    assert len(text.encode()) < LARGEST
    assert found.shown == 8
    assert text.count("data:image/webp") == 2 * 8 * (1 + len(SETTINGS))
    details = re.findall(r'class="enlarge detail".*?width="(\d+)" height="(\d+)"', text, re.DOTALL)
    assert len(details) == 8 * (1 + len(SETTINGS))
    assert all(int(width) >= 160 for width, _ in details)


def test_a_noisy_image_keeps_its_whole_detail_among_others() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (180, 320, 3), np.uint8)
    flat = np.zeros_like(noise)
    measured = Measured(0.5, 0.0, 1.0)
    rows = []
    for number in range(8):
        shot = Shot(flat, noise if number == 0 else flat)
        rows.append(Row(f"{number}.png", 320, 180, 0.1, shot, [Cell(measured, shot)] * 4))
    text = Sheet("in", [], [Comparison.of("", "classical", [measured])] * 4, rows, []).as_html()
    details = re.findall(r'class="enlarge detail".*?width="(\d+)" height="(\d+)"', text, re.DOTALL)
    assert details == [("320", "180")] * 40


def test_it_loads_nothing_from_anywhere(tmp_path: Path) -> None:
    write_noise(tmp_path / "in", 1)
    page = tmp_path / "page.html"
    preview(JobConfig(input=str(tmp_path / "in")), [""], page=str(page))
    text = page.read_text()
    assert not re.findall(r"""(?:src|href)="(?!data:|#)""", text)
    assert not re.findall(r"url\((?!#)|@import", text)
    assert "default-src 'none'" in text


@pytest.mark.parametrize("settings", [1, 3])
def test_a_png_is_as_wide_as_its_columns(tmp_path: Path, settings: int) -> None:
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/a long name, ünïcödé and  spaces.png"), dark_image(1, 90, 120))
    cv2.imwrite(str(tmp_path / "in/gray.png"), dark_image(2, 200, 50, channels=1))
    (tmp_path / "in/empty.jpg").touch()
    target = tmp_path / "sheet.png"
    preview(JobConfig(input=str(tmp_path / "in")), SETTINGS[:settings], page=str(target), png=True)
    with Image.open(io.BytesIO(target.read_bytes())) as image:
        assert image.format == "PNG"
        assert image.width == GAP + (1 + settings) * (CELL + GAP)
        assert 500 < image.height < 1200
        assert len(set(image.convert("L").tobytes())) > 50


def test_the_name_of_the_page_alone_makes_it_a_png(tmp_path: Path) -> None:
    write_noise(tmp_path / "in", 1)
    preview(JobConfig(input=str(tmp_path / "in")), [""], page=str(tmp_path / "sheet.PNG"))
    assert (tmp_path / "sheet.PNG").read_bytes().startswith(b"\x89PNG")


def test_the_detail_is_dark_and_textured() -> None:
    rng = np.random.default_rng(1)
    image = np.full((600, 900, 3), 3, np.uint8)  # nearly black, with noise
    image += rng.integers(0, 3, image.shape, np.uint8)
    blocks = np.kron(rng.random((30, 30, 1)), np.ones((10, 10, 1)))
    image[:300, :300] = 120 + 130 * blocks  # bright texture
    image[300:, 600:] = 10 + 40 * blocks  # dark texture
    image[100:110, 500:510] = 255  # a lamp
    part = distinguishing_part(image, 200, 150)
    assert part.x >= 550
    assert part.y >= 250
    assert part.of(image).shape == (150, 200, 3)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3000, 3), (3000, 5), (180, 320, 3), (181, 321)])
def test_any_image_has_a_detail(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
    part = distinguishing_part(image, 320, 180)
    assert part.of(image).shape[:2] == (min(180, shape[0]), min(320, shape[1]))
