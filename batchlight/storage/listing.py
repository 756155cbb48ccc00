"""Listings of object stores, of any length, sorted on disk."""

from __future__ import annotations

import logging
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import obstore

from batchlight.errors import StorageError
from batchlight.storage.base import (
    BAD_NAME,
    INTERNAL,
    OUTPUT_FOLDER,
    FileInfo,
    OutOfOrderError,
    escape_controls,
)
from batchlight.storage.connecting import endpoint_of
from batchlight.storage.location import Location

logger = logging.getLogger(__name__)

KEYS_PER_PAGE = 1000
KEYS_AT_ONCE = 65_536
"""Keys sorted at a time where a store lists in order anyway."""
RESTARTS = 10
"""How often a listing may begin at the first key."""
_DIRECTORY_BUCKET = "--x-s3"


class Pages:
    """The pages of a listing in the store's own order.

    After ``next`` fails, the following call continues after the last key listed. Where the store
    cannot start after a given key, it begins at the first again, so keys come twice.
    """

    def __init__(
        self, store: Any, location: Location, folder: str | None = None, after: str = ""
    ) -> None:
        """``folder``: list only what is below it. ``after``: start after it, if the store can."""
        self._folder = folder
        self._store = store
        self._location = location
        # Azure's client filters by name order, in which not every account lists;
        # S3's directory buckets ignore the key to start after.
        self._resumable = location.scheme != "az" and not location.bucket.endswith(
            _DIRECTORY_BUCKET
        )
        self._restarts = 0
        self._last: str | None = after or None
        self._stream: Iterator[Any] | None = None

    def next(self) -> list[FileInfo]:
        """The next page; empty at the end. Raises what the client raises, and ``StorageError``."""
        if self._stream is None:
            self._stream = self._started()
        try:
            page: Sequence[Any] = next(self._stream, [])
        except BaseException:
            self._stream = None
            raise
        if page and self._resumable:
            self._last = page[-1]["path"]
        return [
            FileInfo(meta["path"], meta["size"], meta["last_modified"], meta["e_tag"])
            for meta in page
        ]

    def _started(self) -> Iterator[Any]:
        if not self._resumable and self._restarts == RESTARTS:
            raise StorageError(
                f"the listing of {self._location} broke off {RESTARTS} times; "
                "run the same command again, or on fewer objects",
                transient=False,
            )
        self._restarts += 1
        return iter(
            obstore.list(self._store, self._folder, offset=self._last, chunk_size=KEYS_PER_PAGE)
        )


def lists_in_order(location: Location) -> bool:
    """Whether a store is known to list in the order of UTF-8 bytes.

    AWS and Google guarantee it. Other stores with an S3 API do not (SeaweedFS lists folder by
    folder), nor do S3's directory buckets and Azure's hierarchical accounts.
    """
    if location.scheme == "s3":
        return not (endpoint_of(location) or location.bucket.endswith(_DIRECTORY_BUCKET))
    return location.scheme == "gs"


class SortingTable:
    """Collects and sorts a listing, in constant memory.

    Batches must not depend on the store, so everything that may be out of order is sorted. Raises
    ``sqlite3.Error`` if there is trouble with the disk.
    """

    def __init__(self, table: sqlite3.Connection, in_order: bool = False) -> None:
        self._table = table
        self._in_order = in_order
        self._keys = 0
        """Keys in the table, for a listing that is in order."""
        self._last = b""
        """Path up to which everything was taken."""
        self._outputs: set[str] = set()
        """Folders that hold ``_batchlight``."""
        self._files = 0
        """Files counted by ``add``."""
        table.execute("PRAGMA journal_mode = OFF")
        table.execute("CREATE TABLE file (path BLOB, size, modified TEXT, etag TEXT, defect TEXT)")

    def add(self, page: Sequence[FileInfo], will_do: int | None = None) -> bool:
        """Add a page; a key that comes twice counts once, as it was the last time.

        Returns whether there are ``will_do`` inputs, not counting empty ones, which may be folder
        marks. Raises ``OutOfOrderError``.
        """
        for info in page:
            if INTERNAL not in info.path:
                continue
            folders = escape_controls(info.path).split("/")[:-1]
            if INTERNAL in folders:
                self._add_output("/".join(folders[: folders.index(INTERNAL)]))
        shown = [_printable(info) for info in page]
        for info in shown if self._last else ():
            if info.path.encode() <= self._last:
                raise OutOfOrderError(info.path)
        self._table.executemany(
            "INSERT INTO file VALUES (?, ?, ?, ?, ?)",
            (
                (i.path.encode(), i.size, i.modified and i.modified.isoformat(), i.etag, i.defect)
                for i in shown
            ),
        )
        if will_do is None:
            self._keys += len(page)
            return False
        self._files += sum(bool(info.size) and self._is_input(info.path) for info in page)
        if self._files >= will_do:  # recount: files of an output drop out once it is found
            self._files = sum(bool(info.size) for info in self.inputs())
        return self._files >= will_do

    def _add_output(self, folder: str) -> None:
        below = f"{folder}/".encode() if folder else b""
        if self._last.startswith(below) and self._last and folder not in self._outputs:
            logger.warning(
                "%s turned out to be the output of a run only after some of its files were listed: "
                "images among them are treated as inputs; move or --exclude them",
                folder,
            )
        if folder and folder not in self._outputs:  # the folder itself, to be told of
            mark = "INSERT INTO file (path, defect) VALUES (?, ?)"
            self._table.execute(mark, [below, OUTPUT_FOLDER])
        self._outputs.add(folder)

    def ready(self, last: str) -> Iterator[FileInfo]:
        """What comes before anything listed after the key ``last``; only now and then.

        An escaped key may be due later than it was listed; or sooner, in which case ``add``
        raises.
        """
        if not self._in_order or self._keys < KEYS_AT_ONCE:
            return
        self._keys, up_to = 0, last.encode()
        yield from self.inputs(up_to)
        self._table.execute("DELETE FROM file WHERE path <= ?", [up_to])
        self._last = up_to

    def inputs(self, up_to: bytes | None = None) -> Iterator[FileInfo]:
        """What ``Storage.walk`` gives, except what was ready before, up to the end or a path."""
        earlier: FileInfo | None = None
        rows = self._table.execute(
            "SELECT * FROM file WHERE path > ? AND (? IS NULL OR path <= ?) "
            "ORDER BY path, defect, rowid",
            [self._last, up_to, up_to],
        )
        for path, size, modified, etag, defect in rows:
            date = modified and datetime.fromisoformat(modified)
            name = path.decode()
            if earlier is not None and (earlier.path != name or earlier.defect != defect):
                yield earlier
            known = (name, size, date, etag, defect)
            is_mark = defect == OUTPUT_FOLDER
            earlier = FileInfo(*known) if self._is_input(name[:-1] if is_mark else name) else None
        if earlier is not None:
            yield earlier

    def _is_input(self, path: str) -> bool:
        """Whether a path is neither hidden nor part of an output."""
        if not path or "/." in f"/{path}":
            return False
        if not self._outputs:
            return True
        parts = path.split("/")
        return all("/".join(parts[:end]) not in self._outputs for end in range(len(parts)))


@contextmanager
def sorting_table(in_order: bool = False) -> Iterator[SortingTable]:
    """A table in a temporary folder, which is removed afterwards.

    ``in_order``: whether its pages will be in the order of UTF-8 bytes.
    """
    with (
        tempfile.TemporaryDirectory(prefix="batchlight-") as folder,
        # A listing may continue in another thread than the one it began in.
        closing(sqlite3.connect(f"{folder}/listing", check_same_thread=False)) as table,
    ):
        yield SortingTable(table, in_order)


def _printable(info: FileInfo) -> FileInfo:
    shown = escape_controls(info.path)
    return info if shown == info.path else replace(info, path=shown, defect=BAD_NAME)
