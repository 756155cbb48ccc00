"""One call as a Ray task, from its submission to its result.

The task is a generator: it first reports that it begins, so that neither waiting in Ray's queue nor
a death before the call counts against the call. No wait is unlimited: Ray has lost tasks without
ending their streams (ray#62535), so an overdue task is looked up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from batchlight.engine.base import REPORT_EVERY_S, Lost, Work, refuse_other_version
from batchlight.engine.deaths import classify
from batchlight.engine.marks import CallState, Mark
from batchlight.engine.timeout import DEADLINE
from batchlight.host.process import keep_freed_memory

if TYPE_CHECKING:
    from ray import ObjectRefGenerator

T = TypeVar("T")

TASK_OPTIONS: dict[str, Any] = {
    "num_cpus": 1,
    "max_retries": 0,
    "num_returns": "streaming",
    # Do not go on before the start was received; otherwise an early death could hide it.
    "_generator_backpressure_num_objects": 1,
}

REPORTS_PER_S = 50.0
"""Upper limit for all workers together: each costs the driver about a millisecond."""

LOOK_EVERY_S = 60.0
"""How often to look up a task that has not begun, or is overdue."""
LOOKS = 2
"""Lookups in a row that must find nothing, since a message may still be on its way."""
LOOK_WITHIN_S = 30.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InterimReport:
    """Reported by long work before its end."""

    value: Any


def on_worker(
    version: str,
    timeout: float,
    report_every_s: float | None,
    around: Callable[[], AbstractContextManager[None]],
    function: Callable[..., T],
    *arguments: Any,
) -> Iterator[Mark | InterimReport | T]:
    """Runs on a worker: yields its mark when the call begins, then the result.

    ``around()`` goes around the call. With ``report_every_s``, the function makes ``Work``, whose
    last report is the result; the others come in between.
    """
    refuse_other_version(version)
    keep_freed_memory()
    mark = Mark.of_this_process()
    result: Any
    with mark.left():
        yield mark
        with around():
            if report_every_s is None:
                with DEADLINE.of(timeout):
                    result = function(*arguments)
            else:
                work = cast("Work[Any]", function(*arguments))
                yield from _followed(work, timeout, report_every_s)
                result = work.report()
    yield result


def _followed(work: Work[Any], timeout: float, every_s: float) -> Iterator[InterimReport]:
    told = time.monotonic()
    for _ in work.steps(partial(DEADLINE.of, timeout)):
        if time.monotonic() - told >= every_s:
            with DEADLINE.paused():  # Ray blocks until the previous report was received
                yield InterimReport(work.report())
            told = time.monotonic()


def report_every_s(workers: int) -> float:
    """Report interval of each of ``workers`` workers, such that the driver can keep up."""
    return max(REPORT_EVERY_S, workers / REPORTS_PER_S)


class TaskCall:
    """The driver's side of a call in flight."""

    def __init__(self, stream: ObjectRefGenerator[Any], timeout: float) -> None:
        """``stream``: what ``on_worker`` yields. ``timeout``: seconds that the call may take."""
        self._stream = stream
        self._timeout = timeout
        self._mark: Mark | None = None
        self._begun = 0.0
        """When the start was received, on the monotonic clock."""

    async def result(self, on_report: Callable[[Any], object] | None = None) -> Any:
        """Wait for the result, and pass all reports to ``on_report``.

        Raises ``WorkerDied``, what the function raised, and ``Lost`` if it has to be sent again.
        """
        import ray

        try:
            begin = self._next(LOOK_EVERY_S, self._is_not_queued)
            self._mark = cast("Mark", await begin)
            self._begun = time.monotonic()
            while True:
                item = await self._next(self._timeout + LOOK_EVERY_S, self._is_gone)
                if not isinstance(item, InterimReport):
                    return item
                assert on_report is not None
                on_report(item.value)
        except ray.exceptions.RayError as error:
            raise classify(error, self._mark is not None, await self._hung()) from error
        except BaseException:
            if ray.is_initialized():  # or this would start another one
                ray.cancel(self._stream, force=True)
            raise

    async def _next(self, patience: float, missing: Callable[[], Awaitable[bool]]) -> Any:
        """The next item of the stream; raises what it failed with.

        Raises ``Lost`` if the task is ``missing`` after ``patience`` seconds.
        """
        item = asyncio.ensure_future(_awaited(self._stream))
        found_nothing = 0
        try:
            while not (await asyncio.wait({item}, timeout=patience))[0]:
                patience = LOOK_EVERY_S
                found_nothing = found_nothing + 1 if await missing() else 0
                if found_nothing == LOOKS:
                    raise Lost("Ray has lost a task")
            return item.result()
        finally:
            item.cancel()
            await asyncio.gather(item, return_exceptions=True)

    async def _is_not_queued(self) -> bool:
        """Whether a task that has not begun is missing, since the cluster could run it now."""
        import ray

        available: dict[str, float] = await asyncio.to_thread(ray.available_resources)
        return bool(available.get("CPU", 0.0) >= TASK_OPTIONS["num_cpus"])

    async def _is_gone(self) -> bool:
        """Whether no process is working on a call that has begun."""
        import ray

        assert self._mark is not None
        state = await self._state()
        if state is None:
            nodes = await asyncio.to_thread(ray.nodes)
            return all(n["NodeID"] != self._mark.node for n in nodes if n["Alive"])
        return state is not CallState.AT_WORK

    async def _hung(self) -> bool:
        """Whether the call's deadline ended its process."""
        elapsed = time.monotonic() - self._begun
        if self._mark is None or elapsed < self._timeout / 2:  # the start may be reported late
            return False
        state = await self._state()
        return elapsed >= self._timeout if state is None else state is CallState.HUNG

    async def _state(self) -> CallState | None:
        """The state of the call according to its mark; None if its node does not answer."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        assert self._mark is not None
        there = NodeAffinitySchedulingStrategy(self._mark.node, soft=False)
        options: dict[str, Any] = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
        remote: Any = ray.remote(**options)(Mark.look)
        look = remote.remote(self._mark)
        try:
            state: CallState = await asyncio.wait_for(_value(look), LOOK_WITHIN_S)
        except (TimeoutError, ray.exceptions.RayError) as error:
            logger.debug("no answer about a call on node %s: %s", self._mark.node, error)
            return None
        return state


async def _awaited(stream: ObjectRefGenerator[Any]) -> Any:
    try:
        return await (await anext(stream))
    except StopAsyncIteration as end:
        raise Lost("Ray has ended a task without a result") from end


async def _value(reference: Any) -> Any:
    return await reference
