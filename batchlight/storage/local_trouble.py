"""What an ``OSError`` of a local directory means: one file's trouble, or that of the storage."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from batchlight.errors import StorageError
from batchlight.storage.base import NameRefusedError

NAME_TROUBLE = frozenset(
    {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ}
)
"""The trouble of one name; whatever else happens on writing is trouble of the whole storage."""
GONE = frozenset({errno.ENOENT, errno.ENOTDIR})
"""Nothing is there any more."""
NO_FILE = frozenset({errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR, errno.ENXIO})
"""What is there is nothing that can be read."""
DENIED = frozenset({errno.EACCES, errno.EPERM})
"""It can be read, but not by this user."""
_TRANSIENT = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR})
"""What disks of a network do when they are in trouble, and a second try may find well again."""
CANNOT_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.ENOENT})
"""Folders of file systems that know no such thing, that this user cannot read, or that are gone."""


@contextmanager
def storage_trouble(
    what: str,
    keep: frozenset[int] = frozenset(),
    *,
    gone: frozenset[int] = frozenset(),
    refused: frozenset[int] = frozenset(),
) -> Iterator[None]:
    """Turn ``OSError`` into ``StorageError``, but for the kinds that are one file's trouble."""
    try:
        yield
    except NameRefusedError:
        raise
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


def is_bad_sector(error: BaseException) -> bool:
    """Whether this, or what it was made of, is an input or output error."""
    number = error.errno if isinstance(error, OSError) else None
    cause = error.__cause__
    return number == errno.EIO or (cause is not None and is_bad_sector(cause))


@contextmanager
def one_file_of(root: str, absolute: str) -> Iterator[None]:
    """Take an input or output error for the trouble of one file if the root has none.

    Raises ``NameRefusedError`` then.
    """
    try:
        yield
    except StorageError as error:
        cause = error.__cause__
        if cause is None or not is_bad_sector(cause) or not _is_well(root):
            raise
        reason = os.strerror(errno.EIO).lower()
        raise NameRefusedError(f"cannot read {absolute}: {reason}") from cause


def _is_well(folder: str) -> bool:
    try:
        with os.scandir(folder) as scan:
            next(scan, None)
    except OSError:
        return False
    return True
