"""What an ``OSError`` of a local directory means: an error of one file, or of the whole storage."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from batchlight.errors import StorageError
from batchlight.storage.base import FileRefusedError, FileTooLargeError, NotAFileError

NAME_TROUBLE = frozenset(
    {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ}
)
"""Trouble of one name; any other error on writing is trouble of the whole storage."""
GONE = frozenset({errno.ENOENT, errno.ENOTDIR})
"""Nothing exists there any longer."""
NO_FILE = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO})
"""Something exists there, but it is not a readable file."""
TOO_LONG = frozenset({errno.ENAMETOOLONG})
"""It cannot be reached by its path, which is longer than the system allows, or has such a part."""
DENIED = frozenset({errno.EACCES, errno.EPERM})
"""The file exists, but this user may not read it."""
_SHOWN_AT_MOST = 400
"""Characters of a message before its reason; a path may have ten times as many."""
_TRANSIENT = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR})
"""Errors of unreliable network disks, which may be gone on a second try."""
CANNOT_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.ENOENT})
"""Folders whose file system has no fsync, that this user cannot read, or that are gone."""


@contextmanager
def storage_trouble(
    what: str,
    keep: frozenset[int] = frozenset(),
    *,
    gone: frozenset[int] = frozenset(),
    refused: frozenset[int] = frozenset(),
) -> Iterator[None]:
    """Turn ``OSError`` into ``StorageError``, except for the kinds that are one file's trouble."""
    try:
        yield
    except (FileRefusedError, NotAFileError):
        raise
    except OSError as error:
        if error.errno in keep:
            raise
        reason = (error.strerror or str(error)).lower()
        what = abridged(what)
        if error.errno in gone:
            kind = NotAFileError if error.errno in NO_FILE else FileNotFoundError
            raise kind(errno.ENOENT, reason, error.filename) from error
        if error.errno in refused:
            raise FileRefusedError(f"{what}: {reason}") from error
        advice = {
            errno.ENOSPC: "; free some space and run the same command again",
            errno.EDQUOT: "; free some of your quota and run the same command again",
            errno.EACCES: "; give this user the permission and run the same command again",
            errno.EPERM: "; give this user the permission and run the same command again",
            errno.ENOTDIR: "; remove what is there in place of a folder",
            errno.ENAMETOOLONG: "; choose a shorter path",
            errno.EROFS: "; choose a place that can be written to",
            errno.EFBIG: "; choose a place that may have larger files, or raise 'ulimit -f'",
        }.get(error.errno or 0, "")
        if error.errno == errno.EFBIG:
            raise FileTooLargeError(f"{what}: {reason}{advice}", transient=False) from error
        transient = error.errno in _TRANSIENT
        raise StorageError(f"{what}: {reason}{advice}", transient=transient) from error


def folder_denied(folder: str) -> StorageError:
    """What to raise if this user may not list or enter the root of a storage."""
    need = "list and enter it" if os.path.lexists(folder) else "enter the folders above it"
    return StorageError(
        f"cannot read the folder {abridged(folder)}: permission denied; give this user the "
        f"permission to {need}, and run the same command again",
        transient=False,
    )


def abridged(what: str) -> str:
    """The text without the middle of a very long path."""
    half = _SHOWN_AT_MOST // 2
    return what if len(what) <= _SHOWN_AT_MOST else f"{what[:half]}...{what[-half:]}"


def is_io_error(error: BaseException) -> bool:
    """Whether this error, or the cause of it, is an input/output error."""
    number = error.errno if isinstance(error, OSError) else None
    cause = error.__cause__
    return number == errno.EIO or (cause is not None and is_io_error(cause))


@contextmanager
def one_file_of(root: str, absolute: str) -> Iterator[None]:
    """Attribute an input/output error to one file, if the root has none.

    Raises ``FileRefusedError`` in that case.
    """
    try:
        yield
    except StorageError as error:
        cause = error.__cause__
        if cause is None or not is_io_error(cause) or not _is_well(root):
            raise
        reason = os.strerror(errno.EIO).lower()
        raise FileRefusedError(f"cannot read {absolute}: {reason}") from cause


def _is_well(folder: str) -> bool:
    try:
        with os.scandir(folder) as scan:
            next(scan, None)
    except OSError:
        return False
    return True
