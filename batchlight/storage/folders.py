"""Folders of a local output, reached without following a symbolic link.

A link below the root would lead reads, writes and deletions elsewhere, and one may appear between a
check and a use. Hence every folder is opened relative to the one above it, and files are addressed
relative to the descriptor of their folder. The root itself may be a link.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from batchlight.errors import StorageError

_FOLDER = os.O_DIRECTORY | os.O_CLOEXEC
_SEARCH = getattr(os, "O_PATH", os.O_RDONLY)
"""O_PATH needs no permission to list the folder; macOS does not have it."""
_MAY_BE_LINK = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EMLINK})
"""Answers to opening a link with O_NOFOLLOW; which one depends on the system."""


@contextmanager
def opened_folder(
    root: str, path: str, *, make: bool = False, listed: bool = False
) -> Iterator[int]:
    """A descriptor of the folder ``path`` below ``root``.

    ``make`` creates what is missing; ``listed`` opens it for listing and fsync. Raises
    ``StorageError`` if a part of ``path`` is a link, else ``OSError``.
    """
    names = [name for name in path.split("/") if name]
    mode = os.O_RDONLY if listed else _SEARCH
    folder = _open_root(root, make, mode if not names else _SEARCH)
    try:
        for depth, name in enumerate(names, 1):
            try:
                below = _open_below(folder, name, make, mode if depth == len(names) else _SEARCH)
            except OSError as error:
                if error.errno in _MAY_BE_LINK:
                    refuse_link(os.path.join(root, *names[:depth]), name, folder)
                raise
            os.close(folder)
            folder = below
        yield folder
    finally:
        os.close(folder)


def open_file(folder: int, name: str, flags: int, absolute: str) -> int:
    """Open the file ``name`` in ``folder``. Raises ``StorageError`` if it is a link."""
    try:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=folder)
    except OSError as error:
        if error.errno in _MAY_BE_LINK:
            refuse_link(absolute, name, folder)
        raise


def refuse_link(absolute: str, name: str, folder: int) -> None:
    """Raise ``StorageError`` if ``name`` in ``folder`` is a link."""
    with suppress(OSError):
        if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise StorageError(
                f"{absolute} is a symbolic link, and none is followed inside an output; "
                "put what it points to in its place, or choose another --output",
                transient=False,
            )


def _open_root(root: str, make: bool, mode: int) -> int:
    try:
        return os.open(root, mode | _FOLDER)
    except FileNotFoundError:
        if not make:
            raise
    os.makedirs(root, exist_ok=True)
    return os.open(root, mode | _FOLDER)


def _open_below(folder: int, name: str, make: bool, mode: int) -> int:
    flags = mode | _FOLDER | os.O_NOFOLLOW
    try:
        return os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):  # another worker makes it too
        os.mkdir(name, dir_fd=folder)
    return os.open(name, flags, dir_fd=folder)
