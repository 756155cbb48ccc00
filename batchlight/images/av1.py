"""The sequence header of an AV1 stream: the size of its picture, and its colours.

Layouts: AV1 Bitstream & Decoding Process Specification, 5.3 to 5.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_SEQUENCE_HEADER = 1
_SEQUENCE_HEADER_BYTES = 256
"""Upper limit for a sequence header, up to the size of the picture."""
_LOOKED_AT = 64
"""Bytes at the start of a stream in which its sequence header must begin."""
_LENGTH_BYTES = 8
"""Upper limit for the length of a unit."""
_HAS_EXTENSION, _HAS_LENGTH = 4, 2
"""Flags in the first byte of a unit."""


@dataclass(frozen=True)
class Sequence:
    """The contents of a sequence header."""

    width: int
    height: int
    points: tuple[int, int, int] = (2, 2, 2)
    """Primaries, transfer, matrix, as in ITU-T H.273."""
    full_range: bool = False
    short: bool = False
    """A still picture, whose frame headers leave most out."""
    large_blocks: bool = False
    """Superblocks of 128 pixels, not 64."""
    may_scale: bool = False
    """Frames say whether they are to be scaled (super-resolution)."""


def sequence(data: bytes, at: int) -> Sequence | None:
    """The sequence header: the first unit of a stream, or after some short ones."""
    for kind, start in units(data, at, at + _LOOKED_AT):
        if kind == _SEQUENCE_HEADER:
            return _sequence(Bits(data[start : start + _SEQUENCE_HEADER_BYTES]))
    return None


def units(data: bytes, at: int, end: int) -> Iterator[tuple[int, int]]:
    """The type of each unit that begins before ``end``, and where its content is.

    A unit (OBU, AV1 5.3.2) begins with a byte that contains its type and two flags: a second byte
    follows; its length follows, as LEB128.
    """
    while at < end and at + 2 <= len(data):
        header = data[at]
        at += 2 if header & _HAS_EXTENSION else 1
        length = 0
        if header & _HAS_LENGTH:
            for number, byte in enumerate(data[at : at + _LENGTH_BYTES]):
                length |= (byte & 127) << 7 * number
                at += 1
                if byte < 128:
                    break
        yield header >> 3 & 15, at
        if not header & _HAS_LENGTH:
            return
        at += length


def _sequence(bits: Bits) -> Sequence | None:
    profile = bits.take(3)
    bits.skip(1)  # still picture
    short = bits.take(1)
    if short:
        bits.skip(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    width, height = bits.take(width_bits) + 1, bits.take(height_bits) + 1
    if bits.spent:
        return None
    large_blocks, may_scale = _tools(bits, bool(short))
    points, full_range = _colours(bits, profile)
    if bits.spent:
        return Sequence(width, height)
    return Sequence(width, height, points, full_range, bool(short), large_blocks, may_scale)


def _skip_operating_points(bits: Bits) -> None:
    delay = 0
    if bits.take(1):  # timing
        bits.skip(64)
        if bits.take(1):
            bits.skip_variable()
        if bits.take(1):  # decoder model
            delay = bits.take(5) + 1
            bits.skip(42)
    display_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.skip(12)
        if bits.take(5) > 7:
            bits.skip(1)
        if delay and bits.take(1):
            bits.skip(2 * delay + 1)
        if display_delay and bits.take(1):
            bits.skip(4)


def _tools(bits: Bits, short: bool) -> tuple[bool, bool]:
    """Read the coding tools, between the size and the colours (AV1 5.5.1): two of them."""
    if not short and bits.take(1):  # numbers of frames
        bits.skip(7)
    large_blocks = bool(bits.take(1))
    bits.skip(2)  # filters within a frame, smoothed edges
    if not short:
        bits.skip(4)  # compounds, warped motion, dual filter
        if bits.take(1):  # order hints
            bits.skip(2)
            hints = True
        else:
            hints = False
        screen = 2 if bits.take(1) else bits.take(1)
        if screen and not bits.take(1):
            bits.skip(1)
        if hints:
            bits.skip(3)
    may_scale = bool(bits.take(1))
    bits.skip(2)  # CDEF, restoration
    return large_blocks, may_scale


def _colours(bits: Bits, profile: int) -> tuple[tuple[int, int, int], bool]:
    """The colour configuration (AV1 5.5.2)."""
    deep = bits.take(1)
    if profile == 2 and deep:
        bits.skip(1)
    mono = 0 if profile == 1 else bits.take(1)
    points = (2, 2, 2)
    if bits.take(1):
        points = (bits.take(8), bits.take(8), bits.take(8))
    if not mono and points == (1, 13, 0):
        return points, True
    return points, bool(bits.take(1))


class Bits:
    """Reads integers of any number of bits; zeros beyond the end."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self._at = at

    @property
    def at(self) -> int:
        """The number of bits before the next one."""
        return self._at

    @property
    def spent(self) -> bool:
        """Whether reads went beyond the end."""
        return self._at > 8 * len(self._data)

    def take(self, count: int) -> int:
        """The next integer of ``count`` bits, most significant first."""
        first, end = self._at // 8, self._at + count
        last = (end + 7) // 8
        chunk = self._data[first:last].ljust(last - first, b"\0")
        self._at = end
        return int.from_bytes(chunk, "big") >> (8 * last - end) & ((1 << count) - 1)

    def skip(self, count: int) -> None:
        """Skip ``count`` bits."""
        self._at += count

    def skip_variable(self) -> None:
        """Skip an integer that encodes its own length."""
        zeros = 0
        while not self.spent and zeros < 32 and self.take(1) == 0:
            zeros += 1
        self.skip(zeros)
