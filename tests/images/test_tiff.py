"""TIFF: every layout, kinds of alpha, orientation, and tags."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from batchlight.config import Format
from batchlight.images.pixels import Pixels
from tests.support.image_checks import assert_holds, assert_looks_like, refusal
from tests.support.image_files import (
    EXTRA_SAMPLES,
    ICC,
    ORIENTATION,
    TARGETS,
    XMP,
    again,
    opened,
    patches,
    png,
    read,
    samples,
    saved,
    tiff,
)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("channels", "alpha"), [(1, None), (3, None), (4, "unassalpha")])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"byteorder": ">"}, {"bigtiff": True}])
def test_tiff_keeps_every_sample(
    channels: int, alpha: str | None, dtype: type, layout: dict[str, Any]
) -> None:
    array = samples(channels, dtype)
    out = again(tiff(array, alpha, **layout))
    assert_holds(read(out), array)
    with tifffile.TiffFile(io.BytesIO(out)) as file:  # another reader, and the kind of alpha
        [page] = file.pages
        assert isinstance(page, tifffile.TiffPage)
        tag = page.tags.get("ExtraSamples")
        assert (tag.value[0].name.lower() if tag else None) == alpha
        assert page.shape == array.shape
        assert page.dtype == array.dtype


def test_a_tiff_that_does_not_say_what_its_alpha_is_does_not_say_so_after() -> None:
    source = cv2.imencode(".tiff", samples(4))[1].tobytes()
    assert read(source).channels == read(again(source)).channels == 4
    assert EXTRA_SAMPLES not in opened(again(source)).getexif()
    assert opened(again(png(samples(4)), "tiff")).getexif()[EXTRA_SAMPLES] == 2  # unassociated


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_premultiplied_alpha_is_unsupported(dtype: type) -> None:
    assert refusal(lambda: read(tiff(samples(4, dtype), "assocalpha"))) == "unsupported"


@pytest.mark.parametrize("alpha", [None, "unassalpha"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_of_every_kind_keeps_its_orientation(
    orientation: int, dtype: type, alpha: str | None
) -> None:
    array: Pixels = np.full((32, 48, 4), np.iinfo(dtype).max, dtype)
    array[:, :, :3] = np.asarray(patches())
    array = array if alpha else array[:, :, :3]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    turned = np.asarray(ImageOps.exif_transpose(opened(saved(patches(), "PNG", exif=exif))))
    source = tiff(array, alpha, extratags=[(274, 3, 1, orientation, True)])
    out = again(source)
    assert read(out).header.orientation == orientation
    assert_holds(read(out), array)
    np.testing.assert_array_equal(read(again(source, "png")).pixels[:, :, ::-1], turned)


@pytest.mark.parametrize("target", ["tiff", "png", "jpeg"])
def test_xmp_and_icc_leave_tiff(target: Format) -> None:
    tags = [(700, 1, len(XMP), XMP, True), (34675, 7, len(ICC), ICC, True)]
    image = opened(again(tiff(samples(3), extratags=tags), target))
    assert image.info["icc_profile"] == ICC
    assert image.info["xmp"] == XMP


def test_xmp_does_not_turn_an_upright_picture() -> None:
    xmp = b'<x:xmpmeta tiff:Orientation="6"/>'
    tags = [(274, 3, 1, 6, True), (700, 1, len(xmp), xmp, True)]
    source = tiff(np.asarray(patches()), extratags=tags)
    for target in TARGETS:
        assert_looks_like(again(source, target), source)
