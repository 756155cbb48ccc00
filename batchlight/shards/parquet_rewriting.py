"""The Parquet file that is written: raw bytes, with new values in the columns of images.

A page with no changed image is copied as it is, and so is everything else: other columns, bloom
filters, what lies between. In a changed column, new pages are plain, with the old compression; its
dictionary, in which each value would occur once, is left out, and so are the smallest and largest
value, the bloom filter and the counts of encodings. Offsets move; the footer and the offset indices
are written with the new ones.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from batchlight.shards.footer import (
    MAGIC,
    Chunk,
    ChunkField,
    ColumnField,
    FileField,
    Footer,
    GroupField,
    reading,
    unsupported,
)
from batchlight.shards.new_columns import NewColumn, WrittenPage, describe
from batchlight.shards.new_pages import rewritten
from batchlight.shards.pages import DICTIONARY, Content, Page, Slot, page_at
from batchlight.shards.parquet_indices import Indices
from batchlight.shards.sink import Sink
from batchlight.shards.spool import Spool
from batchlight.shards.thrift import I64, Struct, parsed, serialized
from batchlight.storage.base import Reader

PAGE_BYTES = 4 * 2**20
"""Images in a new page; a larger page is split into several, so that memory is bounded."""


class ParquetRewriter:
    """Writes one Parquet file, from its start to its end; ``Rewriter``."""

    def __init__(
        self,
        source: Reader,
        footer: Footer,
        chunks: Sequence[Chunk],
        content: Callable[[Page], Content],
        sink: Sink,
    ) -> None:
        """``content`` reads a page; it may be called several times per page."""
        self._source = source
        self._footer = footer
        self._content = content
        self.sink = sink
        with reading("the footer"):
            self._indices = Indices(footer, chunks)
        self._spool = Spool()
        self._new: dict[int, dict[int, int]] = {}
        """Slots with new values, by page; and how much longer each value is."""
        self._read = 0
        """Offset up to which the source has been processed."""
        self._moves = [(0, 0)]
        """From each of these source offsets on, how much further behind the bytes are."""
        self._column: NewColumn | None = None
        self._page: Page | None = None
        """The page being changed."""
        self._deferred: list[Page] = []
        """Pages with values from a dictionary, which precedes them."""
        self._columns: dict[tuple[int, int], NewColumn] = {}
        """Changed columns, by row group and leaf."""

    def kept(self, place: Slot) -> None:
        """Keep a value."""
        self._go_to(place.page)

    def replace(self, place: Slot, data: bytes) -> None:
        """Replace the bytes of a value."""
        self._go_to(place.page)
        old = self._content(place.page).values[place.number]
        grows = len(data) - (0 if old is None else len(old))
        self._new.setdefault(place.page.start, {})[place.number] = grows
        self._spool.put((place.page.start, place.number), data)

    def leave_out(self, place: Slot) -> None:
        """Does nothing: a row stays, or its other columns would have to be rewritten."""
        raise unsupported("its rows cannot be left out; use --failed-images keep and filter them")

    def finish(self) -> None:
        """Write the rest, and the footer."""
        self._end_column()
        self._copy_until(self._footer.start)
        if not self._columns:
            self.sink.copy(self._source, self._read, self._source.size)
        else:
            with reading("the footer"):
                footer = serialized(self._new_footer())
            self.sink.put(footer + len(footer).to_bytes(4, "little") + MAGIC)
        self.sink.finish()

    def close(self) -> None:
        """Discard the new images."""
        self._spool.close()

    def _go_to(self, page: Page) -> None:
        if self._page is not None and self._page.start == page.start:
            return
        if self._column is None or self._column.chunk != page.chunk:
            self._end_column()
            self._copy_until(page.chunk.start)
            self._column = NewColumn(page.chunk, self.sink.at)
        self._pass_until(page.start)
        self._page = page

    def _end_column(self) -> None:
        """Finish the column being changed."""
        column = self._column
        if column is None:
            return
        self._pass_until(column.chunk.end)
        self._put_deferred(column)
        column.end = self.sink.at
        if column.changed:
            self._columns[column.chunk.group, column.chunk.leaf.number] = column
        self._moves.append((column.chunk.end, column.end - column.chunk.end))
        self._column = self._page = None

    def _pass_until(self, end: int) -> None:
        """Write the pages up to ``end``, some of them later."""
        column = self._column
        assert column is not None
        while self._read < end:
            page = page_at(self._source, column.chunk, self._read)
            if page.kind == DICTIONARY or page.uses_dictionary:
                self._deferred.append(page)
            else:
                self._put_deferred(column)
                self._put_page(column, page, anew=False)
            self._read = page.end

    def _put_deferred(self, column: NewColumn) -> None:
        """Write the pages that waited for the decision on their dictionary."""
        changed = any(page.start in self._new for page in self._deferred)
        for page in self._deferred:
            if page.kind != DICTIONARY or not changed:
                self._put_page(column, page, anew=changed)
        self._deferred.clear()

    def _put_page(self, column: NewColumn, page: Page, anew: bool) -> None:
        if page.kind == DICTIONARY:
            column.kept_dictionary = self.sink.at
        elif page.is_data and column.data_page is None:
            column.data_page = self.sink.at
        slots = self._new.pop(page.start, {})
        if not anew and not slots:
            at = self.sink.at
            self.sink.copy(self._source, page.start, page.end)
            column.unpacked_bytes += page.data - page.start + page.size
            if page.is_data:
                column.pages.append(WrittenPage(at, self.sink.at - at, page.start, 0, None))
            return
        column.changed = True
        column.more_values_bytes += sum(slots.values())
        content = self._content(page)
        values = (
            memoryview(self._spool.get((page.start, slot))) if slot in slots else old
            for slot, old in enumerate(content.values)
        )
        rows = 0
        for new in rewritten(page, content, values, PAGE_BYTES):
            at = self.sink.at
            self.sink.put(new.header)
            self.sink.put(new.data)
            column.pages.append(
                WrittenPage(at, self.sink.at - at, page.start, rows, new.values_bytes)
            )
            column.unpacked_bytes += new.unpacked_bytes
            rows += new.rows
        if not self._new:
            self._spool.clear()

    def _copy_until(self, end: int) -> None:
        """Copy what is outside of image columns, except indices that refer to them."""
        for start, stop, make in self._indices.between(self._read, end):
            self.sink.copy(self._source, self._read, start)
            old = self._source.read_at(start, stop - start)
            self.sink.put(make(old, self._moved, self._columns))
            self._moves.append((stop, self.sink.at - stop))
            self._read = stop
        self.sink.copy(self._source, self._read, end)
        self._read = max(self._read, end)

    def _moved(self, offset: int) -> int:
        """The new offset of bytes in the source."""
        return offset + self._moves[bisect_right(self._moves, (offset, self.sink.at)) - 1][1]

    def _new_footer(self) -> Struct:
        metadata, _ = parsed(self._footer.data)
        for number, group in enumerate(metadata.structs(FileField.ROW_GROUPS)):
            larger = stored_larger = 0
            for leaf, column in enumerate(group.structs(GroupField.COLUMNS)):
                about = column.struct(ChunkField.METADATA)
                before = about.integer(ColumnField.UNCOMPRESSED_BYTES)
                stored = about.integer(ColumnField.COMPRESSED_BYTES)
                self._move(column, about, self._columns.get((number, leaf)))
                larger += about.integer(ColumnField.UNCOMPRESSED_BYTES) - before
                stored_larger += about.integer(ColumnField.COMPRESSED_BYTES) - stored
            group.add(GroupField.TOTAL_BYTES, larger)
            group.add(GroupField.COMPRESSED_BYTES, stored_larger)
            if group.get(GroupField.FILE_OFFSET):
                group.set(
                    GroupField.FILE_OFFSET, I64, self._moved(group.integer(GroupField.FILE_OFFSET))
                )
        return metadata

    def _move(self, column: Struct, about: Struct, new: NewColumn | None) -> None:
        """Update all offsets in a chunk's metadata."""
        if column.get(ChunkField.FILE_OFFSET):
            at = self._moved(column.integer(ChunkField.FILE_OFFSET))
            column.set(ChunkField.FILE_OFFSET, I64, at)
        self._indices.move(column, about, new is not None, self._moved)
        for number in (ColumnField.DATA_PAGE, ColumnField.INDEX_PAGE, ColumnField.DICTIONARY_PAGE):
            if about.get(number):
                about.set(number, I64, self._moved(about.integer(number)))
        if new is not None:
            describe(about, new)
