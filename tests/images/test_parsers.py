"""The parsers that see the bytes first: each takes any."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from batchlight.images import avif, webp
from batchlight.images import jpeg as jpeg_format
from batchlight.images import png as png_format
from batchlight.images import tiff as tiff_format
from batchlight.images.metadata import Metadata
from batchlight.images.png import PNG_SIGNATURE
from tests.support.image_files import png, read, samples, saved
from tests.support.mutants import parents

STARTS = [
    *(data[: len(data) // 2] for files in parents().values() for data in list(files.values())[:2]),
    *(b"", b"\xff\xd8\xff", PNG_SIGNATURE, b"RIFF\0\0\0\0WEBP", b"\0\0\0\x10ftypavif"),
]

PIECES = [
    *(b"\xff\xe1\x00\x00", b"\xff\xe1\x00\x01", b"\xff\xed\xff\xff", b"\xff\xd0", b"\xff\x00"),
    *(b"\0\0\0\0IEND", b"\xff\xff\xff\xffiTXt", b"\0\0\0\x20eXIf", b"VP8X\x0a\0\0\0", b"VP8L"),
    *(
        b"\0\0\0\x60meta\0\0\0\0",
        b"\0\0\0\x40iloc",
        b"\0\0\0\0av1C",
        b"\0\0\0\x01iloc",
        b"\x0a\x0b",
    ),
]

anything = st.builds(
    lambda start, pieces: start + b"".join(pieces),
    st.sampled_from(STARTS),
    st.lists(st.binary(max_size=40) | st.sampled_from(PIECES), max_size=12),
)


@settings(max_examples=600, deadline=None)
@given(anything)
def test_what_is_taken_out_of_any_bytes(data: bytes) -> None:
    assert len(jpeg_format.metadata_segments(data)) <= len(data)
    assert len(png_format.metadata_chunks(data)) <= len(data)
    exif, xmp = png_format.payloads(data)
    assert exif != b""
    assert xmp != b""
    assert png_format.is_whole(data) in (True, False)
    assert webp.is_lossless(data) in (True, False)
    sizes = webp.claimed_sizes(data) + avif.claimed_sizes(data)
    assert all(width >= 0 and height >= 0 for width, height in sizes)


WHOLE_JPEG, WHOLE_PNG = saved(Image.new("RGB", (9, 6)), "JPEG"), png(samples(3))

WHOLE_TIFF = bytes(cv2.imencode(".tiff", samples(3))[1])


@settings(max_examples=150, deadline=None)
@given(anything, anything, anything)
def test_what_is_taken_from_any_bytes_does_no_harm_elsewhere(
    jpeg: bytes, exif: bytes, icc: bytes
) -> None:
    """What a damaged file's metadata is put into can be read, by us and by Pillow."""
    payloads = Metadata(exif, jpeg, icc)
    blocks = {"jpeg": jpeg_format.metadata_segments(b"\xff\xd8" + jpeg)}
    for metadata in (payloads, payloads.upright(), Metadata(native=blocks)):
        assert 1 <= metadata.orientation <= 8
        try:
            assert_same_pixels(jpeg_format.with_metadata(WHOLE_JPEG, metadata), WHOLE_JPEG)
        except ValueError as error:
            assert "JPEG file" in str(error)  # noqa: PT017
        assert_same_pixels(png_format.with_metadata(WHOLE_PNG, metadata), WHOLE_PNG)
        with_tags = tiff_format.with_metadata(WHOLE_TIFF, metadata, None)
        assert_same_pixels(with_tags, WHOLE_TIFF)


def assert_same_pixels(data: bytes, plain: bytes) -> None:
    np.testing.assert_array_equal(read(data).pixels, read(plain).pixels)
