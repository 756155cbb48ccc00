"""Writing TIFF files over the structure of another, so that everything else in it stays in place.

A TIFF file is full of offsets, also in parts that only their maker understands (MakerNotes, tags of
microscopes). So nothing is moved: new pixels replace the old as far as there is room; the rest is
appended, and so is the first directory.
Layout: TIFF, revision 6.0; GDAL, Cloud Optimized GeoTIFF, "ghost area".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import imagecodecs
import numpy as np

from batchlight.images import exif, ifd, opencv
from batchlight.images import tiff_layout as tags
from batchlight.images.holed import Holed, Range
from batchlight.images.ifd import NewTag, Structure
from batchlight.images.pixels import Pixels

_STRIP_BYTES = 2**16
_GHOST = b"KNOWN_INCOMPATIBLE_EDITION=NO\n "
_GHOST_EDITED = b"KNOWN_INCOMPATIBLE_EDITION=YES\n"
_GHOST_BYTES = 1024

_OF_OLD_LAYOUT = (
    *(tags.FILL_ORDER, tags.T4_OPTIONS, 293, tags.COLOR_MAP, tags.TILE_WIDTH, tags.TILE_LENGTH),
    *(tags.TILE_OFFSETS, tags.TILE_BYTES, tags.JPEG_TABLES, tags.SUB_DIRECTORIES),
    *(326, 327, 328),  # damaged rows of a fax
    *range(512, 522),  # old JPEG
    *(529, 530, 531, 532),  # YCbCr
)
_EXTREMES = {280: np.min, 281: np.max, 340: np.min, 341: np.max}
"""Tags of the smallest and the largest sample, which are computed anew."""


@dataclass(frozen=True)
class Strips:
    """The coded pixels, and the tags that describe how to read them."""

    data: Sequence[bytes]
    rows: int
    compression: int
    predictor: int


def strips(samples: Pixels, order: str, compressed: bool) -> Strips:
    """The pixels as strips: compressed with LZW, or not at all.

    ``samples``: in OpenCV's order, alpha last; ``order``: byte order of the file.
    """
    if compressed and (order == "<" or samples.dtype == np.uint8):
        return _opencv_strips(samples)
    colours = samples
    if samples.ndim == 3:
        kind = cv2.COLOR_BGR2RGB if samples.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        colours = cv2.cvtColor(samples, kind)
    rows = max(1, _STRIP_BYTES // colours[0].nbytes)
    dtype = np.dtype(order + colours.dtype.str[1:])
    parts = []
    for top in range(0, len(colours), rows):
        part = colours[top : top + rows]
        if compressed:
            axis = 1
            part = imagecodecs.delta_encode(np.ascontiguousarray(part), axis=axis)
        raw = part.astype(dtype, copy=False).tobytes()
        parts.append(bytes(imagecodecs.lzw_encode(raw)) if compressed else raw)
    compression = tags.LZW if compressed else tags.NONE
    return Strips(parts, rows, compression, tags.HORIZONTAL if compressed else 1)


def _opencv_strips(samples: Pixels) -> Strips:
    data = opencv.encode(".tiff", samples)
    structure = Structure(data)
    directory = structure.directory(structure.first)

    def values(tag: int) -> tuple[int, ...]:
        entry = directory.entries.get(tag)
        return () if entry is None else structure.integers(entry)

    places = zip(values(tags.STRIP_OFFSETS), values(tags.STRIP_BYTES), strict=True)
    parts = [data[start : start + length] for start, length in places]
    predictor = next(iter(values(tags.PREDICTOR)), 1)
    return Strips(parts, values(tags.ROWS)[0], values(tags.COMPRESSION)[0], predictor)


def put(
    holed: Holed, samples: Pixels, extra: int | None, changed: Mapping[int, NewTag | None]
) -> bytes:
    """A file with other pixels.

    ``holed``: the file without its pixels; ``extra``: the kind of alpha, None to leave it unstated;
    ``changed``: further tags, None to leave one out. Raises ``StructureError`` for more than 4 GB.
    """
    data = holed.restored()
    structure = Structure(data)
    directory = structure.directory(structure.first)
    old = directory.entries.get(tags.COMPRESSION)
    uncompressed = old is not None and structure.integers(old)[:1] == (tags.NONE,)
    coded = strips(samples, structure.order, not uncompressed)
    out, offsets = _placed(data, holed.holes, coded.data)
    new = _layout_tags(structure, coded, offsets, samples, extra)
    for tag, compute in _EXTREMES.items():
        if tag in directory.entries:
            value = structure.pack("H", int(compute(samples)))
            channels = 1 if samples.ndim == 2 else samples.shape[2]
            new[tag] = NewTag(ifd.SHORT, channels, value * channels)
    out += bytes(len(out) & 1)
    table = exif.relocated(structure, directory, {**new, **changed}, len(out), 0)
    at = len(out)
    out += table
    first = structure.first_at
    out[first : first + structure.pointer_bytes] = ifd.pointer(structure, at)
    ghost = out.find(_GHOST, 0, _GHOST_BYTES)
    if ghost >= 0:
        out[ghost : ghost + len(_GHOST)] = _GHOST_EDITED
    return bytes(out)


def _placed(
    data: bytes, holes: Sequence[Range], parts: Iterable[bytes]
) -> tuple[bytearray, list[int]]:
    """The file with the strips, and where each is; a hole at the end of the file is cut off."""
    out, offsets = bytearray(data), []
    free = list(holes)
    ends = bool(free) and free[-1][1] == len(out)
    for part in parts:
        while free and free[0][1] - free[0][0] < len(part):
            if len(free) == 1 and ends:
                break
            free.pop(0)
        if not free or (len(free) == 1 and ends):
            if free:
                del out[free[0][0] :]
                free, ends = [], False
            offsets.append(len(out))
            out += part
            continue
        start, end = free[0]
        out[start : start + len(part)] = part
        offsets.append(start)
        free[0] = (start + len(part), end)
    if free and ends:
        del out[free[-1][0] :]
    return out, offsets


def _layout_tags(
    structure: Structure,
    coded: Strips,
    offsets: Sequence[int],
    samples: Pixels,
    extra: int | None,
) -> dict[int, NewTag | None]:
    """The tags that describe how to read the pixels."""
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    bits = samples.dtype.itemsize * 8
    wide = ifd.LONG8 if structure.big else ifd.LONG

    def short(*values: int) -> NewTag:
        return NewTag(ifd.SHORT, len(values), structure.pack(f"{len(values)}H", *values))

    def long(*values: int) -> NewTag:
        packed = b"".join(ifd.pointer(structure, value) for value in values)
        return NewTag(wide, len(values), packed)

    height, width = samples.shape[:2]
    return {
        **dict.fromkeys(_OF_OLD_LAYOUT),
        tags.WIDTH: NewTag(ifd.LONG, 1, structure.pack("I", width)),
        tags.LENGTH: NewTag(ifd.LONG, 1, structure.pack("I", height)),
        tags.BITS: short(*[bits] * channels),
        tags.COMPRESSION: short(coded.compression),
        tags.PHOTOMETRIC: short(tags.MIN_IS_BLACK if channels == 1 else tags.RGB),
        tags.STRIP_OFFSETS: long(*offsets),
        tags.SAMPLES: short(channels),
        tags.ROWS: NewTag(ifd.LONG, 1, structure.pack("I", coded.rows)),
        tags.STRIP_BYTES: long(*map(len, coded.data)),
        tags.PLANAR: short(1),
        tags.PREDICTOR: short(coded.predictor) if coded.predictor != 1 else None,
        tags.EXTRA_SAMPLES: None if extra is None else short(extra),
        tags.SAMPLE_FORMAT: short(*[tags.UNSIGNED] * channels),
    }
