"""The files of a local directory, in order."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

from batchlight.errors import StorageError
from batchlight.storage.base import (
    BAD_NAME,
    INTERNAL,
    LINKED_FOLDER,
    OUTPUT_FOLDER,
    FileInfo,
    escape_controls,
)
from batchlight.storage.folders import LEAVES, LinkPolicy, leaves
from batchlight.storage.local_trouble import (
    DENIED,
    GONE,
    NO_FILE,
    TOO_LONG,
    folder_denied,
    storage_trouble,
)


def walk(root: str, links: LinkPolicy) -> Iterator[FileInfo]:
    """What ``Storage.walk`` gives. Raises ``StorageError``."""
    top = _entries(root, "")
    folders = [] if isinstance(top, FileInfo) else [top]
    while folders:
        path = next(folders[-1], None)
        if path is None:
            folders.pop()
        elif path.endswith("/"):
            if isinstance(entries := _entries(root, path), FileInfo):
                yield entries
            else:
                folders.append(entries)
        elif (info := _described(root, path, links)) is not None:
            yield info


def time_of(nanoseconds: int) -> datetime | None:
    """A file's time of modification; None beyond the year 9999."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    try:
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
    except (ValueError, OverflowError, OSError):
        return None


def _entries(root: str, prefix: str) -> Iterator[str] | FileInfo:
    """Paths in one folder, in order; those of folders, like ``prefix``, end in a slash.

    They may hold bytes that are not UTF-8. The folder itself if it is not to be entered: it cannot
    be listed, or is an output.
    """
    folder = os.path.join(root, prefix)
    keep = GONE | DENIED | (TOO_LONG | {errno.EIO} if prefix else frozenset())
    try:
        with storage_trouble(f"cannot list {folder}", keep), os.scandir(folder) as scan:
            # A folder sorts by its name with the slash that follows it in every path below it.
            names = [e.name + "/" * e.is_dir(follow_symlinks=False) for e in scan]
    except (FileNotFoundError, NotADirectoryError):
        if prefix:  # deleted while we listed
            return iter(())
        raise StorageError(f"{folder} no longer exists", transient=False) from None
    except OSError as error:
        if not prefix:
            raise folder_denied(root) from error
        return FileInfo(_readable(prefix))
    internal = INTERNAL + "/"
    if internal in names and _holds_files(os.path.join(folder, internal)):
        return FileInfo(_readable(prefix), defect=OUTPUT_FOLDER)
    names = sorted((n for n in names if not n.startswith(".") and n != internal), key=_readable)
    return (prefix + name for name in names)


def _holds_files(internal: str) -> bool:
    """Whether any run has come as far as its lock; one that is refused may leave empty folders."""
    with suppress(OSError):
        return any(files for _, _, files in os.walk(internal, onerror=_raised))
    return True


def _raised(error: OSError) -> None:
    raise error


def _described(root: str, path: str, links: LinkPolicy) -> FileInfo | None:
    """None for what is not a file: sockets, pipes, links where none are followed."""
    absolute = os.path.join(root, path)
    shown = _readable(path)
    defect = BAD_NAME if shown != path else None
    unusable = NO_FILE | TOO_LONG
    keep = GONE | DENIED | unusable | {errno.EIO}
    try:
        with storage_trouble(f"cannot read {absolute}", keep):
            found = os.stat(absolute, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode) and links is not LinkPolicy.REFUSED:
                if os.path.isdir(absolute):
                    return FileInfo(shown + "/", defect=LINKED_FOLDER)
                if links is LinkPolicy.INSIDE and leaves(root, path):
                    return FileInfo(shown, defect=defect or LEAVES)
                found = os.stat(absolute)
    except OSError as error:
        if error.errno in unusable:  # such as a loop of links
            defect = defect or f"cannot be accessed: {(error.strerror or '').lower()}"
        # Otherwise it has vanished, or is a dangling or forbidden link: the batch will report it.
        return FileInfo(shown, defect=defect)
    if not stat.S_ISREG(found.st_mode):
        return None
    return FileInfo(shown, found.st_size, time_of(found.st_mtime_ns), defect=defect)


def _readable(name: str) -> str:
    """The name as printable text; what is not UTF-8 becomes a backslash escape."""
    return escape_controls(os.fsencode(name).decode("utf-8", "backslashreplace"))
