"""A listing surveyed in parts gives exactly the same result as one made as a whole."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchlight.config import JobConfig
from batchlight.driver import surveying
from batchlight.driver.network import fingerprints_of
from batchlight.driver.surveying import ListingWay, listed_and_compared
from batchlight.engine import Engine, InProcessEngine
from batchlight.errors import UsageError
from batchlight.output.layout import BatchRange, metadata_path
from batchlight.output.recordfiles import to_parquet
from batchlight.output.records import Record, as_table
from batchlight.output.state import OutputState
from batchlight.planning.cutting import Stretch
from batchlight.planning.extrapolation import keys_ahead
from batchlight.planning.listing import open_inputs
from batchlight.planning.planner import Planner
from batchlight.storage import FileInfo, KeyRange, Location, open_storage
from batchlight.storage.base import OutOfOrderError
from batchlight.storage.ranges import ListingPart, part_of, shared_letters

WHEN = datetime(2026, 1, 2, tzinfo=UTC)
FOLDERS = ["", "a/", "a.b/", "a.jpg/", "b/0/", "b/1/"]
PLAIN = st.tuples(
    st.sampled_from(FOLDERS),
    st.text("01a.-", min_size=1, max_size=4),
    st.sampled_from([".jpg", ".jpg", ".png", ".txt", ""]),
).map("".join)
NUMBERED = st.integers(0, 200).map(lambda number: f"n/{number:03d}.jpg")
keys = st.one_of(
    st.sets(PLAIN, max_size=60),
    st.sets(PLAIN, min_size=20, max_size=60),
    st.sets(NUMBERED, min_size=30, max_size=90),
    st.sets(PLAIN | NUMBERED, min_size=40, max_size=90),
)
KEYS_PER_PAGE = 3


@dataclass
class Bucket:
    """A store in memory that lists in order."""

    keys: set[str]
    in_order: bool = True
    asked: list[KeyRange] = field(default_factory=list)

    def walk(self, at_most: int | None = None, soon: bool = False) -> Iterator[FileInfo]:
        shown = (key for key in sorted(self.keys) if "/." not in f"/{key}" and not is_mark(key))
        return map(self._file, shown)

    def part(self, within: KeyRange, at_most: int) -> ListingPart:
        self.asked.append(within)
        listed = sorted(self.keys)
        left = listed[bisect_right(listed, within.after) :]

        def next_page() -> list[FileInfo]:
            page = [self._file(key) for key in left[:KEYS_PER_PAGE]]
            del left[:KEYS_PER_PAGE]
            return page

        return part_of(next_page, within, at_most, lambda info: is_mark(info.path))

    def _file(self, key: str) -> FileInfo:
        return FileInfo(key, 0 if is_mark(key) else 1 + len(key), WHEN, f'"{key}"')


@given(keys, st.integers(1, 5), st.sampled_from(["", "a", "a/1", "b/"]))
def test_parts_are_the_whole(found: set[str], at_most: int, after: str) -> None:
    bucket, listed = Bucket(found), list[str]()
    rest: KeyRange | None = KeyRange(after)
    while rest is not None:
        try:
            part = bucket.part(rest, at_most)
        except OutOfOrderError:  # there is no place to cut among so many
            assert any(not may_be_parted(*pair) for pair in pairwise(sorted(found)))
            return
        assert part.listed.after == rest.after
        assert all(file.path in part.listed for file in part.files)
        assert part.rest is None or part.rest.after == part.listed.up_to
        listed += [file.path for file in part.files]
        rest = part.rest
    assert listed == [file.path for file in bucket.walk() if file.path > after]


def is_mark(key: str) -> bool:
    """Whether an object stands for a folder, in this store."""
    return key.endswith("-")


def may_be_parted(before: str, after: str) -> bool:
    """Whether a key may separate the two: after the one, and before the other."""
    key = after[: shared_letters(before, after) + 1]
    is_key = key != after and key.rpartition("/")[2] not in ("", ".", "..")
    return is_key and not after.startswith(stem(before))


def stem(path: str) -> str:
    return path.rpartition(".")[0] + "."


@given(keys)
def test_what_shares_a_stem_stays_together(found: set[str]) -> None:
    """If that shows within one folder; otherwise it shows when the parts are joined."""
    bucket, parts = Bucket(found), list[list[str]]()
    rest: KeyRange | None = KeyRange()
    while rest is not None:
        try:
            part = bucket.part(rest, 1)
        except OutOfOrderError:
            return
        parts.append([file.path for file in part.files])
        rest = part.rest
    for before, after in pairwise([part for part in parts if part]):
        if "/" not in before[-1] + after[0]:
            assert not after[0].startswith(stem(before[-1]))


@pytest.mark.parametrize(
    "listed",
    [["a.jpg", "c.jpg", "b.jpg"], ["a.jpg", "a.jpg"], ["a\n.jpg"], ["x/_batchlight/locks/0"]],
)
def test_what_cannot_be_listed_in_parts(listed: list[str]) -> None:
    pages = iter([[FileInfo(key, 1) for key in listed], []])
    with pytest.raises(OutOfOrderError):
        part_of(lambda: next(pages), KeyRange(), 10, lambda info: False)


@pytest.mark.parametrize(
    ("pages", "listed"),
    [
        (["", "a.jpg"], ["a.jpg"]),  # the mark of the prefix itself
        (["train-x/1.jpg", "train", "train/1.jpg"], ["train-x/1.jpg", "train/1.jpg"]),
    ],
)
def test_marks_of_folders_come_late(pages: list[str], listed: list[str]) -> None:
    """Their keys end in a slash, which is not shown."""
    marks = {"", "train"}
    found = iter([[FileInfo(key, int(key not in marks)) for key in pages], []])
    part = part_of(lambda: next(found), KeyRange(), 10, lambda info: info.path in marks)
    assert [file.path for file in part.files] == listed


@pytest.mark.parametrize(
    "pages",
    [["a/-1.2.jpg", "a/.hidden", "a/b.jpg"], ["train-x/1.jpg", "train/1.jpg", "train/2.jpg"]],
)
def test_no_part_begins_where_the_client_sees_another_key(pages: list[str]) -> None:
    bucket, listed = Bucket(set(pages)), list[str]()
    rest: KeyRange | None = KeyRange()
    while rest is not None:
        part = bucket.part(rest, 2)
        assert (part.listed.up_to or "x").rpartition("/")[2] not in ("", ".", "..")
        listed += [file.path for file in part.files]
        rest = part.rest
    assert listed == [path for path in pages if "/." not in path]


@given(PLAIN, PLAIN, st.floats(0.01, 100), st.integers(1, 20))
def test_keys_ahead_ascend(one: str, other: str, times: float, number: int) -> None:
    first, last = sorted((one, other))
    found = keys_ahead(first, last, times, number)
    assert len(found) <= number
    assert found == sorted(set(found))
    assert all(key > last[: len(key)] for key in found)


@pytest.mark.parametrize(
    ("first", "last", "ahead"),
    [
        ("x/0000.jpg", "x/0250.jpg", ["x/0500", "x/0750", "x/1000"]),
        ("00a1.png", "3fff.png", ["7f5d", "bebb", "fe19"]),
        ("n01440764/a.JPEG", "n01530575/b.JPEG", ["n01620386", "n01710197", "n01800008"]),
        (
            "cam-000/0000/9.jpg",
            "cam-000/0300/1.jpg",
            ["cam-000/0600", "cam-000/0900", "cam-000/1200"],
        ),
        ("x/9998.jpg", "x/9999.jpg", []),
        ("x.jpg", "x.png", ["x.vlg"]),
        ("", "-.jpg", []),
    ],
)
def test_where_names_are_taken_to_go_on(first: str, last: str, ahead: list[str]) -> None:
    assert keys_ahead(first, last, 1, 3) == ahead


@dataclass
class Shuffled:
    """Workers that answer in any order."""

    seed: int
    calls: int = 0
    under_way: int = 0
    most: int = 0

    async def call(
        self, function: Callable[..., Any], *arguments: object, timeouts: float = 1
    ) -> Any:
        self.calls += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(random.Random(self.seed + self.calls).random() / 500)
        self.under_way -= 1
        return function(*arguments)


class Job:
    """A data set in a bucket, and the records of some of it."""

    def __init__(self, folder: str, bucket: Bucket, recorded: set[str], options: dict[str, Any]):
        (Path(folder) / "in").mkdir()
        self.config = JobConfig(input=f"{folder}/in", output=f"{folder}/out", **options)
        self.output = Location.parse(f"{folder}/out")
        self.storage = open_storage(self.output)
        self.storage.check(writable=True)
        self.bucket = bucket
        self.fingerprints = fingerprints_of(self.config, None)
        for number, name in enumerate(sorted(recorded)):
            self._record(number, name)

    def _record(self, number: int, name: str) -> None:
        digest = self.fingerprints["classical"].digest
        record = Record(
            input=name,
            output=f"classical/{name}",
            method="classical",
            status="ok",
            input_bytes=1 + len(name) - name.count("1"),
            input_etag=f'"{name}"',
            input_modified=WHEN,
            batch=number,
            attempts=1,
            worker="here",
            run_id="before",
            fingerprint=digest,
            finished_at=WHEN,
        )
        path = metadata_path(BatchRange(number, number))
        self.storage.write(path, to_parquet(as_table([record]), path))

    def outcome(self, way: ListingWay, engine: Engine | None = None) -> Any:
        """The result of listing this way: the stretches, joined, and everything that is counted."""
        inputs = open_inputs(self.config)
        with patch("batchlight.planning.listing.open_source", lambda *_, **__: self.bucket):
            planner = Planner(self.config, self.fingerprints, inputs.passed_over)
            where = inputs, self.output, self.storage, OutputState.load(self.storage)
            found, error = [], None
            with closing(listed_and_compared(planner, *where, way, always(engine))) as listing:
                try:
                    for stretch in listing.stretches:
                        found += batches_of(stretch)
                except UsageError as problem:
                    error = str(problem)
        return found, error, planner.counts if error is None else None, inputs.patterns.used


def always(engine: Any) -> Callable[[], Any]:
    return lambda: engine


def batches_of(stretch: Stretch) -> list[tuple[Any, ...]]:
    return [(stretch.kind, *row.values()) for row in stretch.rows.to_pylist()]


@contextmanager
def small_parts(at_once: int) -> Iterator[None]:
    with (
        patch.object(surveying, "KEYS_IN_THE_DRIVER", 6),
        patch.object(surveying, "KEYS_AT_ONCE", 3),
        patch.object(surveying, "KEYS_PER_PART", 4),
        patch.object(surveying, "KEYS_AT_MOST", 5),
        patch.object(surveying, "PARTS_AT_ONCE", at_once),
    ):
        yield


@settings(max_examples=8, deadline=None)
@given(
    keys,
    st.sets(PLAIN.filter(lambda key: key.endswith((".jpg", ".png"))), max_size=12),
    st.sampled_from([{}, {"format": "png"}, {"include": ("b/", "*.png")}, {"overwrite": True}]),
    st.integers(0, 1000),
)
def test_any_number_of_surveyors_finds_the_same(
    found: set[str], recorded: set[str], options: dict[str, Any], seed: int
) -> None:
    with TemporaryDirectory() as folder:
        job = Job(folder, Bucket(found), recorded, options)
        whole = job.outcome(ListingWay.AS_A_WHOLE)
        for at_once in (1, 7, 200):
            with small_parts(at_once):
                try:
                    parts = job.outcome(ListingWay.IN_PARTS, Shuffled(seed))  # type: ignore[arg-type]
                    alone = job.outcome(ListingWay.IN_PARTS, InProcessEngine())
                except OutOfOrderError:  # names whose parts depend on one another
                    assert any("." in key.rpartition("/")[0] or key.count(".") > 1 for key in found)
                    continue
            assert parts == alone == whole
