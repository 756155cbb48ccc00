"""An image and its enhancement mixed, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from batchlight.images.mixing import mix

Pair = tuple[npt.NDArray[Any], npt.NDArray[Any]]


def pairs(shape: tuple[int, ...], dtype: type) -> st.SearchStrategy[Pair]:
    one = hnp.arrays(dtype, shape)
    return st.tuples(one, one)


SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9)) | st.tuples(
    st.integers(1, 9), st.integers(1, 9), st.just(3)
)
PAIRS = st.tuples(SHAPES, st.sampled_from([np.uint8, np.uint16])).flatmap(lambda s: pairs(*s))


@given(PAIRS, st.floats(0, 1))
def test_equals_the_formula(pair: Pair, strength: float) -> None:
    before, after = pair
    exact = before + strength * (after.astype(float) - before)
    mixed = mix(before, after, strength)
    assert mixed.dtype == before.dtype
    assert np.array_equal(mixed, np.rint(exact))


@given(PAIRS)
def test_the_ends_are_the_image_and_the_method(pair: Pair) -> None:
    assert np.array_equal(mix(*pair, 0), pair[0])
    assert mix(*pair, 1) is pair[1]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_change_there_is(dtype: type) -> None:
    top = np.iinfo(dtype).max
    ramp: npt.NDArray[Any] = np.arange(top + 1, dtype=dtype)[None]
    for before, after in ((ramp, ramp[:, ::-1].copy()), (ramp, ramp * 0), (ramp * 0, ramp)):
        exact = before + 0.5 * (after.astype(float) - before)
        assert np.array_equal(mix(before, after, 0.5), np.rint(exact))
