"""A long listing, surveyed part by part on the workers, several parts at once.

The results are used in the order of their keys, so the outcome is the same as for one listing in
the driver: the same batches, however many parts there are and whoever surveyed them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum, auto
from threading import Thread

from batchlight.config import JobConfig
from batchlight.engine import Engine, InProcessEngine, call_until_done
from batchlight.errors import UsageError
from batchlight.output.earlier import earlier_rows
from batchlight.output.numbers import NumberSet
from batchlight.output.state import OutputState
from batchlight.planning.collisions import Edges
from batchlight.planning.cutting import Run
from batchlight.planning.extrapolation import keys_ahead
from batchlight.planning.listing import InputSet
from batchlight.planning.planner import Planner
from batchlight.planning.survey import Found, Survey
from batchlight.storage import KeyRange, ListsParts, Location, Storage
from batchlight.storage.base import ListedLateError

KEYS_IN_THE_DRIVER, KEYS_AT_ONCE = 65_536, 8192
"""Keys surveyed before any worker is asked, which may have to be started first; and per part."""
KEYS_PER_PART, KEYS_AT_MOST = 65_536, 98_304
"""Keys surveyed by a worker in one call: about, and at most."""
PARTS_AT_ONCE = 16
"""Parts surveyed at the same time; also the most results that wait for their turn, some MB each."""
TIMEOUTS = 4
"""Timeouts of a batch that a part may take, since some stores are slow to list."""


class Listed(Enum):
    """Ways to make a listing, fastest first; each works for more data sets than the one before."""

    IN_PARTS = auto()
    SOON = auto()
    """From the first key to the last, while images are already being done."""
    AS_A_WHOLE = auto()
    """Completed and sorted before anything is done."""

    @property
    def growth(self) -> int:
        """How fast plans may grow and still be drafted while the previous one is done."""
        return 8 if self is Listed.IN_PARTS else 2


def ways_to_list(inputs: InputSet, config: JobConfig) -> list[Listed]:
    """Those that may work for a data set; if one turns out not to, try the next."""
    storage = inputs.opened(inputs.root)
    is_plain = inputs.data_set.is_folder and inputs.limit is None and not config.copy_others
    in_parts = is_plain and isinstance(storage, ListsParts) and storage.in_order
    return list(Listed) if in_parts else [Listed.SOON, Listed.AS_A_WHOLE]


def listed_and_compared(
    planner: Planner,
    inputs: InputSet,
    output: Location,
    storage: Storage,
    state: OutputState,
    way: Listed,
    started: Callable[[], Engine],
) -> Iterator[Run]:
    """What there is to do; ``started`` returns the engine, if there is work for it.

    Raises what ``Comparison.runs`` raises, and ``ListedLateError`` if this way does not work.
    """
    if way is Listed.IN_PARTS and state.unfinished is None:
        survey = Survey(
            *(planner.config, planner.fingerprints, inputs.data_set, output),
            *(replace(state, plan=None, parts=NumberSet()), planner.since, planner.after),
        )
        return _in_parts(planner, survey, inputs, started)
    soon = way is not Listed.AS_A_WHOLE
    return planner.runs(inputs.images(soon), earlier_rows(storage, state))


def _in_parts(
    planner: Planner, survey: Survey, inputs: InputSet, started: Callable[[], Engine]
) -> Iterator[Run]:
    inputs.passed_over.clear()
    edges = Edges()
    for found in _parts(survey, started):
        if found is None or not edges.include(found.edges):
            raise ListedLateError(str(survey.data_set.given))
        planner.findings.add(found.findings)
        inputs.passed_over.include(found.passed_over)
        inputs.patterns.note_used(found.patterns_used)
        yield from found.runs()
        if found.error is not None:
            raise UsageError(found.error)
    inputs.patterns.warn_of_unused()


def _parts(survey: Survey, started: Callable[[], Engine]) -> Iterator[Found | None]:
    """All parts, in order; those of a small data set need no worker."""
    found, keys = survey.look(KeyRange(), KEYS_AT_ONCE), 0
    engine: Engine | None = None
    while found is not None and found.rest is not None:
        yield found
        keys += found.keys
        if keys >= KEYS_IN_THE_DRIVER and engine is None:
            engine = started()
            if not isinstance(engine, InProcessEngine):
                with _running_loop() as loop:
                    yield from _Surveyors(survey, engine, loop).parts_after(found)
                return
        found = survey.look(found.rest, KEYS_AT_ONCE)
    yield found


@dataclass
class _Part:
    within: KeyRange
    answer: Future[Found | None] | None = None


class _Surveyors:
    """Has workers survey parts; results that are ahead of their turn wait."""

    def __init__(self, survey: Survey, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self._survey = survey
        self._engine = engine
        self._loop = loop
        self._parts: deque[_Part] = deque()

    def parts_after(self, found: Found | None) -> Iterator[Found | None]:
        self._cut_rest_of(found)
        while self._parts:
            part = self._parts.popleft()
            assert part.answer is not None
            found = part.answer.result()
            self._cut_rest_of(found)
            yield found

    def _cut_rest_of(self, found: Found | None) -> None:
        """Put the rest of a part before all others, and have the first ones surveyed."""
        if found is not None and found.rest is not None:
            times = KEYS_PER_PART / max(1, found.keys)
            ahead = keys_ahead(found.first_key, found.last_key, times, PARTS_AT_ONCE)
            self._parts.extendleft(map(_Part, reversed(found.rest.cut_at(ahead))))
        for part in list(self._parts)[:PARTS_AT_ONCE]:
            if part.answer is None:
                looked_at = self._looked_at(part.within)
                part.answer = asyncio.run_coroutine_threadsafe(looked_at, self._loop)

    async def _looked_at(self, within: KeyRange) -> Found | None:
        what = f"listing the keys after {within.after!r}"
        look = (Survey.look, self._survey, within, KEYS_AT_MOST)
        return await call_until_done(self._engine, what, *look, timeouts=TIMEOUTS)


@contextmanager
def _running_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in its own thread, since plans are drafted in different threads."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
