"""Two axes and what is drawn between them, as SVG that inherits colours and font from the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

WIDTH, HEIGHT = 331, 158
"""Of a chart, in drawing units; the page scales it to the available width."""
LEFT, RIGHT, TOP, BOTTOM = 33, 321, 8, 126
"""The area between the axes."""
LETTER = 9
TICK = 3.5
MOST_INTERVALS = 6
NICE = (1, 2, 2.5, 5, 10)
"""Leading digits of the step between ticks."""
SUFFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
PLAIN_BELOW = 10_000
HEADROOM = 1.05
"""By how much an axis exceeds the highest value, so that its line is not cut off."""
ROUNDING = 1e-9
"""Steps by which a tick at the very end may seem to lie beyond it."""
UNDER_LABEL = 6
"""Between the label of the horizontal axis and the edge of the drawing."""


@dataclass(frozen=True)
class Scale:
    """An axis: the values that it shows, and their positions in the drawing."""

    low: float
    high: float
    start: float
    end: float
    whole: bool = False
    """Whether values are integers only."""

    def at(self, values: Floats) -> Floats:
        """The positions of values."""
        span = (self.high - self.low) or 1.0
        return self.start + (values - self.low) / span * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Evenly spaced round values, at most seven."""
        step = self._step()
        first, last = math.ceil(self.low / step), math.floor(self.high / step + ROUNDING)
        return [number * step for number in range(first, last + 1)]

    def _step(self) -> float:
        least = ((self.high - self.low) or 1.0) / MOST_INTERVALS
        power = 10.0 ** math.floor(math.log10(least))
        steps = (nice * power for nice in NICE)
        return next(s for s in steps if s >= least and not (self.whole and s % 1))


def horizontal(low: float, high: float, *, whole: bool = False) -> Scale:
    """From left to right, with exactly these ends."""
    return Scale(low, high, LEFT, RIGHT, whole)


def upward(high: float, *, whole: bool = False) -> Scale:
    """From 0 at the bottom to slightly above ``high``."""
    return Scale(0, high * HEADROOM or 1, BOTTOM, TOP, whole)


def steps(x: Scale, y: Scale, edges: Floats, values: Floats, colour: str) -> str:
    """A histogram: the value of each bin between its edges, (bins,) and (bins + 1,)."""
    xs, ys, ground = x.at(edges), y.at(values), y.start
    up_and_on = (f"V{top:.1f}H{right:.1f}" for top, right in zip(ys, xs[1:], strict=True))
    outline = f"M{xs[0]:.1f} {ground}{''.join(up_and_on)}V{ground}"
    return _area(f"{outline}Z", colour) + _stroke(outline, colour)


def curve(x: Scale, y: Scale, at: Floats, values: Floats, colour: str) -> str:
    """Straight lines between values, all (values,)."""
    return _stroke("M" + "L".join(_points(x.at(at), y.at(values))), colour)


def band(x: Scale, y: Scale, at: Floats, low: Floats, high: Floats, colour: str) -> str:
    """The area between two curves, all (values,)."""
    there = _points(x.at(at), y.at(high))
    back = _points(x.at(at[::-1]), y.at(low[::-1]))
    return _area("M" + "L".join([*there, *back]) + "Z", colour)


def chart(x: Scale, y: Scale, label: str, drawn: Iterable[str]) -> str:
    """The whole drawing: ticks and grid, what is drawn, and the label of the horizontal axis."""
    grid = [_across(at, text) for at, text in _labelled(y)]
    below = [_below(at, text) for at, text in _labelled(x)]
    middle = (LEFT + RIGHT) / 2
    return "".join(
        (
            f'<svg aria-hidden="true" viewBox="0 0 {WIDTH} {HEIGHT}">',
            f'<g font-size="{LETTER}" fill="var(--ink)" stroke-width=".8">',
            *grid,
            *below,
            f'<path d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}" stroke="var(--faint)" fill="none"/>',
            f'<text x="{middle}" y="{HEIGHT - UNDER_LABEL}" text-anchor="middle">{label}</text>',
            "</g>",
            *drawn,
            "</svg>",
        )
    )


def _labelled(scale: Scale) -> list[tuple[float, str]]:
    ticks = scale.ticks()
    places = [float(at) for at in scale.at(np.array(ticks, np.float64))]
    return list(zip(places, labels(ticks), strict=True))


def labels(ticks: Sequence[float]) -> list[str]:
    """All in one unit, with as many decimals as the finest needs: ``0``, ``0.5``, ``1.5M``."""
    largest = max(map(abs, ticks), default=0)
    fitting = (pair for pair in SUFFIXES if largest >= max(pair[0], PLAIN_BELOW))
    unit, suffix = next(fitting, (1, ""))
    scaled = [tick / unit for tick in ticks]
    decimals = max(len(f"{value:.6g}".partition(".")[2]) for value in scaled) if scaled else 0
    return [f"{value:.{decimals}f}{suffix if value else ''}" for value in scaled]


def _points(xs: Floats, ys: Floats) -> list[str]:
    return [f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True)]


def _across(at: float, text: str) -> str:
    line = f'<path d="M{LEFT - TICK} {at:.1f}H{RIGHT}" stroke="var(--faint)" stroke-width=".4"/>'
    where = f'x="{LEFT - TICK - 2}" y="{at + LETTER / 3:.1f}" text-anchor="end"'
    return f"{line}<text {where}>{text}</text>"


def _below(at: float, text: str) -> str:
    line = f'<path d="M{at:.1f} {BOTTOM}v{TICK}" stroke="var(--faint)"/>'
    where = f'x="{at:.1f}" y="{BOTTOM + TICK + LETTER}" text-anchor="middle"'
    return f"{line}<text {where}>{text}</text>"


def _area(outline: str, colour: str) -> str:
    return f'<path d="{outline}" fill="{colour}" fill-opacity=".25"/>'


def _stroke(outline: str, colour: str) -> str:
    return f'<path d="{outline}" fill="none" stroke="{colour}" stroke-width="1.2"/>'
