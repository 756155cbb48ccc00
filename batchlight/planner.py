"""What there is to do: a listing held against the earlier records, and cut into batches.

Both are streams in the same order, so that comparing them is a merge and memory stays flat.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import attrgetter

from batchlight.batch import Batch
from batchlight.codec import output_name
from batchlight.config import Fingerprint, JobConfig, Method
from batchlight.errors import ErrorCode, UsageError
from batchlight.inputs import Input
from batchlight.records import Tally

CHUNK_ROWS = 65_536
"""Images after which a chunk is full: what one file of ``metadata/`` will hold."""


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

    def __init__(self, config: JobConfig, fingerprints: Mapping[Method, Fingerprint]) -> None:
        self._config = config
        self._fingerprints = {m: f.digest for m, f in fingerprints.items()}
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


def _as_planned(number: int, tasks: list[Task]) -> PlannedBatch:
    batch = Batch(number, tasks[0].methods, tuple(task.input for task in tasks))
    return PlannedBatch(batch, tuple(task.again for task in tasks))
