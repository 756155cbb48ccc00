"""What to do about calls that fail or kill their worker, on any engine.

Only here is such a call tried again. One that was lost with its node, or before it began, has not
failed: it is sent again where that is noticed (``tasks.py``, ``actors.py``).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from batchlight.engine.base import Engine, Lost, WorkerDied
from batchlight.errors import ClusterError, ErrorCode, StorageError

T = TypeVar("T")
Item = TypeVar("Item")

TRIES_ON_STORAGE_TROUBLE = 3
PAUSE_AFTER_STORAGE_TROUBLE = 2.0
"""Seconds; doubled each time. The stores retry by themselves first, so this is for outages."""

RESENDS_AT_MOST = 100
PAUSE_BEFORE_RESENDING = 1.0
"""Seconds. A lost node is nobody's fault and does not count, but must not loop for ever."""

DEATHS_ALONE = 3
"""How often an item must kill a worker, all alone, before it is given up."""

DEATHS_AT_MOST = 64
"""Budget of deaths of one piece of work, which is enough to find eight killers among 64 items.
Beyond it, what kills is taken to be the environment and not the items."""

HUNG_AT_MOST = 8
"""Timeouts that may pass in the search for what hangs in one piece of work: enough to find one item
among 64. Each takes ten minutes by default, and whoever hands in images must not take days."""
LEAST_TIMEOUT = 0.25
"""Of a timeout, for a small part of what has hung as a whole."""

_ADVICE = {
    ErrorCode.CRASH: "check the installation on the workers",
    ErrorCode.OUT_OF_MEMORY: "give the workers more memory, or give a smaller --workers",
    ErrorCode.TIMEOUT: "give a larger --timeout",
}

logger = logging.getLogger(__name__)


@dataclass
class Resends:
    """How often one piece of work was lost."""

    number: int = 0

    async def add(self, loss: Lost) -> None:
        """Pause before it is sent again. Raises ``ClusterError`` if that was too often."""
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
    """How often storage trouble has kept one piece of work from its end."""

    number: int = 0

    async def add(self, error: StorageError) -> None:
        """Pause before the next try; raise ``error`` if there is to be none."""
        self.number += 1
        if not error.transient or self.number >= TRIES_ON_STORAGE_TROUBLE:
            raise error
        pause = PAUSE_AFTER_STORAGE_TROUBLE * 2 ** (self.number - 1)
        logger.warning("%s; trying again in %.0f s", error.message, pause)
        await asyncio.sleep(pause)


async def call_patiently(
    engine: Engine, function: Callable[..., T], *arguments: object, timeouts: float = 1
) -> T:
    """A call that is tried again after storage trouble, if that is transient."""
    tries = Tries()
    while True:
        try:
            return await engine.call(function, *arguments, timeouts=timeouts)
        except StorageError as error:
            await tries.add(error)


class Floor:
    """Where calls run: many side by side, or one with all the room, such as memory, for itself."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._inside = 0
        self._alone = 0
        """Calls that are, or wait to be, alone."""

    @asynccontextmanager
    async def entered(self, alone: bool) -> AsyncIterator[None]:
        """Wait to be let in."""
        async with self._changed:
            self._alone += alone
            try:
                await self._changed.wait_for(lambda: not self._inside if alone else not self._alone)
                self._inside += 1
            except BaseException:
                self._alone -= alone
                self._changed.notify_all()
                raise
        try:
            yield
        finally:
            async with self._changed:
                self._inside -= 1
                self._alone -= alone
                self._changed.notify_all()


class Trials(Generic[Item]):
    """Runs work on some items as a whole, in parts or one by one, and counts what dies of it."""

    def __init__(self, engine: Engine, name: str, floor: Floor | None = None) -> None:
        """``name``: of the work, for a person; ``floor``: that it shares with other work."""
        self._engine = engine
        self._floor = floor or Floor()
        self._name = name
        self.deaths: Counter[Item] = Counter()
        """How many deaths each item took part in."""
        self.total = 0
        """Deaths of workers."""
        self.hung = 0.0
        """What waiting for calls that did not end has taken, in timeouts."""
        self.survived = 0
        """Calls that did not die."""

    @property
    def exhausted(self) -> bool:
        """Whether too much time has gone into what hangs to go on searching."""
        return self.hung >= HUNG_AT_MOST

    async def call(
        self,
        items: Sequence[Item],
        function: Callable[..., T],
        *arguments: object,
        timeouts: float = 1,
        alone: bool = False,
    ) -> T:
        """Call ``function``, which works on ``items``; ``alone``: with no other call beside it.

        Raises ``WorkerDied``, or ``ClusterError`` when there are too many deaths to go on.
        """
        try:
            async with self._floor.entered(alone):
                call = call_patiently(self._engine, function, *arguments, timeouts=timeouts)
                result = await call
        except WorkerDied as death:
            self.add_death(items, death, timeouts)
            raise
        self.survived += 1
        return result

    def add_death(self, items: Sequence[Item], death: WorkerDied, timeouts: float = 1) -> None:
        """Count a worker that has died of some items, after so many timeouts if it hung.

        Raises ``ClusterError`` when there are too many.
        """
        self.deaths.update(items)
        self.total += 1
        self.hung += timeouts if death.code is ErrorCode.TIMEOUT else 0
        if self.total > DEATHS_AT_MOST:
            raise ClusterError(
                f"{self._name} has killed {self.total} workers, the last by {death.code}, "
                "more than a few bad images would explain; "
                f"{_ADVICE[death.code]}, then run the same command again"
            ) from death

    async def suspects(
        self,
        function: Callable[[Sequence[Item]], object],
        items: Sequence[Item],
        whole: int | None = None,
    ) -> list[Item]:
        """Of items that have killed a worker together, those that are worth trying alone.

        Halves that survive are dropped, and halves that die are halved again: k killers among n
        items cost about k log2(n) deaths. ``whole``: of how many the items are a part.
        """
        if len(items) <= 1 or self.exhausted:
            return list(items)
        whole = whole or len(items)
        middle = len(items) // 2
        found: list[Item] = []
        for half in (items[:middle], items[middle:]):
            # Of what hangs, small parts are soon found out.
            timeouts = min(1.0, max(LEAST_TIMEOUT, 2 * len(half) / whole))
            if len(half) == 1 or self.exhausted or await self.dies(function, half, timeouts):
                found += await self.suspects(function, half, whole)
        return found

    async def death_alone(
        self, function: Callable[[Sequence[Item]], object], item: Item
    ) -> ErrorCode | None:
        """What an item dies of, alone and each time; None if it survives.

        The last time, nothing else runs either, which might have taken the memory.
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
        """What a worker dies of that works on some items together; None if it survives."""
        try:
            await self.call(items, function, items, timeouts=timeouts, alone=alone)
        except WorkerDied as death:
            return death.code
        return None


async def window(jobs: AsyncIterator[Coroutine[Any, Any, T]], size: int) -> AsyncGenerator[T, None]:
    """Run jobs with at most ``size`` under way, yielding results as they come.

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
                running.remove(task)  # the others stay, for of two failures one has to be dropped
                yield task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
