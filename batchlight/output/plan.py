"""Plans: stored before the first image is read, so that a killed run goes on with the same batches.

    _batchlight/plan/0000000000/0000000000-0000001023.parquet   a chunk: its batches' inputs
    _batchlight/plan/0000000000.json                            written last: the plan is whole
    _batchlight/plan/0000000000.closed                          all its rows are in metadata/; holds
                                                                the files that were there then

A plan is named after its first batch; numbers go on over later plans. A chunk's rows end in the
file of ``metadata/`` of the same name.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchlight.config import Fingerprint, Method
from batchlight.errors import StorageError, counted
from batchlight.output.inputs import Batch, Input
from batchlight.output.recordfiles import (
    BatchRange,
    read_table,
)
from batchlight.output.records import Tally
from batchlight.storage import Storage
from batchlight.storage.base import INTERNAL

PLANS = f"{INTERNAL}/plan"

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
_INPUT_COLUMNS = {
    name: "path" if name == "input" else name
    for name in ("input", "source", "size", "modified", "etag", "defect")
}
"""Columns of a plan, and the attributes of an ``Input`` in the order in which it is made."""


@dataclass(frozen=True)
class Plan:
    """A stored plan; its batches are read back chunk by chunk."""

    first: int
    """The number of its first batch."""
    counts: PlanCounts
    rows: int
    """(input, method) pairs: how many records it will make."""
    root: str
    """What the input's paths are relative to."""
    overwrite: bool
    fingerprints: Mapping[Method, Fingerprint]
    """The latest of each method that this output has ever been planned with."""
    methods: tuple[Method, ...]
    """Those that some of its batches need."""
    chunks: tuple[BatchRange, ...]

    @property
    def folder(self) -> str:
        """Below the output."""
        return f"{PLANS}/{self.first:010d}"

    @property
    def next_batch(self) -> int:
        """The number that a later plan starts with."""
        return self.first + self.counts.batches

    def store(self, storage: Storage) -> None:
        """Write the end mark, by which it is whole; its chunks are there."""
        values = asdict(self) | {
            "fingerprints": {m: dict(f.parameters) for m, f in self.fingerprints.items()}
        }
        storage.sync()
        storage.write(f"{self.folder}.json", (json.dumps(values, indent=2) + "\n").encode())

    def read_batches(self, storage: Storage, skip: set[int]) -> Iterator[Batch]:
        """The batches in order, but for those to skip."""
        for chunk in self.chunks:
            if all(number in skip for number in chunk.numbers()):
                continue
            batches = self.batches_of(storage, chunk)
            yield from (batch for batch in batches if batch.number not in skip)

    def batches_of(self, storage: Storage, chunk: BatchRange) -> list[Batch]:
        """The batches of one chunk, or some in the middle of one."""
        whole = next(c for c in self.chunks if chunk.first in c)
        batches = _as_batches(self.read_chunk(storage, whole))
        return [batch for batch in batches if batch.number in chunk]

    def input_of(self, storage: Storage, batch: int, path: str) -> Input:
        """One image of a batch."""
        whole = next(c for c in self.chunks if batch in c)
        rows = self.read_chunk(storage, whole)
        wanted = pc.and_(pc.equal(rows["batch"], batch), pc.equal(rows["input"], path))
        [found] = _as_batches(rows.filter(wanted))
        return found.inputs[0]

    def read_chunk(self, storage: Storage, chunk: BatchRange) -> pa.Table:
        """One row per image."""
        return read_table(storage, f"{self.folder}/{chunk.file_name}")

    def close(self, storage: Storage, metadata: Iterable[BatchRange]) -> None:
        """Mark that all rows of this plan stand in ``metadata/``, which holds these files now."""
        names = "".join(f"{chunk.file_name}\n" for chunk in metadata)
        storage.create(f"{self.folder}.closed", names.encode())

    def metadata_when_closed(self, storage: Storage) -> list[BatchRange]:
        """The files that ``metadata/`` held when this plan was closed."""
        names = storage.read(f"{self.folder}.closed").decode().split()
        return [chunk for name in names if (chunk := BatchRange.parse(name)) is not None]

    def closed_at(self, storage: Storage) -> datetime | None:
        """When this plan was closed, by the storage's own clock; None if it is not."""
        try:
            return storage.stat(f"{self.folder}.closed").modified
        except FileNotFoundError:
            return None

    def is_closed(self, storage: Storage) -> bool:
        """Whether all rows of this plan stand in ``metadata/``."""
        return f"{self.first:010d}.closed" in storage.names(PLANS)


def latest_plan(storage: Storage) -> Plan | None:
    """The last plan that is whole; all before it are closed."""
    plans = _stored_plans(storage)
    return _from_json(storage.read(f"{PLANS}/{plans[-1]:010d}.json")) if plans else None


def unfinished_plan(storage: Storage) -> Plan | None:
    """The latest plan, unless it is closed."""
    plan = latest_plan(storage)
    return plan if plan is not None and not plan.is_closed(storage) else None


def plan_of(storage: Storage, batch: int) -> Plan:
    """The plan that a batch belongs to. Raises ``StorageError`` if it is no longer there."""
    plans = _stored_plans(storage)
    which = bisect_right(plans, batch) - 1
    if which < 0:
        raise StorageError(f"the plan of batch {batch} is gone", lasting=True)
    return _from_json(storage.read(f"{PLANS}/{plans[which]:010d}.json"))


def _stored_plans(storage: Storage) -> list[int]:
    """The first batches of all whole plans, in order."""
    stems = (name.removesuffix(".json") for name in storage.names(PLANS))
    return [int(stem) for stem in stems if stem.isdigit()]


def _as_table(chunk: Sequence[PlannedBatch]) -> pa.Table:
    """A chunk of batches, one row per image."""
    batches = [item.batch for item in chunk for _ in item.batch.inputs]
    columns: dict[str, list[Any]] = {
        "batch": [batch.number for batch in batches],
        "methods": [batch.methods for batch in batches],
        "again": [again for item in chunk for again in item.again],
    }
    for name, attribute in _INPUT_COLUMNS.items():
        value = attrgetter(attribute)
        columns[name] = [value(image) for item in chunk for image in item.batch.inputs]
    return pa.table(columns, schema=_CHUNK_SCHEMA)


def _as_batches(table: pa.Table) -> Iterator[Batch]:
    inputs = map(Input, *(table[name].to_pylist() for name in _INPUT_COLUMNS))
    rows = zip(table["batch"].to_pylist(), table["methods"].to_pylist(), inputs, strict=True)
    for number, members in groupby(rows, key=itemgetter(0)):
        _, methods, images = zip(*members, strict=True)
        yield Batch(number, tuple(methods[0]), images)


def _from_json(data: bytes) -> Plan:
    values = json.loads(data)
    values["fingerprints"] = {m: Fingerprint(p) for m, p in values["fingerprints"].items()}
    gone = values["counts"].pop("gone_tally")
    gone["failed_by_code"] = tuple(map(tuple, gone["failed_by_code"]))
    values["counts"] = PlanCounts(**values["counts"], gone_tally=Tally(**gone))
    values["methods"] = tuple(values["methods"])
    values["chunks"] = tuple(BatchRange(**chunk) for chunk in values["chunks"])
    return Plan(**values)


@dataclass(frozen=True)
class PlannedBatch:
    """A batch, and for each of its inputs whether it has rows that will be replaced."""

    batch: Batch
    again: tuple[bool, ...]


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

    @property
    def in_words(self) -> str:
        """As in ``64 images, of which 10 are to do (8 new, 2 changed) in 1 batch``."""
        images = counted(self.inputs, "image")
        if not self.todo:
            return f"{images}, nothing to do"
        kinds = {"new": self.new, "changed": self.changed, "to redo": self.retried}
        which = ", ".join(f"{number} {kind}" for kind, number in kinds.items() if number)
        batches = f"{self.batches} batch" + "es" * (self.batches != 1)
        return f"{images}, of which {self.todo} are to do ({which}) in {batches}"
