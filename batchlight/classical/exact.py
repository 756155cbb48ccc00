"""The formula of ``dehaze.py``, pixel by pixel, exact to the last bit.

For a fixed A the result depends only on v and d, so 8 bit is a single table look-up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from batchlight.classical.light import LIGHT_SCALE
from batchlight.images.kernels import kernel
from batchlight.images.pixels import Pixels

CURVES = 16
"""How many to cache: with one omega for all, images of a batch share a curve."""


def enhance_exactly(
    pixels: Pixels, own: Pixels | None, atmospheric_light: float, omega: float, t0: float
) -> tuple[Pixels, float]:
    """Brighten an image.

    ``pixels``: (height, width) or (height, width, 3), uint8 or uint16. ``own``: (height, width),
    each pixel's v in the dark channel, R - d; None if that is the largest of its own channels.
    ``atmospheric_light``: 1 to 255. Returns the result, of the same shape and dtype, and
    the mean of ``own``.
    """
    top = int(np.iinfo(pixels.dtype).max)
    curve = _curve(top, atmospheric_light, omega, t0)
    result = np.empty_like(pixels)
    size = pixels.shape[0] * pixels.shape[1]
    flat = pixels.reshape(-1)
    flat_own = flat[:0] if own is None else own.reshape(-1)
    if curve.table is not None:
        total = _look_up(flat, flat_own, size, result.reshape(-1), curve.table)
    else:
        light = atmospheric_light * top / LIGHT_SCALE
        total = _compute(flat, flat_own, size, result.reshape(-1), curve.bounded, light)
    return result, total / size


@dataclass(frozen=True)
class _Curve:
    """Everything that does not depend on the image, by v in the dark channel."""

    bounded: npt.NDArray[np.float64]
    """t, at least t0."""
    table: npt.NDArray[np.uint8] | None
    """8 bit: the result for each pair (v in the dark channel, v), 256 per row."""


@lru_cache(maxsize=CURVES)
def _curve(top: int, light: float, omega: float, t0: float) -> _Curve:
    dark = np.arange(top, -1, -1, dtype=np.float64)
    light_here = light * top / LIGHT_SCALE
    bounded = np.maximum(1.0 - omega * dark / light_here, t0)
    table = None
    if top == 255:
        table = np.empty(256 * 256, np.uint8)
        _tabulate(bounded, light_here, table)
    return _Curve(bounded, table)


@kernel
def _look_up(pixels: Pixels, own: Pixels, size: int, out: Pixels, table: Pixels) -> int:
    """Enhance flat uint8 samples of ``size`` pixels; returns the sum of their v in the channel."""
    colour = pixels.size == 3 * size
    total, one, two = 0, np.uintp(1), np.uintp(2)
    for x in range(size):
        at = np.uintp(3 * x if colour else x)
        if own.size:
            dark = own[x]
        else:
            dark = pixels[at]
            if colour:
                green, red = pixels[at + one], pixels[at + two]
                dark = dark if dark > green else green
                dark = dark if dark > red else red
        total += dark
        row = np.uintp(dark) << np.uintp(8)
        if colour:
            out[at + one] = table[row | np.uintp(pixels[at + one])]
            out[at + two] = table[row | np.uintp(pixels[at + two])]
        out[at] = table[row | np.uintp(pixels[at])]
    return total


@kernel
def _tabulate(bounded: Pixels, light: float, table: Pixels) -> None:
    """The result for each pair (v in the dark channel, v)."""
    for own in range(256):
        for value in range(256):
            clear = (255.0 - value - light) / bounded[own] + light
            table[256 * own + value] = np.rint(255.0 - min(max(clear, 0.0), 255.0))


@kernel
def _compute(
    pixels: Pixels, own: Pixels, size: int, out: Pixels, bounded: Pixels, light: float
) -> int:
    """Like ``_look_up``, for 16 bit, where a table of all pairs would be 8 GB."""
    channels, total = pixels.size // size, 0
    for x in range(size):
        first = channels * x
        if own.size:
            dark = own[x]
        else:
            dark = pixels[first]
            for at in range(first + 1, first + channels):
                dark = dark if dark > pixels[at] else pixels[at]
        total += dark
        transmission = bounded[dark]
        for at in range(first, first + channels):
            clear = (65535.0 - pixels[at] - light) / transmission + light
            out[at] = np.rint(65535.0 - min(max(clear, 0.0), 65535.0))
    return total
