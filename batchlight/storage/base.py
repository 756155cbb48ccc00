"""What every storage can do, and the value that describes one of its files."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from batchlight.errors import StorageError
from batchlight.storage.permissions import EVERYONE

INTERNAL = "_batchlight"
"""Folder of a job's own state; the folder that contains it is an output and cannot be an input."""

BAD_NAME = "the name is not UTF-8 or contains control characters; rename it"

LINKED_FOLDER = "it is a link to a folder; such links are not followed"

OUTPUT_FOLDER = "it is the output of a run and cannot be an input"

NO_SUCH_FILE = "there is no such file, or it vanished after the listing"
"""The two cannot be told apart: a list or a link may name a file that never existed."""


def escape_controls(name: str) -> str:
    r"""The name as text for a table or a terminal.

    Control characters, and bytes that were not UTF-8 (as ``os.fsdecode`` gives them), are written
    as ``\x07``.
    """
    if name.isprintable():  # most are, and none with such characters is
        return name
    odd = ("Cc", "Cs")
    return "".join(f"\\x{ord(c) & 0xFF:02x}" if unicodedata.category(c) in odd else c for c in name)


def folder_of(path: str) -> str:
    """The folder of a file, as a path; empty for the root."""
    return path.rpartition("/")[0]


class OutOfOrderError(Exception):
    """A streaming listing met a key that sorts before one already yielded.

    Names with control characters are escaped, and so may sort elsewhere.
    """


class FileRefusedError(OSError):
    """The storage works, but not with this one file.

    Its name is too long, a folder is in its place, it lies on a bad sector, or it is a link that
    is not followed.
    """


class NotAFileError(FileNotFoundError):
    """The path exists but is not a regular file, e.g. a folder."""


@dataclass(frozen=True)
class FileInfo:
    """One file of a listing."""

    path: str
    """Relative to the storage's root, separated by ``/``; always valid, printable text.

    A folder that is not entered (it cannot be listed, or is a link or an output) ends in a slash.
    """

    size: int | None = None
    """Bytes; None for a file that vanished between being named and being looked at."""

    modified: datetime | None = None
    """UTC, to the microsecond."""

    etag: str | None = None
    """Object stores only."""

    defect: str | None = None
    """Why this name cannot be processed; ``path`` is then its readable, escaped form."""


class FileTooLargeError(StorageError):
    """The file system, or a limit of this process, does not allow a file of this size."""


class ChangedError(OSError):
    """A file is no longer the one that was opened."""


class Reader(Protocol):
    """A file that is open for reading, from any thread."""

    size: int
    """Bytes."""
    remote: bool
    """Whether it is worth reading ahead; for a local file, the kernel does."""

    def read_at(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``; fewer only at the end of the file.

        Raises ``ChangedError`` if a change is noticed, else what ``Storage.read`` raises.
        """

    def require_unchanged(self) -> None:
        """Raise ``ChangedError`` if it is known that the file changed while it was open."""

    def close(self) -> None:
        """Close the file."""


class Writer(Protocol):
    """A file that is being written."""

    def write(self, data: bytes) -> None:
        """Append to it. Raises ``StorageError``."""

    def commit(self) -> None:
        """Put it at its path, flushed. Raises what ``Storage.write`` raises."""

    def abort(self) -> None:
        """Discard it, unless it is committed."""


class Storage(Protocol):
    """A tree of files below one root. Paths are relative to it and separated by ``/``.

    Trouble with one file raises ``FileNotFoundError`` or ``PermissionError`` if it is read, and
    ``FileRefusedError`` if its name cannot be used here; trouble with the storage itself raises
    ``StorageError``.
    """

    def check(self, writable: bool) -> None:
        """Fail soon, with one sentence, if the root cannot be used.

        Raises ``UsageError`` for a local directory that does not exist, else ``StorageError``.
        """

    def walk(self, at_most: int | None = None, soon: bool = False) -> Iterator[FileInfo]:
        """Every file that may be an input, in the order of the UTF-8 bytes of its path.

        Left out: hidden names (any part starting with a dot), and what is in folders that hold
        ``_batchlight`` with files in it, which are outputs of runs. ``at_most``: this many files
        are enough, so a store need not list more. ``soon``: yield files before the listing has
        ended, where the store lists in order; this raises ``OutOfOrderError``, very rarely.
        """

    def names(self, folder: str) -> list[str]:
        """Names of the files directly in ``folder``, sorted; empty if there is no such folder."""

    def each_name(self, folder: str) -> Iterator[str]:
        """The same in any order, some perhaps twice; those of an object store page by page.

        Only for a folder without folders in it.
        """

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly in ``folder``, sorted; empty if there is no such folder."""

    def is_file(self, path: str) -> bool:
        """Whether there is a file of this name."""

    def stat(self, path: str) -> FileInfo:
        """Size and age of one file."""

    def read(self, path: str) -> bytes:
        """The whole file."""

    def read_part(self, path: str, start: int, size: int) -> bytes:
        """``size`` bytes from ``start``; fewer only at the end. Raises what ``read`` raises."""

    def open_reader(self, path: str) -> Reader:
        """A file to be read in pieces. Raises what ``read`` raises."""

    def open_writer(
        self, path: str, permissions: int = EVERYONE, modified: datetime | None = None
    ) -> Writer:
        """A file to be written in pieces, replacing what is there once it is whole.

        ``permissions`` and ``modified``: see ``write``.
        """

    def permissions(self, path: str, beside: str = "") -> int:
        """Who may read a file, as permission bits for a local file below the folder ``beside``.

        By default, that folder is the root. Those of everyone where there are no such bits, or no
        such file.
        """

    def write(
        self, path: str, data: bytes, permissions: int = EVERYONE, modified: datetime | None = None
    ) -> None:
        """Put ``data`` at ``path``, replacing what is there; whole or not at all.

        ``permissions``: the most permission bits that a local file gets. ``modified``: the
        modification time of a local file; now by default. Object stores know only their own time.
        """

    def create(self, path: str, data: bytes, permissions: int = EVERYONE) -> bool:
        """Like ``write``, but only if there is no such file yet; returns whether it was created.

        An existing file with exactly this content may count as created: the answer to an
        earlier try may have been lost.
        """

    def delete(self, path: str) -> None:
        """Remove a file; does nothing if it is already gone."""

    def sync(self) -> None:
        """Make all writes through this object so far durable (fsync)."""

    def sweep(self) -> None:
        """Remove the temporary files that a killed run left behind."""

    def withdraw(self) -> None:
        """Remove the empty folders of a job, and those that ``check`` has created for it."""
