"""A directory of this machine.

A file is published by writing a temporary file under ``_batchlight/tmp``, flushing it to the disk
and moving it into place, so that a reader, or a run after a power cut, sees all of it or nothing.
That the move itself outlasts a power cut takes a flush of the folder as well, which ``sync`` does
once for many files.
"""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from batchlight.errors import StorageError, UsageError
from batchlight.storage.base import BAD_NAME, INTERNAL, FileInfo, NameRefusedError, escape_controls
from batchlight.storage.location import Location

TEMPORARY = f"{INTERNAL}/tmp"

_NAME_TROUBLE = frozenset(
    {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ}
)
"""The trouble of one name; whatever else happens on writing is trouble of the whole storage."""
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR})
"""Nothing is there any more."""
_NO_FILE = frozenset({errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR, errno.ENXIO})
"""What is there is nothing that can be read."""
_DENIED = frozenset({errno.EACCES, errno.EPERM})
"""It can be read, but not by this user."""
_TRANSIENT = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR})
"""What disks of a network do when they are in trouble, and a second try may find well again."""
_CANNOT_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.ENOENT})
"""Folders of file systems that know no such thing, that this user cannot read, or that are gone."""


class LocalStorage:
    """Files below a local directory, which is made when the first file is written."""

    def __init__(self, location: Location) -> None:
        self.root = location.path
        self._moved_into: set[str] = set()
        """Folders whose entries a power cut may still undo."""

    def check(self, writable: bool) -> None:
        if writable:
            with _storage_trouble(f"cannot write to {self.root}"):
                os.makedirs(os.path.join(self.root, TEMPORARY), exist_ok=True)
        elif not os.path.lexists(self.root):
            raise UsageError(f"there is no {self.root}; check the path")
        elif not os.path.isdir(self.root):
            raise UsageError(
                f"{self.root} is neither a directory, nor an image, nor a list; check the path"
            )

    def walk(self) -> Iterator[FileInfo]:
        folders = [self._entries("")]
        while folders:
            path = next(folders[-1], None)
            if path is None:
                folders.pop()
            elif path.endswith("/"):
                folders.append(self._entries(path))
            elif (info := _describe(os.path.join(self.root, path), path)) is not None:
                yield info

    def _entries(self, prefix: str) -> Iterator[str]:
        """Paths in one folder, in order; those of folders, like ``prefix``, end in a slash.

        They may hold bytes that are not UTF-8.
        """
        folder = os.path.join(self.root, prefix)
        try:
            with _storage_trouble(f"cannot list {folder}", _GONE), os.scandir(folder) as scan:
                # A folder sorts as its name with the slash that follows it in every path below it.
                names = [e.name + "/" * e.is_dir(follow_symlinks=False) for e in scan]
        except (FileNotFoundError, NotADirectoryError):
            if prefix:  # deleted while we listed
                return iter(())
            raise StorageError(f"there is no {folder} any more", lasting=True) from None
        if INTERNAL + "/" in names:
            return iter(())
        names = sorted((name for name in names if not name.startswith(".")), key=_readable)
        return (prefix + name for name in names)

    def names(self, folder: str) -> list[str]:
        absolute = self._absolute(folder)
        with _storage_trouble(f"cannot list {absolute}"):
            try:
                with os.scandir(absolute) as scan:
                    return sorted(entry.name for entry in scan if entry.is_file())
            except FileNotFoundError:
                return []

    def is_file(self, path: str) -> bool:
        return os.path.isfile(self._absolute(path))

    def stat(self, path: str) -> FileInfo:
        absolute = self._absolute(path)
        with _storage_trouble(f"cannot read {absolute}", _DENIED, gone=_GONE, refused=_NO_FILE):
            found = os.stat(absolute)
        if not stat.S_ISREG(found.st_mode):
            raise NameRefusedError(f"cannot read {absolute}: it is no regular file")
        return FileInfo(path, found.st_size, _time(found.st_mtime_ns))

    def read(self, path: str) -> bytes:
        absolute = self._absolute(path)
        with (
            _storage_trouble(f"cannot read {absolute}", _DENIED, gone=_GONE | _NO_FILE),
            open(absolute, "rb", opener=_open_at_once) as file,
        ):
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise FileNotFoundError(errno.ENOENT, "it is no regular file", absolute)
            return file.read()

    def write(self, path: str, data: bytes) -> None:
        with self._prepared(path, data) as (temporary, target):
            self._move(os.replace, temporary, target)

    def create(self, path: str, data: bytes) -> bool:
        with self._prepared(path, data) as (temporary, target):
            try:
                self._move(os.link, temporary, target)  # unlike a rename, never replaces
            except FileExistsError:
                if os.path.isdir(target):
                    raise
                # Over NFS the answer to a link that was made may be lost.
                return os.stat(temporary).st_nlink == 2
            finally:
                os.unlink(temporary)
        return True

    def delete(self, path: str) -> None:
        absolute = self._absolute(path)
        with _storage_trouble(f"cannot delete {absolute}"), suppress(FileNotFoundError):
            os.unlink(absolute)

    def sync(self) -> None:
        folders, self._moved_into = self._moved_into, set()
        for folder in folders:
            with suppress(OSError), _storage_trouble(f"cannot write to {folder}", _CANNOT_SYNC):
                descriptor = os.open(folder, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def sweep(self) -> None:
        for name in self.names(TEMPORARY):
            self.delete(f"{TEMPORARY}/{name}")

    def _absolute(self, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"{path!r} would leave {self.root}")
        return os.path.join(self.root, path)

    def _move(self, move: Callable[[str, str], None], temporary: str, target: str) -> None:
        """Publish a file in a folder that may not be there yet."""
        folder = os.path.dirname(target)
        try:
            move(temporary, target)
        except FileNotFoundError:
            os.makedirs(folder, exist_ok=True)
            move(temporary, target)
        # Those above it may be new too, made here or by another worker a moment ago.
        while folder not in self._moved_into and len(folder) >= len(self.root):
            self._moved_into.add(folder)
            folder = os.path.dirname(folder)

    @contextmanager
    def _prepared(self, path: str, data: bytes) -> Iterator[tuple[str, str]]:
        """Write ``data`` to a temporary file, flushed to the disk, to be moved to its target."""
        target = self._absolute(path)
        temporary = os.path.join(self.root, TEMPORARY, uuid.uuid4().hex)
        with _storage_trouble(f"cannot write {target}", refused=_NAME_TROUBLE):
            try:
                descriptor = _open_new(temporary)
                with open(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(descriptor)
                yield temporary, target
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise


def _open_new(path: str) -> int:
    """Open a file that is not there yet, in a folder that may not be there yet."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        return os.open(path, flags, 0o666)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return os.open(path, flags, 0o666)


def _open_at_once(path: str, flags: int) -> int:
    """Open for reading, without waiting for the writer of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


@contextmanager
def _storage_trouble(
    what: str,
    keep: frozenset[int] = frozenset(),
    *,
    gone: frozenset[int] = frozenset(),
    refused: frozenset[int] = frozenset(),
) -> Iterator[None]:
    """Turn ``OSError`` into ``StorageError``, but for the kinds that are one file's trouble."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        if error.errno in keep:
            raise
        if error.errno in gone:
            raise FileNotFoundError(errno.ENOENT, reason, error.filename) from error
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
        with _storage_trouble(f"cannot read {absolute}", _GONE | _DENIED | _NO_FILE):
            found = os.stat(absolute)
    except OSError as error:
        if error.errno in _NO_FILE:  # a loop of links
            defect = defect or f"cannot be looked at: {(error.strerror or '').lower()}"
        # Else gone since, or a link to nothing or to what is closed: the batch will say so.
        return FileInfo(shown, defect=defect)
    if not stat.S_ISREG(found.st_mode):
        return None
    return FileInfo(shown, found.st_size, _time(found.st_mtime_ns), defect=defect)


def _time(nanoseconds: int) -> datetime | None:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    try:
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
    except (ValueError, OverflowError, OSError):  # beyond the year 9999
        return None
