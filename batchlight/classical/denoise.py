"""The method with its noise reduced.

Dehazing multiplies a dark pixel by 1 / max(t, t0), up to twentyfold, and sensor noise with it. But
it can be written as a sum, with v the stored value and b = R - A the black point,

    R - J = v + (1 / max(t, t0) - 1) (v - b)

the image itself and the added light. Only the added light amplifies noise, so only that is computed
from an estimate e of the clean image:

    R - J = v + (1 / max(t(e), t0) - 1) (luminance(e) - b + k (e - luminance(e)))

Where nothing is added, as in highlights, the image stays as it is, and where much is added, the
noise is that of e.

``cells.py`` computes the estimate.

*Colour in shadows.* A few levels above black, the colour of a pixel is mostly noise and rounding,
which no window removes: cameras have purple shadows. k = e^2 / (e^2 + c^2), with the e of the
brightest channel, fades it, as the Wiener filter does for a signal e and noise c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from batchlight.classical.cells import (
    BLUE,
    CELL,
    COEFFICIENTS,
    GREEN,
    ONE,
    RED,
    ZERO,
    Float32,
    estimate_by_cells,
    interpolate,
)
from batchlight.classical.planes import merge, split
from batchlight.images.kernels import kernel
from batchlight.images.pixels import Pixels

SHADOW = 14 / 255
"""c, on 0..1: at this brightness, half of the colour is left."""


class _Constants(NamedTuple):
    """The numbers of a curve that a kernel takes, on the range of the pixels."""

    at_black: np.float32
    """t(0)."""
    slope: np.float32
    """The slope of t."""
    t0: np.float32
    black: np.float32
    """b."""
    shadow: np.float32
    """c squared."""
    top: np.float32
    """R."""


@dataclass(frozen=True)
class Curve:
    """The tone curve, on the range of the pixels: t(v) = 1 - omega (R - v) / A, at least t0."""

    omega: float
    t0: float
    light: float
    """A, above 0."""


def enhance_denoised(
    pixels: Pixels, own: Pixels | None, curve: Curve, rgb: bool = False
) -> tuple[Pixels, float]:
    """Brighten an image without its noise.

    ``pixels``: (height, width) or (height, width, 3), uint8 or uint16. ``own``: (height, width),
    each pixel's v in the dark channel; None if that is the brightest channel of the estimate.
    ``rgb``: red comes first.
    Returns the enhanced image, of the same shape and dtype, and the mean of what replaced ``own``,
    on the range of the pixels.
    """
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    top = np.iinfo(pixels.dtype).max
    coefficients = estimate_by_cells(rows, width, rgb)
    out = np.empty_like(pixels)
    constants = _Constants(
        np.float32(1 - curve.omega * top / curve.light),
        np.float32(curve.omega / curve.light),
        np.float32(curve.t0),
        np.float32(top - curve.light),
        np.float32((SHADOW * top) ** 2),
        np.float32(top),
    )
    given = np.empty((0, width), pixels.dtype) if own is None else own
    total = _enhance(rows, width, rgb, given, coefficients, constants, out.reshape(height, -1))
    return out, total / (height * width)


@kernel
def _enhance(
    rows: Pixels,
    width: int,
    rgb: bool,
    own: Pixels,
    coefficients: Float32,
    constants: _Constants,
    out: Pixels,
) -> float:
    """Fill in the result; returns the sum of the values at which the curve was evaluated."""
    whole = CELL * (coefficients.shape[2] - 2)
    blue = np.zeros(whole, rows.dtype)
    green, red = np.zeros_like(blue), np.zeros_like(blue)
    planes = blue[:width], green[:width], red[:width]
    between = np.empty((COEFFICIENTS, coefficients.shape[2]), np.float32)
    smooth = np.empty((COEFFICIENTS, whole), np.float32)
    brightest, sums = np.empty(whole, np.float32), np.zeros(whole, np.float32)
    for y in range(rows.shape[0]):
        interpolate(coefficients, y, between, smooth)
        split(rows[y], planes, rgb)
        _estimate(blue, green, red, smooth, constants.top, brightest)
        if own.shape[0]:
            for x in range(width):
                brightest[x] = own[y, x]
        _add_up(brightest, sums)
        _brighten(blue, green, red, smooth, constants, brightest)
        merge(planes, out[y], rgb)
    total = 0.0
    for x in range(width):
        total += sums[x]
    return total


@kernel
def _estimate(
    blue: Pixels, green: Pixels, red: Pixels, smooth: Float32, top: np.float32, brightest: Float32
) -> None:
    """Turn the offsets of a row into the estimates, and find the brightest of each pixel."""
    colour, grey = smooth[0], smooth[1]
    of_blue, of_green, of_red = smooth[2], smooth[3], smooth[4]
    for x in range(blue.size):
        b, g, r = np.float32(blue[x]), np.float32(green[x]), np.float32(red[x])
        keep, offset = colour[x], grey[x] * (BLUE * b + GREEN * g + RED * r)
        b = keep * b + offset + of_blue[x]
        g = keep * g + offset + of_green[x]
        r = keep * r + offset + of_red[x]
        of_blue[x], of_green[x], of_red[x] = b, g, r
        most = b if b > g else g
        most = most if most > r else r
        most = most if most > ZERO else ZERO
        brightest[x] = most if most < top else top


@kernel
def _add_up(row: Float32, sums: Float32) -> None:
    for x in range(row.size):
        sums[x] += row[x]


@kernel
def _brighten(
    blue: Pixels,
    green: Pixels,
    red: Pixels,
    smooth: Float32,
    constants: _Constants,
    brightest: Float32,
) -> None:
    """Add light to a row of the image."""
    of_blue, of_green, of_red = smooth[2], smooth[3], smooth[4]
    at_black, slope, t0, black, shadow, top = constants
    sample = blue.dtype.type
    for x in range(blue.size):
        e = brightest[x]
        t = at_black + slope * e
        t = t if t > t0 else t0
        # added = 1 / t - 1, of_colour = added * k: both from one division, the slowest step
        squared = e * e
        whole = squared + shadow
        share = (ONE - t) / (t * whole)
        added, of_colour = share * whole, share * squared
        hat_blue, hat_green, hat_red = of_blue[x], of_green[x], of_red[x]
        y = BLUE * hat_blue + GREEN * hat_green + RED * hat_red
        light = added * (y - black) - of_colour * y
        b = np.float32(blue[x]) + light + of_colour * hat_blue
        g = np.float32(green[x]) + light + of_colour * hat_green
        r = np.float32(red[x]) + light + of_colour * hat_red
        b, g, r = b if b > ZERO else ZERO, g if g > ZERO else ZERO, r if r > ZERO else ZERO
        b, g, r = b if b < top else top, g if g < top else top, r if r < top else top
        blue[x] = sample(np.int32(np.rint(b)))
        green[x] = sample(np.int32(np.rint(g)))
        red[x] = sample(np.int32(np.rint(r)))
