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
from typing import Any

import cv2
import numba
import numpy as np
import numpy.typing as npt

from batchlight.guided import smooth

Pixels = npt.NDArray[Any]

LIGHT_QUANTILE = 0.001
"""Share of the pixels, the haziest, among which the atmospheric light is looked for."""

LIGHT_SCALE = 255.0
"""Atmospheric light is given on this scale, whatever the bit depth."""


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


@dataclass(frozen=True)
class Enhanced:
    """An enhanced image and what was measured on the way."""

    pixels: Pixels
    mean_transmission: float
    """Mean of t over the image, before t0 bounds it."""


def analyse(pixels: Pixels, window: int) -> Analysis:
    """Find each pixel's dark channel and the image's atmospheric light, in one pass.

    The light: of the pixels whose dark channel is at or above its n-th largest value, n being one
    in a thousand and at least one, the highest mean of the three channels of I.

    The window spans rows y - window // 2 .. y + (window - 1) // 2, columns alike, clipped at the
    border. Of channels that tie, blue comes before green before red.
    """
    size = min(window, 2 * max(pixels.shape[:2]) + 1)
    kernel = np.ones((size, size), np.uint8)
    coarse = cv2.dilate(pixels, kernel, anchor=(size // 2, size // 2))
    levels = int(np.iinfo(pixels.dtype).max) + 1
    counts = np.zeros(levels, np.int64)
    darkest = np.full(levels, np.iinfo(np.int64).max, np.int64)
    if pixels.ndim == 2:
        own = pixels
        _survey_gray(pixels, coarse, counts, darkest)
    else:
        own = np.empty(pixels.shape[:2], pixels.dtype)
        _survey_colour(pixels, coarse, own, counts, darkest)

    # Bins are of the window's maximum of v; the lowest bins are the haziest pixels of I.
    wanted = max(1, int(LIGHT_QUANTILE * own.size))
    threshold = int(np.searchsorted(np.cumsum(counts), wanted))
    lowest_mean = int(darkest[: threshold + 1].min()) / (1 if pixels.ndim == 2 else 3)
    top = levels - 1
    return Analysis(own, (top - lowest_mean) * LIGHT_SCALE / top)


def enhance(
    pixels: Pixels, analysis: Analysis, atmospheric_light: float, parameters: DehazeParameters
) -> Enhanced:
    """Brighten one image, given its analysis and the light to use (0..255).

    A light of 0, which only a wholly white image has, means that there is nothing to remove.
    """
    top = int(np.iinfo(pixels.dtype).max)
    transmission = _transmission(top, atmospheric_light, parameters.omega)
    bounded = np.maximum(transmission, parameters.t0)
    samples = pixels.reshape(analysis.own.size, -1)
    result = np.empty_like(pixels)
    out = result.reshape(samples.shape)
    if top == 255:
        _look_up(samples, analysis.own.reshape(-1), _table(bounded, atmospheric_light), out)
    else:
        light_here = atmospheric_light * top / LIGHT_SCALE
        _compute(samples, analysis.own.reshape(-1), bounded, light_here, out)
    if parameters.denoise:
        gain = (1.0 / bounded).astype(np.float32)
        result = smooth(result, gain[analysis.own])
    counts = cv2.calcHist([analysis.own], [0], None, [top + 1], [0, top + 1]).reshape(-1)
    return Enhanced(result, float(counts @ transmission / analysis.own.size))


def batch_light(estimates: list[float]) -> float | None:
    """The batch's atmospheric light: the mean of its images' estimates, in float64.

    Rounded to float32, which is how it is recorded, so that a record reproduces its pixels.
    """
    return float(np.float32(np.mean(estimates, dtype=np.float64))) if estimates else None


def _transmission(top: int, light: float, omega: float) -> npt.NDArray[np.float64]:
    """T for each stored value v that the dark channel can have."""
    dark = np.arange(top, -1, -1, dtype=np.float64)
    light_here = light * top / LIGHT_SCALE
    return 1.0 - omega * dark / light_here if light_here > 0 else np.ones(top + 1)


def _table(bounded: npt.NDArray[np.float64], light: float) -> npt.NDArray[np.uint8]:
    """The result for each pair (v in the dark channel, v): (256, 256) uint8."""
    inverted = np.arange(255, -1, -1, dtype=np.float64)
    clear = (inverted[np.newaxis, :] - light) / bounded[:, np.newaxis] + light
    table: npt.NDArray[np.uint8] = np.rint(255.0 - np.clip(clear, 0.0, 255.0)).astype(np.uint8)
    return table


# The kernels are unrolled over the channels by hand, which is twice as fast as a loop over them.


@numba.njit(cache=True, nogil=True)
def _survey_colour(
    pixels: Pixels, coarse: Pixels, own: Pixels, counts: Pixels, darkest: Pixels
) -> None:
    """Fill ``own``; per value of the window's maximum, count pixels and find the lowest sum."""
    for y in range(pixels.shape[0]):
        for x in range(pixels.shape[1]):
            blue, green, red = pixels[y, x, 0], pixels[y, x, 1], pixels[y, x, 2]
            brightest = coarse[y, x, 0]
            value = blue
            if coarse[y, x, 1] > brightest:
                brightest = coarse[y, x, 1]
                value = green
            if coarse[y, x, 2] > brightest:
                brightest = coarse[y, x, 2]
                value = red
            own[y, x] = value
            counts[brightest] += 1
            total = np.int32(blue) + np.int32(green) + np.int32(red)
            if total < darkest[brightest]:
                darkest[brightest] = total


@numba.njit(cache=True, nogil=True)
def _survey_gray(pixels: Pixels, coarse: Pixels, counts: Pixels, darkest: Pixels) -> None:
    for y in range(pixels.shape[0]):
        for x in range(pixels.shape[1]):
            brightest = coarse[y, x]
            counts[brightest] += 1
            if pixels[y, x] < darkest[brightest]:
                darkest[brightest] = pixels[y, x]


@numba.njit(cache=True, nogil=True)
def _look_up(samples: Pixels, own: Pixels, table: Pixels, out: Pixels) -> None:
    colour = samples.shape[1] == 3
    for i in range(samples.shape[0]):
        row = table[own[i]]
        out[i, 0] = row[samples[i, 0]]
        if colour:
            out[i, 1] = row[samples[i, 1]]
            out[i, 2] = row[samples[i, 2]]


@numba.njit(cache=True, nogil=True)
def _compute(samples: Pixels, own: Pixels, bounded: Pixels, light: float, out: Pixels) -> None:
    """The formula itself, for 16 bit, where a table of all pairs would be 8 GB."""
    for i in range(samples.shape[0]):
        transmission = bounded[own[i]]
        for channel in range(samples.shape[1]):
            clear = (65535.0 - samples[i, channel] - light) / transmission + light
            out[i, channel] = np.rint(65535.0 - min(max(clear, 0.0), 65535.0))
