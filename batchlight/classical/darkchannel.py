"""The dark channel of an image and its haziest pixels, found in one pass over the rows.

A pixel's key is the largest of its three samples with the channel's precedence (blue 2, green 1,
red 0) in two bits below it, so that the largest key in a window tells the brightest sample, and of
channels that tie the one that comes first. Gray is three equal channels.

The maximum over a window of n rows costs three comparisons for any n (van Herk, 1992; Gil and
Werman, 1993): rows are taken in blocks of n, and each window is the end of one block and the
beginning of the next. Over columns, maxima of spans 1, 2, 4 ... are doubled up to n.

The loops over a row have no branches, no views of one array in another and no arithmetic wider
than their samples: so written, the compiler turns them into vector instructions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from batchlight.images.kernels import kernel
from batchlight.images.pixels import Pixels

HAZIEST = 0.001
"""Share of the pixels, the haziest, among which the atmospheric light is looked for."""

THRESHOLD, SEEN, WANTED = 0, 1, 2
"""Of the search for them: a value of v, the largest of a window, below which they all lie as far as
is known yet; how many pixels lie at or below it; how many are wanted."""

COLUMNS = 64
"""How many are passed over at once when none of them is among the haziest."""

UNSEEN = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Scan:
    """What one pass over the stored values v of an image finds."""

    own: Pixels
    """(height, width), dtype of the image: each pixel's v in the dark channel."""
    darkest: int
    """The smallest sum of a pixel's three channels among the haziest."""
    sums: npt.NDArray[np.int64]
    """(channels,): the sum of each."""


def scan(pixels: Pixels, window: int) -> Scan:
    """Look at all pixels of an image, uint8 or uint16, (height, width) or (height, width, 3).

    The haziest are those whose dark channel in He et al.'s sense (the minimum of I = R - v over
    window and channels) is at or above its n-th largest value, n being a thousandth of the pixels
    and at least one.

    The window spans rows y - window // 2 .. y + (window - 1) // 2, columns alike, clipped at the
    border. Of channels that tie, blue comes before green before red.
    """
    height, width = pixels.shape[:2]
    size = min(window, 2 * max(height, width) + 1)
    top = int(np.iinfo(pixels.dtype).max)
    darkest = np.full(top + 1, UNSEEN, np.int64)
    haziest = np.array([top, 0, max(1, int(HAZIEST * height * width))])
    own = np.empty((height, width), pixels.dtype)
    channels = 1 if pixels.ndim == 2 else 3
    planes = [np.empty((size, width), pixels.dtype) for _ in range(channels)] * (3 // channels)
    keys = np.uint16 if top == 255 else np.uint32
    block, padded = np.empty((size, width), keys), np.zeros((2, size + width), keys)
    # As narrow as is fast: no decoder makes rows of 16 million pixels.
    sums = np.empty((height, channels), np.uint32 if top == 255 else np.uint64)
    rows = pixels.reshape(height, -1)
    _scan(rows, tuple(planes), block, padded, own, darkest, np.zeros_like(darkest), haziest, sums)
    among = darkest[: haziest[THRESHOLD] + 1]
    return Scan(own, int(among.min()), sums.sum(axis=0, dtype=np.int64))


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
