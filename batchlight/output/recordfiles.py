"""The files of records: parts, and ``metadata/``.

A batch's rows are written as a part, ``_batchlight/parts/``, after all its images; that part is the
only mark of completion. At the end of a run the parts of a chunk of batches become one file in
``metadata/``, named after the batches it covers, and are deleted. So at every moment each row
stands in a part, in a file of ``metadata/``, or (between those two steps) in both, and then
``metadata/`` counts.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchlight.config import Method
from batchlight.errors import StorageError, brief
from batchlight.output.records import (
    KEY,
    SCHEMA,
    STABLE,
    TALLY_COLUMNS,
    Record,
    Tally,
    as_sorted,
    as_table,
)
from batchlight.storage import Storage
from batchlight.storage.base import INTERNAL

PARTS = f"{INTERNAL}/parts"
METADATA = "metadata"
ROW_GROUP_ROWS = 16_384
REQUESTS_AT_ONCE = 16


@dataclass(frozen=True, order=True)
class BatchRange:
    """Consecutive batches, both ends included; the name of a file of ``metadata/`` or the plan."""

    first: int
    last: int

    @property
    def file_name(self) -> str:
        """As in ``0000000000-0000000063.parquet``."""
        return f"{self.first:010d}-{self.last:010d}.parquet"

    @classmethod
    def parse(cls, file_name: str) -> BatchRange | None:
        """None for a name of another kind."""
        first, dash, last = file_name.removesuffix(".parquet").partition("-")
        return cls(int(first), int(last)) if dash and first.isdigit() and last.isdigit() else None

    def numbers(self) -> range:
        """The batches' numbers."""
        return range(self.first, self.last + 1)

    def __contains__(self, batch: int) -> bool:
        return self.first <= batch <= self.last


def write_part(storage: Storage, batch: int, records: Iterable[Record]) -> pa.Table:
    """Commit a batch: the step that makes it done. Returns its rows.

    The part is created exclusively. If it is there already, then another worker has done this
    batch, which the same plan led to the same bytes; anything else raises ``StorageError``.
    """
    table = as_table(records)
    path = part_path(batch)
    if storage.create(path, to_parquet(table, path)):
        return table
    if not read_table(storage, path).select(STABLE).equals(table.select(STABLE)):
        raise StorageError(
            f"batch {batch} was committed with other content by another run; "
            "make sure that only one run works on this output, then run the command again",
            lasting=True,
        )
    return table


def part_path(batch: int) -> str:
    """Where the rows of a batch are committed, below the output."""
    return f"{PARTS}/{batch:010d}.parquet"


def is_part(path: str) -> bool:
    """Whether a file of records is the part of a batch."""
    return path.startswith(f"{PARTS}/")


def metadata_path(chunk: BatchRange) -> str:
    """Where the rows of a chunk of batches are for good, below the output."""
    return f"{METADATA}/{chunk.file_name}"


def committed_batches(storage: Storage) -> set[int]:
    """Batches that are done and stand in a part."""
    stems = (name.removesuffix(".parquet") for name in storage.names(PARTS))
    return {int(stem) for stem in stems if stem.isdigit()}


def metadata_ranges(storage: Storage) -> list[BatchRange]:
    """The batches that stand in ``metadata/``, in order."""
    found = (BatchRange.parse(name) for name in storage.names(METADATA))
    return sorted(item for item in found if item is not None)


def compact(storage: Storage, chunk: BatchRange, committed: set[int], *, moved: bool) -> None:
    """Turn the parts of a chunk into one file of ``metadata/``; safe to repeat after any crash.

    ``moved``: whether that file is there already, and its parts are only to be deleted.
    """
    parts = [part_path(batch) for batch in sorted(committed.intersection(chunk.numbers()))]
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:  # a store takes its time for each
        if parts and not moved:
            table = pa.concat_tables(pool.map(partial(read_table, storage), parts))
            path = metadata_path(chunk)
            storage.write(path, to_parquet(as_sorted(table), path))
            storage.sync()
        list(pool.map(storage.delete, parts))


def range_of(path: str) -> BatchRange:
    """The batches that a file of records covers, by its name."""
    name = path.rpartition("/")[2]
    number = name.removesuffix(".parquet")
    chunk = BatchRange(int(number), int(number)) if number.isdigit() else BatchRange.parse(name)
    assert chunk is not None, path
    return chunk


def drop_orphaned_parts(storage: Storage) -> None:
    """Remove parts that an orphan of a killed run committed after ``metadata/`` had them."""
    ranges = metadata_ranges(storage)
    for batch in committed_batches(storage):
        if _covered(batch, ranges):
            storage.delete(part_path(batch))


def _covered(batch: int, ranges: Sequence[BatchRange]) -> bool:
    """Whether one of these ranges, which are in order and disjoint, holds a batch."""
    which = bisect_right(ranges, batch, key=attrgetter("first")) - 1
    return which >= 0 and batch in ranges[which]


def old_rows(storage: Storage, keys: pa.Table, before: int) -> Iterator[pa.Table]:
    """The old rows of (input, method) pairs, from the files of batches below ``before``."""
    for _, table in _files_with(storage, keys, before):
        yield table.join(keys, KEY, join_type="left semi")


def remove_rows(storage: Storage, keys: pa.Table, before: int) -> None:
    """Remove the old rows of (input, method) pairs, as ``old_rows`` finds them.

    Their new rows stand in parts and are about to move to ``metadata/``: removing comes first, so
    that whoever reads that folder never sees a row twice.
    """
    for path, table in _files_with(storage, keys, before):
        kept = table.join(keys, KEY, join_type="left anti")
        if kept.num_rows == 0:
            storage.delete(path)
        elif kept.num_rows < table.num_rows:
            storage.write(path, to_parquet(as_sorted(kept), path))
    storage.sync()


def _files_with(storage: Storage, keys: pa.Table, before: int) -> Iterator[tuple[str, pa.Table]]:
    """Those files of ``metadata/`` that may hold rows of these keys."""
    if not keys.num_rows:
        return
    low, high = pc.min_max(keys["input"]).as_py().values()
    for chunk in metadata_ranges(storage):
        if chunk.first >= before:
            continue
        path = metadata_path(chunk)
        table = read_table(storage, path)
        if table["input"][0].as_py() <= high and table["input"][-1].as_py() >= low:
            yield path, table


def record_files(storage: Storage) -> list[str]:
    """The files that hold each row exactly once: ``metadata/``, and parts not yet in it."""
    ranges = metadata_ranges(storage)
    parts = (b for b in sorted(committed_batches(storage)) if not _covered(b, ranges))
    return [metadata_path(chunk) for chunk in ranges] + [part_path(batch) for batch in parts]


class DamagedRecordsError(StorageError):
    """A file of records that is damaged or gone."""

    def __init__(self, path: str, reason: str) -> None:
        advice = (
            "restore it, or choose another --output"
            if path.startswith(f"{INTERNAL}/plan/")
            else "'batchlight verify OUTPUT --repair' makes them again"
        )
        super().__init__(f"cannot read the records in {path}: {reason}; {advice}", lasting=True)
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return DamagedRecordsError, (self.path, self.reason)


def read_table(storage: Storage, path: str, columns: Iterable[str] | None = None) -> pa.Table:
    """One file of records. Raises ``DamagedRecordsError``."""
    return _read(storage, path, columns)[0]


def read_exactly(storage: Storage, path: str) -> pa.Table:
    """One file of records, whose every byte is as it was written. Raises ``DamagedRecordsError``.

    Checksums cover the columns but not what describes them, such as the statistics by which other
    engines skip rows. But equal rows give equal bytes, if the same version writes them.
    """
    table, stored = _read(storage, path)
    if table.schema.names != SCHEMA.names:
        raise DamagedRecordsError(path, "its columns are not those of records")
    again = to_parquet(table, path)
    if stored != again and _writer(stored) == _writer(again):
        raise DamagedRecordsError(path, "its bytes are not those that were written")
    return table


def _read(
    storage: Storage, path: str, columns: Iterable[str] | None = None
) -> tuple[pa.Table, bytes]:
    """The rows of a file, and its bytes."""
    try:
        data = storage.read(path)
        # Neither ``pq.read_table`` nor a Python file: both start threads, and a process that ends
        # soon after may abort.
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        return file.read(None if columns is None else list(columns), use_threads=False), data
    except (pa.ArrowException, OSError) as error:
        raise DamagedRecordsError(path, brief(error)) from error


def _writer(data: bytes) -> str:
    created_by: str = pq.read_metadata(pa.BufferReader(data)).created_by
    return created_by


def tally(storage: Storage, methods: Iterable[Method]) -> Tally:
    """Count all rows of an output that are of these methods."""
    total = Tally()
    wanted = pa.array(methods, pa.string())
    for path in record_files(storage):
        table = read_table(storage, path, ("method", *TALLY_COLUMNS))
        total += Tally.of(table.filter(pc.is_in(table["method"], wanted)))
    return total


def failed_rows(storage: Storage) -> Iterator[dict[str, Any]]:
    """The rows of failed images, file by file."""
    columns = ("input", "method", "status", "error_code", "error")
    for path in record_files(storage):
        table = read_table(storage, path, columns)
        yield from table.filter(pc.equal(table["status"], "failed")).to_pylist()


def to_parquet(table: pa.Table, path: str) -> bytes:
    """Serialise a table for its path; equal tables give equal bytes.

    Parts live for minutes, and compressing a few rows takes as long as several small images.
    """
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        compression="none" if is_part(path) else "zstd",
        row_group_size=ROW_GROUP_ROWS,
        write_page_checksum=True,
    )
    return buffer.getvalue()
