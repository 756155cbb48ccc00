"""A directory of this machine.

A file is written to a temporary file under ``_batchlight/tmp``, flushed to the disk and moved to
its path, so that a reader, or a run after a power cut, sees all of it or nothing. The move itself
survives a power cut once its folder is flushed too, which ``sync`` does once for many files.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice

from batchlight.errors import StorageError, UsageError
from batchlight.storage.base import BAD_NAME, INTERNAL, FileInfo, NameRefusedError, escape_controls
from batchlight.storage.folders import open_file, opened_folder, refuse_link
from batchlight.storage.location import Location
from batchlight.storage.publishing import Draft, remove_temporaries, temporary_file

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
    """Files below a local directory, which is made when the first file is written.

    With ``follow_links``, links to files are read as the files, as suits inputs. Without, nothing
    below the root is read, written or deleted through a link: ``StorageError``.
    """

    def __init__(self, location: Location, follow_links: bool = False) -> None:
        self.root = location.path
        self._follow_links = follow_links
        self._changed_folders: set[str] = set()
        """Folders whose entries a power cut may still undo."""
        self._lock = threading.Lock()
        """Of that set."""

    def check(self, writable: bool) -> None:
        if writable:
            with (
                _storage_trouble(f"cannot write to {self.root}"),
                opened_folder(self.root, TEMPORARY, make=True),
            ):
                pass
        elif not os.path.lexists(self.root):
            raise UsageError(f"there is no {self.root}; check the path")
        elif not os.path.isdir(self.root):
            raise UsageError(
                f"{self.root} is neither a directory, nor an image, nor a list; check the path"
            )

    def walk(self, at_most: int | None = None) -> Iterator[FileInfo]:
        return islice(self._files(), at_most)

    def _files(self) -> Iterator[FileInfo]:
        folders = [self._entries("")]
        while folders:
            path = next(folders[-1], None)
            if path is None:
                folders.pop()
            elif path.endswith("/"):
                folders.append(self._entries(path))
            elif (info := self._describe(path)) is not None:
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
            raise StorageError(f"there is no {folder} any more", transient=False) from None
        if INTERNAL + "/" in names:
            return iter(())
        names = sorted((name for name in names if not name.startswith(".")), key=_readable)
        return (prefix + name for name in names)

    def _describe(self, path: str) -> FileInfo | None:
        """None for what is no file: sockets, pipes, links that are not followed."""
        absolute = os.path.join(self.root, path)
        shown = _readable(path)
        defect = BAD_NAME if shown != path else None
        try:
            with _storage_trouble(f"cannot read {absolute}", _GONE | _DENIED | _NO_FILE):
                found = os.stat(absolute, follow_symlinks=self._follow_links)
        except OSError as error:
            if error.errno in _NO_FILE:  # a loop of links
                defect = defect or f"cannot be looked at: {(error.strerror or '').lower()}"
            # Else gone since, or a link to nothing or to what is closed: the batch will say so.
            return FileInfo(shown, defect=defect)
        if not stat.S_ISREG(found.st_mode):
            return None
        return FileInfo(shown, found.st_size, _time(found.st_mtime_ns), defect=defect)

    def names(self, folder: str) -> list[str]:
        absolute = self._absolute(folder)
        with _storage_trouble(f"cannot list {absolute}"):
            try:
                with self._listed(folder) as place, os.scandir(place) as scan:
                    return sorted(entry.name for entry in scan if self._may_be_file(entry))
            except FileNotFoundError:
                return []

    def is_file(self, path: str) -> bool:
        try:
            with self._reached(path) as (name, folder):
                found = os.stat(name, dir_fd=folder, follow_symlinks=self._follow_links)
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode)

    def stat(self, path: str) -> FileInfo:
        absolute = self._absolute(path)
        with (
            _storage_trouble(f"cannot read {absolute}", _DENIED, gone=_GONE, refused=_NO_FILE),
            self._reached(path) as (name, folder),
        ):
            found = os.stat(name, dir_fd=folder, follow_symlinks=self._follow_links)
            if folder is not None and stat.S_ISLNK(found.st_mode):
                refuse_link(absolute, name, folder)
        if not stat.S_ISREG(found.st_mode):
            raise NameRefusedError(f"cannot read {absolute}: it is no regular file")
        return FileInfo(path, found.st_size, _time(found.st_mtime_ns))

    def read(self, path: str) -> bytes:
        absolute = self._absolute(path)
        with (
            _storage_trouble(f"cannot read {absolute}", _DENIED, gone=_GONE | _NO_FILE),
            open(self._open(path), "rb") as file,
        ):
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise FileNotFoundError(errno.ENOENT, "it is no regular file", absolute)
            return file.read()

    def write(self, path: str, data: bytes) -> None:
        with self._draft(path, data) as draft:
            draft.replace()

    def create(self, path: str, data: bytes) -> bool:
        with self._draft(path, data) as draft:
            return draft.create()

    def delete(self, path: str) -> None:
        absolute = self._absolute(path)
        parent, _, name = path.rpartition("/")
        with (
            _storage_trouble(f"cannot delete {absolute}"),
            suppress(FileNotFoundError),
            opened_folder(self.root, parent) as folder,
        ):
            os.unlink(name, dir_fd=folder)

    def sync(self) -> None:
        with self._lock:
            folders, self._changed_folders = self._changed_folders, set()
        try:
            while folders:
                folder = next(iter(folders))
                self._flush(folder)
                folders.discard(folder)
        finally:
            with self._lock:  # none is forgotten if one fails
                self._changed_folders |= folders

    def sweep(self) -> None:
        with (
            _storage_trouble(f"cannot delete {os.path.join(self.root, TEMPORARY)}"),
            suppress(FileNotFoundError),
            opened_folder(self.root, TEMPORARY, listed=True) as folder,
        ):
            remove_temporaries(folder)

    def _absolute(self, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/"):
            raise NameRefusedError(f"{path!r} would leave {self.root}")
        return os.path.join(self.root, path)

    @contextmanager
    def _reached(self, path: str) -> Iterator[tuple[str, int | None]]:
        """The name of a file, and the folder that the name is relative to."""
        absolute = self._absolute(path)
        if self._follow_links:
            yield absolute, None
            return
        parent, _, name = path.rpartition("/")
        with opened_folder(self.root, parent) as folder:
            yield name, folder

    @contextmanager
    def _listed(self, folder: str) -> Iterator[int | str]:
        """A folder, for ``os.scandir``."""
        if self._follow_links:
            yield self._absolute(folder)
            return
        with opened_folder(self.root, folder, listed=True) as descriptor:
            yield descriptor

    def _may_be_file(self, entry: os.DirEntry[str]) -> bool:
        """Whether it is a file, or a link whose use will be refused."""
        if self._follow_links:
            return entry.is_file()
        return entry.is_symlink() or entry.is_file(follow_symlinks=False)

    def _open(self, path: str) -> int:
        flags = os.O_RDONLY | os.O_NONBLOCK  # without waiting for the writer of a pipe
        with self._reached(path) as (name, folder):
            if folder is None:
                return os.open(name, flags | os.O_CLOEXEC)
            return open_file(folder, name, flags, self._absolute(path))

    @contextmanager
    def _draft(self, path: str, data: bytes) -> Iterator[Draft]:
        """``data`` in a temporary file, flushed to the disk, to be moved to its path."""
        target = self._absolute(path)
        parent, _, name = path.rpartition("/")
        with (
            _storage_trouble(f"cannot write {target}", refused=_NAME_TROUBLE),
            opened_folder(self.root, TEMPORARY, make=True) as temporaries,
            temporary_file(temporaries, data) as temporary,
            opened_folder(self.root, parent, make=True) as folder,
        ):
            yield Draft(data, temporary, temporaries, name, folder, path)
        self._note_change(parent)

    def _note_change(self, folder: str) -> None:
        """Remember a folder that was written to, for ``sync``.

        Those above it may be new too, made here or by another worker a moment ago.
        """
        with self._lock:
            while folder not in self._changed_folders:
                self._changed_folders.add(folder)
                folder = folder.rpartition("/")[0]

    def _flush(self, folder: str) -> None:
        absolute = os.path.join(self.root, folder)
        with (
            suppress(OSError),
            _storage_trouble(f"cannot write to {absolute}", _CANNOT_SYNC),
            opened_folder(self.root, folder, listed=True) as descriptor,
        ):
            os.fsync(descriptor)


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
        transient = error.errno in _TRANSIENT
        raise StorageError(f"{what}: {reason}{advice}", transient=transient) from error


def _readable(name: str) -> str:
    """The name as printable text; what is not UTF-8 becomes a backslash escape."""
    return escape_controls(os.fsencode(name).decode("utf-8", "backslashreplace"))


def _time(nanoseconds: int) -> datetime | None:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    try:
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
    except (ValueError, OverflowError, OSError):  # beyond the year 9999
        return None
