"""The omega that brings an image to a target.

Brightness follows from the tone curve alone: a pixel with v in the dark channel is multiplied by 1
/ max(t(v), t0) around the black point R - A, so that its luminance Y becomes

    Y + (1 / max(t(v), t0) - 1) (Y - (R - A))

and the mean over the image follows, for any omega, from two sums for each v: the number of its
pixels and their luminance. They are taken from a fixed grid of pixels, so an image always gets the
same omega. Clipping is taken into account only for whole levels.

Both conditions get harder to meet as omega grows, so bisection finds the largest that meets them.
"""

from __future__ import annotations

import numpy as np

from batchlight.images.kernels import kernel
from batchlight.images.pixels import LUMINANCE, Pixels

OMEGA_AT_MOST = 0.98
"""Above this, everything lit turns one white, and the mean of an image with a black sky still does
not reach a target; scores on real pairs fall, too."""

BURNT = 0.98
"""Share of the range from which a pixel counts as burnt out."""

COULD_BURN = 0.75
"""Share of the range below which a pixel must not burn out: above it, there is little to lose."""

BURNT_AT_MOST = 0.01
"""Share of the pixels that may burn out: lamps in a night picture are brighter than the target
allows for."""

SAMPLES = 65_536
"""Minimum number of pixels to look at, unless the image has fewer."""

HALVINGS = 24
"""As precise as float32."""


def omega_for(
    pixels: Pixels,
    own: Pixels | None,
    target: float,
    atmospheric_light: float,
    t0: float,
    rgb: bool = False,
) -> float:
    """The largest omega that makes an image neither brighter than the target nor burnt out.

    ``pixels``: (height, width) or (height, width, 3), uint8 or uint16. ``own``: (height, width),
    each pixel's v in the dark channel; None if that is the largest of its own channels. ``target``:
    mean luminance, 0..1. ``atmospheric_light``: on the range of ``pixels``. ``rgb``: red comes
    first. Returns a float32 value in 0..``OMEGA_AT_MOST``, as a record can hold it.
    """
    height, width = pixels.shape[:2]
    top = int(np.iinfo(pixels.dtype).max)
    step = max(1, int((height * width / SAMPLES) ** 0.5))
    given = np.empty((0, width), pixels.dtype) if own is None else own
    counts, sums = np.zeros(top + 1, np.int64), np.zeros(top + 1)
    weights = LUMINANCE[::-1] if rgb else LUMINANCE
    _sum_by_level(pixels.reshape(height, -1), weights, given, step, counts, sums)
    levels = np.flatnonzero(counts)
    omega = _largest(levels, counts[levels], sums[levels], top, target, atmospheric_light, t0)
    return float(np.float32(omega))


@kernel
def _sum_by_level(
    rows: Pixels,
    weights: tuple[float, float, float],
    own: Pixels,
    step: int,
    counts: Pixels,
    sums: Pixels,
) -> None:
    """By v in the dark channel: how many pixels of a grid, and the sum of their luminances.

    ``weights``: of the channels in the luminance, in the order of the pixels.
    """
    width = own.shape[1]
    colour = rows.shape[1] == 3 * width
    for y in range(0, rows.shape[0], step):
        for x in range(0, width, step):
            if colour:
                first, green, last = rows[y, 3 * x], rows[y, 3 * x + 1], rows[y, 3 * x + 2]
                luminance = weights[0] * first + weights[1] * green + weights[2] * last
                level = first if first > green else green
                level = level if level > last else last
            else:
                level = rows[y, x]
                luminance = float(level)
            if own.shape[0]:
                level = own[y, x]
            counts[level] += 1
            sums[level] += luminance


@kernel
def _largest(
    levels: Pixels, counts: Pixels, sums: Pixels, top: int, target: float, light: float, t0: float
) -> float:
    low, high = 0.0, OMEGA_AT_MOST
    if _within(levels, counts, sums, top, target, light, t0, high):
        return high
    for _ in range(HALVINGS):
        omega = (low + high) / 2
        if _within(levels, counts, sums, top, target, light, t0, omega):
            low = omega
        else:
            high = omega
    return low


@kernel
def _within(
    levels: Pixels,
    counts: Pixels,
    sums: Pixels,
    top: int,
    target: float,
    light: float,
    t0: float,
    omega: float,
) -> bool:
    """Whether the result is no brighter than the target, with no more burnt out than allowed."""
    black = top - light
    total, seen, burnt = 0.0, 0, 0
    for i in range(levels.size):
        level, count = levels[i], counts[i]
        gain = 1.0 / max(1.0 - omega * (top - level) / light, t0)
        total += max(sums[i] + (gain - 1.0) * (sums[i] - black * count), 0.0)
        seen += count
        if level < COULD_BURN * top and level + (gain - 1.0) * (level - black) >= BURNT * top:
            burnt += count
    return total <= target * top * seen and burnt <= BURNT_AT_MOST * seen
