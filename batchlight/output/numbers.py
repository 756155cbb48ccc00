"""Sets of batch numbers, most of them consecutive."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class NumberSet(Set[int]):
    """Ascending, disjoint ranges, ends included; its size grows with gaps, not with numbers."""

    firsts: tuple[int, ...] = ()
    lasts: tuple[int, ...] = ()

    @classmethod
    def of(cls, numbers: Iterable[int]) -> NumberSet:
        """From numbers in any order."""
        found = np.unique(np.fromiter(numbers, np.int64))
        gaps = np.flatnonzero(np.diff(found) > 1)
        firsts = found[np.concatenate([[0], gaps + 1])] if len(found) else found
        lasts = found[np.concatenate([gaps, [len(found) - 1]])] if len(found) else found
        return cls(tuple(firsts.tolist()), tuple(lasts.tolist()))

    @classmethod
    def of_ranges(cls, ranges: Iterable[range]) -> NumberSet:
        """From ranges in any order, which may overlap."""
        firsts: list[int] = []
        lasts: list[int] = []
        for some in sorted(filter(None, ranges), key=lambda r: r.start):
            if lasts and some.start <= lasts[-1] + 1:
                lasts[-1] = max(lasts[-1], some.stop - 1)
            else:
                firsts.append(some.start)
                lasts.append(some.stop - 1)
        return cls(tuple(firsts), tuple(lasts))

    @property
    def ranges(self) -> list[range]:
        """The ranges that it consists of."""
        return [range(a, b + 1) for a, b in zip(self.firsts, self.lasts, strict=True)]

    def within(self, some: range) -> list[range]:
        """The parts of it that lie in a range."""
        overlaps = (range(max(r.start, some.start), min(r.stop, some.stop)) for r in self.ranges)
        return [found for found in overlaps if found]

    def __contains__(self, number: object) -> bool:
        if not isinstance(number, int):
            return False
        at = bisect_right(self.firsts, number) - 1
        return at >= 0 and number <= self.lasts[at]

    def __iter__(self) -> Iterator[int]:
        for some in self.ranges:
            yield from some

    def __len__(self) -> int:
        return sum(map(len, self.ranges))
