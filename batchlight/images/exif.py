"""EXIF blocks: orientation, resolution, the thumbnail.

Nothing is moved, as MakerNotes contain offsets that only their maker understands.
Layouts: Exif 2.3 (JEITA CP-3451C), TIFF 6.0.
"""

from __future__ import annotations

from collections.abc import Mapping

from batchlight.images import ifd
from batchlight.images.holed import Range, subtract
from batchlight.images.ifd import Directory, Entry, NewTag, Structure, StructureError
from batchlight.images.thumbnails import GOOD, Picture

PREFIX = b"Exif\x00\x00"
"""Precedes EXIF in a JPEG segment, and by mistake elsewhere."""

MARK = PREFIX[:5]
"""Precedes a byte that some writers of JPEG fill with something else, and some readers ignore."""

ORIENTATION = 0x0112
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
_WIDTH, _HEIGHT, _COMPRESSION, _STRIPS, _STRIP_BYTES = 256, 257, 259, 273, 279
_PHOTOMETRIC, _RGB, _UNCOMPRESSED = 262, 2, 1
_THUMBNAIL, _THUMBNAIL_BYTES = 513, 514
_DIRECTORIES_AT_MOST = 5
"""Directories of a block; cameras write two or three."""
_STRIPS_AT_MOST = 64
"""Strips of a thumbnail."""
METRES_PER_INCH = 0.0254
_METRES_PER_UNIT = {2: METRES_PER_INCH, 3: 0.01}
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
    value = structure.one(entry)
    return value if value is not None and 1 <= value <= 8 else 1


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
        if entry is None or structure.one(entry) is None:
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
    metres = _METRES_PER_UNIT.get(2 if unit is None else structure.one(unit) or 0)
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

    The values of the others stay where they are. A tag that is changed is no longer repeated.
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
    """The block with new thumbnails; False if one had to be left out, with what follows it.

    Each directory after the first may have one.
    """
    try:
        structure = Structure(exif)
        first = before = structure.directory(structure.first)
        seen = {first.at}
        while before.next and before.next not in seen:
            seen.add(before.next)
            found = structure.directory(before.next, partial=True)
            made = None
            if len(seen) <= _DIRECTORIES_AT_MOST:
                made = _new_thumbnail(exif, structure, found, picture)
            if made is None:
                return _cut(exif, structure, first, before, found), False
            if made is not exif:
                exif, structure = made, Structure(made)
            before = found
    except StructureError:  # no reader finds one either
        pass
    return exif, True


def _new_thumbnail(
    exif: bytes, structure: Structure, directory: Directory, picture: Picture
) -> bytes | None:
    """The block with a new thumbnail in place of a directory's old one.

    None if it does not fit, or if the old one is damaged or ambiguous.
    """
    entries = directory.entries
    if any(entry.tag in (_THUMBNAIL, _STRIPS) for entry in directory.repeated):
        return None
    try:
        start, length = (structure.one(entries.get(t)) for t in (_THUMBNAIL, _THUMBNAIL_BYTES))
        if start and length:
            return _new_jpeg(exif, structure, directory, picture)
        if _STRIPS in entries:
            return _new_strip(exif, structure, directory, picture)
        return None if start else exif
    except StructureError:
        return None


def _new_strip(
    exif: bytes, structure: Structure, directory: Directory, picture: Picture
) -> bytes | None:
    """The same for a thumbnail that is not compressed: red, green, blue in one strip."""
    entries = directory.entries
    strip, strip_bytes = entries[_STRIPS], entries.get(_STRIP_BYTES)

    def value(tag: int) -> int:
        return structure.one(entries.get(tag)) or 0

    if value(_COMPRESSION) != _UNCOMPRESSED or value(_PHOTOMETRIC) != _RGB:
        return None
    width, height, nbytes = value(_WIDTH), value(_HEIGHT), value(_STRIP_BYTES)
    if strip_bytes is None or (strip.count, strip_bytes.count) != (1, 1):
        return None
    if nbytes != 3 * width * height or value(_STRIPS) + nbytes > len(exif):
        return None
    small = picture.small(width, height)
    if small is None:
        return None
    return _with(exif, value(_STRIPS), small[:, :, ::-1].tobytes())


def _new_jpeg(
    exif: bytes, structure: Structure, directory: Directory, picture: Picture
) -> bytes | None:
    """The block with a new thumbnail in place of the old one or, if it does not fit, at the end."""
    entries = directory.entries[_THUMBNAIL], directory.entries[_THUMBNAIL_BYTES]
    if any(entry.kind != ifd.LONG for entry in entries):
        return None
    start, length = (structure.one(entry) or 0 for entry in entries)
    if start + length > len(exif):  # its length is wrong, so something else may be behind it
        return None
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


def _cut(
    exif: bytes, structure: Structure, first: Directory, before: Directory, gone: Directory
) -> bytes:
    """The block whose directories end before one, and with zeros in place of its thumbnail."""
    out = bytearray(_with(exif, before.next_at, ifd.pointer(structure, 0)))
    protected = [(0, structure.first_at + structure.pointer_bytes), *structure.used_by(first)]
    for start, end in subtract(_thumbnails_of(structure, gone), protected, len(out)):
        out[start:end] = bytes(end - start)
    return bytes(out)


def _thumbnails_of(structure: Structure, directory: Directory) -> list[Range]:
    """Where a directory's thumbnail is, unless what it says of that is damaged."""
    found: list[Range] = []
    for tags in ((_THUMBNAIL, _THUMBNAIL_BYTES), (_STRIPS, _STRIP_BYTES)):
        entries = [directory.entries[tag] for tag in tags if tag in directory.entries]
        whole = all(structure.holds(e) and e.count <= _STRIPS_AT_MOST for e in entries)
        if len(entries) == 2 and whole:
            starts, lengths = map(structure.integers, entries)
            found += ((a, a + n) for a, n in zip(starts, lengths, strict=False))
    return [(start, end) for start, end in found if 0 <= start < end <= len(structure.data)]


def _with(data: bytes, at: int, new: bytes) -> bytes:
    if at < 0 or at + len(new) > len(data):
        raise StructureError("a value lies outside the block")
    return data[:at] + new + data[at + len(new) :]
