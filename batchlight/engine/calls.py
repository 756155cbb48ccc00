"""What to do about calls that fail or kill their worker, on any engine.

Only here is such a call tried again. One that was lost with its node, or before it began, has not
failed: it is sent again where that is noticed (``tasks.py``, ``actors.py``).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

from batchlight.engine.base import Engine, WorkerDied
from batchlight.errors import ClusterError, ErrorCode, StorageError

T = TypeVar("T")
Item = TypeVar("Item")

TRIES_ON_STORAGE_TROUBLE = 3
PAUSE_AFTER_STORAGE_TROUBLE = 2.0
"""Seconds; doubled each time. The stores retry by themselves first, so this is for outages."""

DEATHS_ALONE = 3
"""How often an item must kill a worker, all alone, before it is given up."""

DEATHS_AT_MOST = 64
"""Budget of deaths of one piece of work, which is enough to find eight killers among 64 items.
Beyond it, what kills is taken to be the environment and not the items."""

_ADVICE = {
    ErrorCode.CRASH: "check the installation on the workers",
    ErrorCode.OUT_OF_MEMORY: "give the workers more memory, or give a smaller --workers",
    ErrorCode.TIMEOUT: "give a larger --timeout",
}

logger = logging.getLogger(__name__)


async def call_patiently(
    engine: Engine, function: Callable[..., T], *arguments: object, timeouts: int = 1
) -> T:
    """A call that is tried again after storage trouble, if that is transient."""
    for attempt in range(TRIES_ON_STORAGE_TROUBLE):
        try:
            return await engine.call(function, *arguments, timeouts=timeouts)
        except StorageError as error:
            if not error.transient or attempt == TRIES_ON_STORAGE_TROUBLE - 1:
                raise
            pause = PAUSE_AFTER_STORAGE_TROUBLE * 2**attempt
            logger.warning("%s; trying again in %.0f s", error.message, pause)
            await asyncio.sleep(pause)
    raise AssertionError("unreachable")


class Trials(Generic[Item]):
    """Runs work on some items as a whole, in parts or one by one, and counts what dies of it."""

    def __init__(self, engine: Engine, name: str) -> None:
        """``name``: of the work, for a person."""
        self._engine = engine
        self._name = name
        self.deaths: Counter[Item] = Counter()
        """How many deaths each item took part in."""
        self.total = 0
        """Deaths of workers."""
        self.survived = 0
        """Calls that did not die."""

    async def call(
        self,
        items: Sequence[Item],
        function: Callable[..., T],
        *arguments: object,
        timeouts: int = 1,
    ) -> T:
        """Call ``function``, which works on ``items``.

        Raises ``WorkerDied``, or ``ClusterError`` when there are too many deaths to go on.
        """
        try:
            result = await call_patiently(self._engine, function, *arguments, timeouts=timeouts)
        except WorkerDied as death:
            self.deaths.update(items)
            self.total += 1
            if self.total > DEATHS_AT_MOST:
                raise ClusterError(
                    f"{self._name} has killed {self.total} workers, the last by {death.code}, "
                    "which is more than some bad images explain; "
                    f"{_ADVICE[death.code]}, then run the same command again"
                ) from death
            raise
        self.survived += 1
        return result

    async def suspects(
        self, function: Callable[[Sequence[Item]], object], items: Sequence[Item]
    ) -> list[Item]:
        """Of items that have killed a worker together, those that are worth trying alone.

        Halves that survive are dropped, and halves that die are halved again: k killers among n
        items cost about k log2(n) deaths.
        """
        if len(items) <= 1:
            return list(items)
        middle = len(items) // 2
        found: list[Item] = []
        for half in (items[:middle], items[middle:]):
            if len(half) == 1 or await self.dies(function, half):
                found += await self.suspects(function, half)
        return found

    async def death_alone(
        self, function: Callable[[Sequence[Item]], object], item: Item
    ) -> ErrorCode | None:
        """What an item dies of, alone and each time; None if it survives."""
        code: ErrorCode | None = None
        for _ in range(DEATHS_ALONE):
            code = await self.dies(function, [item])
            if code is None:
                return None
        return code

    async def dies(
        self, function: Callable[[Sequence[Item]], object], items: Sequence[Item]
    ) -> ErrorCode | None:
        """What a worker dies of that works on some items together; None if it survives."""
        try:
            await self.call(items, function, items)
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
