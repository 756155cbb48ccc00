"""The atmospheric light of a batch: the mean of its images' estimates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LIGHT_SCALE = 255.0
"""Atmospheric light is given on this scale, whatever the bit depth."""

ROUNDING = 1e-4
"""By how much two ways to add up lights and round their mean to float32 can differ; generous."""


def batch_light(estimates: Sequence[float]) -> float | None:
    """The batch's atmospheric light: the mean of its images' estimates, in float64.

    Rounded to float32, which is how it is recorded, so that a record reproduces its pixels.
    """
    return float(np.float32(np.mean(estimates, dtype=np.float64))) if len(estimates) else None


class MeanLight:
    """The batch's atmospheric light while its images are still being analysed."""

    def __init__(self, to_come: int) -> None:
        self._estimates: list[float] = []
        self._total = 0.0
        self._to_come = to_come

    def add(self, estimate: float | None) -> None:
        """Take one image's estimate; None for an image that has none."""
        self._to_come -= 1
        if estimate is not None:
            self._estimates.append(estimate)
            self._total += estimate

    @property
    def so_far(self) -> float | None:
        """As ``batch_light``."""
        return batch_light(self._estimates)

    @property
    def at_most(self) -> float:
        """What ``batch_light`` cannot exceed any more, whatever the images to come will show."""
        count = len(self._estimates) + self._to_come
        if not count:
            return LIGHT_SCALE
        mean = (self._total + LIGHT_SCALE * self._to_come) / count
        return min(LIGHT_SCALE, mean + ROUNDING)
