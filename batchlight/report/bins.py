"""Sums along an axis of unknown length, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bins:
    """Values by integer position, in bins that double in width whenever there are too many.

    Bin ``i`` holds the positions ``[i * width, (i + 1) * width)``; bins without values are left
    out. The result does not depend on the order of the values.
    """

    most: int
    """Maximum number of bins from the first to the last, both included."""
    width: int = 1
    index: Integers = field(default_factory=lambda: np.zeros(0, np.int64))
    """Ascending; (bins,), like everything below."""
    count: Integers = field(default_factory=lambda: np.zeros(0, np.int64))
    total: Floats = field(default_factory=lambda: np.zeros(0))
    low: Floats = field(default_factory=lambda: np.zeros(0))
    high: Floats = field(default_factory=lambda: np.zeros(0))

    def added(self, positions: npt.NDArray[Any], values: npt.NDArray[Any]) -> Bins:
        """With these values added at these positions, both (values,)."""
        if not len(positions):
            return self
        floats = values.astype(np.float64)
        index = np.concatenate([self.index, positions.astype(np.int64) // self.width])
        count = np.concatenate([self.count, np.ones(len(positions), np.int64)])
        total, low, high = (
            np.concatenate([held, floats]) for held in (self.total, self.low, self.high)
        )
        width = self.width
        span = int(index.max()) - int(index.min())
        while span >= self.most:
            width *= 2
            index = index // 2
            span = int(index.max()) - int(index.min())
        order = np.argsort(index, kind="stable")
        found, first = np.unique(index[order], return_index=True)
        return Bins(
            self.most,
            width,
            found,
            np.add.reduceat(count[order], first),
            np.add.reduceat(total[order], first),
            np.minimum.reduceat(low[order], first),
            np.maximum.reduceat(high[order], first),
        )

    @property
    def mean(self) -> Floats:
        """The mean of each bin."""
        return self.total / self.count
