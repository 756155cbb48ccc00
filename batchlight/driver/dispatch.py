"""Sends a plan's batches to the workers of an engine, several per task.

A task costs the driver milliseconds whatever its size, so each does several batches: as many as
take ``AIM_S``, and fewer near the end, so that all workers finish together.

However a task ends, the parts show which of its batches are done. The first that is not may have
killed its worker; that one is run by itself (``batches.py``), and the rest is sent again.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict, deque
from collections.abc import Callable, Collection
from functools import lru_cache

from batchlight.driver.batches import BatchRunner
from batchlight.engine import Lost, Resends, Tries, WorkerDied
from batchlight.errors import StorageError
from batchlight.output.inputs import DataSet
from batchlight.output.layout import BatchRange, part_path
from batchlight.output.plan import Plan
from batchlight.output.recordfiles import read_records
from batchlight.output.records import Tally
from batchlight.storage import Storage
from batchlight.worker.assigned import AssignedWork, Assignment, AssignmentReport
from batchlight.worker.batch_result import BatchResult

AIM_S = 20.0
"""Target duration of a task: long compared with its overhead, short compared with a run."""
TASKS_PER_S, TASKS_PER_S_AT_MOST = 20.0, 100.0
"""Limits on tasks per second over all workers, so that more workers get longer tasks; the second
applies near the end of a run."""
AT_FIRST = 8
"""Maximum batches per task until it is known how long they take."""
SHARES = 2
"""No task gets more than 1/SHARES of a worker's fair share of what is left."""

OnProgress = Callable[[BatchResult | None, Tally], object]
"""Receives what was just committed, and a tally of all batches done but not yet committed."""


class Dispatcher:
    """Runs the batches of one plan. ``run`` can be called once."""

    def __init__(
        self,
        runner: BatchRunner,
        data_set: DataSet,
        storage: Storage,
        plan: Plan,
        done: Collection[int],
        on_progress: OnProgress,
    ) -> None:
        """``done``: the batches that are already committed."""
        self._runner = runner
        self._data_set = data_set
        self._storage = storage
        self._plan = plan
        self._on_progress = on_progress
        left = (Assignment(plan.first, c, c, _among(done, c)) for c in plan.chunks)
        self._left = deque(item for item in left if item.numbers)
        self._number = sum(len(item.numbers) for item in self._left)
        """Number of batches not yet given to a worker."""
        self._slots: set[asyncio.Future[None]] = set()
        """Each keeps one task running."""
        self._ended: asyncio.Future[None]
        self._batches, self._seconds = 0, 0.0
        """Batches that workers have done so far, and the seconds spent on them."""
        self._under_way: dict[Assignment, Tally] = {}
        self._all_under_way = Tally()
        self._resends: defaultdict[int, Resends] = defaultdict(Resends)
        self._tries: defaultdict[int, Tries] = defaultdict(Tries)
        self._unnamed = lru_cache(maxsize=2)(self._find_unnamed)
        self._asking = asyncio.Lock()
        """Or several threads would read the whole list at once, each for itself."""

    async def run(self) -> None:
        """Run and commit all batches. Raises ``BatchlightError``, or as ``on_progress`` does."""
        self._ended = asyncio.get_running_loop().create_future()
        self._fill()
        try:
            if self._slots:
                await self._ended
        finally:
            for slot in self._slots:
                slot.cancel()
            await asyncio.gather(*self._slots, return_exceptions=True)

    def _fill(self) -> None:
        """Start slots until all remaining work has one, or the engine's window is full."""
        wanted = min(self._runner.engine.window - len(self._slots), self._number)
        for _ in range(wanted):
            slot = asyncio.ensure_future(self._slot())
            self._slots.add(slot)
            slot.add_done_callback(self._slot_ended)

    def _slot_ended(self, slot: asyncio.Future[None]) -> None:
        self._slots.discard(slot)
        if slot.cancelled():
            return
        # Always retrieve it: asyncio logs exceptions that nobody has retrieved.
        error = slot.exception()
        if self._ended.done():  # of two failures, one has to be dropped
            return
        if error is not None:
            self._ended.set_exception(error)
        elif not self._slots:
            self._ended.set_result(None)

    async def _slot(self) -> None:
        while self._left:
            await self._do(self._next())

    def _next(self) -> Assignment:
        """The next assignment for a worker."""
        taken, rest = _cut(self._left.popleft(), self._at_once())
        self._number -= len(taken.numbers)
        if rest is not None:
            self._left.appendleft(rest)
        return taken

    def _at_once(self) -> int:
        """How many batches the next task should have."""
        engine = self._runner.engine
        fair = math.ceil(self._number / (SHARES * engine.workers))
        if self._batches:
            per_second = self._batches / max(self._seconds, 1e-6)
            most = per_second * max(AIM_S, engine.workers / TASKS_PER_S)
            least = per_second * engine.workers / TASKS_PER_S_AT_MOST
            wanted = min(most, max(fair, least))
        else:
            wanted = min(AT_FIRST, fair)
        return max(1, min(engine.parts_at_once, int(wanted)))

    def _give_back(self, rest: Assignment | None) -> None:
        if rest is not None:
            self._left.appendleft(rest)
            self._number += len(rest.numbers)
            self._fill()

    async def _do(self, assignment: Assignment) -> None:
        """Do as much of an assignment as possible; give back the rest."""
        runner, last = self._runner, assignment.batches.first - 1

        def hear(report: AssignmentReport) -> None:
            nonlocal last
            last = last if report.last is None else report.last
            self._hear(assignment, report)

        unnamed = await self._unnamed_of(assignment.chunk)
        failed: WorkerDied | Lost | StorageError | None = None
        try:
            async with runner.admission.entered(alone=False):
                with runner.logging():
                    await runner.engine.follow(
                        AssignedWork,
                        *(runner.context, runner.service, self._data_set, unnamed, assignment),
                        on_report=hear,
                    )
        except (WorkerDied, Lost, StorageError) as error:
            failed = error
        finally:
            self._set_under_way(assignment, Tally())
        if failed is not None:
            await self._go_on(_after(assignment, last), failed)

    def _hear(self, assignment: Assignment, report: AssignmentReport) -> None:
        self._batches += report.batches
        self._seconds += report.seconds
        self._set_under_way(assignment, report.under_way)
        self._tell(report.result)

    def _set_under_way(self, assignment: Assignment, tally: Tally) -> None:
        before = self._under_way.pop(assignment, Tally())
        if tally.rows:
            self._under_way[assignment] = tally
        if before != tally:
            self._all_under_way = self._all_under_way - before + tally

    def _tell(self, result: BatchResult | None) -> None:
        if result is not None:
            self._runner.log(result.unexpected)
        self._on_progress(result, self._all_under_way)

    async def _go_on(
        self, unheard: Assignment | None, error: WorkerDied | Lost | StorageError
    ) -> None:
        """After a task failed: find out what it has committed, and reschedule the rest.

        ``unheard``: those of its batches that it has not reported.
        """
        if unheard is None:
            return
        committed = await asyncio.to_thread(self._committed, unheard)
        for result in committed:
            self._tell(result)
        numbers = unheard.numbers[len(committed) :]
        if not numbers:
            return
        first = numbers[0]
        if isinstance(error, WorkerDied):
            self._give_back(_after(unheard, first))
            self._tell(await self._alone(unheard.chunk, first, error))
            return
        if isinstance(error, Lost):
            await self._resends[first].add(error)
        else:
            await self._tries[first].add(error)
        self._give_back(_after(unheard, first - 1))

    def _committed(self, unheard: Assignment) -> list[BatchResult]:
        """Results of the committed batches; these are always the first ones."""
        results: list[BatchResult] = []
        for number in unheard.numbers:
            path = part_path(number)
            if not self._storage.is_file(path):
                break
            results.append(BatchResult.of(read_records(self._storage, path)))
        return results

    async def _alone(self, chunk: BatchRange, number: int, death: WorkerDied) -> BatchResult:
        """Run the batch on which a worker has died, by itself."""
        just_this = BatchRange(number, number)
        [batch] = await asyncio.to_thread(self._plan.batches_of, self._storage, just_this)
        unnamed = await self._unnamed_of(chunk)
        return await self._runner.run(self._data_set.vetted(batch, unnamed), death)

    async def _unnamed_of(self, chunk: BatchRange) -> frozenset[str] | None:
        if not self._data_set.is_list:
            return None
        async with self._asking:
            return await asyncio.to_thread(self._unnamed, chunk)

    def _find_unnamed(self, chunk: BatchRange) -> frozenset[str] | None:
        rows = self._plan.read_chunk(self._storage, chunk, ["input", "source"])
        return self._data_set.unnamed_in(rows)


def _among(done: Collection[int], batches: BatchRange) -> frozenset[int]:
    return frozenset(number for number in batches.numbers() if number in done)


def _cut(assignment: Assignment, batches: int) -> tuple[Assignment, Assignment | None]:
    """The first ``batches`` batches, and the rest."""
    numbers = assignment.numbers
    if batches >= len(numbers):
        return assignment, None
    last = numbers[batches - 1]
    return _part(assignment, assignment.batches.first, last), _after(assignment, last)


def _after(assignment: Assignment, number: int) -> Assignment | None:
    """The batches with higher numbers, if any are left."""
    rest = _part(assignment, max(number + 1, assignment.batches.first), assignment.batches.last)
    return rest if rest.numbers else None


def _part(assignment: Assignment, first: int, last: int) -> Assignment:
    batches = BatchRange(first, last)
    done = _among(assignment.done, batches)
    return Assignment(assignment.plan, assignment.chunk, batches, done)
