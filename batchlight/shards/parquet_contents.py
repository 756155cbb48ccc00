"""The images of a Parquet file, found and read page by page."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from itertools import islice

from batchlight.errors import ImageError
from batchlight.output.inputs import Input
from batchlight.shards.columns import ImageColumn, candidates, image_columns
from batchlight.shards.footer import Chunk, Leaf, damaged, read_footer, reading
from batchlight.shards.pages import (
    DICTIONARY,
    Content,
    Page,
    Slot,
    page_at,
    pages,
    read_dictionary,
    read_page,
)
from batchlight.shards.parquet_rewriting import ParquetRewriter
from batchlight.shards.sink import Sink
from batchlight.storage.base import Reader, Writer, escape_controls
from batchlight.storage.patterns import Patterns

CACHE_BYTES = 16 * 2**20
"""For pages that were read; the last one is kept, whatever its size."""
LOOKED_AT = 8
"""First values of a column; half must be images if nothing declares it a column of images."""


class ParquetContents:
    """An open Parquet file; ``Contents``."""

    def __init__(self, source: Reader, container: Input, named: Collection[str] = ()) -> None:
        """``named``: columns to treat as images, whatever they hold.

        Raises ``ImageError`` for a file that cannot be read.
        """
        self._source = source
        self._container = container
        self._lock = threading.Lock()
        self._cached: OrderedDict[int, tuple[Content, int]] = OrderedDict()
        self._dictionary: tuple[int, list[memoryview] | None] = (0, None)
        self._footer = read_footer(source)
        with reading("the footer"):
            self._chunks = sorted(self._footer.chunks(), key=lambda chunk: (chunk.start, chunk.end))
        self._starts = [chunk.start for chunk in self._chunks]
        self._named = named
        self._paths: tuple[int, list[bytes | None]] = 0, []
        """Paths of the chunk with that offset."""

    @property
    def remote(self) -> bool:
        """That of its file."""
        return self._source.remote

    @cached_property
    def columns(self) -> list[ImageColumn]:
        """The columns of images. Raises ``ImageError`` if the file lacks one that was named."""
        return image_columns(self._footer, self._named, self._holds_images)

    @property
    def columns_of_bytes(self) -> list[ImageColumn]:
        """All columns that may hold images."""
        return candidates(self._footer)

    def chunks_of(self, columns: Iterable[ImageColumn]) -> list[tuple[Chunk, ImageColumn]]:
        """The chunks of some columns, in file order."""
        by_leaf = {column.leaf.number: column for column in columns}
        return [
            (chunk, by_leaf[chunk.leaf.number])
            for chunk in self._chunks
            if chunk.leaf.number in by_leaf
        ]

    def images(self, patterns: Patterns) -> Iterator[tuple[Slot, Input]]:
        """All non-null values, column by column in each row group.

        An image with a path but no bytes is one that fails.
        """
        for slot, item in self.images_of(self.columns):
            if patterns.match(item.path):
                yield slot, item

    def images_of(self, columns: Iterable[ImageColumn]) -> Iterator[tuple[Slot, Input]]:
        """All values of some columns."""
        for chunk, column in self.chunks_of(columns):
            yield from self._items(chunk, column)

    def find(self, path: str) -> Input | None:
        """The image with this path, as in records; None if there is none."""
        digits = path.removeprefix(f"{self._container.path}/").partition("/")[0]
        row = int(digits) if digits.isdecimal() else -1
        for chunk, column in self.chunks_of(self.columns_of_bytes):
            if chunk.first_row <= row < chunk.first_row + chunk.rows:
                for _, item in self._items(chunk, column, row):
                    if item.path == path:
                        return item
        return None

    def _items(
        self, chunk: Chunk, column: ImageColumn, only: int | None = None
    ) -> Iterator[tuple[Slot, Input]]:
        """The images of a chunk, or those in the pages with one given row."""
        row, number, at = chunk.first_row - 1, 0, 0
        for page in pages(self._source, chunk):
            if not page.is_data:
                continue
            rows = page.rows
            if only is not None and rows is not None and not row < only <= row + rows:
                row += rows
                at += page.slots
                continue
            content = self._content(page)
            for slot, (value, begins) in enumerate(
                zip(content.values, content.begins_row, strict=True)
            ):
                row, number = (row + 1, 0) if begins else (row, number + 1)
                item = self._item(page, slot, column, (row, number), value, at + slot)
                if item is not None:
                    yield Slot(page, slot), item
            at += page.slots

    def _item(
        self,
        page: Page,
        slot: int,
        column: ImageColumn,
        where: tuple[int, int],
        value: memoryview | None,
        at: int,
    ) -> Input | None:
        """The input to process; ``at``: its index among the values of its chunk."""
        container = self._container
        name, defect = f"{container.path}/{where[0]}/{column.name}", column.defect
        if column.leaf.max_repetition:
            name += f"/{where[1]}"
        if value is None:
            path = self._path_at(page.chunk, column, at)
            if path is None:
                return None
            defect = f"its bytes are not in the file, which only names {path}"
        return Input(
            name,
            size=None if value is None else len(value),
            modified=container.modified,
            etag=container.etag,
            defect=defect,
            offset=page.start,
            slot=slot,
            inside=container,
        )

    def bytes_of(self, item: Input) -> bytes:
        """An image's value. Raises ``ImageError`` if there is none."""
        assert item.offset is not None
        assert item.slot is not None
        values = self._content_at(item.offset).values
        value = values[item.slot] if item.slot < len(values) else None
        if value is None:
            reason = item.defect or "its container has changed since it was listed"
            raise ImageError.unsupported(reason)
        return bytes(value)

    def rewriter(self, writer: Writer) -> ParquetRewriter:
        """A rewriter that copies everything without changed images."""
        return ParquetRewriter(
            self._source, self._footer, self._chunks, self._content, Sink(writer)
        )

    def require_unchanged(self) -> None:
        """Check the opened file."""
        self._source.require_unchanged()

    def _content_at(self, start: int) -> Content:
        """The content of the page at ``start``."""
        with self._lock:
            if (content := self._known(start)) is not None:
                return content
        chunk = self._chunks[bisect_right(self._starts, start) - 1]
        return self._content(page_at(self._source, chunk, start))

    def _content(self, page: Page) -> Content:
        with self._lock:
            if (content := self._known(page.start)) is not None:
                return content
            self._make_room()
            content = read_page(self._source, page, self._dictionary_of(page))
            self._cached[page.start] = content, page.size + content.overhead
            return content

    def _known(self, start: int) -> Content | None:
        if start not in self._cached:
            return None
        self._cached.move_to_end(start)
        return self._cached[start][0]

    def _make_room(self) -> None:
        """Free the cache before a page is read, so that two of the largest never coexist."""
        kept = sum(size for _, size in self._cached.values())
        while self._cached and kept > CACHE_BYTES:
            _, (_, size) = self._cached.popitem(last=False)
            kept -= size

    def _dictionary_of(self, page: Page) -> list[memoryview] | None:
        if not page.uses_dictionary:
            return None
        start = page.chunk.start
        if self._dictionary[0] != start:
            first = page_at(self._source, page.chunk, start)
            values = read_dictionary(self._source, first) if first.kind == DICTIONARY else None
            self._dictionary = start, values
        return self._dictionary[1]

    def _holds_images(self, leaf: Leaf) -> bool:
        """Whether half of the first values of a column are images."""
        from batchlight.images.header import is_image  # loads codecs, which not every caller needs

        values = list(islice(self._values(leaf), LOOKED_AT))
        return 2 * sum(is_image(bytes(value)) for value in values) >= max(1, len(values))

    def _values(self, leaf: Leaf) -> Iterator[memoryview]:
        for chunk in self._chunks:
            if chunk.leaf == leaf:
                for page in pages(self._source, chunk):
                    if page.is_data:
                        yield from (v for v in self._content(page).values if v is not None)

    def _path_at(self, chunk: Chunk, column: ImageColumn, at: int) -> str | None:
        if column.paths is None:
            return None
        paths = self._paths_of(chunk.group, column.paths)
        if at >= len(paths):
            raise damaged(f"the columns {column.name} have different numbers of values")
        value = paths[at]
        return None if value is None else escape_controls(value.decode("utf-8", "replace"))

    def _paths_of(self, group: int, leaf: Leaf) -> list[bytes | None]:
        """The values of a column of paths in a row group."""
        chunk = next(c for c in self._chunks if c.group == group and c.leaf == leaf)
        if self._paths[0] != chunk.start:
            found = [
                None if value is None else bytes(value)
                for page in pages(self._source, chunk)
                if page.is_data
                for value in self._content(page).values
            ]
            self._paths = chunk.start, found
        return self._paths[1]
