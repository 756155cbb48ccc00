"""A listing and the earlier records side by side, path by path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from batchlight.config import Method
from batchlight.output.earlier import Earlier
from batchlight.output.inputs import Input

_NOTHING: Mapping[Method, Earlier] = {}
_NO_ROWS: tuple[str | None, Iterable[Earlier]] = (None, ())


class Entry(NamedTuple):
    """One path of the listing, of the earlier records, or of both."""

    path: str
    image: Input | None
    """None if it is gone."""
    rows: Mapping[Method, Earlier]


def side_by_side(images: Iterable[Input], earlier: Iterable[Earlier]) -> Iterator[Entry]:
    """Merge two streams that are both in the order of their keys."""
    rows_of = groupby(earlier, key=attrgetter("key"))
    key, rows = next(rows_of, _NO_ROWS)
    for image in _last_of_each_key(images):
        while key is not None and key < image.key:
            yield _gone(rows)
            key, rows = next(rows_of, _NO_ROWS)
        if key == image.key:
            yield Entry(image.path, image, {row.method: row for row in rows})
            key, rows = next(rows_of, _NO_ROWS)
        else:
            yield Entry(image.path, image, _NOTHING)
    while key is not None:
        yield _gone(rows)
        key, rows = next(rows_of, _NO_ROWS)


def _gone(rows: Iterable[Earlier]) -> Entry:
    """The rows of an input that is not listed."""
    found = {row.method: row for row in rows}
    return Entry(next(iter(found.values())).path, None, found)


def _last_of_each_key(images: Iterable[Input]) -> Iterator[Input]:
    """Two odd names may be shown as the same path."""
    found: Input | None = None
    for image in images:
        if found is not None and found.key != image.key:
            yield found
        found = image
    if found is not None:
        yield found
