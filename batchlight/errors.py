"""What can go wrong, in two closed sets.

A failed image is a row in the records (``ErrorCode``). A run that cannot finish raises an
exception, reported as one sentence with an exit code:

    BatchlightError          1   fatal
    ├── UsageError           2   a wrong option, config or input; nothing was written
    ├── LockedError          4   another run is using the output
    ├── StorageError         1   storage trouble that is not the fault of an image
    ├── ClusterError         1   Ray could not be started, reached or kept
    └── Interrupted    128 + n   SIGINT (130), SIGTERM (143) or SIGHUP (129)

    ImageError                   one image failed; becomes a row, never leaves the batch
"""

from __future__ import annotations

import signal
import unicodedata
from enum import IntEnum, StrEnum
from typing import Self


class ErrorCode(StrEnum):
    """Why an image failed: the values of the column ``error_code``."""

    EMPTY = "empty"
    CORRUPT = "corrupt"
    UNSUPPORTED = "unsupported"
    TOO_LARGE = "too_large"
    SUSPICIOUS_OUTPUT = "suspicious_output"
    CRASH = "crash"
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    WRITE_FAILED = "write_failed"
    ERROR = "error"
    """An exception that no image should cause: a bug, or a broken environment."""


_REDONE_BY_EVERY_RUN = frozenset(
    {ErrorCode.MISSING, ErrorCode.UNREADABLE, ErrorCode.WRITE_FAILED, ErrorCode.ERROR}
)


def is_permanent(code: str) -> bool:
    """Whether the same input would fail again, so that only ``--retry-failed`` redoes it.

    False for codes of later versions: this one cannot know whether they are permanent.
    """
    return code in frozenset(ErrorCode) - _REDONE_BY_EVERY_RUN


class ExitCode(IntEnum):
    """The process's exit status; also in ``summary.json``."""

    OK = 0
    FATAL = 1
    USAGE = 2
    FAILURES = 3
    LOCKED = 4


class BatchlightError(Exception):
    """A fatal error of a run. Its text is one sentence: what, where, what to do."""

    exit_code: int = ExitCode.FATAL


class UsageError(BatchlightError):
    """The command, the config or the input is wrong; nothing was written."""

    exit_code = ExitCode.USAGE


class LockedError(BatchlightError):
    """Another run is using this output."""

    exit_code = ExitCode.LOCKED


class StorageError(BatchlightError):
    """Storage trouble that is not the fault of an image.

    ``transient``: whether a retry may help. If not (a full disk, wrong credentials), the message
    says what can; otherwise the advice is to try again.
    """

    def __init__(self, message: str, transient: bool = True) -> None:
        super().__init__(message, transient)
        self.message = message
        self.transient = transient

    def __str__(self) -> str:
        advice = "; run the same command again to continue" if self.transient else ""
        return self.message + advice


class ClusterError(BatchlightError):
    """Ray could not be started, reached or kept."""


class Interrupted(BatchlightError):
    """The run was asked to stop by a signal; ``exit_code`` is 128 + the signal's number."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.exit_code = 128 + signum

    def __str__(self) -> str:
        name = signal.Signals(self.exit_code - 128).name
        return f"interrupted by {name}; run the same command again to continue where it stopped"


_BRIEF = 160
"""Characters of an exception's text in a sentence; a path or two, and a reason."""


def brief(error: BaseException) -> str:
    """An exception's text on one line, shortened to fit a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _BRIEF else text[: _BRIEF - 3] + "..."


_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def shown(text: str) -> str:
    """Text from anywhere, safe to display: what controls a terminal or reorders text is escaped.

    These are control characters, line ends, lone surrogates, and those of ``_BIDI``, which display
    a name in another order than it is stored.
    """
    if text.isascii() and text.isprintable():  # fast path, e.g. for a base64 data URI
        return text
    return "".join(
        c if c not in _BIDI and unicodedata.category(c) not in _STEERING else _escaped(c)
        for c in text
    )


_STEERING = ("Cc", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that was not UTF-8
        number &= 0xFF
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def counted(number: int, thing: str) -> str:
    """For example ``1 image``, ``5 images``."""
    return f"{number} {thing}" + "s" * (number != 1)


def in_bytes(number: int) -> str:
    """For example ``3.2 kB``."""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} PB"


def unit_of_time(seconds: float) -> tuple[str, int]:
    """The longest unit of which a duration has at least two, and its length in seconds."""
    units = (("days", 86_400), ("hours", 3600), ("minutes", 60))
    return next((unit for unit in units if seconds >= 2 * unit[1]), ("seconds", 1))


class ImageError(Exception):
    """One image failed, for a reason of the closed set."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    @classmethod
    def corrupt(cls, message: str) -> Self:
        """The content is damaged."""
        return cls(ErrorCode.CORRUPT, message)

    @classmethod
    def unsupported(cls, message: str) -> Self:
        """The content may be intact, but is of a kind that cannot be read or kept."""
        return cls(ErrorCode.UNSUPPORTED, message)

    def __str__(self) -> str:
        return self.message
