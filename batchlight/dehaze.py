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
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from batchlight.guided import smooth
from batchlight.kernels import kernel
from batchlight.measures import luminance

Pixels = npt.NDArray[Any]

LIGHT_QUANTILE = 0.001
"""Share of the pixels, the haziest, among which the atmospheric light is looked for."""

THRESHOLD, SEEN, WANTED = 0, 1, 2
"""Of the search for them: a value of v, the largest of a window, below which they all lie as far as
is known yet; how many pixels lie at or below it; how many are wanted."""

COLUMNS = 64
"""How many are passed over at once when none of them is among the haziest."""

UNSEEN = np.iinfo(np.int64).max

CURVES = 16
"""How many are kept: images of a batch share its light, and dark ones often have the highest."""

ROUNDING = 1e-6
"""By how much, relatively, two ways to round a mean to float32 can differ; generous."""

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

    The light: of the pixels whose dark channel in He et al.'s sense (the minimum of I over window
    and channels) is at or above its n-th largest value, n being a thousandth of the pixels and at
    least one, the highest mean of the three channels of I.

    The window spans rows y - window // 2 .. y + (window - 1) // 2, columns alike, clipped at the
    border. Of channels that tie, blue comes before green before red.
    """
    height, width = pixels.shape[:2]
    size = min(window, 2 * max(height, width) + 1)
    top = int(np.iinfo(pixels.dtype).max)
    darkest = np.full(top + 1, UNSEEN, np.int64)
    haziest = np.array([top, 0, max(1, int(LIGHT_QUANTILE * height * width))])
    own = np.empty((height, width), pixels.dtype)
    channels = 1 if pixels.ndim == 2 else 3
    planes = [np.empty((size, width), pixels.dtype) for _ in range(channels)] * (3 // channels)
    keys = np.uint16 if top == 255 else np.uint32
    block, padded = np.empty((size, width), keys), np.zeros((2, size + width), keys)
    # As narrow as is fast: no decoder makes rows of 16 million pixels.
    sums = np.empty((height, channels), np.uint32 if top == 255 else np.uint64)
    rows = pixels.reshape(height, -1)
    _scan(rows, tuple(planes), block, padded, own, darkest, np.zeros_like(darkest), haziest, sums)
    lowest_mean = int(darkest[: haziest[THRESHOLD] + 1].min()) / 3
    light = (top - lowest_mean) * LIGHT_SCALE / top
    return Analysis(own, light, luminance(sums.sum(axis=0, dtype=np.int64), own.size, top))


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


def batch_light(estimates: Sequence[float]) -> float | None:
    """The batch's atmospheric light: the mean of its images' estimates, in float64.

    Rounded to float32, which is how it is recorded, so that a record reproduces its pixels.
    """
    return float(np.float32(np.mean(estimates, dtype=np.float64))) if len(estimates) else None


class MeanLight:
    """The batch's atmospheric light while its images are still being analysed."""

    def __init__(self, to_come: int) -> None:
        self._estimates: list[float] = []
        self._total = 0.0
        self._to_come = to_come

    def add(self, estimate: float | None) -> None:
        """Take one image's estimate; None for an image that has none."""
        self._to_come -= 1
        if estimate is not None:
            self._estimates.append(estimate)
            self._total += estimate

    @property
    def so_far(self) -> float | None:
        """As ``batch_light``."""
        return batch_light(self._estimates)

    @property
    def at_most(self) -> float:
        """What ``batch_light`` cannot exceed any more, whatever the images to come will show."""
        count = len(self._estimates) + self._to_come
        if not count:
            return LIGHT_SCALE
        mean = (self._total + LIGHT_SCALE * self._to_come) / count
        return min(LIGHT_SCALE, mean * (1 + ROUNDING))


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


# The analysis is one pass over the rows. A pixel's key is the largest of its three samples with the
# channel's precedence (blue 2, green 1, red 0) in two bits below it, so that the largest key in a
# window tells the brightest sample, and of channels that tie the one that comes first. Gray is
# three equal channels.
#
# The maximum over a window of n rows costs three comparisons for any n (van Herk, 1992; Gil and
# Werman, 1993): rows are taken in blocks of n, and each window is the end of one block and the
# beginning of the next. Over columns, maxima of spans 1, 2, 4 ... are doubled up to n.
#
# The loops over a row have no branches, no views of one array in another and no arithmetic wider
# than their samples: so written, the compiler turns them into vector instructions.


@kernel
def _scan(
    pixels: Pixels,
    planes: tuple[Pixels, ...],
    block: Pixels,
    padded: Pixels,
    own: Pixels,
    darkest: Pixels,
    counts: Pixels,
    haziest: Pixels,
    sums: Pixels,
) -> None:
    """Fill ``own``, find the haziest pixels, and sum up the channels of each row.

    ``pixels``: (height, width * channels). ``block``: (window, width), the ends of windows.
    ``padded``: (2, window + width), zeros; room for one row and what is beside it.

    ``haziest``: where the search for those pixels is, see ``THRESHOLD``. That falls fast, so that
    few pixels are looked at one by one. Of those, by their window's maximum: ``counts``, and the
    ``darkest`` sum of channels.
    """
    height, width = own.shape
    size = block.shape[0]
    above, below = size // 2, (size - 1) // 2
    beginning = np.empty(width, block.dtype)  # of the window, as far as it is in the next block
    keys = np.empty(width, block.dtype)
    for i in range(size):
        _largest_in_row(pixels, i - above, planes, padded, block[i])
    for y in range(height):
        i = y % size
        if i == 0:
            for end in range(size - 2, -1, -1):
                _raise_to(block[end], block[end + 1])
            beginning[:] = 0
        _larger(block[i], beginning, keys)
        here = (planes[0][i], planes[1][i], planes[2][i])
        _pick(here, keys, own[y])
        for channel in range(sums.shape[1]):
            _sum(here[channel], sums[y, channel : channel + 1])
        for start in range(0, width, COLUMNS):
            end = min(start + COLUMNS, width)
            if np.int64(_lowest(keys[start:end])) >> 2 <= haziest[THRESHOLD]:
                _note_haziest(start, end, here, keys, darkest, counts, haziest)
        _largest_in_row(pixels, y + below + 1, planes, padded, block[i])
        _raise_to(beginning, block[i])


@kernel
def _note_haziest(
    start: int,
    end: int,
    planes: tuple[Pixels, ...],
    keys: Pixels,
    darkest: Pixels,
    counts: Pixels,
    haziest: Pixels,
) -> None:
    """Look at some columns of a row for the haziest pixels."""
    for x in range(start, end):
        value = np.int64(keys[x]) >> 2
        if value <= haziest[THRESHOLD]:
            counts[value] += 1
            haziest[SEEN] += 1
            total = np.int64(planes[0][x]) + planes[1][x] + planes[2][x]
            darkest[value] = min(darkest[value], total)
    while haziest[SEEN] - counts[haziest[THRESHOLD]] >= haziest[WANTED]:
        haziest[SEEN] -= counts[haziest[THRESHOLD]]
        haziest[THRESHOLD] -= 1


@kernel
def _largest_in_row(
    pixels: Pixels, y: int, planes: tuple[Pixels, ...], padded: Pixels, out: Pixels
) -> None:
    """The largest key of each window's columns in row ``y``; 0 where there is no such row."""
    if y < 0 or y >= pixels.shape[0]:
        out[:] = 0
        return
    size, width = padded.shape[1] - out.size, out.size
    wide, spare = padded[0], padded[1]
    before, after = size // 2, size // 2 + width
    wide[:before] = 0
    wide[after:] = 0
    at = y % size
    here = (planes[0][at], planes[1][at], planes[2][at])
    _split(pixels[y], here)
    _to_keys(here, wide[before:after])
    span = 1
    while 2 * span <= size:
        left = wide.size - 2 * span + 1
        _widen(wide, span, left, spare)
        wide, spare = spare, wide
        span *= 2
    _widen(wide, size - span, width, out)


@kernel
def _split(row: Pixels, planes: tuple[Pixels, ...]) -> None:
    blue, green, red = planes
    if row.size == blue.size:
        blue[:] = row
        return
    one, two, three = np.uintp(1), np.uintp(2), np.uintp(3)
    for x in range(blue.size):
        at = three * np.uintp(x)
        blue[x], green[x], red[x] = row[at], row[at + one], row[at + two]


@kernel
def _to_keys(planes: tuple[Pixels, ...], out: Pixels) -> None:
    blue, green, red = planes
    key = out.dtype.type
    for x in range(out.size):
        of_blue = key(key(key(blue[x]) << 2) | 2)
        of_green = key(key(key(green[x]) << 2) | 1)
        of_red = key(key(red[x]) << 2)
        largest = of_blue if of_blue > of_green else of_green
        out[x] = largest if largest > of_red else of_red


@kernel
def _pick(planes: tuple[Pixels, ...], keys: Pixels, own: Pixels) -> None:
    """Each pixel's sample in the channel that its key names."""
    blue, green, red = planes
    sample = own.dtype.type
    for x in range(own.size):
        channel = sample(keys[x])
        if_green = sample(-sample(channel & 1))  # all bits or none
        if_blue = sample(-sample(sample(channel >> 1) & 1))
        if_red = sample(~sample(if_green | if_blue))
        own[x] = blue[x] & if_blue | green[x] & if_green | red[x] & if_red


@kernel
def _widen(row: Pixels, shift: int, count: int, out: Pixels) -> None:
    """The larger of each element and the one that lies ``shift`` further on."""
    for x in range(count):
        here, there = row[x], row[np.uintp(x) + np.uintp(shift)]
        out[x] = here if here > there else there


@kernel
def _larger(one: Pixels, other: Pixels, out: Pixels) -> None:
    for x in range(out.size):
        out[x] = one[x] if one[x] > other[x] else other[x]


@kernel
def _raise_to(row: Pixels, other: Pixels) -> None:
    for x in range(row.size):
        row[x] = row[x] if row[x] > other[x] else other[x]


@kernel
def _sum(row: Pixels, out: Pixels) -> None:
    wide = out.dtype.type
    total = wide(0)
    for x in range(row.size):
        total = wide(total + wide(row[x]))
    out[0] = total


@kernel
def _lowest(row: Pixels) -> Any:
    low = row[0]
    for x in range(row.size):
        low = low if low < row[x] else row[x]
    return low


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
