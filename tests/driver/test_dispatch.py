"""A plan's batches go to workers many at a time, and whatever becomes of one, all are done once."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pytest

import batchlight
from batchlight.config import JobConfig
from batchlight.driver import dispatch
from batchlight.driver.batches import BatchRunner
from batchlight.driver.dispatch import Dispatcher, OnProgress
from batchlight.driver.drafting import draft_plans
from batchlight.driver.network import fingerprints_of
from batchlight.engine import InProcessEngine, Lost, Work, WorkerDied, calls
from batchlight.errors import ClusterError, ErrorCode, StorageError
from batchlight.output.commit import close_plan, store_plan
from batchlight.output.earlier import earlier_rows
from batchlight.output.inputs import DataSet
from batchlight.output.layout import part_path
from batchlight.output.records import Tally
from batchlight.output.state import OutputState
from batchlight.planning.listing import open_inputs
from batchlight.planning.planner import Planner
from batchlight.storage import Location, open_storage
from batchlight.worker.assigned import Assignment
from batchlight.worker.batch_result import BatchResult
from batchlight.worker.context import BatchContext
from tests.support.helpers import locked, rows, stable_rows, tree, write_images

R = TypeVar("R")
IMAGES, BATCH = 40, 2
BATCHES = IMAGES // BATCH


class Workers(InProcessEngine):
    """Does many batches at once, as a cluster would; and sometimes comes to no good end."""

    parts_at_once = 1000
    workers = 2
    window = 3

    def __init__(self, failing: dict[int, Exception] | None = None) -> None:
        """``failing``: what happens instead of a batch, the next time it is its turn."""
        super().__init__()
        self.failing = failing or {}
        self.given: list[list[int]] = []
        self.done: list[int] = []

    async def follow(
        self, make: Callable[..., Work[R]], *arguments: object, on_report: Callable[[R], object]
    ) -> None:
        assignment = arguments[-1]
        assert isinstance(assignment, Assignment)
        self.given.append(assignment.numbers)
        work, left = make(*arguments), list(assignment.numbers)

        def timed() -> nullcontext[None]:
            number = left.pop(0)
            if number in self.failing:
                raise self.failing.pop(number)
            self.done.append(number)
            return nullcontext()

        for _ in work.steps(timed):
            await asyncio.sleep(0)
        on_report(work.report())


class Job:
    """A stored plan, and all that its batches come to."""

    def __init__(self, folder: Path) -> None:
        photos = folder / "in"
        write_images(photos, IMAGES)
        self.out = folder / "out"
        self.config = JobConfig(
            input=str(photos), output=str(self.out), batch_size=BATCH, workers=0, progress="off"
        )
        calm = self.config.model_copy(update={"output": str(folder / "calm")})
        batchlight.run(calm)
        self.calm = tree(folder / "calm/classical"), stable_rows(folder / "calm")
        self.storage = open_storage(Location.parse(str(self.out)))
        self.lock = locked(self.storage)
        self.fingerprints = fingerprints_of(self.config, None)
        planner = Planner(self.config, self.fingerprints)
        self.inputs = open_inputs(self.config)
        state = OutputState.load(self.storage)
        stretches = planner.stretches(self.inputs.images(), earlier_rows(self.storage, state))
        [self.plan] = draft_plans(self.storage, state, planner, stretches, str(self.inputs.root))
        self.state = store_plan(self.storage, state, self.plan)
        self.heard: list[tuple[BatchResult | None, Tally]] = []
        self.hear: OnProgress = lambda *told: self.heard.append(told)

    def run(self, engine: InProcessEngine, done: frozenset[int] = frozenset()) -> None:
        async def dispatched() -> None:
            runner = BatchRunner(engine, self.context, None)
            data_set = self.inputs.data_set
            await Dispatcher(runner, data_set, self.storage, self.plan, done, self.hear).run()

        asyncio.run(dispatched())

    @property
    def context(self) -> BatchContext:
        return BatchContext(
            self.config,
            self.inputs.root,
            Location.parse(str(self.out)),
            "run",
            {m: f.digest for m, f in self.fingerprints.items()},
            self.lock,
        )

    def ended(self) -> tuple[dict[str, bytes], list[dict[str, object]]]:
        close_plan(self.storage, OutputState.load(self.storage))
        return tree(self.out / "classical"), stable_rows(self.out)

    @property
    def committed(self) -> int:
        return sum(result.tally.rows for result, _ in self.heard if result is not None)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setattr(calls, "PAUSE_BEFORE_RESENDING", 0.0)
    monkeypatch.setattr(calls, "PAUSE_AFTER_STORAGE_TROUBLE", 0.0)
    return Job(tmp_path)


def test_tasks_grow_once_their_time_is_known_and_shrink_to_the_end(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "TASKS_PER_S_AT_MOST", 1e9)
    monkeypatch.setattr(dispatch, "AT_FIRST", 2)
    engine = Workers()
    job.run(engine)
    assert sorted(engine.done) == list(range(BATCHES))
    sizes = [len(numbers) for numbers in engine.given]
    assert sizes[:3] == [2, 2, 2]
    assert max(sizes) > 2
    assert sizes[-1] == 1
    assert len(sizes) < BATCHES * 0.7
    assert job.committed == IMAGES
    assert job.heard[-1][1] == Tally()
    assert job.ended() == job.calm


def test_a_task_takes_about_the_time_that_is_aimed_at(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "AT_FIRST", 1)
    monkeypatch.setattr(dispatch, "AIM_S", 0.0)  # less than any batch takes
    monkeypatch.setattr(dispatch, "TASKS_PER_S", 1e9)
    engine = Workers()
    job.run(engine)
    assert {len(numbers) for numbers in engine.given} == {1}


def test_the_first_tasks_are_a_fair_share(job: Job) -> None:
    engine = Workers()
    job.run(engine)
    sizes = [len(numbers) for numbers in engine.given]
    assert sizes[:3] == [5, 4, 3]  # each of two workers gets half of its share of what is left
    assert job.ended() == job.calm


@pytest.mark.parametrize("number", [0, 7, BATCHES - 1])
def test_of_a_death_the_batch_is_blamed_that_is_not_committed(job: Job, number: int) -> None:
    engine = Workers({number: WorkerDied(ErrorCode.CRASH)})
    job.run(engine)
    assert sorted([*engine.done, number]) == list(range(BATCHES))  # that one was done by itself
    assert job.committed == IMAGES
    assert job.ended() == job.calm
    attempts = {row["batch"]: row["attempts"] for row in rows(job.out)}
    assert attempts == {n: 2 if n == number else 1 for n in range(BATCHES)}


def test_what_is_lost_is_sent_again_and_nothing_twice(job: Job) -> None:
    engine = Workers({4: Lost("a node was lost"), 9: Lost("a node was lost")})
    job.run(engine)
    assert sorted(engine.done) == list(range(BATCHES))
    assert job.committed == IMAGES
    assert job.ended() == job.calm
    assert {row["attempts"] for row in rows(job.out)} == {1}


def test_storage_trouble_is_tried_again_batch_by_batch(job: Job) -> None:
    trouble = StorageError("the bucket is away")
    engine = Workers(dict.fromkeys(range(4, 12), trouble))
    job.run(engine)
    assert sorted(engine.done) == list(range(BATCHES))
    assert job.ended() == job.calm


class AlwaysFailing(dict[int, Exception]):
    """Of one batch, every time."""

    def pop(self, key: int, *default: object) -> Exception:
        return self[key]


@pytest.mark.parametrize(
    ("error", "raised", "tries"),
    [
        (StorageError("the bucket is away"), StorageError, 3),
        (StorageError("the disk is full", transient=False), StorageError, 1),
        (Lost("a node was lost"), ClusterError, 100),
    ],
)
def test_trouble_that_lasts_ends_the_run(
    job: Job, error: Exception, raised: type[Exception], tries: int
) -> None:
    engine = Workers(AlwaysFailing({6: error}))
    with pytest.raises(raised):
        job.run(engine)
    assert sum(6 in numbers for numbers in engine.given) <= tries + 1
    assert (job.out / part_path(5)).exists()
    assert not (job.out / part_path(6)).exists()


class Gone(Workers):
    """A cluster of which nobody is left."""

    async def follow(self, *arguments: object, **options: object) -> None:
        raise ClusterError("the cluster is gone")


def test_all_tasks_that_fail_at_once_are_told_of_once(
    job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ClusterError):
        job.run(Gone())
    gc.collect()
    assert caplog.text == ""


def test_what_was_committed_unheard_is_counted_and_not_done_again(job: Job) -> None:
    engine = Workers()
    job.run(engine)
    before = job.committed
    (job.out / part_path(3)).unlink()
    job.heard.clear()
    engine = Workers({2: WorkerDied(ErrorCode.CRASH)})  # dies before it tells of its first batches
    job.run(engine)
    assert job.committed == before == IMAGES


def test_batches_that_are_done_are_left_alone(job: Job) -> None:
    job.run(Workers())
    engine = Workers()
    job.run(engine, done=frozenset(range(BATCHES)) - {3, 4, 11})
    assert sorted(engine.done) == [3, 4, 11]


class EnoughError(Exception):
    pass


def test_whoever_hears_of_progress_may_end_it(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "AT_FIRST", 1)

    def enough(result: BatchResult | None, under_way: Tally) -> None:
        raise EnoughError

    job.hear = enough
    engine = Workers()
    with pytest.raises(EnoughError):
        job.run(engine)
    assert len(engine.done) <= engine.window


def test_a_list_is_asked_once_for_a_chunk(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if several batches ask for it at once; it may have a hundred million entries."""
    (tmp_path / "in/list.txt").write_text("a/0000.jpg\n")
    unnamed_in, looks = DataSet.unnamed_in, list[str]()

    def slowly(self: DataSet, rows: pa.Table) -> frozenset[str] | None:
        looks.append(str(self.given))
        time.sleep(0.2)
        return unnamed_in(self, rows)

    monkeypatch.setattr(DataSet, "unnamed_in", slowly)
    listed = DataSet(job.inputs.root, Location.parse(tmp_path / "in/list.txt"))

    async def asked() -> list[frozenset[str] | None]:
        engine = Workers()
        runner = BatchRunner(engine, job.context, None)
        dispatcher = Dispatcher(runner, listed, job.storage, job.plan, (), job.hear)
        return await asyncio.gather(*(dispatcher._unnamed_of(job.plan.chunks[0]) for _ in range(4)))

    found = asyncio.run(asked())
    assert len(looks) == 1
    assert [len(unnamed or ()) for unnamed in found] == [IMAGES - 1] * 4
