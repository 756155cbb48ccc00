"""The schema of records, one row per (input, method), and how rows are counted and sorted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchlight.config import Method

_TIME = pa.timestamp("us", tz="UTC")

SCHEMA = pa.schema(
    [
        pa.field("input", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_code", pa.string()),
        pa.field("error", pa.string()),
        pa.field("output", pa.string()),
        pa.field("input_bytes", pa.int64()),
        pa.field("output_bytes", pa.int64()),
        pa.field("input_etag", pa.string()),
        pa.field("input_modified", _TIME),
        pa.field("input_sha256", pa.string()),
        pa.field("output_sha256", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("channels", pa.int32()),
        pa.field("bit_depth", pa.int32()),
        pa.field("format", pa.string()),
        pa.field("lost", pa.list_(pa.field("element", pa.string()))),
        pa.field("batch", pa.int64(), nullable=False),
        pa.field("atmospheric_light", pa.float32()),
        pa.field("batch_atmospheric_light", pa.float32()),
        pa.field("omega", pa.float32()),
        pa.field("mean_transmission", pa.float32()),
        pa.field("luminance_before", pa.float32()),
        pa.field("luminance_after", pa.float32()),
        pa.field("clipped_fraction", pa.float32()),
        pa.field("read_ms", pa.float32()),
        pa.field("decode_ms", pa.float32()),
        pa.field("enhance_ms", pa.float32()),
        pa.field("encode_ms", pa.float32()),
        pa.field("write_ms", pa.float32()),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("worker", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("finished_at", _TIME, nullable=False),
        pa.field("container", pa.string()),
        pa.field("container_bytes", pa.int64()),
        pa.field("container_output_bytes", pa.int64()),
        pa.field("container_output_sha256", pa.string()),
        pa.field("member_offset", pa.int64()),
        pa.field("output_offset", pa.int64()),
        pa.field("network_ms", pa.float32()),
    ]
)

SHARED_STAGES = ("read_ms", "decode_ms")
"""The stages that an image goes through once for all methods; each method's row has them."""
STAGES = (*SHARED_STAGES, "enhance_ms", "encode_ms", "write_ms")
"""The stages that an image's time is split into."""

VOLATILE = frozenset([*STAGES, "network_ms", "attempts", "worker", "run_id", "finished_at"])
"""Columns that may differ between two identical runs."""

STABLE = [name for name in SCHEMA.names if name not in VOLATILE]

KEY = ["input", "method"]
"""The unique key of a row."""

ORDER = [(name, "ascending") for name in KEY]

REQUIRED = frozenset({"input", "method", "status", "batch"})
"""Columns that every file of records has."""

UNIT = [*KEY, "container"]
"""Identifies the input of a plan that a row belongs to."""

TALLY_COLUMNS = ("status", "error_code", "input_bytes", "output_bytes", "lost", "container")
"""The columns that a ``Tally`` is computed from."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One row; the fields are the columns of ``SCHEMA`` (a test keeps them the same)."""

    input: str
    method: Method
    status: str
    error_code: str | None = None
    error: str | None = None
    output: str | None = None
    input_bytes: int | None = None
    output_bytes: int | None = None
    input_etag: str | None = None
    input_modified: datetime | None = None
    input_sha256: str | None = None
    output_sha256: str | None = None
    width: int | None = None
    height: int | None = None
    channels: int | None = None
    bit_depth: int | None = None
    format: str | None = None
    lost: tuple[str, ...] | None = None
    batch: int
    atmospheric_light: float | None = None
    batch_atmospheric_light: float | None = None
    omega: float | None = None
    mean_transmission: float | None = None
    luminance_before: float | None = None
    luminance_after: float | None = None
    clipped_fraction: float | None = None
    read_ms: float | None = None
    decode_ms: float | None = None
    enhance_ms: float | None = None
    encode_ms: float | None = None
    write_ms: float | None = None
    attempts: int
    worker: str
    run_id: str
    fingerprint: str
    finished_at: datetime
    container: str | None = None
    container_bytes: int | None = None
    container_output_bytes: int | None = None
    container_output_sha256: str | None = None
    member_offset: int | None = None
    output_offset: int | None = None
    network_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Number of rows per outcome, and their bytes."""

    ok: int = 0
    failed_by_code: tuple[tuple[str, int], ...] = ()
    input_bytes: int = 0
    output_bytes: int = 0
    skipped: int = 0
    lost_by_name: tuple[tuple[str, int], ...] = ()
    """How many outputs lack what their input file had, by name."""
    copied: int = 0
    """Rows of files that are not images."""
    in_containers: int = 0
    """Rows of images in containers."""
    containers: int = 0
    """Number of these containers, each counted once per method."""

    @property
    def failed(self) -> int:
        """Rows whose status is ``failed``."""
        return sum(count for _, count in self.failed_by_code)

    @property
    def rows(self) -> int:
        """All rows."""
        return self.ok + self.skipped + self.failed + self.copied

    def __add__(self, other: Tally) -> Tally:
        return self._combined(other, 1)

    def __sub__(self, part: Tally) -> Tally:
        return self._combined(part, -1)

    def _combined(self, other: Tally, factor: int) -> Tally:
        counts: dict[str, Any] = {
            name: summed(value, vars(other)[name], factor)
            if isinstance(value, tuple)
            else value + factor * vars(other)[name]
            for name, value in vars(self).items()
        }
        return Tally(**counts)

    @classmethod
    def of(cls, table: pa.Table) -> Tally:
        """Count a table that has ``TALLY_COLUMNS`` and, with several methods, ``method``.

        The rows of a container are all in one file, so files can be counted one by one.
        """
        codes = _counted(table["error_code"])
        skipped, copied = (
            pc.sum(pc.equal(table["status"], status)).as_py() or 0
            for status in ("skipped", "copied")
        )
        inside = pc.sum(pc.is_valid(table["container"])).as_py() or 0
        return cls(
            ok=table.num_rows - skipped - copied - sum(count for _, count in codes),
            failed_by_code=codes,
            input_bytes=pc.sum(table["input_bytes"]).as_py() or 0,
            output_bytes=pc.sum(table["output_bytes"]).as_py() or 0,
            skipped=skipped,
            lost_by_name=_counted(pc.list_flatten(table["lost"])),
            copied=copied,
            in_containers=inside,
            containers=_containers(table) if inside else 0,
        )


def _containers(table: pa.Table) -> int:
    """Number of containers, each counted once per method."""
    names = [name for name in ("container", "method") if name in table.schema.names]
    return int(table.filter(pc.is_valid(table["container"])).group_by(names).aggregate([]).num_rows)


def _counted(column: pa.ChunkedArray) -> tuple[tuple[str, int], ...]:
    """The count of each value, sorted by value; nulls are not counted."""
    counts = pc.value_counts(column.drop_null()).to_pylist()
    return tuple(sorted((entry["values"], entry["counts"]) for entry in counts))


def summed(
    one: tuple[tuple[str, int], ...], other: tuple[tuple[str, int], ...], factor: int = 1
) -> tuple[tuple[str, int], ...]:
    """Two counts added up; ``factor`` applies to the second."""
    counts = Counter(dict(one))
    for name, count in other:
        counts[name] += factor * count
    return tuple(sorted((name, count) for name, count in counts.items() if count))


def as_table(records: Iterable[Record]) -> pa.Table:
    """Records as rows of ``SCHEMA``, sorted as in every file of records."""
    rows = [vars(record) for record in records]
    columns = [pa.array([row[f.name] for row in rows], f.type) for f in SCHEMA]
    return pa.Table.from_arrays(columns, schema=SCHEMA).sort_by(ORDER)


def as_recorded(table: pa.Table, columns: Sequence[str] | None = None) -> pa.Table:
    """Rows of any version as rows of ``SCHEMA``: missing columns are null.

    ``columns``: those to return, in this order; by default all, followed by those that only later
    versions know. Raises ``pa.ArrowException`` for columns of another type, and if any of
    ``REQUIRED`` are missing.
    """
    there = table.schema.names
    wanted = SCHEMA.names if columns is None else columns
    if missing := REQUIRED.intersection(wanted).difference(there):
        raise pa.ArrowInvalid(f"it has no column {min(missing)!r}")
    for name in wanted:
        if name not in there:
            field = SCHEMA.field(name).with_nullable(True)
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    fields = [
        SCHEMA.field(name).with_nullable(
            SCHEMA.field(name).nullable or bool(table[name].null_count)
        )
        for name in wanted
    ]
    unknown = [] if columns is not None else [name for name in there if name not in SCHEMA.names]
    require_values(table, REQUIRED.intersection(wanted))
    schema = pa.schema([*fields, *(table.schema.field(name) for name in unknown)])
    return table.select(schema.names).cast(schema)


def require_values(table: pa.Table, names: Iterable[str]) -> None:
    """Raise ``pa.ArrowInvalid`` if one of these columns holds nulls."""
    for name in names:
        if table[name].null_count:
            raise pa.ArrowInvalid(f"it has rows without {name!r}")


def of_methods(table: pa.Table, methods: Iterable[Method]) -> pa.Table:
    """The rows of some methods."""
    return table.filter(pc.is_in(table["method"], pa.array(methods, pa.string())))


def keys_of(table: pa.Table) -> pa.Array:
    """One string per row, unique to it.

    Neither part contains a line feed: control characters in names are escaped.
    """
    keys = pc.binary_join_element_wise(table["input"], table["method"], "\n")
    return keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys


def as_units(table: pa.Table) -> pa.Table:
    """The keys of rows, with the container as the input of rows that are in one.

    A slash is appended to it, as in the order of a listing. ``table`` has the columns of ``UNIT``.
    """
    folder = pc.binary_join_element_wise(table["container"], pa.scalar(""), "/")
    return pa.table({"input": pc.coalesce(folder, table["input"]), "method": table["method"]})


def without(table: pa.Table, other: pa.Table) -> pa.Table:
    """The rows whose (input, method) pair the other table does not have."""
    return table.filter(pc.invert(pc.is_in(keys_of(table), keys_of(other))))


def joined(tables: Iterable[pa.Table]) -> pa.Table:
    """The rows of several tables, in the order that every file of records has."""
    return pa.concat_tables(tables, promote_options="default").sort_by(ORDER)
