"""Arrays of pixels: their types, gray as colour, orientation."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]
"""uint8 or uint16; (height, width) for gray, or (height, width, 3) in OpenCV's order blue, green,
red."""

Mask = npt.NDArray[np.bool_]
"""(height, width)."""

Rgb = npt.NDArray[Any]
"""float32 in 0..1; (height, width, 3), red, green, blue: what the network is trained on."""

LUMINANCE = (0.114, 0.587, 0.299)
"""Weights of blue, green and red in the luminance, ITU-R BT.601."""


def in_colour(pixels: Pixels) -> Pixels:
    """Gray as three equal channels; colour as it is."""
    return pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)


def visible_in(alpha: Pixels | None) -> Mask | None:
    """Which pixels are not wholly transparent; None if all count: none is, or all are."""
    if alpha is None:
        return None
    visible: Mask = alpha > 0
    return visible if visible.any() and not visible.all() else None


def only(pixels: Pixels, visible: Mask | None) -> Pixels:
    """The visible pixels as an image of one row; the image itself if all count."""
    return pixels if visible is None else pixels[visible][np.newaxis]


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """The pixels as they are meant to be seen, given their EXIF orientation, 1..8."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return np.ascontiguousarray(np.flip(pixels, flips))


def turned_back(pixels: Pixels, orientation: int) -> Pixels:
    """The pixels as stored, given how they are meant to be seen."""
    return turned(pixels, {6: 8, 8: 6}.get(orientation, orientation))
