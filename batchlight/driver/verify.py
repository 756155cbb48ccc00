"""Every output compared with its record, and the files of records with those that should exist.

Read-only: nothing here changes what is on disk (``repair`` does).
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import filterfalse
from typing import Any

import pyarrow as pa

from batchlight.config import TIMEOUT_S
from batchlight.engine import Engine, InProcessEngine, call_until_done, make_engine, window
from batchlight.errors import LockedError
from batchlight.host.signals import Interrupt
from batchlight.output.layout import BatchRange, is_part, metadata_path, range_of
from batchlight.output.lock import holder_of
from batchlight.output.recordfiles import DamagedRecordsError, read_exactly
from batchlight.output.replaced import OldFile, replaced_by, span_of
from batchlight.output.state import OutputState
from batchlight.output.status import open_output
from batchlight.storage import Location, Storage
from batchlight.worker.comparing import (
    CHECKS_AT_ONCE,
    FileCompared,
    Problem,
    compare,
    compare_file,
)

TIMEOUTS = 100
"""Timeouts of a batch that comparing up to 65,536 outputs may take, if large or slow to read."""


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
    output: str | os.PathLike[str],
    *,
    on_problem: Callable[[Problem], object] = lambda problem: None,
    on_progress: Callable[[Verification], object] | None = None,
    say: Callable[[str], None] = lambda text: None,
    workers: int | None = None,
    address: str | None = None,
) -> Verification:
    """Compare everything in an output with its records; the same as ``batchlight verify``.

    ``on_problem`` is called with each problem, ``on_progress`` with what was compared so far, and
    ``say`` with messages for the user, e.g. about an interrupt.
    ``workers`` and ``address``: as in a run; if either is given, workers compare the outputs of one
    file of records each; otherwise this process does.

    Raises ``LockedError`` while a run is working on it, and ``StorageError``.
    """
    storage = open_output(output)
    if (holder := holder_of(storage)) is not None:
        raise LockedError(f"{holder} is working on {output}; verify it once that has ended")
    result = Verification(os.fspath(output))
    checker = Checker(storage, result, on_progress)

    def tell(problems: Iterable[Problem]) -> None:
        for problem in problems:
            result.count(problem)
            on_problem(problem)

    if workers is None and address is None:
        for file in checker.files():
            tell(file.problems)
        return result
    interrupt = Interrupt(say)
    with interrupt.caught():
        engine = interrupt.entered(make_engine(workers, address, TIMEOUT_S))
        interrupt.run(checker.compare_on(engine, Location.parse(output), tell))
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
        """Every file of records that exists or should exist, with everything that is wrong with it.

        Newest first: what is in a newer file is not missing from an older one.
        """
        state = OutputState.load(self._storage)
        plan = state.unfinished
        paths = self._paths(state)

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

    async def compare_on(
        self, engine: Engine, output: Location, tell: Callable[[Iterable[Problem]], object]
    ) -> None:
        """Compare on workers, one file of records each; ``tell`` gets the problems, in any order.

        If a plan is unfinished, compare here: then not only files decide which rows count.
        """
        state = OutputState.load(self._storage)
        if state.unfinished is not None or isinstance(engine, InProcessEngine):
            files = self.files()
            try:
                while (file := await asyncio.to_thread(next, files, None)) is not None:
                    tell(file.problems)
            finally:
                self.stop()
            return

        async def jobs() -> AsyncIterator[Coroutine[Any, Any, FileCompared]]:
            for path in self._paths(state):
                what = f"comparing what {path} describes"
                yield call_until_done(engine, what, compare_file, output, path, timeouts=TIMEOUTS)

        async for found in window(jobs(), engine.window):
            self._result.record_files += 1
            self._count(found.outputs, found.bytes)
            tell(found.problems)

    def _paths(self, state: OutputState) -> list[str]:
        """All files of records that should exist, newest first."""
        lost = self._lost_files(state) if state.unfinished is None else []
        return sorted({*lost, *state.record_files}, key=range_of, reverse=True)

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
        for compared in compare(pool, self._storage, kept, self._require_wanted):
            file.problems += [compared.problem] if compared.problem else []
            self._count(compared.outputs, compared.bytes)
        return file

    def _require_wanted(self) -> None:
        if self._stopped.is_set():
            raise Stopped

    def _count(self, outputs: int, size: int) -> None:
        self._result.outputs += outputs
        self._result.bytes += size
        if self._on_progress is not None:
            self._on_progress(self._result)

    def _lost_files(self, state: OutputState) -> list[str]:
        """Files of ``metadata/`` that the last plan left there and that are now missing."""
        if state.plan is None:
            return []
        left = state.plan.metadata_when_closed(self._storage)
        return [metadata_path(chunk) for chunk in left if chunk not in state.metadata]
