"""What there is to do, cut into batches, which are grouped into the chunks of a plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from batchlight.config import BATCH_SIZE, BATCHES_OF_A_SMALL_PLAN
from batchlight.output.chunks import BatchKind, PlannedBatch

CHUNK_ROWS = 65_536
"""Images after which a chunk is full; each becomes one file of ``metadata/``."""

CHUNKS_OF_FIRST_PLAN, CHUNKS_OF_PLAN = 16, 256
"""Chunks after which a plan is full, and the listing continues in the next one. The first has about
a million images, so that work begins soon; each later one has several times as many as the one
before it, since at the end of each some workers wait for others."""

OTHERS_PER_BATCH = 256
OTHERS_BYTES = 2**30
"""Bytes after which a batch of files that are not images is full too, so that it ends in time."""

MEMBER_BYTES = 65_536
"""Bytes of a container that count as one image when the size of a chunk is estimated."""


class Stretch(NamedTuple):
    """Adjacent inputs of the same kind, as rows of a plan (``as_rows``)."""

    kind: BatchKind
    rows: pa.Table


def first_of(stretches: Iterator[Stretch]) -> tuple[list[Stretch], int]:
    """The first stretches, and how many images they contain.

    As many images as can affect the batch size, but from no more files than may fill a chunk.
    """
    found: list[Stretch] = []
    files = images = 0
    for stretch in stretches:
        found.append(stretch)
        images += min(stretch.rows.num_rows, CHUNK_ROWS - files) if stretch.kind.of_images else 0
        files += stretch.rows.num_rows
        if files >= CHUNK_ROWS or images >= BATCH_SIZE * BATCHES_OF_A_SMALL_PLAN:
            break
    return found, images


def cut(stretches: Iterable[Stretch], first: int, batch_size: int) -> Iterator[list[PlannedBatch]]:
    """Chunks of batches, which are numbered from ``first``.

    Images that need the same methods share batches, in listing order; a container is a batch by
    itself. No batch spans two chunks, and the inputs of later chunks all come after a chunk's own.
    """
    chunk = _Chunk(first, batch_size)
    for stretch in stretches:
        left = stretch.rows
        while left.num_rows:
            left = chunk.add(stretch.kind, left)
            if chunk.is_full:
                first += len(batches := chunk.end())
                yield batches
                del batches  # only one is in memory at a time
                chunk = _Chunk(first, batch_size)
    if batches := chunk.end():
        yield batches


@dataclass
class _Growing:
    """A batch that is not full yet."""

    slices: list[pa.Table] = field(default_factory=list)
    files: int = 0
    size: int = 0
    """Bytes; 0 for images, which fill a batch by their number alone."""

    def planned(self, number: int, kind: BatchKind) -> PlannedBatch:
        return PlannedBatch(number, kind, pa.concat_tables(self.slices))


class _Chunk:
    """A chunk that is being cut."""

    def __init__(self, first: int, batch_size: int) -> None:
        self._first = first
        self._batch_size = batch_size
        self._full: list[PlannedBatch] = []
        self._growing: dict[BatchKind, _Growing] = {}
        self._rows = 0
        self.is_full = False

    def add(self, kind: BatchKind, rows: pa.Table) -> pa.Table:
        """Add as many rows as fit into the next batch of their kind. Returns the rest."""
        growing = self._growing.setdefault(kind, _Growing())
        taken = rows.slice(0, self._batch_size - growing.files if kind.of_images else 1)
        growing.slices.append(taken)
        growing.files += taken.num_rows
        if not kind.of_images:
            growing.size += taken["size"][0].as_py() or 0
        self._rows += _records_of(growing.size) if kind.of_container else taken.num_rows
        if self._is_enough(kind, growing):
            del self._growing[kind]
            self._full.append(growing.planned(self._first + len(self._full), kind))
            self.is_full = self._rows >= CHUNK_ROWS
        return rows.slice(taken.num_rows)

    def _is_enough(self, kind: BatchKind, growing: _Growing) -> bool:
        if kind.of_container:
            return True
        if kind.of_images:
            return growing.files >= self._batch_size
        return growing.files >= OTHERS_PER_BATCH or growing.size >= OTHERS_BYTES

    def end(self) -> list[PlannedBatch]:
        """All its batches, including those that are not full."""
        number = self._first + len(self._full)
        rest = enumerate(self._growing.items(), number)
        return self._full + [growing.planned(n, kind) for n, (kind, growing) in rest]


def _records_of(container_bytes: int) -> int:
    """About how many records a container may make."""
    return max(1, container_bytes // MEMBER_BYTES)
