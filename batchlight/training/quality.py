"""How near an image is to its reference: PSNR and SSIM, as the field's tables have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.metrics import structural_similarity


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
