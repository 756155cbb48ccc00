"""Measurements of enhanced images without references: brightness, clipping, noise."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from batchlight.images.measures import measure
from batchlight.images.pixels import LUMINANCE, Pixels, in_colour
from batchlight.training.folders import NoScoreError, PixelBudget, Side, in_order, pairs_of
from batchlight.worker.steps import DARKER_BY

MUCH_CLIPPED = 0.03
"""Share of clipped samples from which an image counts as burnt out."""
NORMAL_MEDIAN = 0.6745
"""Median absolute value of a normal variable with standard deviation 1."""


@dataclass(frozen=True)
class Measurement:
    """Measurements of one enhanced image."""

    path: str
    """Relative to its folder."""
    luminance: float | None = None
    """Mean, 0 to 1; None, like the others, for an image with a problem."""
    luminance_before: float | None = None
    """Luminance of its input; None without inputs."""
    clipped: float | None = None
    """Share of the samples at the maximum value."""
    noise: float | None = None
    """Standard deviation, in levels of 255, of the noise in the finest detail."""
    problem: str | None = None

    @property
    def is_darker(self) -> bool:
        """Whether it became visibly darker than its input, by the criterion of a run."""
        before, after = self.luminance_before, self.luminance
        return before is not None and after is not None and after < before - DARKER_BY


@dataclass(frozen=True)
class Survey:
    """Measurements of a folder of enhanced images."""

    enhanced: str
    inputs: str | None
    images: int
    seen: int
    """Images without a problem."""
    darker: int | None
    """Images that became visibly darker; None without inputs."""
    luminance: float | None
    luminance_before: float | None
    clipped: float | None
    """Means over the images."""
    much_clipped: int
    """Images with more than 3 % clipped samples."""
    noise: float | None
    sights: tuple[Measurement, ...]
    """One per image, in the order of the UTF-8 bytes of their paths."""

    def to_dict(self) -> dict[str, Any]:
        """The survey as a JSON object, with the names of the fields."""
        return asdict(self)


def survey(
    enhanced: str | os.PathLike[str],
    inputs: str | os.PathLike[str] | None = None,
    on_sight: Callable[[Measurement, int], object] | None = None,
) -> Survey:
    """Measure each image below ``enhanced``, along with its input below ``inputs``.

    ``on_sight`` is called with each result, in order, and the total number of images. Raises
    ``UsageError`` and ``StorageError`` as ``evaluate`` does.
    """
    ours = Side.open("enhanced image", "--enhanced", enhanced)
    theirs = None if inputs is None else Side.open("input", "--input", inputs)
    originals = pairs_of(ours.files, theirs.files) if theirs is not None else {}

    def measured(path: str, budget: PixelBudget) -> Measurement:
        try:
            before = None
            if theirs is not None and path in originals:
                before = measure(_pixels(theirs, originals[path], budget))[0]
            pixels = _pixels(ours, path, budget)
            brightness, clipped = measure(pixels)
            return Measurement(path, brightness, before, clipped, noise_of(pixels))
        except NoScoreError as reason:
            return Measurement(path, problem=str(reason))
        except MemoryError:
            return Measurement(path, problem="there is not enough memory to examine it")

    sights = []
    with closing(in_order(list(ours.files), measured)) as found:
        for sight in found:
            sights.append(sight)
            if on_sight is not None:
                on_sight(sight, len(ours.files))
    return _summed_up(sights, str(ours.location), None if theirs is None else str(theirs.location))


def _summed_up(sights: Sequence[Measurement], enhanced: str, inputs: str | None) -> Survey:
    return Survey(
        enhanced=enhanced,
        inputs=inputs,
        images=len(sights),
        seen=sum(sight.problem is None for sight in sights),
        darker=None if inputs is None else sum(sight.is_darker for sight in sights),
        luminance=_mean(sight.luminance for sight in sights),
        luminance_before=_mean(sight.luminance_before for sight in sights),
        clipped=_mean(sight.clipped for sight in sights),
        much_clipped=sum((sight.clipped or 0) > MUCH_CLIPPED for sight in sights),
        noise=_mean(sight.noise for sight in sights),
        sights=tuple(sights),
    )


def noise_of(pixels: Pixels) -> float:
    """Standard deviation of the noise of an image's luminance, in levels of 255.

    From the median of the finest diagonal Haar band (Donoho and Johnstone 1994), to which edges add
    little. 0 for an image smaller than 2x2 pixels.
    """
    height, width = (side // 2 * 2 for side in pixels.shape[:2])
    if not height or not width:
        return 0.0
    luma = in_colour(pixels[:height, :width]).astype(np.float32) @ np.asarray(LUMINANCE, np.float32)
    band = luma[::2, ::2] - luma[::2, 1::2] - luma[1::2, ::2] + luma[1::2, 1::2]
    levels = np.median(np.abs(band)) / 2 / NORMAL_MEDIAN
    return float(levels * 255 / np.iinfo(pixels.dtype).max)


def _pixels(side: Side, path: str, budget: PixelBudget) -> Pixels:
    data, header = side.read(path)
    with budget.taken(header.width * header.height):
        return side.decode(data, header)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
