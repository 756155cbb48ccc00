"""Standard streams that are closed, full, or unread: the output is lost, not the work."""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import TextIO

from batchlight.errors import BatchlightError, shown


class _Stream(io.TextIOWrapper):
    """A standard stream that writes nothing more after its first failure."""

    forgiving = True

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Discard what is still buffered, so that the exit of the process does not fail as well."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        if not self.forgiving and not isinstance(error, BrokenPipeError):
            reason = (error.strerror or "").lower()
            raise BatchlightError(f"cannot write to the standard output: {reason}") from error


class Shown(logging.Formatter):
    """Log lines without terminal control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(shown, super().format(record).split("\n")))


def prepare_streams() -> None:
    """Make standard streams accept any text, and fail without ending the process.

    Standard output still ends it, unless ``forgive_stdout`` is called.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: otherwise the next file opened would get its descriptor
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _prepared(sys.stdout, 1)
    sys.stderr = _prepared(sys.stderr, 2)
    if isinstance(sys.stdout, _Stream):
        sys.stdout.forgiving = False


def forgive_stdout() -> None:
    """Go on even if nothing can be written to standard output."""
    if isinstance(sys.stdout, _Stream):
        sys.stdout.forgiving = True


def _prepared(stream: TextIO | None, descriptor: int) -> TextIO:
    # Characters that cannot be encoded are escaped, rather than ending the command.
    if stream is None:
        stream = open(descriptor, "w", encoding="utf-8")  # noqa: SIM115
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    try:
        own = stream.fileno() == descriptor
    except OSError:  # the program has replaced the stream
        own = False
    if not own:
        stream.reconfigure(errors="backslashreplace")
        return stream
    encoding, line_buffering = stream.encoding, stream.line_buffering
    return _Stream(
        stream.detach(), encoding=encoding, errors="backslashreplace", line_buffering=line_buffering
    )
