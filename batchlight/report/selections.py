"""Which images a report shows: a fixed sample of all, and the extremes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchlight.config import METHODS
from batchlight.output.recordfiles import read_records
from batchlight.storage import Storage

SAMPLED = 12
EXTREMES = 4

SHOWN = (
    *("input", "method", "status", "output", "batch", "width", "height"),
    *("input_sha256", "output_sha256", "atmospheric_light"),
    *("luminance_before", "luminance_after", "clipped_fraction"),
    *("container", "input_bytes", "output_bytes", "member_offset", "output_offset"),
)
"""Columns needed for showing an image."""

_CHANGE = "change"


@dataclass(frozen=True)
class _Wish:
    """Which rows to select: those of one status, the first in some order."""

    status: str
    key: str
    order: str
    count: int = EXTREMES
    beyond: float | None = None
    """Only rows with a smaller key, or a larger one if the largest come first."""

    def first(self, rows: pa.Table) -> pa.Table:
        """The first of ``rows`` (``SHOWN`` and the change), enough for ``count`` images."""
        rows = rows.filter(
            pc.and_(pc.equal(rows["status"], self.status), pc.is_valid(rows[self.key]))
        )
        if self.beyond is not None:
            is_beyond = pc.less if self.order == "ascending" else pc.greater
            rows = rows.filter(is_beyond(rows[self.key], self.beyond))
        if not rows.num_rows:  # PyArrow up to 22 cannot select from an empty table
            return rows
        keys = [(self.key, self.order), ("input", "ascending"), ("method", "ascending")]
        return rows.take(pc.select_k_unstable(rows, self.count * len(METHODS), keys))


_WISHES: Mapping[str, _Wish] = {
    # An image's digest is as good as a random number, and always the same.
    "sample": _Wish("ok", "input_sha256", "ascending", SAMPLED),
    "darkest": _Wish("ok", "luminance_before", "ascending"),
    "changed most": _Wish("ok", _CHANGE, "descending"),
    "most clipped": _Wish("ok", "clipped_fraction", "descending", beyond=0.001),
    "still dark": _Wish("ok", "luminance_after", "ascending", beyond=0.3),
    "became darker": _Wish("ok", _CHANGE, "ascending", beyond=-0.005),  # visibly
    "left as it is": _Wish("skipped", "luminance_before", "ascending"),
}
"""By the word that gives the reason."""

REASONS = tuple(_WISHES)
IMAGES_AT_MOST = sum(wish.count for wish in _WISHES.values())
"""Of a report, besides those that failed."""


@dataclass(frozen=True)
class Selections:
    """The selected rows among all that were added so far."""

    best: Mapping[str, pa.Table] = field(default_factory=dict)

    def added(self, table: pa.Table) -> Selections:
        """With the rows of one more file added; the order of files makes no difference."""
        change = pc.subtract(table["luminance_after"], table["luminance_before"])
        rows = table.select(SHOWN).append_column(_CHANGE, change)
        best = dict(self.best)
        for reason, wish in _WISHES.items():
            both = [best[reason], rows] if reason in best else [rows]
            best[reason] = wish.first(pa.concat_tables(both, promote_options="default"))
        return Selections(best)

    @property
    def reasons(self) -> Mapping[str, Sequence[str]]:
        """The images to show, each with all its reasons."""
        found: dict[str, list[str]] = {}
        for reason, rows in self.best.items():
            images = dict.fromkeys(rows["input"].to_pylist())
            for image in list(images)[: _WISHES[reason].count]:
                found.setdefault(image, []).append(reason)
        return found

    def rows(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """The rows of the images to show; complete if there is only one method."""
        found: dict[str, dict[str, Mapping[str, Any]]] = {image: {} for image in self.reasons}
        for rows in self.best.values():
            for row in rows.select(SHOWN).to_pylist():
                if row["input"] in found:
                    found[row["input"]][row["method"]] = row
        return {image: list(rows.values()) for image, rows in found.items()}


def rows_of(
    storage: Storage, paths: Sequence[str], images: Sequence[str]
) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """The rows of some images, of all methods, ordered by method name.

    A method that was run later has its rows in other files. Raises ``StorageError``.
    """
    wanted = pa.array(images, pa.string())
    found: dict[str, list[Mapping[str, Any]]] = {image: [] for image in images}
    for path in paths:
        table = read_records(storage, path, SHOWN)
        for row in table.filter(pc.is_in(table["input"], wanted)).to_pylist():
            found[row["input"]].append(row)
    return {
        image: sorted(rows, key=lambda row: _position(row["method"]))
        for image, rows in found.items()
    }


def _position(method: str) -> int:
    """Classical first; methods of later versions last."""
    return METHODS.index(method) if method in METHODS else len(METHODS)
