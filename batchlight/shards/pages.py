"""The pages of a column of bytes: their headers and their values.

Layout: ``parquet.thrift`` and "Data Pages" of Apache Parquet.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from batchlight.shards.footer import Chunk, damaged, reading, unsupported
from batchlight.shards.levels import Numbers, deltas, unpacked
from batchlight.shards.thrift import Struct, parsed
from batchlight.storage.base import Reader

HEADER_BYTES = 4 * 2**10
"""How much to read for a header; for long statistics, twice as much is read again."""
LONGEST_HEADER = 16 * 2**20
LARGEST_PAGE = 2**30
BOMB_BYTES, BOMB_RATIO = 64 * 2**20, 100
"""A page that exceeds both size and compression ratio is not one of images, only a memory bomb."""
_WIDEST_INDEX = 32
"""Bits of an index into a dictionary."""
MOST_SLOTS, MOST_VALUES = 2**22, 2**20
"""Values per page, with and without nulls; no writer puts more images than this into one."""
SLOT_BYTES, VALUE_BYTES = 40, 200
"""Memory for each, in addition to the bytes of the page: levels, references, ``memoryview``."""

DATA, INDEX, DICTIONARY, DATA_V2 = range(4)
PLAIN, PLAIN_DICTIONARY, RLE = 0, 2, 3
DELTA_LENGTHS, DELTA_BYTES, RLE_DICTIONARY = 6, 7, 8
_DICTIONARIES = (PLAIN_DICTIONARY, RLE_DICTIONARY)
_CODECS = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
KIND, SIZE, STORED, CRC, OF_DATA, OF_DICTIONARY, OF_DATA_V2 = 1, 2, 3, 4, 5, 7, 8
"""Fields of ``PageHeader``."""
_PARTS = {DATA: OF_DATA, DICTIONARY: OF_DICTIONARY, DATA_V2: OF_DATA_V2}

Values = Sequence[memoryview | None]
"""Values of all slots; None for one without a value."""


@dataclass(frozen=True)
class Page:
    """Where a page is, and its header."""

    chunk: Chunk
    start: int
    data: int
    """Offset of what follows its header."""
    end: int
    header: Struct
    kind: int
    about: Struct
    """The part of its header that depends on its kind."""
    size: int
    """Of its content before compression."""
    slots: int
    """Number of values, including nulls."""
    encoding: int
    rows: int | None
    """How many rows begin in it, if the header says."""

    @property
    def is_data(self) -> bool:
        """Whether it holds values of rows."""
        return self.kind in (DATA, DATA_V2)

    @property
    def uses_dictionary(self) -> bool:
        """Whether its values are indices into the dictionary."""
        return self.is_data and self.encoding in _DICTIONARIES


@dataclass(frozen=True)
class Slot:
    """The position of an image: a value of a page of data."""

    page: Page
    number: int
    data: None = None
    """Values are packed into pages, usually compressed."""
    sample: bytes = b""


@dataclass(frozen=True)
class Content:
    """The contents of a page of data."""

    repetition: Numbers
    definition: Numbers
    values: Values

    @cached_property
    def begins_row(self) -> list[bool]:
        """For each slot, whether it is the first of a row."""
        begins: list[bool] = (self.repetition == 0).tolist()
        return begins

    @property
    def overhead(self) -> int:
        """About how much memory it takes in addition to the bytes of the page."""
        nulls = sum(value is None for value in self.values)
        return SLOT_BYTES * len(self.values) + VALUE_BYTES * (len(self.values) - nulls)


def pages(source: Reader, chunk: Chunk) -> Iterator[Page]:
    """All pages of a chunk. Raises ``ImageError`` for a damaged one."""
    at = chunk.start
    while at < chunk.end:
        page = page_at(source, chunk, at)
        yield page
        at = page.end


def page_at(source: Reader, chunk: Chunk, start: int) -> Page:
    """The page whose header is at ``start``. Raises ``ImageError``."""
    size = HEADER_BYTES
    while True:
        data = source.read_at(start, min(size, chunk.end - start))
        with reading(f"the header of the page at {start}"):
            try:
                header, length = parsed(data)
            except IndexError as error:
                if size >= min(LONGEST_HEADER, chunk.end - start):
                    raise damaged(f"the header of the page at {start} is cut short") from error
                size *= 16
            else:
                return _page(chunk, start, start + length, header)


def _page(chunk: Chunk, start: int, data: int, header: Struct) -> Page:
    """A page, all of whose header is checked here. Raises ``ValueError`` and ``ImageError``."""
    kind, size, stored = (header.integer(field) for field in (KIND, SIZE, STORED))
    if not data <= data + stored <= chunk.end:
        raise ValueError("it ends outside its column")
    if not 0 <= size <= LARGEST_PAGE or (size > BOMB_BYTES and size > BOMB_RATIO * stored):
        raise unsupported(f"a page of {stored} bytes would take {size} bytes of memory")
    slots = encoding = 0
    about, rows = Struct(), None
    if kind in _PARTS:
        about = header.struct(_PARTS[kind])
        slots, encoding = about.integer(1), about.integer(4 if kind == DATA_V2 else 2)
        if kind == DATA_V2:
            rows = about.integer(3)
        elif not chunk.leaf.max_repetition:
            rows = slots
    elif kind != INDEX:
        raise ValueError(f"it is of the unknown kind {kind}")
    if slots < 0:
        raise ValueError(f"it has {slots} values")
    if slots > MOST_SLOTS:
        raise unsupported(f"a page of {slots} slots is larger than one of images")
    return Page(chunk, start, data, data + stored, header, kind, about, size, slots, encoding, rows)


def read_dictionary(source: Reader, page: Page) -> list[memoryview]:
    """The values of a dictionary. Raises ``ImageError``."""
    stored = _stored(source, page)
    _require_few(page.slots)
    with reading(f"the dictionary at {page.start}"):
        return _plain(memoryview(_unpacked_data(page, stored)), 0, page.slots)


def read_page(source: Reader, page: Page, dictionary: Sequence[memoryview] | None) -> Content:
    """The values of a page of data. Raises ``ImageError``, and errors of reading."""
    stored = _stored(source, page)
    with reading(f"the page at {page.start}"):
        return _content(page, stored, dictionary)


def _stored(source: Reader, page: Page) -> bytes:
    data = source.read_at(page.data, page.end - page.data)
    with reading(f"the checksum of the page at {page.start}"):
        if CRC in page.header.fields and zlib.crc32(data) != page.header.integer(CRC) & 0xFFFFFFFF:
            raise damaged(f"the page at {page.start} does not have its checksum")
    return data


def _content(page: Page, stored: bytes, dictionary: Sequence[memoryview] | None) -> Content:
    leaf, slots = page.chunk.leaf, page.slots
    at = 0
    levels = []
    if page.kind == DATA_V2:
        sizes = page.about.integer(6), page.about.integer(5)
        if min(sizes) < 0 or sum(sizes) > len(stored):
            raise ValueError("its levels are cut short")
        for most, size in zip((leaf.max_repetition, leaf.max_definition), sizes, strict=True):
            found, _ = unpacked(memoryview(stored)[: at + size], at, most.bit_length(), slots)
            levels.append(found)
            at += size
        is_packed = page.about.get(7, True)
        body = _unpacked_data(page, stored[at:], levels_bytes=at) if is_packed else stored[at:]
        data, at = memoryview(body), 0
    else:
        data = memoryview(_unpacked_data(page, stored))
        for most, encoding in ((leaf.max_repetition, 4), (leaf.max_definition, 3)):
            found = np.zeros(slots, np.int64)
            if most:
                if page.about.integer(encoding) != RLE:
                    raise unsupported("its levels are in a notation of the first version")
                size = int.from_bytes(data[at : at + 4], "little")
                found, _ = unpacked(data[: at + 4 + size], at + 4, most.bit_length(), slots)
                at += 4 + size
            levels.append(found)
    repetition, definition = levels
    is_there = definition == leaf.max_definition
    values = iter(_values(page, data, at, int(is_there.sum()), dictionary))
    return Content(repetition, definition, [next(values) if it else None for it in is_there])


def _values(
    page: Page, data: memoryview, at: int, count: int, dictionary: Sequence[memoryview] | None
) -> list[memoryview]:
    if not page.uses_dictionary:
        _require_few(count)
    if page.encoding == PLAIN:
        return _plain(data, at, count)
    if page.uses_dictionary:
        if dictionary is None:
            raise ValueError("it has no dictionary")
        if not count:
            return []
        if data[at] > _WIDEST_INDEX:
            raise ValueError(f"its indices have {data[at]} bits")
        numbers, _ = unpacked(data, at + 1, data[at], count)
        return [dictionary[number] for number in numbers.tolist()]
    if page.encoding == DELTA_LENGTHS:
        return _by_lengths(data, at, count)
    if page.encoding == DELTA_BYTES:
        shared, at = deltas(data, at, count)
        return _by_prefixes(shared.tolist(), _by_lengths(data, at, count))
    raise unsupported(f"a column of images is in the encoding {page.encoding}")


def _require_few(values: int) -> None:
    if values > MOST_VALUES:
        raise unsupported(f"a page of {values} values is larger than one of images")


def _plain(data: memoryview, at: int, count: int) -> list[memoryview]:
    found = []
    for _ in range(count):
        start = at + 4
        at = start + int.from_bytes(data[at:start], "little")
        if at > len(data):
            raise IndexError("a value is cut short")
        found.append(data[start:at])
    return found


def _by_lengths(data: memoryview, at: int, count: int) -> list[memoryview]:
    lengths, at = deltas(data, at, count) if count else (np.zeros(0, np.int64), at)
    if ((lengths < 0) | (lengths > len(data))).any():
        raise ValueError("its lengths are damaged")
    ends = at + np.cumsum(lengths)
    if count and ends[-1] > len(data):
        raise IndexError("a value is cut short")
    return [data[end - n : end] for end, n in zip(ends.tolist(), lengths.tolist(), strict=True)]


def _by_prefixes(shared: Sequence[int], rests: Sequence[memoryview]) -> list[memoryview]:
    last = b""
    found = []
    for length, rest in zip(shared, rests, strict=True):
        last = last[:length] + bytes(rest)
        found.append(memoryview(last))
    return found


def _unpacked_data(page: Page, data: bytes, levels_bytes: int = 0) -> bytes:
    if page.chunk.codec == 0:
        return data
    size = page.size - levels_bytes
    if size < 0:
        raise ValueError("its levels are longer than itself")
    try:
        unpacked_: bytes = codec_of(page.chunk).decompress(data, size, asbytes=True)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(str(error)) from error
    return unpacked_


def codec_of(chunk: Chunk) -> pa.Codec:
    """The compression of its pages. Raises ``ImageError``."""
    if chunk.codec not in _CODECS:
        raise unsupported(f"a column of images is compressed by the method {chunk.codec}")
    return pa.Codec(_CODECS[chunk.codec])
