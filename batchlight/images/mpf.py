"""JPEG files of several pictures: their index (MPF), and what each picture is.

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
"""How much of a picture's start is searched for the metadata that identify it."""
_PICTURES_AT_MOST = 16
"""Cameras derive a few from the first one. More are not searched, and count as independent."""


@dataclass(frozen=True)
class Further:
    """A picture of the file after the first."""

    start: int
    end: int
    name: str | None
    """What it is, if it is derived from the first picture, or that only its index entry exists;
    None for an independent picture."""


def further(payload: bytes, base: int, data: bytes, size: tuple[int, int]) -> list[Further]:
    """The pictures after the first, given the index without its prefix.

    ``base``: where the index starts in the file; its offsets count from there; ``size``: of the
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
            # Cut off after the first picture. In an output, which may be longer, it could point to
            # anything.
            found.append(Further(len(data), len(data), "picture index"))
            continue
        end = min(start + length, len(data))
        many = len(found) >= _PICTURES_AT_MOST
        found.append(Further(start, end, None if many else _name(kind, data, start, end, size)))
    return found


def is_gain_map(picture: bytes) -> bool:
    """Whether a picture's own metadata say that it is a gain map."""
    own = picture[:_METADATA_BYTES]
    return xmp.tells_of_gain_map(own) or GAIN_MAP_URN in own


def _name(kind: int, data: bytes, start: int, end: int, size: tuple[int, int]) -> str | None:
    """Identified by content too, as cameras and phones leave previews and gain maps undefined."""
    if kind & _CLASS_BITS == _LARGE_THUMBNAIL:
        return "preview"
    if kind & _KIND_BITS != _UNDEFINED:
        return None
    own = data[start : min(end, start + _METADATA_BYTES)]
    if is_gain_map(own):
        return "gain map"
    its = jpeg_size(own)
    smaller = its is not None and its[0] < size[0] and its[1] < size[1]
    return "preview" if smaller else None
