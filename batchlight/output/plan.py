"""Plans: stored before the first image is read, so that a killed run continues in the same batches.

A plan is named after its first batch; later plans continue the numbers. Its chunks are written
first, its end mark last; a chunk's rows end up in the file of the same name in ``metadata/``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import PlainSerializer, PlainValidator

from batchlight.config import Method
from batchlight.errors import StorageError, counted
from batchlight.fingerprint import Fingerprint
from batchlight.images.names import passed_over_in_words
from batchlight.output.chunks import CONTAINER, batches_in, read_chunk
from batchlight.output.documents import Document, parse, serialise
from batchlight.output.inputs import Batch, Input
from batchlight.output.layout import REPORT, BatchRange, closed_path, plan_path, state_trouble
from batchlight.output.records import Tally, summed
from batchlight.storage import Storage

ADVICE = "restore it, or choose another --output"


@dataclass(frozen=True)
class PlanCounts:
    """What planning found: images of the listing, and rows that stay as they are.

    A container counts as one wherever images are counted, except in ``inputs``.
    """

    inputs: int = 0
    """Images that are files."""
    containers: int = 0
    input_bytes: int = 0
    todo: int = 0
    """Images that still need at least one method."""
    todo_bytes: int = 0
    todo_containers: int = 0
    """How many of those are containers."""
    batches: int = 0
    new: int = 0
    changed: int = 0
    retried: int = 0
    unchanged: int = 0
    """Images that will not be read."""
    gone: int = 0
    """(input, method) rows whose input is no longer there."""
    gone_tally: Tally = field(default_factory=Tally)
    not_selected: int = 0
    """Rows whose input the options do not select: ``--include``, ``--exclude``, ``--limit``, or the
    lack of ``--copy-others``."""
    not_selected_tally: Tally = field(default_factory=Tally)
    passed_over: tuple[tuple[str, int], ...] = ()
    """Files that are not images, by suffix."""
    beside: int = 0
    """Files beside containers, which are copied with them; in none of the other counts."""
    others: int = 0
    """Files that are not images but are copied; in none of the counts above except ``batches``."""
    others_bytes: int = 0
    todo_others: int = 0

    def __add__(self, other: PlanCounts) -> PlanCounts:
        found = {name: value + vars(other)[name] for name, value in self._numbers.items()}
        return PlanCounts(**found, passed_over=summed(self.passed_over, other.passed_over))

    def __sub__(self, part: PlanCounts) -> PlanCounts:
        found = {name: value - vars(part)[name] for name, value in self._numbers.items()}
        return PlanCounts(**found, passed_over=summed(self.passed_over, part.passed_over, -1))

    @property
    def _numbers(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "passed_over"}

    def in_all(self, recorded: Tally, methods: int) -> tuple[int, int]:
        """Images and pairs, including those in containers as far as they are recorded.

        A container without records counts as one image.
        """
        inside = recorded.in_containers + max(0, self.containers * methods - recorded.containers)
        pairs = (self.inputs + self.others) * methods + inside
        return self.inputs + math.ceil(inside / methods), pairs

    @property
    def in_words(self) -> str:
        """For example ``64 images, of which 10 are to do (8 new, 2 changed) in 1 batch``."""
        others = f"; {counted(self.todo_others, 'other file')} to copy" if self.todo_others else ""
        return self._images_in_words + others

    @property
    def _images_in_words(self) -> str:
        images = counted(self.inputs, "image")
        if self.containers:
            containers = counted(self.containers, "container")
            images = f"{images} and {containers}" if self.inputs else containers
        if self.passed_over:
            images += f" (passed over: {passed_over_in_words(self.passed_over)})"
        if not self.todo:
            return f"{images}, nothing to do"
        kinds = {"new": self.new, "changed": self.changed, "to redo": self.retried}
        which = ", ".join(f"{number} {kind}" for kind, number in kinds.items() if number)
        batches = f"{self.batches} batch" + "es" * (self.batches != 1)
        return f"{images}, of which {self.todo} are to do ({which}) in {batches}"


def _as_fingerprint(value: object) -> Fingerprint:
    if isinstance(value, Fingerprint):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("must be a mapping of parameters")
    return Fingerprint(value)


_StoredFingerprint = Annotated[
    Fingerprint,
    PlainValidator(_as_fingerprint),
    PlainSerializer(lambda fingerprint: dict(fingerprint.parameters)),
]
"""Stored as its parameters."""


class Plan(Document):
    """A plan, as its end mark stores it; its batches are read back chunk by chunk."""

    first: int
    """The number of its first batch."""
    counts: PlanCounts
    rows: int
    """(input, method) pairs: how many records it will make."""
    rows_by_method: Mapping[Method, int] | None = None
    """The same by method; None if that was not recorded."""
    root: str
    """What the input's paths are relative to."""
    overwrite: bool = False
    fingerprints: Mapping[Method, _StoredFingerprint]
    """The latest one of every method that this output was ever planned with."""
    methods: tuple[Method, ...]
    """The methods that some of its batches need."""
    chunks: tuple[BatchRange, ...]
    batch_size: int | None = None
    """Images per batch at most; None if that was not recorded."""
    member_rules: Mapping[str, Any] = {}
    """``JobConfig.member_rules``."""
    continues_after: str | None = None
    """The key of its last input if the listing is longer; another plan is then to follow."""

    @property
    def has_more(self) -> bool:
        """Whether another plan of the same listing is to follow."""
        return self.continues_after is not None

    @property
    def in_words(self) -> str:
        """What planning found, and whether there is more to plan."""
        more = "; the listing goes on" if self.has_more else ""
        return f"{self.counts.in_words}{more}"

    @property
    def next_batch(self) -> int:
        """The number that a later plan starts with."""
        return self.first + self.counts.batches

    def batches_of(self, storage: Storage, chunk: BatchRange) -> list[Batch]:
        """The batches of one chunk, or of a range within one."""
        rows = self.read_chunk(storage, self._chunk_with(chunk.first))
        return list(batches_in(rows, chunk.numbers()))

    def input_of(self, storage: Storage, batch: int, path: str) -> Input:
        """One image of a batch."""
        rows = self.read_chunk(storage, self._chunk_with(batch))
        wanted = pc.and_(pc.equal(rows["batch"], batch), pc.equal(rows["input"], path))
        for found in batches_in(rows.filter(wanted), [batch]):
            return found.inputs[0]
        raise StorageError(f"the plan of batch {batch} does not name {path}", transient=False)

    def _chunk_with(self, batch: int) -> BatchRange:
        for chunk in self.chunks:
            if batch in chunk:
                return chunk
        raise StorageError(f"batch {batch} is in no chunk of its plan", transient=False)

    def read_chunk(
        self, storage: Storage, chunk: BatchRange, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """One row per image. Raises ``DamagedRecordsError``."""
        return read_chunk(storage, self.first, chunk, columns)

    def read_units(self, storage: Storage, chunk: BatchRange) -> pa.Table:
        """Batch, methods, input and ``again``; the input as ``records.as_units`` names it."""
        columns = ["batch", "methods", "input", "again"]
        rows = self.read_chunk(storage, chunk, [*columns, CONTAINER])
        folders = pc.binary_join_element_wise(rows["input"], pa.scalar(""), "/")
        units = pc.if_else(rows[CONTAINER], folders, rows["input"])
        return rows.select(columns).set_column(2, "input", units)

    def replaces_any(self, storage: Storage) -> bool:
        """Whether any of its inputs has rows already."""
        return any(
            pc.any(self.read_chunk(storage, chunk, ["again"])["again"]).as_py()
            for chunk in self.chunks
        )

    def rows_left(self, storage: Storage, done: Collection[int]) -> Mapping[Method, int]:
        """How many records of each method are still to be made."""
        if not done and self.rows_by_method is not None:
            return self.rows_by_method
        left: Counter[Method] = Counter()
        for chunk in self.chunks:
            if all(number in done for number in chunk.numbers()):
                continue
            rows = self.read_chunk(storage, chunk, ["batch", "methods"])
            left_here = pa.array([n for n in chunk.numbers() if n not in done], pa.int64())
            methods = rows.filter(pc.is_in(rows["batch"], left_here))["methods"]
            for counted_method in pc.value_counts(pc.list_flatten(methods)).to_pylist():
                left[counted_method["values"]] += counted_method["counts"]
        return left

    def metadata_when_closed(self, storage: Storage) -> list[BatchRange]:
        """The files that ``metadata/`` held when this plan was closed."""
        names = storage.read(closed_path(self.first)).decode(errors="replace").split()
        return [chunk for name in names if (chunk := BatchRange.parse(name)) is not None]

    def closed_at(self, storage: Storage) -> datetime | None:
        """When this plan was closed, by the storage's own clock; None if it was not."""
        try:
            return storage.stat(closed_path(self.first)).modified
        except FileNotFoundError:
            return None

    def reported(self, storage: Storage) -> bool:
        """Whether the report was made when this plan, the last one, was complete."""
        try:
            made = storage.stat(REPORT).modified
        except FileNotFoundError:
            return False
        closed = self.closed_at(storage)
        return closed is None or (made is not None and made >= closed)


def read_plan(storage: Storage, first: int) -> Plan:
    """The plan that begins with a batch. Raises ``StorageError`` if it is damaged."""
    path = plan_path(first)
    with state_trouble(path):
        data = storage.read(path)
    found = parse(Plan, data, path, ADVICE)
    batches = sum(chunk.last - chunk.first + 1 for chunk in found.chunks)
    sound = all(chunk.is_sound for chunk in found.chunks) and found.first == first
    if not sound or found.counts.batches != batches:
        raise StorageError(f"{path} is damaged; {ADVICE}", transient=False)
    return found


def end_mark(plan: Plan) -> bytes:
    """The file that completes a plan, once its chunks are written."""
    return serialise(plan)
