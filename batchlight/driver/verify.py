"""Every output held against its record, and the files of records against what was there.

Only what is on disk counts: nothing here changes it (``repair`` does).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from batchlight.errors import LockedError
from batchlight.output.commit import replaced_keys
from batchlight.output.lock import holder_of
from batchlight.output.plan import Plan, latest_plan
from batchlight.output.recordfiles import (
    BatchRange,
    DamagedRecordsError,
    is_part,
    metadata_path,
    metadata_ranges,
    range_of,
    read_exactly,
    record_files,
)
from batchlight.output.records import KEY
from batchlight.output.status import open_output
from batchlight.storage import Storage
from batchlight.storage.base import NameRefusedError

CHECKS_AT_ONCE = 8
"""Outputs read at one time; each is in memory as a whole."""
CHECKS_AHEAD = 1024

Trouble = Literal["missing", "unreadable", "truncated", "altered", "damaged"]
Row = dict[str, Any]
Key = tuple[str | None, str | None]
"""Input and method."""


@dataclass(frozen=True)
class Problem:
    """Something that is not as it was recorded."""

    path: str
    """Below the output: of an enhanced image, or of a file of records."""
    trouble: Trouble
    detail: str
    """A few words for a person."""
    input: str | None = None
    """None for a file of records."""
    method: str | None = None
    repaired: bool = False

    @property
    def key(self) -> Key:
        """By which the records know an output."""
        return self.input, self.method


@dataclass
class RecordFile:
    """One file of records, and what is wrong with the outputs that it tells of."""

    path: str
    table: pa.Table | None = None
    """None if it cannot be read."""
    problems: list[Problem] = field(default_factory=list)

    @property
    def chunk(self) -> BatchRange:
        """The batches that it covers."""
        return range_of(self.path)


@dataclass
class Verification:
    """What was compared, and how it ended."""

    output: str
    outputs: int = 0
    """Enhanced images that were read and compared."""
    bytes: int = 0
    record_files: int = 0
    problems: int = 0
    repaired: int = 0

    @property
    def sound(self) -> bool:
        """Whether everything is as recorded, by now."""
        return self.problems == self.repaired

    def count(self, problem: Problem) -> None:
        """Note what was found, and whether it was repaired."""
        self.problems += 1
        self.repaired += problem.repaired


def verify(output: str, on_problem: Callable[[Problem], object]) -> Verification:
    """Compare all that an output holds with its records; the same as ``batchlight verify``.

    Raises ``LockedError`` while a run works on it, and ``StorageError``.
    """
    storage = open_output(output)
    if (holder := holder_of(storage)) is not None:
        raise LockedError(f"{holder} works on {output}; verify it when that has ended")
    result = Verification(output)
    for file in checked_files(storage, result):
        for problem in file.problems:
            result.count(problem)
            on_problem(problem)
    return result


def checked_files(storage: Storage, result: Verification) -> Iterator[RecordFile]:
    """Every file of records that there is, or was, with the problems of it and of its outputs.

    The newest come first: what stands in a newer file is not missing from an older one.
    """
    plan = latest_plan(storage)
    unfinished = plan if plan is not None and not plan.is_closed(storage) else None
    lost = _lost_files(storage, plan) if plan is not None and not unfinished else []
    with ThreadPoolExecutor(CHECKS_AT_ONCE) as pool:
        for path in sorted({*lost, *record_files(storage)}, key=range_of, reverse=True):
            result.record_files += 1
            file = _open(storage, path)
            if file.table is not None:
                rows = _rows_with_output(_still_true(storage, file, unfinished))
                for start in range(0, len(rows), CHECKS_AHEAD):
                    some = rows[start : start + CHECKS_AHEAD]
                    found = pool.map(lambda row: check_output(storage, row), some)
                    file.problems += [problem for problem in found if problem is not None]
                result.outputs += len(rows)
                result.bytes += sum(row["output_bytes"] for row in rows)
            yield file


def check_output(storage: Storage, row: Row) -> Problem | None:
    """What is wrong with the output that a row tells of."""

    def problem(trouble: Trouble, detail: str) -> Problem:
        return Problem(row["output"], trouble, detail, row["input"], row["method"])

    try:
        data = storage.read(row["output"])
    except FileNotFoundError:
        return problem("missing", "there is no such file")
    except PermissionError:
        return problem("unreadable", "no permission to read it")
    except NameRefusedError as error:
        return problem("unreadable", str(error))
    if len(data) < row["output_bytes"]:
        return problem("truncated", f"{len(data)} bytes instead of {row['output_bytes']}")
    if hashlib.sha256(data).hexdigest() != row["output_sha256"]:
        return problem("altered", "its sha256 is not the recorded one")
    return None


def _open(storage: Storage, path: str) -> RecordFile:
    file = RecordFile(path)
    try:
        file.table = read_exactly(storage, path)
    except DamagedRecordsError as error:
        file.problems.append(Problem(path, "damaged", error.reason))
    return file


def _rows_with_output(table: pa.Table) -> list[Row]:
    columns = ["input", "method", "output", "output_bytes", "output_sha256"]
    rows: list[Row] = table.filter(pc.is_valid(table["output"])).select(columns).to_pylist()
    return rows


def _still_true(storage: Storage, file: RecordFile, unfinished: Plan | None) -> pa.Table:
    """The rows of a file without those that an unfinished plan is replacing."""
    table = file.table
    assert table is not None
    if unfinished is None or is_part(file.path):
        return table
    for _, keys in replaced_keys(storage, unfinished):
        table = table.join(keys, KEY, join_type="left anti")
    return table


def _lost_files(storage: Storage, plan: Plan) -> list[str]:
    """Files of ``metadata/`` that the last plan left there and that are gone."""
    there = set(metadata_ranges(storage))
    return [metadata_path(c) for c in plan.metadata_when_closed(storage) if c not in there]
