"""Temporary files for what does not fit into memory."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from batchlight.errors import StorageError, brief

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class ScratchFullError(StorageError):
    """There is no more space for temporary files, or one may not be as large."""


def scratch_file() -> IO[bytes]:
    """A file that is deleted when closed. Raises ``StorageError`` if it cannot be created."""
    with scratch_trouble():
        return tempfile.TemporaryFile()


@contextmanager
def scratch_trouble() -> Iterator[None]:
    """Turn errors in writing such a file, above all a full disk, into ``StorageError``."""
    try:
        yield
    except OSError as error:
        kind = ScratchFullError if error.errno in _FULL else StorageError
        raise kind(
            f"cannot write to {tempfile.tempdir or 'a temporary file'}: {brief(error)}; "
            "free some space there, or set TMPDIR to another folder",
            transient=False,
        ) from error
