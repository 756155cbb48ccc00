"""A directory of this machine.

A file is written to a temporary file under ``_batchlight/tmp``, flushed to disk and moved to its
path, so that a reader, or a run after a power cut, sees all of it or nothing. The move itself
survives a power cut only once its folder is flushed too; ``sync`` does that once for many files.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from functools import partial
from itertools import islice

from batchlight.errors import UsageError
from batchlight.storage.base import (
    INTERNAL,
    FileInfo,
    FileRefusedError,
    NotAFileError,
)
from batchlight.storage.folders import (
    LinkPolicy,
    missing_folders,
    open_file,
    open_inside,
    opened_folder,
    reached_inside,
    refuse_link,
    remove_empty_folders,
)
from batchlight.storage.local_trouble import (
    CANNOT_SYNC,
    DENIED,
    GONE,
    NAME_TROUBLE,
    NO_FILE,
    TOO_LONG,
    folder_denied,
    is_io_error,
    one_file_of,
    storage_trouble,
)
from batchlight.storage.location import Location
from batchlight.storage.permissions import EVERYONE, permissions_of
from batchlight.storage.publishing import Draft, remove_temporaries, temporary_file
from batchlight.storage.streams import LocalReader, LocalWriter
from batchlight.storage.walking import time_of, walk

TEMPORARY = f"{INTERNAL}/tmp"

LOOK_AGAIN_AFTER_S = 0.5
"""Delay before the retry that decides that the file is at fault, not the disk."""


class LocalStorage:
    """Files below a local directory, which is created with the first file."""

    def __init__(
        self,
        location: Location,
        links: LinkPolicy = LinkPolicy.REFUSED,
        permissions: int = EVERYONE,
    ) -> None:
        """``permissions``: the permission bits of the root if it has to be created."""
        self.root = location.path
        self._permissions = permissions
        self._links = links
        self._changed_folders: set[str] = set()
        """Folders whose changes a power cut may still undo."""
        self._lock = threading.Lock()
        """Guards that set."""
        self._made: list[str] = []
        """Folders that ``check`` has created, the innermost first."""

    def check(self, writable: bool) -> None:
        if writable:
            self._made = missing_folders(self.root)
            with (
                storage_trouble(f"cannot write to {self.root}"),
                opened_folder(self.root, TEMPORARY, make=self._permissions),
            ):
                pass
            return
        keep = GONE | NO_FILE | TOO_LONG | DENIED
        try:
            with storage_trouble(f"cannot read the folder {self.root}", keep):
                os.stat(os.path.join(self.root, "."))
        except PermissionError as error:
            raise folder_denied(self.root) from error
        except OSError as error:
            if not os.path.lexists(self.root):
                raise UsageError(f"{self.root} does not exist; check the path") from error
            raise UsageError(
                f"{self.root} is neither a directory, nor an image, nor a list; check the path"
            ) from error

    def walk(self, at_most: int | None = None, soon: bool = False) -> Iterator[FileInfo]:
        return islice(walk(self.root, self._links), at_most)

    def names(self, folder: str) -> list[str]:
        absolute = self._absolute(folder)
        with storage_trouble(f"cannot list {absolute}"):
            try:
                with self._listed(folder) as place, os.scandir(place) as scan:
                    return sorted(entry.name for entry in scan if self._may_be_file(entry))
            except FileNotFoundError:
                return []

    def each_name(self, folder: str) -> Iterator[str]:
        yield from self.names(folder)

    def folders(self, folder: str) -> list[str]:
        absolute = self._absolute(folder)
        with storage_trouble(f"cannot list {absolute}"):
            try:
                with self._listed(folder) as place, os.scandir(place) as scan:
                    return sorted(e.name for e in scan if e.is_dir(follow_symlinks=False))
            except FileNotFoundError:
                return []

    def is_file(self, path: str) -> bool:
        try:
            with self._reached(path) as (name, folder):
                found = os.stat(name, dir_fd=folder, follow_symlinks=folder is None)
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode)

    def stat(self, path: str) -> FileInfo:
        absolute = self._absolute(path)
        with (
            one_file_of(self.root, absolute),
            storage_trouble(
                f"cannot read {absolute}", DENIED, gone=GONE, refused=NO_FILE | TOO_LONG
            ),
            self._reached(path) as (name, folder),
        ):
            found = os.stat(name, dir_fd=folder, follow_symlinks=folder is None)
            if folder is not None and stat.S_ISLNK(found.st_mode):
                refuse_link(absolute, name, folder)
        if not stat.S_ISREG(found.st_mode):
            raise FileRefusedError(f"cannot read {absolute}: it is not a regular file")
        return FileInfo(path, found.st_size, time_of(found.st_mtime_ns))

    def read(self, path: str) -> bytes:
        try:
            return self._read(path)
        except FileRefusedError as error:
            if not is_io_error(error):
                raise
            # A network disk may have recovered a moment later.
            time.sleep(LOOK_AGAIN_AFTER_S)
            return self._read(path)

    def _read(self, path: str) -> bytes:
        absolute = self._absolute(path)
        with self._reading(absolute), open(self._open(path), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise NotAFileError(errno.ENOENT, "it is not a regular file", absolute)
            return file.read()

    @contextmanager
    def _reading(self, absolute: str) -> Iterator[None]:
        with (
            one_file_of(self.root, absolute),
            storage_trouble(
                f"cannot read {absolute}", DENIED, gone=GONE | NO_FILE, refused=TOO_LONG
            ),
        ):
            yield

    def open_reader(self, path: str) -> LocalReader:
        absolute = self._absolute(path)
        reading = partial(self._reading, absolute)
        with reading():
            descriptor = self._open(path)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise NotAFileError(errno.ENOENT, "it is not a regular file", absolute)
            return LocalReader(descriptor, reading)

    def read_part(self, path: str, start: int, size: int) -> bytes:
        with closing(self.open_reader(path)) as reader:
            return reader.read_at(start, size)

    def open_writer(
        self, path: str, permissions: int = EVERYONE, modified: datetime | None = None
    ) -> LocalWriter:
        target = self._absolute(path)
        self._note_change(path.rpartition("/")[0])
        trouble = partial(storage_trouble, f"cannot write {target}", refused=NAME_TROUBLE)
        return LocalWriter(
            self.root, TEMPORARY, path, (self._permissions, permissions), modified, trouble
        )

    def permissions(self, path: str, beside: str = "") -> int:
        with suppress(OSError):
            return permissions_of(self._absolute(path), beside or self.root)
        return EVERYONE

    def write(
        self, path: str, data: bytes, permissions: int = EVERYONE, modified: datetime | None = None
    ) -> None:
        with self._draft(path, data, permissions, modified) as draft:
            draft.replace()

    def create(self, path: str, data: bytes, permissions: int = EVERYONE) -> bool:
        with self._draft(path, data, permissions) as draft:
            return draft.create()

    def delete(self, path: str) -> None:
        absolute = self._absolute(path)
        parent, _, name = path.rpartition("/")
        with (
            storage_trouble(f"cannot delete {absolute}"),
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
            storage_trouble(f"cannot delete {os.path.join(self.root, TEMPORARY)}"),
            suppress(FileNotFoundError),
            opened_folder(self.root, TEMPORARY, listed=True) as folder,
        ):
            remove_temporaries(folder)

    def withdraw(self) -> None:
        with suppress(OSError):  # whatever is not empty stays
            remove_empty_folders(self.root, INTERNAL)
            for folder in self._made:
                os.rmdir(folder)

    def _absolute(self, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/"):
            raise FileRefusedError(f"{path!r} would leave {self.root}")
        return os.path.join(self.root, path)

    @contextmanager
    def _reached(self, path: str) -> Iterator[tuple[str, int | None]]:
        """The name of a file, and the folder that the name is relative to."""
        absolute = self._absolute(path)
        if self._links is LinkPolicy.FOLLOWED:
            yield absolute, None
        elif self._links is LinkPolicy.INSIDE:
            with reached_inside(self.root, path) as reached:
                yield reached
        else:
            parent, _, name = path.rpartition("/")
            with opened_folder(self.root, parent) as folder:
                yield name, folder

    @contextmanager
    def _listed(self, folder: str) -> Iterator[int | str]:
        """A folder in the form that ``os.scandir`` takes."""
        if self._links is not LinkPolicy.REFUSED:
            yield self._absolute(folder)
            return
        with opened_folder(self.root, folder, listed=True) as descriptor:
            yield descriptor

    def _may_be_file(self, entry: os.DirEntry[str]) -> bool:
        """Whether it is a file, or a link, which is rejected on use."""
        if self._links is not LinkPolicy.REFUSED:
            return entry.is_file()
        return entry.is_symlink() or entry.is_file(follow_symlinks=False)

    def _open(self, path: str) -> int:
        flags = os.O_RDONLY | os.O_NONBLOCK  # does not wait for the writer of a pipe
        absolute = self._absolute(path)
        if self._links is LinkPolicy.FOLLOWED:
            return os.open(absolute, flags | os.O_CLOEXEC)
        if self._links is LinkPolicy.INSIDE:
            return open_inside(self.root, path, flags)
        parent, _, name = path.rpartition("/")
        with opened_folder(self.root, parent) as folder:
            return open_file(folder, name, flags, absolute)

    @contextmanager
    def _draft(
        self, path: str, data: bytes, permissions: int, modified: datetime | None = None
    ) -> Iterator[Draft]:
        """``data`` in a temporary file, flushed to disk, ready to be moved to its path."""
        target = self._absolute(path)
        parent, _, name = path.rpartition("/")
        with (
            storage_trouble(f"cannot write {target}", refused=NAME_TROUBLE),
            opened_folder(self.root, TEMPORARY, make=self._permissions) as temporaries,
            temporary_file(temporaries, data, permissions, modified) as temporary,
            opened_folder(self.root, parent, make=self._permissions) as folder,
        ):
            yield Draft(data, temporary, temporaries, name, folder, path)
        self._note_change(parent)

    def _note_change(self, folder: str) -> None:
        """Remember a folder that was written to, for ``sync``.

        Its parents may be new too, created just now by this or another worker.
        """
        with self._lock:
            while folder not in self._changed_folders:
                self._changed_folders.add(folder)
                folder = folder.rpartition("/")[0]

    def _flush(self, folder: str) -> None:
        absolute = os.path.join(self.root, folder)
        with (
            suppress(OSError),
            storage_trouble(f"cannot write to {absolute}", CANNOT_SYNC),
            opened_folder(self.root, folder, listed=True) as descriptor,
        ):
            os.fsync(descriptor)
