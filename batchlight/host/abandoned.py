"""Calls in threads of this process, which can be abandoned but not ended.

A decoder that never returns cannot be interrupted, nor can a store that does not answer. So the
waiting thread goes on without them. An abandoned call must not write: it checks ``this_call``.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from batchlight.errors import BatchlightError

T = TypeVar("T")

_local = threading.local()
_abandoned: list[Callable[[], bool]] = []
"""For each abandoned call that may not have ended, a function that tells whether it has."""
_lock = threading.Lock()
"""Of that list."""


class AbandonedError(BatchlightError):
    """The call was abandoned: nobody is waiting for it any longer."""


class TooLongError(Exception):
    """A call did not end in time."""


class Call(Generic[T]):
    """One call in a thread, and its result."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._ended = threading.Event()
        self._result: T
        self._error: BaseException | None = None
        self._abandoned = False
        threading.Thread(target=self._run, daemon=True).start()

    def result(
        self,
        seconds: float | None = None,
        meanwhile: Callable[[], object] | None = None,
        every_s: float = 1.0,
    ) -> T:
        """Wait for it. Raises what it raised; ``TooLongError``; and what a signal handler raises.

        ``meanwhile`` is called every ``every_s`` seconds, in this thread, and may raise too.
        """
        end = math.inf if seconds is None else time.monotonic() + seconds
        while not self._ended.wait(self._patience(end, meanwhile and every_s)):
            if time.monotonic() >= end:
                raise TooLongError
            if meanwhile is not None:
                meanwhile()
        if self._error is not None:
            raise self._error
        return self._result

    def abandon(self) -> None:
        """Stop waiting: from now on, the call must not write anything."""
        self._abandoned = True
        _note([self._ended.is_set])

    def _patience(self, end: float, every_s: float | None) -> float | None:
        """Seconds until the waiting thread has something to do; None if it never has."""
        left = max(0.0, end - time.monotonic())
        if every_s is not None:
            return min(left, every_s)
        return None if math.isinf(left) else left

    def require_wanted(self) -> None:
        if self._abandoned:
            raise AbandonedError("this call was abandoned")

    def _run(self) -> None:
        _local.call = self
        try:
            self._result = self._function()
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()


@contextmanager
def begun(function: Callable[[], T]) -> Iterator[Call[T]]:
    """Call a function in its own thread; abandoned if the block ends with an exception."""
    call = Call(function)
    try:
        yield call
    except BaseException:
        call.abandon()
        raise


def call_in_thread(
    function: Callable[[], T],
    seconds: float | None = None,
    meanwhile: Callable[[], object] | None = None,
    every_s: float = 1.0,
) -> T:
    """Call a function in its own thread; a signal or the time limit ends the wait for it.

    Raises as ``Call.result`` does.
    """
    with begun(function) as call:
        return call.result(seconds, meanwhile, every_s)


class Pool(ThreadPoolExecutor):
    """Threads that are abandoned if a signal or a failure ends the block that uses them."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._futures: WeakSet[Future[Any]] = WeakSet()
        """Those that have not ended, and perhaps others."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.shutdown()
            return
        self.shutdown(wait=False, cancel_futures=True)
        _note(future.done for future in self._futures)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        self._futures.add(future)
        return future


def _note(calls: Iterable[Callable[[], bool]]) -> None:
    with _lock:
        _abandoned[:] = [has_ended for has_ended in (*_abandoned, *calls) if not has_ended()]


def this_call() -> Callable[[], None]:
    """A check that raises ``AbandonedError`` once the call in this thread has been abandoned."""
    call: Call[Any] | None = getattr(_local, "call", None)
    return _never if call is None else call.require_wanted


def any_abandoned() -> bool:
    """Whether a thread may be stuck, so that this process cannot exit in the usual way."""
    return not all(has_ended() for has_ended in _abandoned)


def _never() -> None:
    """The check of calls that cannot be abandoned."""
