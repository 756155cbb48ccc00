"""Reading the records of an output while a run may be moving them.

A run replaces parts by files of ``metadata/``, and these when their rows are replaced. So a file
that was there a moment ago may be gone; then its rows are in another, by a new look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from batchlight.output.layout import is_part, range_of
from batchlight.output.recordfiles import VanishedRecordsError, read_records
from batchlight.output.state import OutputState
from batchlight.storage import Storage

T = TypeVar("T")

LOOKS = 10
"""How often to look again at most, without having read any more."""


def read_whole(storage: Storage, read: Callable[[OutputState], T]) -> T:
    """What ``read`` makes of the output, begun anew if a file of records vanishes meanwhile."""
    for _ in range(LOOKS - 1):
        try:
            return read(OutputState.load(storage))
        except VanishedRecordsError:
            continue
    return read(OutputState.load(storage))


def failed_rows(storage: Storage) -> Iterator[dict[str, Any]]:
    """The rows of failed images, file by file, each once."""
    seen: set[str] = set()
    looks = 0
    while True:
        before = len(seen)
        try:
            yield from _failed_rows(storage, seen)
        except VanishedRecordsError:
            looks = looks + 1 if len(seen) == before else 0
            if looks >= LOOKS:
                raise
        else:
            return


def _failed_rows(storage: Storage, seen: set[str]) -> Iterator[dict[str, Any]]:
    """Those of files that are not in ``seen``, which gets them, nor were parts that are."""
    batches = pa.array([range_of(path).first for path in seen if is_part(path)], pa.int64())
    columns = ("input", "method", "status", "error_code", "error", "batch")
    for path in OutputState.load(storage).record_files:
        if path in seen:
            continue
        table = read_records(storage, path, columns)
        seen.add(path)
        is_new = pc.invert(pc.is_in(table["batch"], batches))
        yield from table.filter(pc.and_(pc.equal(table["status"], "failed"), is_new)).to_pylist()
