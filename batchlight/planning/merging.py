"""A listing merged with the earlier records, path by path.

Usually either most images have no records, or all have some. So the listing is processed many
images at a time, and those that need no closer look are passed on together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from operator import attrgetter
from typing import NamedTuple

from batchlight.config import Method
from batchlight.images.names import is_image_name
from batchlight.output.earlier import Earlier
from batchlight.output.inputs import Input

AT_ONCE = 1024
"""How many images of a listing are processed together."""

_NOTHING: Mapping[Method, Earlier] = {}
_NO_ROWS: tuple[str | None, Iterable[Earlier]] = (None, ())


class Entry(NamedTuple):
    """One path of the listing, of the earlier records, or of both."""

    path: str
    image: Input | None
    """None if it is gone."""
    rows: Mapping[Method, Earlier]

    def entries(self) -> Iterator[Entry]:
        """Just this one."""
        return iter((self,))


class NewImages(NamedTuple):
    """Adjacent images in the listing without records: image files with usable names."""

    images: Sequence[Input]

    def entries(self) -> Iterator[Entry]:
        """One by one."""
        return map(_new, self.images)


def side_by_side(
    images: Iterable[Input], earlier: Iterable[Earlier]
) -> Iterator[Entry | NewImages]:
    """Merge two streams that are both in key order."""
    rows_of = groupby(earlier, key=attrgetter("key"))
    key, rows = next(rows_of, _NO_ROWS)
    for listed in _last_of_each_key(images):
        if key is None or listed[-1].key < key:
            yield from _without_rows(listed)
            continue
        for image in listed:
            while key is not None and key < image.key:
                yield _gone(rows)
                key, rows = next(rows_of, _NO_ROWS)
            if key == image.key:
                yield Entry(image.path, image, {row.method: row for row in rows})
                key, rows = next(rows_of, _NO_ROWS)
            else:
                yield _new(image)
    while key is not None:
        yield _gone(rows)
        key, rows = next(rows_of, _NO_ROWS)


def _new(image: Input) -> Entry:
    return Entry(image.path, image, _NOTHING)


def _gone(rows: Iterable[Earlier]) -> Entry:
    """The rows of an input that is not listed."""
    found = {row.method: row for row in rows}
    return Entry(next(iter(found.values())).path, None, found)


def _without_rows(listed: Iterable[Input]) -> Iterator[Entry | NewImages]:
    for is_plain, images in groupby(listed, key=_is_plain):
        if is_plain:
            yield NewImages(list(images))
        else:
            yield from map(_new, images)


def _is_plain(item: Input) -> bool:
    return not item.container and item.defect is None and is_image_name(item.path)


def _last_of_each_key(images: Iterable[Input]) -> Iterator[list[Input]]:
    """About ``AT_ONCE`` items at a time. Two odd names may be escaped to the same path."""
    listed = iter(images)
    last: list[Input] = []
    while block := list(islice(listed, AT_ONCE)):
        block = last + block
        keys = [item.key for item in block]
        found = [
            item for item, key, after in zip(block, keys, keys[1:], strict=False) if key != after
        ]
        last = block[-1:]
        if found:
            yield found
    if last:
        yield last
