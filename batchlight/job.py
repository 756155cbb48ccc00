"""One run, from the lock to the summary.

    lock -> finish the stored plan, if a killed run left one -> list, compare, store a new plan
         -> do its batches -> parts become metadata/ -> report -> count everything -> summary

The lock comes before the listing and before Ray, so a second run is told so within seconds. Nothing
here touches pixels or rows: batches travel to workers as lists of inputs and come back as counts.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from threading import Thread
from typing import TYPE_CHECKING

from batchlight import metrics
from batchlight.closing import close_plan, replaced_tally
from batchlight.config import Fingerprint, JobConfig, Method
from batchlight.engine import Engine, make_engine, ray_address, window
from batchlight.errors import (
    BatchlightError,
    ExitCode,
    Interrupted,
    LockedError,
    UsageError,
    brief,
    counted,
)
from batchlight.feeding import Service
from batchlight.inputs import InputSet, open_inputs
from batchlight.interrupt import Interrupt
from batchlight.isolation import BatchRunner
from batchlight.lock import Lock, new_run_id
from batchlight.model import Model, weights_of
from batchlight.plan import Plan, earlier_rows, latest_plan, store_plan
from batchlight.planner import PlanCounts, Planner
from batchlight.progress import ProgressDisplay, State, make_display
from batchlight.records import Tally, committed_batches, drop_orphaned_parts, metadata_ranges, tally
from batchlight.report import REPORT, write_report
from batchlight.serving import fingerprints_of, model_of, serve
from batchlight.steps import BatchContext, compile_kernels
from batchlight.storage import Location, Storage, open_storage
from batchlight.summary import Summary, package_versions

if TYPE_CHECKING:
    from batchlight.absgn.weights import Weights

logger = logging.getLogger(__name__)


def run(config: JobConfig) -> Summary:
    """Enhance a data set; the same as ``batchlight run``.

    Returns the summary, whose ``exit_code`` is 0, or 3 if more images failed than allowed. Raises
    ``BatchlightError`` (see ``errors``) for everything that keeps the run from ending; what was
    done until then is kept, and the same call goes on from there.
    """
    inputs, output = open_places(config)
    weights = weights_of(config)
    storage = open_storage(output)
    storage.check(writable=True)
    run_id = new_run_id()
    with Lock(storage, str(output), run_id) as lock:
        return _Run(config, weights, inputs, output, storage, lock, run_id).to_the_end()


def open_places(config: JobConfig) -> tuple[InputSet, Location]:
    """The input and the output. Raises ``UsageError`` if they overlap or cannot be used."""
    inputs = open_inputs(config)
    output = Location.parse(config.output) if config.output else inputs.default_output()
    if output.encloses(inputs.root):
        raise UsageError(
            f"the output {output} would hold the input {inputs.root}; choose another --output"
        )
    return inputs, output


def refuse_changes(
    fingerprints: Mapping[Method, Fingerprint], inputs: InputSet, output: Location, plan: Plan
) -> None:
    """Raise ``UsageError`` if this run would mix its results with those of another job."""
    for method, fingerprint in fingerprints.items():
        earlier = plan.fingerprints.get(method)
        changes = fingerprint.changes_since(earlier) if earlier else []
        if changes:
            raise UsageError(
                f"{output} was made with other parameters ({', '.join(changes)}); "
                "give the same ones, choose another --output, or redo everything with --overwrite"
            )
    if plan.root != str(inputs.root):
        raise UsageError(
            f"{output} holds the images of {plan.root}, not of {inputs.root}; "
            "choose another --output, or redo everything with --overwrite"
        )


class _Run:
    def __init__(
        self,
        config: JobConfig,
        weights: Weights | None,
        inputs: InputSet,
        output: Location,
        storage: Storage,
        lock: Lock,
        run_id: str,
    ) -> None:
        self.config = config
        self.weights = weights
        self.inputs = inputs
        self.output = output
        self.storage = storage
        self.lock = lock
        self.run_id = run_id
        self.display: ProgressDisplay = make_display(config.progress)
        self.started_at = datetime.now(UTC)
        self.counts = PlanCounts()
        self.done_now = Tally()
        self.first_submitted = self.last_committed = self.report_s = 0.0
        self.stopped_early = False
        self.model: Model | None = None
        self.fingerprints: Mapping[Method, Fingerprint] = {}
        self._engine: Engine | None = None
        self._service: Service | None = None
        self._interrupt = Interrupt(self.display.say)
        self._exits = ExitStack()

    def to_the_end(self) -> Summary:
        """Do all there is to do; leave a ``summary.json`` whatever happens."""
        try:
            with self._interrupt.caught(), self._exits:
                self.model = model_of(self.config, self.weights, self._started_engine)
                self.fingerprints = fingerprints_of(self.config, self.model)
                self._finish_stored_plan()
                if not self.stopped_early:
                    self._do_new_work()
                self._make_report()
            summary = self._summary_of_outcome()
        except LockedError:  # the output is another run's, and so is its summary
            raise
        except BaseException as error:
            if isinstance(error, UsageError) and not self.first_submitted:
                raise  # nothing was done: the last summary stays true
            code = getattr(error, "exit_code", ExitCode.FATAL)
            reason = str(error) if isinstance(error, BatchlightError) else repr(error)
            with suppress(BatchlightError, OSError):  # the first error is the one to tell
                self._summary(code, reason).write(self.storage)
            raise
        finally:
            self.display.close()
        summary.write(self.storage)
        return summary

    def _finish_stored_plan(self) -> None:
        self.storage.sweep()
        drop_orphaned_parts(self.storage)
        plan = latest_plan(self.storage)
        if plan is None:
            return
        same = not self.config.overwrite or (
            plan.overwrite
            and plan.root == str(self.inputs.root)
            and all(plan.fingerprints.get(m) == f for m, f in self.fingerprints.items())
        )
        if same:
            refuse_changes(self.fingerprints, self.inputs, self.output, plan)
        if plan.is_closed(self.storage):
            return
        self.counts = PlanCounts(inputs=plan.listed)
        if same:
            self.display.say(f"going on with the stored plan of {plan.inputs} images")
            self._do(plan)
            # An overwriting run that was killed has now overwritten everything once.
            self.config = self.config.model_copy(update={"overwrite": False})
        if not self.stopped_early:
            close_plan(self.storage, plan)

    def _do_new_work(self) -> None:
        self.display.say(f"listing {self.inputs.given}")
        planner = Planner(self.config, self.fingerprints)
        previous = latest_plan(self.storage)
        chunks = planner.chunks(
            self.inputs.images(),
            earlier_rows(self.storage),
            previous.next_batch if previous else 0,
        )
        plan = store_plan(
            self.storage,
            chunks,
            planner,
            str(self.inputs.root),
            self.config.overwrite,
            self.fingerprints,
            previous,
        )
        self.counts = planner.counts
        self.display.say(describe_counts(self.counts))
        if plan is not None:
            self._do(plan)
            if not self.stopped_early:
                close_plan(self.storage, plan)

    def _do(self, plan: Plan) -> None:
        """Do the batches of a plan that are not done yet."""
        done = committed_batches(self.storage)
        for chunk in metadata_ranges(self.storage):
            done.update(range(max(chunk.first, plan.first), chunk.last + 1))
        if all(number in done for number in range(plan.first, plan.next_batch)):
            return
        left = [method for method in plan.methods if method not in self.config.method]
        if left:
            raise UsageError(
                f"{self.output} holds an unfinished run that needs --method {left[0]} too; "
                "give the same methods as before, or redo everything with --overwrite"
            )
        self._interrupt.run(self._do_batches(plan, done, self._started_engine()))

    def _started_engine(self) -> Engine:
        if self._engine is None:
            config = self.config
            hosts = "absgn" in config.method
            engine = make_engine(config.workers, config.address, config.timeout, hosts)
            if config.workers != 0 and ray_address(config.address) == "local":
                # While Ray starts, so that the first image need not wait for it.
                Thread(target=compile_kernels, daemon=True).start()
            with self._interrupt.held():
                self._engine = self._exits.enter_context(engine)
            self.display.say(f"working in {engine.place}")
        return self._engine

    async def _do_batches(self, plan: Plan, done: set[int], engine: Engine) -> None:
        if self.model is not None and self._service is None and "absgn" in plan.methods:
            images = await asyncio.to_thread(self._remaining_rows, plan, done, "absgn")
            if images:
                self._service = await serve(engine, self.config, self.model, images)
        self.first_submitted = self.first_submitted or time.monotonic()
        batches = plan.read_batches(self.storage, skip=done)
        context = BatchContext(
            config=self.config,
            input=self.inputs.root,
            output=self.output,
            run_id=self.run_id,
            fingerprints={m: f.digest for m, f in self.fingerprints.items()},
            pixels_at_once=self.model.pixels_at_once if self.model else 0,
        )
        runner = BatchRunner(engine, context, self._service)
        jobs = (runner.run(batch) for batch in batches)
        left = await asyncio.to_thread(self._remaining_rows, plan, done)
        total = self._rows_now + left
        self._show(total)
        results = window(jobs, engine.window)
        try:
            async for result in results:
                self.last_committed = time.monotonic()
                self.done_now += result.tally
                self._show(total)
                metrics.show(engine, result)
                self.lock.check()
                allowed = self.config.allows_failures(self.done_now.failed, self._expected_rows)
                if self.config.fail_fast and not allowed and self._rows_now < total:
                    self.stopped_early = True
                    return
        finally:
            await results.aclose()

    def _make_report(self) -> None:
        """Unless it is up to date. On a worker, for no image ever passes through the driver.

        Whatever happens to it, it changes nothing of how the run ends.
        """
        plan = latest_plan(self.storage)
        if plan is None or (not self.last_committed and self._reported_since(plan)):
            return
        began = time.monotonic()
        try:
            self._interrupt.run(self._write_report(self._started_engine()))
        except Interrupted:
            raise
        except Exception as error:  # of the work that is done, nothing is lost
            logger.warning(
                "the report could not be made: %s; 'batchlight report %s' makes it",
                brief(error),
                self.output,
            )
        self.report_s = time.monotonic() - began

    def _reported_since(self, plan: Plan) -> bool:
        """Whether the report was made when all of the plan was there."""
        try:
            made = self.storage.stat(REPORT).modified
        except FileNotFoundError:
            return False
        closed = plan.closed_at(self.storage)
        return closed is None or (made is not None and made >= closed)

    async def _write_report(self, engine: Engine) -> None:
        self.display.say("making the report")
        await engine.call(write_report, self.output)

    def _remaining_rows(self, plan: Plan, done: set[int], *methods: Method) -> int:
        """How many rows are still to be made, of all methods or some."""
        if not methods and not any(n in done for n in range(plan.first, plan.next_batch)):
            return plan.rows
        batches = plan.read_batches(self.storage, skip=done)
        wanted = set(methods or plan.methods)
        return sum(len(batch.inputs) * len(wanted.intersection(batch.methods)) for batch in batches)

    def _show(self, total: int) -> None:
        """How far this run is, all plans that it works on together."""
        self.display.update(State(self._rows_now, total, self.done_now.failed, self._elapsed_s))

    @property
    def _rows_now(self) -> int:
        """How many this run has made."""
        return self.done_now.ok + self.done_now.failed

    @property
    def _elapsed_s(self) -> float:
        """From the first batch submitted to the last one committed."""
        return max(0.0, self.last_committed - self.first_submitted)

    @property
    def _expected_rows(self) -> int:
        """Of all that is listed, whether done now, before or not yet."""
        return self.counts.inputs * len(self.config.method)

    def _summary_of_outcome(self) -> Summary:
        summary = self._summary(ExitCode.OK, "all images are done")
        total = self._expected_rows
        allowed = f"--max-failures {self.config.max_failures} allows"
        if self.stopped_early:
            failed = counted(self.done_now.failed, "image")
            code, reason = (
                ExitCode.FAILURES,
                f"stopped early: {failed} failed, more than {allowed}; "
                "run the same command again to go on",
            )
        elif summary.missing:
            code, reason = (
                ExitCode.FATAL,
                f"{summary.missing} of {total} images have no record; "
                "run the same command again, and report this if it stays so",
            )
        elif not self.config.allows_failures(summary.failed, total):
            code, reason = (
                ExitCode.FAILURES,
                f"{summary.failed} of {total} images failed, more than {allowed}; "
                f"see: batchlight failures {shlex.quote(str(self.output))}",
            )
        elif not summary.inputs:
            code, reason = ExitCode.OK, f"no images were found in {self.inputs.given}"
        elif summary.failed:
            code, reason = (
                ExitCode.OK,
                f"{summary.failed} of {total} images failed, which --max-failures allows",
            )
        else:
            return summary
        return replace(summary, exit_code=code, reason=reason)

    def _summary(self, exit_code: int, reason: str) -> Summary:
        """Count what the output holds; failing rows of vanished inputs are nobody's concern."""
        held = tally(self.storage, self.config.method) - self.counts.gone_tally
        plan = latest_plan(self.storage)
        if plan is not None and not plan.is_closed(self.storage):
            held -= replaced_tally(self.storage, plan)
        return Summary(
            run_id=self.run_id,
            exit_code=exit_code,
            reason=reason,
            input=str(self.inputs.given),
            output=str(self.output),
            started_at=self.started_at.isoformat(timespec="seconds"),
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            inputs=self.counts.inputs,
            ok=held.ok,
            failed=held.failed,
            failed_by_code=dict(held.failed_by_code),
            missing=max(0, self._expected_rows - held.ok - held.failed),
            gone=self.counts.gone,
            done_now=self._rows_now,
            done_before=max(0, held.ok + held.failed - self._rows_now),
            input_bytes=held.input_bytes,
            output_bytes=held.output_bytes,
            elapsed_s=round(self._elapsed_s, 3),
            images_per_s=round(self._rows_now / self._elapsed_s, 3) if self._elapsed_s else 0.0,
            report_s=round(self.report_s, 3),
            config=self.config.model_dump(mode="json"),
            fingerprints={m: f.digest for m, f in self.fingerprints.items()},
            network=self.model.described() if self.model else {},
            versions=package_versions(),
        )


def describe_counts(counts: PlanCounts) -> str:
    """As in ``64 images, of which 10 are to do (8 new, 2 changed) in 1 batch``."""
    kinds = {"new": counts.new, "changed": counts.changed, "to redo": counts.retried}
    which = ", ".join(f"{number} {kind}" for kind, number in kinds.items() if number)
    if not counts.todo:
        return f"{counts.inputs} images, nothing to do"
    batches = f"{counts.batches} batch" + "es" * (counts.batches != 1)
    return f"{counts.inputs} images, of which {counts.todo} are to do ({which}) in {batches}"
