"""What there is to do, cut into batches, and those into chunks of a plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from batchlight.config import BATCH_SIZE, BATCHES_OF_A_SMALL_PLAN, Method
from batchlight.output.inputs import Batch, Input
from batchlight.output.plan import PlannedBatch

CHUNK_ROWS = 65_536
"""Images after which a chunk is full: what one file of ``metadata/`` will hold."""

CHUNKS_OF_FIRST_PLAN, CHUNKS_OF_PLAN = 16, 256
"""After which a plan is full, and the listing goes on into the next one. The first has about a
million images, so that they are begun soon; each has twice as many as the one before it, since at
the end of each some workers wait for others."""

OTHERS_PER_BATCH = 256
OTHERS_BYTES = 2**30
"""After which a batch of files that are no images is full too, so that it ends in time."""

MEMBER_BYTES = 65_536
"""Of a container, for each of its images, as far as the size of a chunk goes."""


class Kind(NamedTuple):
    """Of a batch."""

    methods: tuple[Method, ...]
    of_container: bool = False
    of_others: bool = False
    """Whether its files are no images."""

    @property
    def of_images(self) -> bool:
        return not (self.of_container or self.of_others)


class Task(NamedTuple):
    """Files that need the same methods, neighbours in the listing; but for images just one."""

    kind: Kind
    inputs: Sequence[Input]
    again: bool = False
    """Whether they have rows that will be replaced."""


def first_of(tasks: Iterator[Task]) -> tuple[list[Task], int]:
    """The first tasks, and how many images they are of.

    As many images as make a difference to the size of the batches, but among no more files than may
    fill a chunk.
    """
    found: list[Task] = []
    files = images = 0
    for task in tasks:
        found.append(task)
        images += min(len(task.inputs), CHUNK_ROWS - files) if task.kind.of_images else 0
        files += len(task.inputs)
        if files >= CHUNK_ROWS or images >= BATCH_SIZE * BATCHES_OF_A_SMALL_PLAN:
            break
    return found, images


def cut(tasks: Iterable[Task], first: int, batch_size: int) -> Iterator[list[PlannedBatch]]:
    """Chunks of batches that are numbered from ``first``.

    Images that need the same methods share batches, in listing order; a container is one by
    itself. A chunk ends with a batch, and the inputs of later chunks all come after its own.
    """
    chunk = _Chunk(first, batch_size)
    for task in tasks:
        left = task.inputs
        while left:
            left = chunk.add(task, left)
            if chunk.is_full:
                first += len(batches := chunk.end())
                yield batches
                del batches  # there is one in memory at a time
                chunk = _Chunk(first, batch_size)
    if batches := chunk.end():
        yield batches


@dataclass
class _Growing:
    """A batch that is not full."""

    inputs: list[Input] = field(default_factory=list)
    again: list[bool] = field(default_factory=list)

    def planned(self, number: int, kind: Kind) -> PlannedBatch:
        return PlannedBatch(Batch(number, kind.methods, tuple(self.inputs)), tuple(self.again))


class _Chunk:
    """One that is being cut."""

    def __init__(self, first: int, batch_size: int) -> None:
        self._first = first
        self._batch_size = batch_size
        self._full: list[PlannedBatch] = []
        self._growing: dict[Kind, _Growing] = {}
        self._rows = 0
        self.is_full = False

    def add(self, task: Task, inputs: Sequence[Input]) -> Sequence[Input]:
        """Add what there is room for in the next batch of their kind; the rest."""
        growing = self._growing.setdefault(task.kind, _Growing())
        room = self._batch_size - len(growing.inputs) if task.kind.of_images else 1
        taken = inputs[:room]
        growing.inputs += taken
        growing.again += [task.again] * len(taken)
        self._rows += sum(map(_rows_of, taken)) if task.kind.of_container else len(taken)
        if self._is_enough(task.kind, growing.inputs):
            del self._growing[task.kind]
            self._full.append(growing.planned(self._first + len(self._full), task.kind))
            self.is_full = self._rows >= CHUNK_ROWS
        return inputs[room:]

    def _is_enough(self, kind: Kind, inputs: Sequence[Input]) -> bool:
        if kind.of_container:
            return True
        if kind.of_images:
            return len(inputs) >= self._batch_size
        size = sum(item.size or 0 for item in inputs)
        return len(inputs) >= OTHERS_PER_BATCH or size >= OTHERS_BYTES

    def end(self) -> list[PlannedBatch]:
        """All its batches, also those that are not full."""
        number = self._first + len(self._full)
        rest = enumerate(self._growing.items(), number)
        return self._full + [growing.planned(n, kind) for n, (kind, growing) in rest]


def _rows_of(container: Input) -> int:
    """How many records it may make, about."""
    return max(1, (container.size or 0) // MEMBER_BYTES)
