"""A batch with images that no worker survives: they fail alone, and the rest is as ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq
import pytest

import batchlight
from batchlight.config import JobConfig, Method
from batchlight.driver.batches import BatchRunner
from batchlight.engine import InProcessEngine, WorkerDied
from batchlight.errors import ClusterError, ErrorCode
from batchlight.output.inputs import Batch, Input
from batchlight.output.layout import part_path
from batchlight.planning.listing import open_inputs
from batchlight.storage import Location, open_storage
from batchlight.worker.batch_result import BatchResult
from batchlight.worker.context import BatchContext
from batchlight.worker.image import Losses
from tests.support.helpers import locked, rows, tree, write_images

T = TypeVar("T")
IMAGES = 16


class PoisonedEngine(InProcessEngine):
    """Dies of some images: of any work on them, or only of enhancing them."""

    def __init__(self, poison: set[str], reading: bool, code: ErrorCode) -> None:
        super().__init__()
        self.poison = poison
        self.reading = reading
        self.code = code
        self.calls = 0

    async def call(self, function: Callable[..., T], *arguments: object, timeouts: float = 1) -> T:
        self.calls += 1
        work: Any = function
        losses = work.args[-1]
        if work.func.__name__ == "process_images_without_writing":
            inputs: Any = arguments[0]
            methods = work.args[3]
            deadly = (self.reading or methods) and self.would_kill(inputs, losses)
        else:
            deadly = self.would_kill(work.args[2].inputs, losses)
        if deadly:
            raise WorkerDied(self.code)
        return await super().call(function, *arguments)

    def would_kill(self, inputs: tuple[Input, ...], losses: Losses) -> bool:
        spared = {item.path for item, _ in losses.fatal_images}
        return bool(self.poison & {item.path for item in inputs} - spared)


class Unlucky(InProcessEngine):
    """Loses its worker some times, whatever that does."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    async def call(self, function: Callable[..., T], *arguments: object, timeouts: float = 1) -> T:
        if self.left:
            self.left -= 1
            raise WorkerDied(ErrorCode.CRASH)
        return await super().call(function, *arguments)


class Slow(InProcessEngine):
    """Has time for half a batch."""

    async def call(self, function: Callable[..., T], *arguments: object, timeouts: float = 1) -> T:
        images = len(arguments[0]) if arguments else IMAGES  # type: ignore[arg-type]
        if images > timeouts * IMAGES / 2:
            raise WorkerDied(ErrorCode.TIMEOUT)
        return await super().call(function, *arguments)


class Job:
    """One batch, and what becomes of it where nothing kills."""

    def __init__(self, folder: Path) -> None:
        photos, out = folder / "in", folder / "out"
        write_images(photos, IMAGES)
        self.config = JobConfig(
            input=str(photos), output=str(out), batch_size=IMAGES, workers=0, progress="off"
        )
        batchlight.run(self.config)
        self.calm, self.calm_rows = tree(out / "classical"), rows(out)
        self.inputs = tuple(open_inputs(self.config).images())
        self.other = folder / "other"
        self.lock = locked(open_storage(Location.parse(str(self.other))))

    def run(self, engine: InProcessEngine) -> BatchResult:
        return asyncio.run(self.runner(engine).run(self.batch))

    @property
    def batch(self) -> Batch:
        return Batch(0, ("classical",), self.inputs)

    def runner(self, engine: InProcessEngine) -> BatchRunner:
        context = BatchContext(
            self.config,
            Location.parse(self.config.input),
            Location.parse(str(self.other)),
            "run",
            {"classical": "f"},
            self.lock,
        )
        return BatchRunner(engine, context, None)

    def rows(self) -> dict[str, dict[str, Any]]:
        return {r["input"]: r for r in pq.read_table(self.other / part_path(0)).to_pylist()}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


@pytest.mark.parametrize("reading", [True, False])
@pytest.mark.parametrize("code", [ErrorCode.CRASH, ErrorCode.TIMEOUT, ErrorCode.OUT_OF_MEMORY])
def test_poison_is_found_and_its_neighbours_are_done(
    job: Job, reading: bool, code: ErrorCode
) -> None:
    poison = job.inputs[5].path
    engine = PoisonedEngine({poison}, reading, code)
    result = job.run(engine)
    assert (result.tally.ok, result.tally.failed_by_code) == (IMAGES - 1, ((code.value, 1),))
    deaths = 2 + 3 + 3  # the batch, twice; its halves down to two images; three times alone
    assert engine.calls <= deaths + (3 + 2 + 1) + 1  # what survives, and the batch
    found = job.rows()
    assert len(found) == IMAGES
    assert found[poison]["error_code"] == code
    assert found[poison]["output"] is None
    assert found[poison]["attempts"] == deaths
    others = [row["attempts"] for name, row in found.items() if name != poison]
    assert min(others) == 2 + 1
    assert max(others) == 2 + 3 + 1
    if not reading:  # it has an estimate, so the mean is that of the whole batch: the same bytes
        del job.calm[poison]
        assert tree(job.other / "classical") == job.calm
        light = job.calm_rows[0]["batch_atmospheric_light"]
        assert {row["batch_atmospheric_light"] for row in found.values()} == {light}
        assert found[poison]["width"] == 64


@pytest.mark.parametrize("times", [1, 2, 3, 4])
def test_deaths_that_are_no_images_fault_change_nothing(job: Job, times: int) -> None:
    job.run(Unlucky(times))
    assert tree(job.other / "classical") == job.calm
    attempts = {row["attempts"] for row in job.rows().values()}
    assert max(attempts) <= times + 1
    assert min(attempts) >= min(times, 2) + 1


def test_a_batch_that_is_slow_as_a_whole_gets_the_time_of_its_parts(job: Job) -> None:
    assert job.run(Slow()).tally.ok == IMAGES
    assert tree(job.other / "classical") == job.calm
    assert {row["attempts"] for row in job.rows().values()} == {3}


def test_where_every_image_kills_the_run_ends(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is to blame then, and no image gets a row that later runs would skip."""
    monkeypatch.setattr("batchlight.engine.calls.DEATHS_AT_MOST", 20)
    engine = PoisonedEngine({item.path for item in job.inputs}, True, ErrorCode.OUT_OF_MEMORY)
    with pytest.raises(ClusterError, match=r"^batch 0 killed 21 workers") as caught:
        job.run(engine)
    assert engine.calls == 21
    assert caught.value.exit_code == 1
    assert not (job.other / part_path(0)).exists()
    assert not (job.other / "classical").exists()


@pytest.mark.parametrize("known", [True, False])
def test_pairs_that_are_done_again_beside_one_that_kills(job: Job, known: bool) -> None:
    """With the light on record, or found out from the images once more; nothing is committed."""
    light = job.calm_rows[0]["batch_atmospheric_light"]
    lost = [item.path for item in job.inputs[3:7]]
    engine = PoisonedEngine({lost[1]}, False, ErrorCode.CRASH)
    pairs: set[tuple[str, Method]] = {(path, "classical") for path in lost}
    lights = {"classical": light} if known else None
    records = asyncio.run(job.runner(engine).redo(job.batch, pairs, lights)).records
    assert [record.input for record in records] == lost
    assert {record.input for record in records if record.status == "failed"} == {lost[1]}
    assert {record.batch_atmospheric_light for record in records} == {light}
    done = {path: job.calm[path] for path in lost if path != lost[1]}
    assert tree(job.other / "classical") == done
    assert not (job.other / part_path(0)).exists()
