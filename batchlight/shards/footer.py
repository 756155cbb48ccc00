"""The footer of a Parquet file: its columns, and where their chunks are.

Field numbers are those of ``parquet.thrift`` of Apache Parquet. The footer is kept as it was read,
so that it can be written again with other offsets and otherwise unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from batchlight.errors import ErrorCode, ImageError
from batchlight.shards.thrift import Struct, parsed

MAGIC, ENCRYPTED = b"PAR1", b"PARE"
TAIL_BYTES = 64 * 2**10
"""How much to read at once from the end of a file; contains most footers."""
BYTE_ARRAY = 6
_LIST, _OPTIONAL, _REPEATED = 3, 1, 2
_LOGICAL_LIST, _LOGICAL_NULL = 3, 11
_DEEPEST = 200
"""Groups within each other in a schema; far more than any, far fewer than Python's recursion."""


class FileField(IntEnum):
    """Fields of ``FileMetaData``."""

    SCHEMA = 2
    ROWS = 3
    ROW_GROUPS = 4
    KEYS = 5
    ENCRYPTION = 8


class GroupField(IntEnum):
    """Fields of ``RowGroup``."""

    COLUMNS = 1
    TOTAL_BYTES = 2
    ROWS = 3
    FILE_OFFSET = 5
    COMPRESSED_BYTES = 6


class ChunkField(IntEnum):
    """Fields of ``ColumnChunk``."""

    FILE = 1
    FILE_OFFSET = 2
    METADATA = 3
    OFFSET_INDEX = 4
    OFFSET_INDEX_BYTES = 5
    COLUMN_INDEX = 6
    COLUMN_INDEX_BYTES = 7
    ENCRYPTION = 8


class ColumnField(IntEnum):
    """Fields of ``ColumnMetaData``."""

    ENCODINGS = 2
    CODEC = 4
    VALUES = 5
    UNCOMPRESSED_BYTES = 6
    COMPRESSED_BYTES = 7
    DATA_PAGE = 9
    INDEX_PAGE = 10
    DICTIONARY_PAGE = 11
    STATISTICS = 12
    ENCODING_STATS = 13
    BLOOM_FILTER = 14
    BLOOM_FILTER_BYTES = 15
    SIZE_STATISTICS = 16


class ParquetSource(Protocol):
    """What a footer is read from."""

    @property
    def size(self) -> int: ...

    def read_at(self, offset: int, size: int) -> bytes:
        """``size`` bytes, or fewer only at the end."""


@dataclass(frozen=True)
class Leaf:
    """A primitive column, with one value at a time."""

    number: int
    names: tuple[str, ...]
    """From the root of the schema, without the wrappers of a list's elements."""
    stored: tuple[str, ...]
    """The same with the wrappers."""
    max_definition: int
    max_repetition: int
    parent: int
    """The group that it is a field of, as its number among the elements of the schema."""
    may_be_text: bool
    """Whether its values are bytes of any type, or all of them null."""
    is_binary: bool
    """Whether its values are bytes without a further type."""


@dataclass(frozen=True)
class Chunk:
    """The values of a leaf in one row group."""

    group: int
    first_row: int
    """Number of its first row in the file."""
    rows: int
    leaf: Leaf
    start: int
    """Offset of its first page in the file."""
    end: int
    codec: int
    values: int
    """Number of values, including nulls."""
    nulls: int | None
    """According to its statistics."""
    bytes: int
    """Size before compression."""


@dataclass(frozen=True)
class Footer:
    """The metadata of a file."""

    data: bytes
    start: int
    metadata: Struct
    leaves: list[Leaf]

    @property
    def keys(self) -> dict[bytes, bytes]:
        """The writer's key-value metadata."""
        pairs = self.metadata.structs(FileField.KEYS)
        return {pair.get(1, b""): pair.get(2, b"") for pair in pairs}

    def chunks(self) -> Iterator[Chunk]:
        """All chunks of all row groups. Raises ``ImageError`` for impossible values."""
        row = 0
        for number, group in enumerate(self.metadata.structs(FileField.ROW_GROUPS)):
            columns = group.structs(GroupField.COLUMNS)
            if len(columns) != len(self.leaves):
                raise damaged(f"row group {number} does not have each column")
            rows = range(row, row + group.integer(GroupField.ROWS))
            for leaf, column in zip(self.leaves, columns, strict=True):
                yield self._chunk(number, rows, leaf, column)
            row = rows.stop

    def _chunk(self, number: int, rows: range, leaf: Leaf, column: Struct) -> Chunk:
        if ChunkField.FILE in column.fields:
            raise unsupported("its columns lie in other files")
        if ChunkField.ENCRYPTION in column.fields:
            raise unsupported("it is encrypted")
        about = column.struct(ChunkField.METADATA)
        start = _first_page(about)
        end = start + about.integer(ColumnField.COMPRESSED_BYTES)
        if not len(MAGIC) <= start <= end <= self.start:
            raise damaged(f"a column of row group {number} lies outside the file")
        statistics = about.get(ColumnField.STATISTICS)
        nulls = statistics.get(3) if isinstance(statistics, Struct) else None
        return Chunk(
            group=number,
            first_row=rows.start,
            rows=len(rows),
            leaf=leaf,
            start=start,
            end=end,
            codec=about.integer(ColumnField.CODEC),
            values=about.integer(ColumnField.VALUES),
            nulls=nulls if isinstance(nulls, int) else None,
            bytes=about.integer(ColumnField.UNCOMPRESSED_BYTES),
        )


def _first_page(about: Struct) -> int:
    """Where the pages of a chunk begin; an offset of 0 means that there is no such page.

    A chunk without values has a dictionary at most. For one without any pages, writers note any
    offset; it counts as the start of the file, so that no page of another chunk seems to be in it.
    """
    if not about.integer(ColumnField.COMPRESSED_BYTES):
        return len(MAGIC)
    offsets = about.integer(ColumnField.DATA_PAGE), about.integer(ColumnField.DICTIONARY_PAGE, 0)
    return min((offset for offset in offsets if offset > 0), default=0)


def read_footer(source: ParquetSource) -> Footer:
    """The footer of an open file.

    Raises ``ImageError``: ``empty``, ``unsupported`` for an encrypted one, ``corrupt``.
    """
    if not source.size:
        raise ImageError(ErrorCode.EMPTY, "the file is empty")
    tail = source.read_at(max(0, source.size - TAIL_BYTES), TAIL_BYTES)
    if tail[-4:] == ENCRYPTED:
        raise unsupported("it is encrypted")
    if tail[-4:] != MAGIC or source.size < 3 * len(MAGIC):
        raise ImageError.corrupt("the content is not a Parquet file, or is cut short")
    size = int.from_bytes(tail[-8:-4], "little")
    start = source.size - 8 - size
    if start < len(MAGIC):
        raise damaged("the footer is longer than the file")
    data = tail[-8 - size : -8] if size + 8 <= len(tail) else source.read_at(start, size)
    with reading("the footer"):
        metadata, _ = parsed(data)
        if FileField.ENCRYPTION in metadata.fields:
            raise unsupported("it is encrypted")
        return Footer(data, start, metadata, list(_leaves(metadata.structs(FileField.SCHEMA))))


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn errors caused by a malformed part of a file into ``ImageError``."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise damaged(f"{what} cannot be read: {error}") from error


def damaged(reason: str) -> ImageError:
    """The error for a file with impossible metadata."""
    return ImageError.corrupt(f"the Parquet file is damaged: {reason}")


def unsupported(reason: str) -> ImageError:
    """The error for a file that cannot be processed."""
    return ImageError.unsupported(f"the Parquet file is not supported: {reason}")


def _leaves(elements: list[Struct]) -> Iterator[Leaf]:
    """The leaves of a schema, which is a tree stored in depth-first order."""
    at, number = 1, 0

    def below(
        names: tuple[str, ...],
        stored: tuple[str, ...],
        levels: tuple[int, int],
        parent: int,
        wrapped: int,
    ) -> Iterator[Leaf]:
        """Leaves of the element at ``at``; ``wrapped``: how many of the next names a list adds."""
        nonlocal at, number
        if len(stored) == _DEEPEST:
            raise ValueError("its columns are nested too deeply")
        here, element = at, elements[at]
        at += 1
        repetition = element.integer(3, 0)
        levels = levels[0] + (repetition != 0), levels[1] + (repetition == _REPEATED)
        name = element.get(4, b"").decode("utf-8", "replace")
        stored = (*stored, name)
        names = names if wrapped else (*names, name)
        children = element.integer(5, 0)
        if not children:
            is_bytes = element.get(1) == BYTE_ARRAY
            is_binary = is_bytes and not element.fields.keys() & {6, 10}
            may_be_text = is_bytes or _is_logical(element, _LOGICAL_NULL)
            yield Leaf(number, names, stored, *levels, parent, may_be_text, is_binary)
            number += 1
            return
        inner = wrapped - 1 if wrapped > 1 else _wraps(element, elements[at])
        for _ in range(children):
            yield from below(names, stored, levels, here, inner)

    for _ in range(elements[0].integer(5, 0)):
        yield from below((), (), (0, 0), 0, 0)


def _wraps(element: Struct, child: Struct) -> int:
    """How many names a list adds to those of its elements."""
    is_list = element.get(6) == _LIST or _is_logical(element, _LOGICAL_LIST)
    if not is_list or child.integer(3, 0) != _REPEATED:
        return 0
    has_element = child.integer(5, 0) == 1 and child.get(4) not in (b"array",)
    return 2 if has_element else 1


def _is_logical(element: Struct, kind: int) -> bool:
    """Whether an element of a schema has a logical type."""
    logical = element.get(10)
    return isinstance(logical, Struct) and kind in logical.fields
