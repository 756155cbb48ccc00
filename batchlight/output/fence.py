"""A storage that changes nothing once another run holds the output."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from batchlight.storage import FileInfo, Storage

FRESH_FOR_S = 1.0
"""For how long a look at the locks is good enough for what happens often."""


@dataclass
class FencedStorage:
    """Passes everything on to ``storage``, but asks ``require_lock`` before it changes anything.

    A file is only created after a look at the locks, since that commits; deleting, and in a worker
    writing images, happens often, and a look of the last second will do.
    """

    storage: Storage
    require_lock: Callable[[], None]
    """Raises what ends the run."""
    writes_often: bool = False
    _looked_at: float = field(default=float("-inf"), init=False)

    def _require(self, often: bool) -> None:
        began = time.monotonic()
        if often and began - self._looked_at < FRESH_FOR_S:
            return
        self.require_lock()
        self._looked_at = began

    def write(self, path: str, data: bytes) -> None:
        self._require(self.writes_often)
        self.storage.write(path, data)

    def create(self, path: str, data: bytes) -> bool:
        self._require(often=False)
        return self.storage.create(path, data)

    def delete(self, path: str) -> None:
        self._require(often=True)
        self.storage.delete(path)

    def sweep(self) -> None:
        self._require(often=False)
        self.storage.sweep()

    def check(self, writable: bool) -> None:
        self.storage.check(writable)

    def walk(self) -> Iterator[FileInfo]:
        return self.storage.walk()

    def names(self, folder: str) -> list[str]:
        return self.storage.names(folder)

    def is_file(self, path: str) -> bool:
        return self.storage.is_file(path)

    def stat(self, path: str) -> FileInfo:
        return self.storage.stat(path)

    def read(self, path: str) -> bytes:
        return self.storage.read(path)

    def sync(self) -> None:
        self.storage.sync()
