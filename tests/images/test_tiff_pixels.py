"""How a TIFF's own words decide how its strips are read, and what makes a strip damaged."""

from __future__ import annotations

import struct
from functools import partial
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest

from batchlight.images.ifd import LONG, SHORT
from batchlight.images.segments import APP0, APP14, segment
from tests.support import image_parts as parts
from tests.support.image_checks import refusal
from tests.support.image_files import again, read, tiff

WIDTH, HEIGHT = 48, 32
SMOOTH = np.dstack(
    [
        np.add.outer(np.arange(HEIGHT) * a, np.arange(WIDTH) * b).astype(np.uint8)
        for a, b in ((1, 3), (2, 1), (3, 2))
    ]
)
"""Red, green, blue."""
RGB, YCBCR = 2, 6
JFIF = segment(APP0, b"JFIF\0\1\1\0\0\1\0\1\0\0")


def adobe(transform: int) -> bytes:
    return segment(APP14, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))


def of_one_strip(strip: bytes, compression: int, photometric: int, **more: int) -> bytes:
    """A TIFF of ``WIDTH`` by ``HEIGHT`` pixels, in colour; ``more``: ``orientation``, ``fill``."""
    values = {256: WIDTH, 257: HEIGHT, 259: compression, 262: photometric, 277: 3, 278: HEIGHT}
    names = {"fill": 266, "orientation": 274, "subsampling": 530}
    values |= {names[name]: value for name, value in more.items()}
    values |= {258: 0, 273: 0, 279: len(strip)}
    bits = 8 + 2 + 12 * len(values) + 4
    values[258], values[273] = bits, bits + 6
    table = struct.pack("<H", len(values))
    for tag, value in sorted(values.items()):
        kind, count = (SHORT, 3) if tag == 258 else (LONG, 1)
        if tag == 530:
            kind, count, value = SHORT, 2, value * 0x10001
        table += struct.pack("<HHII", tag, kind, count, value)
    return b"II*\0" + struct.pack("<I", 8) + table + bytes(4) + struct.pack("<3H", 8, 8, 8) + strip


def jpeg_strip(photometric: int, own: bytes = b"") -> bytes:
    """With the samples as the photometric interpretation says, and further segments."""
    samples = SMOOTH if photometric == RGB else cv2.cvtColor(SMOOTH, cv2.COLOR_RGB2YCrCb)
    samples = samples if photometric == RGB else samples[:, :, [0, 2, 1]]
    settings: Any = {"colorspace": "rgb", "outcolorspace": "rgb", "subsampling": "444"}
    plain = bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(samples), 95, **settings))
    tables = plain.index(b"\xff\xdb")
    return plain[:2] + own + plain[tables:]  # without those of the encoder


@pytest.mark.parametrize(
    ("photometric", "own"),
    [(RGB, JFIF), (RGB, adobe(1)), (RGB, JFIF + adobe(1)), (YCBCR, adobe(0)), (YCBCR, b"")],
)
def test_the_colours_are_those_that_tiff_states(photometric: int, own: bytes) -> None:
    source = of_one_strip(jpeg_strip(photometric, own), 7, photometric)
    assert np.abs(read(source).pixels[:, :, ::-1].astype(int) - SMOOTH).max() < 10


def test_the_bits_of_a_jpeg_are_never_reversed() -> None:
    source = of_one_strip(jpeg_strip(YCBCR), 7, YCBCR, fill=2)
    assert np.abs(read(source).pixels[:, :, ::-1].astype(int) - SMOOTH).max() < 10


@pytest.mark.parametrize("encode", ["lzw", "zlib", "packbits"])
@pytest.mark.parametrize("side", [1, 2])
def test_short_strips_of_ycbcr_are_corrupt(encode: str, side: int) -> None:
    units = WIDTH // side * (HEIGHT // side)
    samples = np.arange(units * (side * side + 2), dtype=np.uint32).astype(np.uint8).tobytes()
    compression = {"lzw": 5, "zlib": 8, "packbits": 32773}[encode]
    coder: Any = getattr(imagecodecs, f"{encode}_encode")
    for length, whole in ((len(samples), True), (len(samples) // 2, False)):
        strip = bytes(coder(samples[:length]))
        source = of_one_strip(strip, compression, YCBCR, subsampling=side)
        if whole:
            assert read(source).pixels.shape == (HEIGHT, WIDTH, 3)
        else:
            assert refusal(partial(read, source)) == "corrupt"


@pytest.mark.parametrize("orientation", [0, 9, 100])
@pytest.mark.parametrize("compression", ["lzw", "zlib"])
def test_an_invalid_orientation_turns_nothing(orientation: int, compression: str) -> None:
    dark = np.ascontiguousarray(parts.DARK[:, : parts.DARK.shape[0] - 7])
    for array in (dark, np.ascontiguousarray(dark[: dark.shape[1]])):
        tag = [(274, 3, 1, orientation, True)]
        source = tiff(array, compression=compression, extratags=tag)
        for data in (source, again(source), again(again(source))):
            np.testing.assert_array_equal(read(data).pixels[:, :, ::-1], array)
