"""What readers see of an output while a run moves its rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from batchlight.output.commit import Move, moved
from batchlight.output.layout import METADATA, PARTS, BatchRange, part_path, range_of
from batchlight.output.recordfiles import to_parquet
from batchlight.output.records import SCHEMA
from batchlight.output.state import OutputState
from batchlight.storage import Location, Storage, open_storage
from batchlight.storage.local import LocalStorage

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
