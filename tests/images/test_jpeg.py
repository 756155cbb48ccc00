"""JPEG: sampling, and metadata segments."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import JpegImagePlugin

from batchlight.images.segments import segment
from tests.support.image_checks import refusal
from tests.support.image_files import (
    ICC,
    MAKE,
    XMP,
    again,
    opened,
    patches,
    read,
    saved,
    with_everything,
)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_jpeg_keeps_its_sampling(subsampling: str) -> None:
    source = saved(patches(), "JPEG", subsampling=subsampling)
    assert _sampling(again(source)) == _sampling(source)


def _sampling(data: bytes) -> list[tuple[int, int]]:
    image = opened(data)
    assert isinstance(image, JpegImagePlugin.JpegImageFile)
    return [layer[1:3] for layer in image.layer]


def test_jpeg_keeps_density_and_comment() -> None:
    image = opened(again(saved(patches(), "JPEG", dpi=(300, 200), comment=b"by night")))
    assert image.info["dpi"] == (300, 200)
    assert image.info["comment"] == b"by night"


def test_jpeg_density_that_comes_after_exif() -> None:
    source = with_everything("jpeg").replace(b"\xff\xe0\x00\x10JFIF", b"\xff\xe5\x00\x10gone", 1)
    late = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x01\x01\x2c\x01\x2c\x00\x00"
    at = source.index(b"\xff\xdb")
    out = again(source[:at] + late + source[at:])
    assert out.count(late) == out.count(b"JFIF") == 1
    assert out.index(b"Exif") < out.index(late)
    assert opened(out).info["dpi"] == (300, 300)


@pytest.mark.parametrize("garbage", [b"garbage", b"\xff\xff\xff", b"\xff\xe1\0\0", b"\xff\xd0"])
def test_jpeg_metadata_after_garbage(garbage: bytes) -> None:
    source = with_everything("jpeg")
    at = source.index(b"\xff\xe1")
    out = again(source[:at] + garbage + source[at:])
    image = opened(out)
    assert image.info["icc_profile"] == ICC
    assert image.info["xmp"] == XMP
    assert image.getexif()[MAKE] == "Lantern"
    assert out == again(source)  # without the garbage


@pytest.mark.parametrize("factors", [(0x41, 0x21, 0x21), (0x14, 0x12, 0x12)])
def test_factors_that_could_be_halved(factors: tuple[int, int, int]) -> None:
    """4:2:2 and 4:4:0 as TurboJPEG does not read them, but libjpeg does."""
    source = flat_blocks(factors)
    pixels = read(source).pixels
    assert len(np.unique(pixels)) > 8
    np.testing.assert_array_equal(pixels[:, :, ::-1], np.asarray(opened(source)))
    out = again(source)
    halves = [(factor >> 4, factor & 15) for factor in factors]
    by = 2 if factors[0] == 0x41 else 1, 2 if factors[0] == 0x14 else 1
    assert _sampling(out) == [(a // by[0], b // by[1]) for a, b in halves]
    assert refusal(lambda: read(source[:-6])) == "corrupt"


def flat_blocks(factors: tuple[int, int, int]) -> bytes:
    """A JPEG of one unit, four blocks of luminance and two of each colour, each of one value."""
    parts = b"".join(bytes([n, factor, 0]) for n, factor in enumerate(factors, 1))
    size = (8, 32) if factors[0] == 0x41 else (32, 8)
    data = b"\xff\xd8" + segment(0xDB, b"\0" + b"\x01" * 64)
    data += segment(0xC0, struct.pack(">BHHB", 8, *size, 3) + parts)
    data += segment(
        0xC4, b"\0" + bytes([1, 1] + [0] * 14) + b"\0\x08"
    )  # no change: 0, of 8 bits: 10
    data += segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\0")  # end of block: 0
    data += segment(0xDA, bytes([3, 1, 0, 2, 0, 3, 0, 0, 63, 0]))
    changes = (-250, 160, 170, 180, 200, -180, -140, 250)
    bits = "".join("10" + format(n if n > 0 else n + 255, "08b") + "0" for n in changes)
    coded = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return data + coded.replace(b"\xff", b"\xff\0") + b"\xff\xd9"
