"""Edge-preserving smoothing whose strength follows the local gain.

Dehazing multiplies an image by 1 / max(t, t0), and its sensor noise with it, up to tenfold where
the scene was darkest. Because that gain is known exactly at every pixel, so is the noise to expect:
a guided filter (He, Sun and Tang, "Guided Image Filtering", TPAMI 2013) whose regularisation is the
variance of the amplified noise smooths what can be noise and leaves what can not.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from batchlight.images.pixels import Pixels

RADIUS = 2
"""Of the filter's square window, in pixels."""

NOISE = 0.004
"""Standard deviation of the noise before the gain, on 0..1: what scored best on held-out pairs."""


def smooth(pixels: Pixels, gain: npt.NDArray[np.float32]) -> Pixels:
    """Smooth an enhanced image, guided by its own luminance.

    ``pixels``: (height, width) or (height, width, 3) in blue, green, red, uint8 or uint16;
    ``gain``: (height, width), by how much the enhancement amplified each pixel. Returns the same
    shape and dtype.
    """
    top = float(np.iinfo(pixels.dtype).max)
    image = pixels.astype(np.float32) / top
    guide = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    guide_mean = _box(guide)
    noise = _box((NOISE * gain) ** 2)
    spread = np.maximum(_box(guide * guide) - guide_mean * guide_mean, 0) + noise

    # Per channel, the local line image = slope * guide + offset that fits the window best.
    planes = [image] if image.ndim == 2 else cv2.split(image)
    smoothed = [_fit(plane, guide, guide_mean, spread) for plane in planes]
    result = smoothed[0] if image.ndim == 2 else cv2.merge(smoothed)
    return np.rint(np.clip(result, 0, 1) * top).astype(pixels.dtype)


def _fit(plane: Pixels, guide: Pixels, guide_mean: Pixels, spread: Pixels) -> Pixels:
    mean = _box(plane)
    slope = (_box(guide * plane) - guide_mean * mean) / spread
    fitted: Pixels = _box(slope) * guide + _box(mean - slope * guide_mean)
    return fitted


def _box(plane: Pixels) -> Pixels:
    size = (2 * RADIUS + 1, 2 * RADIUS + 1)
    return cv2.boxFilter(plane, -1, size, borderType=cv2.BORDER_REFLECT)
