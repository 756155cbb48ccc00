"""The files of records, read and written: parts, ``metadata/``, and chunks of plans."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchlight._version import __version__
from batchlight.config import Method
from batchlight.errors import StorageError, brief
from batchlight.output.layout import PLANS, is_part, part_path
from batchlight.output.records import (
    SCHEMA,
    STABLE,
    TALLY_COLUMNS,
    Record,
    Tally,
    as_recorded,
    as_table,
    of_methods,
    require_values,
)
from batchlight.storage import EVERYONE, Storage
from batchlight.storage.base import FileRefusedError

ROW_GROUP_ROWS = 16_384
FOOTER_BYTES = 65_536
"""Read at first to find the footer of a file."""
WRITTEN_BY = b"batchlight"
"""Metadata key whose value is the version that wrote the file."""


def write_part(
    storage: Storage, batch: int, records: Iterable[Record] | pa.Table, permissions: int = EVERYONE
) -> pa.Table:
    """Commit a batch: the step that makes it done. Returns its rows.

    ``permissions``: the permission bits of a local file.

    The part is created exclusively. If it exists, another worker has done this batch, and the same
    plan led to the same bytes; anything else raises ``StorageError``.
    """
    table = records if isinstance(records, pa.Table) else as_table(records)
    path = part_path(batch)
    if storage.create(path, to_parquet(table, path), permissions):
        return table
    if not read_records(storage, path, STABLE).equals(table.select(STABLE)):
        raise StorageError(
            f"batch {batch} was committed with different content by another run; "
            "make sure that only one run works on this output, then run the command again",
            transient=False,
        )
    return table


class DamagedRecordsError(StorageError):
    """A file of records is damaged or missing; not one that cannot be read, which may be sound."""

    first_advice = ""
    """What to try before the rest."""

    def __init__(self, path: str, reason: str) -> None:
        advice = (
            "restore it, or choose another --output"
            if path.startswith(f"{PLANS}/")
            else "'batchlight verify OUTPUT --repair --input INPUT' regenerates them"
        )
        advice = self.first_advice + advice
        super().__init__(f"cannot read the records in {path}: {reason}; {advice}", transient=False)
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason)


class VanishedRecordsError(DamagedRecordsError):
    """A file of records is missing; to a reader, a run may have moved its rows meanwhile."""

    first_advice = "if a run is at work on this output, run the same command again; if not, "


def read_records(storage: Storage, path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Rows of one file of any version. Raises ``DamagedRecordsError``.

    ``columns``: of ``SCHEMA``, in this order; by default all, followed by those of the file that
    only later versions know.
    """
    with _damage(path):
        return as_recorded(_read(storage.read(path), columns), columns)


def read_table(
    storage: Storage,
    path: str,
    schema: pa.Schema,
    required: Collection[str],
    columns: Sequence[str] | None = None,
    later: Collection[str] = (),
) -> pa.Table:
    """Rows of one Parquet file with this schema, restricted to some columns.

    ``required``: columns without nulls; ``later``: columns that files of earlier versions lack, and
    that are null there. Raises ``DamagedRecordsError``.
    """
    names = schema.names if columns is None else columns
    wanted = pa.schema([schema.field(name) for name in names])
    with _damage(path):
        table = _read(storage.read(path), names)
        for name in set(later).intersection(names).difference(table.schema.names):
            table = table.append_column(
                wanted.field(name), pa.nulls(len(table), wanted.field(name).type)
            )
        table = table.select(wanted.names).cast(wanted)
        require_values(table, required)
        return table


def input_span(storage: Storage, path: str) -> tuple[str, str]:
    """The first and the last input of a file of records, as a rule from its footer alone.

    Raises ``DamagedRecordsError``.
    """
    with _damage(path):
        footer = _footer(storage, path)
        column = dict(zip(footer.schema.names, range(footer.num_columns), strict=False))["input"]
        groups = [
            footer.row_group(n).column(column).statistics for n in range(footer.num_row_groups)
        ]
    if groups and all(group is not None and group.has_min_max for group in groups):
        return min(group.min for group in groups), max(group.max for group in groups)
    found = pc.min_max(read_records(storage, path, ["input"])["input"])
    if not found["min"].is_valid:
        raise DamagedRecordsError(path, "it holds no rows")
    return found["min"].as_py(), found["max"].as_py()


def _footer(storage: Storage, path: str) -> pq.FileMetaData:
    size, tail, wanted = storage.stat(path).size or 0, b"", FOOTER_BYTES
    while len(tail) < min(wanted, size):
        tail = storage.read_part(path, max(0, size - wanted), min(wanted, size))
        wanted = int.from_bytes(tail[-8:-4], "little") + 8
    return pq.read_metadata(pa.BufferReader(tail))


def read_exactly(storage: Storage, path: str) -> pa.Table:
    """Rows of one file, verified byte by byte. Raises ``DamagedRecordsError``.

    Checksums cover the columns but not what describes them, such as the statistics by which other
    engines skip rows. But the same versions write equal rows as equal bytes.
    """
    with _damage(path):
        stored = storage.read(path)
        table = _read(stored, None)
        if table.schema.names == SCHEMA.names:  # otherwise another version has written it
            again = to_parquet(table, path)
            if stored != again and _writers(stored) == _writers(again):
                raise DamagedRecordsError(path, "its bytes are not those that were written")
        return as_recorded(table)


def to_parquet(table: pa.Table, path: str) -> bytes:
    """Serialise a table for its path; equal tables give equal bytes.

    Parts are not compressed: they live for minutes; it would take as long as several small images.
    """
    buffer = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata({WRITTEN_BY: __version__}),
        buffer,
        compression="none" if is_part(path) else "zstd",
        row_group_size=ROW_GROUP_ROWS,
        write_page_checksum=True,
    )
    return buffer.getvalue()


def permissions_of_records(storage: Storage, paths: Iterable[str]) -> int:
    """The permission bits for what is made from all of these files. Raises as ``read_records``."""
    permissions = EVERYONE
    for path in paths:
        with _damage(path):
            permissions &= storage.permissions(path)
    return permissions


def tally(storage: Storage, path: str, methods: Iterable[Method]) -> Tally:
    """Count the rows of one file that belong to these methods."""
    table = read_records(storage, path, ("method", *TALLY_COLUMNS))
    return Tally.of(of_methods(table, methods))


def _read(data: bytes, columns: Sequence[str] | None) -> pa.Table:
    """The rows of a file, with those of ``columns`` that it has."""
    # Neither ``pq.read_table`` nor a Python file: both start threads, and a process that ends soon
    # afterwards may abort.
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    there = file.schema_arrow.names
    wanted = None if columns is None else [name for name in columns if name in there]
    return file.read(wanted, use_threads=False)


@contextmanager
def _damage(path: str) -> Iterator[None]:
    try:
        yield
    except (PermissionError, FileRefusedError) as error:
        reason = (error.strerror or str(error)).lower()
        raise StorageError(
            f"cannot read the records in {path}: {reason}; make it readable and run the same "
            "command again",
            transient=False,
        ) from error
    except FileNotFoundError as error:
        raise VanishedRecordsError(path, brief(error)) from error
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DamagedRecordsError(path, brief(error)) from error


def _writers(data: bytes) -> tuple[str, bytes | None]:
    """The versions of Arrow and of batchlight that wrote a file."""
    found = pq.read_metadata(pa.BufferReader(data))
    return found.created_by, (found.metadata or {}).get(WRITTEN_BY)
