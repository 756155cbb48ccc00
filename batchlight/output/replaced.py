"""Old rows that a plan replaces, found in one pass over the old files and one over the plan.

Files of records and chunks of a plan are both sorted by input, so only files and chunks whose
ranges of inputs overlap can share rows. Only the keys of a file are kept in memory, from the first
chunk that overlaps it to the last.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

import pyarrow as pa
import pyarrow.compute as pc

from batchlight.output.layout import BatchRange, metadata_path
from batchlight.output.plan import Plan
from batchlight.output.recordfiles import DamagedRecordsError, read_records
from batchlight.output.records import UNIT, as_units, keys_of
from batchlight.output.state import OutputState
from batchlight.storage import Storage


@dataclass(frozen=True)
class Span:
    """A file of records and the range of its inputs."""

    path: str
    low: str
    high: str


@dataclass(frozen=True)
class OldFile:
    """A file of records, and which of its rows a plan replaces."""

    path: str
    replaced: pa.Array | None
    """One boolean per row; None if no row is replaced."""

    def lost_rows(self, storage: Storage, columns: Sequence[str]) -> pa.Table:
        """The rows that it loses, restricted to some columns."""
        table = read_records(storage, self.path, columns)
        return table.slice(0, 0) if self.replaced is None else table.filter(self.replaced)

    def kept_rows(self, table: pa.Table) -> pa.Table:
        """The rows that stay, of the table read from the file."""
        return table if self.replaced is None else table.filter(pc.invert(self.replaced))


class _Open:
    """A file that later chunks may still replace rows of."""

    def __init__(self, storage: Storage, span: Span) -> None:
        self.span = span
        self.keys = keys_of(as_units(read_records(storage, span.path, UNIT)))
        self.replaced = pa.array([False] * len(self.keys), pa.bool_())

    def replace(self, keys: pa.Array) -> None:
        self.replaced = pc.or_(self.replaced, pc.is_in(self.keys, keys))

    def done(self) -> OldFile:
        return OldFile(self.span.path, self.replaced if pc.any(self.replaced).as_py() else None)


@dataclass(frozen=True)
class _Chunk:
    """What a chunk of a plan replaces."""

    range: BatchRange
    keys: pa.Array
    low: str | None
    """The lowest of its inputs; None if it replaces nothing."""
    high: str | None


def old_spans(storage: Storage, state: OutputState, plan: Plan) -> list[Span]:
    """The files of ``metadata/`` that hold rows from before a plan."""
    chunks = (chunk for chunk in state.metadata if chunk.first < plan.first)
    return [span_of(storage, metadata_path(chunk)) for chunk in chunks]


def span_of(storage: Storage, path: str) -> Span:
    """Read the range of a file of records. Raises ``DamagedRecordsError``."""
    inputs = as_units(read_records(storage, path, UNIT))["input"]
    if not len(inputs):
        raise DamagedRecordsError(path, "it has no rows")
    low, high = pc.min_max(inputs).as_py().values()
    return Span(path, low, high)


def replaced_by(
    storage: Storage,
    plan: Plan,
    old: Sequence[Span],
    committed: Container[int] | None = None,
) -> Iterator[OldFile | BatchRange]:
    """Each old file with the rows that it loses, and each chunk once all its old rows were yielded.

    Only replacements in ``committed`` batches count; by default all of the plan. Every old file and
    every chunk is yielded once, and read once.
    """
    if not old:
        yield from plan.chunks
        return
    waiting = deque(sorted(old, key=attrgetter("low")))
    opened: list[_Open] = []
    due: list[BatchRange] = []
    for chunk in _chunks(storage, plan, committed):
        due.append(chunk.range)
        if chunk.low is None or chunk.high is None:
            if not opened:
                yield from due
                due.clear()
            continue
        yield from (file.done() for file in opened if file.span.high < chunk.low)
        opened = [file for file in opened if file.span.high >= chunk.low]
        if not opened:
            yield from due[:-1]
            del due[:-1]
        while waiting and waiting[0].low <= chunk.high:
            span = waiting.popleft()
            if span.high < chunk.low:
                yield OldFile(span.path, None)
            else:
                opened.append(_Open(storage, span))
        for file in opened:
            file.replace(chunk.keys)
    yield from (file.done() for file in opened)
    yield from (OldFile(span.path, None) for span in waiting)
    yield from due


def _chunks(storage: Storage, plan: Plan, committed: Container[int] | None) -> Iterator[_Chunk]:
    for chunk in plan.chunks:
        rows = plan.read_units(storage, chunk)
        replaced = rows.filter(rows["again"])
        if committed is not None:
            done = [number for number in chunk.numbers() if number in committed]
            replaced = replaced.filter(pc.is_in(replaced["batch"], pa.array(done, pa.int64())))
        if not replaced.num_rows:
            yield _Chunk(chunk, pa.array([], pa.string()), None, None)
            continue
        low, high = pc.min_max(replaced["input"]).as_py().values()
        yield _Chunk(chunk, _keys(replaced), low, high)


def _keys(rows: pa.Table) -> pa.Array:
    """One key per (input, method) of plan rows, which contain lists of methods."""
    parents = pc.list_parent_indices(rows["methods"])
    pairs = {"input": rows["input"].take(parents), "method": pc.list_flatten(rows["methods"])}
    return keys_of(pa.table(pairs))
