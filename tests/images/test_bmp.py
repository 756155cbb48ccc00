"""BMP: every kind of header and pixel."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from batchlight.images.pixels import in_colour
from tests.images.test_carry_jpeg import brightened
from tests.support import image_parts as parts
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


def with_unused(top: int, *masks: int, size: int = 40, height: int = 6) -> bytes:
    """32 bits, whose fourth bytes are counted from ``top`` downwards."""
    words = np.arange(48, dtype=np.uint32) * 0x030507 & 0xFFFFFF
    words |= np.arange(top, top - 48, -1).astype(np.uint32) << 24
    header = bmp_header(8, height, 32, 3 if masks else 0, size)[:size]
    return bmp_file(header + struct.pack(f"<{len(masks)}I", *masks), words.tobytes())


@pytest.mark.parametrize("height", [6, -6])
@pytest.mark.parametrize("size", [40, 56, 108, 124])
def test_bytes_beside_the_colours_stay(size: int, height: int) -> None:
    source = with_unused(200, size=size, height=height)
    assert read(source).channels == 3
    out = brightened(source)
    assert out.lost == ()
    [begin] = struct.unpack_from("<I", out.data, 10)
    assert out.data[begin + 3 :: 4] == source[begin + 3 :: 4]
    assert set(out.data[begin::4]) == {parts.BRIGHT}
    assert out.data[:34] + out.data[38:begin] == source[:34] + source[38:begin]
    assert brightened(source, "png").lost == ("unused bits",)


def test_bytes_beside_masks_of_any_order() -> None:
    source = with_unused(200, 0xFF, 0xFF00, 0xFF0000)
    out = brightened(source)
    assert out.lost == ()
    np.testing.assert_array_equal(
        np.frombuffer(out.data[54:], np.uint8)[3::4], np.frombuffer(source[66:], np.uint8)[3::4]
    )


def test_bytes_beside_an_alpha_within_the_colours_are_named() -> None:
    """A damaged mask; the pixels have four samples already."""
    source = with_unused(200, 0xFF0000, 0xFF00, 0xFF, 0xFF00)
    source = source[:30] + struct.pack("<I", 6) + source[34:]
    assert read(source).alpha is not None
    out = brightened(source)
    assert out.lost == ("unused bits",)
    assert read(out.data).alpha is not None


def test_bits_beside_the_colours_are_named() -> None:
    assert brightened(with_unused(200, 0x3FF00000, 0xFFC00, 0x3FF)).lost == ("unused bits",)
    noise = samples(3).tobytes()[:96]
    assert brightened(bmp_file(bmp_header(8, 6, 16, 0), noise)).lost == ("unused bits",)
    assert brightened(BMPS["565"]).lost == ()
    assert brightened(BMPS["version-5"]).lost == ()


def test_bytes_that_are_all_the_same_take_no_room() -> None:
    same = bmp_file(bmp_header(8, 6, 32, 0), (b"abc" + b"\xff") * 48)
    out = brightened(same)
    assert out.lost == ()
    assert struct.unpack_from("<H", out.data, 28) == (24,)
