"""What there is to do: the listing, held against the earlier records, cut into batches.

Both are streams in the same order, so that comparing them is a merge and memory stays flat. A plan
is stored before the first image is read, so that a killed run goes on with the very same batches:

    _batchlight/plan/0000000000/0000000000-0000001023.parquet   a chunk: its batches' inputs
    _batchlight/plan/0000000000.json                            written last: the plan is whole
    _batchlight/plan/0000000000.closed                          all its rows are in metadata/

A plan is named after its first batch; numbers go on over later plans. A chunk's rows
end in the file of ``metadata/`` of the same name.
"""

from __future__ import annotations

import heapq
import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

import pyarrow as pa

from batchlight.batch import Batch
from batchlight.codec import output_name
from batchlight.config import Fingerprint, JobConfig, Method
from batchlight.errors import ErrorCode, UsageError
from batchlight.inputs import Input
from batchlight.records import (
    BatchRange,
    Tally,
    committed_batches,
    metadata_path,
    metadata_ranges,
    part_path,
    read_table,
    to_parquet,
)
from batchlight.storage import Storage
from batchlight.storage.base import INTERNAL

PLANS = f"{INTERNAL}/plan"
CHUNK_ROWS = 65_536
"""Images after which a chunk is full: what one file of ``metadata/`` will hold."""

ROWS_AT_ONCE = 4096
"""Earlier records that are Python objects at one time."""

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
    ]
)


@dataclass(frozen=True)
class Task:
    """One image that needs some methods; ``again`` if it has rows that will be replaced."""

    input: Input
    methods: tuple[Method, ...]
    again: bool


@dataclass(frozen=True)
class PlannedBatch:
    """A batch, and for each of its inputs whether it has rows that will be replaced."""

    batch: Batch
    again: tuple[bool, ...]


@dataclass(frozen=True)
class Earlier:
    """What an earlier run recorded of one (input, method)."""

    input: str
    method: Method
    failed_with: ErrorCode | None
    size: int | None
    modified: datetime | None
    etag: str | None
    fingerprint: str
    bytes: tuple[int, int]
    """Of the input and the output."""


@dataclass(frozen=True)
class PlanCounts:
    """What planning found: images of the listing, and rows that keep what they have."""

    inputs: int = 0
    input_bytes: int = 0
    todo: int = 0
    """Images that some method is still to be run on."""
    todo_bytes: int = 0
    batches: int = 0
    new: int = 0
    changed: int = 0
    retried: int = 0
    unchanged: int = 0
    """Images of which nothing will be read."""
    gone: int = 0
    """(input, method) rows whose input is no longer there."""
    gone_tally: Tally = field(default_factory=Tally)


class Planner:
    """Compares a listing with earlier records; counts as it goes. Read ``counts`` at the end."""

    def __init__(self, config: JobConfig) -> None:
        self._config = config
        self._fingerprints = {m: config.fingerprint(m).digest for m in config.method}
        self._seen = {name: 0 for name in PlanCounts.__dataclass_fields__ if name != "gone_tally"}
        self._gone = Tally()

    @property
    def counts(self) -> PlanCounts:
        """What was found so far."""
        return PlanCounts(**self._seen, gone_tally=self._gone)

    def chunks(
        self, images: Iterable[Input], earlier: Iterable[Earlier], first: int
    ) -> Iterator[list[PlannedBatch]]:
        """Cut what is to do into batches numbered from ``first``, and those into chunks.

        Images that need the same methods share batches, in listing order. A chunk ends with a
        batch, and the inputs of later chunks all come after its own. Raises ``UsageError`` if two
        images would write one output.
        """
        chunk: list[PlannedBatch] = []
        rows = 0
        growing: dict[tuple[Method, ...], list[Task]] = {}
        for task in self._tasks(_refuse_collisions(images, self._config), earlier):
            members = growing.setdefault(task.methods, [])
            members.append(task)
            rows += 1
            if len(members) < self._config.batch_size:
                continue
            chunk.append(_as_planned(first + self._seen["batches"], growing.pop(task.methods)))
            self._seen["batches"] += 1
            if rows >= CHUNK_ROWS:
                yield chunk + self._finish(growing, first)
                chunk, rows, growing = [], 0, {}
        chunk += self._finish(growing, first)
        if chunk:
            yield chunk

    def _finish(
        self, growing: dict[tuple[Method, ...], list[Task]], first: int
    ) -> list[PlannedBatch]:
        """Batches that are not full, at the end of a chunk."""
        number = first + self._seen["batches"]
        self._seen["batches"] += len(growing)
        return [_as_planned(n, tasks) for n, tasks in enumerate(growing.values(), number)]

    def _tasks(self, images: Iterable[Input], earlier: Iterable[Earlier]) -> Iterator[Task]:
        by_input = groupby(earlier, key=attrgetter("input"))
        recorded = next(by_input, None)
        for image in images:
            self._seen["inputs"] += 1
            self._seen["input_bytes"] += image.size or 0
            while recorded is not None and recorded[0] < image.path:
                self._count_gone(recorded[1])
                recorded = next(by_input, None)
            rows: dict[Method, Earlier] = {}
            if recorded is not None and recorded[0] == image.path:
                rows = {row.method: row for row in recorded[1]}
                recorded = next(by_input, None)
            methods = tuple(m for m in self._config.method if self._needed(image, m, rows.get(m)))
            if not methods:
                self._seen["unchanged"] += 1
                continue
            self._seen["todo"] += 1
            self._seen["todo_bytes"] += image.size or 0
            self._seen[self._kind(image, [rows[m] for m in methods if m in rows])] += 1
            yield Task(image, methods, any(m in rows for m in methods))
        while recorded is not None:
            self._count_gone(recorded[1])
            recorded = next(by_input, None)

    def _needed(self, image: Input, method: Method, row: Earlier | None) -> bool:
        if row is None or self._config.overwrite:
            return True
        if row.fingerprint != self._fingerprints[method]:
            return True  # an input that was not listed when all the others were overwritten
        if image.changed_since(row.size, row.modified, row.etag):
            return True
        failed = row.failed_with
        return failed is not None and (self._config.retry_failed or not failed.permanent)

    def _kind(self, image: Input, rows: list[Earlier]) -> str:
        if not rows:
            return "new"
        changed = (image.changed_since(row.size, row.modified, row.etag) for row in rows)
        return "changed" if any(changed) else "retried"

    def _count_gone(self, rows: Iterable[Earlier]) -> None:
        for row in rows:
            if row.method not in self._config.method:
                continue
            self._seen["gone"] += 1
            codes = ((row.failed_with.value, 1),) if row.failed_with else ()
            self._gone += Tally(0 if codes else 1, codes, *row.bytes)


def earlier_rows(storage: Storage) -> Iterator[Earlier]:
    """The records of earlier runs, in the order of their inputs.

    The chunks of one plan hold ascending ranges of inputs, so that a plan is one sorted stream of
    which one chunk at a time is in memory; only the streams of the plans need to be merged.
    """
    plans = _stored_plans(storage)
    chunks = [(chunk, [metadata_path(chunk)]) for chunk in metadata_ranges(storage)]
    latest = latest_plan(storage)
    if latest is not None and not latest.is_closed(storage):
        moved = {chunk for chunk, _ in chunks}
        parts = committed_batches(storage)
        chunks += [
            (chunk, [part_path(number) for number in chunk.numbers() if number in parts])
            for chunk in latest.chunks
            if chunk not in moved
        ]
    streams = groupby(sorted(chunks), key=lambda item: bisect_right(plans, item[0].first))
    return heapq.merge(
        *(_stream(storage, [paths for _, paths in members]) for _, members in streams),
        key=attrgetter("input"),
    )


def _stream(storage: Storage, chunks: list[list[str]]) -> Iterator[Earlier]:
    recorded = ("input_bytes", "output_bytes", "input_modified", "input_etag")
    columns = ("input", "method", "error_code", "fingerprint", *recorded)
    for paths in chunks:
        tables = [read_table(storage, path, columns) for path in paths]
        if not tables:
            continue
        table = pa.concat_tables(tables).sort_by([("input", "ascending"), ("method", "ascending")])
        for batch in table.to_batches(max_chunksize=ROWS_AT_ONCE):
            yield from map(_as_earlier, batch.to_pylist())


def _as_earlier(row: dict[str, Any]) -> Earlier:
    code = row["error_code"]
    return Earlier(
        row["input"],
        row["method"],
        None if code is None else ErrorCode(code),
        row["input_bytes"],
        row["input_modified"],
        row["input_etag"],
        row["fingerprint"],
        (row["input_bytes"] or 0, row["output_bytes"] or 0),
    )


def _refuse_collisions(images: Iterable[Input], config: JobConfig) -> Iterator[Input]:
    """Pass the images on; raise ``UsageError`` at two that would write one output.

    Paths whose outputs collide share all but the suffix, and in sorted order everything between
    them starts with the same ``stem.``, so only those few outputs need to be remembered.
    """
    near: dict[str, tuple[str, str]] = {}
    for image in images:
        near = {out: seen for out, seen in near.items() if image.path.startswith(seen[1])}
        output = output_name(image.path, config.format)
        if output in near:
            raise UsageError(
                f"{near[output][0]} and {image.path} would both be written to {output}; "
                "rename one, exclude one, or use --format same"
            )
        near[output] = (image.path, image.path.rpartition(".")[0] + ".")
        yield image


@dataclass(frozen=True)
class Plan:
    """A stored plan; its batches are read back chunk by chunk."""

    first: int
    listed: int
    """Images of the listing, whether to do or done."""
    batches: int
    inputs: int
    """Images to do."""
    rows: int
    """(input, method) pairs: how many records it will make."""
    root: str
    """What the input's paths are relative to."""
    overwrite: bool
    fingerprints: Mapping[Method, Fingerprint]
    """The latest of each method that this output has ever been planned with."""
    chunks: tuple[BatchRange, ...]

    @property
    def folder(self) -> str:
        """Below the output."""
        return f"{PLANS}/{self.first:010d}"

    @property
    def next_batch(self) -> int:
        """The number that a later plan starts with."""
        return self.first + self.batches

    def read_batches(self, storage: Storage, skip: set[int]) -> Iterator[Batch]:
        """The batches in order, but for those to skip."""
        for chunk in self.chunks:
            if all(number in skip for number in chunk.numbers()):
                continue
            rows = self.read_chunk(storage, chunk).to_pylist()
            for number, members in groupby(rows, key=lambda row: int(row["batch"])):
                if number not in skip:
                    yield _as_batch(number, list(members))

    def read_chunk(self, storage: Storage, chunk: BatchRange) -> pa.Table:
        """One row per image."""
        return read_table(storage, f"{self.folder}/{chunk.file_name}")

    def close(self, storage: Storage) -> None:
        """Mark that all rows of this plan stand in ``metadata/``."""
        storage.create(f"{self.folder}.closed", b"")

    def is_closed(self, storage: Storage) -> bool:
        """Whether all rows of this plan stand in ``metadata/``."""
        return f"{self.first:010d}.closed" in storage.names(PLANS)


def store_plan(
    storage: Storage,
    chunks: Iterable[list[PlannedBatch]],
    planner: Planner,
    root: str,
    config: JobConfig,
    previous: Plan | None,
) -> Plan | None:
    """Write a plan, chunk by chunk and its end mark last; None if there is nothing to do."""
    fingerprints = dict(previous.fingerprints) if previous else {}
    fingerprints |= {method: config.fingerprint(method) for method in config.method}
    first = previous.next_batch if previous else 0
    stored: list[BatchRange] = []
    rows = 0
    for chunk in chunks:
        stored.append(BatchRange(chunk[0].batch.number, chunk[-1].batch.number))
        rows += sum(len(item.batch.inputs) * len(item.batch.methods) for item in chunk)
        table = pa.Table.from_pylist([r for item in chunk for r in _as_rows(item)], _CHUNK_SCHEMA)
        storage.write(f"{PLANS}/{first:010d}/{stored[-1].file_name}", to_parquet(table))
    if not stored:
        return None
    plan = Plan(
        first=first,
        listed=planner.counts.inputs,
        batches=planner.counts.batches,
        inputs=planner.counts.todo,
        rows=rows,
        root=root,
        overwrite=config.overwrite,
        fingerprints=fingerprints,
        chunks=tuple(stored),
    )
    storage.write(f"{plan.folder}.json", _to_json(plan))
    return plan


def latest_plan(storage: Storage) -> Plan | None:
    """The last plan that is whole; all before it are closed."""
    plans = _stored_plans(storage)
    return _from_json(storage.read(f"{PLANS}/{plans[-1]:010d}.json")) if plans else None


def _stored_plans(storage: Storage) -> list[int]:
    """The first batches of all whole plans, in order."""
    stems = (name.removesuffix(".json") for name in storage.names(PLANS))
    return [int(stem) for stem in stems if stem.isdigit()]


def _as_planned(number: int, tasks: list[Task]) -> PlannedBatch:
    batch = Batch(number, tasks[0].methods, tuple(task.input for task in tasks))
    return PlannedBatch(batch, tuple(task.again for task in tasks))


def _as_rows(planned: PlannedBatch) -> list[dict[str, Any]]:
    return [
        {
            "batch": planned.batch.number,
            "methods": planned.batch.methods,
            "input": item.path,
            "source": item.source,
            "size": item.size,
            "modified": item.modified,
            "etag": item.etag,
            "defect": item.defect,
            "again": again,
        }
        for item, again in zip(planned.batch.inputs, planned.again, strict=True)
    ]


def _as_batch(number: int, rows: list[dict[str, Any]]) -> Batch:
    columns = ("input", "source", "size", "modified", "etag", "defect")
    inputs = tuple(Input(*(row[name] for name in columns)) for row in rows)
    return Batch(number, tuple(rows[0]["methods"]), inputs)


def _to_json(plan: Plan) -> bytes:
    values = asdict(plan) | {
        "fingerprints": {m: dict(f.parameters) for m, f in plan.fingerprints.items()}
    }
    return (json.dumps(values, indent=2) + "\n").encode()


def _from_json(data: bytes) -> Plan:
    values = json.loads(data)
    values["fingerprints"] = {m: Fingerprint(p) for m, p in values["fingerprints"].items()}
    values["chunks"] = tuple(BatchRange(**chunk) for chunk in values["chunks"])
    return Plan(**values)
