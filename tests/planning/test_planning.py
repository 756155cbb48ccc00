"""Planning: listings against earlier records, batches, collisions, and plans that are stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchlight.config import JobConfig
from batchlight.driver.drafting import draft_plans
from batchlight.driver.network import fingerprints_of
from batchlight.errors import ErrorCode, UsageError
from batchlight.images.names import output_name
from batchlight.output.commit import close_plan, store_plan
from batchlight.output.earlier import Earlier, earlier_rows
from batchlight.output.inputs import Batch, Input, in_order_of_keys
from batchlight.output.layout import BatchRange, metadata_path
from batchlight.output.plan import Plan
from batchlight.output.recordfiles import to_parquet
from batchlight.output.records import Record, as_table
from batchlight.output.state import OutputState
from batchlight.planning import cutting, merging
from batchlight.planning.planner import Planner
from batchlight.storage import Location, Storage, open_storage

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
CONFIG = JobConfig(input="in", batch_size=3)
FINGERPRINTS = fingerprints_of(CONFIG, None)


def image(path: str, size: int = 10) -> Input:
    return Input(path, size=size, modified=WHEN)


def row(path: str, code: ErrorCode | None = None, size: int = 10) -> Earlier:
    digest = CONFIG.fingerprint("classical").digest
    output = None if code else f"classical/{path}"
    status = "failed" if code else "ok"
    return Earlier(path, "classical", status, code, size, WHEN, None, digest, output, 0, 0)


def planned(
    images: list[Input], earlier: list[Earlier], config: JobConfig = CONFIG, first: int = 0
) -> tuple[list[Batch], Planner]:
    planner = Planner(config, fingerprints_of(config, None))
    chunks = planner.chunks(planner.stretches(images, earlier), first)
    return [planned.batch for chunk in chunks for planned in chunk], planner


def drafted(
    storage: Storage, state: OutputState, images: Iterable[Input], config: JobConfig = CONFIG
) -> Iterator[Plan]:
    planner = Planner(config, FINGERPRINTS)
    stretches = planner.stretches(images, earlier_rows(storage, state))
    return draft_plans(storage, state, planner, stretches, "root")


def paths(batches: list[Batch]) -> list[list[str]]:
    return [[item.path for item in batch.inputs] for batch in batches]


def test_batches_hold_the_listing_in_order() -> None:
    batches, planner = planned([image(f"{n}.jpg") for n in range(7)], [], first=5)
    assert paths(batches) == [
        ["0.jpg", "1.jpg", "2.jpg"],
        ["3.jpg", "4.jpg", "5.jpg"],
        ["6.jpg"],
    ]
    assert [batch.number for batch in batches] == [5, 6, 7]
    assert (planner.counts.new, planner.counts.todo_bytes) == (7, 70)


@pytest.mark.parametrize(
    ("listed", "recorded", "options", "redone"),
    [
        (image("a.jpg"), row("a.jpg"), {}, False),
        (image("a.jpg", size=11), row("a.jpg"), {}, True),
        (replace(image("a.jpg"), modified=WHEN.replace(microsecond=0)), row("a.jpg"), {}, True),
        (replace(image("a.jpg"), etag="1"), replace(row("a.jpg"), etag="1"), {}, False),
        (replace(image("a.jpg"), etag="2"), replace(row("a.jpg"), etag="1"), {}, True),
        # On object stores the etag decides: a copy of the same bytes has a new date.
        (
            replace(image("a.jpg"), etag="1", modified=WHEN.replace(year=2027)),
            replace(row("a.jpg"), etag="1"),
            {},
            False,
        ),
        (image("a.jpg"), row("a.jpg", ErrorCode.CORRUPT), {}, False),
        (image("a.jpg"), row("a.jpg", ErrorCode.CORRUPT), {"retry_failed": True}, True),
        (image("a.jpg"), row("a.jpg", ErrorCode.MISSING), {}, True),
        (image("a.jpg"), row("a.jpg", ErrorCode.UNREADABLE), {}, True),
        (image("a.jpg"), row("a.jpg", ErrorCode.WRITE_FAILED), {}, True),
        (image("a.jpg"), row("a.jpg"), {"retry_failed": True}, False),
        (image("a.jpg"), row("a.jpg"), {"overwrite": True}, True),
        (image("a.jpg"), replace(row("a.jpg"), fingerprint="of other parameters"), {}, True),
    ],
)
def test_what_is_redone(
    listed: Input, recorded: Earlier, options: dict[str, bool], redone: bool
) -> None:
    batches, planner = planned([listed], [recorded], CONFIG.model_copy(update=options))
    assert bool(batches) == redone
    assert planner.counts.unchanged == (not redone)


names = st.lists(st.text("ab./-é", min_size=1, max_size=4).map(lambda s: s + ".jpg"), unique=True)


@given(listed=names, recorded=names)
def test_merge_equals_a_set_difference(listed: list[str], recorded: list[str]) -> None:
    batches, planner = planned(
        [image(path) for path in sorted(listed)], [row(path) for path in sorted(recorded)]
    )
    todo = [path for batch in paths(batches) for path in batch]
    assert todo == sorted(set(listed) - set(recorded))
    counts = planner.counts
    assert counts.unchanged == len(set(listed) & set(recorded))
    assert counts.gone == counts.gone_tally.ok == len(set(recorded) - set(listed))


stems = st.text("ab.", min_size=1, max_size=3)
suffixes = st.sampled_from([".jpg", ".JPG", ".jpeg", ".png", ".tif"])


@given(st.lists(st.tuples(st.sampled_from(["", "a/", "a.b/"]), stems, suffixes), unique=True))
def test_collisions_are_found_wherever_they_are(files: list[tuple[str, str, str]]) -> None:
    images = [image(path) for path in sorted("".join(parts) for parts in files)]
    config = CONFIG.model_copy(update={"format": "png"})
    outputs = [output_name(item.path, "png") for item in images]
    if len(set(outputs)) == len(outputs):
        planned(images, [], config)
    else:
        with pytest.raises(UsageError, match="would both be written to"):
            planned(images, [], config)


listings = st.lists(
    st.tuples(stems, st.sampled_from([".jpg", ".jpg", ".png", ".tar", ".txt"])), unique=True
)


@given(listings, st.sets(st.text("ab.", min_size=1, max_size=2)), st.integers(1, 9))
def test_how_many_are_looked_at_together_changes_nothing(
    files: list[tuple[str, str]], recorded: set[str], at_once: int
) -> None:
    config = CONFIG.model_copy(update={"format": "png", "copy_others": True})
    listed = sorted("".join(parts) for parts in files)
    images = [replace(image(path), container=path.endswith(".tar")) for path in listed]
    earlier = [row(f"{stem}.jpg") for stem in sorted(recorded)]
    found: list[object] = []
    for number in (1, at_once, 1024):
        with patch.object(merging, "AT_ONCE", number):
            try:
                batches, planner = planned(list(in_order_of_keys(images)), earlier, config)
                found.append((batches, planner.counts, planner.findings.pairs))
            except UsageError as error:
                found.append(str(error))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(("gone", "new"), [("a.png", "a.tif"), ("a.tif", "a.png")])
def test_an_image_does_not_overwrite_the_output_of_one_that_is_gone(gone: str, new: str) -> None:
    config = CONFIG.model_copy(update={"format": "jpeg"})
    done = replace(row(gone), output="classical/a.jpg")
    neighbour = image("a.s.bmp")
    batches, planner = planned([image(new), neighbour][:: 1 if new < "a.s" else -1], [done], config)
    found = {item.path: item.defect for batch in batches for item in batch.inputs}
    assert found.pop(neighbour.path) is None
    assert f"classical/a.jpg is the output of {gone}, which this run does not list" in str(
        found[new]
    )
    assert (planner.counts.new, planner.counts.gone) == (2, 1)


def test_one_that_is_gone_and_has_no_output_is_in_no_way() -> None:
    config = CONFIG.model_copy(update={"format": "jpeg"})
    for earlier in (row("a.png", ErrorCode.CORRUPT), replace(row("a.png"), output="absgn/a.jpg")):
        batches, _ = planned([image("a.tif")], [earlier], config)
        assert batches[0].inputs[0].defect is None


def test_a_collision_names_both() -> None:
    config = CONFIG.model_copy(update={"format": "webp"})
    images = [image("x/a.jpg"), image("x/a.kk.png"), image("x/a.png")]
    with pytest.raises(
        UsageError,
        match=r"^x/a\.jpg and x/a\.png would both be written to classical/x/a\.webp; rename or "
        "--exclude one of them, or give --format same",
    ):
        planned(images, [], config)
    for old, new in (("jpg", "png"), ("png", "jpg")):
        done = replace(row(f"x/a.{old}"), output="classical/x/a.webp")
        with pytest.raises(
            UsageError,
            match=rf"^classical/x/a\.webp is the output of x/a\.{old}, and x/a\.{new} would be "
            rf"written to it as well; rename or --exclude x/a\.{new}, or choose another --output",
        ):
            planned(images, [done], config)


def test_a_stored_plan_reads_back_and_counts_only_when_whole(tmp_path: Path) -> None:
    storage = open_storage(Location.parse(str(tmp_path)))
    storage.check(writable=True)
    images = [
        Input("a.jpg", "/else/where/a.jpg", 1, WHEN, "tag"),
        Input("b.jpg", None, None, None, None, "a defect"),
        *[image(f"c{n}.jpg") for n in range(5)],
    ]
    recorded = Record(
        input="c0.jpg",
        method="classical",
        status="ok",
        input_bytes=9,
        batch=0,
        attempts=1,
        worker="host:1",
        run_id="run",
        fingerprint="f",
        finished_at=WHEN,
    )
    path = metadata_path(BatchRange(0, 0))
    storage.write(path, to_parquet(as_table([recorded]), path))
    state = OutputState.load(storage)
    [plan] = drafted(storage, state, images)
    # Numbers go on after those of the records, whose plan is gone here.
    assert (plan.counts.todo, plan.counts.batches, plan.rows, plan.first) == (7, 3, 7, 1)
    expected = [replace(b, number=b.number + 1) for b in planned(images, [])[0]]
    assert plan.rows_by_method == {"classical": 7}
    assert OutputState.load(storage).plan is None  # without its end mark it is no plan
    state = store_plan(storage, state, plan)
    assert state == OutputState.load(storage)
    assert state.unfinished == plan
    assert batches_of(plan, storage) == expected
    assert plan.batches_of(storage, BatchRange(2, 2)) == expected[1:2]
    assert plan.read_chunk(storage, plan.chunks[0])["again"].to_pylist().count(True) == 1
    assert plan.rows_left(storage, {1, 3}) == {"classical": len(expected[1].inputs)}

    state = close_plan(storage, state)
    assert state == OutputState.load(storage)
    assert (state.plan, state.unfinished) == (plan, None)

    # A plan whose end mark is not there yet is no plan.
    [later] = drafted(storage, state, images)
    assert OutputState.load(storage).plan == plan
    state = store_plan(storage, state, later)
    assert OutputState.load(storage).plan == later
    (tmp_path / "_batchlight/plan/0000000004.json").unlink()
    assert OutputState.load(storage).plan == plan


def test_a_refused_plan_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "CHUNK_ROWS", 2)
    storage = open_storage(Location.parse(str(tmp_path)))
    storage.check(writable=True)
    state = OutputState.load(storage)
    images = [*(image(f"{n:03d}.jpg") for n in range(9)), image("z.jpg"), image("z.png")]
    config = CONFIG.model_copy(update={"format": "png"})
    with pytest.raises(UsageError, match="would both be written to"):
        list(drafted(storage, state, images, config))
    assert not list(tmp_path.glob("_batchlight/plan/*/*"))
    # Nor does one that was cut off: the next draft begins with an empty folder.
    storage.write("_batchlight/plan/0000000000/0000000007-0000000009.parquet", b"cut off")
    list(drafted(storage, state, images[:1], config))
    assert len(list(tmp_path.glob("_batchlight/plan/*/*"))) == 1


KINDS = {"ok": None, "skipped": None, "failed": ErrorCode.CORRUPT}


@given(
    listed=st.sets(st.integers(0, 12)),
    recorded=st.dictionaries(st.integers(0, 12), st.sampled_from(sorted(KINDS))),
    limit=st.none() | st.integers(1, 12),
)
def test_each_row_is_unchanged_gone_or_beyond_the_limit(
    listed: set[int], recorded: dict[int, str], limit: int | None
) -> None:
    earlier = [
        replace(row(f"{number:02d}.jpg", KINDS[kind]), status=kind)
        for number, kind in sorted(recorded.items())
    ]
    first = sorted(listed)[:limit]
    config = CONFIG.model_copy(update={"limit": limit})
    batches, planner = planned([image(f"{n:02d}.jpg") for n in first], earlier, config)
    new = [f"{number:02d}.jpg" for number in first if number not in recorded]
    assert [path for batch in paths(batches) for path in batch] == new
    unlisted = {number: kind for number, kind in recorded.items() if number not in first}
    looked_at = unlisted if limit is None or len(first) < limit else range(first[-1])
    gone = Counter(kind for number, kind in unlisted.items() if number in looked_at)
    beyond = Counter(unlisted.values()) - gone
    counts = planner.counts
    assert (counts.inputs, counts.unchanged) == (len(first), len(first) - len(new))
    assert (counts.gone, counts.not_selected) == (gone.total(), beyond.total())
    for tally, wanted in ((counts.gone_tally, gone), (counts.not_selected_tally, beyond)):
        assert (tally.ok, tally.skipped, tally.failed) == tuple(
            wanted[kind] for kind in ("ok", "skipped", "failed")
        )


def test_chunks_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "CHUNK_ROWS", 6)
    storage = open_storage(Location.parse(str(tmp_path)))
    storage.check(writable=True)
    images = (image(f"{n:03d}.jpg") for n in range(20))
    state = OutputState.load(storage)
    [plan] = drafted(storage, state, images)
    assert [(c.first, c.last) for c in plan.chunks] == [(0, 1), (2, 3), (4, 5), (6, 6)]
    assert len(batches_of(plan, storage)) == 7


def batches_of(plan: Plan, storage: Storage) -> list[Batch]:
    return [batch for chunk in plan.chunks for batch in plan.batches_of(storage, chunk)]
