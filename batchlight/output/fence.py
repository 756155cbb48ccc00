"""A storage that rejects changes once another run holds the output."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from batchlight.output.layout import is_output_path, state_trouble
from batchlight.output.lock import require_lock
from batchlight.storage import EVERYONE, FileInfo, Storage
from batchlight.storage.base import Reader, Writer

FRESH_FOR_S = 1.0
"""How long a lock check stays valid for frequent operations."""


def fenced_for_worker(storage: Storage, lock: int, where: str) -> FencedStorage:
    """A worker's storage, fenced by the lock of its run.

    Changes raise ``LockedError`` once the lock with this number is no longer the newest.
    """
    look = partial(require_lock, storage, lock, where)
    return FencedStorage(storage, look, writes_often=True)


@dataclass
class FencedStorage:
    """Passes everything on to ``storage``, but calls ``require_lock`` before each change.

    With ``writes_often``, as for a worker, a lock check from the last second is enough for an image
    or a deletion; never for the records, which say what is done.
    """

    storage: Storage
    require_lock: Callable[[], None]
    """Raises the error that ends the run."""
    writes_often: bool = False
    _looked_at: float = field(default=float("-inf"), init=False)

    def write(
        self, path: str, data: bytes, permissions: int = EVERYONE, modified: datetime | None = None
    ) -> None:
        if is_output_path(path):  # trouble here affects one image only
            self._look_now_and_then()
            self.storage.write(path, data, permissions, modified)
            return
        self._look()
        with state_trouble(path):
            self.storage.write(path, data, permissions, modified)

    def open_writer(
        self, path: str, permissions: int = EVERYONE, modified: datetime | None = None
    ) -> Writer:
        self._look()
        return _FencedWriter(self.storage.open_writer(path, permissions, modified), self._look)

    def create(self, path: str, data: bytes, permissions: int = EVERYONE) -> bool:
        self._look()
        with state_trouble(path):
            return self.storage.create(path, data, permissions)

    def delete(self, path: str) -> None:
        self._look_now_and_then()
        self.storage.delete(path)

    def sweep(self) -> None:
        self._look()
        self.storage.sweep()

    def withdraw(self) -> None:
        self._look()
        self.storage.withdraw()

    def _look_now_and_then(self) -> None:
        if not self.writes_often or time.monotonic() - self._looked_at > FRESH_FOR_S:
            self._look()

    def _look(self) -> None:
        began = time.monotonic()
        self.require_lock()
        self._looked_at = began

    def check(self, writable: bool) -> None:
        self.storage.check(writable)

    def walk(self, at_most: int | None = None, soon: bool = False) -> Iterator[FileInfo]:
        return self.storage.walk(at_most, soon)

    def names(self, folder: str) -> list[str]:
        return self.storage.names(folder)

    def each_name(self, folder: str) -> Iterator[str]:
        return self.storage.each_name(folder)

    def folders(self, folder: str) -> list[str]:
        return self.storage.folders(folder)

    def is_file(self, path: str) -> bool:
        return self.storage.is_file(path)

    def stat(self, path: str) -> FileInfo:
        return self.storage.stat(path)

    def read(self, path: str) -> bytes:
        return self.storage.read(path)

    def read_part(self, path: str, start: int, size: int) -> bytes:
        return self.storage.read_part(path, start, size)

    def open_reader(self, path: str) -> Reader:
        return self.storage.open_reader(path)

    def permissions(self, path: str, beside: str = "") -> int:
        return self.storage.permissions(path, beside)

    def sync(self) -> None:
        self.storage.sync()


@dataclass(frozen=True)
class _FencedWriter:
    """Checks the lock before its file appears."""

    writer: Writer
    look: Callable[[], None]

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    def commit(self) -> None:
        self.look()
        self.writer.commit()

    def abort(self) -> None:
        self.writer.abort()
