"""The curves of a report, as SVG that takes its colours and its font from the page.

The page also says in words what each shows, for screen readers.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from batchlight.report.bins import Bins, Integers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

SIZE_INCHES = (4.6, 2.2)
AXES = (0.1, 0.2, 0.87, 0.75)
"""Left, bottom, width and height of what lies between the axes, as shares of the size."""

# Colours that only stand for those of the page, which has others by night.
_COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--faint)",
    "#030303": "var(--before)",
    "#040404": "var(--after)",
}
INK, FAINT, BEFORE, AFTER = _COLOURS

_STYLE: Mapping[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, which can be found and copied
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": FAINT,
    "grid.linewidth": 0.4,
    "axes.axisbelow": True,
}

_FOR_A_PAGE = tuple(
    (re.compile(pattern, re.DOTALL), replacement)
    for pattern, replacement in (
        ("<svg [^>]*viewBox", '<svg aria-hidden="true" viewBox'),
        (r'(viewBox="[^"]*")[^>]*>', r"\1>"),
        ("<metadata>.*?</metadata>|<style.*?</style>", ""),
        ('<g id="[^"]*">', "<g>"),
        ("font-family: [^;]*; ", ""),
        (r"\s*\n\s*", " "),
    )
)
"""What a page needs no more, or has of its own."""

_UNITS = ((2 * 86_400, "days", 86_400), (2 * 3600, "hours", 3600), (120, "minutes", 60))


def luminance(name: str, before: Integers, after: Integers) -> str:
    """Two histograms of equal bins over 0..1: how many images of a method are how bright."""

    def draw(axes: Axes) -> None:
        edges = np.linspace(0, 1, len(before) + 1)
        for counts, colour in ((before, BEFORE), (after, AFTER)):
            axes.stairs(counts, edges, fill=True, alpha=0.25, color=colour)
            axes.stairs(counts, edges, color=colour, linewidth=1.2)
        axes.set_xlim(0, 1)
        axes.set_ylim(0)
        _count(axes.yaxis)
        axes.set_xlabel("mean luminance, 0 to 1")

    return _svg(f"luminance {name}", draw)


def light(bins: Bins) -> str:
    """The atmospheric light of batch after batch, 0..255; of many at once, mean and range."""

    def draw(axes: Axes) -> None:
        middle = (bins.index + 0.5) * bins.width - 0.5
        if bins.width > 1:
            axes.fill_between(middle, bins.low, bins.high, color=AFTER, alpha=0.25, linewidth=0)
        single = len(middle) == 1
        axes.plot(
            middle,
            bins.mean,
            color=AFTER,
            linewidth=1.2,
            marker="o" if single else "",
            clip_on=False,
        )
        axes.set_ylim(0, 255)
        axes.set_xlabel("batch")
        if single:
            axes.set_xticks(middle)
        else:
            _count(axes.xaxis)

    return _svg("light", draw)


def pace(bins: Bins) -> str:
    """Images per second, from the first that a run finished to the last; bins of milliseconds."""
    index = np.arange(bins.index[0], bins.index[-1] + 1)
    per_second = np.zeros(len(index))
    width_s = bins.width / 1000
    per_second[bins.index - bins.index[0]] = bins.count / width_s
    lasted = len(index) * width_s
    unit, seconds = next(((u, s) for least, u, s in _UNITS if lasted >= least), ("seconds", 1))

    def draw(axes: Axes) -> None:
        edges = np.arange(len(index) + 1) * width_s / seconds
        axes.stairs(per_second, edges, fill=True, alpha=0.25, color=AFTER)
        axes.stairs(per_second, edges, color=AFTER, linewidth=1.2)
        axes.set_xlim(0, edges[-1])
        axes.set_ylim(0)
        axes.set_xlabel(f"{unit} since its first image")

    return _svg("pace", draw)


def _count(axis: Axis) -> None:
    """There are no halves of images or batches."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins="auto", integer=True))


@contextmanager
def _only_errors(logger: logging.Logger) -> Iterator[None]:
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _svg(name: str, draw: Callable[[Axes], None]) -> str:
    """``name`` keeps the ids of charts on one page apart; equal records make equal charts."""
    with _only_errors(logging.getLogger("matplotlib")):
        # It warns where it cannot keep its caches; readers of the page need not know.
        import matplotlib as mpl  # late: it takes a third of a second
        from matplotlib.figure import Figure

    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=SIZE_INCHES)
        draw(figure.add_axes(AXES))
        buffer = io.StringIO()
        figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for pattern, replacement in _FOR_A_PAGE:
        text = pattern.sub(replacement, text)
    for placeholder, colour in _COLOURS.items():
        text = text.replace(placeholder, colour)
    return text
