"""The images of a tar, and the tar that is written: raw bytes, with new images in place."""

from __future__ import annotations

from collections.abc import Iterator

from batchlight.output.inputs import Input
from batchlight.shards.headers import BLOCK, with_size
from batchlight.shards.selection import images
from batchlight.shards.sink import Sink
from batchlight.shards.tar import Member, members
from batchlight.storage.base import Reader, Writer
from batchlight.storage.patterns import Patterns


class TarContents:
    """An open tar; ``Contents``."""

    def __init__(self, source: Reader, container: Input, compress: bool) -> None:
        """``source``: the tar, unpacked; ``compress``: whether to compress the output."""
        self._source = source
        self._container = container
        self._compress = compress

    @property
    def remote(self) -> bool:
        """That of its file."""
        return self._source.remote

    def images(self, patterns: Patterns) -> Iterator[tuple[Member, Input | None]]:
        """All members, including those that are not images."""
        return images(self._container, members(self._source), patterns)

    def bytes_of(self, item: Input) -> bytes:
        """The bytes as they are in the tar."""
        assert item.offset is not None
        return self._source.read_at(item.offset, item.size or 0)

    def rewriter(self, writer: Writer) -> TarRewriter:
        """A rewriter that copies raw blocks."""
        return TarRewriter(self._source, Sink(writer, self._compress))

    def require_unchanged(self) -> None:
        """Check the opened file."""
        self._source.require_unchanged()


class TarRewriter:
    """Writes one tar, from its start to its end; ``Rewriter``."""

    def __init__(self, source: Reader, sink: Sink) -> None:
        self._source = source
        self.sink = sink
        self._read = 0
        """Offset up to which the source has been processed."""

    def kept(self, place: Member) -> int:
        """Where the data of an unchanged member will be."""
        return self.sink.at + place.data - self._read

    def replace(self, place: Member, data: bytes) -> int:
        """Replace a member's data; returns where they are. Raises ``ValueError`` if too large."""
        header = with_size(self._source.read_at(place.header, BLOCK), len(data))
        self._copy_until(place.header)
        self.sink.put(header)
        self._read += BLOCK
        self._copy_until(place.data)
        at = self.sink.at
        self.sink.put(data)
        self.sink.put(bytes(-len(data) % BLOCK))
        self._read = place.end
        return at

    def leave_out(self, place: Member) -> None:
        """Skip a member."""
        self._copy_until(place.start)
        self._read = place.end

    def finish(self) -> None:
        """Write the rest."""
        self._copy_until(self._source.size)
        self.sink.finish()

    def close(self) -> None:
        """Nothing to release."""

    def _copy_until(self, end: int) -> None:
        """Copy the source byte for byte, from where it has been processed."""
        self.sink.copy(self._source, self._read, end)
        self._read = max(self._read, end)
