"""How to handle calls that fail or kill their worker, on any engine.

Only this module retries such calls. A call that was lost with its node, or before it began, has not
failed: it is sent again where the loss is noticed (``tasks.py``, ``actors.py``).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from batchlight.engine.base import Engine, Lost, WorkerDied
from batchlight.engine.exclusive import AsyncSharedOrExclusive
from batchlight.errors import ClusterError, ErrorCode, StorageError

T = TypeVar("T")
Item = TypeVar("Item")

TRIES_ON_STORAGE_TROUBLE = 3
PAUSE_AFTER_STORAGE_TROUBLE = 2.0
"""Seconds; doubled each time. Storage clients retry by themselves first; this is for outages."""

RESENDS_AT_MOST = 100
PAUSE_BEFORE_RESENDING = 1.0
"""Seconds. A lost node does not count as a failure, but must not cause an endless loop."""

DEATHS_ALONE = 3
"""How often an item, or a call of its own, must kill a worker before it is given up."""

DEATHS_AT_MOST = 64
"""Maximum deaths in one piece of work, enough to find eight deadly items among 64. Beyond that,
the environment is assumed to be the cause, not the items."""

HUNG_AT_MOST = 8
"""Timeouts that may be spent searching for what hangs in one piece of work: enough to find one item
among 64. Each takes ten minutes by default, and bad images must not cost days."""
LEAST_TIMEOUT = 0.25
"""Fraction of a timeout, for a small part of what has hung as a whole."""

_ADVICE = {
    ErrorCode.CRASH: "check the installation on the workers",
    ErrorCode.OUT_OF_MEMORY: "give the workers more memory, or give a smaller --workers",
    ErrorCode.TIMEOUT: "give a larger --timeout",
}

logger = logging.getLogger(__name__)


@dataclass
class Resends:
    """Counts how often one piece of work was lost."""

    number: int = 0

    async def add(self, loss: Lost) -> None:
        """Pause before it is sent again. Raises ``ClusterError`` if it was lost too often."""
        self.number += 1
        if self.number >= RESENDS_AT_MOST:
            raise ClusterError(
                f"the cluster lost {RESENDS_AT_MOST} nodes or workers during one batch; "
                "check the cluster, then run the same command again"
            ) from loss
        logger.warning("%s; its work is redone elsewhere", loss)
        await asyncio.sleep(PAUSE_BEFORE_RESENDING)


@dataclass
class Tries:
    """Counts how often storage trouble has interrupted one piece of work."""

    number: int = 0

    async def add(self, error: StorageError) -> None:
        """Pause before the next try; raise ``error`` if there is none left."""
        self.number += 1
        if not error.transient or self.number >= TRIES_ON_STORAGE_TROUBLE:
            raise error
        pause = PAUSE_AFTER_STORAGE_TROUBLE * 2 ** (self.number - 1)
        logger.warning("%s; trying again in %.0f s", error.message, pause)
        await asyncio.sleep(pause)


async def call_patiently(
    engine: Engine, function: Callable[..., T], *arguments: object, timeouts: float = 1
) -> T:
    """A call that is retried after storage trouble, if that is transient."""
    tries = Tries()
    while True:
        try:
            return await engine.call(function, *arguments, timeouts=timeouts)
        except StorageError as error:
            await tries.add(error)


async def call_until_done(
    engine: Engine, what: str, function: Callable[..., T], *arguments: object, timeouts: float = 1
) -> T:
    """A patient call that is also sent again after a death, since no image can be to blame.

    ``what``: what it does, for messages. Raises ``ClusterError`` after ``DEATHS_ALONE`` deaths.
    """
    for _ in range(DEATHS_ALONE):
        try:
            return await call_patiently(engine, function, *arguments, timeouts=timeouts)
        except WorkerDied as error:
            death = error
    raise ClusterError(
        f"{what} killed {DEATHS_ALONE} workers (last cause: {death.code}); "
        f"{_ADVICE.get(death.code, 'check their memory')}, then run the same command again"
    ) from death


class Trials(Generic[Item]):
    """Runs work on some items together, in parts or one by one, and counts the resulting deaths."""

    def __init__(
        self, engine: Engine, name: str, admission: AsyncSharedOrExclusive | None = None
    ) -> None:
        """``name``: of the work, for messages. ``admission``: if shared with other work."""
        self._engine = engine
        self._admission = admission or AsyncSharedOrExclusive()
        self._name = name
        self.deaths: Counter[Item] = Counter()
        """Number of deaths in which each item was involved."""
        self.total = 0
        """Number of worker deaths."""
        self.hung = 0.0
        """Time spent waiting for calls that did not end, in timeouts."""
        self.survived = 0
        """Number of calls that did not die."""

    @property
    def exhausted(self) -> bool:
        """Whether too much time was lost on hanging calls to continue the search."""
        return self.hung >= HUNG_AT_MOST

    async def call(
        self,
        items: Sequence[Item],
        function: Callable[..., T],
        *arguments: object,
        timeouts: float = 1,
        alone: bool = False,
    ) -> T:
        """Call ``function``, which works on ``items``; ``alone``: with no other call running.

        Raises ``WorkerDied``, or ``ClusterError`` if there are too many deaths to go on.
        """
        try:
            async with self._admission.entered(alone):
                call = call_patiently(self._engine, function, *arguments, timeouts=timeouts)
                result = await call
        except WorkerDied as death:
            self.add_death(items, death, timeouts)
            raise
        self.survived += 1
        return result

    def add_death(self, items: Sequence[Item], death: WorkerDied, timeouts: float = 1) -> None:
        """Count the death of a worker on some items, and the timeouts it used up if it hung.

        Raises ``ClusterError`` if there are too many.
        """
        self.deaths.update(items)
        self.total += 1
        self.hung += timeouts if death.code is ErrorCode.TIMEOUT else 0
        if self.total > DEATHS_AT_MOST:
            raise ClusterError(
                f"{self._name} killed {self.total} workers (last cause: {death.code}), "
                "more than a few bad images would explain; "
                f"{_ADVICE[death.code]}, then run the same command again"
            ) from death

    async def suspects(
        self,
        function: Callable[[Sequence[Item]], object],
        items: Sequence[Item],
        whole: int | None = None,
    ) -> list[Item]:
        """The items worth trying alone, out of items that have killed a worker together.

        Halves that survive are dropped, and halves that die are halved again: k deadly items
        among n cost about k log2(n) deaths. ``whole``: how many the items are part of.
        """
        if len(items) <= 1 or self.exhausted:
            return list(items)
        whole = whole or len(items)
        middle = len(items) // 2
        found: list[Item] = []
        for half in (items[:middle], items[middle:]):
            # A small part of what hangs shows it soon.
            timeouts = min(1.0, max(LEAST_TIMEOUT, 2 * len(half) / whole))
            if len(half) == 1 or self.exhausted or await self.dies(function, half, timeouts):
                found += await self.suspects(function, half, whole)
        return found

    async def death_alone(
        self, function: Callable[[Sequence[Item]], object], item: Item
    ) -> ErrorCode | None:
        """The code of the death that an item causes, alone and every time; None if it survives.

        The last try runs with nothing else, which might have taken up the memory.
        """
        code: ErrorCode | None = None
        for last in (False,) * (DEATHS_ALONE - 1) + (True,):
            alone = last and code is not ErrorCode.TIMEOUT
            code = await self.dies(function, [item], alone=alone)
            if code is None:
                return None
        return code

    async def dies(
        self,
        function: Callable[[Sequence[Item]], object],
        items: Sequence[Item],
        timeouts: float = 1,
        alone: bool = False,
    ) -> ErrorCode | None:
        """The code of the death that items cause together; None if the worker survives."""
        try:
            await self.call(items, function, items, timeouts=timeouts, alone=alone)
        except WorkerDied as death:
            return death.code
        return None


async def window(jobs: AsyncIterator[Coroutine[Any, Any, T]], size: int) -> AsyncGenerator[T, None]:
    """Run jobs with at most ``size`` in flight, yielding results as they arrive.

    The first failure stops the rest and is raised.
    """
    running: set[asyncio.Task[T]] = set()
    try:
        while True:
            while len(running) < size and (job := await anext(jobs, None)) is not None:
                running.add(asyncio.ensure_future(job))
            if not running:
                return
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                running.remove(task)  # not the others: a second failure is dropped below
                yield task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
