"""Images that are made to take much longer than their size tells are refused in no time."""

from __future__ import annotations

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from batchlight.errors import ErrorCode, ImageError
from batchlight.images.codec import decode
from batchlight.images.effort import SCANS_AT_MOST, bounded_scans
from batchlight.images.header import read_header
from batchlight.images.segments import SOS, after_scan, segments
from tests.support.helpers import dark_image

PIXELS = 10**8


def refuse_many_scans(data: bytes) -> None:
    found = list(segments(data))
    if found and found[-1].marker == SOS:
        list(bounded_scans(after_scan(data, found[-1].end)))


def refusal(data: bytes) -> ImageError:
    """What an image that is to be decoded ends in, within a second."""
    began = time.monotonic()
    with pytest.raises(ImageError) as caught:
        decode(data, read_header(data, PIXELS))
    assert time.monotonic() - began < 1
    return caught.value


def tiff(side: int, compression: int, *strips: bytes, rows: int | None = None) -> bytes:
    """Gray of 8 bits; ``rows`` of a strip, each at its own place unless it is the one before."""
    body, offsets = bytearray(b"II*\0\0\0\0\0"), list[int]()
    for strip in strips:
        if not offsets or strip is not strips[len(offsets) - 1]:
            offsets.append(len(body))
            body += strip
        else:
            offsets.append(offsets[-1])
    places = [len(body), len(body) + 4 * len(strips)]
    body += struct.pack(f"<{len(strips)}I", *offsets)
    body += struct.pack(f"<{len(strips)}I", *map(len, strips))
    if len(strips) == 1:
        places = [offsets[0], len(strips[0])]
    tags = [(256, 1, side), (257, 1, side), (258, 1, 8), (259, 1, compression), (262, 1, 1)]
    tags += [(273, len(strips), places[0]), (278, 1, rows or side), (279, len(strips), places[1])]
    struct.pack_into("<I", body, 4, len(body))
    body += struct.pack("<H", len(tags))
    body += b"".join(struct.pack("<HHII", tag, 4, count, value) for tag, count, value in tags)
    return bytes(body + bytes(4))


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def progressive(scans: int, before: bytes = b"", after: bytes = b"") -> bytes:
    """Gray and black, of one scan for the mean and ``scans`` more of almost nothing."""
    data = b"\xff\xd8" + before + segment(0xDB, b"\0" + b"\x01" * 64)
    data += segment(0xC2, struct.pack(">BHHB", 8, 8, 8, 1) + bytes([1, 0x11, 0]))
    data += segment(0xC4, b"\x00" + bytes([1] + [0] * 15) + b"\x00")
    data += segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\x00")
    data += segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + b"\x00"
    return (
        data + (segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + b"\x00") * scans + b"\xff\xd9" + after
    )


def jpeg(**options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(dark_image(1)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def test_scans_are_bounded() -> None:
    refuse_many_scans(progressive(SCANS_AT_MOST - 1))
    for data in (progressive(SCANS_AT_MOST), progressive(20_000)):
        began = time.monotonic()
        with pytest.raises(ImageError, match="more than 100 scans") as caught:
            read_header(data, PIXELS)
        assert caught.value.code is ErrorCode.UNSUPPORTED
        assert time.monotonic() - began < 1


def test_scans_of_a_jpeg_inside_of_a_tiff_are_bounded() -> None:
    few = tiff(8, 7, progressive(SCANS_AT_MOST - 1))
    decode(few, read_header(few, PIXELS))
    many = refusal(tiff(8, 7, progressive(20_000)))
    assert (many.code, "more than 100 scans" in many.message) == (ErrorCode.UNSUPPORTED, True)


def test_a_jpeg_inside_of_a_tiff_takes_no_more_memory_than_its_strip() -> None:
    data = progressive(2)
    size = data.index(b"\xff\xc2") + 5
    large = data[:size] + struct.pack(">HH", 65500, 65500) + data[size + 4 :]
    assert refusal(tiff(8, 7, large)).code is ErrorCode.CORRUPT


@pytest.mark.parametrize("compression", [8, 32946])
def test_a_strip_inflates_to_no_more_than_its_samples(compression: int) -> None:
    surplus = tiff(64, compression, zlib.compress(bytes(10**8)))
    began = time.monotonic()
    assert not decode(surplus, read_header(surplus, PIXELS)).pixels.any()
    assert time.monotonic() - began < 0.1
    damaged = bytearray(zlib.compress(bytes(64 * 64)))
    damaged[-1] ^= 1  # of the checksum
    assert refusal(tiff(64, compression, bytes(damaged))).code is ErrorCode.CORRUPT


@pytest.mark.parametrize("compression", [1, 5, 7, 8, 32773])
def test_strips_that_are_all_the_same_large_part_of_the_file(compression: int) -> None:
    strip = bytes(10**7)
    assert refusal(tiff(2000, compression, *[strip] * 2000, rows=1)).code is ErrorCode.CORRUPT


def test_blank_tiles_may_be_one_and_the_same() -> None:
    for compression, strip in ((1, bytes(4096)), (8, zlib.compress(bytes(4096)))):
        shared = tiff(4096, compression, *[strip] * 4096, rows=1)
        assert not decode(shared, read_header(shared, PIXELS)).pixels.any()


def test_only_scans_of_the_image_itself_count() -> None:
    many = b"\xff\xda" * 200
    for data in (
        jpeg(progressive=True),
        jpeg() + many,  # a video that follows
        progressive(3, before=segment(0xE1, b"Exif\0\0" + many)),
        progressive(3, after=progressive(200)),
        b"\xff\xd8\xff\xff\xff" + progressive(3)[3:],  # fill bytes
    ):
        refuse_many_scans(data)
    read_header(jpeg(progressive=True), PIXELS)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xe1\x00", b"GIF"]
)
def test_what_is_cut_short_is_left_to_others(data: bytes) -> None:
    refuse_many_scans(data)


@pytest.mark.parametrize("pages", [2, 30_000])
def test_pages_are_not_counted(pages: int) -> None:
    began = time.monotonic()
    with pytest.raises(ImageError, match="cannot be kept") as caught:
        read_header(chain(pages), PIXELS)
    assert caught.value.code is ErrorCode.UNSUPPORTED
    assert time.monotonic() - began < 2


def test_a_chain_of_pages_that_bites_its_tail() -> None:
    data = bytearray(chain(2))
    struct.pack_into("<I", data, len(data) - 4, struct.unpack_from("<I", data, 4)[0])
    with pytest.raises(ImageError):
        read_header(bytes(data), PIXELS)


def chain(pages: int) -> bytes:
    """A TIFF of so many pages, all of the same pixels."""
    pixels = np.full((16, 16), 20, np.uint8).tobytes()
    body = bytearray(b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels)
    tags = [(256, 16), (257, 16), (258, 8), (259, 1), (262, 1), (273, 8), (278, 16), (279, 256)]
    for page in range(pages):
        body += struct.pack("<H", len(tags))
        body += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        body += struct.pack("<I", len(body) + 4 if page < pages - 1 else 0)
    return bytes(body)


def test_overviews_that_share_the_lists_of_their_strips() -> None:
    places, pages = 20_000, 60
    shared, body = 8 + 64, b"\x14" * 64 + struct.pack("<I", 8) * places
    lists = [(tag, places, shared) for tag in (273, 279, 324, 325)]
    at = 8 + len(body)
    page = table([(254, 1, 1), *lists])
    body += page * pages
    body += struct.pack(f"<{pages}I", *(at + len(page) * number for number in range(pages)))
    own = [(256, 8), (257, 8), (258, 8), (259, 1), (262, 1), (273, 8), (278, 8), (279, 64)]
    first = table([*((tag, 1, value) for tag, value in own), (330, pages, at + len(page) * pages)])
    began = time.monotonic()
    with pytest.raises(ImageError, match="overlap") as caught:
        read_header(b"II*\0" + struct.pack("<I", 8 + len(body)) + body + first, PIXELS)
    assert caught.value.code is ErrorCode.CORRUPT
    assert time.monotonic() - began < 1


def table(tags: list[tuple[int, int, int]]) -> bytes:
    """A directory of tags with a number, a count, and a value or its offset."""
    entries = b"".join(struct.pack("<HHII", tag, 4, count, value) for tag, count, value in tags)
    return struct.pack("<H", len(tags)) + entries + bytes(4)
