"""Measurements of pixels that are recorded: luminance and clipping."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from batchlight.images.kernels import kernel
from batchlight.images.pixels import LUMINANCE, Pixels

_WEIGHTS = {1: (1.0,), 3: LUMINANCE}
"""Weights of the channels, by their number."""


def measure(pixels: Pixels) -> tuple[float, float]:
    """Mean luminance, 0..1, and the share of the samples at the maximum value.

    ``pixels``: uint8 or uint16, (height, width) or (height, width, 3) in blue, green, red.
    """
    channels = 1 if pixels.ndim == 2 else 3
    small = pixels.dtype == np.uint8
    rows = pixels.reshape(pixels.shape[0], -1)
    columns: Pixels = np.zeros((2, rows.shape[1]), np.uint16 if small else np.uint32)
    sums = np.zeros(channels + 1, np.int64)
    sum_up = _sum_up_8_bit if small else _sum_up_16_bit
    sum_up(rows, columns[0], columns[1], sums)
    size, top = pixels.size // channels, 255 if small else 65535
    return luminance(sums[:-1], size, top), int(sums[-1]) / pixels.size


def luminance(sums: npt.NDArray[np.int64], size: int, top: int) -> float:
    """Mean luminance, 0..1, of ``size`` pixels up to ``top``, from the sums of their channels."""
    return float(np.dot(_WEIGHTS[len(sums)], sums)) / size / top


def is_flat(pixels: Pixels) -> bool:
    """Whether all pixels are equal; the first row nearly always decides."""
    first = pixels[0, 0]
    return bool((pixels[0] == first).all() and (pixels == first).all())


def _summing(bits: int) -> Callable[[Pixels, Pixels, Pixels, Pixels], None]:
    """A separate kernel for each depth, since only a constant shift is fast."""
    block = 2**bits

    @kernel
    def sum_up(rows: Pixels, columns: Pixels, clipped: Pixels, sums: Pixels) -> None:
        """Sum up each channel, and finally the clipped samples.

        By columns, in integers twice as wide as a sample: these hold the sum of 2**bits rows, and
        are emptied after as many.
        """
        wide = columns.dtype.type
        channels = sums.size - 1
        for start in range(0, rows.shape[0], block):
            for y in range(start, min(start + block, rows.shape[0])):
                row = rows[y]
                for x in range(columns.size):
                    value = wide(row[x])
                    columns[x] = wide(columns[x] + value)
                    # Only the largest value overflows when incremented.
                    clipped[x] = wide(clipped[x] + wide(wide(value + wide(1)) >> bits))
            for x in range(columns.size):
                sums[x % channels] += columns[x]
                sums[channels] += clipped[x]
            columns[:] = 0
            clipped[:] = 0

    return sum_up


_sum_up_8_bit, _sum_up_16_bit = _summing(8), _summing(16)
