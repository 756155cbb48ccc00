"""Damaged, hostile or unusual EXIF: bounded memory, and no old thumbnail that is not named."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image

from batchlight.config import Format
from batchlight.errors import ErrorCode, ImageError
from batchlight.images import exif, ifd
from batchlight.images.header import read_header
from batchlight.images.ifd import Structure
from batchlight.images.segments import segment
from batchlight.images.thumbnails import Picture
from tests.images.test_carry_jpeg import brightened, mean, of
from tests.support import image_parts as parts
from tests.support.image_files import MAX_PIXELS, again, opened, read

Tag = tuple[int, int, int, int]
"""Number, type, count, and the value or its offset."""
BYTE, SHORT, LONG, UNDEFINED = ifd.BYTE, ifd.SHORT, ifd.LONG, ifd.UNDEFINED
PICTURE = Picture(np.full((64, 96, 3), parts.BRIGHT, np.uint8))
ORIENTATION: Tag = (0x0112, SHORT, 1, 6)
SHARED = 1000
"""Tags that name the same value."""
SMALL = 2**21
"""Bytes that may be taken besides the file."""


def directory(tags: Sequence[Tag], following: int = 0) -> bytes:
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)


def size_of(tags: int) -> int:
    return 2 + 12 * tags + 4


def chain(*directories: Sequence[Tag], behind: bytes = b"") -> bytes:
    """A block of directories that follow each other, and then ``behind``."""
    out = bytearray(b"II*\0\x08\0\0\0")
    for number, tags in enumerate(directories):
        end = len(out) + size_of(len(tags))
        out += directory(tags, end if number < len(directories) - 1 else 0)
    return bytes(out) + behind


def thumbnail(at: int, length: int) -> list[Tag]:
    return [(259, SHORT, 1, 6), (513, LONG, 1, at), (514, LONG, 1, length)]


THUMB = parts.small_jpeg()
FIRST = 8 + size_of(1)
"""Where the second directory is if the first has one tag."""


def with_thumbnails(count: int, *, length: int | None = None, old: bytes = THUMB) -> bytes:
    """As many directories after the first, each with a thumbnail of its own."""
    at = FIRST + count * size_of(3)
    places = [at + number * len(old) for number in range(count)]
    further = [thumbnail(place, len(old) if length is None else length) for place in places]
    return chain([ORIENTATION], *further, behind=old * count)


def found(block: bytes) -> list[bytes]:
    """The thumbnails that a reader finds."""
    structure, out = Structure(block), []
    at = structure.directory(structure.first).next
    while at:
        one = structure.directory(at)
        start, length = (structure.one(one.entries.get(tag)) for tag in (513, 514))
        if start and length:
            out.append(block[start : start + length])
        at = one.next
    return out


def peak(action: Callable[[], object]) -> int:
    """The memory that is taken at most, in bytes."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def tiff(pointers: Sequence[Tag], inner: bytes, size: int = 0) -> bytes:
    """8x8 pixels of gray, with further tags, and what these point to: at offset 72."""
    own = [(256, 8), (257, 8), (258, 8), (259, 1), (262, 1), (273, 8), (278, 8), (279, 64)]
    body = b"\x14" * 64 + inner
    body += bytes(max(0, size - len(body)))
    tags = sorted([*((tag, LONG, 1, value) for tag, value in own), *pointers])
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory(tags)


def test_tags_of_exif_in_tiff_that_share_a_value_are_not_copied() -> None:
    shared = directory([(1000 + n, UNDEFINED, 30_000, 8) for n in range(SHARED)])
    data = tiff([(34665, LONG, 1, 72)], shared, 40_000)
    assert peak(lambda: read_header(data, MAX_PIXELS)) < SMALL
    assert "EXIF" in read_header(data, MAX_PIXELS).metadata.others
    assert shared in again(data)


def test_tags_of_tiff_that_share_most_of_the_file_are_corrupt() -> None:
    data = tiff([(tag, ifd.ASCII, 30_000, 8) for tag in (270, 271, 305, 315)], bytes(40_000))
    with pytest.raises(ImageError, match="overlap") as caught:
        read_header(data, MAX_PIXELS)
    assert caught.value.code is ErrorCode.CORRUPT


def test_exif_in_tiff_that_contains_itself() -> None:
    inner = directory([(33434, ifd.ASCII, 3, 0x6968), (40965, LONG, 1, 72)])
    metadata = read_header(tiff([(34665, LONG, 1, 72)], inner), MAX_PIXELS).metadata
    assert metadata.others == ()
    assert (metadata.exif or b"").count(b"hi\0") == 2


@pytest.mark.parametrize("kind", [BYTE, LONG])
def test_tags_beside_a_thumbnail_are_not_read(kind: int) -> None:
    many = [(1000 + n, kind, 20_000 // kind, 8) for n in range(SHARED)]
    block = chain([ORIENTATION], many, behind=bytes(20_000))
    assert peak(lambda: exif.with_thumbnail(block, PICTURE)) < SMALL
    assert exif.with_thumbnail(block, PICTURE) == (block, True)


def test_an_orientation_of_many_values() -> None:
    block = chain([(0x0112, BYTE, 2_000_000, 8)], behind=bytes(2_000_000))
    assert peak(lambda: exif.orientation(block)) < SMALL


def test_strips_of_a_thumbnail_that_all_are_the_whole_block() -> None:
    """Emptying each would take long."""
    strips = 20_000
    behind = struct.pack("<I", 2**16) * strips
    at = FIRST + size_of(2)
    block = chain([ORIENTATION], [(273, LONG, strips, at), (279, LONG, strips, at)], behind=behind)
    out, kept = exif.with_thumbnail(block, PICTURE)
    assert not kept
    assert out[FIRST:] == block[FIRST:]


@pytest.mark.parametrize("surplus", [1, 2**27, 2**32 - 1 - len(THUMB)])
def test_a_thumbnail_longer_than_its_block_is_left_out(surplus: int) -> None:
    block = with_thumbnails(1, length=len(THUMB) + surplus)
    assert peak(lambda: exif.with_thumbnail(block, PICTURE)) < SMALL
    out = brightened(parts.jpeg(segment(0xE1, exif.PREFIX + block)))
    assert out.lost == ("EXIF thumbnail",)
    [one] = of(out.data, 0xE1, exif.PREFIX)
    assert found(one.payload[6:]) == []


@pytest.mark.parametrize("target", ["png", "webp", "tiff"])
def test_it_is_named_with_another_format_too(target: Format) -> None:
    block = with_thumbnails(1, length=2**27)
    out = brightened(parts.jpeg(segment(0xE1, exif.PREFIX + block)), target)
    assert "EXIF thumbnail" in out.lost


def test_a_value_outside_of_the_block_is_no_reason_to_keep_a_thumbnail() -> None:
    block = bytearray(with_thumbnails(1))
    struct.pack_into("<I", block, FIRST + 2 + 12 + 4, 2**20)  # the count of offsets
    out, kept = exif.with_thumbnail(bytes(block), PICTURE)
    assert not kept
    assert found(out) == []


def test_a_directory_that_claims_more_tags_than_there_are() -> None:
    """Some readers use those that are there."""
    block = bytearray(with_thumbnails(1))
    struct.pack_into("<H", block, FIRST, 5000)
    out, kept = exif.with_thumbnail(bytes(block), PICTURE)
    assert kept
    [new] = found(out[:FIRST] + struct.pack("<H", 3) + out[FIRST + 2 :])
    assert mean(new) == pytest.approx(parts.BRIGHT, abs=3)


@pytest.mark.parametrize("count", [2, 3])
def test_thumbnails_of_further_directories(count: int) -> None:
    block = with_thumbnails(count)
    out, kept = exif.with_thumbnail(block, PICTURE)
    assert (kept, len(out)) == (True, len(block))
    assert [mean(one) for one in found(out)] == pytest.approx([parts.BRIGHT] * count, abs=3)


def test_a_further_thumbnail_that_is_no_picture_is_left_out() -> None:
    block = with_thumbnails(2)
    at = block.rindex(b"\xff\xd8\xff")
    out, kept = exif.with_thumbnail(block[:at] + bytes(9) + block[at + 9 :], PICTURE)
    assert not kept
    [new] = found(out)
    assert mean(new) == pytest.approx(parts.BRIGHT, abs=3)
    assert out[at:] == bytes(len(block) - at)


def test_two_thumbnails_of_one_directory_are_left_out() -> None:
    """Readers differ in which of them they show."""
    at = FIRST + size_of(6)
    twice = [*thumbnail(at, len(THUMB)), *thumbnail(at + len(THUMB), len(THUMB))]
    out, kept = exif.with_thumbnail(chain([ORIENTATION], twice, behind=THUMB * 2), PICTURE)
    assert (kept, found(out)) == (False, [])


def test_directories_without_end_are_cut() -> None:
    out, kept = exif.with_thumbnail(with_thumbnails(100), PICTURE)
    assert not kept
    assert {round(mean(one), -1) for one in found(out)} == {parts.BRIGHT}


def test_directories_in_a_circle() -> None:
    block = bytearray(with_thumbnails(1))
    struct.pack_into("<I", block, FIRST + size_of(3) - 4, 8)
    _, kept = exif.with_thumbnail(bytes(block), PICTURE)
    assert kept


@pytest.mark.parametrize("fill", [b"\xff", b"\x01"])
def test_a_prefix_that_ends_with_something_else(fill: bytes) -> None:
    source = parts.jpeg(segment(0xE1, b"Exif\0" + fill + with_thumbnails(1)))
    out = brightened(source)
    [one] = of(out.data, 0xE1, b"Exif\0" + fill)
    assert out.lost == ()
    assert mean(found(one.payload[6:])[0]) == pytest.approx(parts.BRIGHT, abs=3)
    assert read(source).header.metadata.orientation == 6
    assert opened(again(source, "png")).getexif()[0x0112] == 6


def test_the_usual_prefix_goes_before_another() -> None:
    other = Image.Exif()
    other[0x0112] = 3
    both = segment(0xE1, b"Exif\0\xff" + with_thumbnails(1)) + segment(0xE1, other.tobytes())
    out = brightened(parts.jpeg(both))
    [one] = of(out.data, 0xE1, b"Exif\0\xff")
    assert mean(found(one.payload[6:])[0]) == pytest.approx(parts.BRIGHT, abs=3)
    metadata = read(parts.jpeg(both)).header.metadata
    assert (metadata.orientation, metadata.others) == (3, ("second EXIF",))


def test_thumbnails_without_number_take_bounded_time() -> None:
    """Each claims to be much larger than it is."""
    large = bytearray(THUMB)
    at = large.index(b"\xff\xc0") + 5
    segments = b""
    for side in range(2000, 1500, -1):
        struct.pack_into(">HH", large, at, side, side)
        segments += segment(0xE1, exif.PREFIX + with_thumbnails(1, old=bytes(large)))
    jfif = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\2\2" + bytes(12))
    began = time.monotonic()
    out = brightened(parts.jpeg(segments, jfif))
    assert time.monotonic() - began < 10
    assert out.lost == ("EXIF thumbnail", "JFIF thumbnail")
    [one] = of(out.data, 0xE0, b"JFIF")
    assert one.payload.endswith(bytes(2))


def test_more_thumbnails_than_a_file_has() -> None:
    counted = Picture(np.zeros((64, 96, 3), np.uint8))
    made = [counted.small(side, side) for side in range(1, 1000)]
    assert 50 < sum(one is not None for one in made) < 500
    assert counted.small(1, 1) is None
