"""Large files in pieces: read at any position, written from start to end.

A file that is written this way appears whole, at ``commit``, or not at all.
"""

from __future__ import annotations

import os
import queue
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import datetime

from batchlight.storage.base import ChangedError
from batchlight.storage.folders import opened_folder
from batchlight.storage.publishing import date

BLOCK_BYTES = 8 * 2**20
"""How much of an object to read per request."""
BLOCKS_KEPT = 3
PART_BYTES = 16 * 2**20
"""How much of a multipart upload to send per request."""
PIECES_WAITING = 2


class LocalReader:
    """A local file; not buffered here, since the page cache does that."""

    remote = False

    def __init__(
        self, descriptor: int, trouble: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        """``descriptor`` is closed with the reader. ``trouble`` translates ``OSError``."""
        self._descriptor = descriptor
        self._trouble = trouble
        self._found = os.fstat(descriptor)
        self.size = self._found.st_size

    def read_at(self, offset: int, size: int) -> bytes:
        data = self._some(offset, size)
        while len(data) < size and (more := self._some(offset + len(data), size - len(data))):
            data += more
        return data

    def _some(self, offset: int, size: int) -> bytes:
        with self._trouble():
            return os.pread(self._descriptor, size, offset)

    def require_unchanged(self) -> None:
        now, then = os.fstat(self._descriptor), self._found
        if (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns):
            raise ChangedError("the file changed while it was being processed")

    def close(self) -> None:
        os.close(self._descriptor)


class BlockReader:
    """A file fetched in large blocks, the last few of which are cached."""

    remote = True

    def __init__(self, size: int, fetch: Callable[[int, int], bytes]) -> None:
        """``fetch``: returns the bytes from the first position up to the second."""
        self.size = size
        self._fetch = fetch
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def read_at(self, offset: int, size: int) -> bytes:
        end = min(offset + size, self.size)
        found = []
        while offset < end:
            number, skip = divmod(offset, BLOCK_BYTES)
            found.append(self._block(number)[skip : skip + end - offset])
            offset += len(found[-1])
        return found[0] if len(found) == 1 else b"".join(found)

    def _block(self, number: int) -> bytes:
        with self._lock:  # threads want the same block at the same time; fetch it once
            if number not in self._blocks:
                while len(self._blocks) >= BLOCKS_KEPT:
                    self._blocks.popitem(last=False)
                start = number * BLOCK_BYTES
                end = min(start + BLOCK_BYTES, self.size)
                block = self._fetch(start, end)
                if len(block) != end - start:
                    raise ChangedError("the object is shorter than it was when it was opened")
                self._blocks[number] = block
            self._blocks.move_to_end(number)
            return self._blocks[number]

    def require_unchanged(self) -> None:
        """Nothing to check: every fetch asks for the same version."""

    def close(self) -> None:
        self._blocks.clear()


class LocalWriter:
    """A temporary file that is flushed and moved to its path."""

    def __init__(
        self,
        root: str,
        temporaries: str,
        path: str,
        permissions: tuple[int, int],
        modified: datetime | None,
        trouble: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """``temporaries``: folder below ``root``; ``permissions``: bits of root and file.

        ``modified``: as for ``Storage.write``. ``trouble`` translates ``OSError``.
        """
        self._root, self._temporaries, self._path = root, temporaries, path
        self._permissions = permissions
        self._modified = modified
        self._trouble = trouble
        self._name = uuid.uuid4().hex
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with trouble(), opened_folder(root, temporaries, make=permissions[0]) as folder:
            descriptor = os.open(self._name, flags, 0o666 & permissions[1], dir_fd=folder)
            self._file = open(descriptor, "wb")  # noqa: SIM115

    def write(self, data: bytes) -> None:
        with self._trouble():
            self._file.write(data)

    def commit(self) -> None:
        parent, _, name = self._path.rpartition("/")
        with (
            self._trouble(),
            opened_folder(self._root, self._temporaries) as source,
            opened_folder(self._root, parent, make=self._permissions[0]) as target,
        ):
            self._file.flush()
            date(self._file.fileno(), self._modified)
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._name, name, src_dir_fd=source, dst_dir_fd=target)

    def abort(self) -> None:
        with suppress(OSError):  # the disk is full: what could not be flushed is not needed
            self._file.close()
        with suppress(OSError), opened_folder(self._root, self._temporaries) as folder:
            os.unlink(self._name, dir_fd=folder)


class _Aborted(Exception):
    """The upload must not be completed."""


class UploadWriter:
    """A multipart upload in a thread, completed at ``commit``, otherwise aborted."""

    def __init__(self, upload: Callable[[Iterator[bytes]], object]) -> None:
        """``upload`` sends all pieces; if iterating them raises, it aborts and re-raises."""
        self._pieces: queue.Queue[bytes | _Aborted | None] = queue.Queue(PIECES_WAITING)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._send, args=(upload,), daemon=True)
        self._thread.start()
        self._over = False

    def write(self, data: bytes) -> None:
        self._put(data)

    def commit(self) -> None:
        self._end(None)
        if self._error is not None:
            raise self._error

    def abort(self) -> None:
        self._end(_Aborted())

    def _end(self, last: _Aborted | None) -> None:
        if not self._over:
            self._over = True
            with suppress(Exception):  # ``commit`` raises it
                self._put(last)
            self._thread.join()

    def _put(self, piece: bytes | _Aborted | None) -> None:
        """Pass a piece on. Raises the error of a failed upload."""
        while self._error is None:
            try:
                self._pieces.put(piece, timeout=1)
            except queue.Full:
                continue
            return
        raise self._error

    def _send(self, upload: Callable[[Iterator[bytes]], object]) -> None:
        try:
            upload(self._given())
        except BaseException as error:  # raised again in the thread that writes
            self._error = error

    def _given(self) -> Iterator[bytes]:
        while (piece := self._pieces.get()) is not None:
            if isinstance(piece, _Aborted):
                raise piece
            yield piece
