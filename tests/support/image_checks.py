"""Assertions of tests of image files."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import ImageOps

from batchlight.errors import ImageError
from batchlight.images.image import Decoded
from batchlight.images.pixels import Pixels
from tests.support.image_files import (
    FORMATS,
    opened,
    patches,
    png_with_late_metadata,
    saved,
    with_everything,
)

SMALL = {format: saved(patches(), format.upper()) for format in FORMATS}

SMALL["png"] = png_with_late_metadata()

SMALL["jpeg"] = with_everything("jpeg")


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(ImageError) as caught:
        action()
    assert caught.value.message
    return caught.value.code.value


def assert_holds(decoded: Decoded, array: Pixels) -> None:
    """Pixels, alpha, depth and number of channels are those of the array."""
    planes = array[:, :, None] if array.ndim == 2 else array
    colours = planes.shape[2] - (planes.shape[2] in (2, 4))
    expected = planes[:, :, 0] if colours == 1 else planes[:, :, 2::-1]
    np.testing.assert_array_equal(decoded.pixels, expected)
    assert decoded.pixels.dtype == array.dtype
    assert (decoded.channels, decoded.bit_depth) == (planes.shape[2], array.itemsize * 8)
    assert (decoded.alpha is not None) == (planes.shape[2] in (2, 4))
    if decoded.alpha is not None:
        np.testing.assert_array_equal(decoded.alpha, planes[:, :, -1])


def assert_looks_like(out: bytes, source: bytes) -> None:
    """A viewer that respects the orientation shows the same picture."""
    shown, expected = (
        np.asarray(ImageOps.exif_transpose(opened(data)).convert("RGB"), dtype=np.int16)
        for data in (out, source)
    )
    assert shown.shape == expected.shape
    assert np.abs(shown - expected).mean() < 8
