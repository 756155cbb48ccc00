"""AVIF and HEIC that are lossless stay so, whether colours or gray."""

from __future__ import annotations

import io
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pillow_heif
import pytest
from PIL import Image

from tests.support import image_parts as parts
from tests.support.image_files import again, opened, read


def test_lossless_avif_stays_lossless() -> None:
    source = parts.avif("yuv444", (1, 13, 0), lossless=True)
    np.testing.assert_array_equal(np.asarray(opened(again(source))), parts.DARK)


@pytest.mark.parametrize("width", [96, 5000])
@pytest.mark.parametrize("matrix", [1, 2, 6])
def test_lossless_gray_avif_stays_lossless(width: int, matrix: int) -> None:
    gray = np.resize(parts.DARK[:, :, 1], (64, width))
    source = bytes(imagecodecs.avif_encode(gray, 100, pixelformat="yuv400", speed=9, matrix=matrix))
    out = again(source)
    np.testing.assert_array_equal(imagecodecs.avif_decode(out), gray)
    assert read(source).header.lossless
    assert read(out).header.lossless
    lossy = bytes(cv2.imencode(".avif", gray, [cv2.IMWRITE_AVIF_QUALITY, 95])[1])
    assert not read(lossy).header.lossless


def heic(image: Image.Image, quality: int, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=quality, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_lossless_heic_stays_lossless(mode: str) -> None:
    image = Image.fromarray(parts.DARK).convert(mode)
    options = {} if mode == "L" else {"chroma": 444, "matrix_coefficients": 0}
    out = again(heic(image, -1, **options))
    assert read(out).header.lossless
    np.testing.assert_array_equal(np.asarray(pillow_heif.open_heif(out)), np.asarray(image))
    assert not read(heic(image, 95)).header.lossless
