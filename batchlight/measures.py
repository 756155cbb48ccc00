"""What is recorded of pixels: how bright they are, and how many are clipped."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]

_LUMINANCE = {1: (1.0,), 3: (0.114, 0.587, 0.299)}
"""Weights of the channels (gray, or blue, green, red) by ITU-R BT.601."""

_TOP = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
_WIDER = {np.dtype(np.uint8): np.uint16, np.dtype(np.uint16): np.uint32}


def luminance(pixels: Pixels) -> float:
    """Mean luminance, 0..1, of uint8 or uint16 pixels: gray, or in blue, green, red."""
    weights = _LUMINANCE[1 if pixels.ndim == 2 else 3]
    samples = pixels.size / len(weights) * _TOP[pixels.dtype]
    return float(np.dot(weights, _sums(pixels, len(weights), clipped=False)) / samples)


def clipped_fraction(pixels: Pixels) -> float:
    """Share of the samples, 0..1, that have the largest value there is."""
    return int(_sums(pixels, 1, clipped=True)[0]) / pixels.size


def is_flat(pixels: Pixels) -> bool:
    """Whether all samples are equal; nearly always the first row tells."""
    first = pixels.flat[0]
    return bool((pixels[0] == first).all() and (pixels == first).all())


def _sums(pixels: Pixels, channels: int, clipped: bool) -> npt.NDArray[np.int64]:
    """Of all samples, or of the number of those that are clipped, in each channel."""
    rows = pixels.reshape(pixels.shape[0], -1)
    columns: Pixels = np.zeros(rows.shape[1], _WIDER[pixels.dtype])
    sums = np.zeros(channels, np.int64)
    _sum_up(rows, clipped, columns, sums)
    return sums


@numba.njit(cache=True, nogil=True)
def _sum_up(rows: Pixels, clipped: bool, columns: Pixels, sums: Pixels) -> None:
    """Add to the columns, twice as wide as a sample, for as many rows as it has values."""
    block = 256**rows.itemsize
    for start in range(0, rows.shape[0], block):
        for y in range(start, min(start + block, rows.shape[0])):
            if clipped:
                _add_clipped(rows[y], columns)
            else:
                _add(rows[y], columns)
        for x in range(columns.size):
            sums[x % sums.size] += columns[x]
        columns[:] = 0


@numba.njit(cache=True, nogil=True)
def _add(row: Pixels, sums: Pixels) -> None:
    wide = sums.dtype.type
    for x in range(sums.size):
        sums[x] = wide(sums[x] + wide(row[x]))


@numba.njit(cache=True, nogil=True)
def _add_clipped(row: Pixels, sums: Pixels) -> None:
    wide, highest = sums.dtype.type, row.dtype.type(-1)
    for x in range(sums.size):
        sums[x] = wide(sums[x] + wide(row[x] == highest))
