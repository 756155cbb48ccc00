"""Every output compared with its record, and the files of records with what was there.

Only what is on disk counts: nothing here changes it (``repair`` does).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import filterfalse
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from batchlight.errors import ImageError, LockedError, counted
from batchlight.images.container_names import kind_of
from batchlight.output.inputs import Input
from batchlight.output.layout import BatchRange, container_output, is_part, metadata_path, range_of
from batchlight.output.lock import holder_of
from batchlight.output.recordfiles import DamagedRecordsError, read_exactly
from batchlight.output.replaced import OldFile, replaced_by, span_of
from batchlight.output.state import OutputState
from batchlight.output.status import open_output
from batchlight.shards.parquet_contents import ParquetContents
from batchlight.storage import Storage
from batchlight.storage.base import ChangedError, NameRefusedError, Reader

CHECKS_AT_ONCE = 8
"""Outputs read at one time."""
WHOLE_BYTES, PIECE_BYTES = 64 * 2**20, 2**20
"""Larger ones are read in such pieces."""
CHECKS_AHEAD = 1024

_OF_OUTPUT = ["input", "method", "output", "output_bytes", "output_sha256"]

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


class Stopped(Exception):
    """The comparison was told to stop."""


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


def verify(
    output: str,
    on_problem: Callable[[Problem], object],
    on_progress: Callable[[Verification], object] | None = None,
) -> Verification:
    """Compare all that an output holds with its records; the same as ``batchlight verify``.

    ``on_progress`` hears what was compared so far.

    Raises ``LockedError`` while a run works on it, and ``StorageError``.
    """
    storage = open_output(output)
    if (holder := holder_of(storage)) is not None:
        raise LockedError(f"{holder} works on {output}; verify it when that has ended")
    result = Verification(output)
    for file in Checker(storage, result, on_progress).files():
        for problem in file.problems:
            result.count(problem)
            on_problem(problem)
    return result


class Checker:
    """Compares outputs with their records, file by file, and counts them in ``result``.

    Raises ``Stopped`` soon after ``stop`` is called, from whatever thread.
    """

    def __init__(
        self,
        storage: Storage,
        result: Verification,
        on_progress: Callable[[Verification], object] | None = None,
    ) -> None:
        self._on_progress = on_progress
        self._storage = storage
        self._result = result
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Give up as soon as the outputs are read that are being read."""
        self._stopped.set()

    def files(self) -> Iterator[RecordFile]:
        """Every file of records that is, or was, there, with all that is wrong with it.

        The newest come first: what stands in a newer file is not missing from an older one.
        """
        state = OutputState.load(self._storage)
        plan = state.unfinished
        lost = self._lost_files(state) if plan is None else []
        paths = sorted({*lost, *state.record_files}, key=range_of, reverse=True)

        def is_old(path: str) -> bool:
            """Whether the unfinished plan may be replacing rows of this file."""
            return plan is not None and not is_part(path) and range_of(path).first < plan.first

        with ThreadPoolExecutor(CHECKS_AT_ONCE) as pool:
            for path in filterfalse(is_old, paths):
                yield self._checked(pool, OldFile(path, None))
            if plan is None:
                return
            spans = []
            for path in filter(is_old, paths):
                try:
                    spans.append(span_of(self._storage, path))
                except DamagedRecordsError:
                    yield self._checked(pool, OldFile(path, None))
            for step in replaced_by(self._storage, plan, spans):
                if isinstance(step, OldFile):
                    yield self._checked(pool, step)

    def _checked(self, pool: ThreadPoolExecutor, of: OldFile) -> RecordFile:
        """One file, but for rows that an unfinished plan is replacing."""
        self._result.record_files += 1
        file = RecordFile(of.path)
        try:
            file.table = read_exactly(self._storage, of.path)
        except DamagedRecordsError as error:
            file.problems.append(Problem(of.path, "damaged", error.reason))
            return file
        kept = of.kept_rows(file.table)
        self._check_containers(pool, file, kept)
        rows = _rows_with_output(kept)
        for start in range(0, len(rows), CHECKS_AHEAD):
            some = rows[start : start + CHECKS_AHEAD]
            for row, problem in zip(some, pool.map(self._check, some), strict=True):
                file.problems += [] if problem is None else [problem]
                self._result.outputs += 1
                self._result.bytes += row["output_bytes"] or 0
                if self._on_progress is not None:
                    self._on_progress(self._result)
        return file

    def _check_containers(self, pool: ThreadPoolExecutor, file: RecordFile, kept: pa.Table) -> None:
        """Those that the rows of a file tell of, each read once."""
        containers = _containers_of(kept)

        def check(container: Container) -> Problem | None:
            if self._stopped.is_set():
                raise Stopped
            return check_container(self._storage, container)

        for container, problem in zip(containers, pool.map(check, containers), strict=True):
            file.problems += [] if problem is None else [problem]
            self._result.outputs += len(container.images)
            self._result.bytes += container.bytes
            if self._on_progress is not None:
                self._on_progress(self._result)

    def _check(self, row: Row) -> Problem | None:
        if self._stopped.is_set():
            raise Stopped
        return check_output(self._storage, row)

    def _lost_files(self, state: OutputState) -> list[str]:
        """Files of ``metadata/`` that the last plan left there and that are gone."""
        if state.plan is None:
            return []
        left = state.plan.metadata_when_closed(self._storage)
        return [metadata_path(chunk) for chunk in left if chunk not in state.metadata]


def check_output(storage: Storage, row: Row) -> Problem | None:
    """What is wrong with the output that a row tells of."""

    def problem(trouble: Trouble, detail: str) -> Problem:
        return Problem(row["output"], trouble, detail, row["input"], row["method"])

    try:
        size, sha256 = _read(storage, row)
    except FileNotFoundError:
        return problem("missing", "there is no such file")
    except PermissionError:
        return problem("unreadable", "no permission to read it")
    except (NameRefusedError, ChangedError) as error:
        return problem("unreadable", str(error))
    if size < (row["output_bytes"] or 0):
        return problem("truncated", f"{size} bytes instead of {row['output_bytes']}")
    if sha256 != row["output_sha256"]:
        return problem("altered", "its sha256 is not the recorded one")
    return None


@dataclass(frozen=True)
class Container:
    """One that was written, as its rows have it."""

    path: str
    """Of the input."""
    method: str
    bytes: int
    sha256: str
    images: list[Row]
    """Those that it holds of its records, where they are known to be."""


def check_container(storage: Storage, container: Container) -> Problem | None:
    """What is wrong with a container that was written; it is read in pieces."""
    path = container_output(container.method, container.path)

    def problem(trouble: Trouble, detail: str) -> Problem:
        return Problem(path, trouble, detail, container.path, container.method)

    try:
        with closing(storage.open_reader(path)) as reader:
            if reader.size < container.bytes:
                return problem("truncated", f"{reader.size} bytes instead of {container.bytes}")
            if _sha256(reader, 0, reader.size) != container.sha256:
                return problem("altered", _what_differs(reader, container))
    except FileNotFoundError:
        return problem("missing", "there is no such file")
    except PermissionError:
        return problem("unreadable", "no permission to read it")
    except (NameRefusedError, ChangedError) as error:
        return problem("unreadable", str(error))
    return None


def _what_differs(reader: Reader, container: Container) -> str:
    words = "its sha256 is not the recorded one"
    kind = kind_of(container.path)
    if kind == "tar.gz":  # the images are inside what is compressed
        return words
    try:
        found = (_hashes_in_parquet if kind == "parquet" else _hashes_in_tar)(reader, container)
    except ImageError as error:
        return f"{words}; {error.message}"
    bad = [r["input"] for r in container.images if found.get(r["input"]) != r["output_sha256"]]
    if not bad:
        return f"{words}; its images are as recorded, and something beside them is not"
    return f"{words}; {counted(len(bad), 'image')} in it differ, such as {bad[0]}"


def _hashes_in_tar(reader: Reader, container: Container) -> dict[str, str]:
    """What is where images should be, by their names."""
    return {
        row["input"]: _sha256(reader, row["output_offset"], row["output_bytes"])
        for row in container.images
    }


def _hashes_in_parquet(reader: Reader, container: Container) -> dict[str, str]:
    """Of all that may be an image there. Raises ``ImageError``."""
    contents = ParquetContents(reader, Input(container.path, container=True))
    return {
        item.path: hashlib.sha256(contents.bytes_of(item)).hexdigest()
        for _, item in contents.images_of(contents.columns_of_bytes)
        if item.defect is None
    }


def _read(storage: Storage, row: Row) -> tuple[int, str]:
    """Size and sha256 of an output; a large one is read in pieces."""
    if (row["output_bytes"] or 0) <= WHOLE_BYTES:
        data = storage.read(row["output"])
        return len(data), hashlib.sha256(data).hexdigest()
    with closing(storage.open_reader(row["output"])) as reader:
        return reader.size, _sha256(reader, 0, reader.size)


def _sha256(reader: Reader, start: int, size: int) -> str:
    digest = hashlib.sha256()
    end = start + size
    while start < end and (data := reader.read_at(start, min(PIECE_BYTES, end - start))):
        digest.update(data)
        start += len(data)
    return digest.hexdigest()


def _containers_of(table: pa.Table) -> list[Container]:
    """The containers that rows tell of, but for those of which none was written."""
    written = table.filter(pc.is_valid(table["container_output_sha256"]))
    columns = ["container", "container_output_bytes", "container_output_sha256", "output_offset"]
    found: dict[tuple[str, str], Container] = {}
    for row in written.select([*_OF_OUTPUT, *columns]).to_pylist():
        key = row["container"], row["method"]
        if key not in found:
            size, sha256 = row["container_output_bytes"], row["container_output_sha256"]
            found[key] = Container(*key, size, sha256, [])
        if row["output_sha256"] is not None:
            found[key].images.append(row)
    return list(found.values())


def _rows_with_output(table: pa.Table) -> list[Row]:
    """Rows of images that are files."""
    there = pc.and_(pc.is_valid(table["output"]), pc.is_null(table["container"]))
    rows: list[Row] = table.filter(there).select(_OF_OUTPUT).to_pylist()
    return rows
