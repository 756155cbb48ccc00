"""New images that wait for their turn in the output container."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from contextlib import suppress

from batchlight.shards.scratch import scratch_file, scratch_trouble

SPOOL_BYTES = 16 * 2**20
"""Budget for new images that wait in memory; others wait in a temporary file."""


class Spool:
    """New images that wait until those before them in their container are written."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, bytes | tuple[int, int]] = {}
        """Bytes, or offset and size in the file."""
        self._bytes = 0
        self._file = scratch_file()
        self._end = 0
        self._lock = threading.Lock()

    def put(self, key: Hashable, data: bytes) -> None:
        """Store some bytes; callable from any thread. Raises ``StorageError`` for a full disk."""
        with self._lock:
            if self._bytes + len(data) <= SPOOL_BYTES:
                self._kept[key] = data
                self._bytes += len(data)
                return
            with scratch_trouble():
                self._file.seek(self._end)
                self._file.write(data)
            self._kept[key] = (self._end, len(data))
            self._end += len(data)

    def get(self, key: Hashable) -> bytes:
        """The stored bytes."""
        found = self._kept[key]
        if isinstance(found, bytes):
            return found
        self._file.seek(found[0])
        return self._file.read(found[1])

    def clear(self) -> None:
        """Discard everything stored."""
        self._kept.clear()
        self._bytes = self._end = 0
        self._file.seek(0)
        self._file.truncate()

    def close(self) -> None:
        """The same, permanently."""
        with suppress(OSError):  # the disk is full: what could not be flushed is not needed
            self._file.close()
