"""Rows of interleaved samples as planes, and back."""

from __future__ import annotations

import numpy as np

from batchlight.images.kernels import kernel
from batchlight.images.pixels import Pixels

Planes = tuple[Pixels, Pixels, Pixels]
"""Blue, green and red of one row of pixels, each (width,)."""


@kernel
def split(row: Pixels, planes: Planes, rgb: bool) -> None:
    """Split a row into channels; gray as all three. ``rgb``: red comes first in the row."""
    blue, green, red = (planes[2], planes[1], planes[0]) if rgb else planes
    if row.size == blue.size:
        for x in range(blue.size):
            blue[x], green[x], red[x] = row[x], row[x], row[x]
        return
    one, two, three = np.uintp(1), np.uintp(2), np.uintp(3)
    for x in range(blue.size):
        at = three * np.uintp(x)
        blue[x], green[x], red[x] = row[at], row[at + one], row[at + two]


@kernel
def merge(planes: Planes, row: Pixels, rgb: bool) -> None:
    """The inverse of ``split``; gray is any of the three, which are equal."""
    blue, green, red = (planes[2], planes[1], planes[0]) if rgb else planes
    if row.size == blue.size:
        for x in range(blue.size):
            row[x] = blue[x]
        return
    one, two, three = np.uintp(1), np.uintp(2), np.uintp(3)
    for x in range(blue.size):
        at = three * np.uintp(x)
        row[at], row[at + one], row[at + two] = blue[x], green[x], red[x]
