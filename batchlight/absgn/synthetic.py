"""Dark photographs made from well-lit ones, as a camera would have taken them; on any device.

The light of a scene is dimmed, evenly or not; the sensor adds its noise before white balance
multiplies it, so that clipping at black turns shadows purple, as in real ones; the camera smooths,
compresses and rounds. Some samples are already bright, and are to stay as they are. Everything is
done for a whole batch at once, with random parameters for each sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from batchlight.images.pixels import LUMINANCE

JPEG_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Quantisation at quality 50, ITU-T T.81, table K.1."""
BLOCK = 8

LIGHTS = 4
"""Random values along each side, between which light and shade are interpolated."""
AS_RANDOM = 8
"""Makes differences of brightness, in 0..1, as large as such values, whose deviation is 1."""
MOST_SHADE, LESS_SHADE = 1.5, 2
"""From how far below 0 the level of an image is, to how much above that: more shade than light."""
SHARPEST = 5
"""By how much the border between light and shade may be steeper than the curve itself."""
OF_A_MEAN = 3
"""Gives a mean of 3x3 pixels of noise the deviation that a single one has."""


@dataclass(frozen=True)
class Range:
    """A uniform distribution between two numbers."""

    low: float
    high: float


@dataclass(frozen=True)
class Darkening:
    """How photographs are darkened. Stops are powers of two of light; shares add up to < 1."""

    bright: float = 0.15
    """Share of the samples that are already bright."""
    bright_stops: Range = Range(-1.2, 0.8)
    uneven: float = 0.45
    """Share of the samples with light and shade: backlit, or lit by lamps."""
    stops: Range = Range(-7.5, -1.5)
    """For an evenly dark sample, and for the shaded parts of an uneven one."""
    lit_stops: Range = Range(-3.0, 0.3)
    """For the lit parts of an uneven sample."""
    cast: float = 0.12
    """Standard deviation of the natural logarithm of each channel's gain."""
    contrast: Range = Range(0.85, 1.2)
    """Exponent of the camera's own tone curve."""
    corner: float = 0.5
    """Maximum share of light that the corners lose."""
    red_gain: Range = Range(1.3, 2.4)
    blue_gain: Range = Range(1.2, 2.4)
    """White balance gain, by which the noise of red and blue exceeds that of green."""
    read_noise: Range = Range(math.log(1e-4), math.log(1.5e-3))
    """Natural logarithm of its standard deviation, as a share of the sensor's range."""
    shot_noise: Range = Range(math.log(1e-5), math.log(1e-3))
    """Natural logarithm of the variance per unit of light."""
    black: float = 0.001
    """Maximum offset of the black level, as a share of the sensor's range."""
    smoothing: float = 0.7
    """Maximum weight of a mean over 3x3 pixels: demosaicking, and the camera's noise filter."""
    jpeg: float = 0.6
    """Share of the samples that are compressed."""
    jpeg_quality: Range = Range(60, 98)


def darken(clean: Tensor, how: Darkening, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pairs from well-lit photographs, (N, 3, H, W) sRGB in 0..1: dark ones, and their targets.

    H and W are multiples of 8. ``random`` is on the same device.
    """
    draw = _Draw(clean, random)
    light = _linear(clean)
    stops = draw.between(how.stops)
    lit = torch.maximum(draw.between(how.lit_stops), stops)
    kind = draw.uniform()
    is_bright = kind < how.bright
    is_uneven = (kind < how.bright + how.uneven) & ~is_bright
    field = torch.where(is_uneven, _light_and_shade(clean, draw), torch.zeros_like(stops))
    exposure = torch.where(is_bright, draw.between(how.bright_stops), stops + (lit - stops) * field)
    corners = 1 - how.corner * draw.uniform() * _distance_from_centre(clean) ** 2
    corners = torch.where(is_bright, torch.ones_like(corners), corners)
    cast = (how.cast * draw.normal(1, 3)).exp()
    cast = torch.where(is_bright, torch.ones_like(cast), cast)
    dim = (light * 2**exposure * corners * cast).clamp(0, 1)

    low = _sense(dim, how, draw)
    curve = torch.where(is_bright, torch.ones_like(stops), draw.between(how.contrast))
    low = _encoded(low) ** curve
    low = low + (_blurred(low) - low) * how.smoothing * draw.uniform()
    compressed = _compressed(low, draw.between(how.jpeg_quality))
    low = torch.where(draw.uniform() < how.jpeg, compressed, low)
    low = (low.clamp(0, 1) * 255).round() / 255
    # Samples brighter than the photograph stay so: the task is never to darken.
    target = torch.where(is_bright, torch.maximum(_encoded(dim), clean), clean)
    return low, target


class _Draw:
    """Random numbers for each sample of a batch: (N, 1, 1, 1), unless a shape is given."""

    def __init__(self, like: Tensor, random: torch.Generator) -> None:
        self.count = len(like)
        self.device = like.device
        self.random = random

    def uniform(self) -> Tensor:
        return torch.rand((self.count, 1, 1, 1), device=self.device, generator=self.random)

    def between(self, limits: Range) -> Tensor:
        return limits.low + (limits.high - limits.low) * self.uniform()

    def normal(self, height: int, channels: int = 1) -> Tensor:
        """(N, channels, height, height)."""
        shape = (self.count, channels, height, height)
        return torch.randn(shape, device=self.device, generator=self.random)

    def like(self, image: Tensor) -> Tensor:
        return torch.randn(image.shape, device=self.device, generator=self.random)


def _light_and_shade(clean: Tensor, draw: _Draw) -> Tensor:
    """Where light falls, (N, 1, H, W) in 0..1: at random, with a preference for bright areas."""
    size = (clean.shape[2], clean.shape[3])
    somewhere = interpolate(draw.normal(LIGHTS), size, mode="bicubic", align_corners=False)
    luma = sum(weight * clean[:, at : at + 1] for at, weight in enumerate(LUMINANCE[::-1]))
    assert isinstance(luma, Tensor)
    by_brightness = (_wide_mean(luma) - luma.mean((2, 3), keepdim=True)) * AS_RANDOM
    mixed = torch.lerp(somewhere, by_brightness, draw.uniform())
    level = mixed + draw.uniform() * LESS_SHADE - MOST_SHADE
    return torch.sigmoid(level * (1 + SHARPEST * draw.uniform()))


def _sense(dim: Tensor, how: Darkening, draw: _Draw) -> Tensor:
    """The output of a sensor with white balance for incoming light; both in 0..1, linear."""
    green = torch.ones((len(dim), 1, 1, 1), device=dim.device)
    gains = torch.cat([draw.between(how.red_gain), green, draw.between(how.blue_gain)], 1)
    raw = dim / gains
    read, shot = (draw.between(limits).exp() for limits in (how.read_noise, how.shot_noise))
    noise = draw.like(dim)
    # Noise of neighbours is correlated, since demosaicking mixes neighbouring pixels.
    noise = torch.lerp(noise, _blurred(noise) * OF_A_MEAN, draw.uniform())
    noisy = raw + noise * (read**2 + shot * raw).sqrt() + how.black * draw.uniform()
    return (noisy.clamp(min=0) * gains).clamp(0, 1)


def _compressed(image: Tensor, quality: Tensor) -> Tensor:
    """The effect of JPEG, except its chroma subsampling: quantised 8x8 cosine transforms."""
    n, c, h, w = image.shape
    order = torch.arange(BLOCK, device=image.device, dtype=image.dtype)
    basis = (math.pi / BLOCK * (order + 0.5) * order.view(-1, 1)).cos() * (2 / BLOCK) ** 0.5
    basis[0] /= 2**0.5
    blocks = image.view(n, c, h // BLOCK, BLOCK, w // BLOCK, BLOCK).transpose(3, 4) * 255 - 128
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100
    table = (_jpeg_luma(image.device) * scale.view(n, 1, 1, 1, 1, 1) + 0.5).floor().clamp(1, 255)
    coefficients = basis @ blocks @ basis.T
    restored: Tensor = basis.T @ ((coefficients / table).round() * table) @ basis
    restored = (restored + 128) / 255
    return restored.transpose(3, 4).reshape(n, c, h, w)


@cache
def _jpeg_luma(device: torch.device) -> Tensor:
    """The table on a device; cached, since each transfer would wait for all queued work."""
    return torch.tensor(JPEG_LUMA, dtype=torch.float32, device=device)


def _linear(encoded: Tensor) -> Tensor:
    """From sRGB to light, IEC 61966-2-1."""
    return torch.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def _encoded(light: Tensor) -> Tensor:
    """From light to sRGB, IEC 61966-2-1."""
    curve = 1.055 * light.clamp(min=1e-8) ** (1 / 2.4) - 0.055
    return torch.where(light <= 0.0031308, light * 12.92, curve)


def _blurred(image: Tensor) -> Tensor:
    """The mean over 3x3 pixels."""
    return avg_pool2d(pad(image, (1, 1, 1, 1), "replicate"), 3, stride=1)


def _wide_mean(plane: Tensor) -> Tensor:
    """A blur over a 16th of the image."""
    size = (plane.shape[2], plane.shape[3])
    small = interpolate(plane, (16, 16), mode="bilinear", antialias=True)
    wide: Tensor = interpolate(small, size, mode="bilinear", align_corners=False)
    return wide


def _distance_from_centre(image: Tensor) -> Tensor:
    """(1, 1, H, W): 0 in the centre, 1 in the corners."""
    h, w = image.shape[2:]
    y = torch.linspace(-1, 1, h, device=image.device).view(1, 1, h, 1)
    x = torch.linspace(-1, 1, w, device=image.device).view(1, 1, 1, w)
    return ((x**2 + y**2) / 2).sqrt()
