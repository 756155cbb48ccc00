"""A directory of this machine.

A file is published by writing a temporary file under ``_batchlight/tmp``, flushing it to the disk
and moving it into place, so that a reader, or a run after a power cut, sees all of it or nothing.
"""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from batchlight.errors import StorageError, UsageError
from batchlight.storage.base import BAD_NAME, INTERNAL, FileInfo, NameRefusedError, escape_controls
from batchlight.storage.location import Location

TEMPORARY = f"{INTERNAL}/tmp"

# The trouble of one name; whatever else happens on writing is trouble of the whole storage.
_NAME_TROUBLE = frozenset(
    {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ}
)
_NOT_READABLE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM})
_TRANSIENT = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR})


class LocalStorage:
    """Files below a local directory, which is made when the first file is written."""

    def __init__(self, location: Location) -> None:
        self.root = location.path

    def check(self, writable: bool) -> None:
        if writable:
            with _storage_trouble(f"cannot write to {self.root}"):
                os.makedirs(os.path.join(self.root, TEMPORARY), exist_ok=True)
        elif not os.path.lexists(self.root):
            raise UsageError(f"there is no {self.root}; check --input")
        elif not os.path.isdir(self.root):
            raise UsageError(
                f"{self.root} is neither a directory, nor an image, nor a list; check --input"
            )

    def walk(self) -> Iterator[FileInfo]:
        yield from self._walk("")

    def _walk(self, prefix: str) -> Iterator[FileInfo]:
        """``prefix`` is empty or ends in a slash, and may hold bytes that are not UTF-8."""
        folder = os.path.join(self.root, prefix)
        with _storage_trouble(f"cannot list {folder}"), os.scandir(folder) as scan:
            # A folder sorts as its name with the slash that follows it in every path below it.
            names = [e.name + "/" * e.is_dir(follow_symlinks=False) for e in scan]
        if INTERNAL + "/" in names:
            return
        for name in sorted(names, key=_readable):
            if name.startswith("."):
                continue
            if name.endswith("/"):
                yield from self._walk(prefix + name)
            elif (info := _describe(folder + name, prefix + name)) is not None:
                yield info

    def names(self, folder: str) -> list[str]:
        with _storage_trouble(f"cannot list {self._absolute(folder)}"):
            try:
                return sorted(os.listdir(self._absolute(folder)))
            except FileNotFoundError:
                return []

    def is_file(self, path: str) -> bool:
        return os.path.isfile(self._absolute(path))

    def stat(self, path: str) -> FileInfo:
        found = os.stat(self._absolute(path))
        return FileInfo(path, found.st_size, _time(found.st_mtime_ns))

    def read(self, path: str) -> bytes:
        absolute = self._absolute(path)
        with (
            _storage_trouble(f"cannot read {absolute}", keep=_NOT_READABLE),
            open(absolute, "rb") as file,
        ):
            return file.read()

    def write(self, path: str, data: bytes) -> None:
        with self._prepared(path, data) as (temporary, target):
            os.replace(temporary, target)

    def create(self, path: str, data: bytes) -> bool:
        with self._prepared(path, data) as (temporary, target):
            try:
                os.link(temporary, target)  # unlike a rename, never replaces
            except FileExistsError:
                return False
            finally:
                os.unlink(temporary)
        return True

    def delete(self, path: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._absolute(path))

    def sweep(self) -> None:
        for name in self.names(TEMPORARY):
            self.delete(f"{TEMPORARY}/{name}")

    def _absolute(self, path: str) -> str:
        if ".." in path.split("/"):
            raise ValueError(f"{path!r} would leave {self.root}")
        return os.path.join(self.root, path)

    @contextmanager
    def _prepared(self, path: str, data: bytes) -> Iterator[tuple[str, str]]:
        """Write ``data`` to a temporary file, flushed to the disk, to be moved to its target."""
        target = self._absolute(path)
        temporary = os.path.join(self.root, TEMPORARY, uuid.uuid4().hex)
        with _storage_trouble(f"cannot write {target}", refused=_NAME_TROUBLE):
            try:
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
                with open(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(descriptor)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                yield temporary, target
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise


@contextmanager
def _storage_trouble(
    what: str, keep: frozenset[int] = frozenset(), refused: frozenset[int] = frozenset()
) -> Iterator[None]:
    """Turn ``OSError`` into ``StorageError``, but for the kinds that are one file's trouble."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        if error.errno in keep:
            raise
        if error.errno in refused:
            raise NameRefusedError(f"{what}: {reason}") from error
        advice = {
            errno.ENOSPC: "; free some space and run the same command again",
            errno.EDQUOT: "; free some of your quota and run the same command again",
            errno.EACCES: "; give this user the permission and run the same command again",
            errno.EPERM: "; give this user the permission and run the same command again",
            errno.EROFS: "; choose an --output that can be written to",
        }.get(error.errno or 0, "")
        lasting = error.errno not in _TRANSIENT
        raise StorageError(f"{what}: {reason}{advice}", lasting=lasting) from error


def _readable(name: str) -> str:
    """The name as printable text; what is not UTF-8 becomes a backslash escape."""
    return escape_controls(os.fsencode(name).decode("utf-8", "backslashreplace"))


def _describe(absolute: str, path: str) -> FileInfo | None:
    """None for what is no file: sockets, pipes, links to directories."""
    shown = _readable(path)
    defect = BAD_NAME if shown != path else None
    try:
        found = os.stat(absolute)
    except FileNotFoundError:  # gone since, or a link to nothing: the batch will say so
        return FileInfo(shown, defect=defect)
    except OSError as error:  # a loop of links
        return FileInfo(shown, defect=f"cannot be looked at: {(error.strerror or '').lower()}")
    if not stat.S_ISREG(found.st_mode):
        return None
    return FileInfo(shown, found.st_size, _time(found.st_mtime_ns), defect=defect)


def _time(nanoseconds: int) -> datetime:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
