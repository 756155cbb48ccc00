"""Run lengths in BMP files: read as by all other readers, except that damage is refused.

Layout: Microsoft, Bitmap Compression. A pair of bytes is a run and its index; a zero is followed by
the end of a row (0), the end of the image (1), a jump (2), or a number of literal indices.
"""

from __future__ import annotations

import numpy as np

from batchlight.images.pixels import Pixels

_END_OF_ROW, _END_OF_IMAGE, _JUMP = 0, 1, 2
_FOUR_BITS = 2
"""The compression in which a byte holds two indices."""


def decode(data: bytes, width: int, height: int, compression: int) -> Pixels:
    """Colour indices, the bottom row first; (height, width), uint8.

    The part of a run beyond the end of its row is cut off: some writers pad rows. Raises
    ``ValueError`` for data that end before the image does, or leave it.
    """
    rows = np.zeros((height, width), np.uint8)
    x = y = at = 0
    while y < height:
        pair = data[at : at + 2]
        if len(pair) < 2:
            raise ValueError("the run lengths end before the image does")
        at += 2
        count, value = pair
        if count:
            rows[y, x : x + count] = _run(value, count, compression)[: max(0, width - x)]
            x += count
        elif value == _END_OF_ROW:
            x, y = 0, y + 1
        elif value == _END_OF_IMAGE:
            if y < height - 1 or (0 < x < width):
                raise ValueError("the run lengths end before the image does")
            break
        elif value == _JUMP:
            x, y = x + data[at], y + data[at + 1]
            at += 2
            if x > width or y >= height:
                raise ValueError("the run lengths run outside the image")
        else:
            size = (value + 1) // 2 if compression == _FOUR_BITS else value
            literal = _literal(data[at : at + size], value, compression)
            rows[y, x : x + value] = literal[: max(0, width - x)]
            x, at = x + value, at + size + (size & 1)
    return rows


def _run(value: int, count: int, compression: int) -> Pixels:
    if compression == _FOUR_BITS:
        return np.resize(np.array([value >> 4, value & 15], np.uint8), count)
    return np.full(count, value, np.uint8)


def _literal(raw: bytes, count: int, compression: int) -> Pixels:
    values = np.frombuffer(raw, np.uint8)
    if compression == _FOUR_BITS:
        values = np.stack([values >> 4, values & 15], axis=1).reshape(-1)
    if values.size < count:
        raise ValueError("the run lengths end before the image does")
    return values[:count]
