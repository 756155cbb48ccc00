"""More pairs out of the pairs there are: other regions, scales, orientations, light and noise.

A pair is the dark image and the one that it should become.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from batchlight.images.pixels import Rgb


@dataclass(frozen=True)
class Augmentation:
    """How far a sample may be from the pair it is made of."""

    size: int = 256
    """Side of the square sample, in pixels."""
    smallest_region: float = 0.5
    """Share of the sides that a region covers at least; it is stretched to the sample's size."""
    noisy: float = 0.7
    """Share of the samples whose dark image gets more sensor noise."""
    strongest_noise: float = 1.3
    """1 is the noise of a dark image as it comes from the camera, at full resolution."""
    relit: float = 0.3
    """Share of the samples whose dark image gets another exposure."""
    darkest_stop: float = -0.5
    brightest_stop: float = 1.5
    already_bright: float = 0.2
    """Share of the samples whose dark image is the bright one at another exposure: dimmed a little,
    to be brought back, or brighter still, to stay as it is."""
    dimmest_stop: float = -2.0
    lightest_stop: float = 1.0


READ_VARIANCE = 3.2
SHOT_VARIANCE = 0.25
"""Noise of a dark image at level v of 255: variance READ + SHOT x v, in levels squared. Fitted to
the finest diagonal Haar band of low-light photographs with unscaled sensor noise."""

SMALLEST_GRAIN, LARGEST_GRAIN = 0.2, 0.6
"""Sigma, in pixels, of the blur that makes neighbouring noise alike, as demosaicking does."""


def augment(
    low: Rgb, high: Rgb, how: Augmentation, whole: float, random: np.random.Generator
) -> tuple[Rgb, Rgb]:
    """A sample of (size, size, 3) made of a pair; ``whole``: how likely it shows all of it."""
    if random.random() >= whole:
        low, high = _region(low, high, how.smallest_region, random)
    low, high = (_resize(image, how.size) for image in (low, high))
    if random.random() < how.already_bright:
        low = np.minimum(high * 2 ** random.uniform(how.dimmest_stop, how.lightest_stop), 1)
        high = np.maximum(low, high)
    elif random.random() < how.relit:
        low = np.minimum(low * 2 ** random.uniform(how.darkest_stop, how.brightest_stop), 1)
    if random.random() < how.noisy:
        low = add_noise(low, random.uniform(0, how.strongest_noise), random)
    turns, flip = int(random.integers(4)), int(random.integers(2))
    low, high = (np.rot90(image, turns)[:, :: 1 - 2 * flip] for image in (low, high))
    return np.ascontiguousarray(low, np.float32), np.ascontiguousarray(high, np.float32)


def add_noise(image: Rgb, strength: float, random: np.random.Generator) -> Rgb:
    """The image with sensor noise, on the 256 levels that a camera would have stored."""
    grain = random.uniform(SMALLEST_GRAIN, LARGEST_GRAIN)
    noise = cv2.GaussianBlur(random.standard_normal(image.shape, np.float32), (0, 0), grain)
    levels = image * 255
    noisy = levels + noise / max(noise.std(), 1e-6) * strength * np.sqrt(
        READ_VARIANCE + SHOT_VARIANCE * levels
    )
    result: Rgb = np.clip(np.rint(noisy), 0, 255) / 255
    return result


def _region(low: Rgb, high: Rgb, smallest: float, random: np.random.Generator) -> tuple[Rgb, Rgb]:
    height, width = low.shape[:2]
    share = random.uniform(smallest, 1)
    h, w = max(1, round(height * share)), max(1, round(width * share))
    y, x = random.integers(height - h + 1), random.integers(width - w + 1)
    return low[y : y + h, x : x + w], high[y : y + h, x : x + w]


def _resize(image: Rgb, size: int) -> Rgb:
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    shrinks = size < min(height, width)
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    resized: Rgb = cv2.resize(image, (size, size), interpolation=how)
    return np.clip(resized, 0, 1)
