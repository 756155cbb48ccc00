"""How the driver grows with the data set: planning, dispatch, closing, and reruns.

    python -m benchmarks.scale [COUNT ...]
    python -m benchmarks.scale --planning COUNT ...

The pages of a store are simulated, and so is what workers would commit; everything else is what a
run does. Only the driver's own CPU time counts: what workers list, compare and move is done in
other processes. Each count has its own process, whose peak memory is reported. Batches are handed
out as if to ``WORKERS`` workers that take ``BATCH_S`` for each, but the few that there really are
take no time for them. ``--planning`` only plans, in parts and in the driver alone.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.abc import MetaPathFinder
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from batchlight.config import JobConfig
from batchlight.driver import dispatch
from batchlight.driver.batches import BatchRunner
from batchlight.driver.dispatch import Dispatcher
from batchlight.driver.drafting import draft_plans
from batchlight.driver.network import fingerprints_of
from batchlight.driver.stats import RunStats
from batchlight.driver.surveying import ListingWay, listed_and_compared
from batchlight.engine import Engine, RayEngine
from batchlight.engine import tasks as engine_tasks
from batchlight.engine.task_call import report_every_s
from batchlight.output.commit import Move, close_plan, held_rows, moved, store_plan
from batchlight.output.inputs import Batch
from batchlight.output.layout import part_path
from batchlight.output.plan import Plan
from batchlight.output.recordfiles import to_parquet
from batchlight.output.records import STAGES, Record, Tally, as_table
from batchlight.output.state import OutputState
from batchlight.planning import listing
from batchlight.planning.listing import open_inputs
from batchlight.planning.planner import Planner
from batchlight.storage import FileInfo, KeyRange, Location, Storage, open_source, open_storage
from batchlight.storage.listing import KEYS_PER_PAGE, sorting_table
from batchlight.storage.ranges import ListingPart, part_of
from batchlight.worker.assigned import AssignedWork, AssignmentReport
from batchlight.worker.batch_result import BatchResult
from batchlight.worker.context import BatchContext
from benchmarks.measuring import Table

TITLE = "The driver, µs of its CPU time per input"
PHASES = ("plan", "dispatch", "close", "rerun", "replace")
COUNTS = (100_000, 1_000_000, 10_000_000)
RERUN_UP_TO = 1_000_000
"""Larger data sets are run only once, which takes a quarter of an hour."""
TAKEN = datetime(2026, 1, 1, tzinfo=UTC)
WORKERS, BATCH_S = 1000, 1.28
"""As on a large cluster, with photographs of two megapixels."""
SURVEYORS = 2
"""Processes that list and compare."""


def tables(counts: Iterable[int] = COUNTS) -> Iterator[Table]:
    """A line for each count."""
    lines = []
    for count in counts:
        found = in_own_process("--one", count)
        each = [f"{found[phase] / count * 1e6:.2f}" if phase in found else "" for phase in PHASES]
        run = sum(found[phase] for phase in PHASES[:3]) / count * 1e6
        lines.append((f"{count:,}", *each, f"{run:.2f}", f"{found['peak_mb']:.0f}"))
    header = ("inputs", *PHASES, "a run: plan, dispatch, close", "peak, MB")
    yield Table(TITLE, header, lines)


def planning_table(counts: Iterable[int]) -> Table:
    """Two lines for each count."""
    lines = []
    for count in counts:
        for way in (ListingWay.IN_PARTS, ListingWay.SOON):
            found = in_own_process(f"--planned-{way.name}", count)
            cpu, first, peak = found["cpu"] / count * 1e6, found["first"], found["peak_mb"]
            where = "by workers" if way is ListingWay.IN_PARTS else "in the driver"
            lines.append((f"{count:,}", where, f"{cpu:.2f}", f"{first:.1f}", f"{peak:.0f}"))
    header = (
        "inputs",
        "listed and compared",
        "µs of the driver's CPU",
        "first plan, s",
        "peak, MB",
    )
    return Table("Planning", header, lines)


def in_own_process(what: str, count: int) -> dict[str, float]:
    """What a new process finds, whose peak memory is that of this measurement alone."""
    command = [sys.executable, "-m", "benchmarks.scale", what, str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout))


def one(count: int) -> dict[str, float]:
    """CPU seconds of each phase, and MB of peak memory of the first run, for one data set."""
    with a_job(count) as (config, storage, surveyors):
        first = do_all(config, storage, surveyors)
        with first["close"].running():
            assert held(storage, config).ok == count
        found = {name: clock.seconds for name, clock in first.items()}
        found["peak_mb"] = peak_bytes() / 2**20
        if count <= RERUN_UP_TO:
            again = do_all(config, storage, surveyors)
            with again["plan"].running():
                assert held(storage, config).ok == count
            overwriting = config.model_copy(update={"overwrite": True})
            replaced = do_all(overwriting, storage, surveyors, dispatched=False)
            assert held(storage, config).ok == count
            found |= {"rerun": again["plan"].seconds, "replace": replaced["close"].seconds}
    return found


def planned(count: int, way: ListingWay) -> dict[str, float]:
    """CPU seconds of all plans of one data set, seconds to the first one, and peak memory."""
    with a_job(count) as (config, storage, surveyors):
        began, clock, first, images = time.monotonic(), Clock(), 0.0, 0
        with clock.running():
            state = OutputState.load(storage)
            for plan in drafts(config, storage, state, surveyors, way):
                first = first or time.monotonic() - began
                images += plan.rows
        assert images == count
    return {"cpu": clock.seconds, "first": first, "peak_mb": peak_bytes() / 2**20}


@contextmanager
def a_job(count: int) -> Iterator[tuple[JobConfig, Storage, Engine]]:
    """A job with ``count`` images in a simulated store."""
    simulate(count)
    spawned = ProcessPoolExecutor(SURVEYORS, get_context("spawn"), simulate, (count,))
    with tempfile.TemporaryDirectory() as work, spawned as pool:
        Path(f"{work}/in").mkdir()
        config = JobConfig(input=f"{work}/in", output=f"{work}/out")
        storage = open_storage(Location.parse(f"{work}/out"))
        storage.check(writable=True)
        yield config, storage, cast("Engine", Surveyors(pool))


@dataclass
class Surveyors:
    """Other processes, which survey parts of a listing."""

    pool: ProcessPoolExecutor

    async def call(
        self, function: Callable[..., Any], *arguments: object, timeouts: float = 1
    ) -> Any:
        """See ``Engine``."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, function, *arguments)


def simulate(count: int) -> None:
    """Make this process find the simulated store wherever it looks for images."""
    real = open_source

    def opened(place: Location, **options: Any) -> Any:
        return Bucket(count) if place.name == "in" else real(place, **options)

    vars(listing)["open_source"] = opened


@dataclass
class Clock:
    """CPU seconds of this process."""

    seconds: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add those that a block takes."""
        started = time.process_time()
        yield
        self.seconds += time.process_time() - started


class WithoutPandas(MetaPathFinder):
    """As if batchlight alone were installed: PyArrow imports pandas wherever it finds it."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def peak_bytes() -> int:
    """Peak memory of this process alone; ``ru_maxrss`` begins with that of its parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def drafts(
    config: JobConfig, storage: Storage, state: OutputState, surveyors: Engine, way: ListingWay
) -> Iterator[Plan]:
    """As in ``batchlight run``."""
    inputs, output = open_inputs(config), Location.parse(config.output or "")
    planner = Planner(config, fingerprints_of(config, None))
    where = inputs, output, storage, state
    stretches = listed_and_compared(planner, *where, way, lambda: surveyors).stretches
    return draft_plans(storage, state, planner, stretches, str(inputs.root), way.growth)


def do_all(
    config: JobConfig, storage: Storage, surveyors: Engine, dispatched: bool = True
) -> dict[str, Clock]:
    """One plan after the other, as in ``batchlight run``.

    But none is drafted while the previous one is done, so that each phase can be timed.
    """
    clocks = {name: Clock() for name in ("plan", "dispatch", "close")}
    state = OutputState.load(storage)
    plans = drafts(config, storage, state, surveyors, ListingWay.IN_PARTS)
    while True:
        with clocks["plan"].running():
            plan = next(plans, None)
            if plan is None:
                return clocks
            state = store_plan(storage, state, plan)
        if dispatched:
            dispatch_all(config, storage, plan, clocks["dispatch"])
        elsewhere(commit_all, config, plan)
        with clocks["close"].running():
            move_elsewhere = partial(move_all, str(config.output))
            state = close_plan(storage, OutputState.load(storage), move_elsewhere)


def dispatch_all(config: JobConfig, storage: Storage, plan: Plan, clock: Clock) -> None:
    """Have all batches done elsewhere."""
    inputs = open_inputs(config)
    output = Location.parse(config.output or "")
    context = BatchContext(config, inputs.root, output, "run", {}, lock=1)
    stats = RunStats()

    def hear(result: BatchResult | None, under_way: Tally) -> None:
        if result is not None:
            stats.add(result.tally, result.read_bytes)

    vars(engine_tasks)["report_every_s"] = lambda workers: 0.0
    vars(dispatch)["AssignedWork"] = Simulated
    with RayEngine(2, "local") as engine:
        engine.workers = WORKERS
        runner = BatchRunner(engine, context, None)
        work = Dispatcher(runner, inputs.data_set, storage, plan, frozenset(), hear)
        with clock.running():
            asyncio.run(work.run())
    assert stats.rows >= plan.rows  # each batch counts as a full one


class Simulated(AssignedWork):
    """A worker that takes no time, and leaves nothing behind."""

    def steps(self, timed: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
        every = max(1, round(report_every_s(WORKERS) / BATCH_S))
        for at, number in enumerate(self._assignment.numbers, 1):
            self._committed(number, RESULT)
            if at % every == 0:
                yield

    def report(self) -> AssignmentReport:
        told = super().report()
        return replace(told, seconds=told.batches * BATCH_S)


RESULT = BatchResult(
    {"classical": Tally(ok=64, input_bytes=6400, output_bytes=6400)},
    dict.fromkeys(STAGES, 0.3),
    0.0,
)


def move_all(output: str, moves: Iterator[Move]) -> None:
    """Move in another process, as workers do."""
    for move in moves:
        elsewhere(move_there, output, move)


def elsewhere(function: Callable[..., object], *arguments: object) -> None:
    """Call it in another process, whose time and memory do not count."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        pool.submit(function, *arguments).result()


def move_there(output: str, move: Move) -> None:
    """What a worker does at the end of a plan."""
    moved(open_storage(Location.parse(output)), move)


def held(storage: Storage, config: JobConfig) -> Tally:
    """What the run counts at its end."""
    found = held_rows(storage, config.method)
    assert found is not None
    return found.rows


class Bucket:
    """A store with ``count`` photographs, in the order of their numbers."""

    in_order = True

    def __init__(self, count: int) -> None:
        self._count = count

    def check(self, writable: bool) -> None:
        """It is there."""

    def names(self, folder: str) -> list[str]:
        """No run has worked on it."""
        return []

    def walk(self, at_most: int | None = None, soon: bool = False) -> Iterator[FileInfo]:
        """See ``Storage``."""
        with sorting_table(in_order=soon) as table:
            for page in self._pages(0):
                if table.add(page, at_most):
                    break
                yield from table.ready(page[-1].path)
            yield from table.inputs()

    def part(self, within: KeyRange, at_most: int) -> ListingPart:
        """See ``ListsParts``."""
        first = bisect_right(range(self._count), within.after, key=self._path)
        pages = self._pages(first)
        return part_of(lambda: next(pages, []), within, at_most, lambda info: False)

    def _pages(self, first: int) -> Iterator[list[FileInfo]]:
        for start in range(first, self._count, KEYS_PER_PAGE):
            numbers = range(start, min(start + KEYS_PER_PAGE, self._count))
            yield [self._file(number) for number in numbers]

    def _file(self, number: int) -> FileInfo:
        etag = f'"{number:032x}"'
        return FileInfo(self._path(number), 400_000 + number % 1000, TAKEN, etag)

    def _path(self, number: int) -> str:
        return f"camera-{number // 10_000_000:03d}/{number // 1000:07d}/{number:010d}.jpg"


def commit_all(config: JobConfig, plan: Plan) -> None:
    """Write what the workers would leave behind: a part for each batch.

    One is made, and the others differ from it only in their inputs; else this would take hours.
    """
    storage = open_storage(Location.parse(config.output or ""))
    [(method, fingerprint)] = fingerprints_of(config, None).items()
    record = Record(
        input="",
        method=method,
        status="ok",
        output_bytes=500_000,
        input_sha256="0" * 64,
        output_sha256="0" * 64,
        width=1920,
        height=1080,
        channels=3,
        bit_depth=8,
        format="jpeg",
        batch=0,
        atmospheric_light=250.0,
        batch_atmospheric_light=250.0,
        mean_transmission=0.2,
        luminance_before=0.1,
        luminance_after=0.4,
        clipped_fraction=0.0,
        read_ms=1.0,
        decode_ms=7.0,
        enhance_ms=5.0,
        encode_ms=7.0,
        write_ms=1.0,
        attempts=1,
        worker="node-1:12345",
        run_id="20260101T000000Z-12345678",
        fingerprint=fingerprint.digest,
        finished_at=TAKEN,
    )
    alike: pa.Table = as_table([record] * (plan.batch_size or 0))
    for chunk in plan.chunks:
        for batch in plan.batches_of(storage, chunk):
            path = part_path(batch.number)
            target = Path(config.output or "") / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(to_parquet(as_committed(alike, batch), path))


def as_committed(alike: pa.Table, batch: Batch) -> pa.Table:
    """The rows of one batch."""
    inputs, rows = batch.inputs, alike.slice(0, len(batch.inputs))
    columns = {
        "input": [item.path for item in inputs],
        "output": [f"classical/{item.path}" for item in inputs],
        "input_bytes": [item.size for item in inputs],
        "input_etag": [item.etag for item in inputs],
        "input_modified": [item.modified for item in inputs],
        "batch": [batch.number] * len(inputs),
    }
    for name, values in columns.items():
        at = rows.schema.get_field_index(name)
        field = rows.schema.field(at)
        rows = rows.set_column(at, field, pa.array(values, field.type))
    return rows


def main(arguments: list[str]) -> None:
    """Measure, or be one of the processes that do."""
    sys.meta_path.insert(0, WithoutPandas())
    what = arguments[0] if arguments and arguments[0].startswith("--") else None
    counts = [int(count) for count in arguments[bool(what) :]] or COUNTS
    if what == "--one":
        print(json.dumps(one(counts[0])))
    elif what == "--planning":
        print(planning_table(counts))
    elif what:
        print(json.dumps(planned(counts[0], ListingWay[what.removeprefix("--planned-")])))
    else:
        for found in tables(counts):
            print(found)


if __name__ == "__main__":
    main(sys.argv[1:])
