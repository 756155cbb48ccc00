"""Pages of a column of bytes with other values in the same slots."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from batchlight.shards.footer import Chunk
from batchlight.shards.levels import packed
from batchlight.shards.pages import (
    CRC,
    DATA_V2,
    OF_DATA,
    OF_DATA_V2,
    PLAIN,
    RLE,
    SIZE,
    STORED,
    Content,
    Page,
    Values,
    codec_of,
)
from batchlight.shards.thrift import BOOL, I32, I64, STRUCT, Struct, serialized

NULLS = 3
"""The field of the statistics with the null count."""


@dataclass(frozen=True)
class NewPage:
    """A page to be written."""

    header: bytes
    data: bytes
    unpacked_bytes: int
    """Size of levels and values before compression."""
    values_bytes: int
    """Size of its values alone."""
    rows: int


def rewritten(
    page: Page, content: Content, values: Iterable[memoryview | None], bytes_at_most: int
) -> Iterator[NewPage]:
    """A page with other values in the same slots, or several pages limited to about this size.

    Values are written one after another (PLAIN), whatever their encoding was. They are taken one
    by one: those of a page from a dictionary may be much larger, together, than the page was.
    """
    begins = content.begins_row
    taken: list[memoryview | None] = []
    start, size = 0, 0
    for slot, value in enumerate(values):
        length = 0 if value is None else len(value)
        if size and size + length > bytes_at_most and begins[slot]:
            yield _new_page(page, content, start, taken)
            taken, start, size = [], slot, 0
        taken.append(value)
        size += length
    yield _new_page(page, content, start, taken)


def _new_page(page: Page, content: Content, start: int, values: Values) -> NewPage:
    """The page with the slots from ``start`` on that have these values."""
    which = slice(start, start + len(values))
    repetition = content.repetition[which]
    there = [value for value in values if value is not None]
    parts = [part for value in there for part in (len(value).to_bytes(4, "little"), value)]
    nulls = len(repetition) - len(there)
    rows = int((repetition == 0).sum())
    levels = _levels(page, content, which)
    about = replace(page.about, fields=dict(page.about.fields))
    about.set(1, I32, len(repetition))
    unpacked_bytes = sum(map(len, levels)) + sum(map(len, parts))
    if page.kind == DATA_V2:
        numbers = {2: nulls, 3: rows, 4: PLAIN, 5: len(levels[1]), 6: len(levels[0])}
        about.set(7, BOOL, page.chunk.codec != 0)
        _without_extremes(about, 8, nulls)
        stored = b"".join([*levels, _packed_data(page.chunk, parts)])
    else:
        numbers = {2: PLAIN, 3: RLE, 4: RLE}
        _without_extremes(about, 5, nulls)
        stored = _packed_data(page.chunk, [*levels, *parts])
    for field, number in numbers.items():
        about.set(field, I32, number)
    header = _header(page, about, unpacked_bytes, stored)
    sizes = len(header) + unpacked_bytes, sum(map(len, there))
    return NewPage(header, stored, *sizes, rows)


def _levels(page: Page, content: Content, which: slice) -> list[bytes]:
    """The repetition and definition levels; nothing if only one value is possible."""
    leaf = page.chunk.leaf
    both = (
        (content.repetition, leaf.max_repetition),
        (content.definition, leaf.max_definition),
    )
    found = [packed(numbers[which], most.bit_length()) for numbers, most in both]
    if page.kind == DATA_V2:  # its header has their lengths
        return found
    return [
        len(levels).to_bytes(4, "little") + levels if most else b""
        for levels, (_, most) in zip(found, both, strict=True)
    ]


def _header(page: Page, about: Struct, unpacked_bytes: int, stored: bytes) -> bytes:
    """The header of a page, adapted to another page made from it."""
    header = replace(page.header, fields=dict(page.header.fields))
    header.set(OF_DATA_V2 if page.kind == DATA_V2 else OF_DATA, STRUCT, about)
    header.set(SIZE, I32, unpacked_bytes)
    header.set(STORED, I32, len(stored))
    if CRC in header.fields:
        crc = zlib.crc32(stored)
        header.set(CRC, I32, crc - (crc >> 31 << 32))
    return serialized(header)


def _without_extremes(about: Struct, number: int, nulls: int) -> None:
    """Reduce statistics, if there are any, to the number of nulls."""
    statistics = about.get(number)
    if isinstance(statistics, Struct):
        about.set(number, STRUCT, only_nulls(statistics, nulls))


def only_nulls(statistics: Struct, nulls: int | None = None) -> Struct:
    """Statistics of changed values; ``nulls``: the new count, if it changed."""
    kept = {number: field for number, field in statistics.fields.items() if number == NULLS}
    if kept and nulls is not None:
        kept[NULLS] = I64, nulls
    return Struct(kept)


def _packed_data(chunk: Chunk, parts: Iterable[bytes | memoryview]) -> bytes:
    data = b"".join(parts)
    if chunk.codec == 0:
        return data
    packed_: bytes = codec_of(chunk).compress(data, asbytes=True)
    return packed_
