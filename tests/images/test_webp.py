"""WebP: lossless stays lossless, lossy lossy."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.support.image_checks import assert_holds
from tests.support.image_files import again, read, samples, saved


@pytest.mark.parametrize("channels", [3, 4])
def test_lossless_webp_stays_lossless(channels: int) -> None:
    array = samples(channels)
    if channels == 4:
        array[:, :4, 3] = 0  # the colours under these pixels are data, too
    out = again(saved(Image.fromarray(array), "WEBP", lossless=True, exact=True))
    assert_holds(read(out), array)
    assert read(out).header.lossless
    assert b"VP8L" in out


@pytest.mark.parametrize("channels", [3, 4])
def test_lossy_webp_stays_lossy(channels: int) -> None:
    source = saved(Image.fromarray(samples(channels)), "WEBP", quality=80)
    after = read(again(source))
    assert not read(source).header.lossless
    assert not after.header.lossless
    if channels == 4:
        np.testing.assert_array_equal(after.alpha, samples(4)[:, :, 3])
