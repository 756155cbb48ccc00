"""The time limit of a call, enforced inside the process that runs it."""

from __future__ import annotations

import faulthandler
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any


class Deadline:
    """Ends this process when a call takes too long; each thread may have one call.

    Enforced by a C thread that does not need the interpreter lock, so it works even if a decoder
    never returns. Time counts from the start of the call, not from its submission.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[int, float] = {}
        """Time limit of each thread's call, by thread id."""
        self._ends: dict[int, float] = {}
        """When each thread's call has to end, on the monotonic clock; paused ones are left out."""
        self._file: IO[Any] | None = None

    def write_to(self, file: IO[Any] | None) -> None:
        """Write the traceback of a call that is ended to ``file``; None means stderr."""
        self._file = file

    @contextmanager
    def of(self, seconds: float) -> Iterator[None]:
        """Limit the time of a block."""
        thread = threading.get_ident()
        self._seconds[thread] = seconds
        self._set(thread, seconds)
        try:
            yield
        finally:
            self._set(thread, None)
            del self._seconds[thread]

    @contextmanager
    def restarted_after(self) -> Iterator[None]:
        """Stop the clock while waiting for a process with its own deadline; then restart it."""
        thread = threading.get_ident()
        seconds = self._seconds.get(thread)
        if seconds is None:
            yield
            return
        self._set(thread, None)
        try:
            yield
        finally:
            self._set(thread, seconds)

    def restart(self) -> None:
        """Restart the clock of this thread's call, for the next part of its work."""
        thread = threading.get_ident()
        if (seconds := self._seconds.get(thread)) is not None:
            self._set(thread, seconds)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock while waiting for the receiver of a report; then resume it."""
        thread = threading.get_ident()
        end = self._ends.get(thread)
        if end is None:
            yield
            return
        left = end - time.monotonic()
        self._set(thread, None)
        try:
            yield
        finally:
            self._set(thread, left)

    def _set(self, thread: int, seconds: float | None) -> None:
        """A process has only one timer; set it to the earliest end."""
        with self._lock:
            self._ends.pop(thread, None)
            if seconds is not None:
                self._ends[thread] = time.monotonic() + seconds
            if self._ends:
                left = min(self._ends.values()) - time.monotonic()
                file = self._file or sys.stderr
                faulthandler.dump_traceback_later(max(left, 0.001), exit=True, file=file)
            else:
                faulthandler.cancel_dump_traceback_later()


DEADLINE = Deadline()
"""The deadline of this process."""
