"""Signals: how a run is asked to stop."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import FrameType
from typing import Any, TypeVar

from batchlight.errors import Interrupted

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_computing = False
"""Whether this process is inside ``interruptible``; signals concern the whole process."""


class _Stop(BaseException):
    """Breaks out of any code; no ``except Exception`` mistakes it for an image's failure."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Work of this process itself, which a signal interrupts at once with ``Interrupted``.

    Otherwise it would take effect only after a whole batch: nothing is cancelled before the event
    loop gets its turn.
    """
    global _computing
    _computing = True
    try:
        yield
    except _Stop as stop:
        raise Interrupted(*stop.args) from None
    finally:
        _computing = False


class Interrupt:
    """Turns SIGINT, SIGTERM and SIGHUP into ``Interrupted``, at a point where it is safe to stop.

    The first signal stops the run in an orderly way; a second one ends the process at once, except
    for SIGHUP, which both the shell and the kernel send when a connection is lost.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._signum: int | None = None
        self._held = False
        self._exits = ExitStack()
        self._elsewhere = False
        """Whether the loop runs in another thread, which signals do not reach."""
        self._cancel: tuple[asyncio.AbstractEventLoop, asyncio.Task[None]] | None = None

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handle signals inside the block; only the main thread can.

        Afterwards, all that was ``entered`` is left. A signal that arrives then is too late.
        """
        in_main_thread = threading.current_thread() is threading.main_thread()
        before = self._catch() if in_main_thread else {}
        try:
            with self._exits:
                try:
                    yield
                finally:
                    self._held = True
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
            self._held = False

    def entered(self, context: AbstractContextManager[T]) -> T:
        """Enter a context; neither this nor leaving it is interrupted."""
        with self.held():
            return self._exits.enter_context(context)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Defer signals to the end of the outermost block: an exception inside could break it.

        Also restores our handlers if the block has replaced them, as Ray does when it starts.
        """
        already, self._held = self._held, True
        caught = self._on_signal in (signal.getsignal(s) for s in SIGNALS)
        try:
            yield
        finally:
            self._held = already
            if caught and self._signum is None:
                self._catch()
        if self._signum is not None and not already:
            raise Interrupted(self._signum)

    def run(self, work: Coroutine[None, None, None]) -> None:
        """Run asynchronous work to completion, or until a signal."""

        async def cancellable() -> None:
            task = asyncio.ensure_future(work)
            self._cancel = (asyncio.get_running_loop(), task)
            if self._signum is not None:  # while the loop was being made
                task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                if self._signum is None:
                    raise
                raise Interrupted(self._signum) from None
            finally:
                self._cancel = None

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            with self.held():  # a half-made or half-closed loop cannot be left
                asyncio.run(cancellable())
            return
        # A notebook already runs a loop in this thread.
        self._elsewhere = True
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, cancellable()).result()

    def _catch(self) -> dict[signal.Signals, Any]:
        """Start handling the signals; returns the previous handlers.

        Except those that are ignored, as in the background of a shell script or after nohup, and
        those that other code than Python's handles, which could not be restored.
        """
        found = {s: signal.getsignal(s) for s in SIGNALS}
        before = {s: h for s, h in found.items() if h not in (signal.SIG_IGN, None)}
        for signum in before:
            signal.signal(signum, self._on_signal)
        return before

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self._signum = signum
        signal.signal(signum, signal.SIG_IGN if signum == signal.SIGHUP else signal.SIG_DFL)
        if self._cancel is not None:
            self._say("stopping; a second signal stops at once")
            if _computing and not self._elsewhere:
                raise _Stop(signum)
            loop, task = self._cancel
            loop.call_soon_threadsafe(task.cancel)
        elif self._held:
            self._say("stopping in a moment; a second signal stops at once")
        else:
            raise Interrupted(signum)
