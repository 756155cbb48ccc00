"""Every path below OUTPUT, and the version of the format.

``docs/format.md`` describes each file. Within a version, fields and columns may be added: readers
ignore those that they do not know, and treat missing ones as null. Any other change makes a new
version, which earlier programs refuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from batchlight._version import __version__
from batchlight.config import METHODS
from batchlight.errors import StorageError, UsageError, brief
from batchlight.output.documents import Document, parse, serialise
from batchlight.storage import Storage
from batchlight.storage.base import INTERNAL

FORMAT_VERSION = 1
"""The version that this program writes, and the latest that it reads."""

FORMAT = f"{INTERNAL}/format.json"
LOCKS = f"{INTERNAL}/locks"
"""Created by a run before anything else and kept: a folder with it is an output."""
PLANS = f"{INTERNAL}/plan"
PARTS = f"{INTERNAL}/parts"
BATCHES_AT_MOST = 1_000_000
"""Upper limit for one file; a chunk has far fewer."""
DIGITS_AT_MOST = 18
"""Upper limit for a number in a file name."""
METADATA = "metadata"
SUMMARY = "summary.json"
REPORT = "report.html"


@dataclass(frozen=True, order=True)
class BatchRange:
    """Consecutive batches, both ends included: those of a chunk of a plan, or a file of records."""

    first: int
    last: int

    @property
    def file_name(self) -> str:
        """As in ``0000000000-0000000063.parquet``."""
        return f"{self.first:010d}-{self.last:010d}.parquet"

    @classmethod
    def parse(cls, file_name: str) -> BatchRange | None:
        """None for any other name, for example of files that someone else has put there."""
        numbers = [
            part for part in file_name.removesuffix(".parquet").split("-") if is_number(part)
        ]
        if len(numbers) != 2:
            return None
        found = cls(*map(int, numbers))
        return found if found.file_name == file_name and found.is_sound else None

    @property
    def is_sound(self) -> bool:
        """Whether such a range is possible; a forged one must not exhaust memory."""
        return 0 <= self.first <= self.last < self.first + BATCHES_AT_MOST

    def numbers(self) -> range:
        """The batches' numbers."""
        return range(self.first, self.last + 1)

    def __contains__(self, batch: int) -> bool:
        return self.first <= batch <= self.last


@contextmanager
def state_trouble(path: str) -> Iterator[None]:
    """Trouble with a file that is not an image affects the whole output: ``StorageError``."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(
            f"cannot use {path} of the output: {brief(error)}; fix this, or choose another "
            "--output",
            transient=False,
        ) from error


def is_output_path(path: str) -> bool:
    """Whether an enhanced image may be at this path; the records are not trusted in this."""
    top, *below = path.split("/")
    return top in METHODS and bool(below) and ".." not in below


def container_output(method: str, container: str) -> str:
    """The path of a container that a method has made from another."""
    return f"{method}/{container}"


def lock_path(number: int) -> str:
    """The lock of one run."""
    return f"{LOCKS}/{number:010d}.json"


def plan_path(first: int) -> str:
    """The end mark of the plan that begins with batch ``first``; it makes the plan complete."""
    return f"{PLANS}/{first:010d}.json"


def closed_path(first: int) -> str:
    """The mark that all rows of a plan are in ``metadata/``."""
    return f"{PLANS}/{first:010d}.closed"


def chunk_folder(first: int) -> str:
    """The chunks of a plan."""
    return f"{PLANS}/{first:010d}"


def chunk_path(first: int, chunk: BatchRange) -> str:
    """One chunk of the plan that begins with batch ``first``."""
    return f"{chunk_folder(first)}/{chunk.file_name}"


def part_path(batch: int) -> str:
    """The rows of a batch, from its commit until its plan is closed."""
    return f"{PARTS}/{batch:010d}.parquet"


def is_part(path: str) -> bool:
    """Whether a file of records is the part of a batch."""
    return path.startswith(f"{PARTS}/")


def metadata_path(chunk: BatchRange) -> str:
    """The rows of a chunk of batches, in their final place."""
    return f"{METADATA}/{chunk.file_name}"


def range_of(path: str) -> BatchRange:
    """The batches that a file of records covers, by its name."""
    name = path.rpartition("/")[2]
    number = name.removesuffix(".parquet")
    chunk = BatchRange(int(number), int(number)) if number.isdigit() else BatchRange.parse(name)
    assert chunk is not None, path
    return chunk


def numbered(names: Iterable[str], suffix: str) -> list[int]:
    """The numbers that name files of one kind; files with other names are ignored."""
    return list(numbers_in(names, suffix))


def numbers_in(names: Iterable[str], suffix: str) -> Iterator[int]:
    """The same numbers one by one, never all in memory."""
    stems = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
    return (int(stem) for stem in stems if is_number(stem) and stem == f"{int(stem):010d}")


def is_number(text: str) -> bool:
    """Whether this is a number as used in file names here."""
    return text.isascii() and text.isdigit() and len(text) <= DIGITS_AT_MOST


def is_output(storage: Storage) -> bool:
    """Whether a run has ever worked on this storage."""
    return bool(storage.names(LOCKS))


class FormatDocument(Document):
    """``_batchlight/format.json``."""

    version: int
    written_by: str | None = None
    """The version of batchlight that first wrote it."""


def require_known_format(storage: Storage) -> bool:
    """Raise ``UsageError`` if a later version wrote this; returns whether a version is recorded.

    Outputs without one predate the file, and have version 1.
    """
    try:
        with state_trouble(FORMAT):
            data = storage.read(FORMAT)
    except FileNotFoundError:
        return False
    found = parse(FormatDocument, data, FORMAT)
    if found.version > FORMAT_VERSION:
        raise UsageError(
            f"this output was written in format {found.version} by batchlight "
            f"{found.written_by or 'of a later version'}, and batchlight {__version__} reads "
            f"formats up to {FORMAT_VERSION}; upgrade batchlight, or choose another output"
        )
    return True


def name_format(storage: Storage) -> None:
    """Record the version of an output that has none."""
    mark = FormatDocument(version=FORMAT_VERSION, written_by=__version__)
    storage.create(FORMAT, serialise(mark))
