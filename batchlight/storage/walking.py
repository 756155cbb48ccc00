"""The files of a local directory, in order."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime

from batchlight.errors import StorageError
from batchlight.storage.base import BAD_NAME, INTERNAL, LINKED_FOLDER, FileInfo, escape_controls
from batchlight.storage.folders import LEAVES, Links, leaves
from batchlight.storage.local_trouble import DENIED, GONE, NO_FILE, storage_trouble


def walk(root: str, links: Links) -> Iterator[FileInfo]:
    """What ``Storage.walk`` gives. Raises ``StorageError``."""
    folders = [_entries(root, "") or iter(())]
    while folders:
        path = next(folders[-1], None)
        if path is None:
            folders.pop()
        elif path.endswith("/"):
            if (entries := _entries(root, path)) is None:
                yield FileInfo(_readable(path))
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


def _entries(root: str, prefix: str) -> Iterator[str] | None:
    """Paths in one folder, in order; those of folders, like ``prefix``, end in a slash.

    They may hold bytes that are not UTF-8. None for a folder that cannot be listed.
    """
    folder = os.path.join(root, prefix)
    keep = GONE | DENIED | {errno.EIO} if prefix else GONE
    try:
        with storage_trouble(f"cannot list {folder}", keep), os.scandir(folder) as scan:
            # A folder sorts by its name with the slash that follows it in every path below it.
            names = [e.name + "/" * e.is_dir(follow_symlinks=False) for e in scan]
    except (FileNotFoundError, NotADirectoryError):
        if prefix:  # deleted while we listed
            return iter(())
        raise StorageError(f"{folder} no longer exists", transient=False) from None
    except OSError:
        return None
    if INTERNAL + "/" in names:
        return iter(())
    names = sorted((name for name in names if not name.startswith(".")), key=_readable)
    return (prefix + name for name in names)


def _described(root: str, path: str, links: Links) -> FileInfo | None:
    """None for what is not a file: sockets, pipes, links where none are followed."""
    absolute = os.path.join(root, path)
    shown = _readable(path)
    defect = BAD_NAME if shown != path else None
    keep = GONE | DENIED | NO_FILE | {errno.EIO}
    try:
        with storage_trouble(f"cannot read {absolute}", keep):
            found = os.stat(absolute, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode) and links is not Links.REFUSED:
                if os.path.isdir(absolute):
                    return FileInfo(shown + "/", defect=LINKED_FOLDER)
                if links is Links.INSIDE and leaves(root, path):
                    return FileInfo(shown, defect=defect or LEAVES)
                found = os.stat(absolute)
    except OSError as error:
        if error.errno in NO_FILE:  # a loop of links
            defect = defect or f"cannot be accessed: {(error.strerror or '').lower()}"
        # Else gone since, or a link to nothing or to what may not be read: the batch will say so.
        return FileInfo(shown, defect=defect)
    if not stat.S_ISREG(found.st_mode):
        return None
    return FileInfo(shown, found.st_size, time_of(found.st_mtime_ns), defect=defect)


def _readable(name: str) -> str:
    """The name as printable text; what is not UTF-8 becomes a backslash escape."""
    return escape_controls(os.fsencode(name).decode("utf-8", "backslashreplace"))
