"""Listings of stores, sorted as a whole or, where the store lists in order, some keys at a time."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchlight.storage import FileInfo, Location, listing
from batchlight.storage.base import OutOfOrderError, escape_controls
from batchlight.storage.listing import SortingTable, lists_in_order, sorting_table

PAGE = 3

folders = st.sampled_from(["", "a/", "a/b/", "a-/", "Z/", "_batchlight/", "a/_batchlight/"])
names = st.text("aZ0_-.\x01\x7f/é", min_size=1, max_size=3)
keys = st.builds(str.__add__, folders, names)


def pages_of(paths: list[str]) -> Iterator[list[FileInfo]]:
    for first in range(0, len(paths), PAGE):
        yield [FileInfo(path, 1) for path in paths[first : first + PAGE]]


def inputs(table: SortingTable, paths: list[str]) -> Iterator[str]:
    for page in pages_of(paths):
        table.add(page)
        yield from (info.path for info in table.ready(page[-1].path))
    yield from (info.path for info in table.inputs())


@given(st.lists(keys, max_size=30, unique=True), st.integers(1, 20))
@example(["a\x01b", "aA", "aB", "aC", "a_"], 1)
@example(["0", "00", "a/0", "a/_batchlight/0"], 1)
def test_some_keys_at_a_time_come_as_all_at_once(paths: list[str], at_once: int) -> None:
    paths.sort(key=str.encode)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "KEYS_AT_ONCE", at_once)
        with sorting_table() as table:
            whole = list(inputs(table, paths))
        with sorting_table(in_order=True) as table:
            try:
                found = list(inputs(table, paths))
            except OutOfOrderError:
                assert any(path.encode() > escape_controls(path).encode() for path in paths)
                return
    assert found == sorted(found, key=str.encode)
    # What stands beside an output's state and is listed before it is taken for an input.
    late = [path for path in found if path not in whole]
    # By then, it is also too late to name the folder as one that is left out.
    assert {path for path in whole if not path.endswith("/")} <= set(found)
    assert all(path < f"{folder}_batchlight" for path in late for folder in [_output_of(path)])


def _output_of(path: str) -> str:
    return "a/" if path.startswith("a/") else ""


def test_they_come_as_they_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "KEYS_AT_ONCE", 4)
    paths = [f"{number:02d}.jpg" for number in range(10)]
    ready = []
    with sorting_table(in_order=True) as table:
        for page in pages_of(paths):
            table.add(page)
            ready.append([info.path for info in table.ready(page[-1].path)])
        rest = [info.path for info in table.inputs()]
    assert ready == [[], paths[:6], [], paths[6:]]
    assert not rest


def test_an_output_that_shows_late_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listing, "KEYS_AT_ONCE", 1)
    with sorting_table(in_order=True) as table:
        paths = ["out/1.jpg", "out/2.jpg", "out/3.jpg", "out/_batchlight/x", "out/classical/1.jpg"]
        assert list(inputs(table, paths)) == paths[:3]
    assert "out turned out to be the output of a run" in caplog.text
    assert "--exclude" in caplog.text


def test_another_thread_goes_on_with_it() -> None:
    with sorting_table() as table:
        table.add([FileInfo("b", 1), FileInfo("a", 1)])
        found: list[str] = []
        thread = Thread(target=lambda: found.extend(info.path for info in table.inputs()))
        thread.start()
        thread.join()
    assert found == ["a", "b"]


@pytest.mark.parametrize(
    ("place", "endpoint", "in_order"),
    [
        ("s3://bucket/x", "", True),
        ("s3://bucket/x", "http://localhost:8333", False),
        ("s3://bucket--use1-az4--x-s3", "", False),
        ("gs://bucket", "", True),
        ("az://container", "", False),
    ],
)
def test_who_lists_in_order(
    monkeypatch: pytest.MonkeyPatch, place: str, endpoint: str, in_order: bool
) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        monkeypatch.setenv(name, endpoint)
    assert lists_in_order(Location.parse(place)) is in_order
