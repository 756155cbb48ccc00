"""The rate of this process's requests to object stores.

An overloaded store answers SlowDown to some requests. Retrying only those later is not enough: all
others would keep it overloaded. So the whole process lowers its rate at once and then raises it
slowly. All processes that use a store converge to a fair share of what it can serve, without
talking to each other (additive increase, multiplicative decrease; Chiu and Jain, 1989).
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SLOWED_EVERY_S = 1.0
"""SlowDown answers within this time belong to requests sent at the same rate, and count once."""
LEAST_PER_S = 2.0
SLOWED_TO = 0.7
"""Fraction of the rate that is left after a SlowDown."""
RISE_PER_S = 0.1
"""Increase of the rate, as a fraction of the rate after the last SlowDown."""
FREE_AFTER_S = 60.0
"""Time without SlowDown after which the rate is unlimited again."""
MEASURED_S = 5.0
"""Period over which an unlimited rate is measured."""


class Pace:
    """Limits how often requests begin; thread-safe."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._limit = math.inf
        self._slowed_to = math.inf
        """The rate after the last SlowDown."""
        self._slowed_at = -math.inf
        self._next = -math.inf
        """When the next request may begin."""
        self._begun: deque[float] = deque(maxlen=1000)

    def limit(self, per_s: float) -> None:
        """Set the highest rate; ``math.inf`` for no limit but the store's."""
        with self._lock:
            self._limit = per_s

    @property
    def per_s(self) -> float:
        """Requests per second that may begin now; infinite while nothing limits them."""
        since = self._clock() - self._slowed_at
        if since > FREE_AFTER_S:
            return self._limit
        return min(self._limit, self._slowed_to * (1 + RISE_PER_S * since))

    def wait(self) -> None:
        """Wait until the next request may begin, unless this thread is exempt."""
        if _this_thread.exempt:
            return
        with self._lock:
            now, per_s = self._clock(), self.per_s
            begins = now if math.isinf(per_s) else max(now, self._next)
            self._next = begins + 1 / per_s
            self._begun.append(begins)
        if begins > now:
            self._sleep(begins - now)

    def slow_down(self) -> None:
        """Lower the rate, since the store has throttled a request (SlowDown)."""
        with self._lock:
            now, per_s = self._clock(), self.per_s
            if now - self._slowed_at < SLOWED_EVERY_S:
                return
            if math.isinf(per_s):
                recent = sum(begun > now - MEASURED_S for begun in self._begun)
                first = max(self._begun[0], now - MEASURED_S) if self._begun else now
                per_s = recent / max(now - first, SLOWED_EVERY_S)
            self._slowed_to = max(LEAST_PER_S, per_s * SLOWED_TO)
            self._slowed_at = now


class _ThisThread(threading.local):
    exempt = False


_this_thread = _ThisThread()
PACE = Pace()
"""The pace of this process."""


@contextmanager
def exempt() -> Iterator[None]:
    """Let this thread's requests go ahead of all others inside the block."""
    before, _this_thread.exempt = _this_thread.exempt, True
    try:
        yield
    finally:
        _this_thread.exempt = before


@contextmanager
def paced(requests_per_second: float | None, workers: int = 1) -> Iterator[None]:
    """Limit this process to its share of a rate within the block; None: no limit."""
    PACE.limit(math.inf if requests_per_second is None else requests_per_second / workers)
    try:
        yield
    finally:
        PACE.limit(math.inf)
