"""The dark channel by its formula, in NumPy: what the fast scan is compared with."""

from __future__ import annotations

import numpy as np

from batchlight.classical.darkchannel import HAZIEST, Scan
from batchlight.images.pixels import Pixels


def definition(pixels: Pixels, window: int) -> Scan:
    """What ``scan`` finds."""
    planes = pixels.reshape(*pixels.shape[:2], -1)
    before, after = window // 2, (window - 1) // 2
    padded = np.pad(planes, ((before, after), (before, after), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (window, window), axis=(0, 1))
    brightest = windows.max(axis=(3, 4))  # of v, i.e. where I = R - v is smallest
    channel = brightest.argmax(axis=2)  # on ties, the first: blue, green, red
    own = np.take_along_axis(planes, channel[:, :, np.newaxis], axis=2)[:, :, 0]
    # The haziest pixels have the smallest maxima.
    maxima = brightest.max(axis=2)
    wanted = max(1, int(HAZIEST * maxima.size))
    threshold = np.sort(maxima, axis=None)[wanted - 1]
    totals = planes.sum(axis=2, dtype=np.int64) * (3 // planes.shape[2])
    darkest = int(totals[maxima <= threshold].min())
    return Scan(own, darkest, planes.sum(axis=(0, 1), dtype=np.int64))
