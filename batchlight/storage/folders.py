"""Folders of a local output, reached without following symbolic links; and files of an input.

A link below the root would lead reads, writes and deletions elsewhere, and one may appear between
check and use. Hence every folder is opened relative to its parent, and files are addressed relative
to the descriptor of their folder. The root itself may be a link.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto

from batchlight.errors import StorageError, UsageError
from batchlight.storage.base import FileRefusedError
from batchlight.storage.local_trouble import abridged

_FOLDER = os.O_DIRECTORY | os.O_CLOEXEC
_SEARCH = getattr(os, "O_PATH", os.O_RDONLY)
"""O_PATH needs no permission to list the folder; macOS lacks it."""
LEAVES = "it is a link that points outside the input; --follow-links reads it"
_OWN_PATH = "_" * 64
"""At least as long as the path of any folder that batchlight makes in an output."""
_MAY_BE_LINK = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EMLINK})
"""Errors from opening a link with O_NOFOLLOW; which one depends on the system."""


class LinkPolicy(Enum):
    """Which symbolic links below a root are followed; in any case, only links to files."""

    REFUSED = auto()
    """None: nothing is read, written or deleted through a link. ``StorageError``."""
    INSIDE = auto()
    """Links whose target is below the root; others are trouble of one file."""
    FOLLOWED = auto()


class LinkRefusedError(StorageError):
    """A link where none is followed."""


@contextmanager
def opened_folder(root: str, path: str, *, make: int = 0, listed: bool = False) -> Iterator[int]:
    """A descriptor of the folder ``path`` below ``root``.

    ``make`` creates missing folders: the root with these permission bits, those below with the
    root's. ``listed`` opens the folder for listing and fsync. Raises ``StorageError`` if a
    component of ``path`` is a link, otherwise ``OSError``.
    """
    names = [name for name in path.split("/") if name]
    mode = os.O_RDONLY if listed else _SEARCH
    folder = _open_root(root, make, mode if not names else _SEARCH)
    inherited = (os.fstat(folder).st_mode & 0o777 | 0o700) if make else 0
    try:
        for depth, name in enumerate(names, 1):
            try:
                below = _open_below(
                    folder, name, inherited, mode if depth == len(names) else _SEARCH
                )
            except OSError as error:
                if error.errno in _MAY_BE_LINK:
                    refuse_link(os.path.join(root, *names[:depth]), name, folder)
                raise
            os.close(folder)
            folder = below
        yield folder
    finally:
        os.close(folder)


@contextmanager
def reached_inside(root: str, path: str) -> Iterator[tuple[str, int]]:
    """The name of the file ``path``, and a descriptor of the folder that really contains it.

    Links are followed if their target is below ``root``: they are resolved first, then nothing is
    reached through a link. Raises ``FileRefusedError`` for links that leave.
    """
    top = os.path.realpath(root)
    real = os.path.realpath(os.path.join(top, path))
    if not _is_below(top, real):
        raise FileRefusedError(f"cannot read {os.path.join(root, path)}: {LEAVES}")
    parent, _, name = real[len(top.rstrip("/")) + 1 :].rpartition("/")
    try:
        with opened_folder(top, parent) as folder:
            yield name, folder
    except LinkRefusedError as error:  # a loop, or created in the meantime
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from error


def open_inside(root: str, path: str, flags: int) -> int:
    """Open the file ``path`` under the same rule, then check where it was opened."""
    absolute = os.path.join(root, path)
    if not leaves(root, path):
        descriptor = os.open(absolute, flags | os.O_CLOEXEC)
        if _is_below(os.path.realpath(root), _path_of(descriptor) or os.path.realpath(absolute)):
            return descriptor
        os.close(descriptor)
    raise FileRefusedError(f"cannot read {absolute}: {LEAVES}")


def _path_of(descriptor: int) -> str | None:
    """The path of an open file; None if the system does not tell."""
    with suppress(OSError):
        if sys.platform == "darwin":
            found = fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024))
            return os.fsdecode(found.rstrip(b"\0"))
        return os.readlink(f"/proc/self/fd/{descriptor}")
    return None


def leaves(root: str, path: str) -> bool:
    """Whether a link below ``root`` leads outside it."""
    top = os.path.realpath(root)
    return not _is_below(top, os.path.realpath(os.path.join(top, path)))


def _is_below(top: str, real: str) -> bool:
    return real.startswith(top.rstrip("/") + "/")


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
            raise LinkRefusedError(
                f"{absolute} is a symbolic link, which is not followed inside an output; "
                "replace it with its target, or choose another --output",
                transient=False,
            )


def require_possible(path: str) -> None:
    """Raise ``UsageError`` if a local output is not a folder and cannot be created as one."""
    there = path
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        what = "a link that leads to no folder" if os.path.islink(there) else "not a folder"
        where = "" if there == path else f"{abridged(path)} cannot be made, since "
        raise UsageError(f"the output {where}{abridged(there)} is {what}; choose another --output")
    # A name is looked up, and so refused, only in a folder that exists.
    names = (os.path.join(there, name) for name in os.path.relpath(path, there).split("/"))
    if any(map(_is_too_long, (os.path.join(path, _OWN_PATH), *names))):
        raise UsageError(
            f"the output {abridged(path)} has too long a path for its file system; "
            "choose a shorter --output"
        )


def _is_too_long(path: str) -> bool:
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG
    return False


def missing_folders(path: str) -> list[str]:
    """A folder and those above it, as far as they do not exist; the innermost first."""
    missing = []
    while path and not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing


def remove_empty_folders(root: str, path: str) -> None:
    """Remove the folder ``path`` below ``root``, with those in it. Raises ``OSError``.

    Stops at the first that is not empty, or is a link.
    """
    with opened_folder(root, "", listed=True) as top:
        for _, below, _, folder in os.fwalk(path, topdown=False, dir_fd=top):
            for name in below:
                os.rmdir(name, dir_fd=folder)
        os.rmdir(path, dir_fd=top)


def _open_root(root: str, make: int, mode: int) -> int:
    try:
        return os.open(root, mode | _FOLDER)
    except FileNotFoundError:
        if not make:
            raise
    os.makedirs(os.path.dirname(root), exist_ok=True)
    with suppress(FileExistsError):
        os.mkdir(root, make)
    return os.open(root, mode | _FOLDER)


def _open_below(folder: int, name: str, make: int, mode: int) -> int:
    flags = mode | _FOLDER | os.O_NOFOLLOW
    try:
        return os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):  # another worker creates it too
        os.mkdir(name, make, dir_fd=folder)
    return os.open(name, flags, dir_fd=folder)
