"""Files with everything that occurs in practice besides pixels, made part by part."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Any

import cv2
import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from batchlight.images.boxes import box, boxes, full_box
from batchlight.images.segments import segment
from batchlight.images.thumbnails import Picture
from tests.support.helpers import dark_image
from tests.support.image_files import ICC, saved

WIDTH, HEIGHT = 96, 64
DARK = cv2.cvtColor(dark_image(7, HEIGHT, WIDTH), cv2.COLOR_BGR2RGB)
PICTURE = Picture(DARK)
THUMBNAIL = 48, 32
BRIGHT = 200
"""The value that tests enhance every sample to."""


def jpeg(*segments_: bytes, trailer: bytes = b"", **options: Any) -> bytes:
    """A JPEG with segments before its tables, and bytes after its image."""
    plain = saved(Image.fromarray(DARK), "JPEG", **options)
    return plain[:2] + b"".join(segments_) + plain[20:] + trailer


def small_jpeg(size: tuple[int, int] = THUMBNAIL) -> bytes:
    """A dark thumbnail."""
    return saved(Image.fromarray(cv2.resize(DARK, size)), "JPEG", quality=90)


MAKER_NOTE = b"Lantern\0" + bytes(range(64))


def exif_with_thumbnail(order: str = "<", room: int = 2000) -> bytes:
    """A block with a MakerNote that must not move, and a thumbnail in its second directory."""
    thumb = small_jpeg().ljust(room, b"\0")

    def entry(tag: int, kind: int, count: int, value: int) -> bytes:
        field = struct.pack(
            order + ("HH" if kind == 3 else "I"), *([value, 0] if kind == 3 else [value])
        )
        return struct.pack(order + "HHI", tag, kind, count) + field

    def directory(entries: list[bytes], following: int) -> bytes:
        count, end = struct.pack(order + "H", len(entries)), struct.pack(order + "I", following)
        return count + b"".join(entries) + end

    exif_at = 8 + 2 + 2 * 12 + 4
    note_at = exif_at + 2 + 12 + 4
    second_at = note_at + len(MAKER_NOTE)
    thumb_at = second_at + 2 + 3 * 12 + 4
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return b"".join(
        [
            start,
            directory([entry(0x0112, 3, 1, 1), entry(34665, 4, 1, exif_at)], second_at),
            directory([entry(37500, 7, len(MAKER_NOTE), note_at)], 0),
            MAKER_NOTE,
            directory(
                [entry(259, 3, 1, 6), entry(513, 4, 1, thumb_at), entry(514, 4, 1, len(thumb))], 0
            ),
            thumb,
        ]
    )


def resource(number: int, payload: bytes) -> bytes:
    """A Photoshop image resource."""
    head = b"8BIM" + struct.pack(">H", number) + b"\0\0" + struct.pack(">I", len(payload))
    return head + payload + bytes(len(payload) & 1)


def photoshop_thumbnail(number: int = 0x040C) -> bytes:
    width, height = THUMBNAIL
    data = small_jpeg()
    row = (width * 24 + 31) // 32 * 4
    head = struct.pack(">IIIIIIHH", 1, width, height, row, row * height, len(data), 24, 1)
    return resource(number, head + data)


IPTC = b"\x1c\x02\x78\x00\x08by night"
PHOTOSHOP = b"Photoshop 3.0\0"


def mpf(offset_of_further: list[int], lengths: list[int], kinds: list[int]) -> bytes:
    """The index of a file of several pictures; offsets count from the end of its prefix."""
    entries = struct.pack("<IIIHH", 0x030000, 1000, 0, 0, 0)
    for offset, length, kind in zip(offset_of_further, lengths, kinds, strict=True):
        entries += struct.pack("<IIIHH", kind, length, offset, 0, 0)
    count = len(kinds) + 1
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 3)
    values = 8 + 2 + 3 * 12 + 4
    tags = [
        struct.pack("<HHI4s", 0xB000, 7, 4, b"0100"),
        struct.pack("<HHII", 0xB001, 4, 1, count),
        struct.pack("<HHII", 0xB002, 7, len(entries), values),
    ]
    return b"MPF\0" + head + b"".join(tags) + bytes(4) + entries


def several_pictures(further: bytes, kind: int, *before: bytes, trailer: bytes = b"") -> bytes:
    """A JPEG, followed by another one that the index lists."""
    size = len(segment(0xE2, mpf([0], [0], [0])))
    plain = jpeg(*before, bytes(size))
    at = 2 + sum(map(len, before)) + 4 + 4
    index = segment(0xE2, mpf([len(plain) - at], [len(further)], [kind]))
    return plain[: at - 8] + index + plain[at - 8 + size :] + further + trailer


XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"
RDF = b"http://www.w3.org/1999/02/22-rdf-syntax-ns#"


def xmp(attributes: bytes = b"", inner: bytes = b"") -> bytes:
    """A packet."""
    return (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="' + RDF + b'">'
        b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" ' + attributes
        + b" dc:source=\"dark\">" + inner + b"</rdf:Description></rdf:RDF></x:xmpmeta>"
    )  # fmt: skip


def gain_map_xmp(length: int) -> bytes:
    items = b"".join(
        b'<rdf:li rdf:parseType="Resource"><Container:Item Item:Mime="image/jpeg" Item:Semantic="'
        + name + b'" Item:Length="%d"/></rdf:li>' % size
        for name, size in ((b"Primary", 0), (b"GainMap", length))
    )  # fmt: skip
    inner = b"<Container:Directory><rdf:Seq>" + items + b"</rdf:Seq></Container:Directory>"
    return xmp(b'hdrgm:Version="1.0"', inner)


def jumbf(content: bytes, number: int = 1) -> bytes:
    """A segment of APP11 with a box whose description holds ``content``."""
    inner = struct.pack(">I4s", 8 + len(content), b"jumd") + content
    return segment(
        0xEB,
        b"JP"
        + struct.pack(">HI", number, 1)
        + struct.pack(">I4s", 8 + len(inner), b"jumb")
        + inner,
    )


def tiff_with(tags: Sequence[tuple[int, int, int, Any]], **options: Any) -> bytes:
    """A colour TIFF with further tags: number, type, count, value."""
    buffer = io.BytesIO()
    extra = [(*tag, True) for tag in tags]
    tifffile.imwrite(buffer, DARK, photometric="rgb", metadata=None, extratags=extra, **options)
    return buffer.getvalue()


def with_overview(mask: bool = False) -> bytes:
    """Two pages, the second derived from the first, or a mask of it."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(DARK, photometric="rgb", metadata=None, tile=(32, 32), compression="zlib")
        if mask:
            file.write(np.ones((HEIGHT, WIDTH), bool), metadata=None, subfiletype=4)
        else:
            half = np.ascontiguousarray(DARK[::2, ::2])
            file.write(half, photometric="rgb", metadata=None, subfiletype=1)
    return buffer.getvalue()


def avif(
    pixelformat: str = "yuv420",
    points: tuple[int, int, int] = (1, 13, 6),
    *properties: bytes,
    lossless: bool = False,
) -> bytes:
    """An AVIF with code points, and with properties of its picture."""
    primaries, transfer, matrix = points
    data = imagecodecs.avif_encode(
        DARK, 100 if lossless else 90, speed=9, pixelformat=pixelformat, primaries=primaries,
        transfer=transfer, matrix=matrix, numthreads=1,
    )  # fmt: skip
    return with_properties(bytes(data), properties)


def with_properties(data: bytes, properties: tuple[bytes, ...]) -> bytes:
    """An AVIF of one picture, described by further boxes, the last ones in order."""
    if not properties:
        return data
    at = data.index(b"ipco") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    known = len(list(boxes(data, at + 8, at + size)))
    start = data.index(b"ipma") - 4
    length = int.from_bytes(data[start : start + 4], "big")
    entries = bytearray(data[start + 16 : start + length])
    entries[2] += len(properties)
    entries += bytes(0x80 | known + n for n in range(1, len(properties) + 1))
    new = box(b"ipco", data[at + 8 : at + size] + b"".join(properties))
    new += full_box(b"ipma", (1).to_bytes(4, "big") + bytes(entries))
    out = bytearray(data[:at] + new + data[start + length :])
    grown = len(out) - len(data)
    for kind in (b"meta", b"iprp"):
        place = data.index(kind) - 4
        out[place : place + 4] = (int.from_bytes(data[place : place + 4], "big") + grown).to_bytes(
            4, "big"
        )
    place = (
        data.index(b"iloc") + 8 + 2 + 2 + 2 + 2 + 2
    )  # version 0, one extent of offset and length
    offset = int.from_bytes(data[place : place + 4], "big") + grown
    out[place : place + 4] = offset.to_bytes(4, "big")
    return bytes(out)


PASP = box(b"pasp", struct.pack(">II", 2, 1))
CLAP = box(b"clap", struct.pack(">IIIIiIiI", 48, 1, 32, 1, 0, 1, 0, 1))
PROFILE = ICC
