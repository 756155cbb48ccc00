"""The part of an image that reveals most about a setting: dark, but not empty."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from batchlight.images.pixels import Pixels

CELL = 8
"""Side in pixels of the cells averaged first, so that noise does not count as texture."""
STEPS = 4
"""Places examined per side of the part."""
BLACK = 4.0
"""Levels added before the logarithm, so that one level is no texture in what is nearly black."""
STEEP = 0.5
"""Upper limit for a difference of two logarithms."""
DIM = 32.0
"""Levels added to the brightness; beyond them, the brightness of a part begins to matter."""


@dataclass(frozen=True)
class Rectangle:
    """A rectangle of an image, in pixels."""

    x: int
    y: int
    width: int
    height: int

    def of(self, pixels: Pixels) -> Pixels:
        """The pixels in it; fewer if the image is smaller."""
        return pixels[self.y : self.y + self.height, self.x : self.x + self.width]


def distinguishing_part(pixels: Pixels, width: int, height: int) -> Rectangle:
    """The part of this size with the most texture relative to its brightness.

    ``pixels``: uint8, gray or colour. Texture is how much neighbouring averages differ in their
    logarithms, each difference limited so that no single edge decides.
    """
    width, height = min(width, pixels.shape[1]), min(height, pixels.shape[0])
    gray = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    size = [max(1, length // CELL) for length in gray.shape[::-1]]
    cells = cv2.resize(gray, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    logs = np.log(cells + BLACK)
    steepness = sum(
        np.minimum(np.abs(np.diff(logs, axis=axis, append=logs.take([-1], axis))), STEEP)
        for axis in (0, 1)
    )
    window = max(1, width // CELL), max(1, height // CELL)
    # For the window that begins at each cell.
    texture, mean = (
        cv2.boxFilter(values, -1, window, anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)
        for values in (steepness, cells)
    )
    score = texture / (mean + DIM)
    whole = score[: max(1, size[1] - window[1] + 1), : max(1, size[0] - window[0] + 1)]
    steps = [max(1, length // STEPS) for length in window]
    few = whole[:: steps[1], :: steps[0]]
    y, x = np.unravel_index(int(few.argmax()), few.shape)
    return Rectangle(
        min(int(x) * steps[0] * CELL, pixels.shape[1] - width),
        min(int(y) * steps[1] * CELL, pixels.shape[0] - height),
        width,
        height,
    )
