"""Structures beside the columns of a Parquet file that depend on their values or offsets.

Offset indices are written with the new offsets. A changed column loses its index of the smallest
and largest values and its bloom filter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from batchlight.shards.footer import (
    MAGIC,
    Chunk,
    ChunkField,
    ColumnField,
    FileField,
    Footer,
    GroupField,
    damaged,
    reading,
)
from batchlight.shards.new_columns import NewColumn
from batchlight.shards.thrift import I32, I64, LIST, STRUCT, Items, Struct, parsed, serialized

Moved = Callable[[int], int]
Make = Callable[[bytes, Moved, dict[tuple[int, int], NewColumn]], bytes]


class Indices:
    """A file's structures beside its columns that depend on their values or offsets."""

    def __init__(self, footer: Footer, chunks: Sequence[Chunk]) -> None:
        self._spans: list[tuple[int, int, Make]] = []
        self._new_sizes: dict[int, int] = {}
        """Sizes of new offset indices, by their old offset."""
        groups = footer.metadata.structs(FileField.ROW_GROUPS)
        for chunk in chunks:
            column = groups[chunk.group].structs(GroupField.COLUMNS)[chunk.leaf.number]
            about = column.struct(ChunkField.METADATA)
            key = chunk.group, chunk.leaf.number
            for fields, start, size, make in (
                (column, ChunkField.OFFSET_INDEX, ChunkField.OFFSET_INDEX_BYTES, self._offsets),
                (column, ChunkField.COLUMN_INDEX, ChunkField.COLUMN_INDEX_BYTES, _unless_changed),
                (about, ColumnField.BLOOM_FILTER, ColumnField.BLOOM_FILTER_BYTES, _unless_changed),
            ):
                if fields.get(start) and fields.get(size):
                    at = fields.integer(start)
                    if not len(MAGIC) <= at <= at + fields.integer(size) <= footer.start:
                        raise damaged("an index lies outside the file")
                    self._spans.append((at, at + fields.integer(size), make(key, at)))
        self._spans.sort(key=lambda span: span[0])

    def between(self, start: int, end: int) -> Iterator[tuple[int, int, Make]]:
        """Those in a part of the file: where they are, and functions that make the new ones."""
        return (span for span in self._spans if start <= span[0] < end)

    def move(self, column: Struct, about: Struct, changed: bool, moved: Moved) -> None:
        """Update where a chunk's indices are in its metadata."""
        if column.get(ChunkField.OFFSET_INDEX):
            at = column.integer(ChunkField.OFFSET_INDEX)
            column.set(ChunkField.OFFSET_INDEX, I64, moved(at))
            column.set(ChunkField.OFFSET_INDEX_BYTES, I32, self._new_sizes[at])
        if changed:
            column.drop(ChunkField.COLUMN_INDEX, ChunkField.COLUMN_INDEX_BYTES)
            about.drop(ColumnField.BLOOM_FILTER, ColumnField.BLOOM_FILTER_BYTES)
        if column.get(ChunkField.COLUMN_INDEX):
            at = column.integer(ChunkField.COLUMN_INDEX)
            column.set(ChunkField.COLUMN_INDEX, I64, moved(at))
        if about.get(ColumnField.BLOOM_FILTER):
            about.set(ColumnField.BLOOM_FILTER, I64, moved(about.integer(ColumnField.BLOOM_FILTER)))

    def _offsets(self, key: tuple[int, int], at: int) -> Make:
        def make(old: bytes, moved: Moved, columns: dict[tuple[int, int], NewColumn]) -> bytes:
            with reading("an offset index"):
                index, _ = parsed(old)
                stays = all(moved(p.integer(1)) == p.integer(1) for p in index.structs(1))
                # Unchanged if nothing before it has changed: its notation may be longer than ours.
                data = old
                if key in columns or not stays:
                    data = serialized(_moved_index(index, moved, columns.get(key)))
            self._new_sizes[at] = len(data)
            return data

        return make


def _unless_changed(key: tuple[int, int], at: int) -> Make:
    def make(old: bytes, moved: Moved, columns: dict[tuple[int, int], NewColumn]) -> bytes:
        return b"" if key in columns else old

    return make


def _moved_index(index: Struct, moved: Moved, new: NewColumn | None) -> Struct:
    """An offset index (``OffsetIndex`` of ``parquet.thrift``) for the new pages."""
    pages = index.structs(1)
    if new is None:
        for page in pages:
            page.set(1, I64, moved(page.integer(1)))
        return index
    numbers = {page.integer(1): number for number, page in enumerate(pages)}
    sizes = index.get(2)
    locations, values_bytes = [], []
    for written in new.pages:
        number = numbers[written.old]
        entry = Struct()
        entry.set(1, I64, written.start)
        entry.set(2, I32, written.size)
        entry.set(3, I64, pages[number].integer(3) + written.rows_before)
        locations.append(entry)
        if sizes is not None:
            old_bytes = sizes.values[number]
            values_bytes.append(old_bytes if written.values_bytes is None else written.values_bytes)
    index.set(1, LIST, Items(STRUCT, locations))
    if sizes is not None:
        index.set(2, LIST, Items(I64, values_bytes))
    return index
