"""BMP: every kind of header and pixel."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from batchlight.images.pixels import in_colour
from tests.support.image_checks import refusal
from tests.support.image_files import again, opened, read, samples, saved
from tests.support.mutants import bmp_file, bmp_header


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_bmp_shows_the_same(mode: str) -> None:
    source = saved(Image.fromarray(samples(3)).convert(mode), "BMP")
    before, after = opened(source), opened(again(source))
    assert after.format == "BMP"
    np.testing.assert_array_equal(
        np.asarray(before.convert("RGBA")), np.asarray(after.convert("RGBA"))
    )


SHADES = bytes(range(8 * 6 * 3))

BMPS = {
    "os2": bmp_file(struct.pack("<IHHHH", 12, 8, 6, 1, 24), SHADES),
    "555": bmp_file(bmp_header(8, 6, 16, 0), SHADES),
    "565": bmp_file(bmp_header(8, 6, 16, 3), SHADES, 0xF800, 0x07E0, 0x001F),
    "top-down": bmp_file(bmp_header(8, -6, 24, 0), SHADES),
    "rle": bmp_file(bmp_header(8, 6, 8, 1), b"\x08\x51\0\0" * 6 + b"\0\1", *range(0, 2**16, 256)),
    "version-5": bmp_file(bmp_header(8, 6, 32, 3, 124), bytes(range(192))),
    **{
        f"os2-{bits}-bits": bmp_file(
            struct.pack("<IHHHH", 12, 8, 6, 1, bits) + SHADES[: 3 * 2**bits], SHADES
        )
        for bits in (1, 4)
    },
}


@pytest.mark.parametrize("name", BMPS)
def test_bmp_of_every_kind_of_header(name: str) -> None:
    expected = np.asarray(opened(BMPS[name]).convert("RGBA"))
    before, after = read(BMPS[name]), read(again(BMPS[name]))
    np.testing.assert_array_equal(in_colour(before.pixels), expected[:, :, 2::-1])
    np.testing.assert_array_equal(before.pixels, after.pixels)


def test_bmp_masks_in_another_order() -> None:
    swapped = bmp_file(bmp_header(8, 6, 16, 3), SHADES, 0x001F, 0x07E0, 0xF800)
    np.testing.assert_array_equal(read(swapped).pixels, read(BMPS["565"]).pixels[:, :, ::-1])


@pytest.mark.parametrize("size", [16, 99, 5000])
def test_bmp_with_a_header_of_no_known_length(size: int) -> None:
    header = bmp_header(8, 6, 24, 0, size) if size > 40 else bmp_header(8, 6, 24, 0)
    data = bmp_file(header, SHADES)
    data = data[:14] + struct.pack("<I", size) + data[18:]
    assert refusal(lambda: read(data)) in ("unsupported", "corrupt")
