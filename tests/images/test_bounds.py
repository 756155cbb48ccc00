"""Small files that would take gigabytes, or hours, by naming the same bytes again and again."""

from __future__ import annotations

import resource
import struct
import time
import zlib
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from batchlight.images import avif
from batchlight.images.boxes import box, boxes, full_box
from batchlight.images.header import read_header
from batchlight.images.thumbnails import Picture
from tests.images.test_carry_boxes import SMALL_AVIF, meta, with_items
from tests.images.test_carry_jpeg import brightened
from tests.images.test_carry_png import PLAIN, with_chunks
from tests.support import image_parts as parts
from tests.support.image_checks import refusal
from tests.support.image_files import again, read

PIXELS = 10**7


@contextmanager
def little(seconds: float = 2, megabytes: int = 100) -> Iterator[None]:
    """What takes no more time, and no more memory at its height, than this."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    yield
    assert time.monotonic() - began < seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < megabytes * 1024


def located(entries: bytes, count: int, sizes: int = 0x4400, padding: int = 100_000) -> bytes:
    """An AVIF in which ``entries`` say where the items are."""
    source = parts.avif()
    [old] = [one for one in boxes(source) if one.kind == b"meta"]
    inner = []
    for one in boxes(source, old.content + 4, old.end):
        whole = source[one.start : one.end]
        if one.kind == b"iloc":
            whole = full_box(b"iloc", struct.pack(">HH", sizes, count) + entries)
        inner.append(whole)
    rest = source[: old.start] + full_box(b"meta", b"".join(inner)) + source[old.end :]
    return rest + box(b"free", bytes(padding))


def test_an_item_of_the_same_bytes_again_and_again() -> None:
    extents = struct.pack(">II", 0, 100_000) * 10_000
    with little():
        data = located(struct.pack(">HHH", 1, 0, 10_000) + extents, 1)
        assert refusal(lambda: read_header(data, PIXELS)) == "corrupt"


def test_extents_that_take_no_byte() -> None:
    """65535 for each of 10,000 items, in 80 kB."""
    entries = b"".join(struct.pack(">HHIH", 2, 0, 8, 65535) for _ in range(10_000))
    with little():
        data = located(entries, 10_000, 0x0040)
        assert refusal(lambda: read_header(data, PIXELS)) == "corrupt"


def sharing(payload: bytes, count: int, step: int = 0, kind: bytes = b"own!") -> bytes:
    """An AVIF with items of the same bytes, each from ``step`` further on."""
    own = [(b"cdsc", kind, b"" if n else payload, b"") for n in range(count)]
    out = bytearray(with_items(parts.avif(), *own))
    start, place = out.index(payload), out.index(b"iloc")
    for number in range(count):
        place = out.index(struct.pack(">HHHH", 10 + number, 0, 0, 1), place) + 8
        struct.pack_into(">II", out, place, start + number * step, len(payload) - number * step)
    return bytes(out)


@pytest.mark.parametrize("step", [0, 1])
def test_items_that_are_all_the_same_part_of_the_file(step: int) -> None:
    with little(megabytes=200):
        data = sharing(bytes(10**6), 2000, step)
        assert refusal(lambda: read_header(data, PIXELS)) == "corrupt"


def test_equal_tiles_may_be_one_and_the_same() -> None:
    found = meta(sharing(SMALL_AVIF[0], 200, kind=b"av01")).items.values()
    assert [item.data for item in found if item.number >= 10] == [SMALL_AVIF[0]] * 200


def test_references_of_many_items() -> None:
    references = b"".join(box(b"thmb", struct.pack(">HHH", 1, 1, 1)) for _ in range(20_000))
    source = parts.avif()
    [old] = [one for one in boxes(source) if one.kind == b"meta"]
    inner = source[old.content + 4 : old.end] + full_box(b"iref", references)
    data = source[: old.start] + full_box(b"meta", inner) + source[old.end :]
    with little():
        refusal(lambda: again(data))


def test_boxes_within_boxes() -> None:
    nested = b""
    for _ in range(5000):
        nested = full_box(b"meta", nested)
    data = parts.avif() + nested
    with little():
        assert avif.claimed_sizes(data) == avif.claimed_sizes(parts.avif())


def test_a_length_of_many_bytes() -> None:
    inner = box(b"av1C", b"\x81\0\0\0\x12" + b"\xff" * 2**19)
    with little():
        assert avif.claimed_sizes(box(b"ftyp", b"avif") + full_box(b"meta", inner)) == []


def test_a_large_picture_inside_another_box() -> None:
    """Its stream is in the box ``idat``, behind an item without any bytes."""
    large = bytes(cv2.imencode(".avif", np.zeros((400, 500, 3), np.uint8))[1])
    stream = meta(large).items[1].data or b""
    entries = struct.pack(">HHHH", 7, 0, 0, 0) + struct.pack(">HHHHII", 1, 1, 0, 1, 0, len(stream))
    iloc = full_box(b"iloc", struct.pack(">HH", 0x4400, 2) + entries, 1)
    data = box(b"ftyp", b"avif") + full_box(b"meta", iloc + box(b"idat", stream))
    assert (500, 400) in avif.claimed_sizes(data)


def test_texts_of_png_together() -> None:
    text = (b"zTXt", b"Long\0\0" + zlib.compress(bytes(2**24 - 1), 1))
    with little(megabytes=150):
        assert (
            refusal(lambda: read_header(with_chunks(PLAIN, [text] * 30), PIXELS)) == "unsupported"
        )
        damaged = (b"zTXt", text[1][:-9] + bytes(9))
        found = refusal(lambda: read_header(with_chunks(PLAIN, [damaged] * 30), PIXELS))
        assert found == "unsupported"


def test_the_decoder_of_png_decompresses_no_texts(capfd: pytest.CaptureFixture[str]) -> None:
    """Up to 8 MB of each, in vain, with a warning about each that is longer."""
    text = (b"zTXt", b"Long\0\0" + zlib.compress(bytes(10**7), 1))
    read(with_chunks(PLAIN, [text], [text]))
    assert capfd.readouterr().err == ""


def test_many_packets_in_one_png() -> None:
    packet = (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + parts.xmp())
    data = with_chunks(PLAIN, [packet] * 15_000)
    with little(seconds=3):
        assert again(data).count(b"iTXt") == 15_000


def test_thumbnails_without_number() -> None:
    """Each a JPEG of 21 bytes that claims to be large."""
    start = b"\xff\xd8\xff\xc0\x00\x11\x08" + struct.pack(">HH", 4000, 4000) + bytes(10)
    one = b"<xmpGImg:image>" + b64encode(start) + b"</xmpGImg:image>"
    packet = b"XML:com.adobe.xmp\0\0\0\0\0" + parts.xmp(inner=one * 100)
    began = time.monotonic()
    assert brightened(with_chunks(PLAIN, [(b"iTXt", packet)])).lost == ("XMP thumbnail",)
    assert time.monotonic() - began < 5
    picture = Picture(np.zeros((64, 96, 3), np.uint8))
    made = [picture.small(1, 1) is not None for _ in range(1000)]
    assert made.count(True) == made.index(False) < 1000
