"""The files of records of a range of inputs: no other is opened."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchlight.output import recordfiles
from batchlight.output.earlier import EarlierFiles, earlier_rows, rows_within
from batchlight.output.layout import BatchRange, metadata_path
from batchlight.output.recordfiles import DamagedRecordsError, input_span, to_parquet
from batchlight.output.records import Record, as_table
from batchlight.output.state import OutputState
from batchlight.storage import KeyRange, Location, Storage, open_storage


def record(name: str, batch: int) -> Record:
    return Record(
        input=name,
        method="classical",
        status="ok",
        input_bytes=1,
        batch=batch,
        attempts=1,
        worker="here",
        run_id="before",
        fingerprint="f",
        finished_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def put(storage: Storage, plan: int, number: int, names: list[str]) -> str:
    batch = 100 * plan + number
    path = metadata_path(BatchRange(batch, batch))
    storage.write(path, to_parquet(as_table(record(name, batch) for name in names), path))
    return path


def opened(folder: Path) -> Storage:
    storage = open_storage(Location.parse(str(folder)))
    storage.check(writable=True)
    return storage


NAMES = st.lists(st.text("abc/é", min_size=1, max_size=4), unique=True, max_size=30)


@given(st.lists(NAMES, max_size=3), st.text("abc", max_size=2), st.text("abc", max_size=2))
def test_all_records_of_a_range_and_no_others(
    tmp_path_factory: pytest.TempPathFactory, plans: list[list[str]], after: str, up_to: str
) -> None:
    storage = opened(tmp_path_factory.mktemp("out"))
    for plan, names in enumerate(plans):
        ordered = sorted(names)
        for number, start in enumerate(range(0, len(ordered), 4)):
            put(storage, plan, number, ordered[start : start + 4])
    state = OutputState.load(storage)
    state = OutputState(tuple(range(0, 300, 100)), None, True, state.parts, state.metadata)
    keys = KeyRange(after, up_to or None)
    files = EarlierFiles(storage, state).within(keys)
    found = [row.path for row in rows_within(storage, files, keys)]
    assert found == [row.path for row in earlier_rows(storage, state) if row.path in keys]
    for path in (path for some in files for path in some):
        first, last = input_span(storage, path)
        assert last > after
        assert not up_to or first <= up_to


@pytest.mark.parametrize("statistics", [True, False])
def test_what_a_file_spans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statistics: bool
) -> None:
    storage = opened(tmp_path)
    monkeypatch.setattr(recordfiles, "FOOTER_BYTES", 16)
    buffer = io.BytesIO()
    table = as_table(record(name, 0) for name in ("a/é.jpg", "b.jpg", "c" * 300))
    pq.write_table(table, buffer, write_statistics=statistics, row_group_size=2)
    storage.write("metadata/x.parquet", buffer.getvalue())
    assert input_span(storage, "metadata/x.parquet") == ("a/é.jpg", "c" * 300)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no records at all", b"\xff" * 100])
def test_a_file_that_is_none(tmp_path: Path, data: bytes) -> None:
    storage = opened(tmp_path)
    storage.write("metadata/x.parquet", data)
    with pytest.raises(DamagedRecordsError):
        input_span(storage, "metadata/x.parquet")
    storage.delete("metadata/x.parquet")
    with pytest.raises(DamagedRecordsError):
        input_span(storage, "metadata/x.parquet")
