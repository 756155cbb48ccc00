"""The items of an AVIF or HEIF file: pictures and metadata, and their relations.

Layouts: ISO/IEC 14496-12 (boxes of items), ISO/IEC 23008-12 (properties, references).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from batchlight.images.boxes import Reader, box, boxes, full_box

ITEMS_MAX = 10_000
_EXTENTS_MAX = 100_000
"""In all items together; files have one or two for each."""
TIMES_THE_FILE = 4
"""How many times as large as the file its items may be together: some share a few bytes."""
_IN_FILE, _IN_META = 0, 1
"""Construction methods: where the bytes of an item are."""
_NARROW = 2**16


@dataclass(frozen=True)
class Item:
    """A picture, or a block of metadata."""

    number: int
    kind: bytes
    entry: bytes
    """Its whole ``infe`` box."""
    hidden: bool
    properties: tuple[tuple[int, bool], ...] = ()
    """Indices, from 0, of its properties, and whether a reader has to understand each."""
    data: bytes | None = None
    """Its bytes; None if they are in the box ``idat``, or if there are none."""
    at: int = 0
    """Offset in the file that they came from."""
    in_meta: tuple[tuple[int, int], ...] = ()
    """Offsets and lengths in the box ``idat``."""

    @property
    def content_type(self) -> bytes:
        """For metadata of type ``mime``; empty if they are compressed."""
        reader = Reader(self.entry[8:])
        wide = reader.integer(1) == 3
        reader.take(3 + (4 if wide else 2) + 2 + 4)
        reader.text()  # the item's name
        found, encoding = reader.text(), reader.text()
        return found if self.kind == b"mime" and not encoding else b""

    def renamed(self, kind: bytes) -> Item:
        """The same item with another type."""
        at = 8 + 4 + (4 if self.entry[8] == 3 else 2) + 2
        return replace(self, kind=kind, entry=self.entry[:at] + kind + self.entry[at + 4 :])


@dataclass(frozen=True)
class Reference:
    """From one item to others."""

    kind: bytes
    source: int
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Items:
    """The ``meta`` box, taken apart."""

    primary: int
    items: dict[int, Item]
    references: tuple[Reference, ...]
    properties: tuple[bytes, ...]
    """Whole boxes."""
    children: tuple[tuple[bytes, bytes], ...]
    """Type and whole box of everything in the box, in order."""
    groups: tuple[bytes, ...] = field(default=())
    """Whole boxes."""

    def targets(self, kind: bytes, source: int) -> list[int]:
        """The items that an item refers to."""
        return self._ends[0].get((kind, source), [])

    def sources(self, kind: bytes, target: int) -> list[int]:
        """The items that refer to an item."""
        return self._ends[1].get((kind, target), [])

    @cached_property
    def _ends(self) -> tuple[dict[tuple[bytes, int], list[int]], ...]:
        """The targets by type and source, the sources by type and target; in order, each once."""
        targets: dict[tuple[bytes, int], dict[int, None]] = {}
        sources: dict[tuple[bytes, int], dict[int, None]] = {}
        for one in self.references:
            for number in one.targets:
                targets.setdefault((one.kind, one.source), {})[number] = None
                sources.setdefault((one.kind, number), {})[one.source] = None
        return tuple({end: list(some) for end, some in ends.items()} for ends in (targets, sources))

    def property(self, number: int, kind: bytes) -> bytes | None:
        """The content of an item's property; None if it has none of that type."""
        for index, _ in self.items[number].properties:
            if self.properties[index][4:8] == kind:
                return self.properties[index][8:]
        return None


def read(data: bytes, start: int, end: int) -> Items:
    """The items, given where the content of the ``meta`` box is. Raises ``ValueError``."""
    children = tuple((b.kind, data[b.start : b.end]) for b in boxes(data, start + 4, end))
    found: dict[bytes, bytes] = {}
    for kind, whole in children:
        found.setdefault(kind, whole[8:])
    reader = Reader(found.get(b"pitm", b""))
    version = reader.integer(4) >> 24
    primary = reader.integer(4 if version else 2)
    items = dict(_entries(found.get(b"iinf", b"")))
    _place(items, found.get(b"iloc", b""), data)
    properties = _properties(items, found.get(b"iprp", b""))
    references = tuple(_references(found.get(b"iref", b"")))
    group = found.get(b"grpl", b"")
    groups = tuple(group[b.start : b.end] for b in boxes(group))
    if primary not in items:
        raise ValueError("no primary picture")
    known = {number for one in references for number in (one.source, *one.targets)}
    if not known <= items.keys():
        raise ValueError("a reference to an item that is not there")
    return Items(primary, items, references, properties, children, groups)


def _entries(iinf: bytes) -> Iterator[tuple[int, Item]]:
    reader = Reader(iinf)
    version = reader.integer(4) >> 24
    _at_most(reader.integer(4 if version else 2), ITEMS_MAX, "items")
    rest = reader.rest()
    for one in boxes(rest):
        if one.kind != b"infe":
            continue
        inner = Reader(rest[one.content : one.end])
        head = inner.integer(4)
        if head >> 24 not in (2, 3):
            raise ValueError("an item of an unknown version")
        number = inner.integer(4 if head >> 24 == 3 else 2)
        inner.integer(2)
        yield number, Item(number, inner.take(4), rest[one.start : one.end], bool(head & 1))


def _place(items: dict[int, Item], iloc: bytes, data: bytes) -> None:
    """Give each item its bytes, taken once if several items share them, as equal tiles do."""
    taken: dict[tuple[tuple[int, int], ...], bytes] = {}
    total = 0
    for number, method, extents in _extents(iloc):
        if number not in items:
            continue
        if method == _IN_META:
            items[number] = replace(items[number], in_meta=tuple(extents))
            continue
        if method != _IN_FILE:
            raise ValueError("an item made of other items")
        within = _within(extents, len(data))
        if within not in taken:
            total += sum(n for _, n in within)
            if total > TIMES_THE_FILE * len(data):
                raise ValueError("its items are larger than the file")
            taken[within] = b"".join(data[a : a + n] for a, n in within)
        at = extents[0][0] if extents else 0
        items[number] = replace(items[number], data=taken[within], at=at)


def _extents(iloc: bytes) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Of each item its number, its construction method, and the offsets and lengths of its parts.

    An extent may take no byte in the box, so that their number is limited.
    """
    reader = Reader(iloc)
    version = reader.integer(4) >> 24
    sizes = reader.integer(2)
    offset_size, length_size, base_size, index_size = (sizes >> n & 15 for n in (12, 8, 4, 0))
    wide, left = 4 if version == 2 else 2, _EXTENTS_MAX
    for _ in range(_at_most(reader.integer(wide), ITEMS_MAX, "items")):
        number = reader.integer(wide)
        method = reader.integer(2) & 15 if version else _IN_FILE
        reader.integer(2)
        base, extents = reader.integer(base_size), []
        count = _at_most(reader.integer(2), left, "more extents")
        left -= count
        for _ in range(count):
            reader.integer(index_size if version else 0)
            extents.append((base + reader.integer(offset_size), reader.integer(length_size)))
        yield number, method, extents


def _at_most(count: int, most: int, what: str) -> int:
    if count > most:
        raise ValueError(f"{count} {what}")
    return count


def _within(extents: list[tuple[int, int]], size: int) -> tuple[tuple[int, int], ...]:
    """Offsets and lengths within a file of ``size`` bytes; a length of 0 is for all that follows.

    Raises ``ValueError`` for an item outside the file, or larger than it.
    """
    found = tuple((a, n or max(0, size - a)) for a, n in extents)
    if any(a + n > size for a, n in found):
        raise ValueError("an item lies outside the file")
    if sum(n for _, n in found) > size:
        raise ValueError("an item is larger than the file")
    return found


def _properties(items: dict[int, Item], iprp: bytes) -> tuple[bytes, ...]:
    found: tuple[bytes, ...] = ()
    for one in boxes(iprp):
        inner = iprp[one.content : one.end]
        if one.kind == b"ipco":
            found = tuple(inner[b.start : b.end] for b in boxes(inner))
        elif one.kind == b"ipma":
            _associate(items, inner, len(found))
    return found


def _associate(items: dict[int, Item], ipma: bytes, count: int) -> None:
    reader = Reader(ipma)
    head = reader.integer(4)
    wide, size = head >> 24 > 0, 2 if head & 1 else 1
    for _ in range(reader.integer(4)):
        number, found = reader.integer(4 if wide else 2), []
        for _ in range(reader.integer(1)):
            value, top = reader.integer(size), 1 << 8 * size - 1
            index = (value & top - 1) - 1
            if 0 <= index < count:
                found.append((index, bool(value & top)))
        if number in items:
            items[number] = replace(items[number], properties=tuple(found))


def _references(iref: bytes) -> Iterator[Reference]:
    if not iref:
        return
    size = 4 if iref[0] else 2
    for one in boxes(iref, 4):
        reader = Reader(iref[one.content : one.end])
        source, count = reader.integer(size), reader.integer(2)
        yield Reference(one.kind, source, tuple(reader.integer(size) for _ in range(count)))


def written(items: Items, place: Callable[[int], int]) -> bytes:
    """The ``meta`` box; ``place`` returns where in the file the bytes of an item will be."""
    used = sorted({index for item in items.items.values() for index, _ in item.properties})
    made = {
        b"iinf": lambda: _iinf(items),
        b"iloc": lambda: _iloc(items, place),
        b"iprp": lambda: _iprp(items, used),
        b"iref": lambda: _iref(items),
        b"grpl": lambda: box(b"grpl", b"".join(items.groups)) if items.groups else b"",
    }
    kinds = [kind for kind, _ in items.children]
    out = [made[kind]() if kind in made else whole for kind, whole in items.children]
    if b"iref" not in kinds:
        out.append(_iref(items))
    return full_box(b"meta", b"".join(out))


def _wide(items: Items) -> bool:
    return max(items.items) >= _NARROW


def _iinf(items: Items) -> bytes:
    entries = [item.entry for item in items.items.values()]
    wide = len(entries) >= _NARROW
    head = len(entries).to_bytes(4 if wide else 2, "big")
    return full_box(b"iinf", head + b"".join(entries), version=int(wide))


def _iloc(items: Items, place: Callable[[int], int]) -> bytes:
    wide = _wide(items)
    size = 4 if wide else 2
    out = [b"\x44\x00", len(items.items).to_bytes(size, "big")]
    for number, item in items.items.items():
        method = _IN_META if item.data is None else _IN_FILE
        extents = item.in_meta
        if item.data is not None:
            extents = ((place(number), len(item.data)),)
        out.append(number.to_bytes(size, "big") + bytes([0, method, 0, 0]))
        out.append(len(extents).to_bytes(2, "big"))
        out += [a.to_bytes(4, "big") + n.to_bytes(4, "big") for a, n in extents]
    return full_box(b"iloc", b"".join(out), version=2 if wide else 1)


def _iprp(items: Items, used: list[int]) -> bytes:
    new = {old: number for number, old in enumerate(used, 1)}
    size, wide = (2 if len(used) > 127 else 1), _wide(items)
    out = []
    described = [item for item in items.items.values() if item.properties]
    for item in described:
        out.append(item.number.to_bytes(4 if wide else 2, "big") + bytes([len(item.properties)]))
        for index, essential in item.properties:
            value = new[index] | essential << 8 * size - 1
            out.append(value.to_bytes(size, "big"))
    count = len(described).to_bytes(4, "big")
    ipma = full_box(b"ipma", count + b"".join(out), version=int(wide), flags=size - 1)
    return box(b"iprp", box(b"ipco", b"".join(items.properties[n] for n in used)) + ipma)


def _iref(items: Items) -> bytes:
    if not items.references:
        return b""
    wide = _wide(items)
    size = 4 if wide else 2
    parts = []
    for one in items.references:
        numbers = [one.source.to_bytes(size, "big"), len(one.targets).to_bytes(2, "big")]
        numbers += [target.to_bytes(size, "big") for target in one.targets]
        parts.append(box(one.kind, b"".join(numbers)))
    return full_box(b"iref", b"".join(parts), version=int(wide))
