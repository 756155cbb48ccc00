"""Whether an AV1 picture is lossless, as the header of its frame says.

Layout: AV1 Bitstream & Decoding Process Specification, 5.9, for still pictures.
"""

from __future__ import annotations

from batchlight.images import av1
from batchlight.images.av1 import Bits, Sequence

_FRAME_HEADER, _FRAME = 3, 6
_LOOKED_AT = 1024
"""Bytes at the start of a stream in which its frame must begin."""
_FRAME_HEADER_BYTES = 64
"""Upper limit for a frame header up to its quantizer."""
_TILE_WIDTH, _TILE_AREA, _TILES_ACROSS = 4096, 4096 * 2304, 64
"""Upper limits for a tile, in pixels, and for the number of tiles in each direction."""


def is_lossless(stream: bytes, sequence: Sequence) -> bool:
    """Whether the first frame is a still picture without quantization; False if in doubt.

    ``sequence``: the stream's own.
    """
    if not sequence.short:
        return False
    for kind, start in av1.units(stream, 0, _LOOKED_AT):
        if kind in (_FRAME_HEADER, _FRAME):
            bits = Bits(stream[start : start + _FRAME_HEADER_BYTES])
            return _quantizer(bits, sequence) == 0 and not bits.spent
    return False


def _quantizer(bits: Bits, sequence: Sequence) -> int | None:
    """``base_q_idx`` and, as the last bit, whether a delta follows; None if unknown."""
    bits.skip(1)  # probabilities that change
    screen = bits.take(1)
    bits.skip(screen)  # motion in whole pixels
    if sequence.may_scale and bits.take(1):
        return None
    if bits.take(1):  # the size at which to show it
        bits.skip(32)
    bits.skip(screen)  # copies within the frame
    tiles = _tiles(bits, sequence)
    if tiles is None:
        return None
    if tiles:
        bits.skip(tiles + 2)
    return bits.take(9)


def _tiles(bits: Bits, sequence: Sequence) -> int | None:
    """The binary logarithm of the number of tiles (AV1 5.9.15); None if they differ in size."""
    size = 128 if sequence.large_blocks else 64
    columns, rows = (-(-side // size) for side in (sequence.width, sequence.height))
    if not bits.take(1):
        return None
    least = _log2(_TILE_WIDTH // size, columns)
    least_of_all = max(least, _log2(_TILE_AREA // size**2, rows * columns))
    across = _increased(bits, least, _log2(1, min(columns, _TILES_ACROSS)))
    down = max(least_of_all - across, 0)
    return across + _increased(bits, down, _log2(1, min(rows, _TILES_ACROSS)))


def _increased(bits: Bits, value: int, most: int) -> int:
    """A value that is coded as so many ones."""
    while value < most and bits.take(1):
        value += 1
    return value


def _log2(block: int, target: int) -> int:
    """The least power of two of blocks that reaches the target."""
    return next(power for power in range(64) if block << power >= target)
