"""How close an image is to its reference: PSNR and SSIM, as in published tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from batchlight.images.measures import measure
from batchlight.images.pixels import Pixels

Floats = npt.NDArray[np.float64]

WINDOW = 7
"""Side of an SSIM window, in pixels."""
STEADIES_MEANS, STEADIES_VARIANCES = 0.01, 0.03
"""K1 and K2 of Wang et al., shares of the range."""


@dataclass(frozen=True)
class Quality:
    """For one image, or the mean of many."""

    psnr: float
    """Decibels; infinite for equal images."""
    ssim: float
    """At most 1."""


def quality(image: npt.NDArray[Any], reference: npt.NDArray[Any]) -> Quality:
    """Compare two images of the same dtype (uint8 or uint16) and shape, gray or colour.

    scikit-image's definitions: the squared error over all samples; SSIM in uniform 7x7 windows,
    mean over the channels. Raises ``ValueError`` for smaller images.
    """
    top = float(np.iinfo(reference.dtype).max)
    ours, truth = image.astype(np.float64), reference.astype(np.float64)
    error = float(np.mean((ours - truth) ** 2))
    psnr = float(10 * np.log10(top * top / error)) if error else float("inf")
    return Quality(psnr, _structural_similarity(ours, truth, top))


def _structural_similarity(one: Floats, other: Floats, top: float) -> float:
    """Mean SSIM (Wang et al. 2004, eq. 13) over the windows that lie entirely in the image.

    Variances and covariance are those of a sample: divided by a window's samples less one.
    """
    if min(one.shape[:2]) < WINDOW:
        raise ValueError(f"smaller than {WINDOW}x{WINDOW}")
    steady_mean, steady_variance = (top * STEADIES_MEANS) ** 2, (top * STEADIES_VARIANCES) ** 2
    of_a_sample = WINDOW**2 / (WINDOW**2 - 1)
    mean_one, mean_other = _in_windows(one), _in_windows(other)
    product = mean_one * mean_other
    squares = mean_one**2 + mean_other**2
    covariance = of_a_sample * (_in_windows(one * other) - product)
    variances = of_a_sample * (_in_windows(one**2 + other**2) - squares)
    similar = (2 * product + steady_mean) * (2 * covariance + steady_variance)
    similar /= (squares + steady_mean) * (variances + steady_variance)
    return float(similar.mean())


def _in_windows(image: Floats) -> Floats:
    """The mean of each window that lies entirely in the image."""
    edge = WINDOW // 2
    means = cv2.blur(image, (WINDOW, WINDOW))[edge:-edge, edge:-edge]
    return means.astype(np.float64, copy=False)


def at_mean_of(image: Pixels, reference: Pixels) -> Pixels:
    """An image scaled to the mean luminance of its reference, clipped.

    So that only the rest is compared, as in tables with "GT mean" (Zhang et al., KinD, 2019).
    """
    is_bright, should_be = measure(image)[0], measure(reference)[0]
    if not is_bright:
        return image
    top = np.iinfo(image.dtype).max
    scaled = image.astype(np.float64) * (should_be / is_bright)
    result: Pixels = np.rint(np.minimum(scaled, top)).astype(image.dtype)
    return result


def shrunk(image: Pixels, side: int) -> Pixels:
    """An image resized to a square of that side by Pillow's bilinear filter, which is antialiased.

    The publishers of LOL at 256x256 made it that way.
    """
    if image.dtype == np.uint8:
        return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
    planes = image[..., None] if image.ndim == 2 else image
    floats = (Image.fromarray(plane) for plane in np.moveaxis(planes.astype(np.float32), 2, 0))
    done = [np.asarray(plane.resize((side, side), Image.Resampling.BILINEAR)) for plane in floats]
    levels = np.rint(np.stack(done, axis=2)).astype(image.dtype)
    result: Pixels = levels[..., 0] if image.ndim == 2 else levels
    return result
