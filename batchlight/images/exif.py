"""EXIF blocks: orientation, resolution, the thumbnail.

Nothing is moved, as MakerNotes contain offsets that only their maker understands.
Layouts: Exif 2.3 (JEITA CP-3451C), TIFF 6.0.
"""

from __future__ import annotations

from collections.abc import Mapping

from batchlight.images import ifd
from batchlight.images.ifd import Directory, Entry, NewTag, Structure, StructureError
from batchlight.images.thumbnails import GOOD, Picture

PREFIX = b"Exif\x00\x00"
"""Precedes EXIF in a JPEG segment, and by mistake elsewhere."""

ORIENTATION = 0x0112
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
_WIDTH, _HEIGHT, _COMPRESSION, _STRIPS, _STRIP_BYTES = 256, 257, 259, 273, 279
_PHOTOMETRIC, _RGB, _UNCOMPRESSED = 262, 2, 1
_THUMBNAIL, _THUMBNAIL_BYTES = 513, 514
_METRES_PER_UNIT = {2: 0.0254, 3: 0.01}
"""By the value of ResolutionUnit: inches, centimetres."""

BLOCK_MAX = 65533 - len(PREFIX)
"""Maximum size of a block in a JPEG segment."""

EMPTY = b"II*\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00"
"""A block without tags."""


def begins(data: bytes) -> bool:
    """Whether data begin like a block, and not in the middle of one."""
    return data.startswith((b"II*\0", b"MM\0*"))


def orientation(exif: bytes | None) -> int:
    """1..8; 1 if there is none, or an invalid one."""
    found = _orientation(exif)
    if found is None or exif is None:
        return 1
    structure, entry = found
    values = structure.integers(entry)
    return values[0] if values and 1 <= values[0] <= 8 else 1


def upright(exif: bytes | None, turned_aside: bool = False) -> bytes | None:
    """The same with orientation 1, whatever the type of the tag.

    ``turned_aside``: by a quarter, which swaps the resolutions across and down.
    """
    found = _orientation(exif)
    if found is None or exif is None:
        return exif
    structure, entry = found
    one = {ifd.BYTE: "B", ifd.SHORT: "H", ifd.LONG: "I"}.get(entry.kind)
    if one is None:
        return exif
    if turned_aside:
        exif = _resolutions_swapped(exif, structure)
    return _with(exif, entry.value_at, structure.pack(one, 1))


def _resolutions_swapped(exif: bytes, structure: Structure) -> bytes:
    entries = structure.directory(structure.first).entries
    across, down = entries.get(X_RESOLUTION), entries.get(Y_RESOLUTION)
    if not across or not down or (across.kind, across.count) != (down.kind, down.count):
        return exif
    try:
        values = structure.raw(across), structure.raw(down)
        return _with(_with(exif, across.value_at, values[1]), down.value_at, values[0])
    except StructureError:  # no reader finds them either
        return exif


def _orientation(exif: bytes | None) -> tuple[Structure, Entry] | None:
    try:
        structure = Structure(exif or b"")
        entry = structure.directory(structure.first).entries.get(ORIENTATION)
        if entry is None or not structure.integers(entry):
            return None
    except StructureError:
        return None
    return structure, entry


def density(exif: bytes | None) -> tuple[float, float] | None:
    """Pixels per metre, across and down; None if the block does not say."""
    try:
        structure = Structure(exif or b"")
        return density_in(structure, structure.directory(structure.first))
    except StructureError:
        return None


def density_in(structure: Structure, directory: Directory) -> tuple[float, float] | None:
    """The same for a directory of a TIFF."""
    found = [directory.entries.get(tag) for tag in (X_RESOLUTION, Y_RESOLUTION)]
    values = [structure.rationals(entry) for entry in found if entry is not None]
    unit = directory.entries.get(RESOLUTION_UNIT)
    units = (2,) if unit is None else structure.integers(unit)
    metres = _METRES_PER_UNIT.get(units[0] if units else 0)
    if metres is None or len(values) != 2 or not (values[0] and values[1]):
        return None
    x, y = values[0][0], values[1][0]
    return (x / metres, y / metres) if x > 0 and y > 0 else None


def with_tags(exif: bytes, tags: Mapping[int, NewTag]) -> bytes:
    """Put tags, in the block's byte order, into the first directory, which moves to the end.

    Raises ``StructureError`` for a damaged block.
    """
    structure = Structure(exif)
    directory = structure.directory(structure.first)
    kept = exif + bytes(len(exif) & 1)
    new = relocated(structure, directory, tags, len(kept), directory.next)
    return _with(kept, structure.first_at, ifd.pointer(structure, len(kept))) + new


def relocated(
    structure: Structure,
    directory: Directory,
    changed: Mapping[int, NewTag | None],
    at: int,
    next: int,
) -> bytes:
    """A directory to be placed at ``at``, with tags changed or, if None, left out.

    The values of the others stay where they are. A tag that is changed is not repeated any more.
    """

    def as_stored(entry: Entry) -> NewTag:
        """With the value, or the pointer to it."""
        at, size = entry.at + 4 + structure.pointer_bytes, structure.pointer_bytes
        return NewTag(entry.kind, entry.count, structure.data[at : at + size])

    tags = {tag: as_stored(entry) for tag, entry in directory.entries.items()}
    repeated = [(e.tag, as_stored(e)) for e in directory.repeated if e.tag not in changed]
    for tag, new in changed.items():
        tags.pop(tag, None)
        if new is not None:
            tags[tag] = new
    return ifd.table(structure, tags, at, next, repeated)


def with_thumbnail(exif: bytes, picture: Picture) -> tuple[bytes, bool]:
    """The block with a new thumbnail; False if the thumbnail had to be left out."""
    try:
        structure = Structure(exif)
        first = structure.directory(structure.first)
        if not first.next:
            return exif, True
        second = structure.directory(first.next)
        made = _new_thumbnail(exif, structure, second, picture)
    except StructureError:
        return exif, True
    if made is not None:
        return made, True
    return _without_second(exif, structure, first, second), False


def _new_thumbnail(
    exif: bytes, structure: Structure, second: Directory, picture: Picture
) -> bytes | None:
    """The block with a new thumbnail in place of the old one; None if it does not fit."""
    values = {tag: structure.integers(entry) for tag, entry in second.entries.items()}

    def value(tag: int) -> int:
        return next(iter(values.get(tag, ())), 0)

    if value(_THUMBNAIL) and value(_THUMBNAIL_BYTES):
        entries = second.entries[_THUMBNAIL], second.entries[_THUMBNAIL_BYTES]
        if any(entry.kind != ifd.LONG for entry in entries):
            return None
        return _new_jpeg(exif, structure, entries, picture)
    start = value(_THUMBNAIL)
    uncompressed = value(_COMPRESSION) == _UNCOMPRESSED and value(_PHOTOMETRIC) == _RGB
    small = picture.small(value(_WIDTH), value(_HEIGHT)) if uncompressed else None
    lengths = values.get(_STRIP_BYTES, ())
    if small is None or len(lengths) != 1 or lengths[0] != small.nbytes:
        return None if _STRIPS in values or start else exif
    return _with(exif, value(_STRIPS), small[:, :, ::-1].tobytes())


def _new_jpeg(
    exif: bytes, structure: Structure, entries: tuple[Entry, Entry], picture: Picture
) -> bytes | None:
    """The block with a new thumbnail in place of the old one or, if it does not fit, at the end."""
    start, length = (structure.integers(entry)[0] for entry in entries)
    old = exif[start : start + length]
    new = picture.like(old, length, GOOD)
    if new is not None:
        out = _with(exif, start, new.ljust(length, b"\0"))
    else:
        is_last = start + length >= len(exif)
        kept = exif[:start] if is_last else _with(exif, start, bytes(len(old)))
        kept += bytes(len(kept) & 1)
        new = picture.like(old, max(0, BLOCK_MAX - len(kept)))
        if new is None:
            return None
        out = _with(kept + new, entries[0].value_at, structure.pack("I", len(kept)))
    return _with(out, entries[1].value_at, structure.pack("I", len(new)))


def _without_second(
    exif: bytes, structure: Structure, first: Directory, second: Directory
) -> bytes:
    """The block without its second directory, and with zeros in place of the thumbnail."""
    out = _with(exif, first.next_at, ifd.pointer(structure, 0))
    for start_tag, length_tag in ((_THUMBNAIL, _THUMBNAIL_BYTES), (_STRIPS, _STRIP_BYTES)):
        entries = second.entries.get(start_tag), second.entries.get(length_tag)
        if entries[0] is None or entries[1] is None:
            continue
        starts, lengths = structure.integers(entries[0]), structure.integers(entries[1])
        for start, length in zip(starts, lengths, strict=False):
            if start + length <= len(out):
                out = _with(out, start, bytes(length))
    return out


def _with(data: bytes, at: int, new: bytes) -> bytes:
    if at + len(new) > len(data):
        raise StructureError("a value lies outside the block")
    return data[:at] + new + data[at + len(new) :]
