"""Bytes on their way into a container: gathered, compressed, hashed, written."""

from __future__ import annotations

import hashlib
import zlib

from batchlight.storage.base import ChangedError, Reader, Writer

PIECE_BYTES = 2**20
"""How much to read, hash and write at once."""
GZIP_LEVEL = 6
_GZIP = 31
"""Makes zlib write a gzip header, without name or time."""


class Sink:
    """A container that is being written, from its start to its end."""

    def __init__(self, writer: Writer, compress: bool = False) -> None:
        """``compress``: as gzip, reproducibly."""
        self._writer = writer
        self._gzip = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP) if compress else None
        self._buffer = bytearray()
        self._digest = hashlib.sha256()
        self.at = 0
        """Bytes so far, before compression."""
        self.bytes = 0
        """Size of the file, once it is complete."""

    @property
    def sha256(self) -> str:
        """Of the file, once it is complete; in hex."""
        return self._digest.hexdigest()

    def put(self, data: bytes) -> None:
        """Append bytes."""
        self.at += len(data)
        for start in range(0, len(data), PIECE_BYTES):
            self._buffer += memoryview(data)[start : start + PIECE_BYTES]
            if len(self._buffer) >= PIECE_BYTES:
                self._flush()

    def copy(self, source: Reader, start: int, end: int) -> None:
        """Append a part of another file. Raises ``ChangedError`` if it no longer exists."""
        while start < end:
            data = source.read_at(start, min(PIECE_BYTES, end - start))
            if not data:
                raise ChangedError("the file became shorter while it was being processed")
            self.put(data)
            start += len(data)

    def finish(self) -> None:
        """Write what is left."""
        self._flush()
        if self._gzip is not None:
            self._send(self._gzip.flush())

    def commit(self) -> None:
        """Make the file appear."""
        self._writer.commit()

    def _flush(self) -> None:
        data = bytes(self._buffer)
        self._buffer.clear()
        self._send(data if self._gzip is None else self._gzip.compress(data))

    def _send(self, data: bytes) -> None:
        if data:
            self._digest.update(data)
            self._writer.write(data)
            self.bytes += len(data)
