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

from collections.abc import Sequence
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

STRIP_ROWS = 128
"""Rows that are analysed at once: few enough to stay in the processor's cache."""

UNSEEN = np.iinfo(np.int64).max

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
    height, width = pixels.shape[:2]
    size = min(window, 2 * max(height, width) + 1)
    above, below = size // 2, (size - 1) // 2
    kernel = np.ones((size, size), np.uint8)
    top = int(np.iinfo(pixels.dtype).max)
    own = np.empty((height, width), pixels.dtype)
    haziest = (
        np.full(top + 1, UNSEEN, np.int64),
        np.zeros(top + 1, np.int64),
        np.array([top, 0, max(1, int(LIGHT_QUANTILE * own.size))]),
    )
    channels = 1 if pixels.ndim == 2 else 3
    shape = (STRIP_ROWS + size, width)
    room = [np.empty(shape, pixels.dtype) for _ in range(2 * channels)]
    for start in range(0, height, STRIP_ROWS):
        end = min(start + STRIP_ROWS, height)
        first, last = max(0, start - above), min(height, end + below)
        strips = [rows[: last - first] for rows in room]
        planes, coarse = strips[:channels], strips[channels:]
        cv2.split(pixels[first:last], planes)
        for plane, out in zip(planes, coarse, strict=True):
            cv2.dilate(plane, kernel, out, anchor=(above, above))
        _survey(_three(planes), _three(coarse), start - first, own[start:end], *haziest)
    darkest, _, (threshold, *_) = haziest
    lowest_mean = int(darkest[: threshold + 1].min()) / 3
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
    # Linear in the dark pixel, and so is the mean; the last element is t at d = 0.
    share = float(cv2.mean(analysis.own)[0]) / top
    mean = share * transmission[-1] + (1 - share) * transmission[0]
    return Enhanced(result, float(mean))


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


def _three(planes: Sequence[Pixels]) -> tuple[Pixels, ...]:
    """Gray is three equal channels."""
    return tuple(planes) * (3 // len(planes))


# The kernels are unrolled over the channels by hand, and written so that the compiler turns their
# inner loops into vector instructions: it does so for plain loops over rows without branches.


@numba.njit(cache=True, nogil=True)
def _survey(
    planes: tuple[Pixels, ...],
    coarse: tuple[Pixels, ...],
    first: int,
    own: Pixels,
    darkest: Pixels,
    counts: Pixels,
    bound: Pixels,
) -> None:
    """Fill ``own`` from row ``first`` on, and look at the haziest pixels seen so far.

    ``bound``: a window's maximum of v that the threshold cannot exceed any more; how many pixels
    lie at or below it; how many are wanted. It falls fast, so that few pixels are looked at one
    by one. Of those, by their window's maximum: ``counts``, and the ``darkest`` sum of channels.
    """
    brightest = np.empty(own.shape[1], own.dtype)
    for y in range(own.shape[0]):
        at = first + y
        b, g, r = planes[0][at], planes[1][at], planes[2][at]
        _pick(b, g, r, coarse[0][at], coarse[1][at], coarse[2][at], own[y], brightest)
        if _lowest(brightest) > bound[0]:
            continue
        for x in range(own.shape[1]):
            value = brightest[x]
            if value <= bound[0]:
                counts[value] += 1
                bound[1] += 1
                darkest[value] = min(darkest[value], np.int64(b[x]) + g[x] + r[x])
        while bound[1] - counts[bound[0]] >= bound[2]:
            bound[1] -= counts[bound[0]]
            bound[0] -= 1


@numba.njit(cache=True, nogil=True)
def _pick(
    blue: Pixels,
    green: Pixels,
    red: Pixels,
    coarse_blue: Pixels,
    coarse_green: Pixels,
    coarse_red: Pixels,
    own: Pixels,
    brightest: Pixels,
) -> None:
    """Of one row, the largest of the three window maxima, and v in the channel that has it."""
    for x in range(own.size):
        value, at_green, at_red = blue[x], green[x], red[x]
        largest, of_green, of_red = coarse_blue[x], coarse_green[x], coarse_red[x]
        value = at_green if of_green > largest else value
        largest = of_green if of_green > largest else largest
        value = at_red if of_red > largest else value
        largest = of_red if of_red > largest else largest
        own[x] = value
        brightest[x] = largest


@numba.njit(cache=True, nogil=True)
def _lowest(row: Pixels) -> Any:
    low = row[0]
    for x in range(row.size):
        low = min(low, row[x])
    return low


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
