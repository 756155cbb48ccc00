"""One run, from the lock to the summary.

    lock -> finish the stored plan, if a killed run left one -> list, compare, store a new plan
         -> do its batches -> parts become metadata/ -> report -> count everything -> summary

The lock comes before the listing and before Ray, so a second run is refused within seconds. Nothing
here touches pixels or rows: batches travel to workers as lists of inputs and come back as counts.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial

from batchlight.absgn.loading import Model, WeightsFor, weights_of
from batchlight.config import JobConfig, Method
from batchlight.driver import sidecars
from batchlight.driver.batches import BatchRunner, context_of
from batchlight.driver.closing import move_all
from batchlight.driver.dispatch import Dispatcher
from batchlight.driver.drafting import draft_plans, each_while_the_next_is_drafted
from batchlight.driver.emptiness import refuse_nothing, warn_of_untouched
from batchlight.driver.following import EnoughFailures, Follower
from batchlight.driver.network import fingerprints_of, model_of, serve
from batchlight.driver.outcome import in_numbers
from batchlight.driver.places import (
    as_begun,
    compile_for_workers,
    engine_of,
    open_places,
    plan_to_finish,
    require_options_of,
    require_pace,
)
from batchlight.driver.progress import OnProgress, ProgressDisplay, make_display
from batchlight.driver.stats import RunStats
from batchlight.driver.surveying import ListingWay, listed_and_compared, ways_to_list
from batchlight.engine import Engine, InProcessEngine, Service, ray_address, require_ray
from batchlight.errors import (
    BatchlightError,
    ExitCode,
    Interrupted,
    LockedError,
    UsageError,
    brief,
    counted,
)
from batchlight.fingerprint import Fingerprint
from batchlight.host.abandoned import TooLongError, call_in_thread
from batchlight.host.signals import Interrupt
from batchlight.output.commit import (
    Move,
    close_plan,
    drop_orphaned_parts,
    end_listing,
    held_rows,
    store_plan,
)
from batchlight.output.fence import FencedStorage
from batchlight.output.lock import Lock, new_run_id, while_held
from batchlight.output.plan import Plan, PlanCounts
from batchlight.output.records import Tally
from batchlight.output.state import OutputState
from batchlight.output.summary import Summary, package_versions
from batchlight.planning.listing import InputSet
from batchlight.planning.planner import Planner
from batchlight.storage import Location, Storage, open_storage
from batchlight.storage.base import OutOfOrderError
from batchlight.storage.pacing import paced
from batchlight.worker.context import BatchContext

COUNT_WITHIN_S, LEAVE_WITHIN_S = 5.0, 10.0
"""How long a run that ends early may count what the output holds, and take for its summary."""

logger = logging.getLogger(__name__)


def run(config: JobConfig, on_progress: OnProgress | None = None) -> Summary:
    """Enhance a data set; the same as ``batchlight run``.

    ``on_progress`` is called about once a second with the progress, counted per image.

    Returns the summary, whose ``exit_code`` is 0, or 3 if more images failed than allowed. Raises
    ``BatchlightError`` (see ``errors``) for everything that keeps the run from finishing; what
    was done until then is kept, and the same call continues from there.
    """
    require_ray(config.workers, config.address)  # before anything is written
    inputs, output = open_places(config)
    weights = weights_of(config)
    storage = open_storage(output, inputs.permissions(output))
    storage.check(writable=True)
    with paced(config.requests_per_second), Lock(storage, str(output), new_run_id()) as lock:
        return _Run(config, weights, inputs, output, storage, lock, on_progress).to_the_end()


class _Run:
    def __init__(
        self,
        config: JobConfig,
        weights: WeightsFor | None,
        inputs: InputSet,
        output: Location,
        storage: Storage,
        lock: Lock,
        on_progress: OnProgress | None,
    ) -> None:
        self._on_progress = on_progress
        self.config = config
        self.weights = weights
        self.inputs = inputs
        self.output = output
        self.storage: Storage = FencedStorage(storage, lock.require)
        self.lock = lock
        self.display: ProgressDisplay = make_display(config.progress)
        self.started_at = datetime.now(UTC)
        self.state: OutputState  # as last read, or as left by this run
        self.counts = PlanCounts()
        self._unlisted = Tally()
        """Rows that this run has made and that do not count."""
        self.stats = RunStats()
        self.stopped_early = False
        self.model: Model | None = None
        self.fingerprints: Mapping[Method, Fingerprint] = {}
        self._engine: Engine | None = None
        self._service: Service | None = None
        self._interrupt = Interrupt(self.display.say)

    def to_the_end(self) -> Summary:
        """Do all there is to do; leave a ``summary.json`` whatever happens."""
        try:
            with self._interrupt.caught():
                self.model = model_of(self.config, self.weights, self._started_engine)
                self._do_all()
                if not self.stopped_early:
                    self._copy_sidecars()
                summary = self._reported(self._summary_of_outcome())
        except LockedError:  # the output is another run's, and so is its summary
            raise
        except BaseException as error:
            if isinstance(error, UsageError) and not self.stats.begun:
                self.lock.refused = True
                raise  # nothing was done: the last summary remains true
            code = getattr(error, "exit_code", ExitCode.FATAL)
            reason = str(error) if isinstance(error, BatchlightError) else repr(error)
            # The first error is the one to report, and soon.
            with suppress(BatchlightError, OSError, TooLongError):
                summary_of = partial(self._summary, code, reason, COUNT_WITHIN_S)
                call_in_thread(lambda: summary_of().write(self.storage), LEAVE_WITHIN_S)
            raise
        finally:
            self.display.close()
        summary.write(self.storage)
        return summary

    def _do_all(self) -> None:
        finished = False
        for way in ways_to_list(self.inputs, self.config):
            with suppress(OutOfOrderError):  # the next way is surer
                finished = self._finish_stored_plan(way) or finished
                if not self.stopped_early:  # a finished plan has already overwritten everything
                    self._plan_and_do(self.config.overwrite and not finished, way)
                return
        raise AssertionError("a listing made as a whole is never refused")

    def _finish_stored_plan(self, way: ListingWay) -> bool:
        """Do what a killed run left undone. Returns whether that run belonged to this job."""
        self.storage.sweep()
        self.state = drop_orphaned_parts(self.storage, OutputState.load(self.storage))
        self.config = as_begun(self.config, self.state)
        self.fingerprints = fingerprints_of(self.config, self.model)
        where = self.inputs, self.output, self.storage, self.state
        plan = plan_to_finish(self.config, self.fingerprints, *where)
        if plan is None:
            return False
        self.counts = plan.counts
        if self.state.unfinished is not None:
            self.display.say(f"continuing the stored plan of {plan.counts.todo} images")
            self._do(plan)
        if plan.has_more and not self.stopped_early:
            self._plan_and_do(plan.overwrite, way, rest_of=plan)
            if not self.stopped_early:
                self.state = end_listing(self.storage, self.state)
        return True

    def _plan_and_do(self, overwrite: bool, way: ListingWay, rest_of: Plan | None = None) -> None:
        """Do what there is to do, each plan while the next one is drafted."""
        self.display.say(f"listing {self.inputs.given}")
        config = self.config.model_copy(update={"overwrite": overwrite})
        met, since = self.inputs.passed_over, self.stats.first_batch
        planner = Planner(config, self.fingerprints, met, since, rest_of)
        where = self.inputs, self.output, self.storage, self.state
        listing = listed_and_compared(planner, *where, way, self._started_engine)
        found = planner, listing.stretches, str(self.inputs.root)
        drafts = draft_plans(self.storage, self.state, *found, way.growth)
        self.counts, plan = PlanCounts(), None
        with closing(listing), closing(each_while_the_next_is_drafted(drafts)) as plans:
            for plan in plans:
                self._found(self.counts + plan.counts, plan.in_words, not plan.has_more)
                self._started_engine()  # no later, since it might refuse these options
                self.state = store_plan(self.storage, self.state, plan)
                self._do(plan)
                if self.stopped_early:
                    return
        if plan is None:
            self._found(planner.counts, planner.counts.in_words, is_all=True)
        self.counts, self._unlisted = planner.counts, planner.findings.unlisted_since

    def _found(self, counts: PlanCounts, in_words: str, is_all: bool) -> None:
        """Report what was found so far, or in total; close the last plan, to store a new one."""
        self.counts = counts
        self.display.say(in_words)
        if is_all and not self.config.allow_empty:
            refuse_nothing(self.inputs, counts)
        if self.state.unfinished is not None:  # not earlier, since the new one might be refused
            self.state = self._close()

    def _do(self, plan: Plan) -> None:
        """Do the batches of the last plan that are not done yet, and close it."""
        done = self.state.done
        self.stats.take_on(plan)
        if len(done) < plan.counts.batches:
            require_options_of(plan, self.config, self.output)
            engine = self._started_engine()
            try:
                self._interrupt.run(while_held(self.lock, self._do_batches(plan, done, engine)))
            except EnoughFailures:
                self.stopped_early = True
        if not self.stopped_early:
            self.state = self._close()

    def _close(self) -> OutputState:
        """Close the last plan; on workers, if there are any yet."""
        engine = self._engine or InProcessEngine()
        place = (self.output, self.lock.run_id, self.lock.number)

        def move(moves: Iterator[Move]) -> None:
            self._interrupt.run(while_held(self.lock, move_all(engine, *place, moves)))

        return close_plan(self.storage, OutputState.load(self.storage), move)

    def _started_engine(self) -> Engine:
        if self._engine is None:
            engine = engine_of(self.config, partial(compile_for_workers, self.config))
            if self.config.workers != 0 and ray_address(self.config.address) == "local":
                self.display.say("starting Ray on this machine")
            self._engine = self._interrupt.entered(engine)
            require_pace(self.config, engine)
            self.display.say(f"working in {engine.place}")
            if engine.preparing:
                self.display.say("compiling for this machine, once per installation")
        return self._engine

    async def _do_batches(self, plan: Plan, done: Collection[int], engine: Engine) -> None:
        left = await asyncio.to_thread(plan.rows_left, self.storage, done)
        images = plan.counts.todo and left.get("absgn", 0)  # else all are files to copy
        if self.model is not None and self._service is None and images:
            self._service = await serve(engine, self.config, self.model, images)
        self.stats.begin()
        told = (self.config, self.stats, self.display, self.lock, self._on_progress, engine)
        follower = Follower.of(*told, plan, sum(left.values()))
        follower.hear(None, Tally())
        await Dispatcher(
            BatchRunner(engine, self._context, self._service),
            self.inputs.data_set,
            self.storage,
            plan,
            done,
            follower.hear,
        ).run()

    @property
    def _context(self) -> BatchContext:
        where = self.inputs, self.output, self.lock
        return context_of(self.config, *where, self.fingerprints, self.model)

    def _copy_sidecars(self) -> None:
        """Copy files beside containers to where these were written."""
        warn_of_untouched(self.inputs.patterns, self.stats)
        if not self.counts.containers or not self.inputs.data_set.is_folder:
            return
        if found := list(sidecars.due(self.inputs, self.output, self.config.method)):
            self.display.say(f"copying {counted(len(found), 'file')} beside containers")
            copying = sidecars.copy(found, self._started_engine(), self._context, self.inputs)
            self._interrupt.run(while_held(self.lock, copying))

    def _reported(self, summary: Summary) -> Summary:
        """Make the report, unless it is up to date. Returns the summary, with the time that took.

        On a worker, since no image ever passes through the driver. Whatever happens to the report,
        the run ends in the same way.
        """
        plan = self.state.plan
        if plan is None or (not self.stats.rows and plan.reported(self.storage)):
            return summary
        began = time.monotonic()
        try:
            work = self._write_report(self._started_engine(), summary)
            self._interrupt.run(while_held(self.lock, work))
        except (Interrupted, LockedError):
            raise
        except Exception as error:  # none of the finished work is lost
            logger.warning(
                "could not write the report: %s; this creates it: batchlight report %s",
                brief(error),
                shlex.quote(str(self.output)),
            )
        self.stats.report_s = took = round(time.monotonic() - began, 3)
        return summary.model_copy(update={"report_s": took, "finished_at": _now()})

    async def _write_report(self, engine: Engine, summary: Summary) -> None:
        from batchlight.report import write_report  # not at the top: the driver needs no codec

        self.display.say("making the report")
        where = self.output, self.inputs.data_set, self.lock.number
        await engine.call(write_report, *where, summary)

    def _summary_of_outcome(self) -> Summary:
        stopped_after = self.stats.tally.failed if self.stopped_early else None
        return self._summary(ExitCode.OK, "").judged(self.config, stopped_after)

    def _summary(self, exit_code: int, reason: str, count_within_s: float | None = None) -> Summary:
        """How the run ended, with the counts of what the output holds."""
        held = held_rows(self.storage, self.config.method, count_within_s, self.stats.first_batch)
        return Summary(
            run_id=self.lock.run_id,
            exit_code=exit_code,
            reason=reason,
            input=str(self.inputs.given),
            output=str(self.output),
            started_at=self.started_at.isoformat(timespec="seconds"),
            finished_at=_now(),
            **in_numbers(self.counts, held, self._unlisted, self.stats, len(self.config.method)),
            config=self.config.model_dump(mode="json"),
            fingerprints={m: f.digest for m, f in self.fingerprints.items()},
            network=self.model.described() if self.model else {},
            versions=package_versions(),
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
