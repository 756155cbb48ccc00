"""The time that a call may take, kept inside the process that runs it."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager


class Deadline:
    """Ends this process when a call takes too long.

    It is kept by a C thread that needs no interpreter lock, so that a decoder that never returns
    cannot keep it from ringing. It counts from the call's start, not from its submission.
    """

    def __init__(self) -> None:
        self._seconds: float | None = None

    @contextmanager
    def of(self, seconds: float) -> Iterator[None]:
        """For the length of a block."""
        self._seconds = seconds
        faulthandler.dump_traceback_later(seconds, exit=True)
        try:
            yield
        finally:
            self._seconds = None
            faulthandler.cancel_dump_traceback_later()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While the block waits for somebody else, who has a deadline of his own; then anew."""
        if self._seconds is None:
            yield
            return
        faulthandler.cancel_dump_traceback_later()
        try:
            yield
        finally:
            faulthandler.dump_traceback_later(self._seconds, exit=True)


DEADLINE = Deadline()
"""The one of this process; a worker runs one call at a time."""
