"""EXIF, XMP, ICC from format to format; and orientation, which applies exactly once."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from batchlight.config import Format
from batchlight.images import exif, xmp
from batchlight.images.ifd import StructureError
from batchlight.images.metadata import Metadata
from batchlight.images.thumbnails import Picture
from tests.support.image_checks import assert_looks_like
from tests.support.image_files import (
    ICC,
    MAKE,
    ORIENTATION,
    TARGETS,
    XMP,
    again,
    opened,
    patches,
    saved,
    with_everything,
)


@pytest.mark.parametrize("target", ["jpeg", "png", "webp", "avif", "tiff"])
@pytest.mark.parametrize("source", ["jpeg", "png", "webp", "avif"])
def test_exif_xmp_and_icc_go_along(source: Format, target: Format) -> None:
    image = opened(again(with_everything(source), target))
    assert image.info["icc_profile"] == ICC
    assert image.info["xmp"] == XMP
    assert image.getexif()[MAKE] == "Lantern"


@pytest.mark.parametrize("target", ["jpeg", "png", "webp", "avif", "tiff"])
@pytest.mark.parametrize("source", ["jpeg", "png"])
def test_a_colour_profile_of_more_than_one_jpeg_segment(source: Format, target: Format) -> None:
    profile = ICC + bytes(range(256)) * 600
    out = again(with_everything(source, profile), target)
    assert opened(out).info["icc_profile"] == profile


@given(st.binary(max_size=80), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_any_exif_has_an_orientation(payload: bytes, start: bytes) -> None:
    metadata = Metadata(exif=start + payload, xmp=payload)
    assert 1 <= metadata.orientation <= 8
    upright = metadata.upright()
    assert upright.orientation == 1
    assert len(upright.exif or b"") == len(start + payload)
    with suppress(StructureError):
        block, _ = exif.with_thumbnail(start + payload, Picture(np.zeros((6, 9, 3), np.uint8)))
        assert block[:8] == (start + payload)[:8]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", ["jpeg", "png", "webp", "tiff", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_applies_exactly_once(source: Format, target: Format, orientation: int) -> None:
    block = Image.Exif()
    block[ORIENTATION] = orientation
    # 4:4:4, since the patches would bleed into each other in a turned block grid.
    options: dict[str, Any] = {"subsampling": "4:4:4"} if source in ("jpeg", "avif") else {}
    options |= {"lossless": True} if source == "webp" else {}
    data = saved(patches(), source.upper(), exif=block, **options)
    out = again(data, target, quality=100)
    assert_looks_like(out, data)
    if target == "avif" != source:  # no reader turns it by its boxes, nor by its tag
        assert b"irot" not in out
        assert b"imir" not in out
        assert opened(out).getexif().get(ORIENTATION, 1) == 1


@pytest.mark.parametrize("before", range(12))
def test_an_item_of_xmp_without_an_end_ends(before: int) -> None:
    packet = b"x" * before + b"<rdf:li a=''>"
    assert xmp.without_gain_map(packet) == packet
