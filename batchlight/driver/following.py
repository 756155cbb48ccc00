"""What the driver does with all that it hears of the batches of a plan."""

from __future__ import annotations

from dataclasses import dataclass

from batchlight.config import JobConfig
from batchlight.driver import prometheus
from batchlight.driver.progress import OnProgress, Progress, ProgressDisplay
from batchlight.driver.stats import RunStats
from batchlight.engine import Engine
from batchlight.output.lock import Lock, PlanProgress
from batchlight.output.plan import Plan
from batchlight.output.records import Tally
from batchlight.worker.batch_result import BatchResult


class EnoughFailures(Exception):
    """``--fail-fast``: more images have failed than may."""


@dataclass(frozen=True)
class Follower:
    """Counts, and tells whoever wants to know how far a run is."""

    config: JobConfig
    stats: RunStats
    display: ProgressDisplay
    lock: Lock
    on_progress: OnProgress | None
    engine: Engine
    plan: Plan
    total: int
    """(input, method) pairs, of all plans that the run works on."""

    def hear(self, result: BatchResult | None, under_way: Tally) -> None:
        """Of what is newly committed, and of all that is done but not committed.

        Raises ``EnoughFailures``.
        """
        if result is not None:
            self.stats.add(result.tally, result.read_bytes)
            prometheus.show(self.engine, result)
        self._show(self.stats.tally + under_way)
        allowed = self.config.allows_failures(self.stats.tally.failed, self.stats.planned)
        if self.config.fail_fast and not allowed and self.stats.rows < self.total:
            raise EnoughFailures

    def _show(self, done: Tally) -> None:
        elapsed_s = self.stats.since_begin_s
        progress = Progress(done.rows, self.total, done.failed, elapsed_s, done.skipped)
        self.display.update(progress)
        self.lock.progress = PlanProgress(
            plan=self.plan.first,
            done=self.plan.rows - self.total + done.rows,
            failed=done.failed,
            skipped=done.skipped,
        )
        if self.on_progress is not None:
            self.on_progress(progress)
