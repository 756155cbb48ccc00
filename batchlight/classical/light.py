"""The atmospheric light of a batch: the mean of its images' estimates."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

LIGHT_SCALE = 255.0
"""Scale of the atmospheric light, whatever the bit depth."""

ROUNDING = 1e-4
"""Upper bound for the difference between a running total and ``batch_light``."""


def batch_light(estimates: Iterable[float | None]) -> float | None:
    """The mean of a batch's estimates, in plan order and float64; None if there are none.

    An image without an estimate is a None among them. The mean is rounded to float32, as it is
    recorded, so that a record reproduces its pixels.
    """
    known = [estimate for estimate in estimates if estimate is not None]
    return float(np.float32(np.mean(known, dtype=np.float64))) if known else None


class MeanLight:
    """The batch's atmospheric light while its images are still being analysed."""

    def __init__(self, to_come: int) -> None:
        self._estimates: list[float] = []
        self._total = 0.0
        self._to_come = to_come

    def add(self, estimate: float | None) -> None:
        """Add one image's estimate; None for an image that has none."""
        self._to_come -= 1
        if estimate is not None:
            self._estimates.append(estimate)
            self._total += estimate

    @property
    def so_far(self) -> float | None:
        """``batch_light`` of the estimates added so far."""
        return batch_light(self._estimates)

    @property
    def at_most(self) -> float:
        """Upper bound of ``batch_light``, whatever the remaining estimates."""
        count = len(self._estimates) + self._to_come
        if not count:
            return LIGHT_SCALE
        mean = (self._total + LIGHT_SCALE * self._to_come) / count
        return min(LIGHT_SCALE, mean + ROUNDING)
