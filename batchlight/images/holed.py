"""A file without its coded pixels: what is carried over to the output, in place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

Range = tuple[int, int]
"""Start and end in a file."""


@dataclass(frozen=True)
class Holed:
    """A file from which ranges are cut out, to save memory.

    A decoded image keeps it until it is encoded.
    """

    length: int
    """Length of the whole file."""
    holes: tuple[Range, ...]
    """Sorted; no two overlap or touch."""
    pieces: tuple[bytes, ...]
    """The bytes before, between and after the holes: one more than there are holes."""

    @classmethod
    def of(cls, data: bytes, holes: Iterable[Range]) -> Holed:
        """Cut ranges out of a file; they may overlap, and extend beyond its end."""
        merged = merge(holes, len(data))
        edges = [0, *(edge for hole in merged for edge in hole), len(data)]
        pieces = tuple(data[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True))
        return cls(len(data), tuple(merged), pieces)

    @property
    def nbytes(self) -> int:
        """Memory used, in bytes."""
        return sum(map(len, self.pieces))

    def restored(self) -> bytes:
        """The file with zeros in the holes."""
        parts = [self.pieces[0]]
        for (start, end), piece in zip(self.holes, self.pieces[1:], strict=True):
            parts += [bytes(end - start), piece]
        return b"".join(parts)


def merge(ranges: Iterable[Range], length: int) -> list[Range]:
    """The ranges within a file of ``length`` bytes, sorted, with touching ones merged."""
    merged: list[Range] = []
    for start, end in sorted((max(0, a), min(b, length)) for a, b in ranges):
        if start >= end:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def subtract(ranges: Iterable[Range], protected: Iterable[Range], length: int) -> list[Range]:
    """The parts of ``ranges`` that are in none of ``protected``."""
    left: list[Range] = []
    taken = merge(protected, length)
    for start, end in merge(ranges, length):
        at = start
        for from_, to in taken:
            if to <= at or from_ >= end:
                continue
            if from_ > at:
                left.append((at, from_))
            at = max(at, to)
        if at < end:
            left.append((at, end))
    return left
