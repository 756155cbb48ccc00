"""The omega that brings an image to a target.

Brightness follows from the tone curve alone: a pixel with v in the dark channel is multiplied by 1
/ max(t(v), t0) around the black point R - A, so that its luminance Y becomes

    Y + (1 / max(t(v), t0) - 1) (Y - (R - A))

and the mean over the image follows, for any omega, from two sums for each v: the number of its
pixels and their luminance. The same holds for the mean of the brightest channel, which is limited
too: in light of one colour, luminance is low however bright it is. The sums are taken from fixed
pixels, so an image always gets the same omega. Clipping is taken into account only for whole
levels.

All conditions get harder to meet as omega grows, so bisection finds the largest that meets them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from batchlight.images.kernels import kernel
from batchlight.images.pixels import LUMINANCE, Pixels

OMEGA_AT_MOST = 0.98
"""Above this, everything lit turns one white, and the mean of an image with a black sky still does
not reach a target; scores on real pairs fall, too."""

BURNT = (0.95, 1.0)
"""Shares of the range: where a pixel begins to count as burnt out, and where it counts in full. A
ramp, so that a scene whose lamps become a little brighter does not suddenly become darker."""

COULD_BURN = (0.95, 0.55)
"""The same for a pixel before: brighter ones have little to lose."""

BURNT_AT_MOST = 0.01
"""Share of the pixels that may burn out: lamps in a night picture are brighter than the target
allows for."""

BRIGHTEST = 1.25
"""Most that the mean of the brightest channel may be, as a multiple of the target."""

SAMPLES = 65_536
"""Minimum number of pixels to look at, unless the image has fewer."""

SCATTER = 2_654_435_761
"""2^32 divided by the golden ratio: its multiples, modulo 2^32, are spread evenly (Knuth)."""

HALVINGS = 24
"""As precise as float32."""


Float64 = npt.NDArray[np.float64]


class _Levels(NamedTuple):
    """What is known of the pixels of each level v in the dark channel that occurs."""

    values: Pixels
    counts: Float64
    """How many."""
    luminances: Float64
    """The sums of their luminances."""
    brightest: Float64
    """The sums of their brightest channels."""


class _Aim(NamedTuple):
    """What the result must keep to, and the curve, on the range of the pixels."""

    target: float
    light: float
    t0: float
    top: float


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
    sums = np.zeros((3, top + 1))
    weights = LUMINANCE[::-1] if rgb else LUMINANCE
    _sum_by_level(pixels.reshape(height, -1), weights, given, step, sums)
    values = np.flatnonzero(sums[0])
    levels = _Levels(values, sums[0, values], sums[1, values], sums[2, values])
    omega = _largest(levels, _Aim(target * top, atmospheric_light, t0, float(top)))
    return float(np.float32(omega))


@kernel
def _sum_by_level(
    rows: Pixels, weights: tuple[float, float, float], own: Pixels, step: int, sums: Float64
) -> None:
    """By v in the dark channel: count, luminances and brightest channels of a share of the pixels.

    ``weights``: of the channels in the luminance, in the order of the pixels. One pixel is taken
    of each ``step`` in a row, and one row of each ``step``, from places that differ from row to
    row: those of a fixed grid would all fall between the lines of a screen, or on them.
    """
    width = own.shape[1]
    colour = rows.shape[1] == 3 * width
    for number, start in enumerate(range(0, rows.shape[0], step)):
        scattered = number * SCATTER % 2**32
        y = min(start + (scattered >> 16) % step, rows.shape[0] - 1)
        for x in range((scattered >> 8) % step, width, step):
            if colour:
                first, green, last = rows[y, 3 * x], rows[y, 3 * x + 1], rows[y, 3 * x + 2]
                luminance = weights[0] * first + weights[1] * green + weights[2] * last
                brightest = first if first > green else green
                brightest = brightest if brightest > last else last
            else:
                brightest = rows[y, x]
                luminance = float(brightest)
            level = own[y, x] if own.shape[0] else brightest
            sums[0, level] += 1
            sums[1, level] += luminance
            sums[2, level] += brightest


@kernel
def _largest(levels: _Levels, aim: _Aim) -> float:
    low, high = 0.0, OMEGA_AT_MOST
    if _within(levels, aim, high):
        return high
    for _ in range(HALVINGS):
        omega = (low + high) / 2
        if _within(levels, aim, omega):
            low = omega
        else:
            high = omega
    return low


@kernel
def _within(levels: _Levels, aim: _Aim, omega: float) -> bool:
    """Whether the result is no brighter than the target, with no more burnt out than allowed."""
    top, black = aim.top, aim.top - aim.light
    total, brightest, seen, burnt = 0.0, 0.0, 0.0, 0.0
    for i in range(levels.values.size):
        level, count = levels.values[i], levels.counts[i]
        added = 1.0 / max(1.0 - omega * (top - level) / aim.light, aim.t0) - 1.0
        of_black = added * black * count
        total += max((1.0 + added) * levels.luminances[i] - of_black, 0.0)
        most = (1.0 + added) * levels.brightest[i] - of_black
        brightest += min(max(most, 0.0), top * count)
        seen += count
        result = level + added * (level - black)
        burnt += count * _ramp(level / top, COULD_BURN) * _ramp(result / top, BURNT)
    return (
        total <= aim.target * seen
        and brightest <= BRIGHTEST * aim.target * seen
        and burnt <= BURNT_AT_MOST * seen
    )


@kernel
def _ramp(value: float, ends: tuple[float, float]) -> float:
    """From 0 at the first end, and beyond it, to 1 at the second."""
    return min(max((value - ends[0]) / (ends[1] - ends[0]), 0.0), 1.0)
