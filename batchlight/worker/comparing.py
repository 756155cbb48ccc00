"""Outputs compared with their records, in the driver or on a worker."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from batchlight.errors import ImageError, counted
from batchlight.host.abandoned import this_call
from batchlight.images.container_names import container_kind, is_parquet_name
from batchlight.output.inputs import Input
from batchlight.output.layout import container_output
from batchlight.output.recordfiles import DamagedRecordsError, read_exactly
from batchlight.shards.parquet_contents import ParquetContents
from batchlight.storage import Location, Storage, open_storage
from batchlight.storage.base import ChangedError, FileRefusedError, NotAFileError, Reader
from batchlight.worker.places import refuse_unshared

CHECKS_AT_ONCE = 8
"""Outputs read concurrently."""
CHECKS_AHEAD = 1024
WHOLE_BYTES, PIECE_BYTES = 64 * 2**20, 2**20
"""Outputs larger than the first are read in pieces of the second size."""

_OF_OUTPUT = ["input", "method", "output", "output_bytes", "output_sha256"]

Trouble = Literal["missing", "unreadable", "truncated", "altered", "damaged"]
Row = dict[str, Any]
Key = tuple[str | None, str | None]
"""Input and method."""


@dataclass(frozen=True)
class Problem:
    """Something that differs from its record."""

    path: str
    """Path below the output, of an enhanced image or a file of records."""
    trouble: Trouble
    detail: str
    """A few words for the user."""
    input: str | None = None
    """None for a file of records."""
    method: str | None = None
    repaired: bool = False

    @property
    def key(self) -> Key:
        """The key of an output in the records."""
        return self.input, self.method


@dataclass(frozen=True)
class Compared:
    """One output, or a container of several, compared with its records."""

    problem: Problem | None
    outputs: int
    """Enhanced images that were read and compared."""
    bytes: int


@dataclass
class FileCompared:
    """Everything that one file of records describes, compared."""

    problems: list[Problem] = field(default_factory=list)
    outputs: int = 0
    bytes: int = 0


def compare_file(output: Location, path: str) -> FileCompared:
    """Compare all outputs that a file of records describes.

    Raises ``StorageError``, and ``ClusterError`` on a node that does not see the output.
    """
    refuse_unshared(output, output, "")
    storage, found = open_storage(output), FileCompared()
    try:
        table = read_exactly(storage, path)
    except DamagedRecordsError as error:
        found.problems.append(Problem(path, "damaged", error.reason))
        return found
    with ThreadPoolExecutor(CHECKS_AT_ONCE) as pool:
        for compared in compare(pool, storage, table, this_call()):
            found.problems += [compared.problem] if compared.problem else []
            found.outputs += compared.outputs
            found.bytes += compared.bytes
    return found


def compare(
    pool: ThreadPoolExecutor, storage: Storage, rows: pa.Table, require: Callable[[], object]
) -> Iterator[Compared]:
    """Compare the outputs that rows describe, several at once.

    ``require``: called before each; raises if nobody is waiting for the result any longer.
    """

    def container(written: Container) -> Compared:
        require()
        problem = check_container(storage, written)
        return Compared(problem, len(written.images), written.bytes)

    def output(row: Row) -> Compared:
        require()
        return Compared(check_output(storage, row), 1, row["output_bytes"] or 0)

    yield from pool.map(container, containers_of(rows))
    described = rows_with_output(rows)
    for start in range(0, len(described), CHECKS_AHEAD):
        yield from pool.map(output, described[start : start + CHECKS_AHEAD])


def check_output(storage: Storage, row: Row) -> Problem | None:
    """The problem of the output that a row describes, or None."""

    def problem(trouble: Trouble, detail: str) -> Problem:
        return Problem(row["output"], trouble, detail, row["input"], row["method"])

    try:
        size, sha256 = _read(storage, row)
    except OSError as error:
        return problem(*_why_unread(error))
    if size < (row["output_bytes"] or 0):
        return problem("truncated", f"{size} bytes instead of {row['output_bytes']}")
    if sha256 != row["output_sha256"]:
        return problem("altered", "its sha256 differs from the recorded one")
    return None


def _why_unread(error: OSError) -> tuple[Trouble, str]:
    """What is wrong with an output that cannot be read. Re-raises any other error."""
    match error:
        case NotAFileError():
            return "missing", "something other than a file is in its place"
        case FileNotFoundError():
            return "missing", "there is no such file"
        case PermissionError():
            return "unreadable", "no permission to read it"
        case FileRefusedError() | ChangedError():
            return "unreadable", str(error)
        case _:
            raise error


@dataclass(frozen=True)
class Container:
    """A written container, as described by its rows."""

    path: str
    """Path of the input."""
    method: str
    bytes: int
    sha256: str
    images: list[Row]
    """The recorded images that it holds, where their place in it is known."""


def check_container(storage: Storage, container: Container) -> Problem | None:
    """The problem of a written container, or None; it is read in pieces."""
    path = container_output(container.method, container.path)

    def problem(trouble: Trouble, detail: str) -> Problem:
        return Problem(path, trouble, detail, container.path, container.method)

    try:
        with closing(storage.open_reader(path)) as reader:
            if reader.size < container.bytes:
                return problem("truncated", f"{reader.size} bytes instead of {container.bytes}")
            if _sha256(reader, 0, reader.size) != container.sha256:
                return problem("altered", _what_differs(reader, container))
    except OSError as error:
        return problem(*_why_unread(error))
    return None


def _what_differs(reader: Reader, container: Container) -> str:
    words = "its sha256 differs from the recorded one"
    kind = container_kind(container.path)
    if kind == "tar.gz":  # the images are inside the compressed stream
        return words
    try:
        found = (_hashes_in_parquet if kind == "parquet" else _hashes_in_tar)(reader, container)
    except ImageError as error:
        return f"{words}; {error.message}"
    bad = [r["input"] for r in container.images if found.get(r["input"]) != r["output_sha256"]]
    if not bad:
        return f"{words}; its images are as recorded, but something else in it is not"
    return f"{words}; differences in {counted(len(bad), 'image')}, such as {bad[0]}"


def _hashes_in_tar(reader: Reader, container: Container) -> dict[str, str]:
    """Hashes of the byte ranges where images should be, by input path."""
    return {
        row["input"]: _sha256(reader, row["output_offset"], row["output_bytes"])
        for row in container.images
    }


def _hashes_in_parquet(reader: Reader, container: Container) -> dict[str, str]:
    """Hashes of everything that may be an image. Raises ``ImageError``."""
    contents = ParquetContents(reader, Input(container.path, container=True))
    return {
        item.path: hashlib.sha256(contents.bytes_of(item)).hexdigest()
        for _, item in contents.images_of(contents.columns_of_bytes)
        if item.defect is None
    }


def _read(storage: Storage, row: Row) -> tuple[int, str]:
    """Size and sha256 of an output; large ones are read in pieces."""
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


def containers_of(table: pa.Table) -> list[Container]:
    """The containers that rows describe, except those that were not written."""
    written = table.filter(pc.is_valid(table["container_output_sha256"]))
    columns = ["container", "container_output_bytes", "container_output_sha256", "output_offset"]
    found: dict[tuple[str, str], Container] = {}
    for row in written.select([*_OF_OUTPUT, *columns]).to_pylist():
        key = row["container"], row["method"]
        if key not in found:
            size, sha256 = row["container_output_bytes"], row["container_output_sha256"]
            found[key] = Container(*key, size, sha256, [])
        # An image that was left out with its sample has a hash, but no place in its tar.
        has_place = row["output_offset"] is not None or is_parquet_name(row["container"] or "")
        if has_place and row["output_sha256"] is not None:
            found[key].images.append(row)
    return list(found.values())


def rows_with_output(table: pa.Table) -> list[Row]:
    """Rows whose image is a file of its own."""
    there = pc.and_(pc.is_valid(table["output"]), pc.is_null(table["container"]))
    rows: list[Row] = table.filter(there).select(_OF_OUTPUT).to_pylist()
    return rows
