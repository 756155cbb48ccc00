"""What holds for all formats: pixels through real files; nothing is mocked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from batchlight.config import Format
from batchlight.images import codec
from batchlight.images.header import read_header
from batchlight.images.pixels import Pixels
from tests.support.image_checks import SMALL, assert_holds, refusal
from tests.support.image_files import (
    FORMATS,
    MAX_PIXELS,
    again,
    opened,
    patches,
    png,
    read,
    samples,
    saved,
    tiff,
)


@pytest.mark.parametrize(
    ("array", "target"),
    [
        *((samples(channels), "tiff") for channels in (1, 3, 4)),
        *((samples(channels, np.uint16), "tiff") for channels in (1, 3, 4)),
    ],
)
def test_lossless_formats_hand_pixels_to_each_other(array: Pixels, target: Format) -> None:
    there = again(png(array), target)
    assert_holds(read(there), array)
    assert_holds(read(again(there, "png")), array)


@pytest.mark.parametrize("format", FORMATS)
def test_gray_stays_gray(format: Format) -> None:
    source = saved(patches().convert("L"), format.upper())
    out = again(source)
    if opened(source).mode != "L":  # WebP has no gray, nor has Pillow's AVIF before 12.3
        assert opened(out).mode == "RGB"
        return
    assert read(source).channels == read(out).channels == 1
    assert opened(out).mode == "L"


def test_depth_is_that_of_the_type_never_of_the_values() -> None:
    dark = samples(3, np.uint16) % 256
    assert_holds(read(again(png(dark))), dark)
    assert_holds(read(again(tiff(dark))), dark)


@pytest.mark.parametrize("format", FORMATS)
def test_same_pixels_same_bytes(format: Format) -> None:
    source = saved(patches(), format.upper())
    assert again(source) == again(source)


@pytest.mark.parametrize(
    ("array", "target"),
    [
        *((samples(channels), "jpeg") for channels in (2, 4)),
        *((samples(1, np.uint16), target) for target in ("jpeg", "webp", "avif")),
        *((samples(4, np.uint16), target) for target in ("jpeg", "webp", "avif")),
        (samples(2), "tiff"),
    ],
)
def test_what_the_target_cannot_hold_is_unsupported(array: Pixels, target: Format) -> None:
    assert refusal(lambda: again(png(array), target)) == "unsupported"


def test_sizes_beyond_a_format_are_unsupported() -> None:
    assert refusal(lambda: again(png(samples(1, width=70_000)), "jpeg")) == "unsupported"
    assert refusal(lambda: again(png(samples(1, width=70_000)), "webp")) == "unsupported"


def test_pixels_of_another_size_than_the_header_says() -> None:
    header = read_header(SMALL["jpeg"], MAX_PIXELS)
    wider = replace(header, width=header.width + 1)
    assert refusal(lambda: codec.decode(SMALL["jpeg"], wider)) == "corrupt"
