"""Every output compared with its record, and the files of records with what was there.

Read-only: nothing here changes what is on disk (``repair`` does).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import filterfalse

import pyarrow as pa

from batchlight.driver.comparing import (
    Container,
    Problem,
    Row,
    check_container,
    check_output,
    containers_of,
    rows_with_output,
)
from batchlight.errors import LockedError
from batchlight.output.layout import BatchRange, is_part, metadata_path, range_of
from batchlight.output.lock import holder_of
from batchlight.output.recordfiles import DamagedRecordsError, read_exactly
from batchlight.output.replaced import OldFile, replaced_by, span_of
from batchlight.output.state import OutputState
from batchlight.output.status import open_output
from batchlight.storage import Storage

CHECKS_AT_ONCE = 8
"""Outputs read concurrently."""
CHECKS_AHEAD = 1024


class Stopped(Exception):
    """The comparison was told to stop."""


@dataclass
class RecordFile:
    """One file of records, and what is wrong with the outputs that it describes."""

    path: str
    table: pa.Table | None = None
    """None if it cannot be read."""
    problems: list[Problem] = field(default_factory=list)

    @property
    def chunk(self) -> BatchRange:
        """The batches that it covers."""
        return range_of(self.path)


@dataclass
class Verification:
    """What was compared, and how it ended."""

    output: str
    outputs: int = 0
    """Enhanced images that were read and compared."""
    bytes: int = 0
    record_files: int = 0
    problems: int = 0
    repaired: int = 0

    @property
    def sound(self) -> bool:
        """Whether everything now matches its record."""
        return self.problems == self.repaired

    def count(self, problem: Problem) -> None:
        """Count a problem, and whether it was repaired."""
        self.problems += 1
        self.repaired += problem.repaired


def verify(
    output: str,
    on_problem: Callable[[Problem], object],
    on_progress: Callable[[Verification], object] | None = None,
) -> Verification:
    """Compare all that an output holds with its records; the same as ``batchlight verify``.

    ``on_progress`` is called with what was compared so far.

    Raises ``LockedError`` while a run works on it, and ``StorageError``.
    """
    storage = open_output(output)
    if (holder := holder_of(storage)) is not None:
        raise LockedError(f"{holder} works on {output}; verify it once that has ended")
    result = Verification(output)
    for file in Checker(storage, result, on_progress).files():
        for problem in file.problems:
            result.count(problem)
            on_problem(problem)
    return result


class Checker:
    """Compares outputs with their records, file by file, and counts them in ``result``.

    Raises ``Stopped`` soon after ``stop`` is called, from any thread.
    """

    def __init__(
        self,
        storage: Storage,
        result: Verification,
        on_progress: Callable[[Verification], object] | None = None,
    ) -> None:
        self._on_progress = on_progress
        self._storage = storage
        self._result = result
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Stop as soon as the outputs now being read are finished."""
        self._stopped.set()

    def files(self) -> Iterator[RecordFile]:
        """Every file of records that exists or should exist, with all that is wrong with it.

        Newest first: what is in a newer file is not missing from an older one.
        """
        state = OutputState.load(self._storage)
        plan = state.unfinished
        lost = self._lost_files(state) if plan is None else []
        paths = sorted({*lost, *state.record_files}, key=range_of, reverse=True)

        def is_old(path: str) -> bool:
            """Whether the unfinished plan may be replacing rows of this file."""
            return plan is not None and not is_part(path) and range_of(path).first < plan.first

        with ThreadPoolExecutor(CHECKS_AT_ONCE) as pool:
            for path in filterfalse(is_old, paths):
                yield self._checked(pool, OldFile(path, None))
            if plan is None:
                return
            spans = []
            for path in filter(is_old, paths):
                try:
                    spans.append(span_of(self._storage, path))
                except DamagedRecordsError:
                    yield self._checked(pool, OldFile(path, None))
            for step in replaced_by(self._storage, plan, spans):
                if isinstance(step, OldFile):
                    yield self._checked(pool, step)

    def _checked(self, pool: ThreadPoolExecutor, of: OldFile) -> RecordFile:
        """One file, except rows that an unfinished plan is replacing."""
        self._result.record_files += 1
        file = RecordFile(of.path)
        try:
            file.table = read_exactly(self._storage, of.path)
        except DamagedRecordsError as error:
            file.problems.append(Problem(of.path, "damaged", error.reason))
            return file
        kept = of.kept_rows(file.table)
        self._check_containers(pool, file, kept)
        rows = rows_with_output(kept)
        for start in range(0, len(rows), CHECKS_AHEAD):
            some = rows[start : start + CHECKS_AHEAD]
            for row, problem in zip(some, pool.map(self._check, some), strict=True):
                file.problems += [] if problem is None else [problem]
                self._result.outputs += 1
                self._result.bytes += row["output_bytes"] or 0
                if self._on_progress is not None:
                    self._on_progress(self._result)
        return file

    def _check_containers(self, pool: ThreadPoolExecutor, file: RecordFile, kept: pa.Table) -> None:
        """The containers that the rows of a file describe, each read once."""
        containers = containers_of(kept)

        def check(container: Container) -> Problem | None:
            if self._stopped.is_set():
                raise Stopped
            return check_container(self._storage, container)

        for container, problem in zip(containers, pool.map(check, containers), strict=True):
            file.problems += [] if problem is None else [problem]
            self._result.outputs += len(container.images)
            self._result.bytes += container.bytes
            if self._on_progress is not None:
                self._on_progress(self._result)

    def _check(self, row: Row) -> Problem | None:
        if self._stopped.is_set():
            raise Stopped
        return check_output(self._storage, row)

    def _lost_files(self, state: OutputState) -> list[str]:
        """Files of ``metadata/`` that the last plan left there and that are now missing."""
        if state.plan is None:
            return []
        left = state.plan.metadata_when_closed(self._storage)
        return [metadata_path(chunk) for chunk in left if chunk not in state.metadata]
