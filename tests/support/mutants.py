"""Damaged image files, each determined by a seed and a number: what a run must survive.

A mutant is a real file of some kind with one to four changes. Some are blind (bits, runs, cuts);
others know the container and repair its checksums, so that they get past its front door.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Literal

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from batchlight.config import Format
from batchlight.images.chunks import PNG_SIGNATURE
from batchlight.images.pixels import Pixels
from tests.support import image_files as images
from tests.support.helpers import dark_image
from tests.support.image_files import (
    FORMATS,
    MAKE,
    ORIENTATION,
    animation,
    avif_10_bit,
    planes,
    png,
    png_chunk,
    png_start,
    png_with_late_metadata,
    samples,
    saved,
    tiff,
    with_everything,
)

ICC = images.ICC[:24] + bytes(12) + images.ICC[36:]
"""Without its creation time."""

HOW_MANY_CHANGES = [1, 1, 1, 1, 2, 2, 3, 4]
BLIND_SHARE = 0.4
REPAIRED_SHARE = 0.9
"""Share of the mutants whose checksums and total lengths are repaired."""


@dataclass(frozen=True)
class Mutant:
    """A damaged file; its name is enough to reproduce it."""

    name: str
    format: Format
    """Format of the file that was damaged."""
    changes: tuple[str, ...]
    data: bytes


@dataclass(frozen=True)
class Field:
    """An integer in a file."""

    at: int
    size: int
    order: Literal["little", "big"]


def mutant(seed: int, number: int) -> Mutant:
    """The same for the same seed and number, as long as the encoders stay the same."""
    rng = random.Random(f"{seed} {number}")
    format = FORMATS[number % len(FORMATS)]
    parent = rng.choice(sorted(parents()[format]))
    data = parents()[format][parent]
    changes: list[str] = []
    wanted = rng.choice(HOW_MANY_CHANGES)
    while len(changes) < wanted:
        change = rng.choice(BLIND if rng.random() < BLIND_SHARE else INFORMED)
        changed = change(rng, format, data)
        if changed is not None:
            data = changed
            changes.append(change.__name__)
    if rng.random() < REPAIRED_SHARE:
        data = repaired(format, data)
    stem, _, suffix = parent.rpartition(".")
    return Mutant(f"{seed}-{number:06d}-{stem}.{suffix}", format, tuple(changes), data)


# Whole files


@cache
def parents() -> dict[Format, dict[str, bytes]]:
    """By format and name, whole files of every kind."""
    colour, gray = Image.fromarray(dark_image(1)), Image.fromarray(dark_image(2, channels=1))
    clear = Image.fromarray(dark_image(3, channels=4))
    exif = Image.Exif()
    exif[MAKE], exif[ORIENTATION] = "Lantern", 6
    jpeg = {
        "444.jpg": saved(colour, "JPEG", subsampling="4:4:4"),
        "420.jpg": saved(colour, "JPEG", subsampling="4:2:0", optimize=True),
        "gray.jpg": saved(gray, "JPEG"),
        "progressive.jpg": saved(colour, "JPEG", progressive=True),
        "restarts.jpg": saved(colour, "JPEG", restart_marker_rows=1),
        "everything.jpg": with_everything("jpeg", ICC),
        "long-profile.jpg": with_everything("jpeg", ICC + bytes(70_000)),
        "cmyk.jpg": saved(colour.convert("CMYK"), "JPEG"),
        "pictures.jpg": animation("MPO"),
    }
    text = PngImagePlugin.PngInfo()
    block = exif.tobytes()
    text.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n", zip=True)
    text.add_itxt("Author", "Zoë", lang="de", tkey="Autor", zip=True)
    palette = colour.convert("P", palette=Image.Palette.ADAPTIVE)
    kinds = [(channels, dtype) for channels in (1, 2, 3, 4) for dtype in (np.uint8, np.uint16)]
    pngs = {
        **{f"{c}x{dtype.__name__}.png": png(samples(c, dtype)) for c, dtype in kinds},
        "palette.png": saved(palette, "PNG"),
        "palette-clear.png": saved(palette, "PNG", transparency=3),
        "bilevel.png": saved(gray.convert("1"), "PNG"),
        "interlaced.png": interlaced(dark_image(4)),
        "interlaced-16.png": interlaced(dark_image(4, dtype=np.uint16)),
        "everything.png": with_everything("png", ICC),
        "late-metadata.png": png_with_late_metadata(),
        "text.png": saved(colour, "PNG", pnginfo=text),
        "animated.png": animation("PNG"),
    }
    webp = {
        "lossy.webp": saved(colour, "WEBP"),
        "lossless.webp": saved(colour, "WEBP", lossless=True),
        "lossy-alpha.webp": saved(clear, "WEBP"),
        "lossless-alpha.webp": saved(clear, "WEBP", lossless=True, exact=True),
        "everything.webp": with_everything("webp", ICC),
        "animated.webp": animation("WEBP"),
    }
    packed = {
        f"{name}.tif": saved(colour, "TIFF", compression=name)
        for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    }
    tags = [(274, 3, 1, 6, True), (34675, 7, len(ICC), ICC, True)]
    array, deep = dark_image(5), dark_image(5, dtype=np.uint16)
    tiffs = {
        **packed,
        "group4.tif": saved(gray.convert("1"), "TIFF", compression="group4"),
        "palette.tif": saved(palette, "TIFF"),
        "strips.tif": tiff(array, rowsperstrip=5),
        "tiles.tif": tiff(array, tile=(16, 32)),
        "tiles-deflate.tif": tiff(array, tile=(16, 16), compression="zlib", predictor=True),
        "tiles-alpha.tif": tiff(samples(4, height=40, width=40), "unassalpha", tile=(16, 16)),
        "deep.tif": tiff(deep),
        "deep-tiles.tif": tiff(deep, tile=(16, 16)),
        "deep-opencv.tif": bytes(cv2.imencode(".tiff", deep)[1]),
        "gray.tif": tiff(array[:, :, 0].copy()),
        "alpha.tif": tiff(samples(4), "unassalpha"),
        "big-endian.tif": tiff(array, byteorder=">"),
        "big.tif": tiff(array, bigtiff=True, tile=(16, 16)),
        "planes.tif": planes(array),
        "turned.tif": tiff(array, extratags=tags),
        "pages.tif": animation("TIFF"),
        "float.tif": tiff(array.astype(np.float32)),
    }
    bmp = {
        **{f"{mode}.bmp": saved(colour.convert(mode), "BMP") for mode in ("1", "L", "P", "RGB")},
        "alpha.bmp": saved(clear, "BMP"),
        "alpha-opencv.bmp": bytes(cv2.imencode(".bmp", dark_image(3, channels=4))[1]),
        "os2.bmp": bmp_file(struct.pack("<IHHHH", 12, 8, 6, 1, 24), bytes(8 * 6 * 3)),
        "565.bmp": bmp_file(bmp_header(8, 6, 16, 3), bytes(range(96)), 0xF800, 0x07E0, 0x001F),
        "rle8.bmp": bmp_file(
            bmp_header(8, 6, 8, 1), b"\x08\x01\x00\x00" * 6 + b"\0\1", *range(256)
        ),
        "rle4.bmp": bmp_file(bmp_header(8, 6, 4, 2), b"\x08\x12\x00\x00" * 6 + b"\0\1", *range(16)),
        "top-down.bmp": bmp_file(bmp_header(8, -6, 24, 0), bytes(8 * 6 * 3)),
        "version-5.bmp": bmp_file(bmp_header(8, 6, 32, 3, 124), bytes(range(192))),
    }
    avif = {
        "plain.avif": saved(colour, "AVIF"),
        "444.avif": saved(colour, "AVIF", subsampling="4:4:4", quality=100),
        "gray.avif": saved(gray, "AVIF"),
        "alpha.avif": saved(clear, "AVIF"),
        "everything.avif": with_everything("avif", ICC),
        "ten-bit.avif": avif_10_bit(),
        "animated.avif": timeless(animation("AVIF")),
    }
    return {"jpeg": jpeg, "png": pngs, "webp": webp, "tiff": tiffs, "bmp": bmp, "avif": avif}


def interlaced(array: Pixels) -> bytes:
    """A colour PNG in Adam7's seven passes."""
    big_endian = array.astype(array.dtype.newbyteorder(">"))
    starts = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
    rows = [
        b"\0" + row.tobytes()
        for x, y, across, down in [*starts, (0, 1, 1, 2)]
        for row in big_endian[y::down, x::across]
    ]
    start = bytearray(png_start(array.shape[1], array.shape[0], array.itemsize * 8))
    start[28] = 1
    pixels = png_chunk(b"IDAT", zlib.compress(b"".join(rows))) + png_chunk(b"IEND")
    return repaired("png", bytes(start)) + pixels


def timeless(data: bytes) -> bytes:
    """An animated AVIF without its creation times."""
    for kind in (b"mvhd", b"tkhd", b"mdhd"):
        at = data.index(kind) + 8
        data = data[:at] + bytes(16) + data[at + 16 :]
    return data


def bmp_header(width: int, height: int, bits: int, compression: int, size: int = 40) -> bytes:
    header = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, compression, *[0] * 5)
    if size > 40:
        header += struct.pack("<IIII4s", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"BGRs")
    return header.ljust(size, b"\0")


def bmp_file(header: bytes, pixels: bytes, *colours: int) -> bytes:
    palette = struct.pack(f"<{len(colours)}I", *colours)
    start = 14 + len(header) + len(palette)
    size = start + len(pixels)
    return b"BM" + struct.pack("<IHHI", size, 0, 0, start) + header + palette + pixels


# Containers: where their blocks and their integers are, as far as the bytes make sense


def blocks(format: Format, data: bytes) -> list[bytes]:
    """The file cut where its container has chunks, segments or boxes; joined, it is the file."""
    cuts = sorted({0, len(data), *(at for at, _ in _blocks(format, data) if at < len(data))})
    return [data[start:end] for start, end in pairwise(cuts)]


def lengths(format: Format, data: bytes) -> list[Field]:
    """The lengths of chunks, segments and boxes; for TIFF, the counts of the tags."""
    if format == "tiff":
        return [entry[2] for entry in tiff_entries(data)]
    return [length for _, length in _blocks(format, data)]


def _blocks(format: Format, data: bytes) -> Iterator[tuple[int, Field]]:
    """Where each block starts, and its length."""
    if format == "png":
        yield from _chunks(data, len(PNG_SIGNATURE), "big", 0, 12)
    elif format == "webp":
        yield from _chunks(data, 12, "little", 4, 8)
    elif format == "avif":
        yield from _boxes(data, 0, len(data))
    elif format == "jpeg":
        at = 2
        while at + 4 <= len(data) and data[at] == 0xFF:
            yield at, Field(at + 2, 2, "big")
            if data[at + 1] == 0xDA:  # pixels follow; progressive files have several scans
                at = data.find(b"\xff\xc4", at + 2)
                if at < 0:
                    return
            else:
                at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def _chunks(
    data: bytes, at: int, order: Literal["little", "big"], length_at: int, overhead: int
) -> Iterator[tuple[int, Field]]:
    while at + 8 <= len(data):
        yield at, Field(at + length_at, 4, order)
        length = int.from_bytes(data[at + length_at : at + length_at + 4], order)
        at += overhead + length + (length & 1 if order == "little" else 0)


_BOXES_OF_BOXES = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"moov": 0, b"trak": 0, b"mdia": 0}
"""Boxes that contain boxes, and after how many bytes."""


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[int, Field]]:
    while at + 8 <= end:
        yield at, Field(at, 4, "big")
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if size < 8:
            return
        if kind in _BOXES_OF_BOXES:
            yield from _boxes(data, at + 8 + _BOXES_OF_BOXES[kind], min(at + size, end))
        at += size


def tiff_entries(data: bytes, base: int = 0) -> list[tuple[Field, Field, Field, Field]]:
    """Tag, type, count and value of each entry of the first directory; for EXIF, at ``base``."""
    order: Literal["little", "big"] = "little" if data[base : base + 2] == b"II" else "big"
    wide = int.from_bytes(data[base + 2 : base + 4], order) == 43
    size, first = (8, base + 8) if wide else (4, base + 4)
    directory = base + int.from_bytes(data[first : first + size], order)
    many = 8 if wide else 2
    count = int.from_bytes(data[directory : directory + many], order)
    step = 4 + 2 * size
    starts = [directory + many + step * number for number in range(min(count, 64))]
    return [
        (
            Field(at, 2, order),
            Field(at + 2, 2, order),
            Field(at + 4, size, order),
            Field(at + 4 + size, size, order),
        )
        for at in starts
        if at + step <= len(data)
    ]


def with_tag(data: bytes, tag: int, value: int) -> bytes:
    """A TIFF with another value in one of its tags."""
    [field] = [entry[3] for entry in tiff_entries(data) if _value(data, entry[0]) == tag]
    return _with_value(data, field, value)


_SIZES_OF_TIFF = {256, 257, 258, 259, 262, 266, 277, 278, 284, 317, 322, 323, 338, 339}
"""Tags that give the size of the pixels, and their layout."""


def dimensions(format: Format, data: bytes) -> list[Field]:
    """Width, height, and whatever else determines how much memory the pixels take."""
    if format == "png":
        return [Field(16, 4, "big"), Field(20, 4, "big"), *(Field(n, 1, "big") for n in (24, 25))]
    if format == "bmp":
        places = [(10, 4), (14, 4), (18, 4), (22, 4), (28, 2), (30, 4), (34, 4), (46, 4)]
        return [Field(at, size, "little") for at, size in places]
    if format == "jpeg":
        found = [at for at, _ in _blocks(format, data) if data[at + 1] in (0xC0, 0xC1, 0xC2)]
        sizes = [Field(at + delta, 2, "big") for at in found for delta in (5, 7)]
        return sizes + [Field(at + delta, 1, "big") for at in found for delta in (4, 9, 11, 14)]
    if format == "webp":
        of_kind = {b"VP8X": ((12, 3), (15, 3)), b"VP8 ": ((14, 2), (16, 2)), b"VP8L": ((9, 4),)}
        return [
            Field(at + delta, size, "little")
            for at, _ in _blocks(format, data)
            for delta, size in of_kind.get(data[at : at + 4], ())
        ]
    if format == "avif":
        found = [at for at, _ in _blocks(format, data) if data[at + 4 : at + 8] == b"ispe"]
        return [Field(at + delta, 4, "big") for at in found for delta in (12, 16)]
    return [
        Field(value.at, _short(data, kind), value.order)
        for tag, kind, _, value in tiff_entries(data)
        if _value(data, tag) in _SIZES_OF_TIFF
    ]


def _short(data: bytes, kind: Field) -> int:
    return 2 if _value(data, kind) == 3 else 4


def repaired(format: Format, data: bytes) -> bytes:
    """With correct PNG checksums, and the right RIFF length."""
    out = bytearray(data)
    if format == "png":
        for at, length in _blocks(format, data):
            end = at + 8 + _value(data, length)
            if end + 4 <= len(out):
                out[end : end + 4] = zlib.crc32(out[at + 4 : end]).to_bytes(4, "big")
    elif format == "webp" and len(out) > 12:
        out[4:8] = (len(out) - 8).to_bytes(4, "little")
    return bytes(out)


def _value(data: bytes, field: Field) -> int:
    return int.from_bytes(data[field.at : field.at + field.size], field.order)


# Changes. Each returns None where there is nothing of its kind to change.


def flip_bits(rng: random.Random, format: Format, data: bytes) -> bytes | None:
    if not data:
        return None
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        out[_place(rng, data)] ^= 1 << rng.randrange(8)
    return bytes(out)


def replace_run(rng: random.Random, format: Format, data: bytes) -> bytes | None:
    at, length = _place(rng, data), rng.choice([1, 2, 4, 16, 256])
    run = rng.choice([bytes(length), b"\xff" * length, rng.randbytes(length)])
    return data[:at] + run + data[at + length :]


def delete_run(rng: random.Random, format: Format, data: bytes) -> bytes | None:
    at = _place(rng, data)
    return data[:at] + data[at + rng.choice([1, 2, 4, 16, 256]) :]


def insert_run(rng: random.Random, format: Format, data: bytes) -> bytes | None:
    at, length = _place(rng, data), rng.choice([1, 2, 4, 16, 256, 70_000])
    return data[:at] + rng.choice([bytes(length), rng.randbytes(length)]) + data[at:]


def repeat_run(rng: random.Random, format: Format, data: bytes) -> bytes | None:
    at, length = _place(rng, data), rng.choice([2, 16, 256])
    return data[:at] + data[at : at + length] * rng.choice([2, 3, 50]) + data[at + length :]


def cut(rng: random.Random, format: Format, data: bytes) -> bytes | None:
    return data[: _place(rng, data)]


def change_integer(rng: random.Random, format: Format, data: bytes) -> bytes | None:
    order: Literal["little", "big"] = rng.choice(["little", "big"])
    return _with_field(rng, data, Field(_place(rng, data), rng.choice([2, 4]), order))


def change_length(rng: random.Random, format: Format, data: bytes) -> bytes | None:
    return _with_one_of(rng, data, lengths(format, data))


def change_dimension(rng: random.Random, format: Format, data: bytes) -> bytes | None:
    return _with_one_of(rng, data, dimensions(format, data))


def change_tag(rng: random.Random, format: Format, data: bytes) -> bytes | None:
    """Tag, type, count or value of a directory entry: the TIFF file's own, or that of EXIF."""
    starts = [at for magic in (b"II*\0", b"MM\0*", b"II+\0") if (at := data.find(magic)) >= 0]
    if not starts:
        return None
    entries = tiff_entries(data, rng.choice(starts))
    return _with_one_of(rng, data, [field for entry in entries for field in entry])


def repeat_tag(rng: random.Random, format: Format, data: bytes) -> bytes | None:
    """One directory entry overwritten with another."""
    entries = tiff_entries(data) if format == "tiff" else []
    if len(entries) < 2:
        return None
    (one, *_), (other, *_) = rng.sample(entries, 2)
    size = entries[1][0].at - entries[0][0].at
    return data[: other.at] + data[one.at : one.at + size] + data[other.at + size :]


def move_blocks(rng: random.Random, format: Format, data: bytes) -> bytes | None:
    """A chunk, segment or box dropped, doubled, swapped with another, or from another file."""
    cut_up = blocks(format, data)
    if len(cut_up) < 3:
        return None
    one, other = rng.randrange(1, len(cut_up)), rng.randrange(1, len(cut_up))
    kind = rng.choice(["drop", "double", "swap", "borrow"])
    if kind == "drop":
        del cut_up[one]
    elif kind == "double":
        cut_up.insert(other, cut_up[one])
    elif kind == "swap":
        cut_up[one], cut_up[other] = cut_up[other], cut_up[one]
    else:
        lender = blocks(format, rng.choice(sorted(parents()[format].values())))
        cut_up.insert(one, rng.choice(lender))
    return b"".join(cut_up)


def change_inside_block(rng: random.Random, format: Format, data: bytes) -> bytes | None:
    """A blind change in one block; half of the time, its length is repaired."""
    cut_up = blocks(format, data)
    if len(cut_up) < 2:
        return None
    which = rng.randrange(1, len(cut_up))
    old = cut_up[which]
    new = rng.choice([flip_bits, replace_run, delete_run, insert_run])(rng, format, old) or b""
    cut_up[which] = new
    out = b"".join(cut_up)
    start = sum(map(len, cut_up[:which]))
    length = next((field for at, field in _blocks(format, data) if at == start), None)
    if length is None or len(old) == len(new) or rng.random() < 0.5:
        return out
    right = _value(data, length) + len(new) - len(old)
    return _with_value(out, length, right)


def change_compressed(rng: random.Random, format: Format, data: bytes) -> bytes | None:
    """What PNG compresses (pixels, profile, texts), changed before compression."""
    chunks = list(_blocks("png", data)) if format == "png" else []
    skipped = {b"IDAT": 0, b"iCCP": 13, b"zTXt": 23, b"iTXt": 18, b"fdAT": 4}
    found = [at for at, _ in chunks if data[at + 4 : at + 8] in skipped]
    if not found:
        return None
    at = rng.choice(found)
    end = at + 8 + int.from_bytes(data[at : at + 4], "big")
    kind = data[at + 4 : at + 8]
    start = at + 8 + skipped[kind]
    try:
        inside = zlib.decompress(data[start:end])
    except zlib.error:
        return None
    change = rng.choice([flip_bits, replace_run, delete_run, insert_run, cut, _bomb])
    changed = zlib.compress(change(rng, format, inside) or b"")
    return data[:at] + png_chunk(kind, data[at + 8 : start] + changed) + data[end + 4 :]


def _bomb(rng: random.Random, format: Format, data: bytes) -> bytes | None:
    return data + bytes(rng.choice([2**20, 2**25]))


def change_orientation(rng: random.Random, format: Format, data: bytes) -> bytes | None:
    """The value of the tag, wherever it is."""
    places = [
        Field(at + delta, size, order)
        for magic, order in _ORIENTATION_TAGS
        if (at := data.find(magic)) >= 0
        for delta, size in ((2, 2), (4, 4), (8, 2))
    ]
    return _with_one_of(rng, data, places)


_ORIENTATION_TAGS: list[tuple[bytes, Literal["little", "big"]]] = [
    (b"\x12\x01\x03\x00", "little"),
    (b"\x01\x12\x00\x03", "big"),
]


def change_metadata(rng: random.Random, format: Format, data: bytes) -> bytes | None:
    """A blind change in place, in EXIF, ICC or XMP."""
    marks = {b"acsp": (-36, 3000), b"<x:xmpmeta": (-30, 80), b"II*\0": (0, 60), b"MM\0*": (0, 60)}
    found = [(data.find(mark, 8), *reach) for mark, reach in marks.items()]
    found = [place for place in found if place[0] >= 0]
    if not found:
        return None
    at, before, after = rng.choice(found)
    start, end = max(0, at + before), min(len(data), at + after)
    change = rng.choice([flip_bits, replace_run, change_integer])
    changed = change(rng, format, data[start:end]) or b""
    return data[:start] + changed[: end - start].ljust(end - start, b"\0") + data[end:]


def splice(rng: random.Random, format: Format, data: bytes) -> bytes | None:
    """The start of this file and the end of another, mostly of the same format."""
    others = parents()[format if rng.random() < 0.8 else rng.choice(FORMATS)]
    other = rng.choice(sorted(others.values()))
    if rng.random() < 0.5:
        at = _place(rng, data)
        return data[:at] + other[at:]
    own, borrowed = blocks(format, data), blocks(format, other)
    head, tail = rng.randrange(len(own) + 1), rng.randrange(len(borrowed) + 1)
    return b"".join(own[:head] + borrowed[tail:])


Change = Callable[[random.Random, Format, bytes], bytes | None]
BLIND: list[Change] = [
    flip_bits,
    replace_run,
    delete_run,
    insert_run,
    repeat_run,
    cut,
    change_integer,
    splice,
]
INFORMED: list[Change] = [
    change_length,
    change_dimension,
    change_tag,
    repeat_tag,
    move_blocks,
    change_inside_block,
    change_compressed,
    change_orientation,
    change_metadata,
]


def _place(rng: random.Random, data: bytes) -> int:
    """Anywhere, but half of the time near the start, where the headers are."""
    reach = len(data) if rng.random() < 0.5 else min(len(data), 200)
    return rng.randrange(reach) if reach else 0


def _with_one_of(rng: random.Random, data: bytes, fields: list[Field]) -> bytes | None:
    fields = [field for field in fields if field.at + field.size <= len(data)]
    return _with_field(rng, data, rng.choice(fields)) if fields else None


def _with_field(rng: random.Random, data: bytes, field: Field) -> bytes:
    """The integer replaced by an extreme one, a neighbour, or another that may be plausible."""
    top = 1 << (8 * field.size)
    now = _value(data, field)
    extremes = [0, 1, 2, top // 2 - 1, top // 2, top - 1, top - 2, 0x7FFF, 0xFFFF, 0x10000]
    near = [now + 1, now - 1, now * 2, now // 2, now ^ 1 << rng.randrange(8 * field.size)]
    value = rng.choice(rng.choice([extremes, near, [rng.randrange(1, 3000)]]))
    return _with_value(data, field, value)


def _with_value(data: bytes, field: Field, value: int) -> bytes:
    written = (value % (1 << (8 * field.size))).to_bytes(field.size, field.order)
    return data[: field.at] + written + data[field.at + field.size :]
