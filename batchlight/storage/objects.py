"""Object stores, through obstore (the Rust crate object_store).

Credentials, region and endpoint come from the environment of the process that reads or writes
(``AWS_*``, ``GOOGLE_*``, ``AZURE_*``); ``AWS_SKIP_SIGNATURE=true`` and its like read public
buckets. A put is atomic by nature, so there are no temporary files to sweep.
"""

from __future__ import annotations

import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, S3Store

from batchlight.errors import StorageError, UsageError
from batchlight.storage.base import BAD_NAME, INTERNAL, FileInfo, NameRefusedError, escape_controls
from batchlight.storage.location import Location

T = TypeVar("T")

PATIENCE = timedelta(seconds=60)
"""How long an operation is tried again while the store is in trouble."""
LISTING_PATIENCE = timedelta(minutes=5)
"""The same for a whole listing, which begins anew each time."""
PROBE_PATIENCE = timedelta(seconds=2)
"""The same for the first look, and for all after an outage that outlasted our patience."""
LISTED_AT_ONCE = 1000
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds between two tries; doubled each time."""

CLIENT_RETRIES = 8
"""The client's own, which take about 2 s; beyond them we wait, where a signal can interrupt."""
PROBE_RETRIES = 1

CONNECT_TIMEOUT = timedelta(seconds=4)  # twice that, the probe's, should still be soon
STALL_TIMEOUT = timedelta(seconds=20)
"""How long nothing may come from the store; for a write, that includes the time of sending."""
LARGE_BYTES = 8 * 2**20
LARGE_STALL_TIMEOUT = timedelta(minutes=10)
"""For writes of more than that."""
REQUEST_TIMEOUT = timedelta(hours=1)
"""For one request, however steadily its data come."""

_KINDS: dict[str, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
_ENDPOINT_VARIABLES = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": (),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SKIP_SIGNATURE=true for public data)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS (GOOGLE_SKIP_SIGNATURE=true for public data)",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY "
    "(AZURE_SKIP_SIGNATURE=true for public data)",
}


class ObjectStorage:
    """Objects below one prefix of one bucket."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self._store = _connect(location, CLIENT_RETRIES, STALL_TIMEOUT)
        self._given_up = False

    @cached_property
    def _store_for_large(self) -> Any:
        return _connect(self.location, CLIENT_RETRIES, LARGE_STALL_TIMEOUT)

    def check(self, writable: bool) -> None:
        probe = _connect(self.location, PROBE_RETRIES, STALL_TIMEOUT)
        self._ask("list", "", lambda: next(obstore.list(probe), None), PROBE_PATIENCE)

    def walk(self) -> Iterator[FileInfo]:
        try:
            with _sorting_table() as table:
                outputs = self._ask("list", "", lambda: self._fill(table), LISTING_PATIENCE)
                for info in _sorted_by_path(table):
                    if _is_input(info.path, outputs):
                        yield info
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"cannot sort the listing of {self.location} in {tempfile.gettempdir()}: {error}; "
                "free some space there, or set TMPDIR to another folder"
            ) from error

    def _fill(self, table: sqlite3.Connection) -> set[str]:
        """Put the listing into the emptied table; returns the folders that hold ``_batchlight``.

        Anew from the start each time: not every store can go on after a given key.
        """
        outputs: set[str] = set()
        table.execute("DROP TABLE IF EXISTS file")
        table.execute("CREATE TABLE file (path BLOB, size, modified TEXT, etag TEXT, defect TEXT)")
        table.executemany(
            "INSERT INTO file VALUES (?, ?, ?, ?, ?)",
            (
                (i.path.encode(), i.size, i.modified and i.modified.isoformat(), i.etag, i.defect)
                for i in map(_printable, _note_outputs(self._listing(), outputs))
            ),
        )
        return outputs

    def _listing(self) -> Iterator[FileInfo]:
        """Everything there is, in the store's own order."""
        for chunk in obstore.list(self._store, chunk_size=LISTED_AT_ONCE):
            for meta in chunk:
                yield FileInfo(meta["path"], meta["size"], meta["last_modified"], meta["e_tag"])

    def names(self, folder: str) -> list[str]:
        found = self._ask("list", "", lambda: obstore.list_with_delimiter(self._store, folder))
        # A store may also list the folder itself: an empty object that some tools create.
        paths = (meta["path"] for meta in found["objects"] if meta["path"] != folder)
        return sorted(path.rpartition("/")[2] for path in paths)

    def is_file(self, path: str) -> bool:
        try:
            self.stat(path)
        except (FileNotFoundError, NameRefusedError):
            return False
        except PermissionError:  # it may be listed, but not read
            return True
        return True

    def stat(self, path: str) -> FileInfo:
        meta = self._ask("read", path, lambda: obstore.head(self._store, path))
        return FileInfo(path, meta["size"], meta["last_modified"], meta["e_tag"])

    def read(self, path: str) -> bytes:
        return self._ask("read", path, lambda: bytes(obstore.get(self._store, path).bytes()))

    def write(self, path: str, data: bytes) -> None:
        self._ask("write", path, lambda: self._put(path, data, "overwrite"))

    def create(self, path: str, data: bytes) -> bool:
        try:
            self._ask("create", path, lambda: self._put(path, data, "create"))
        except FileExistsError:
            # Perhaps by an earlier try, the client's or ours, whose answer was lost.
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
        """Nothing to do: what a store has answered for is safe."""

    def sweep(self) -> None:
        """Nothing to do: a put is atomic and leaves no temporary file."""

    def _ask(
        self, doing: str, path: str, request: Callable[[], T], patience: timedelta | None = None
    ) -> T:
        """What the store answers; asks again while its trouble may pass.

        The client does so too, but not for listings that break off, and not where it cannot know
        whether the store has done it already: deletes and exclusive creations. An outage is waited
        out once, not by each operation of a run that is about to end.
        """
        patience = PROBE_PATIENCE if self._given_up else patience or PATIENCE
        deadline = time.monotonic() + patience.total_seconds()
        pause = FIRST_PAUSE
        while True:
            try:
                with self._trouble(doing, path):
                    answer = request()
                self._given_up = False
                return answer
            except StorageError as error:
                if error.lasting or time.monotonic() + pause > deadline:
                    self._given_up = not error.lasting
                    raise
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    @contextmanager
    def _trouble(self, doing: str, path: str) -> Iterator[None]:
        """Turn the store's exceptions into those of ``Storage``, without what may be secret."""
        where = str(self.location.joined(path)) if path else str(self.location)
        try:
            yield
        except InvalidPathError as error:
            raise StorageError(_odd_name(where, str(error)), lasting=True) from None
        except (FileNotFoundError, BaseError) as error:
            reason = _reason(error, self.location)
            text = str(error)
            one_file = doing in ("read", "delete") and "NoSuchBucket" not in text
            if isinstance(error, FileNotFoundError) and one_file:
                raise FileNotFoundError(where) from None
            if doing == "create" and _exists(error, text):
                raise FileExistsError(where) from None
            if _BAD_KEY.search(text):
                raise NameRefusedError(f"cannot {doing} {where}: {reason}") from None
            denied = isinstance(error, PermissionDeniedError) and not _SIGNATURE.search(text)
            if denied and doing == "read":
                raise PermissionError(f"cannot read {where}: {reason}") from None
            lasting = _is_lasting(error, text)
            raise StorageError(f"cannot {doing} {where}: {reason}", lasting=lasting) from None
        except ValueError as error:  # a key that the store's client refuses
            raise NameRefusedError(f"the store does not take the name {where}") from error


_SIGNATURE = re.compile(
    "SignatureDoesNotMatch|InvalidAccessKeyId|ExpiredToken|InvalidToken|RequestTimeTooSkewed"
)
_BAD_KEY = re.compile("KeyTooLongError|InvalidObjectName|InvalidResourceName")
_CONFLICT = re.compile("ConditionalRequestConflict|OperationAborted")
_PASSING = re.compile("status code: 4(08|09|29)|RequestTimeout|IncompleteBody|BadDigest|SlowDown")
"""Refusals that a second try may not meet: too slow, in conflict, too many, or not whole."""
_NO_CREDENTIALS = re.compile(
    r"169\.254\.169\.254|/latest/api/token|/computeMetadata/|/metadata/identity/oauth2/token"
)
"""The services of a cloud's machines that are asked where the environment holds no credentials."""


def _exists(error: BaseException, text: str) -> bool:
    """Whether there is such a file; some conflicts only say that another request is at it."""
    return isinstance(error, AlreadyExistsError) and not _CONFLICT.search(text)


def _is_lasting(error: BaseException, text: str) -> bool:
    """Whether a second try would end the same: no such bucket, no permission, a bad request."""
    refused = re.search(r"status code: (4\d\d|501)", text) and not _PASSING.search(text)
    return _is_denied(error, text) or bool(refused)


def _is_denied(error: BaseException, text: str) -> bool:
    return isinstance(error, PermissionDeniedError | UnauthenticatedError) or bool(
        _SIGNATURE.search(text) or re.search(r"status code: 40[13]", text)
    )


def _odd_name(where: str, text: str) -> str:
    name = re.search('Path "(.*?)"', text, re.DOTALL)
    return (
        f"cannot list {where}: the client refuses the name "
        f"'{escape_controls(name.group(1)) if name else '?'}' "
        "(control characters, or parts that are empty or dots); rename or delete that object"
    )


def _reason(error: BaseException, location: Location) -> str:
    """One clause for a person; server texts are cut down to their code and message."""
    text = str(error)
    credentials = f"check {_CREDENTIALS[location.scheme]}"
    if "NoSuchBucket" in text or "ContainerNotFound" in text:
        return f"there is no bucket {location.bucket}; create it or correct its name"
    if _NO_CREDENTIALS.search(text):
        return f"no credentials were found; {credentials}"
    if "error sending request" in text or "dns error" in text:
        endpoint = _shown(_endpoint(location)[1]) or f"the {location.scheme}:// service"
        return f"cannot reach {endpoint}; check the endpoint and the network"
    code = re.search(r"<Code>([^<]*)</Code>", text)
    message = re.search(r"<Message>([^<]*)</Message>", text)
    if _is_denied(error, text):
        return f"access denied ({code.group(1) if code else 'no reason given'}); {credentials}"
    if code:
        return f"the store answers {code.group(1)}: {message.group(1) if message else ''}".rstrip(
            ": ."
        )
    status = re.search(r"status code: (\d+ [A-Za-z ]+)", text)
    if status:
        return f"the store answers {status.group(1)}"
    return _shown(text.partition("\n")[0])[:200]


def _endpoint(location: Location) -> tuple[str, str]:
    """The variable that names an endpoint, and its value; both empty if none does.

    Raises ``StorageError`` for what is no address, which the client would panic at.
    """
    named = ((name, os.environ.get(name, "")) for name in _ENDPOINT_VARIABLES[location.scheme])
    variable, endpoint = next(((name, value) for name, value in named if value), ("", ""))
    if variable and not _is_address(endpoint):
        raise StorageError(
            f"{variable} holds no address; write http://host:port or https://host", lasting=True
        )
    return variable, endpoint


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port_is_valid = parts.port != 0
    except ValueError:
        return False
    return (
        port_is_valid
        and parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and text.isascii()
        and text.isprintable()
        and " " not in text
    )


def _shown(endpoint: str) -> str:
    """Without a password."""
    return re.sub(r"//[^/@]*@", "//", endpoint)


def _connect(location: Location, max_retries: int, stall_timeout: timedelta) -> Any:
    """Raises ``UsageError`` for a prefix that the client cannot use, else ``StorageError``."""
    endpoint = _endpoint(location)[1]
    options: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT,
        "read_timeout": stall_timeout,
        "timeout": REQUEST_TIMEOUT,
    }
    if endpoint.lower().startswith("http://"):
        options["allow_http"] = True
    parts = location.path.split("/") if location.path else []
    if any(part in ("", ".", "..") for part in parts) or escape_controls(location.path) != (
        location.path
    ):
        raise UsageError(
            f"cannot use {escape_controls(str(location))}: "
            "a key must hold no control characters and no parts that are empty or dots"
        )
    try:
        return _KINDS[location.scheme](
            location.bucket,
            prefix=location.path or None,
            client_options=options,
            retry_config={"max_retries": max_retries, "retry_timeout": PATIENCE},
            # Of several variables the client would take any; the one that we name must count.
            **({"endpoint": endpoint} if endpoint and location.scheme == "s3" else {}),
        )
    except (BaseError, ValueError, OSError) as error:
        variables = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}[location.scheme]
        raise StorageError(
            f"cannot use {location}: {_reason(error, location)}; "
            f"check the {variables}* variables of the environment",
            lasting=True,
        ) from None


@contextmanager
def _sorting_table() -> Iterator[sqlite3.Connection]:
    """Where a listing of any length is sorted in flat memory, on disk.

    S3 lists in the order of UTF-8 bytes, but not every store does (SeaweedFS goes folder by
    folder; S3's directory buckets promise nothing), and batches must not depend on the store.
    """
    with (
        tempfile.TemporaryDirectory(prefix="batchlight-") as folder,
        closing(sqlite3.connect(os.path.join(folder, "listing"))) as table,
    ):
        table.execute("PRAGMA journal_mode = OFF")
        yield table


def _sorted_by_path(table: sqlite3.Connection) -> Iterator[FileInfo]:
    rows = table.execute("SELECT * FROM file ORDER BY path")
    for path, size, modified, etag, defect in rows:
        date = modified and datetime.fromisoformat(modified)
        yield FileInfo(path.decode(), size, date, etag, defect)


def _printable(info: FileInfo) -> FileInfo:
    shown = escape_controls(info.path)
    return info if shown == info.path else replace(info, path=shown, defect=BAD_NAME)


def _note_outputs(found: Iterable[FileInfo], outputs: set[str]) -> Iterator[FileInfo]:
    """Pass a listing on, and note the folders that hold ``_batchlight``."""
    for info in found:
        folders = escape_controls(info.path).split("/")[:-1]
        if INTERNAL in folders:
            outputs.add("/".join(folders[: folders.index(INTERNAL)]))
        yield info


def _is_input(path: str, outputs: set[str]) -> bool:
    """Whether a path is neither hidden nor somebody's output, as ``Storage.walk`` says."""
    parts = path.split("/")
    if not path or any(part.startswith(".") for part in parts):
        return False
    return not outputs or all("/".join(parts[:end]) not in outputs for end in range(len(parts)))
