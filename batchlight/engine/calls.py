"""What to do about calls that fail or kill their worker, on any engine.

Only here is such a call tried again. One that was lost with its node, or before it began, has not
failed: it is sent again where that is noticed (``tasks.py``, ``actors.py``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from batchlight.engine.base import Engine, Outcome, WorkerDied
from batchlight.errors import StorageError

T = TypeVar("T")
Item = TypeVar("Item")

TRIES_ON_STORAGE_TROUBLE = 3
PAUSE_AFTER_STORAGE_TROUBLE = 2.0
"""Seconds; doubled each time. The stores retry by themselves first, so this is for outages."""

DEATHS_ALONE = 3
"""How often an item must kill a worker, all alone, before it is given up."""

logger = logging.getLogger(__name__)


async def call_patiently(engine: Engine, function: Callable[..., T], *arguments: object) -> T:
    """A call that is tried again after storage trouble, unless that is of the lasting kind."""
    for attempt in range(TRIES_ON_STORAGE_TROUBLE):
        try:
            return await engine.call(function, *arguments)
        except StorageError as error:
            if error.lasting or attempt == TRIES_ON_STORAGE_TROUBLE - 1:
                raise
            pause = PAUSE_AFTER_STORAGE_TROUBLE * 2**attempt
            logger.warning("%s; trying again in %.0f s", error.message, pause)
            await asyncio.sleep(pause)
    raise AssertionError("unreachable")


async def bisect(
    engine: Engine,
    function: Callable[[Sequence[Item]], list[T]],
    items: Sequence[Item],
    deaths: int,
) -> list[Outcome[T]]:
    """Run ``function`` over items of which some kill their worker, and find out which.

    Whatever dies is cut in two and each half tried by itself, so k killers among n items cost
    about 2 k log2(n) calls; an item that dies alone ``DEATHS_ALONE`` times is given up. ``deaths``:
    how often these items have died together before. Outcomes are in the order of the items.
    """
    if not items:
        return []
    for _ in range(DEATHS_ALONE if len(items) == 1 else 1):
        try:
            results = await call_patiently(engine, function, items)
            return [Outcome(result, None, deaths + 1) for result in results]
        except WorkerDied as death:
            deaths += 1
            cause = death.code
    if len(items) == 1:
        return [Outcome(None, cause, deaths)]
    middle = len(items) // 2
    left = await bisect(engine, function, items[:middle], deaths)
    return left + await bisect(engine, function, items[middle:], deaths)


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
