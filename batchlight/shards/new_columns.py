"""A rewritten column of images, and its entries in the metadata."""

from __future__ import annotations

from dataclasses import dataclass, field

from batchlight.shards.footer import Chunk, ColumnField
from batchlight.shards.new_pages import only_nulls
from batchlight.shards.pages import PLAIN, PLAIN_DICTIONARY, RLE, RLE_DICTIONARY
from batchlight.shards.thrift import I32, I64, LIST, STRUCT, Items, Struct


@dataclass(frozen=True)
class WrittenPage:
    """A page of data that was written."""

    start: int
    size: int
    old: int
    """Offset of the page that it was made from."""
    rows_before: int
    """Rows of that page that are in earlier new pages."""
    values_bytes: int | None
    """Size of its values; None if they are unchanged."""


@dataclass
class NewColumn:
    """A chunk of images being written."""

    chunk: Chunk
    start: int
    data_page: int | None = None
    changed: bool = False
    kept_dictionary: int | None = None
    unpacked_bytes: int = 0
    more_values_bytes: int = 0
    """By how much the values have grown."""
    end: int = 0
    pages: list[WrittenPage] = field(default_factory=list)


def describe(about: Struct, new: NewColumn) -> None:
    """Update the metadata of a chunk for its new pages."""
    assert new.data_page is not None
    about.set(ColumnField.DATA_PAGE, I64, new.data_page)
    about.set(ColumnField.COMPRESSED_BYTES, I64, new.end - new.start)
    about.set(ColumnField.UNCOMPRESSED_BYTES, I64, new.unpacked_bytes)
    about.drop(ColumnField.ENCODING_STATS, ColumnField.DICTIONARY_PAGE)
    encodings = dict.fromkeys([*about.get(ColumnField.ENCODINGS).values, PLAIN, RLE])
    if new.kept_dictionary is None:
        for gone in (PLAIN_DICTIONARY, RLE_DICTIONARY):
            encodings.pop(gone, None)
    else:
        about.set(ColumnField.DICTIONARY_PAGE, I64, new.kept_dictionary)
    about.set(ColumnField.ENCODINGS, LIST, Items(I32, list(encodings)))
    statistics = about.get(ColumnField.STATISTICS)
    if isinstance(statistics, Struct):
        about.set(ColumnField.STATISTICS, STRUCT, only_nulls(statistics))
    sizes = about.get(ColumnField.SIZE_STATISTICS)
    if isinstance(sizes, Struct):
        sizes.add(1, new.more_values_bytes)
