"""The classical method: invert the dark image, remove the haze, invert back.

An inverted low-light image looks hazy (Dong et al., ICME 2011), so haze removal brightens it; the
one used here is Tan, Bai, Wang and Higashi, "Fast Single-image Defogging" (Fujitsu Sci. Tech. J.
50(1), 2014). With v the stored value, R its range (255 or 65535), I = R - v:

    dark channel   c(x) = the channel in which the minimum of I over the window around x occurs
    dark pixel     d(x) = I_c(x)(x)             the pixel's own value, which limits halos
    transmission   t(x) = 1 - omega d(x) / A    A: the atmospheric light
    clarified      J(x) = (I(x) - A) / max(t(x), t0) + A
    result         R - J, clipped and rounded to nearest

``exact.py`` computes exactly this. ``denoise.py`` splits it, to reduce noise. With a window of one
pixel, d is the smallest of the pixel's own I: a single tone curve, which keeps the ratios of the
channels. With wider windows the channel changes from one to the next, in visible squares.

Arrays only: uint8 or uint16, shape (height, width) for gray or (height, width, 3) for colour in
OpenCV's order blue, green, red. The minimum of I is the maximum of v, so nothing is ever inverted
in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from batchlight.classical.darkchannel import scan
from batchlight.classical.denoise import Curve, enhance_denoised
from batchlight.classical.exact import enhance_exactly
from batchlight.classical.light import LIGHT_SCALE
from batchlight.classical.omega import omega_for
from batchlight.config import LIGHT_WINDOW, JobConfig
from batchlight.images.measures import luminance
from batchlight.images.pixels import Mask, Pixels, only


@dataclass(frozen=True)
class DehazeParameters:
    """omega, t0 and window as in the formulas above."""

    omega: float | None
    """In (0, 1]; None to choose the one that brings an image to the target."""
    t0: float
    window: int
    denoise: bool
    """Whether to reduce the noise that is amplified."""
    target: float
    """Mean luminance, 0..1, of the result, if omega is None."""

    @classmethod
    def of(cls, config: JobConfig) -> DehazeParameters:
        """The parameters of a job."""
        return cls(
            None if config.omega == "auto" else config.omega,
            config.t0,
            config.window,
            config.denoise == "guided",
            config.target_luminance,
        )


@dataclass(frozen=True)
class Analysis:
    """The results of one pass over an image, enough to enhance it with any atmospheric light."""

    own: Pixels | None
    """(height, width), dtype of the image: the stored value v in the dark channel, R - d(x); None
    with a window of one pixel, where it is the largest of the pixel's channels."""

    atmospheric_light: float
    """The image's own estimate, 0..255."""

    luminance: float
    """The mean, 0..1, as in ``measures.measure``."""

    rgb: bool = False
    """Whether red comes first in the pixels."""

    visible: Mask | None = None
    """Which pixels count; None for all."""


@dataclass(frozen=True)
class Enhanced:
    """An enhanced image with measurements."""

    pixels: Pixels
    omega: float
    """The omega used."""
    mean_transmission: float
    """Mean of t over the image, before t0 bounds it."""


def analyse(
    pixels: Pixels, window: int, rgb: bool = False, visible: Mask | None = None
) -> Analysis:
    """Find each pixel's dark channel, the atmospheric light and the luminance.

    The light: the highest mean of the three channels of I among the haziest pixels (``scan``), with
    a window of ``LIGHT_WINDOW`` or ``window``, whichever is larger. Ties between channels are
    resolved as there. ``rgb``: red comes first. ``visible``: which pixels count; the others are
    taken for black, which no window shows as its brightest.
    """
    top = int(np.iinfo(pixels.dtype).max)
    size = pixels.shape[0] * pixels.shape[1]
    if visible is not None:
        size = int(visible.sum())
        pixels = np.where(visible if pixels.ndim == 2 else visible[..., np.newaxis], pixels, 0)
    found = scan(pixels, max(window, LIGHT_WINDOW), window >= LIGHT_WINDOW, rgb)
    own = scan(pixels, window, rgb=rgb).own if 1 < window < LIGHT_WINDOW else found.own
    light = (top - found.darkest / 3) * LIGHT_SCALE / top
    return Analysis(own, light, luminance(found.sums, size, top), rgb, visible)


def enhance(
    pixels: Pixels, analysis: Analysis, atmospheric_light: float, parameters: DehazeParameters
) -> Enhanced:
    """Brighten one image, given its analysis and the light to use (0..255).

    A light of 0, which only a completely white image has, means that there is nothing to remove.
    """
    if not atmospheric_light:
        return Enhanced(pixels.copy(), parameters.omega or 0.0, mean_transmission=1.0)
    top = int(np.iinfo(pixels.dtype).max)
    # As recorded, so that a record reproduces its omega.
    light = float(np.float32(atmospheric_light)) * top / LIGHT_SCALE
    own, rgb, t0 = analysis.own, analysis.rgb, parameters.t0
    omega = parameters.omega
    if omega is None:
        visible = analysis.visible
        of_visible = None if own is None else only(own, visible)
        seen = only(pixels, visible)
        omega = omega_for(seen, of_visible, parameters.target, light, t0, rgb)
    if parameters.denoise:
        result, mean = enhance_denoised(pixels, own, Curve(omega, t0, light), rgb)
    else:
        result, mean = enhance_exactly(pixels, own, atmospheric_light, omega, t0)
    return Enhanced(result, omega, 1 - omega * (top - mean) / light)
