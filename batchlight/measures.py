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
    return _measure(pixels, count_clipped=False)[0]


def luminance_and_clipped(pixels: Pixels) -> tuple[float, float]:
    """As ``luminance``, and the share of the samples that have the largest value there is."""
    return _measure(pixels, count_clipped=True)


def is_flat(pixels: Pixels) -> bool:
    """Whether all samples are equal; nearly always the first row tells."""
    first = pixels.flat[0]
    return bool((pixels[0] == first).all() and (pixels == first).all())


def _measure(pixels: Pixels, count_clipped: bool) -> tuple[float, float]:
    weights = _LUMINANCE[1 if pixels.ndim == 2 else 3]
    rows = pixels.reshape(pixels.shape[0], -1)
    columns: Pixels = np.zeros((2, rows.shape[1]), _WIDER[pixels.dtype])
    sums = np.zeros(len(weights) + 1, np.int64)
    _sum_up(rows, count_clipped, columns[0], columns[1], sums)
    samples = pixels.size / len(weights) * _TOP[pixels.dtype]
    return float(np.dot(weights, sums[:-1])) / samples, int(sums[-1]) / pixels.size


@numba.njit(cache=True, nogil=True)
def _sum_up(
    rows: Pixels, count_clipped: bool, columns: Pixels, clipped: Pixels, sums: Pixels
) -> None:
    """Sum up each channel, and last the samples that are clipped, in one pass.

    By columns, twice as wide as a sample, in which as many rows have room as it has values.
    """
    channels, block = sums.size - 1, 256**rows.itemsize
    for start in range(0, rows.shape[0], block):
        for y in range(start, min(start + block, rows.shape[0])):
            _add(rows[y], columns)
            if count_clipped:
                _add_clipped(rows[y], clipped)
        for x in range(columns.size):
            sums[x % channels] += columns[x]
            sums[channels] += clipped[x]
        columns[:] = 0
        clipped[:] = 0


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
