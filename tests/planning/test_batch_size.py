"""``--batch-size auto``: by the number of images alone, whatever the workers and the history."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import batchlight
from batchlight.config import JobConfig
from batchlight.driver.dry_run import dry_run
from batchlight.errors import UsageError
from batchlight.output.inputs import Input
from batchlight.planning.planner import Planner
from tests.support.helpers import batchlight_here, rows, stable_rows, tree, write_images


def run(folder: Path, out: str = "out", **options: Any) -> batchlight.Summary:
    where: dict[str, Any] = {"input": str(folder), "output": str(folder.parent / out)}
    return batchlight.run(JobConfig(**{**where, "workers": 0, "progress": "off", **options}))


def grow(folder: Path, count: int) -> None:
    """Have so many images, of which those that are there stay as they are."""
    for path in write_images(folder.with_name("more"), count):
        target = folder / path.relative_to(folder.with_name("more"))
        if not target.exists():
            path.rename(target)


def sizes(out: Path) -> list[int]:
    """Of the batches, in their order."""
    return [count for _, count in sorted(Counter(row["batch"] for row in rows(out)).items())]


def planned_sizes(count: int, **options: Any) -> list[int]:
    config = JobConfig(input="in", **options)
    planner = Planner(config, {"classical": config.fingerprint("classical")})

    def images() -> Iterator[Input]:
        yield from (Input(f"{number:06d}.jpg", size=1) for number in range(count))

    chunks = planner.chunks(planner.stretches(images(), ()), first=0)
    found = [len(planned.batch.inputs) for chunk in chunks for planned in chunk]
    assert sum(found) == count
    assert found[0] == min(planner.batch_size, count)
    return found


@pytest.mark.parametrize(
    ("images", "batches", "size"),
    [
        (2, 1, 2),
        (8, 4, 2),
        (64, 32, 2),
        (65, 22, 3),
        (640, 32, 20),
        (2047, 32, 64),
        (9000, 141, 64),
    ],
)
def test_small_data_sets_are_cut_for_many_workers(images: int, batches: int, size: int) -> None:
    found = planned_sizes(images)
    assert (len(found), found[0]) == (batches, size)
    assert planned_sizes(images, workers=1) == planned_sizes(images, workers=500) == found
    assert planned_sizes(images, batch_size=7)[0] == min(7, images)


@pytest.mark.parametrize(("given", "resolved"), [("auto", 2), (5, 5), ("5", 5), ("065", 65)])
def test_a_number_is_taken_as_it_is(given: Any, resolved: int) -> None:
    assert JobConfig(input="in", batch_size=given).images_per_batch(10) == resolved


@pytest.mark.parametrize("given", [0, -1, 65537, "many", 1.5])
def test_anything_else_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="must be 'auto' or a number from 1 to 65536"):
        JobConfig(input="in", batch_size=given)


def test_it_is_stored_and_shown(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 7)
    words = ("--input", tmp_path / "in", "--output", tmp_path / "out")
    assert "in 4 batches of 2" in batchlight_here("plan", *words).stdout
    assert json.loads(batchlight_here("plan", *words, "--json").stdout)["batch_size"] == 2
    run(tmp_path / "in")
    assert sizes(tmp_path / "out") == [2, 2, 2, 1]
    [plan] = tmp_path.glob("out/_batchlight/plan/*.json")
    assert json.loads(plan.read_text())["batch_size"] == 2


def test_the_output_grows_without_being_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 4)
    run(tmp_path / "in")
    before = stable_rows(tmp_path / "out")
    grow(tmp_path / "in", 70)
    assert run(tmp_path / "in").done_now == 66
    assert sizes(tmp_path / "out") == [2, 2, *[3] * 22]
    now = stable_rows(tmp_path / "out")
    assert [row for row in now if row in before] == before
    assert len({row["fingerprint"] for row in now}) == 1
    with pytest.raises(UsageError, match=r"batch-size auto -> 64"):
        run(tmp_path / "in", batch_size=64)


def test_an_output_of_batches_of_64_is_gone_on_with_in_such(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 5)
    run(tmp_path / "in", batch_size=64)  # as by default, before there was another
    before = rows(tmp_path / "out")
    grow(tmp_path / "in", 9)
    where = JobConfig(input=str(tmp_path / "in"), output=str(tmp_path / "out"))
    assert (dry_run(where).todo, dry_run(where).batch_size) == (4, 64)
    assert run(tmp_path / "in").done_now == 4
    assert sizes(tmp_path / "out") == [5, 4]
    assert [row for row in rows(tmp_path / "out") if row in before] == before
    assert run(tmp_path / "in", batch_size=64).done_now == 0
    run(tmp_path / "in", overwrite=True)
    assert sizes(tmp_path / "out") == [2, 2, 2, 2, 1]


def test_other_sizes_than_64_are_no_default_and_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 3)
    run(tmp_path / "in", batch_size=32)
    with pytest.raises(UsageError, match=r"batch-size 32 -> auto"):
        run(tmp_path / "in")


def test_a_stored_overwrite_in_batches_of_64_is_finished_first(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 66)
    (tmp_path / "in/a/0000.jpg").write_bytes(b"no image")
    run(tmp_path / "in", batch_size=64, max_failures=1)
    assert run(tmp_path / "in", batch_size=64, overwrite=True, fail_fast=True).done_now == 64
    assert run(tmp_path / "in", overwrite=True, max_failures=1).done_now == 2
    assert sizes(tmp_path / "out") == [64, 2]


@pytest.mark.nightly
def test_workers_do_not_matter(tmp_path: Path, shared_ray: str) -> None:
    write_images(tmp_path / "in", 9)
    for workers in (0, 2):
        run(tmp_path / "in", f"out{workers}", workers=workers)
    first, second = (tmp_path / f"out{workers}" for workers in (0, 2))
    assert stable_rows(first) == stable_rows(second)
    assert tree(first / "classical") == tree(second / "classical")
