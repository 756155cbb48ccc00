"""The members of a tar, found by their headers alone, without reading their data.

USTAR, GNU, PAX (POSIX.1-2001) and v7, as read by GNU tar and Python's ``tarfile``. Concatenated
archives count as one; anything after the end that is not a header is ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from batchlight.errors import ErrorCode, ImageError
from batchlight.shards.headers import BLOCK, SIZE, has_checksum, number

LONG_HEADER_BYTES = 2**20
"""Limit for a long name or PAX records; no writer makes longer ones."""
ZEROS_AT_ONCE = 128 * BLOCK

_WITHOUT_DATA = frozenset(b"123456")
"""Links, devices, folders, pipes: their size is meaningless."""
_LINKS = frozenset(b"12")
_HARD_LINK = ord("1")
_FILES = frozenset(b"0\x007S")
_FOLDER = ord("5")
_EXTENSIONS = frozenset(b"xXgLK")


class TarSource(Protocol):
    """What a tar is read from."""

    size: int

    def read_at(self, offset: int, size: int) -> bytes:
        """``size`` bytes, or fewer only at the end."""


@dataclass(frozen=True)
class Member:
    """Where a member is in its tar; offsets are bytes from its start."""

    name: bytes
    start: int
    """Start of its first header."""
    header: int
    """Start of its last header, which contains its size."""
    data: int
    size: int
    end: int
    """Where the next member begins."""
    is_file: bool
    """Whether it is a file or a link."""
    obstacle: str | None = None
    """Why its data cannot be replaced, if so."""
    target: bytes | None = None
    """For a hard link: the name of the earlier member that has its data."""

    @property
    def sample(self) -> bytes:
        """The key of its sample: the path up to the first dot of its name.

        Split as in WebDataset.
        """
        folder, slash, base = self.name.rpartition(b"/")
        return folder + slash + base.partition(b".")[0]


def members(source: TarSource) -> Iterator[Member]:
    """All members in order.

    Raises ``ImageError``: ``empty``, or ``corrupt`` if it is not a tar, damaged or truncated.
    """
    if not source.size:
        raise ImageError(ErrorCode.EMPTY, "the file is empty")
    common: dict[bytes, bytes] = {}
    at, ended = 0, False
    while at < source.size:
        block = source.read_at(at, BLOCK)
        if not any(block):
            at, ended = _behind_zeros(source, at), True
        elif ended and not has_checksum(block):
            return
        else:
            member, at = _Headers(source, at, common, block).member()
            if member is not None:
                yield member


def _behind_zeros(source: TarSource, at: int) -> int:
    """The first non-zero block from ``at`` on, or the end."""
    while at < source.size:
        data = source.read_at(at, ZEROS_AT_ONCE)
        if not any(data):
            at += len(data)
            continue
        zeros = len(data) - len(data.lstrip(b"\0"))
        return at + zeros // BLOCK * BLOCK
    return at


class _Headers:
    """The headers of one member, read one after another."""

    def __init__(
        self, source: TarSource, at: int, common: dict[bytes, bytes], first: bytes
    ) -> None:
        """``common``: the global PAX records so far, to which new ones are added.

        ``first``: the block at ``at``.
        """
        self._source = source
        self._first: bytes | None = first
        self._start = self._at = at
        self._common = common
        self._records = dict(common)
        self._long_name: bytes | None = None
        self._long_target: bytes | None = None

    def member(self) -> tuple[Member | None, int]:
        """The member, and where the next one begins; None where global records stand alone."""
        while True:
            header = self._block()
            kind = header[156]
            if kind not in _EXTENSIONS:
                found = self._found(header, kind)
                return found, found.end
            text = self._long_text(header)
            if kind == ord("L"):
                self._long_name = text.rstrip(b"\0")
            elif kind == ord("K"):
                self._long_target = text.rstrip(b"\0")
            elif kind == ord("g"):
                self._common.update(self._parsed(text))
                if self._at == self._start + BLOCK + _padded(len(text)):
                    return None, self._at
            elif kind in b"xX":
                self._records.update(self._parsed(text))

    def _found(self, header: bytes, kind: int) -> Member:
        at = self._at - BLOCK
        size, obstacle = self._size_of(header, kind)
        name = self._name_of(header)
        is_folder = kind == _FOLDER or (kind == 0 and name.endswith(b"/"))
        if kind == ord("S"):
            self._skip_sparse_map(header)
        stored = 0 if kind in _WITHOUT_DATA or is_folder else size
        end = self._at + _padded(stored)
        if end > self._source.size:  # even if only padding is missing, so is what followed it
            raise _damaged(at, "the file ends within a member")
        is_file = kind in (_FILES | _LINKS) and not is_folder
        target = self._target_of(header) if kind == _HARD_LINK else None
        return Member(name, self._start, at, self._at, stored, end, is_file, obstacle, target)

    def _size_of(self, header: bytes, kind: int) -> tuple[int, str | None]:
        """The size of its data, and why they cannot be replaced, if so."""
        try:
            size = number(header[SIZE])
            recorded = self._records.get(b"size")
            if recorded is not None:
                size = int(recorded)
        except ValueError:
            raise _damaged(self._at - BLOCK, "its size is not a number") from None
        if size < 0:
            raise _damaged(self._at - BLOCK, "its size is negative")
        if kind in _LINKS:
            return size, "it is a link to another member"
        sparse = any(key.startswith(b"GNU.sparse.") for key in self._records)
        if kind == ord("S") or sparse:
            return size, "it is stored as a sparse file; extract it and archive it without -S"
        if recorded is not None:
            return size, "its size stands in a PAX record, beside the header"
        return size, None

    def _name_of(self, header: bytes) -> bytes:
        for name in (b"GNU.sparse.name", b"path"):
            if name in self._records:
                return self._records[name]
        if self._long_name is not None:
            return self._long_name
        name, prefix = (header[s].partition(b"\0")[0] for s in (slice(100), slice(345, 500)))
        is_ustar = header[257:263] == b"ustar\0"
        return prefix + b"/" + name if is_ustar and prefix else name

    def _target_of(self, header: bytes) -> bytes:
        if b"linkpath" in self._records:
            return self._records[b"linkpath"]
        if self._long_target is not None:
            return self._long_target
        return header[157:257].partition(b"\0")[0]

    def _skip_sparse_map(self, header: bytes) -> None:
        """Skip the further blocks of an old GNU sparse file's map."""
        more = header[482]
        while more:
            more = self._raw_block()[504]

    def _long_text(self, header: bytes) -> bytes:
        at = self._at - BLOCK
        try:
            size = number(header[SIZE])
        except ValueError:
            raise _damaged(at, "its size is not a number") from None
        if size > LONG_HEADER_BYTES:
            raise _damaged(at, f"an implausible header of {size} bytes")
        text = self._source.read_at(self._at, size)
        self._at += _padded(size)
        if self._at > self._source.size:
            raise _damaged(at, "the file ends within a header")
        return text

    def _parsed(self, text: bytes) -> dict[bytes, bytes]:
        """PAX records: ``length key=value`` and a line feed; length includes all of it."""
        found = {}
        rest = text.rstrip(b"\0")
        while rest:
            length, _, _ = rest.partition(b" ")
            size = int(length) if length.isdigit() and len(length) < 10 else 0
            key, equals, value = rest[len(length) + 1 : size - 1].partition(b"=")
            if not equals or rest[size - 1 : size] != b"\n":
                raise _damaged(self._start, "its PAX records are damaged")
            found[key] = value
            rest = rest[size:]
        return found

    def _block(self) -> bytes:
        header = self._raw_block()
        if not has_checksum(header):
            raise _damaged(self._at - BLOCK, "there is no header" if self._at > BLOCK else None)
        return header

    def _raw_block(self) -> bytes:
        block, self._first = self._first or self._source.read_at(self._at, BLOCK), None
        if len(block) < BLOCK:
            raise _damaged(self._at, "the file ends within a header")
        self._at += BLOCK
        return block


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _damaged(at: int, reason: str | None) -> ImageError:
    if reason is None:
        return ImageError.corrupt("the content is not a tar archive")
    return ImageError.corrupt(f"the tar is damaged at byte {at}: {reason}")
