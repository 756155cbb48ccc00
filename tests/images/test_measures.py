"""What is recorded of pixels, against the plain formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from batchlight.images.measures import is_flat, measure

BLUE, GREEN, RED = 0.114, 0.587, 0.299

shapes = st.tuples(st.integers(1, 9), st.integers(1, 9)) | st.tuples(
    st.integers(1, 9), st.integers(1, 9), st.just(3)
)
images = st.sampled_from([(np.uint8, 255), (np.uint16, 65535)]).flatmap(
    lambda kind: hnp.arrays(kind[0], shapes, elements=st.sampled_from([0, 1, 77, kind[1]]))
)


@given(images)
def test_equal_the_formulas(image: npt.NDArray[Any]) -> None:
    top = np.iinfo(image.dtype).max
    light = image / top if image.ndim == 2 else (image / top) @ (BLUE, GREEN, RED)
    brightness, clipped = measure(image)
    assert brightness == pytest.approx(light.mean())
    assert clipped == np.count_nonzero(image == top) / image.size
    assert is_flat(image) == (image == image[0, 0]).all()


@pytest.mark.parametrize(("dtype", "rows"), [(np.uint8, 600), (np.uint16, 66_000)])
def test_tall_white_images_overflow_nothing(dtype: type, rows: int) -> None:
    white: npt.NDArray[Any] = np.full((rows, 2, 3), np.iinfo(dtype).max, dtype)
    brightness, clipped = measure(white)
    assert brightness == pytest.approx(1)
    assert clipped == 1


def test_a_colour_is_as_flat_as_a_gray() -> None:
    assert is_flat(np.full((5, 4, 3), (2, 1, 0), np.uint8))


def test_one_other_sample_is_enough() -> None:
    image = np.full((5, 4, 3), 9, np.uint8)
    assert is_flat(image)
    image[4, 3, 2] = 8
    assert not is_flat(image)
