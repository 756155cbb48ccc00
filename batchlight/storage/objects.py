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
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, S3Store

from batchlight.errors import StorageError
from batchlight.storage.base import BAD_NAME, INTERNAL, FileInfo, NameRefusedError, escape_controls
from batchlight.storage.location import Location

MAX_RETRIES = 8
RETRY_TIMEOUT = timedelta(seconds=60)
PROBE_RETRIES = 1
CONNECT_TIMEOUT = "5s"
REQUEST_TIMEOUT = "60s"

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
        self._store = _connect(location, MAX_RETRIES)

    def check(self, writable: bool) -> None:
        probe = _connect(self.location, PROBE_RETRIES)
        with self._trouble("list"):
            next(iter(obstore.list(probe, chunk_size=1)), None)

    def walk(self) -> Iterator[FileInfo]:
        listing = obstore.list(self._store, chunk_size=1000)
        with self._trouble("list"):
            found = (
                FileInfo(meta["path"], meta["size"], meta["last_modified"], meta["e_tag"])
                for chunk in listing
                for meta in chunk
            )
            ordered = _sorted_by_path(found)
        yield from _inputs_only(ordered)

    def names(self, folder: str) -> list[str]:
        with self._trouble("list"):
            found = obstore.list_with_delimiter(self._store, folder)
        return sorted(meta["path"].rpartition("/")[2] for meta in found["objects"])

    def is_file(self, path: str) -> bool:
        try:
            self.stat(path)
        except FileNotFoundError:
            return False
        return True

    def stat(self, path: str) -> FileInfo:
        with self._trouble("read", path):
            meta = obstore.head(self._store, path)
        return FileInfo(path, meta["size"], meta["last_modified"], meta["e_tag"])

    def read(self, path: str) -> bytes:
        with self._trouble("read", path):
            return bytes(obstore.get(self._store, path).bytes())

    def write(self, path: str, data: bytes) -> None:
        with self._trouble("write", path):
            obstore.put(self._store, path, data, use_multipart=False)

    def create(self, path: str, data: bytes) -> bool:
        try:
            with self._trouble("write", path):
                obstore.put(self._store, path, data, mode="create", use_multipart=False)
        except FileExistsError:
            return False
        return True

    def delete(self, path: str) -> None:
        with suppress(FileNotFoundError), self._trouble("delete", path):
            obstore.delete(self._store, path)

    def sweep(self) -> None:
        """Nothing to do: a put is atomic and leaves no temporary file."""

    @contextmanager
    def _trouble(self, doing: str, path: str = "") -> Iterator[None]:
        """Turn the store's exceptions into those of ``Storage``, without what may be secret."""
        where = str(self.location.joined(path)) if path else str(self.location)
        try:
            yield
        except AlreadyExistsError as error:
            raise FileExistsError(where) from error
        except (FileNotFoundError, PermissionDeniedError, UnauthenticatedError, BaseError) as error:
            reason = _reason(error, self.location)
            text = str(error)
            if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in text:
                raise FileNotFoundError(where) from None
            denied = isinstance(error, PermissionDeniedError) and not _SIGNATURE.search(text)
            if denied and doing == "read":
                raise PermissionError(f"cannot read {where}: {reason}") from None
            lasting = isinstance(
                error, FileNotFoundError | PermissionDeniedError | UnauthenticatedError
            )
            raise StorageError(f"cannot {doing} {where}: {reason}", lasting=lasting) from None
        except ValueError as error:  # a key that the store's client refuses
            raise NameRefusedError(f"the store does not take the name {where}") from error


_SIGNATURE = re.compile("SignatureDoesNotMatch|InvalidAccessKeyId|ExpiredToken|InvalidToken")


def _reason(error: BaseException, location: Location) -> str:
    """One clause for a person; server texts are cut down to their code and message."""
    text = str(error)
    credentials = f"check {_CREDENTIALS[location.scheme]}"
    if "NoSuchBucket" in text or "ContainerNotFound" in text:
        return f"there is no bucket {location.bucket}; create it or correct its name"
    if "error sending request" in text or "dns error" in text or "Connect" in text:
        return f"cannot reach {_endpoint(location)}; check the endpoint and the network"
    if "169.254.169.254" in text or ("metadata" in text.lower() and "token" in text.lower()):
        return f"no credentials were found; {credentials}"
    code = re.search(r"<Code>([^<]*)</Code>", text)
    message = re.search(r"<Message>([^<]*)</Message>", text)
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or re.search(
        r"status code: 40[13]", text
    ):
        return f"access denied ({code.group(1) if code else 'no reason given'}); {credentials}"
    if code:
        return f"the store answers {code.group(1)}: {message.group(1) if message else ''}".rstrip(
            ": ."
        )
    status = re.search(r"status code: (\d+ [A-Za-z ]+)", text)
    return f"the store answers {status.group(1)}" if status else text.partition("\n")[0][:200]


def _endpoint(location: Location) -> str:
    named = (os.environ.get(name) for name in _ENDPOINT_VARIABLES[location.scheme])
    endpoint = next((value for value in named if value), f"the {location.scheme}:// service")
    return re.sub(r"//[^/@]*@", "//", endpoint)


def _connect(location: Location, max_retries: int) -> Any:
    options: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT, "timeout": REQUEST_TIMEOUT}
    if _endpoint(location).startswith("http://"):
        options["allow_http"] = True
    return _KINDS[location.scheme](
        location.bucket,
        prefix=location.path or None,
        client_options=options,
        retry_config={"max_retries": max_retries, "retry_timeout": RETRY_TIMEOUT},
    )


def _sorted_by_path(found: Iterable[FileInfo]) -> Iterator[FileInfo]:
    """Sort a listing of any length in flat memory, on disk.

    S3 lists in the order of UTF-8 bytes, but not every store does (SeaweedFS goes folder by
    folder; S3's directory buckets promise nothing), and batches must not depend on the store.
    """
    with (
        tempfile.TemporaryDirectory(prefix="batchlight-") as folder,
        closing(sqlite3.connect(os.path.join(folder, "listing"))) as table,
    ):
        table.execute("PRAGMA journal_mode = OFF")
        table.execute("CREATE TABLE file (path BLOB, size, modified TEXT, etag TEXT)")
        table.executemany(
            "INSERT INTO file VALUES (?, ?, ?, ?)",
            (
                (f.path.encode(), f.size, f.modified and f.modified.isoformat(), f.etag)
                for f in found
            ),
        )
        for path, size, modified, etag in table.execute("SELECT * FROM file ORDER BY path"):
            yield FileInfo(path.decode(), size, modified and datetime.fromisoformat(modified), etag)


def _inputs_only(found: Iterable[FileInfo]) -> Iterator[FileInfo]:
    """Leave out hidden names and outputs, as ``Storage.walk`` says.

    Whatever a job writes sorts after its ``_batchlight/``, which is therefore seen first.
    """
    output: str | None = None
    for info in found:
        parts = info.path.split("/")
        if INTERNAL in parts[:-1]:
            output = "/".join([*parts[: parts.index(INTERNAL)], ""])
        if output is not None and info.path.startswith(output):
            continue
        if any(part.startswith(".") for part in parts):
            continue
        shown = escape_controls(info.path)
        yield info if shown == info.path else replace(info, path=shown, defect=BAD_NAME)
