"""PNG and RIFF files as chunks.

Layouts: W3C, Portable Network Graphics, third edition; WebP Container Specification, RFC 9649.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


RawChunk = tuple[bytes, bytes]
"""A chunk's type and content."""


@dataclass(frozen=True)
class CarriedChunks:
    """A file without its coded image."""

    before: tuple[RawChunk, ...]
    """Chunks before the pixels."""
    after: tuple[RawChunk, ...]
    trailer: bytes
    """What follows the end of the image."""

    @property
    def nbytes(self) -> int:
        """Memory used, in bytes."""
        return sum(len(payload) for _, payload in self.chunks) + len(self.trailer)

    @property
    def chunks(self) -> tuple[RawChunk, ...]:
        """All of them."""
        return self.before + self.after

    def get(self, kind: bytes) -> bytes | None:
        """The content of the first chunk of a type."""
        return next((payload for its, payload in self.chunks if its == kind), None)


@dataclass(frozen=True)
class Chunk:
    """A chunk: where it is, and where its content is."""

    kind: bytes
    start: int
    content: int
    size: int
    """Size of the content, as stated by the chunk."""
    end: int
    """End of checksum or padding, even if that is beyond the end of the file."""


def png_chunks(data: bytes) -> Iterator[Chunk]:
    """Each chunk, up to and including IEND."""
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        yield Chunk(kind, at, at + 8, size, at + 12 + size)
        if kind == b"IEND":
            return
        at += 12 + size


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    """A chunk with its checksum."""
    check = zlib.crc32(kind + payload).to_bytes(4, "big")
    return len(payload).to_bytes(4, "big") + kind + payload + check


def riff_chunks(data: bytes, at: int = 12, end: int | None = None) -> Iterator[Chunk]:
    """Each chunk from ``at``, within the file."""
    end = len(data) if end is None else min(end, len(data))
    while at + 8 <= end:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        chunk = Chunk(data[at : at + 4], at, at + 8, size, at + 8 + size + (size & 1))
        yield chunk
        at = chunk.end


def riff_chunk(kind: bytes, payload: bytes) -> bytes:
    """A chunk, padded to an even length."""
    return kind + len(payload).to_bytes(4, "little") + payload + bytes(len(payload) & 1)
