"""The dark channel of an image and its haziest pixels, found in one pass over the rows.

How ``scan`` works (the formula itself, in NumPy, is ``tests/support/dark_channel.py``):

1. *Keys.* A pixel's key is the largest of its three samples, followed by the channel's rank (blue
   2, green 1, red 0) in the two lowest bits. So the largest key in a window gives the brightest
   sample and, of channels that tie, the first one. Gray is three equal channels. If the channel
   is not needed, the key is the sample alone, in half the bits.
2. *Columns.* The largest key among the columns of each window, for one row of the image: maxima of
   spans 1, 2, 4 ... are doubled up to the window's size (``_largest_in_row``).
3. *Rows.* The largest of these among the rows of each window, in three comparisons for any size n
   (van Herk, 1992; Gil and Werman, 1993). Rows are taken in blocks of n, and a window is the end
   of one block and the start of the next. ``ends`` holds the maxima from each row to the end of
   its block, ``start`` those from the start of the next block to the window's last row::

       rows     a  b  c  d | e  f  g  h        n = 4, the window is c d e f
       ends           max(c, d)
       start                 max(e, f)

4. *Haziest.* In each row, only stretches that have a low enough key are searched pixel by pixel
   (``_search``).

The loops over a row have no branches, no views of one array in another and no arithmetic wider than
their samples, so that the compiler vectorizes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from batchlight.classical.planes import split
from batchlight.images.kernels import kernel
from batchlight.images.pixels import Pixels

HAZIEST = 0.001
"""Share of the pixels, the haziest, in which to look for the atmospheric light."""

STRETCH = 64
"""How many pixels to skip at once if none of them is among the haziest."""

UNSEEN = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Scan:
    """The results of one pass over the stored values v of an image."""

    own: Pixels | None
    """(height, width), dtype of the image: each pixel's v in the dark channel; None if not kept."""
    darkest: int
    """The smallest sum of a pixel's three channels among the haziest."""
    sums: npt.NDArray[np.int64]
    """(channels,): the sum of each channel."""


def scan(pixels: Pixels, window: int, keep_own: bool = True, rgb: bool = False) -> Scan:
    """Scan all pixels of an image, uint8 or uint16, (height, width) or (height, width, 3).

    ``keep_own``: whether each pixel's own value in the dark channel is needed. ``rgb``: red comes
    first, not blue; ``Scan.sums`` are of blue, green, red all the same.

    The haziest are those whose dark channel in He et al.'s sense (the minimum of I = R - v over
    window and channels) is at or above its n-th largest value, n being a thousandth of the pixels
    and at least one.

    The window spans rows y - window // 2 .. y + (window - 1) // 2, likewise for columns, clipped at
    the border. On ties between channels, blue comes before green before red.
    """
    height, width = pixels.shape[:2]
    size = min(window, 2 * max(height, width) + 1)
    channels = 1 if pixels.ndim == 2 else 3
    top = int(np.iinfo(pixels.dtype).max)
    own = np.empty((height if keep_own else 0, width), pixels.dtype)
    planes = [np.empty((size, width), pixels.dtype) for _ in range(channels)] * (3 // channels)
    # As narrow as possible for speed: no decoder makes rows of 16 million pixels, so sums fit.
    ranked = np.uint16 if top == 255 else np.uint32
    ends = np.empty((size, width), ranked if keep_own else pixels.dtype)
    sums = np.empty((height, channels), np.uint32 if top == 255 else np.uint64)
    wanted = max(1, int(HAZIEST * height * width))
    rows = pixels.reshape(height, -1)
    darkest = _scan(rows, rgb, tuple(planes), ends, own, sums, top, wanted)
    return Scan(own if keep_own else None, int(darkest), sums.sum(axis=0, dtype=np.int64))


@kernel
def _scan(
    pixels: Pixels,
    rgb: bool,
    planes: tuple[Pixels, ...],
    ends: Pixels,
    own: Pixels,
    sums: Pixels,
    top: int,
    wanted: int,
) -> int:
    """Fill ``own`` and ``sums``; return the darkest sum of channels of the ``wanted`` haziest.

    ``pixels``: (height, width * channels), up to ``top``. ``own``: (height, width), or (0, width)
    if it is not needed, and keys have no rank. ``planes``: buffer for the rows in the window, by
    channel, each (size, width); row y is in row y % size. ``ends``: (size, width), buffer for keys.
    ``sums``: (height, channels), the sum of each row.
    """
    height, width = pixels.shape[0], own.shape[1]
    size = ends.shape[0]
    above, below = size // 2, (size - 1) // 2
    start, keys = np.empty(width, ends.dtype), np.empty(width, ends.dtype)
    padded = np.zeros((2, size + width), ends.dtype)
    # By the maximum of the window: how many pixels, and the smallest sum of their channels.
    counts, darkest = np.zeros(top + 1, np.int64), np.full(top + 1, UNSEEN)
    threshold, seen, shift = top, 0, 2 if own.shape[0] else 0
    for i in range(size):
        _largest_in_row(pixels, rgb, i - above, shift, planes, padded, ends[i])
    for y in range(height):
        i = y % size
        if i == 0:  # the window is one whole block
            _maxima_to_the_end(ends)
            start[:] = 0
        _larger(ends[i], start, keys)
        colours = (planes[0][i], planes[1][i], planes[2][i])
        if own.shape[0]:
            _pick(colours, keys, own[y])
        for channel in range(sums.shape[1]):
            _sum(colours[channel], sums[y, channel : channel + 1])
        threshold, seen = _search(colours, keys, shift, counts, darkest, threshold, seen, wanted)
        # This place in the block is free for the row that the next window has further down.
        _largest_in_row(pixels, rgb, y + below + 1, shift, planes, padded, ends[i])
        _raise_to(start, ends[i])
    among_haziest = darkest[0]
    for level in range(1, threshold + 1):
        among_haziest = min(among_haziest, darkest[level])
    return int(among_haziest)


@kernel
def _search(
    colours: tuple[Pixels, ...],
    keys: Pixels,
    shift: int,
    counts: Pixels,
    darkest: Pixels,
    threshold: int,
    seen: int,
    wanted: int,
) -> tuple[int, int]:
    """Search for the haziest pixels in one row.

    ``shift``: how many bits of a key are rank. ``threshold``: upper bound, from the rows so far, of
    the maximum of a haziest pixel's window; it falls fast, so that few pixels are examined one by
    one. ``seen``: how many pixels lie at or below it. Returns both, updated.
    """
    blue, green, red = colours
    for first in range(0, keys.size, STRETCH):
        end = min(first + STRETCH, keys.size)
        lowest = np.int64(_lowest(keys[first:end])) >> shift
        if lowest > threshold:
            continue
        if lowest == np.int64(_highest(keys[first:end])) >> shift:  # as in most flat areas
            seen += end - first
            counts[lowest] += end - first
            total = _lowest_sum(blue[first:end], green[first:end], red[first:end])
            darkest[lowest] = min(darkest[lowest], total)
        else:
            for x in range(first, end):
                value = np.int64(keys[x]) >> shift
                if value <= threshold:
                    seen += 1
                    counts[value] += 1
                    total = np.int64(blue[x]) + green[x] + red[x]
                    darkest[value] = min(darkest[value], total)
        while seen - counts[threshold] >= wanted:
            seen -= counts[threshold]
            threshold -= 1
    return threshold, seen


@kernel
def _maxima_to_the_end(ends: Pixels) -> None:
    """Make each row of a block the maximum of itself and all rows below it."""
    for y in range(ends.shape[0] - 2, -1, -1):
        _raise_to(ends[y], ends[y + 1])


@kernel
def _largest_in_row(
    pixels: Pixels,
    rgb: bool,
    y: int,
    shift: int,
    planes: tuple[Pixels, ...],
    padded: Pixels,
    out: Pixels,
) -> None:
    """The largest key of each window's columns in row ``y``; 0 if there is no such row."""
    if y < 0 or y >= pixels.shape[0]:
        out[:] = 0
        return
    size, width = padded.shape[1] - out.size, out.size
    wide, spare = padded[0], padded[1]
    before, after = size // 2, size // 2 + width
    wide[:before] = 0
    wide[after:] = 0
    at = y % size
    colours = (planes[0][at], planes[1][at], planes[2][at])
    split(pixels[y], colours, rgb)
    if shift:
        _to_keys(colours, wide[before:after])
    else:
        _to_largest(colours, wide[before:after])
    span = 1
    while 2 * span <= size:
        left = wide.size - 2 * span + 1
        _widen(wide, span, left, spare)
        wide, spare = spare, wide
        span *= 2
    _widen(wide, size - span, width, out)


@kernel
def _to_keys(colours: tuple[Pixels, ...], out: Pixels) -> None:
    blue, green, red = colours
    key = out.dtype.type
    for x in range(out.size):
        of_blue = key(key(key(blue[x]) << 2) | 2)
        of_green = key(key(key(green[x]) << 2) | 1)
        of_red = key(key(red[x]) << 2)
        largest = of_blue if of_blue > of_green else of_green
        out[x] = largest if largest > of_red else of_red


@kernel
def _to_largest(colours: tuple[Pixels, ...], out: Pixels) -> None:
    blue, green, red = colours
    for x in range(out.size):
        largest = blue[x] if blue[x] > green[x] else green[x]
        out[x] = largest if largest > red[x] else red[x]


@kernel
def _pick(colours: tuple[Pixels, ...], keys: Pixels, own: Pixels) -> None:
    """Each pixel's sample in the channel that its key names."""
    blue, green, red = colours
    sample = own.dtype.type
    for x in range(own.size):
        channel = sample(keys[x])
        if_green = sample(-sample(channel & 1))  # all bits or none
        if_blue = sample(-sample(sample(channel >> 1) & 1))
        if_red = sample(~sample(if_green | if_blue))
        own[x] = blue[x] & if_blue | green[x] & if_green | red[x] & if_red


@kernel
def _widen(row: Pixels, shift: int, count: int, out: Pixels) -> None:
    """The larger of each element and the one ``shift`` further on."""
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
def _highest(row: Pixels) -> Any:
    high = row[0]
    for x in range(row.size):
        high = high if high > row[x] else row[x]
    return high


@kernel
def _lowest_sum(blue: Pixels, green: Pixels, red: Pixels) -> int:
    low = np.int32(np.iinfo(np.int32).max)
    for x in range(blue.size):
        total = np.int32(np.int32(blue[x]) + np.int32(green[x]) + np.int32(red[x]))
        low = low if low < total else total
    return int(low)
