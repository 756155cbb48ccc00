"""Blending an image with its enhancement, sample by sample."""

from __future__ import annotations

import numpy as np

from batchlight.images.kernels import kernel
from batchlight.images.pixels import Pixels


def mix(pixels: Pixels, enhanced: Pixels, strength: float) -> Pixels:
    """``pixels + strength (enhanced - pixels)`` in float64, rounded to nearest, ties to even.

    Both arrays: uint8 or uint16, same shape and dtype, contiguous. ``strength``: from 0, which
    gives ``pixels``, to 1, which gives ``enhanced`` itself.
    """
    if strength == 1:
        return enhanced
    mixed = np.empty_like(pixels)
    _mix(pixels.reshape(-1), enhanced.reshape(-1), mixed.reshape(-1), strength)
    return mixed


@kernel
def _mix(pixels: Pixels, enhanced: Pixels, mixed: Pixels, strength: float) -> None:
    for x in range(pixels.size):
        before = np.int32(pixels[x])
        change = np.float64(np.int32(enhanced[x]) - before)
        mixed[x] = np.int32(np.rint(before + strength * change))
