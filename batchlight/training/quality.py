"""How near an image is to its reference: PSNR and SSIM, as the field's tables have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage.metrics import structural_similarity

from batchlight.images.measures import measure
from batchlight.images.pixels import Pixels


@dataclass(frozen=True)
class Quality:
    """Of one image, or the mean of many."""

    psnr: float
    """Decibels; infinite for equal images."""
    ssim: float
    """At most 1."""


def quality(image: npt.NDArray[Any], reference: npt.NDArray[Any]) -> Quality:
    """Compare two images of the same dtype (uint8 or uint16) and shape, gray or colour.

    scikit-image's definitions: the squared error over all samples; SSIM (Wang et al. 2004) in
    uniform 7x7 windows, mean over the channels. Raises ``ValueError`` for images smaller than that.
    """
    top = float(np.iinfo(reference.dtype).max)
    difference = image.astype(np.float64) - reference.astype(np.float64)
    error = float(np.mean(difference**2))
    psnr = float(10 * np.log10(top * top / error)) if error else float("inf")
    axis = 2 if reference.ndim == 3 else None
    ssim = structural_similarity(reference, image, data_range=top, channel_axis=axis)
    return Quality(psnr, float(ssim))


def at_mean_of(image: Pixels, reference: Pixels) -> Pixels:
    """An image times what gives it the mean luminance of its reference, clipped.

    So that only the rest is compared, as tables with "GT mean" have it (Zhang et al., KinD, 2019).
    """
    is_bright, should_be = measure(image)[0], measure(reference)[0]
    if not is_bright:
        return image
    top = np.iinfo(image.dtype).max
    scaled = image.astype(np.float64) * (should_be / is_bright)
    result: Pixels = np.rint(np.minimum(scaled, top)).astype(image.dtype)
    return result


def shrunk(image: Pixels, side: int) -> Pixels:
    """An image as a square of that side, by Pillow's bilinear filter, which is antialiased.

    That is how the publishers of LOL at 256x256 made it.
    """
    if image.dtype == np.uint8:
        return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
    planes = image[..., None] if image.ndim == 2 else image
    floats = (Image.fromarray(plane) for plane in np.moveaxis(planes.astype(np.float32), 2, 0))
    done = [np.asarray(plane.resize((side, side), Image.Resampling.BILINEAR)) for plane in floats]
    levels = np.rint(np.stack(done, axis=2)).astype(image.dtype)
    result: Pixels = levels[..., 0] if image.ndim == 2 else levels
    return result
