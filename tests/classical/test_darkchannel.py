"""The scan against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from batchlight.classical.darkchannel import HAZIEST, scan
from batchlight.images.pixels import Pixels
from tests.support.dark_channel import definition
from tests.support.helpers import dark_image


def assert_as_defined(image: Pixels, window: int) -> None:
    found, expected = scan(image, window), definition(image, window)
    assert found.own is not None
    assert expected.own is not None
    np.testing.assert_array_equal(found.own, expected.own)
    assert found.own.dtype == image.dtype
    assert found.darkest == expected.darkest
    np.testing.assert_array_equal(found.sums, expected.sums)
    spared = scan(image, window, keep_own=False)
    assert (spared.own, spared.darkest) == (None, expected.darkest)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("window", [1, 2, 7, 20, 130])
def test_a_picture_with_many_haziest_pixels(window: int, channels: int, dtype: type) -> None:
    image = dark_image(window, 60, 90, channels, dtype)
    assert HAZIEST * image.shape[0] * image.shape[1] > 5
    assert_as_defined(image, window)


@settings(max_examples=100)
@given(
    image=hnp.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        st.tuples(st.integers(1, 14), st.integers(1, 80))
        | st.tuples(st.integers(1, 9), st.integers(1, 70), st.just(3)),
        elements=st.integers(0, 4) | st.integers(0, 255),
    ),
    window=st.integers(1, 11),
)
def test_any_image_and_window(image: Pixels, window: int) -> None:
    assert_as_defined(image, window)
