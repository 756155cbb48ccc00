"""The contact sheet: a few images, each enhanced with a few settings side by side, as one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, median

import numpy as np

from batchlight.errors import ImageError
from batchlight.images.pixels import Pixels
from batchlight.report.detail import Rectangle, distinguishing_part
from batchlight.report.pictures import ByteBudget, Picture, as_picture, middle, shrunk, upright
from batchlight.report.rendering import render
from batchlight.worker.image import Failure
from batchlight.worker.trial import TOO_LITTLE_MEMORY, Measured, Tried

SIDE = 720
"""Longer side in pixels of a whole picture, as seen when enlarged."""
DETAIL_WIDTH, DETAIL_HEIGHT = 320, 180
"""Size in pixels of the part shown at full resolution."""
DETAIL_QUALITIES = (95, 90, 80, 60, 40, 20)
"""WebP qualities, as for other pictures: higher, since noise is compared."""
PICTURES_BYTES = 2_100_000
"""Total for all pictures, before encoding as text, which adds a third."""


@dataclass(frozen=True, eq=False)
class Shot:
    """An image prepared for display: uint8, upright, gray or blue, green, red."""

    whole: Pixels
    """The whole image, shrunk."""
    detail: Pixels
    """The most telling part, at full resolution."""


@dataclass(frozen=True, eq=False)
class Cell:
    """The result of one setting for one image."""

    outcome: Measured | Failure
    shot: Shot | None

    @property
    def facts(self) -> str:
        """The facts for choosing a setting, or why there is no picture."""
        if isinstance(self.outcome, Failure):
            return f"{self.outcome.code}: {self.outcome.message}"
        return (
            f"luminance\N{NO-BREAK SPACE}{self.outcome.luminance:.2f} · "
            f"clipped\N{NO-BREAK SPACE}{self.outcome.clipped:.1%} · "
            f"{in_ms(self.outcome.ms_per_megapixel)}\N{NO-BREAK SPACE}ms/MP"
        )


@dataclass(frozen=True, eq=False)
class Row:
    """One image."""

    name: str
    width: int
    height: int
    """As stored, before any orientation."""
    luminance: float
    original: Shot
    cells: Sequence[Cell]
    """One for each setting."""

    @property
    def shots(self) -> list[Shot | None]:
        """The original's, and that of each cell."""
        return [self.original, *(cell.shot for cell in self.cells)]

    @property
    def facts(self) -> str:
        """Facts about the original."""
        return f"{self.width}×{self.height} · luminance {self.luminance:.2f}"


@dataclass(frozen=True)
class Comparison:
    """The results of a setting over all the images that it could process."""

    label: str
    """The options of a run, as typed in a shell; empty for the defaults."""
    method: str
    images: int
    failed: int
    luminance: float | None
    """The mean."""
    clipped: float | None
    """The mean."""
    ms_per_megapixel: float | None
    """The median."""

    @classmethod
    def of(cls, label: str, method: str, outcomes: Sequence[Measured | Failure]) -> Comparison:
        """Summarize the outcomes for all images."""
        done = [outcome for outcome in outcomes if isinstance(outcome, Measured)]
        return cls(
            label,
            method,
            len(outcomes),
            len(outcomes) - len(done),
            fmean(outcome.luminance for outcome in done) if done else None,
            fmean(outcome.clipped for outcome in done) if done else None,
            median(outcome.ms_per_megapixel for outcome in done) if done else None,
        )

    @property
    def title(self) -> str:
        """The label, or a word for the defaults."""
        return self.label or "defaults"

    @property
    def facts(self) -> tuple[str, str, str]:
        """Luminance, clipped, milliseconds per megapixel, as text."""
        if self.luminance is None or self.clipped is None or self.ms_per_megapixel is None:
            return ("", "", "")
        return (
            f"{self.luminance:.2f}",
            f"{self.clipped:.1%}",
            in_ms(self.ms_per_megapixel),
        )


@dataclass(frozen=True)
class UnreadableImage:
    """An image that could not be read or decoded."""

    name: str
    code: str
    reason: str


@dataclass(frozen=True, eq=False)
class Sheet:
    """Everything that a contact sheet shows."""

    input: str
    notes: Sequence[str]
    """How the images were chosen, and with which light they were enhanced."""
    settings: Sequence[Comparison]
    rows: Sequence[Row]
    failed: Sequence[UnreadableImage]

    def as_html(self) -> str:
        """A self-contained page."""
        shots = [shot for row in self.rows for shot in row.shots if shot is not None]
        budget = ByteBudget(PICTURES_BYTES, 2 * len(shots))
        return render(
            "sheet.html",
            ["page.css", "sheet.css"],
            ["page.js", "sheet.js"],
            sheet=self,
            rows=[_ShownRow(row, budget) for row in self.rows],
        )


class ThumbnailMaker:
    """Makes shots of one image, all of the same part."""

    def __init__(self, data: bytes, max_pixels: int) -> None:
        """``data``: the original. Raises ``ImageError`` and ``MemoryError``."""
        self._max_pixels = max_pixels
        pixels = upright(data, max_pixels)
        self._part = distinguishing_part(pixels, DETAIL_WIDTH, DETAIL_HEIGHT)
        self.original = _shot(pixels, self._part)

    def cell(self, tried: Tried | Failure) -> Cell:
        """The cell for what a run would write, decoded again."""
        if isinstance(tried, Failure):
            return Cell(tried, None)
        try:
            pixels = upright(tried.encoded, self._max_pixels)
        except ImageError as error:
            return Cell(Failure(error.code, error.message), None)
        except MemoryError:
            return Cell(TOO_LITTLE_MEMORY, None)
        return Cell(tried.measured, _shot(pixels, self._part))


def in_ms(milliseconds: float) -> str:
    """With at least two digits."""
    return f"{milliseconds:.1f}" if milliseconds < 10 else f"{milliseconds:,.0f}"


def _shot(pixels: Pixels, part: Rectangle) -> Shot:
    return Shot(shrunk(pixels, SIDE), np.ascontiguousarray(part.of(pixels)))


class _ShownShot:
    """The two pictures of a shot."""

    def __init__(self, shot: Shot | None, budget: ByteBudget, facts: str) -> None:
        self.facts = facts
        self.whole: Picture | None = None
        self.detail: Picture | None = None
        if shot is not None:
            self.whole = as_picture(shot.whole, budget.next())
            budget.used(self.whole)
            self.detail = as_picture(shot.detail, budget.next(), DETAIL_QUALITIES, middle)
            budget.used(self.detail)


class _ShownRow:
    """A row whose pictures are made only when the template asks for them."""

    def __init__(self, row: Row, budget: ByteBudget) -> None:
        self.row = row
        self._budget = budget

    @cached_property
    def shots(self) -> Sequence[_ShownShot]:
        """The shots, the original first."""
        return [
            _ShownShot(self.row.original, self._budget, self.row.facts),
            *(_ShownShot(cell.shot, self._budget, cell.facts) for cell in self.row.cells),
        ]
