"""Parts of a listing, each of which can be listed by itself, in any process.

Only for stores that list in the order of UTF-8 bytes, and only if all names are plain: any other
listing is refused (``OutOfOrderError``), and has to be made as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Protocol, runtime_checkable

from batchlight.host.abandoned import Pool
from batchlight.storage.base import INTERNAL, FileInfo, OutOfOrderError, escape_controls

REQUESTS_AT_ONCE = 16
CUT_AMONG = 1000
"""How many of the last keys of a part are searched for a place to cut it."""


@dataclass(frozen=True)
class KeyRange:
    """Keys of a store: those after one, up to and including another."""

    after: str = ""
    up_to: str | None = None
    """None: to the end."""

    def __contains__(self, key: str) -> bool:
        return self.after < key and (self.up_to is None or key <= self.up_to)

    def cut_at(self, keys: Sequence[str]) -> list[KeyRange]:
        """Its parts, in order. ``keys``: ascending; those outside the range have no effect."""
        ends = [key for key in keys if key in self and key != self.up_to]
        starts = [self.after, *ends]
        return [KeyRange(*pair) for pair in zip(starts, [*ends, self.up_to], strict=True)]


@dataclass(frozen=True)
class ListingPart:
    """The result of one request for a part of a listing."""

    files: list[FileInfo] = field(default_factory=list)
    """Like those of ``Storage.walk``."""
    first: str = ""
    """The first and the last key listed; empty if there are none."""
    last: str = ""
    keys: int = 0
    """How many were listed, whether of files or not."""
    listed: KeyRange = KeyRange()
    """The range that was listed completely."""
    rest: KeyRange | None = None
    """What is left of the requested range."""


@runtime_checkable
class ListsParts(Protocol):
    """A storage that may be able to list parts."""

    @property
    def in_order(self) -> bool:
        """Whether it is: only if known to list in the order of UTF-8 bytes."""

    def part(self, within: KeyRange, at_most: int) -> ListingPart:
        """List a range, or nearly the first ``at_most`` keys of it.

        Raises ``OutOfOrderError`` for what has to be listed as a whole: keys out of order, keys
        with control characters, folders that are the output of a run.
        """


def part_of(
    next_page: Callable[[], Sequence[FileInfo]],
    within: KeyRange,
    at_most: int,
    is_folder_mark: Callable[[FileInfo], bool],
) -> ListingPart:
    """List a range from the pages of a store, the first of which begins after ``within.after``."""
    found: list[FileInfo] = []
    for info in _each(next_page, within.after):
        if info.path not in within:
            break
        found.append(info)
        if len(found) > at_most:
            end, up_to = _last_cut(found)
            return _part(
                found[:end],
                KeyRange(within.after, up_to),
                KeyRange(up_to, within.up_to),
                is_folder_mark,
            )
    return _part(found, within, None, is_folder_mark)


def _each(next_page: Callable[[], Sequence[FileInfo]], last: str) -> Iterator[FileInfo]:
    """The files of all pages, after checking that each sorts after the one before."""
    while page := next_page():
        for info in page:
            if info.path <= last and not info.size and f"{info.path}/" > last:
                continue  # the mark of a folder, without the slash at the end of its key
            if info.path <= last or escape_controls(info.path) != info.path:
                raise OutOfOrderError(info.path)
            last = info.path
            if INTERNAL in last and INTERNAL in last.split("/"):
                raise OutOfOrderError(last)
            yield info


def _part(
    found: list[FileInfo],
    listed: KeyRange,
    rest: KeyRange | None,
    is_folder_mark: Callable[[FileInfo], bool],
) -> ListingPart:
    shown = [f for f in found if "/." not in f"/{f.path}"]
    empty = [f for f in shown if not f.size]
    marks = set[str]()
    if empty:  # a request for each
        with Pool(REQUESTS_AT_ONCE) as pool:
            found_marks = zip(empty, pool.map(is_folder_mark, empty), strict=True)
            marks = {file.path for file, is_mark in found_marks if is_mark}
    files = [f for f in shown if f.path not in marks]
    first, last = (found[0].path, found[-1].path) if found else ("", "")
    return ListingPart(files, first, last, len(found), listed, rest)


def _last_cut(found: Sequence[FileInfo]) -> tuple[int, str]:
    """Where a list can be cut: the number of files before the cut, and the key to cut at.

    Best between names that cannot share a stem, however they continue. The key is what both share
    plus one letter, so that the records of files that are gone stay with those of their neighbours.
    Raises ``OutOfOrderError`` if there is no such place.
    """
    second_best: tuple[int, str] | None = None
    for end in range(len(found) - 1, max(0, len(found) - CUT_AMONG), -1):
        before, after = found[end - 1].path, found[end].path
        up_to = after[: shared_letters(before, after) + 1]
        if up_to == after or up_to.rpartition("/")[2] in ("", ".", ".."):
            continue  # the client would take the latter for the folder
        if "." not in up_to.rpartition("/")[2]:
            return end, up_to
        if second_best is None and not after.startswith(before.rpartition(".")[0] + "."):
            second_best = end, up_to
    if second_best is None:
        raise OutOfOrderError(found[-1].path)
    return second_best


def shared_letters(one: str, other: str) -> int:
    """Length of the common prefix of two keys."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
