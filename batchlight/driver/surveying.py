"""A long listing, surveyed part by part on the workers, several parts at once.

The results are used in the order of their keys, so the outcome is the same as for one listing in
the driver: the same batches, however many parts there are and whoever surveyed them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice
from threading import Lock, Thread
from typing import Any, TypeVar

from batchlight.config import JobConfig
from batchlight.engine import Engine, InProcessEngine, call_until_done
from batchlight.errors import UsageError
from batchlight.output.earlier import EarlierFiles, earlier_rows
from batchlight.output.state import OutputState
from batchlight.planning.collisions import Edges
from batchlight.planning.cutting import Stretch
from batchlight.planning.extrapolation import keys_ahead
from batchlight.planning.listing import InputSet
from batchlight.planning.planner import Planner
from batchlight.planning.survey import Found, PartSurvey
from batchlight.storage import KeyRange, ListsParts, Location, Storage
from batchlight.storage.base import OutOfOrderError

T = TypeVar("T")

KEYS_IN_THE_DRIVER, KEYS_AT_ONCE = 65_536, 8192
"""Keys that the driver surveys before it starts any workers, and keys per part of those."""
KEYS_PER_PART, KEYS_AT_MOST = 65_536, 98_304
"""Keys surveyed by a worker in one call: about, and at most."""
PARTS_AT_ONCE = 16
"""Parts surveyed at the same time; also the most results that wait for their turn, some MB each."""
LOOP = "listing in parts"
"""The name of the thread that waits for the workers."""
TIMEOUTS = 4
"""Timeouts of a batch that a part may take, since some stores are slow to list."""


class ListingWay(Enum):
    """Ways to make a listing, fastest first; each works for more data sets than the one before."""

    IN_PARTS = auto()
    SOON = auto()
    """From the first key to the last, while images are already being done."""
    AS_A_WHOLE = auto()
    """Completed and sorted before anything is done."""

    @property
    def growth(self) -> int:
        """How fast plans may grow and still be drafted while the previous one is done."""
        return 8 if self is ListingWay.IN_PARTS else 2


def ways_to_list(inputs: InputSet, config: JobConfig) -> list[ListingWay]:
    """Those that may work for a data set; if one turns out not to, try the next."""
    storage = inputs.opened(inputs.root)
    is_plain = inputs.data_set.is_folder and inputs.limit is None and not config.copy_others
    in_parts = is_plain and isinstance(storage, ListsParts) and storage.in_order
    return list(ListingWay) if in_parts else [ListingWay.SOON, ListingWay.AS_A_WHOLE]


@dataclass(frozen=True)
class Listing:
    """What there is to do, as it is found; to be closed by whoever needs no more of it.

    ``stretches`` raises as ``Comparison.stretches`` does, and ``OutOfOrderError`` if the data set
    cannot be listed this way.
    """

    stretches: Iterator[Stretch]
    close: Callable[[], object] = lambda: None
    """Ends all work on it, in whichever thread; does nothing if it has ended."""


def listed_and_compared(
    planner: Planner,
    inputs: InputSet,
    output: Location,
    storage: Storage,
    state: OutputState,
    way: ListingWay,
    started: Callable[[], Engine],
) -> Listing:
    """List a data set; ``started`` returns the engine, and is called if there is work for it."""
    if way is ListingWay.IN_PARTS and state.unfinished is None:
        survey = PartSurvey(
            *(planner.config, planner.fingerprints, inputs.data_set, output),
            *(planner.since, planner.after),
        )
        parts = _Parts(survey, EarlierFiles(storage, state), started)
        return Listing(_joined(parts, planner, inputs), parts.close)
    soon = way is not ListingWay.AS_A_WHOLE
    return Listing(planner.stretches(inputs.images(soon), earlier_rows(storage, state)))


def _joined(parts: _Parts, planner: Planner, inputs: InputSet) -> Iterator[Stretch]:
    inputs.passed_over.clear()
    edges = Edges()
    for found in parts.in_order():
        if found is None or not edges.include(found.edges):
            raise OutOfOrderError(str(inputs.given))
        planner.findings.add(found.findings)
        inputs.passed_over.include(found.passed_over)
        inputs.patterns.note_used(found.patterns_used)
        yield from found.stretches()
        if found.error is not None:
            raise UsageError(found.error)
    inputs.patterns.warn_of_unused()


@dataclass
class _Part:
    within: KeyRange
    answer: Future[Found | None] | None = None


class _Parts:
    """The parts of a listing: the first ones surveyed here, the others by workers."""

    def __init__(
        self, survey: PartSurvey, earlier: EarlierFiles, started: Callable[[], Engine]
    ) -> None:
        self._survey = survey
        self._earlier = earlier
        self._started = started
        self._ahead: deque[_Part] = deque()
        """In the order of their keys. Most of them are looked at, or have been."""
        self._loop: _Loop | None = None

    def in_order(self) -> Iterator[Found | None]:
        """What is found in each; those of a small data set need no worker."""
        found, keys, engine = self._looked_at(KeyRange()), 0, None
        while found is not None and found.rest is not None:
            yield found
            keys += found.keys
            if keys >= KEYS_IN_THE_DRIVER and engine is None:
                engine = self._started()
                if not isinstance(engine, InProcessEngine):
                    self._loop = _Loop()
                    yield from self._by_workers(engine, self._loop, found)
                    self.close()
                    return
            found = self._looked_at(found.rest)
        yield found

    def close(self) -> None:
        """Stop looking at further parts; whoever waits for an answer gets ``CancelledError``."""
        if self._loop is not None:
            self._loop.close()

    def _looked_at(self, within: KeyRange) -> Found | None:
        return self._survey.look(within, KEYS_AT_ONCE, self._earlier.within(within))

    def _by_workers(
        self, engine: Engine, loop: _Loop, found: Found | None
    ) -> Iterator[Found | None]:
        self._cut_rest_of(found, engine, loop)
        while self._ahead:
            part = self._ahead.popleft()
            assert part.answer is not None
            found = part.answer.result()
            self._cut_rest_of(found, engine, loop)
            yield found

    def _cut_rest_of(self, found: Found | None, engine: Engine, loop: _Loop) -> None:
        """Put what is left of a part before all others, and submit the first ones."""
        if found is not None and found.rest is not None:
            times = KEYS_PER_PART / max(1, found.keys)
            ahead = keys_ahead(found.first_key, found.last_key, times, PARTS_AT_ONCE)
            self._ahead.extendleft(map(_Part, reversed(found.rest.cut_at(ahead))))
        for part in islice(self._ahead, PARTS_AT_ONCE):
            if part.answer is None:
                part.answer = loop.submit(self._asked_for(part.within, engine))

    async def _asked_for(self, within: KeyRange, engine: Engine) -> Found | None:
        what = f"listing what comes after {within.after!r}"
        look = PartSurvey.look, self._survey, within, KEYS_AT_MOST, self._earlier.within(within)
        return await call_until_done(engine, what, *look, timeouts=TIMEOUTS)


class _Loop:
    """An event loop in a thread of its own, since each plan may be drafted in another thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._run, name=LOOP, daemon=True)
        self._thread.start()
        self._closing = Lock()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """Cancel everything and wait for its end; may be called again, even meanwhile."""
        with self._closing:
            if self._thread.is_alive():
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join()

    def _run(self) -> None:
        with closing(self._loop):
            self._loop.run_forever()
            self._loop.run_until_complete(_cancel_all())


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
