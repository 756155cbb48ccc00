"""A large data set has several plans, one after the other; all else is as with one."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any
from uuid import uuid4

import cv2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import batchlight
from batchlight.config import JobConfig
from batchlight.driver import drafting
from batchlight.driver.drafting import draft_plans, each_while_the_next_is_drafted
from batchlight.driver.network import fingerprints_of
from batchlight.driver.progress import Progress
from batchlight.errors import UsageError
from batchlight.output.inputs import Batch, Input
from batchlight.output.plan import Plan, PlanCounts
from batchlight.output.state import OutputState
from batchlight.output.status import read_status
from batchlight.planning import cutting, merging
from batchlight.planning.listing import InputSet
from batchlight.planning.planner import Planner
from batchlight.storage import Location, Storage, listing, objects, open_storage
from batchlight.storage.local import LocalStorage
from tests.support.dying import Died, die_at
from tests.support.helpers import bright_image, dark_image, rows, stable_rows, tree, write_images
from tests.support.s3_server import BUCKET, S3Server

IMAGES = 12
BATCH_SIZE = 2
CHUNK_ROWS = 4
COUNTS = ("inputs", "pairs", "ok", "skipped", "failed", "missing", "gone", "done_now")
Outcome = tuple[dict[str, bytes], list[dict[str, Any]]]


def chunks_per_plan(patch: pytest.MonkeyPatch, chunks: int, at_most: int = 0) -> None:
    patch.setattr(drafting, "CHUNKS_OF_FIRST_PLAN", chunks)
    patch.setattr(drafting, "CHUNKS_OF_PLAN", at_most or chunks)


@pytest.fixture
def of_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans of four images."""
    monkeypatch.setattr(cutting, "CHUNK_ROWS", CHUNK_ROWS)
    chunks_per_plan(monkeypatch, 1)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "in", IMAGES)
    return tmp_path / "in"


def job(photos: Path | str, out: Path, **settings: Any) -> JobConfig:
    given: dict[str, Any] = {"workers": 0, "batch_size": BATCH_SIZE, "progress": "off"}
    return JobConfig(input=str(photos), output=str(out), **(given | settings))


def run(photos: Path | str, out: Path, **settings: Any) -> batchlight.Summary:
    return batchlight.run(job(photos, out, **settings))


def outcome(out: Path) -> Outcome:
    """The images, and the rows with their batches; not in which files the rows stand."""
    return tree(out / "classical"), stable_rows(out)


def change_some(photos: Path) -> None:
    cv2.imwrite(str(photos / "a/0000.jpg"), dark_image(50))
    cv2.imwrite(str(photos / "b/0010.jpg"), bright_image(51))
    (photos / "c/0005.jpg").write_bytes(b"no image any more")  # so its old output must go
    cv2.imwrite(str(photos / "new.jpg"), dark_image(52))
    (photos / "b/0001.jpg").unlink(missing_ok=True)


def stored_plans(out: Path) -> int:
    return len(list((out / "_batchlight/plan").glob("*.json")))


@pytest.mark.parametrize("again", [{}, {"overwrite": True}])
def test_one_plan_or_several_come_to_the_same(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: dict[str, bool]
) -> None:
    monkeypatch.setattr(cutting, "CHUNK_ROWS", CHUNK_ROWS)
    for options in ({}, again):
        found = []
        for chunks, plans in ((100, 1), (2, 2), (1, 3)):
            chunks_per_plan(monkeypatch, chunks)
            out = tmp_path / f"out-{chunks}"
            before = stored_plans(out)
            summary = run(photos, out, **options)
            if before == 0 or again:
                assert stored_plans(out) - before == plans
            assert not tree(out / "_batchlight/parts")
            assert (read_status(str(out)).state, read_status(str(out)).more) == ("finished", False)
            counts = [getattr(summary, name) for name in COUNTS]
            found.append((counts, outcome(out), sorted(tree(out / "metadata"))))
        assert found[0] == found[1] == found[2]
        change_some(photos)


@pytest.mark.usefixtures("of_one_chunk")
@pytest.mark.parametrize(
    ("options", "every"),
    [
        pytest.param({}, 1, marks=pytest.mark.nightly),
        pytest.param({"overwrite": True}, 1, marks=pytest.mark.nightly),
        ({"overwrite": True}, 3),
    ],
)
def test_death_at_every_write(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, bool],
    every: int,
) -> None:
    monkeypatch.setattr("batchlight.report.write_report", lambda *_: None)
    # So that the next plan is drafted at the same time in each run.
    monkeypatch.setattr("batchlight.driver.run.each_while_the_next_is_drafted", one_by_one)
    before, out = tmp_path / "before", tmp_path / "out"
    (photos / "c/0008.jpg").unlink()
    (photos / "c/0011.jpg").unlink()
    if options:
        run(photos, before)
        change_some(photos)
    start(before, out)
    run(photos, out, **options)
    calm, number = outcome(out), 1
    while True:
        start(before, out)
        with monkeypatch.context() as patch:
            count = die_at(patch, LocalStorage, number)
            try:
                run(photos, out, **options)
            except Died:
                number += every
            else:
                break
        keys = [(row["input"], row["method"]) for row in rows(out)]
        assert len(keys) == len(set(keys))
        shutil.rmtree(out / "_batchlight/locks", ignore_errors=True)  # held by this process
        last = OutputState.load(opened(out))
        is_done = last.to_go_on_with is None and last.plan is not None and last.plan.overwrite
        run(photos, out, **({} if is_done else options))
        assert outcome(out) == calm, f"after the death before operation {number}"
        assert read_status(str(out)).state == "finished"
    assert number - every <= count() < number
    assert number > 30


def start(before: Path, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    if before.exists():
        shutil.copytree(before, out)


def one_by_one(plans: Iterator[Plan]) -> Iterator[Plan]:
    yield from plans


@pytest.mark.usefixtures("of_one_chunk")
def test_a_store_that_lists_in_order(
    photos: Path, tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is planned while it is listed."""
    run(photos, tmp_path / "calm")
    prefix = str(uuid4())
    s3.put(tree(photos), prefix)
    monkeypatch.setattr(objects, "lists_in_order", lambda location: True)
    monkeypatch.setattr(listing, "KEYS_PER_PAGE", 2)
    monkeypatch.setattr(listing, "KEYS_AT_ONCE", 2)
    done = run(f"s3://{BUCKET}/{prefix}", tmp_path / "out")
    assert (done.done_now, stored_plans(tmp_path / "out")) == (IMAGES, 3)
    images, found = outcome(tmp_path / "out")
    calm = rows(tmp_path / "calm")
    assert images == outcome(tmp_path / "calm")[0]
    assert [(row["input"], row["batch"]) for row in found] == [
        (row["input"], row["batch"]) for row in calm
    ]


@pytest.mark.usefixtures("of_one_chunk")
def test_a_store_that_lists_out_of_order_is_sorted_as_a_whole(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SeaweedFS goes folder by folder."""
    photos, prefix = tmp_path / "in", str(uuid4())
    for number in range(12):
        (photos / f"{number:02d}").mkdir(parents=True)
        cv2.imwrite(str(photos / f"{number:02d}/x.jpg"), dark_image(number))
    cv2.imwrite(str(photos / "10-.jpg"), dark_image(12))
    run(photos, tmp_path / "calm")
    s3.put(tree(photos), prefix)
    monkeypatch.setattr(objects, "lists_in_order", lambda location: True)
    monkeypatch.setattr(listing, "KEYS_PER_PAGE", 1)
    monkeypatch.setattr(listing, "KEYS_AT_ONCE", 1)
    monkeypatch.setattr(merging, "AT_ONCE", 1)
    monkeypatch.setattr("batchlight.planning.comparison.AT_ONCE", 1)
    monkeypatch.setattr("batchlight.planning.listing.STAT_AHEAD", 1)
    listed: list[bool] = []
    images = InputSet.images

    def noted(self: InputSet, soon: bool = False) -> Iterator[Input]:
        listed.append(soon)
        return images(self, soon)

    monkeypatch.setattr(InputSet, "images", noted)
    done = run(f"s3://{BUCKET}/{prefix}", tmp_path / "out")
    assert (done.inputs, done.missing) == (13, 0)
    assert listed == [True, False, False]  # the rest of the listing, and then all of it
    assert {row["input"] for row in rows(tmp_path / "out")} == set(tree(photos))


@pytest.mark.usefixtures("of_one_chunk")
def test_a_listing_that_was_cut_short_is_gone_on_with(photos: Path, tmp_path: Path) -> None:
    calm, out = tmp_path / "calm", tmp_path / "out"
    run(photos, calm)
    (tmp_path / "in/a/0000.jpg").write_bytes(b"no image")  # the first one
    failed = run(photos, out, fail_fast=True)
    assert (failed.exit_code, stored_plans(out)) == (3, 1)
    status = read_status(str(out))
    assert (status.state, status.images, status.more) == ("interrupted", 4, True)
    gone_on = run(photos, out, max_failures=1)
    assert (gone_on.inputs, gone_on.missing, stored_plans(out)) == (IMAGES, 0, 3)
    assert [row["batch"] for row in rows(out)] == [row["batch"] for row in rows(calm)]
    assert read_status(str(out)).state == "finished"


@pytest.mark.usefixtures("of_one_chunk")
def test_a_listing_whose_rest_is_gone_has_ended(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("batchlight.driver.run.each_while_the_next_is_drafted", only_the_first)
        with pytest.raises(Died):
            run(photos, out)
    shutil.rmtree(out / "_batchlight/locks")
    state = OutputState.load(opened(out))
    assert state.closed
    assert state.to_go_on_with == state.plan
    kept = {row["input"] for row in rows(out)}
    for path in photos.rglob("*.jpg"):
        if str(path.relative_to(photos)) not in kept:
            path.unlink()
    assert run(photos, out).done_now == 0
    assert (read_status(str(out)).state, read_status(str(out)).more) == ("finished", False)


def only_the_first(plans: Iterator[Plan]) -> Iterator[Plan]:
    yield next(plans)
    raise Died


@pytest.mark.usefixtures("of_one_chunk")
def test_a_collision_is_met_after_what_comes_before_it(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for suffix in ("jpg", "png"):
        cv2.imwrite(str(photos / f"z.{suffix}"), dark_image(9))
    for _ in range(2):
        with pytest.raises(UsageError, match=r"z\.jpg and z\.png would both be written"):
            run(photos, out, format="png")
        assert 0 < len(rows(out)) < IMAGES
        assert not list(out.glob("_batchlight/plan/*/*.tmp"))
    (photos / "z.png").unlink()
    assert run(photos, out, format="png").missing == 0


def opened(folder: Path) -> Storage:
    storage = open_storage(Location.parse(str(folder)))
    storage.check(writable=True)
    return storage


def drafts(folder: Path, images: int, storage: Storage) -> Iterator[Plan]:
    config = job(folder, folder / "out")
    planner = Planner(config, fingerprints_of(config, None))
    listed = (Input(f"{number:03d}.jpg", None, 100) for number in range(images))
    return draft_plans(
        storage, OutputState.load(storage), planner, planner.stretches(listed, ()), "root"
    )


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 4))
def test_plans_follow_one_another(images: int, chunks: int) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        patch.setattr(cutting, "CHUNK_ROWS", CHUNK_ROWS)
        storage = opened(folder)
        chunks_per_plan(patch, 1000)
        [whole] = drafts(folder, images, storage)
        expected = batches_of(whole, storage)
        chunks_per_plan(patch, chunks)
        found: list[Batch] = []
        counts = PlanCounts()
        for plan in drafts(folder, images, storage):
            assert plan.first == len(found)
            found += batches_of(plan, storage)
            counts += plan.counts
            last = found[-1].inputs[-1].path
            ended = len(found) == len(expected)
            assert plan.continues_after == (None if ended else last)
            todo = sum(len(batch.inputs) for batch in batches_of(plan, storage))
            assert (plan.rows, plan.counts.todo, plan.counts.todo_bytes) == (todo, todo, 100 * todo)
        assert found == expected
        assert counts == whole.counts


def batches_of(plan: Plan, storage: Storage) -> list[Batch]:
    return [batch for chunk in plan.chunks for batch in plan.batches_of(storage, chunk)]


def test_each_plan_is_twice_as_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "CHUNK_ROWS", CHUNK_ROWS)
    chunks_per_plan(monkeypatch, 1, 4)
    plans = list(drafts(tmp_path, 12 * CHUNK_ROWS + 1, opened(tmp_path)))
    assert [len(plan.chunks) for plan in plans] == [1, 2, 4, 4, 2]


some_counts = st.builds(
    PlanCounts,
    **{name: st.integers(0, 9) for name in ("inputs", "todo", "batches", "gone", "others")},
    passed_over=st.dictionaries(st.sampled_from([".txt", ".heic"]), st.integers(1, 9)).map(
        lambda found: tuple(sorted(found.items()))
    ),
)


@given(some_counts, some_counts)
def test_counts_add_up(one: PlanCounts, other: PlanCounts) -> None:
    both = one + other
    assert both - other == one
    assert both - one == other
    assert {field.name for field in fields(both)} == set(vars(both))


@pytest.mark.usefixtures("of_one_chunk")
def test_the_next_plan_is_drafted_meanwhile(tmp_path: Path) -> None:
    storage = opened(tmp_path)
    plans = each_while_the_next_is_drafted(drafts(tmp_path, 12, storage))
    first = next(plans)
    assert soon(lambda: chunks_in(tmp_path) == 2)
    time.sleep(0.05)
    assert chunks_in(tmp_path) == 2  # one ahead, and no more
    second = next(plans)
    assert (first.next_batch, second.next_batch) == (second.first, 4)
    assert soon(lambda: chunks_in(tmp_path) == 3)
    plans.close()


def test_a_draft_that_nobody_waits_for_writes_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "CHUNK_ROWS", CHUNK_ROWS)
    chunks_per_plan(monkeypatch, 2)
    storage = opened(tmp_path)
    begun: list[str] = []
    written: list[str] = []
    write = LocalStorage.write

    def slow(self: LocalStorage, path: str, *arguments: Any) -> None:
        begun.append(path)
        time.sleep(0.2)
        written.append(path)
        write(self, path, *arguments)

    monkeypatch.setattr(LocalStorage, "write", slow)
    plans = each_while_the_next_is_drafted(drafts(tmp_path, 100, storage))
    next(plans)
    assert soon(lambda: len(begun) == 3)  # the first of the next plan's
    plans.close()
    time.sleep(0.6)
    assert len(begun) == 3
    assert written == begun[: len(written)]
    assert len(written) >= 2


def chunks_in(folder: Path) -> int:
    return len(list(folder.glob("_batchlight/plan/*/*.parquet")))


def soon(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_progress_of_a_listing_that_goes_on_has_no_end() -> None:
    state = Progress(done=500, total=1000, failed=0, elapsed_s=10.0, more=True)
    assert (state.eta_s, state.of_how_many) == (None, "1,000+")
    ended = Progress(done=500, total=1000, failed=0, elapsed_s=10.0)
    assert (ended.eta_s, ended.of_how_many) == (10.0, "1,000")
