"""Rows are read once each while a run moves them from file to file."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import batchlight
from batchlight.output import moving, status
from batchlight.output.commit import Move, moved
from batchlight.output.layout import METADATA, PARTS, BatchRange, part_path, range_of
from batchlight.output.lock import Lock, holder_of, new_run_id
from batchlight.output.moving import failed_rows, read_whole
from batchlight.output.recordfiles import (
    DamagedRecordsError,
    VanishedRecordsError,
    read_records,
    to_parquet,
)
from batchlight.output.records import SCHEMA
from batchlight.output.state import OutputState
from batchlight.report import write_report
from batchlight.storage import Location, Storage, open_storage
from batchlight.storage.local import LocalStorage
from tests.support.helpers import write_images

BATCHES = (0, 1, 2)


def failed_row(batch: int) -> pa.Table:
    row = {"input": f"{batch}.jpg", "method": "classical", "status": "failed", "batch": batch}
    columns = [pa.array([row.get(field.name)], field.type) for field in SCHEMA]
    return pa.Table.from_arrays(columns, SCHEMA.names)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """An output with the parts of three batches."""
    opened = open_storage(Location.parse(str(tmp_path)))
    opened.check(writable=True)
    for batch in BATCHES:
        path = part_path(batch)
        opened.create(path, to_parquet(failed_row(batch), path))
    return opened


def move(storage: Storage) -> None:
    """What a run does as it closes its plan."""
    moved(storage, Move(BatchRange(BATCHES[0], BATCHES[-1]), BATCHES))


@pytest.mark.parametrize("moment", [PARTS, METADATA])
@pytest.mark.parametrize("when", ["before", "after"])
def test_rows_that_are_moved_between_two_listings_are_in_one_of_them(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, moment: str, when: str
) -> None:
    names: Callable[[LocalStorage, str], list[str]] = LocalStorage.names

    def listed(self: LocalStorage, folder: str) -> list[str]:
        if folder != moment:
            return names(self, folder)
        monkeypatch.undo()
        if when == "before":
            move(storage)
        found = names(self, folder)
        if when == "after":
            move(storage)
        return found

    monkeypatch.setattr(LocalStorage, "names", listed)
    state = OutputState.load(storage)
    assert all(state.has_moved(batch) or batch in state.parts for batch in BATCHES)
    where = [range_of(path) for path in state.record_files]
    assert [sum(batch in found for found in where) for batch in BATCHES] == [1, 1, 1]


Read = Callable[[LocalStorage, str], bytes]


def move_before_reading(storage: Storage, monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    """Have all rows moved at the moment when a part is about to be read."""
    read: Read = LocalStorage.read

    def moving_first(self: LocalStorage, path: str) -> bytes:
        if path == part_path(part):
            monkeypatch.undo()
            move(storage)
        return read(self, path)

    monkeypatch.setattr(LocalStorage, "read", moving_first)


@pytest.mark.parametrize("part", BATCHES)
def test_each_failure_is_listed_once(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    move_before_reading(storage, monkeypatch, part)
    assert [row["input"] for row in failed_rows(storage)] == ["0.jpg", "1.jpg", "2.jpg"]


@pytest.mark.parametrize("part", BATCHES)
def test_a_report_is_of_all_rows(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    calm = Path(write_report(Location.parse(tmp_path))).read_text()
    move_before_reading(storage, monkeypatch, part)
    assert Path(write_report(Location.parse(tmp_path))).read_text() == calm
    assert not OutputState.load(storage).parts


def test_a_file_that_stays_away_is_reported(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a store lists what it does not have; what to do first is no repair."""
    looks = 0

    def gone(self: LocalStorage, path: str) -> bytes:
        nonlocal looks
        looks += 1
        raise FileNotFoundError(path)

    monkeypatch.setattr(LocalStorage, "read", gone)
    advice = "if a run is at work on this output, run the same command again; if not, 'batchlight"
    with pytest.raises(VanishedRecordsError, match=advice) as caught:
        list(failed_rows(storage))
    assert looks == moving.LOOKS
    with pytest.raises(VanishedRecordsError):
        read_whole(storage, lambda state: read_records(storage, state.record_files[0]))
    assert looks == 2 * moving.LOOKS
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (VanishedRecordsError, str(caught.value))


def test_a_damaged_file_is_read_once(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / part_path(1)).write_bytes(b"no Parquet")
    looks = 0

    def read(state: OutputState) -> None:
        nonlocal looks
        looks += 1
        read_records(storage, state.record_files[1])

    with pytest.raises(DamagedRecordsError, match="; 'batchlight verify OUTPUT --repair"):
        read_whole(storage, read)
    assert looks == 1
    with pytest.raises(DamagedRecordsError, match="; 'batchlight verify OUTPUT --repair"):
        list(failed_rows(storage))


def test_a_run_that_ends_between_two_looks_was_not_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for its end would start it again."""
    write_images(tmp_path / "in", 1)
    out = str(tmp_path / "out")
    config = batchlight.JobConfig(input=str(tmp_path / "in"), output=out, workers=0, progress="off")
    batchlight.run(config)
    [closed] = (tmp_path / "out").glob("_batchlight/plan/*.closed")
    at_its_end = closed.read_bytes()
    closed.unlink()
    lock = Lock(open_storage(Location.parse(out)), out, new_run_id()).__enter__()

    def ends_after(look: Callable[[Storage], Any]) -> Callable[[Storage], Any]:
        def looked(storage: Storage) -> Any:
            found = look(storage)
            if not closed.exists():
                closed.write_bytes(at_its_end)
                lock.__exit__()
            return found

        return looked

    monkeypatch.setattr(status, "holder_of", ends_after(holder_of))
    monkeypatch.setattr(OutputState, "load", ends_after(OutputState.load))
    assert status.read_status(out).state == "running"
    assert status.read_status(out).state == "finished"
