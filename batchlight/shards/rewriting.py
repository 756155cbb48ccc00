"""The container that is written: raw bytes of the old one, with new images in their places."""

from __future__ import annotations

import hashlib
import tempfile
import threading
import zlib
from collections.abc import Hashable
from contextlib import suppress

from batchlight.errors import StorageError, brief
from batchlight.shards.headers import BLOCK, with_size
from batchlight.shards.tar import Member
from batchlight.storage.base import ChangedError, Reader, Writer

SPOOL_BYTES = 16 * 2**20
"""Of new images that wait for their turn in memory; others wait in a temporary file."""
PIECE_BYTES = 2**20
"""What is read, hashed and written at once."""
GZIP_LEVEL = 6
_GZIP = 31
"""What makes zlib write a header of gzip, without a name or a time."""


class Spool:
    """New images that wait until those before them in their container are there."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, bytes | tuple[int, int]] = {}
        """Bytes, or offset and size in the file."""
        self._bytes = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._end = 0
        self._lock = threading.Lock()

    def put(self, key: Hashable, data: bytes) -> None:
        """Keep some bytes, from any thread. Raises ``StorageError`` for a full disk."""
        with self._lock:
            if self._bytes + len(data) <= SPOOL_BYTES:
                self._kept[key] = data
                self._bytes += len(data)
                return
            try:
                self._file.seek(self._end)
                self._file.write(data)
            except OSError as error:
                raise StorageError(
                    f"cannot write to {tempfile.gettempdir()}: {brief(error)}; "
                    "free some space there, or set TMPDIR to another folder",
                    transient=False,
                ) from error
            self._kept[key] = (self._end, len(data))
            self._end += len(data)

    def get(self, key: Hashable) -> bytes:
        """What was kept."""
        found = self._kept[key]
        if isinstance(found, bytes):
            return found
        self._file.seek(found[0])
        return self._file.read(found[1])

    def clear(self) -> None:
        """Keep nothing of what there is."""
        self._kept.clear()
        self._bytes = self._end = 0
        self._file.seek(0)
        self._file.truncate()

    def close(self) -> None:
        """The same for good."""
        with suppress(OSError):  # of a full disk: what could not be flushed is not wanted
            self._file.close()


class Rewriter:
    """Writes one container, from its start to its end."""

    def __init__(self, source: Reader, writer: Writer, compress: bool) -> None:
        """``compress``: as gzip, to the same bytes each time."""
        self._source = source
        self._writer = writer
        self._gzip = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP) if compress else None
        self._buffer = bytearray()
        self._digest = hashlib.sha256()
        self._read = 0
        """Up to where the source is dealt with."""
        self._written = 0
        """Bytes of the tar."""
        self.bytes = 0
        """Of the file, once it is whole."""

    @property
    def sha256(self) -> str:
        """Of the file, once it is whole; in hex."""
        return self._digest.hexdigest()

    def copy_until(self, end: int) -> None:
        """Take over what is there, from where it is dealt with, byte for byte."""
        while self._read < end:
            data = self._source.read_at(self._read, min(PIECE_BYTES, end - self._read))
            if not data:
                raise ChangedError("the file became shorter while it was being worked on")
            self._put(data)
            self._read += len(data)

    def kept(self, member: Member) -> int:
        """Where the data of a member that stays as it is will be."""
        return self._written + member.data - self._read

    def replace(self, member: Member, data: bytes) -> int:
        """Give a member other data; returns where they are. Raises ``ValueError``: too large."""
        header = with_size(self._source.read_at(member.header, BLOCK), len(data))
        self.copy_until(member.header)
        self._put(header)
        self._read += BLOCK
        self.copy_until(member.data)
        at = self._written
        self._put(data)
        if member.end % BLOCK == 0:  # else the file ends there without filling the block
            self._put(bytes(-len(data) % BLOCK))
        self._read = member.end
        return at

    def leave_out(self, member: Member) -> None:
        """Go on behind a member."""
        self.copy_until(member.start)
        self._read = member.end

    def finish(self) -> None:
        """Write the rest."""
        self.copy_until(self._source.size)
        self._flush()
        if self._gzip is not None:
            self._send(self._gzip.flush())

    def commit(self) -> None:
        """Let it appear."""
        self._writer.commit()

    def abort(self) -> None:
        """Leave nothing of it."""
        self._writer.abort()

    def _put(self, data: bytes) -> None:
        self._written += len(data)
        self._buffer += data
        if len(self._buffer) >= PIECE_BYTES:
            self._flush()

    def _flush(self) -> None:
        data = bytes(self._buffer)
        self._buffer.clear()
        self._send(data if self._gzip is None else self._gzip.compress(data))

    def _send(self, data: bytes) -> None:
        if data:
            self._digest.update(data)
            self._writer.write(data)
            self.bytes += len(data)
