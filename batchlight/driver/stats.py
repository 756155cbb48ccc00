"""What one run has done so far, and how long it took."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from batchlight.output.plan import Plan
from batchlight.output.records import Tally


@dataclass
class RunStats:
    """Counters kept by the driver."""

    tally: Tally = field(default_factory=Tally)
    """Rows that this run has made."""
    read_bytes: int = 0
    """Bytes of images read, counting repeated reads."""
    planned: int = 0
    """(input, method) pairs of all plans that this run works on."""
    first_batch: float = math.inf
    """Number of the first batch of the first of these plans."""
    containers_without_images: int = 0
    """Rows of containers as a whole: those that failed, or of which no image is selected."""
    report_s: float = 0.0
    _first_submitted: float | None = None
    _last_committed: float | None = None

    def begin(self) -> None:
        """Note that the first batch of a plan is about to be submitted."""
        if self._first_submitted is None:
            self._first_submitted = time.monotonic()

    def take_on(self, plan: Plan) -> None:
        """Note that another plan has been started."""
        self.planned += plan.rows
        self.first_batch = min(self.first_batch, plan.first)

    def add(self, tally: Tally, read_bytes: int, whole: int = 0) -> None:
        """Note that batches were committed; ``whole``: see ``BatchResult``."""
        self._last_committed = time.monotonic()
        self.tally += tally
        self.read_bytes += read_bytes
        self.containers_without_images += whole

    @property
    def begun(self) -> bool:
        """Whether any batch was submitted."""
        return self._first_submitted is not None

    @property
    def rows(self) -> int:
        """Number of rows that this run has made."""
        return self.tally.rows

    @property
    def since_begin_s(self) -> float:
        """Seconds since the first batch was submitted."""
        return 0.0 if self._first_submitted is None else time.monotonic() - self._first_submitted

    @property
    def elapsed_s(self) -> float:
        """Seconds from the first batch submitted to the last one committed."""
        if self._first_submitted is None or self._last_committed is None:
            return 0.0
        return self._last_committed - self._first_submitted


@dataclass(frozen=True)
class Goal:
    """How many rows a run will have made; with containers, an estimate until they are done."""

    images: int
    containers: int
    """(container, method) pairs."""

    @classmethod
    def of(cls, plan: Plan, done: Tally, left: int) -> Goal:
        """``left``: rows that the plan has still to make, counting a container as one."""
        containers = min(left, plan.counts.todo_containers * len(plan.methods))
        images = done.rows - done.in_containers + left - containers
        return cls(images, done.containers + containers)

    def rows(self, done: Tally, under_way: Tally) -> int:
        """Total rows, if the remaining containers hold as many images as those done, on average.

        ``under_way``: rows of uncommitted batches; each remaining container holds more than those.
        """
        left = self.containers - done.containers
        each = done.in_containers / done.containers if done.containers else 1
        inside = max(round(left * each), under_way.in_containers + left)
        return self.images + done.in_containers + inside
