"""A batch with images that no worker survives: they fail alone, and the rest is as ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq
import pytest

import batchlight
from batchlight.config import JobConfig
from batchlight.driver.batches import BatchRunner
from batchlight.driver.listing import open_inputs
from batchlight.engine import InProcessEngine, WorkerDied
from batchlight.errors import ErrorCode
from batchlight.output.inputs import Batch, Input
from batchlight.output.layout import part_path
from batchlight.storage import Location, open_storage
from batchlight.worker.steps import BatchContext
from tests.support.helpers import rows, tree, write_images

T = TypeVar("T")


class PoisonedEngine(InProcessEngine):
    """Dies of some images: of any work on them, or only of finishing them."""

    def __init__(self, poison: set[str], only: str, code: ErrorCode) -> None:
        self.poison = poison
        self.only = only
        self.code = code
        self.calls = 0

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        self.calls += 1
        name = getattr(function, "func", function).__name__
        last: Any = arguments[-1]
        items: Sequence[Input] = last.inputs if isinstance(last, Batch) else last
        deadly = name == "run_batch" or self.only in name
        if deadly and self.poison & {item.path for item in items}:
            raise WorkerDied(self.code)
        return await super().call(function, *arguments)


@pytest.mark.parametrize("only", ["", "finish_images"])
@pytest.mark.parametrize("code", [ErrorCode.CRASH, ErrorCode.TIMEOUT, ErrorCode.OUT_OF_MEMORY])
def test_poison_is_found_and_its_neighbours_are_done(
    tmp_path: Path, only: str, code: ErrorCode
) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    write_images(photos, 16)
    config = JobConfig(input=str(photos), output=str(out), batch_size=16, workers=0, progress="off")
    batchlight.run(config)
    calm, calm_rows = tree(out / "classical"), rows(out)

    inputs = tuple(open_inputs(config).images())
    poison = inputs[5].path
    other = Location.parse(str(tmp_path / "other"))
    open_storage(other).check(writable=True)
    engine = PoisonedEngine({poison}, only, code)
    context = BatchContext(config, Location.parse(str(photos)), other, "run", {"classical": "f"})
    result = asyncio.run(BatchRunner(engine, context, None).run(Batch(0, ("classical",), inputs)))

    assert (result.tally.ok, result.tally.failed_by_code) == (15, ((code.value, 1),))
    assert engine.calls <= 2 + 2 * (2 * 4 + 3)
    found = {r["input"]: r for r in pq.read_table(tmp_path / "other" / part_path(0)).to_pylist()}
    assert len(found) == 16
    assert found[poison]["error_code"] == code
    assert found[poison]["output"] is None
    assert found[poison]["attempts"] >= 3
    if only:  # it could be surveyed, so the mean is that of the whole batch, and so are the bytes
        del calm[f"{poison}"]
        assert tree(tmp_path / "other/classical") == calm
        light = calm_rows[0]["batch_atmospheric_light"]
        assert {row["batch_atmospheric_light"] for row in found.values()} == {light}
