"""JPEG files of several pictures: their index (MPF), and what each of them is.

Layout: CIPA DC-007, Multi-Picture Format.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from batchlight.images import xmp
from batchlight.images.ifd import Structure, StructureError
from batchlight.images.thumbnails import jpeg_size

PREFIX = b"MPF\x00"
GAIN_MAP_URN = b"urn:iso:std:iso:ts:21496:-1\x00"
_ENTRIES = 0xB002
_ENTRY_BYTES = 16
_LARGE_THUMBNAIL = 0x010000
_UNDEFINED = 0
_KIND_BITS, _CLASS_BITS = 0xFFFFFF, 0xFF0000
_METADATA_BYTES = 2**17
"""At the start of a picture, among which its own metadata say what it is."""


@dataclass(frozen=True)
class Further:
    """A picture of the file behind the first."""

    start: int
    end: int
    name: str | None
    """What it is, if it is derived from the first picture, or that it is not there and only its
    index is; None for one of its own right."""


def further(payload: bytes, base: int, data: bytes, size: tuple[int, int]) -> list[Further]:
    """The pictures behind the first, given the index without its prefix.

    ``base``: where the index starts in the file, from which its offsets count; ``size``: of the
    first picture.
    """
    try:
        structure = Structure(payload)
        entry = structure.directory(structure.first).entries.get(_ENTRIES)
        raw = b"" if entry is None else structure.raw(entry)
    except StructureError:
        return []
    found = []
    for at in range(_ENTRY_BYTES, len(raw) - _ENTRY_BYTES + 1, _ENTRY_BYTES):
        kind, length, offset = struct.unpack_from(structure.order + "III", raw, at)
        start = base + offset
        if not (offset and length):
            continue
        if start >= len(data):
            # Cut off behind the first picture. In an output, which may be longer, it would point
            # to anything.
            found.append(Further(len(data), len(data), "picture index"))
            continue
        end = min(start + length, len(data))
        found.append(Further(start, end, _name(kind, data, start, end, size)))
    return found


def _name(kind: int, data: bytes, start: int, end: int, size: tuple[int, int]) -> str | None:
    """Cameras and phones leave the kind of previews and gain maps undefined, too."""
    if kind & _CLASS_BITS == _LARGE_THUMBNAIL:
        return "preview"
    if kind & _KIND_BITS != _UNDEFINED:
        return None
    own = data[start : min(end, start + _METADATA_BYTES)]
    if xmp.tells_of_gain_map(own) or GAIN_MAP_URN in own:
        return "gain map"
    its = jpeg_size(own)
    smaller = its is not None and its[0] < size[0] and its[1] < size[1]
    return "preview" if smaller else None
