"""TIFF structures: directories of tags (IFD), as in TIFF files and in EXIF.

Layout: TIFF, revision 6.0, section 2. An entry is 12 bytes: tag, type, count, and the value itself
or, if it takes more than four bytes, the offset of the value.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

BYTE, SHORT, UNDEFINED = 1, 3, 7
"""Types of a value."""

ENTRY_BYTES = 12


def find_value(structure: bytes, tag: int) -> tuple[int, str] | None:
    """Offset of a tag's value or value offset in the first directory; and the byte order.

    The byte order is that of ``struct``: ``<`` or ``>``. None if there is no such tag, or if the
    structure is cut short.
    """
    order = {b"II": "<", b"MM": ">"}.get(structure[:2])
    if order is None or len(structure) < 10:
        return None
    directory = struct.unpack_from(order + "I", structure, 4)[0]
    if directory + 2 > len(structure):
        return None
    for index in range(struct.unpack_from(order + "H", structure, directory)[0]):
        entry = directory + 2 + ENTRY_BYTES * index
        if entry + ENTRY_BYTES > len(structure):
            return None
        if struct.unpack_from(order + "H", structure, entry)[0] == tag:
            return entry + 8, order
    return None


def with_tags(structure: bytes, tags: Mapping[int, tuple[int, bytes]]) -> bytes:
    """Set tags in the only directory of a classic little-endian TIFF.

    ``tags``: by number, type (``BYTE``, ``SHORT`` or ``UNDEFINED``) and little-endian value.
    Raises ``ValueError`` for other kinds of TIFF.
    """
    if structure[:4] != b"II*\x00":
        raise ValueError("the encoder's TIFF is not of the classic little-endian kind")
    (directory,) = struct.unpack_from("<I", structure, 4)
    (count,) = struct.unpack_from("<H", structure, directory)
    first = directory + 2
    entries = {
        struct.unpack_from("<H", structure, at)[0]: structure[at : at + ENTRY_BYTES]
        for at in range(first, first + ENTRY_BYTES * count, ENTRY_BYTES)
    }
    # Long values and the new directory are appended, so that no offset in the file changes.
    out = bytearray(structure)
    for tag, (kind, value) in tags.items():
        items = len(value) // (2 if kind == SHORT else 1)
        field = value.ljust(4, b"\x00")
        if len(value) > 4:
            out += b"\x00" * (len(out) & 1)
            field = struct.pack("<I", len(out))
            out += value
        entries[tag] = struct.pack("<HHI", tag, kind, items) + field
    out += b"\x00" * (len(out) & 1)
    struct.pack_into("<I", out, 4, len(out))
    out += struct.pack("<H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries))
    return bytes(out + b"\x00" * 4)
