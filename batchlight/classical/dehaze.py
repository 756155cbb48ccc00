"""The classical method: invert the dark image, remove the haze, invert back.

A low-light image, inverted, looks like a hazy one (Dong et al., ICME 2011), so that a haze removal
brightens it; the one used here is Tan, Bai, Wang and Higashi, "Fast Single-image Defogging"
(Fujitsu Sci. Tech. J. 50(1), 2014). With v the stored value, R its range (255 or 65535), I = R - v:

    dark channel   c(x) = the channel in which the minimum of I over the window around x occurs
    dark pixel     d(x) = I_c(x)(x)             the pixel's own value, which limits halos
    transmission   t(x) = 1 - omega d(x) / A    A: the atmospheric light
    clarified      J(x) = (I(x) - A) / max(t(x), t0) + A
    result         R - J, clipped and rounded to nearest

Arrays only: uint8 or uint16, shape (height, width) for gray or (height, width, 3) for colour in
OpenCV's order blue, green, red. The minimum of I is the maximum of v, so nothing is ever inverted
in memory, and for a fixed A the result depends on d and v alone, so 8 bit is one table look-up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from batchlight.classical.darkchannel import scan
from batchlight.classical.denoise import smooth
from batchlight.classical.light import LIGHT_SCALE
from batchlight.images.kernels import kernel
from batchlight.images.measures import luminance
from batchlight.images.pixels import Pixels

CURVES = 16
"""How many are kept: images of a batch share its light, and dark ones often have the highest."""


@dataclass(frozen=True)
class DehazeParameters:
    """omega, t0 and window as in the formulas above; ``denoise`` smooths the result."""

    omega: float = 0.93
    t0: float = 0.1
    window: int = 20
    denoise: bool = False


@dataclass(frozen=True)
class Analysis:
    """What one pass over an image tells, enough to enhance it with any atmospheric light."""

    own: Pixels
    """(height, width), dtype of the image: the stored value v in the dark channel, R - d(x)."""

    atmospheric_light: float
    """The image's own estimate, 0..255."""

    luminance: float
    """The mean, 0..1, as ``measures.measure`` has it."""


@dataclass(frozen=True)
class Enhanced:
    """An enhanced image and what was measured on the way."""

    pixels: Pixels
    mean_transmission: float
    """Mean of t over the image, before t0 bounds it."""


def analyse(pixels: Pixels, window: int) -> Analysis:
    """Find each pixel's dark channel, the atmospheric light and the luminance, in one pass.

    The light: the highest mean of the three channels of I among the haziest pixels (``scan``). The
    window and ties between channels are as there.
    """
    top = int(np.iinfo(pixels.dtype).max)
    found = scan(pixels, window)
    light = (top - found.darkest / 3) * LIGHT_SCALE / top
    return Analysis(found.own, light, luminance(found.sums, found.own.size, top))


def enhance(
    pixels: Pixels, analysis: Analysis, atmospheric_light: float, parameters: DehazeParameters
) -> Enhanced:
    """Brighten one image, given its analysis and the light to use (0..255).

    A light of 0, which only a wholly white image has, means that there is nothing to remove.
    """
    top = int(np.iinfo(pixels.dtype).max)
    curve = _curve(top, atmospheric_light, parameters.omega, parameters.t0)
    result = np.empty_like(pixels)
    flat = pixels.reshape(-1), analysis.own.reshape(-1), result.reshape(-1)
    if curve.table is not None:
        total = _look_up(*flat, curve.table)
    else:
        total = _compute(*flat, curve.bounded, atmospheric_light * top / LIGHT_SCALE)
    if parameters.denoise:
        gain = (1.0 / curve.bounded).astype(np.float32)
        result = smooth(result, gain[analysis.own])
    # Linear in the dark pixel, and so is the mean; the last element is t at d = 0.
    share = total / analysis.own.size / top
    mean = share * curve.transmission[-1] + (1 - share) * curve.transmission[0]
    return Enhanced(result, float(mean))


@dataclass(frozen=True)
class _Curve:
    """All that does not depend on the image, by the stored value v in the dark channel."""

    transmission: npt.NDArray[np.float64]
    bounded: npt.NDArray[np.float64]
    table: npt.NDArray[np.uint8] | None
    """8 bit: the result for each pair (v in the dark channel, v), 256 in a row."""


@lru_cache(maxsize=CURVES)
def _curve(top: int, light: float, omega: float, t0: float) -> _Curve:
    dark = np.arange(top, -1, -1, dtype=np.float64)
    light_here = light * top / LIGHT_SCALE
    transmission = 1.0 - omega * dark / light_here if light_here > 0 else np.ones(top + 1)
    bounded = np.maximum(transmission, t0)
    table = None
    if top == 255:
        table = np.empty(256 * 256, np.uint8)
        _tabulate(bounded, light_here, table)
    return _Curve(transmission, bounded, table)


@kernel
def _look_up(pixels: Pixels, own: Pixels, out: Pixels, table: Pixels) -> int:
    """Enhance flat uint8 samples; returns the sum of ``own``, which costs nothing here."""
    colour = pixels.size == 3 * own.size
    total, one, two = 0, np.uintp(1), np.uintp(2)
    for x in range(own.size):
        row, at = np.uintp(own[x]) << np.uintp(8), np.uintp(x)
        total += own[x]
        if colour:
            at *= np.uintp(3)
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
def _compute(pixels: Pixels, own: Pixels, out: Pixels, bounded: Pixels, light: float) -> int:
    """As ``_look_up``, for 16 bit, where a table of all pairs would be 8 GB."""
    channels, at, total = pixels.size // own.size, np.uintp(0), 0
    for x in range(own.size):
        total += own[x]
        transmission = bounded[own[x]]
        for _ in range(channels):
            clear = (65535.0 - pixels[at] - light) / transmission + light
            out[at] = np.rint(65535.0 - min(max(clear, 0.0), 65535.0))
            at += np.uintp(1)
    return total
