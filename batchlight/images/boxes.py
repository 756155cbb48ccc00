"""Files made of boxes, such as AVIF and HEIF.

Layout: ISO/IEC 14496-12.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

UUID = b"uuid"


@dataclass(frozen=True)
class Box:
    """A box: where it is, and where its content is."""

    kind: bytes
    start: int
    content: int
    end: int


def boxes(data: bytes, at: int = 0, end: int | None = None) -> Iterator[Box]:
    """Each box, within the file; the last may be truncated."""
    end = len(data) if end is None else end
    while at + 8 <= end:
        size, content = int.from_bytes(data[at : at + 4], "big"), at + 8
        if size == 1:
            size, content = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        until = min(at + size, end) if size else end
        if until < content:
            return
        yield Box(data[at + 4 : at + 8], at, content, until)
        at = until


def box(kind: bytes, payload: bytes) -> bytes:
    """A box; raises ``ValueError`` for more than 4 GB."""
    size = len(payload) + 8
    if size >= 2**32:
        raise ValueError("a box of more than 4 GB")
    return size.to_bytes(4, "big") + kind + payload


def full_box(kind: bytes, payload: bytes, version: int = 0, flags: int = 0) -> bytes:
    """A box that begins with its version and flags."""
    return box(kind, bytes([version]) + flags.to_bytes(3, "big") + payload)


class Reader:
    """Reads integers one after another; raises ``ValueError`` beyond the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes still to be read."""
        return len(self._data) - self._at

    def integer(self, size: int) -> int:
        """The next big-endian integer of ``size`` bytes."""
        return int.from_bytes(self.take(size), "big")

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        if size > self.left:
            raise ValueError("a box is cut short")
        self._at += size
        return self._data[self._at - size : self._at]

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(self.left)

    def text(self) -> bytes:
        """A text up to its terminating zero."""
        end = self._data.find(b"\0", self._at)
        found = self._data[self._at : end] if end >= 0 else self._data[self._at :]
        self._at = end + 1 if end >= 0 else len(self._data)
        return found
