"""Object stores, through obstore (the Rust crate object_store).

Credentials, region and endpoint come from the environment of the process that reads or writes
(``AWS_*``, ``GOOGLE_*``, ``AZURE_*``); ``AWS_SKIP_SIGNATURE=true`` and its like read public
buckets. A put is atomic by nature, so there are no temporary files to sweep.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import cached_property, partial
from itertools import filterfalse, islice
from typing import Any, Literal, TypeVar

import obstore
from obstore.exceptions import BaseError, InvalidPathError, PreconditionError

from batchlight.errors import StorageError
from batchlight.host.abandoned import call_in_thread
from batchlight.storage import trouble
from batchlight.storage.base import ChangedError, FileInfo, FileRefusedError, OutOfOrderError
from batchlight.storage.connecting import connect, refuse_fork
from batchlight.storage.listing import Pages, SortingTable, lists_in_order, sorting_table
from batchlight.storage.location import Location
from batchlight.storage.pacing import PACE
from batchlight.storage.permissions import EVERYONE
from batchlight.storage.ranges import KeyRange, ListingPart, part_of
from batchlight.storage.streams import PART_BYTES, BlockReader, UploadWriter

T = TypeVar("T")

logger = logging.getLogger(__name__)

PATIENCE = timedelta(seconds=60)
"""How long a failing operation is retried."""
LISTING_PATIENCE = timedelta(minutes=5)
"""The same for one page of a listing."""
PROBE_PATIENCE = timedelta(seconds=2)
"""The same for the first check, and for everything after an outage that outlasted our patience."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds between two tries; doubled each time."""

CLIENT_RETRIES, LARGE_RETRIES = 0, 8
"""The client's own. It retries parts of large objects, as only it knows them; everything else is
retried here, where a signal can interrupt and it is noticed if the store asks to slow down."""
PROBE_RETRIES = 1

STALL_TIMEOUT = timedelta(seconds=20)
"""How long the store may stay silent; for a write, this includes the time of sending."""
LARGE_BYTES = 8 * 2**20
LARGE_STALL_TIMEOUT = timedelta(minutes=10)
"""The same for larger writes."""


class OddNameError(StorageError):
    """A listing ended at a key that the client cannot handle."""


class ObjectStorage:
    """Objects below one prefix of one bucket."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self._store = self._connected(CLIENT_RETRIES, STALL_TIMEOUT)
        self._given_up = False

    @cached_property
    def _store_for_large(self) -> Any:
        return self._connected(LARGE_RETRIES, LARGE_STALL_TIMEOUT)

    def _connected(self, retries: int, stall_timeout: timedelta) -> Any:
        return connect(
            self.location, retries=retries, retry_timeout=PATIENCE, stall_timeout=stall_timeout
        )

    def check(self, writable: bool) -> None:
        probe = self._connected(PROBE_RETRIES, STALL_TIMEOUT)
        with suppress(OddNameError):  # which is also an answer
            self._ask("list", "", lambda: next(obstore.list(probe), None), PROBE_PATIENCE)

    def walk(self, at_most: int | None = None, soon: bool = False) -> Iterator[FileInfo]:
        try:
            with sorting_table(soon and self.in_order) as table:
                inputs = filterfalse(self._is_folder_mark, self._in_order(table, at_most))
                yield from islice(inputs, at_most)
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"cannot sort the listing of {self.location} in {tempfile.gettempdir()}: {error}; "
                "free some space there, or set TMPDIR to another folder"
            ) from error

    def _in_order(self, table: SortingTable, at_most: int | None) -> Iterator[FileInfo]:
        pages = Pages(self._store, self.location)
        next_page = partial(self._ask, "list", "", pages.next, LISTING_PATIENCE)
        try:
            while (page := next_page()) and not table.add(page, at_most):
                yield from table.ready(page[-1].path)
        except OddNameError:
            if not self._lists_root():
                raise
            for page in self._by_folder(""):
                table.add(page)
        yield from table.inputs()

    @property
    def in_order(self) -> bool:
        """Whether the store is known to list in the order of UTF-8 bytes."""
        return lists_in_order(self.location)

    def part(self, within: KeyRange, at_most: int) -> ListingPart:
        """See ``ListsParts``."""
        pages = Pages(self._store, self.location, after=within.after)
        next_page = partial(self._ask, "list", "", pages.next, LISTING_PATIENCE)
        try:
            return part_of(next_page, within, at_most, self._is_folder_mark)
        except (OddNameError, FileRefusedError) as error:
            raise OutOfOrderError(str(error)) from error

    def folders(self, folder: str) -> list[str]:
        found = self._ask("list", "", lambda: obstore.list_with_delimiter(self._store, folder))
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"])

    def _lists_root(self) -> bool:
        """Whether the root itself can be listed, even if not everything below it can."""
        try:
            self.folders("")
        except OddNameError:
            return False
        return True

    def _by_folder(self, folder: str) -> Iterator[list[FileInfo]]:
        """Everything but what is in folders with names that the client refuses; warns of these."""
        try:
            found = self._ask("list", "", lambda: obstore.list_with_delimiter(self._store, folder))
        except OddNameError as error:
            logger.warning("skipping %s and everything below it: %s", folder, error)
            return
        yield [
            FileInfo(meta["path"], meta["size"], meta["last_modified"], meta["e_tag"])
            for meta in found["objects"]
        ]
        for below in found["common_prefixes"]:
            yield from self._by_folder(below.rstrip("/"))

    def _is_folder_mark(self, info: FileInfo) -> bool:
        """Some tools mark folders by empty objects whose keys end in a slash, which is not shown.

        A file that is really empty has its key without the slash, and is found under it.
        """
        return not (info.size or info.defect is not None or self.is_file(info.path))

    def names(self, folder: str) -> list[str]:
        found = self._ask("list", "", lambda: obstore.list_with_delimiter(self._store, folder))
        # A store may also list the folder itself: an empty object that some tools create.
        paths = (meta["path"] for meta in found["objects"] if meta["path"] != folder)
        return sorted(path.rpartition("/")[2] for path in paths)

    def each_name(self, folder: str) -> Iterator[str]:
        pages = Pages(self._store, self.location, folder)
        # Page by page: 10^6 names take 1000 pages, and any of these may break off.
        while page := self._ask("list", folder, pages.next, LISTING_PATIENCE):
            paths = (info.path.removeprefix(f"{folder}/") for info in page if info.path != folder)
            yield from (path for path in paths if "/" not in path)

    def is_file(self, path: str) -> bool:
        try:
            self.stat(path)
        except (FileNotFoundError, FileRefusedError):
            return False
        except PermissionError:  # it can be listed, but not read
            return True
        return True

    def stat(self, path: str) -> FileInfo:
        meta = self._ask("read", path, lambda: obstore.head(self._store, path))
        return FileInfo(path, meta["size"], meta["last_modified"], meta["e_tag"])

    def read(self, path: str) -> bytes:
        return self._ask("read", path, lambda: bytes(obstore.get(self._store, path).bytes()))

    def read_part(self, path: str, start: int, size: int) -> bytes:
        def request() -> bytes:
            return bytes(obstore.get_range(self._store, path, start=start, length=size))

        return self._ask("read", path, request) if size else b""

    def open_reader(self, path: str) -> BlockReader:
        info = self.stat(path)

        def fetch(start: int, end: int) -> bytes:
            options: Any = {"range": (start, end), "if_match": info.etag}
            try:
                return bytes(obstore.get(self._store, path, options=options).bytes())
            except PreconditionError as error:
                raise ChangedError("the object changed while it was being processed") from error

        def asked(start: int, end: int) -> bytes:
            return self._ask("read", path, lambda: fetch(start, end))

        return BlockReader(info.size or 0, asked)

    def open_writer(
        self, path: str, permissions: int = EVERYONE, modified: datetime | None = None
    ) -> UploadWriter:
        options: dict[str, Any] = {"use_multipart": True, "max_concurrency": 1}

        def upload(pieces: Iterator[bytes]) -> None:
            with self._trouble("write", path):
                obstore.put(self._store_for_large, path, pieces, chunk_size=PART_BYTES, **options)

        return UploadWriter(upload)

    def permissions(self, path: str, beside: str = "") -> int:
        return EVERYONE

    def write(
        self, path: str, data: bytes, permissions: int = EVERYONE, modified: datetime | None = None
    ) -> None:
        self._ask("write", path, lambda: self._put(path, data, "overwrite"))

    def create(self, path: str, data: bytes, permissions: int = EVERYONE) -> bool:
        try:
            self._ask("create", path, lambda: self._put(path, data, "create"))
        except FileExistsError:
            # Perhaps created by an earlier try, the client's or ours, whose answer was lost.
            with suppress(FileNotFoundError):
                return self.read(path) == data
            return False
        return True

    def _put(self, path: str, data: bytes, mode: Literal["create", "overwrite"]) -> None:
        store = self._store if len(data) <= LARGE_BYTES else self._store_for_large
        obstore.put(store, path, data, mode=mode, use_multipart=False)

    def delete(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._ask("delete", path, lambda: obstore.delete(self._store, path))

    def sync(self) -> None:
        """Nothing to do: what a store has acknowledged is safe."""

    def sweep(self) -> None:
        """Nothing to do: a put is atomic and leaves no temporary file."""

    def withdraw(self) -> None:
        """Nothing to do: there are no folders."""

    def _ask(
        self, doing: str, path: str, request: Callable[[], T], patience: timedelta | None = None
    ) -> T:
        """The store's answer. Retries while its trouble may pass, at a pace that it can bear.

        An outage is waited out once, not by every operation of a run that is about to end.
        """
        refuse_fork()
        patience = PROBE_PATIENCE if self._given_up else patience or PATIENCE
        PACE.wait()
        deadline = time.monotonic() + patience.total_seconds()
        pause = FIRST_PAUSE
        while True:
            try:
                with self._trouble(doing, path):
                    answer = _interruptible(request)
                self._given_up = False
                return answer
            except StorageError as error:
                if not error.transient or time.monotonic() + pause > deadline:
                    self._given_up = error.transient
                    raise
            time.sleep(random.uniform(pause / 2, pause))
            PACE.wait()
            pause = min(2 * pause, LONGEST_PAUSE)

    @contextmanager
    def _trouble(self, doing: str, path: str) -> Iterator[None]:
        """Turn the store's exceptions into those of ``Storage``, leaving out what may be secret."""
        where = str(self.location.joined(path)) if path else str(self.location)
        try:
            yield
        except InvalidPathError as error:
            raise OddNameError(trouble.odd_name(where, error), transient=False) from None
        except (FileNotFoundError, BaseError) as error:
            reason = trouble.reason_of(error, self.location)
            one_file = doing in ("read", "delete") and "NoSuchBucket" not in str(error)
            if isinstance(error, FileNotFoundError) and one_file:
                raise FileNotFoundError(where) from None
            if doing == "create" and trouble.already_exists(error):
                raise FileExistsError(where) from None
            if trouble.is_bad_key(error):
                raise FileRefusedError(f"cannot {doing} {where}: {reason}") from None
            if doing == "read" and trouble.is_denied_one_object(error):
                raise PermissionError(f"cannot read {where}: {reason}") from None
            transient = trouble.is_transient(error)
            if trouble.is_slow_down(error):
                PACE.slow_down()
            raise StorageError(f"cannot {doing} {where}: {reason}", transient=transient) from None
        except ValueError as error:  # a key that the store's client refuses
            raise FileRefusedError(f"the store does not accept the name {where}") from error


def _interruptible(request: Callable[[], T]) -> T:
    """The client's answer. In the main thread, waits for it where a signal can interrupt.

    The client itself notices none until it has its answer, or has waited for it for a minute.
    """
    if threading.current_thread() is threading.main_thread():
        return call_in_thread(request)
    return request()
