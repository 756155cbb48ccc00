"""What is recorded of pixels: how bright they are, and how many are clipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]

_LUMINANCE = {1: (1.0,), 3: (0.114, 0.587, 0.299)}
"""Weights of the channels (gray, or blue, green, red) by ITU-R BT.601."""


def luminance(pixels: Pixels) -> float:
    """Mean luminance, 0..1, of uint8 or uint16 pixels: gray, or in blue, green, red."""
    weights = _LUMINANCE[1 if pixels.ndim == 2 else 3]
    sums = _column_sums(pixels, _add_rows).reshape(-1, len(weights)).sum(axis=0)
    samples = pixels.size / len(weights) * np.iinfo(pixels.dtype).max
    return float(np.dot(weights, sums) / samples)


def clipped_fraction(pixels: Pixels) -> float:
    """Share of the samples, 0..1, that have the largest value there is."""
    return int(_column_sums(pixels, _add_clipped).sum()) / pixels.size


def is_flat(pixels: Pixels) -> bool:
    """Whether all samples are equal; nearly always the first row tells."""
    return bool(np.ptp(pixels[0]) == 0 and pixels.min() == pixels.max())


def _column_sums(pixels: Pixels, add: Callable[[Pixels, Pixels], None]) -> npt.NDArray[np.int64]:
    """Sum up columns of samples, as fast as memory is read.

    The sums are twice as wide as a sample, in which as many rows have room as it has values.
    """
    values = int(np.iinfo(pixels.dtype).max) + 1
    rows = pixels.reshape(pixels.shape[0], -1)
    total = np.zeros(rows.shape[1], np.int64)
    for start in range(0, len(rows), values):
        sums: Pixels = np.zeros(rows.shape[1], np.uint16 if values == 256 else np.uint32)
        add(rows[start : start + values], sums)
        total += sums
    return total


@numba.njit(cache=True, nogil=True)
def _add_rows(rows: Pixels, sums: Pixels) -> None:
    wide = sums.dtype.type
    for y in range(rows.shape[0]):
        row = rows[y]
        for x in range(sums.size):
            sums[x] = wide(sums[x] + wide(row[x]))


@numba.njit(cache=True, nogil=True)
def _add_clipped(rows: Pixels, sums: Pixels) -> None:
    wide, highest = sums.dtype.type, rows.dtype.type(-1)
    for y in range(rows.shape[0]):
        row = rows[y]
        for x in range(sums.size):
            sums[x] = wide(sums[x] + wide(row[x] == highest))
