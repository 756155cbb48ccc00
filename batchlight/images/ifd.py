"""TIFF structures: directories of tags (IFD), as in TIFF files, EXIF and MPF.

Layouts: TIFF, revision 6.0, section 2; BigTIFF, Aware Systems. An entry contains tag, type, count,
and the value itself or, if it is too long, its offset from the start of the structure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from batchlight.images.holed import Range

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 1, 2, 3, 4, 5, 7, 16
"""Types of a value."""

_TYPE_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}

ENTRIES_AT_MOST = 4096
"""Limit for one directory; a damaged count must not make us read on."""

LONG_MAX = 2**32 - 1

INTEGERS_AT_MOST = 2**22
"""Limit for the values of one tag, each of which takes many times its size in memory."""


class StructureError(ValueError):
    """The bytes are not a TIFF structure, or are truncated."""


@dataclass(frozen=True)
class Entry:
    """One tag of a directory."""

    tag: int
    kind: int
    count: int
    at: int
    """Offset of the entry itself."""
    value_at: int
    """Offset of its value, in the entry or elsewhere."""
    nbytes: int
    """Size of the value; zero for an unknown type."""
    inline: bool


@dataclass(frozen=True)
class Directory:
    """A directory of tags."""

    at: int
    end: int
    """End of the pointer to the next directory."""
    entries: Mapping[int, Entry]
    """By tag; of a repeated tag the first, as in libtiff."""
    repeated: tuple[Entry, ...]
    """The further entries of repeated tags."""
    next_at: int
    """Offset of the pointer to the next directory."""
    next: int
    """Offset of the next directory; 0 for none."""


class Structure:
    """Reads a TIFF structure; offsets are from its start.

    Raises ``StructureError`` for anything invalid or out of bounds.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        orders = {b"II": "<", b"MM": ">"}
        if data[:2] not in orders or len(data) < 8:
            raise StructureError("no TIFF structure")
        self.order = orders[data[:2]]
        self.big = self.integer(2, "H") == 43
        self.pointer = "Q" if self.big else "I"
        self.pointer_bytes = 8 if self.big else 4
        self.first_at = 8 if self.big else 4
        """Offset of the pointer to the first directory."""

    @property
    def first(self) -> int:
        """Offset of the first directory; 0 for none."""
        return self.integer(self.first_at, self.pointer)

    @property
    def entry_bytes(self) -> int:
        return 20 if self.big else 12

    def integer(self, at: int, format: str) -> int:
        """The integer of a ``struct`` format at an offset."""
        try:
            value: int = struct.unpack_from(self.order + format, self.data, at)[0]
        except struct.error as error:
            raise StructureError("the directory of tags is cut short") from error
        return value

    def pack(self, format: str, *values: int) -> bytes:
        """Integers in the structure's byte order; raises for one that is out of range."""
        try:
            return struct.pack(self.order + format, *values)
        except struct.error as error:
            raise StructureError(f"a value that TIFF cannot hold: {error}") from error

    def directory(self, at: int, partial: bool = False) -> Directory:
        """The directory at an offset.

        ``partial``: if it is cut short or has too many tags, the first of its tags, and no next
        directory.
        """
        many = "Q" if self.big else "H"
        count, first = self.integer(at, many), at + struct.calcsize(many)
        there = min(ENTRIES_AT_MOST, (len(self.data) - first) // self.entry_bytes)
        is_cut = partial and count > there
        if is_cut:
            count = there
        if count > ENTRIES_AT_MOST:
            raise StructureError(f"a directory of {count} tags")
        next_at = first + count * self.entry_bytes
        found = [self._entry(first + n * self.entry_bytes) for n in range(count)]
        entries: dict[int, Entry] = {}
        for entry in found:
            entries.setdefault(entry.tag, entry)
        repeated = tuple(entry for entry in found if entries[entry.tag] is not entry)
        # Some writers end the file here.
        whole = next_at + self.pointer_bytes <= len(self.data) and not is_cut
        following = self.integer(next_at, self.pointer) if whole else 0
        end = next_at + self.pointer_bytes
        return Directory(at, end, entries, repeated, next_at, following)

    def _entry(self, at: int) -> Entry:
        tag, kind = self.integer(at, "H"), self.integer(at + 2, "H")
        count, field = self.integer(at + 4, self.pointer), at + 4 + self.pointer_bytes
        nbytes = _TYPE_BYTES.get(kind, 0) * count
        inline = nbytes <= self.pointer_bytes
        value_at = field if inline else self.integer(field, self.pointer)
        return Entry(tag, kind, count, at, value_at, nbytes, inline)

    def holds(self, entry: Entry) -> bool:
        """Whether the bytes of a value are complete."""
        return entry.value_at + entry.nbytes <= len(self.data)

    def raw(self, entry: Entry) -> bytes:
        """The bytes of a value; raises if they are incomplete."""
        self._require(entry)
        return self.data[entry.value_at : entry.value_at + entry.nbytes]

    def integers(self, entry: Entry) -> tuple[int, ...]:
        """The values of a tag that are integers; raises for too many."""
        format = _INTEGERS.get(entry.kind)
        if format is None:
            return ()
        self._require_few(entry)
        return struct.unpack(f"{self.order}{entry.count}{format}", self.raw(entry))

    def one(self, entry: Entry | None) -> int | None:
        """The first value of a tag of integers, however many it has; None if there is none."""
        format = None if entry is None else _INTEGERS.get(entry.kind)
        if entry is None or format is None or not entry.count:
            return None
        self._require(entry)
        return self.integer(entry.value_at, format)

    def _require(self, entry: Entry) -> None:
        if not self.holds(entry):
            raise StructureError(f"the value of tag {entry.tag} lies outside the file")

    def _require_few(self, entry: Entry) -> None:
        if entry.count > INTEGERS_AT_MOST:
            raise StructureError(f"tag {entry.tag} has {entry.count} values")

    def rationals(self, entry: Entry) -> tuple[float, ...]:
        """The values of a tag of unsigned fractions; raises for too many."""
        if entry.kind != RATIONAL:
            return ()
        self._require_few(entry)
        parts = struct.unpack(f"{self.order}{2 * entry.count}I", self.raw(entry))
        return tuple(a / b if b else 0.0 for a, b in zip(parts[::2], parts[1::2], strict=True))

    def used_by(self, directory: Directory) -> Iterator[Range]:
        """The ranges of the directory itself, and of its values stored elsewhere."""
        yield directory.at, directory.end
        for entry in (*directory.entries.values(), *directory.repeated):
            if not entry.inline:
                yield entry.value_at, entry.value_at + entry.nbytes


@dataclass(frozen=True)
class NewTag:
    """A tag to write."""

    kind: int
    count: int
    value: bytes
    """In the byte order of the structure."""


def table(
    structure: Structure,
    tags: Mapping[int, NewTag],
    at: int,
    next: int = 0,
    repeated: Sequence[tuple[int, NewTag]] = (),
) -> bytes:
    """A directory to be placed at offset ``at``, followed by its values.

    ``repeated``: further entries of tags, each to follow the first.
    Raises ``StructureError`` for offsets that a classic TIFF cannot express.
    """
    wide = structure.big
    ordered = sorted([*tags.items(), *repeated], key=lambda item: item[0])
    head = structure.pack("Q" if wide else "H", len(ordered))
    size = structure.pointer_bytes
    behind = at + len(head) + len(ordered) * structure.entry_bytes + size
    entries, values = bytearray(), bytearray()
    for tag, new in ordered:
        entries += structure.pack("HH" + structure.pointer, tag, new.kind, new.count)
        if len(new.value) <= size:
            entries += new.value.ljust(size, b"\0")
            continue
        values += bytes((behind + len(values)) & 1)
        entries += pointer(structure, behind + len(values))
        values += new.value
    return bytes(head + entries + pointer(structure, next) + values)


def pointer(structure: Structure, offset: int) -> bytes:
    """An offset as it is stored."""
    try:
        return structure.pack(structure.pointer, offset)
    except StructureError as error:
        raise StructureError("the file would be larger than 4 GB, which TIFF cannot hold") from (
            error
        )
