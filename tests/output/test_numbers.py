"""Sets of batch numbers hold what they were made of."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from batchlight.output.numbers import NumberSet

some_numbers = st.lists(st.integers(0, 40))


@given(numbers=some_numbers, first=st.integers(0, 40), length=st.integers(0, 20))
def test_a_set_of_numbers_is_one(numbers: list[int], first: int, length: int) -> None:
    found, expected = NumberSet.of(numbers), set(numbers)
    assert list(found) == sorted(expected)
    assert len(found) == len(expected)
    assert set(found) == expected
    assert all((n in found) == (n in expected) for n in range(-1, 43))
    within = found.within(range(first, first + length))
    assert [n for some in within for n in some] == sorted(
        expected & {*range(first, first + length)}
    )


@given(numbers=some_numbers, others=some_numbers)
def test_ranges_become_one_set(numbers: list[int], others: list[int]) -> None:
    ranges = [*NumberSet.of(numbers).ranges, *NumberSet.of(others).ranges, range(3, 3)]
    assert NumberSet.of_ranges(ranges) == NumberSet.of([*numbers, *others])


def test_a_million_that_follow_each_other_take_no_room() -> None:
    found = NumberSet.of(range(10**6))
    assert sys.getsizeof(found.firsts) + sys.getsizeof(found.lasts) < 200
    assert len(found) == 10**6
