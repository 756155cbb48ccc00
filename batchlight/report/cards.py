"""The images that a report shows, each with its states side by side: before, and each method's."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from batchlight.report.pictures import Picture, PictureMaker
from batchlight.storage import Location

BEFORE = "before"
OK = "ok"


@dataclass(frozen=True)
class State:
    """One state of an image: the original, or the result of a method."""

    name: str
    picture: Picture
    link: str
    """Path of its file, relative to the report; empty if no browser could open it."""
    luminance: float | None = None
    clipped: float | None = None
    status: str = OK

    @property
    def facts(self) -> str:
        """The recorded facts about it; records of other versions may lack some."""
        return " · ".join(
            text.format(value)
            for text, value in (
                ("luminance {:.2f}", self.luminance),
                ("clipped {:.1%}", self.clipped),
            )
            if value is not None
        )


@dataclass(frozen=True)
class Card:
    """One image."""

    name: str
    reasons: Sequence[str]
    width: int | None
    height: int | None
    before: State
    after: Sequence[State]
    """By method; without those that have no output."""

    @property
    def states(self) -> Sequence[State]:
        """All states, the original first."""
        return [self.before, *self.after]

    @property
    def seen(self) -> Sequence[State]:
        """The states with a picture."""
        return [state for state in self.states if state.picture.uri]

    @property
    def unseen(self) -> Sequence[State]:
        """The states without a picture."""
        return [state for state in self.states if not state.picture.uri]


class FileLinks:
    """Links from the report to the files that it shows."""

    def __init__(self, output: Location) -> None:
        self._output = output

    def to_result(self, path: str) -> str:
        """Relative, so that an output can be moved; it can never name another host or scheme."""
        return "./" + quote(path)

    def to_original(self, place: Location | None) -> str:
        """A link if both are local."""
        if place is None or place.remote or self._output.remote:
            return ""
        return quote(os.path.relpath(place.path, self._output.path))


def make_cards(
    reasons: Mapping[str, Sequence[str]],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    maker: PictureMaker,
    links: FileLinks,
) -> Sequence[Card]:
    """``reasons`` and ``rows``: for each image."""
    return [_card(name, why, rows[name], maker, links) for name, why in reasons.items()]


def pictures_of(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> int:
    """How many pictures ``make_cards`` will make."""
    return sum(1 + sum(row["status"] == OK for row in some) for some in rows.values())


def _card(
    name: str,
    reasons: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    maker: PictureMaker,
    links: FileLinks,
) -> Card:
    first = rows[0]
    before = State(
        BEFORE,
        maker.original(first),
        links.to_original(maker.place_of(first)),
        first["luminance_before"],
    )
    after = [
        State(
            row["method"],
            # An image that is not dark was copied, and looks the same.
            maker.result(row) if row["status"] == OK else Picture(),
            links.to_result(row["output"]),
            row["luminance_after"],
            row["clipped_fraction"],
            row["status"],
        )
        for row in rows
        if row["output"] is not None
    ]
    return Card(name, reasons, first["width"], first["height"], before, after)
