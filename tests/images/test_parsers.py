"""The parsers that see the bytes first: each takes any."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from batchlight.errors import ImageError
from batchlight.images import avif, photoshop, png, png_carry, webp, xmp
from batchlight.images.chunks import PNG_SIGNATURE
from batchlight.images.header import read_header
from batchlight.images.thumbnails import Picture
from tests.support.image_files import MAX_PIXELS, TARGETS, again, read, saved
from tests.support.mutants import parents

STARTS = [
    *(data[: len(data) // 2] for files in parents().values() for data in list(files.values())[:2]),
    *(b"", b"\xff\xd8\xff", PNG_SIGNATURE, b"RIFF\0\0\0\0WEBP", b"\0\0\0\x10ftypavif"),
]

PIECES = [
    *(b"\xff\xe1\x00\x00", b"\xff\xe1\x00\x01", b"\xff\xed\xff\xff", b"\xff\xd0", b"\xff\x00"),
    *(b"\0\0\0\0IEND", b"\xff\xff\xff\xffiTXt", b"\0\0\0\x20eXIf", b"VP8X\x0a\0\0\0", b"VP8L"),
    *(b"\0\0\0\x60meta\0\0\0\0", b"\0\0\0\x40iloc", b"\0\0\0\0av1C", b"\0\0\0\x01iloc"),
    *(b"\x0a\x0b", b"8BIM\x04\x0c\0\0\0\0\0\x20", b"<rdf:li Item:Semantic='GainMap'", b"hdrgm:"),
]

anything = st.builds(
    lambda start, pieces: start + b"".join(pieces),
    st.sampled_from(STARTS),
    st.lists(st.binary(max_size=40) | st.sampled_from(PIECES), max_size=12),
)
PICTURE = Picture(np.zeros((6, 9, 3), np.uint8))


@settings(max_examples=600)
@given(anything)
def test_any_bytes(data: bytes) -> None:
    """Headers are read or refused; what looks for a part of a file finds it or does not."""
    with suppress(ImageError):
        read_header(data, MAX_PIXELS)
    assert png.is_whole(data) in (True, False)
    assert webp.is_lossless(data) in (True, False)
    assert png_carry.take(data, 8, png_carry.RGB).nbytes <= len(data)
    sizes = webp.claimed_sizes(data) + avif.claimed_sizes(data)
    assert all(width >= 0 and height >= 0 for width, height in sizes)
    photoshop.with_thumbnail(data, PICTURE)
    xmp.with_thumbnails(data, PICTURE)
    assert len(xmp.of_a_single_picture(data)) <= len(data)


WHOLE = Image.new("RGB", (9, 6), (90, 60, 30))


@settings(max_examples=150)
@given(anything, anything, anything)
def test_what_is_taken_from_any_bytes_does_no_harm_elsewhere(
    exif: bytes, packet: bytes, icc: bytes
) -> None:
    """What a damaged file's metadata is put into can be read, by us and by Pillow."""
    source = saved(
        WHOLE, "WEBP", lossless=True, exif=b"Exif\0\0" + exif, xmp=packet, icc_profile=icc
    )
    pixels = read(source).pixels
    for target in TARGETS:
        with suppress(ImageError):
            out = again(source, target)
            assert read(out).pixels.shape == pixels.shape or target == "avif"
            if target in ("png", "tiff", "webp"):
                np.testing.assert_array_equal(in_order(read(out).pixels, pixels), pixels)


def in_order(pixels: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Turned back, if EXIF said that it lies on its side."""
    return pixels if pixels.shape == wanted.shape else pixels.swapaxes(0, 1)
