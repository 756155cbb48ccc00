"""Local files that appear whole or not at all; until then, they have this package's own names.

A temporary file is moved to its name, or linked to it if it must not replace another file. Some
file systems (FAT, exFAT, some SMB and FUSE) have no hard links. There, the temporary file is put
into a folder, and that folder is renamed to the claim of the file's path, which fails while another
creator's claim stands with its file inside. Only the file in the claim is moved to the path, and
only if nothing is there. Any process that meets a claim finishes it, so when a creator dies, the
path is either free or has the dead creator's file, never half written and never blocked.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from batchlight.errors import UsageError
from batchlight.storage.folders import open_file
from batchlight.storage.local_trouble import storage_trouble
from batchlight.storage.permissions import EVERYONE

_OWN_NAME = re.compile("[0-9a-f]{32}")
_NO_HARD_LINKS = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
)
"""FAT and exFAT; SMB; FUSE; file systems with one link per file; AFS across folders."""
_CLAIMED = frozenset({errno.ENOTEMPTY, errno.EEXIST})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Draft:
    """A complete file, flushed to disk, that has yet to appear under its name."""

    data: bytes
    temporary: str
    temporaries: int
    """Descriptor of the folder of temporary files."""
    name: str
    folder: int
    """Descriptor of the folder in which it will appear."""
    path: str
    """Its path below the root."""

    def replace(self) -> None:
        """Move it to its path, replacing any file there."""
        os.replace(self.temporary, self.name, src_dir_fd=self.temporaries, dst_dir_fd=self.folder)

    def create(self) -> bool:
        """Move it to its path unless something is there; returns whether the file is there now."""
        try:
            os.link(
                self.temporary,
                self.name,
                src_dir_fd=self.temporaries,
                dst_dir_fd=self.folder,
                follow_symlinks=False,
            )
        except FileExistsError:
            self._refuse_folder()
            # Over NFS, the reply to a successful link may be lost.
            return os.stat(self.temporary, dir_fd=self.temporaries).st_nlink == 2
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            return self._create_by_claim()
        finally:
            with suppress(FileNotFoundError):
                os.unlink(self.temporary, dir_fd=self.temporaries)
        return True

    def _create_by_claim(self) -> bool:
        claim = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:32]
        carrier = uuid.uuid4().hex
        tmp = self.temporaries
        os.mkdir(carrier, dir_fd=tmp)
        try:
            with _listed(carrier, tmp) as inside:
                os.rename(self.temporary, self.temporary, src_dir_fd=tmp, dst_dir_fd=inside)
            while not _exists(self.name, self.folder):
                try:
                    os.rename(carrier, claim, src_dir_fd=tmp, dst_dir_fd=tmp)
                except OSError as error:
                    if error.errno not in _CLAIMED:
                        raise
                self._finish(claim)
        finally:
            _remove(carrier, tmp)
        self._refuse_folder()
        with suppress(FileNotFoundError):  # deleted in the meantime
            descriptor = open_file(self.folder, self.name, os.O_RDONLY, self.path)
            with open(descriptor, "rb") as file:
                return file.read() == self.data
        return False

    def _finish(self, claim: str) -> None:
        """Finish what the holder of the claim is about to do, or left undone when it died."""
        with suppress(FileNotFoundError), _listed(claim, self.temporaries) as inside:
            for entry in os.listdir(inside):
                # While it is in the claim, nothing else has been moved to the name.
                with suppress(FileNotFoundError):
                    if _exists(self.name, self.folder):
                        os.unlink(entry, dir_fd=inside)
                    else:
                        os.rename(entry, self.name, src_dir_fd=inside, dst_dir_fd=self.folder)
        with suppress(OSError):  # another process has removed it, or claimed it already
            os.rmdir(claim, dir_fd=self.temporaries)

    def _refuse_folder(self) -> None:
        with suppress(FileNotFoundError):
            found = os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self.path)


def require_replaceable(path: str) -> None:
    """Raise ``UsageError`` if something other than a regular file is there, such as a device.

    Nor is a link: neither is it clear that its target may be overwritten, nor that it may go.
    """
    with suppress(OSError):  # nothing is there, or writing will say what is wrong
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise UsageError(f"{path} exists and is not a regular file; choose another name")


def write_file(path: str, data: bytes) -> None:
    """Replace a file that belongs to no storage, whole or not at all.

    Raises ``StorageError``, and ``UsageError`` as ``require_replaceable`` does.
    """
    require_replaceable(path)
    folder, name = os.path.split(path)
    with storage_trouble(f"cannot write {path}"):
        descriptor = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            with temporary_file(descriptor, data, EVERYONE) as temporary:
                os.replace(temporary, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def temporary_file(
    folder: int, data: bytes, permissions: int, modified: datetime | None = None
) -> Iterator[str]:
    """The name of a file in ``folder`` with ``data``, flushed; removed if the block fails.

    ``permissions``: upper limit of its permission bits. ``modified``: as for ``Storage.write``.
    """
    name = uuid.uuid4().hex
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, 0o666 & permissions, dir_fd=folder)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            date(descriptor, modified)
            os.fsync(descriptor)
        yield name
    except BaseException:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
        raise


def date(descriptor: int, modified: datetime | None) -> None:
    """Set the modification time of an open file, if one is given, exactly.

    As a floating-point number of seconds, it could come out a microsecond earlier.
    """
    if modified is not None:
        at = (modified - _EPOCH) // timedelta(microseconds=1) * 1000
        os.utime(descriptor, ns=(at, at))


def remove_temporaries(folder: int) -> None:
    """Remove what dead processes left in ``folder``: only names of the form used here."""
    for name in filter(_OWN_NAME.fullmatch, os.listdir(folder)):
        _remove(name, folder)


def _remove(name: str, folder: int) -> None:
    """Remove a temporary file, or the folder of a claim; a link, but not its target."""
    with suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder)
            return
        with _listed(name, folder) as inside:
            for entry in filter(_OWN_NAME.fullmatch, os.listdir(inside)):
                with suppress(OSError):  # not ours: a folder
                    os.unlink(entry, dir_fd=inside)
        with suppress(OSError):  # not ours: something else is in it
            os.rmdir(name, dir_fd=folder)


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _listed(name: str, folder: int) -> Iterator[int]:
    descriptor = os.open(name, _LIST, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
