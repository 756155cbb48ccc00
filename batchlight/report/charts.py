"""The curves of a report.

The page also describes each of them in words, for screen readers.
"""

from __future__ import annotations

import numpy as np

from batchlight.errors import unit_of_time
from batchlight.report.axes import band, chart, curve, horizontal, steps, upward
from batchlight.report.bins import Bins, Integers

BEFORE, AFTER = "var(--before)", "var(--after)"
"""Colours of the page, which differ in dark mode."""

LIGHT = 255


def luminance(before: Integers, after: Integers) -> str:
    """Two histograms with equal bins over 0..1: the brightness of a method's images."""
    edges = np.linspace(0, 1, len(before) + 1)
    x = horizontal(0, 1)
    y = upward(float(max(before.max(), after.max())), whole=True)
    drawn = (
        steps(x, y, edges, counts.astype(np.float64), colour)
        for counts, colour in ((before, BEFORE), (after, AFTER))
    )
    return chart(x, y, "mean luminance, 0 to 1", drawn)


def light(bins: Bins) -> str:
    """The atmospheric light by batch, 0..255; mean and range where a bin holds several."""
    middle = ((bins.index + 0.5) * bins.width - 0.5).astype(np.float64)
    x = horizontal(float(middle[0]), float(middle[-1]), whole=True)
    y = upward(LIGHT)
    drawn = [curve(x, y, middle, bins.mean, AFTER)]
    if bins.width > 1:
        drawn.insert(0, band(x, y, middle, bins.low, bins.high, AFTER))
    return chart(x, y, "batch", drawn)


def pace(bins: Bins) -> str:
    """Images per second, from the first that a run finished to the last; bins of milliseconds."""
    index = np.arange(bins.index[0], bins.index[-1] + 1)
    width_s = bins.width / 1000
    per_second = np.zeros(len(index))
    per_second[bins.index - bins.index[0]] = bins.count / width_s
    lasted = len(index) * width_s
    unit, seconds = unit_of_time(lasted)
    edges = np.arange(len(index) + 1) * width_s / seconds
    x, y = horizontal(0, float(edges[-1])), upward(float(per_second.max()))
    drawn = [steps(x, y, edges, per_second, AFTER)]
    return chart(x, y, f"{unit} since its first image", drawn)
