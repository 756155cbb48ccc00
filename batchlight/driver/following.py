"""What the driver does with reports about the batches of a plan."""

from __future__ import annotations

from dataclasses import dataclass

from batchlight.config import JobConfig
from batchlight.driver import prometheus
from batchlight.driver.progress import OnProgress, Progress, ProgressDisplay, Unit
from batchlight.driver.stats import Goal, RunStats
from batchlight.engine import Engine
from batchlight.output.lock import Lock, PlanProgress
from batchlight.output.plan import Plan
from batchlight.output.records import Tally
from batchlight.worker.batch_result import BatchResult


class EnoughFailures(Exception):
    """``--fail-fast``: more images have failed than allowed."""


@dataclass(frozen=True)
class Follower:
    """Counts results and reports progress."""

    config: JobConfig
    stats: RunStats
    display: ProgressDisplay
    lock: Lock
    on_progress: OnProgress | None
    engine: Engine
    plan: Plan
    goal: Goal
    """Goal of all plans that the run works on."""
    before: int
    """(input, method) pairs of the plan that were done before this run, minus those that this run
    has done for other plans."""

    @classmethod
    def of(
        cls,
        config: JobConfig,
        stats: RunStats,
        display: ProgressDisplay,
        lock: Lock,
        on_progress: OnProgress | None,
        engine: Engine,
        plan: Plan,
        rows_left: int,
    ) -> Follower:
        """For a plan that is about to be done. ``rows_left``: rows that it still has to make."""
        goal = Goal.of(plan, stats.tally, rows_left)
        before = plan.rows - stats.rows - rows_left
        return cls(config, stats, display, lock, on_progress, engine, plan, goal, before)

    def hear(self, result: BatchResult | None, under_way: Tally) -> None:
        """Take in what was just committed, and the tally of what is done but not yet committed.

        Raises ``EnoughFailures``.
        """
        if result is not None:
            self.stats.add(result.tally, result.read_bytes, result.whole)
            prometheus.show(self.engine, result)
        total = self.goal.rows(self.stats.tally, under_way)
        self._show(self.stats.tally + under_way, total)
        # In the plan, a container counts as one image.
        pairs = max(self.stats.planned, total)
        allowed = self.config.allows_failures(self.stats.tally.failed, pairs)
        if (
            self.config.fail_fast
            and not allowed
            and (self.stats.rows < total or self.plan.has_more)
        ):
            raise EnoughFailures

    @property
    def _unit(self) -> Unit:
        if len(self.config.method) > 1:
            return "pairs"
        return "files" if self.plan.counts.others else "images"

    def _show(self, done: Tally, total: int) -> None:
        elapsed_s = self.stats.since_begin_s
        progress = Progress(
            done.rows, total, done.failed, elapsed_s, done.skipped, self._unit, self.plan.has_more
        )
        self.display.update(progress)
        self.lock.progress = PlanProgress(
            plan=self.plan.first,
            planned=self.before + total,
            done=self.before + done.rows,
            failed=done.failed,
            skipped=done.skipped,
        )
        if self.on_progress is not None:
            self.on_progress(progress)
