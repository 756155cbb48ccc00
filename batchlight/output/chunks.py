"""Chunks of a plan: one row per input, with its batch and the methods that the batch is for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchlight.config import Method
from batchlight.output.inputs import Batch, Input
from batchlight.output.layout import BatchRange, chunk_path
from batchlight.output.recordfiles import read_table, to_parquet
from batchlight.storage import Storage

_CHUNK_SCHEMA = pa.schema(
    [
        ("batch", pa.int64()),
        ("methods", pa.list_(pa.string())),
        ("input", pa.string()),
        ("source", pa.string()),
        ("size", pa.int64()),
        ("modified", pa.timestamp("us", tz="UTC")),
        ("etag", pa.string()),
        ("defect", pa.string()),
        ("again", pa.bool_()),
        ("container", pa.bool_()),
    ]
)
_REQUIRED = frozenset({"batch", "methods", "input"})
CONTAINER = "container"
"""Plans of earlier versions have no such column, and no containers."""
_INPUT_COLUMNS = {
    name: "path" if name == "input" else name
    for name in ("input", "source", "size", "modified", "etag", "defect", "container")
}
"""Columns of a plan, and the attributes of an ``Input`` in the order of its constructor."""
_ROWS_SCHEMA = pa.schema(_CHUNK_SCHEMA.field(name) for name in (*_INPUT_COLUMNS, "again"))


class BatchKind(NamedTuple):
    """What the inputs of one batch have in common."""

    methods: tuple[Method, ...]
    of_container: bool = False
    of_others: bool = False
    """Whether its files are not images."""

    @property
    def of_images(self) -> bool:
        return not (self.of_container or self.of_others)


def as_rows(inputs: Sequence[Input], again: Sequence[bool]) -> pa.Table:
    """Inputs as rows of a plan, not yet assigned to batches.

    ``again``: for each of them, whether it has records that will be replaced.
    """
    columns: dict[str, Any] = {
        name: [value(item) for item in inputs]
        for name, attribute in _INPUT_COLUMNS.items()
        for value in [attrgetter(attribute)]
    }
    return pa.table({**columns, "again": again}, schema=_ROWS_SCHEMA)


@dataclass(frozen=True)
class PlannedBatch:
    """A batch that is not stored yet, as rows of its plan (``as_rows``)."""

    number: int
    kind: BatchKind
    rows: pa.Table

    @property
    def batch(self) -> Batch:
        """The batch that it will be."""
        return Batch(self.number, self.kind.methods, tuple(_inputs_in(self.rows)))

    @property
    def last_key(self) -> str:
        """The key of its last input."""
        path: str = self.rows["input"][-1].as_py()
        return f"{path}/" if self.kind.of_container else path


def read_chunk(
    storage: Storage, plan: int, chunk: BatchRange, columns: Sequence[str] | None = None
) -> pa.Table:
    """A chunk of the plan that begins with batch ``plan``: one row per image.

    Raises ``DamagedRecordsError``.
    """
    required = _REQUIRED.intersection(columns or _REQUIRED)
    path = chunk_path(plan, chunk)
    table = read_table(storage, path, _CHUNK_SCHEMA, required, columns, later=[CONTAINER])
    at = table.schema.get_field_index(CONTAINER)
    if at < 0:
        return table
    return table.set_column(at, CONTAINER, pc.fill_null(table[CONTAINER], False))


def batches_in(rows: pa.Table, numbers: Collection[int]) -> Iterator[Batch]:
    """The given batches of a chunk, in order, built from its rows one at a time."""
    rows = rows.filter(pc.is_in(rows["batch"], pa.array(numbers, pa.int64())))
    at = 0
    for run in pc.run_end_encode(rows["batch"].combine_chunks()).run_ends.to_pylist():
        its, at = rows.slice(at, run - at), run
        methods = tuple(its["methods"][0].as_py())
        yield Batch(its["batch"][0].as_py(), methods, tuple(_inputs_in(its)))


def _inputs_in(rows: pa.Table) -> Iterator[Input]:
    return map(Input, *(rows[name].to_pylist() for name in _INPUT_COLUMNS))


def write_chunk(storage: Storage, first: int, chunk: Sequence[PlannedBatch]) -> BatchRange:
    """Write a chunk of a plan that is not complete yet."""
    written = BatchRange(chunk[0].number, chunk[-1].number)
    path = chunk_path(first, written)
    storage.write(path, to_parquet(_as_table(chunk), path))
    return written


def _as_table(chunk: Sequence[PlannedBatch]) -> pa.Table:
    """A chunk of batches, one row per image."""
    rows = pa.concat_tables(item.rows for item in chunk).combine_chunks()
    batch_of = pa.array(np.repeat(np.arange(len(chunk)), [item.rows.num_rows for item in chunk]))
    for name, values in (
        ("batch", [item.number for item in chunk]),
        ("methods", [item.kind.methods for item in chunk]),
    ):
        column = pa.array(values, _CHUNK_SCHEMA.field(name).type).take(batch_of)
        rows = rows.append_column(name, column)
    return rows.select(_CHUNK_SCHEMA.names)
