"""JPEG: sampling, and metadata segments."""

from __future__ import annotations

import pytest
from PIL import JpegImagePlugin

from tests.support.image_files import ICC, MAKE, XMP, again, opened, patches, saved, with_everything


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_jpeg_keeps_its_sampling(subsampling: str) -> None:
    source = saved(patches(), "JPEG", subsampling=subsampling)
    assert _sampling(again(source)) == _sampling(source)


def _sampling(data: bytes) -> list[tuple[int, int]]:
    image = opened(data)
    assert isinstance(image, JpegImagePlugin.JpegImageFile)
    return [layer[1:3] for layer in image.layer]


def test_jpeg_keeps_density_and_comment() -> None:
    image = opened(again(saved(patches(), "JPEG", dpi=(300, 200), comment=b"by night")))
    assert image.info["dpi"] == (300, 200)
    assert image.info["comment"] == b"by night"


def test_jpeg_density_that_comes_after_exif() -> None:
    source = with_everything("jpeg").replace(b"\xff\xe0\x00\x10JFIF", b"\xff\xe5\x00\x10gone", 1)
    late = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x01\x01\x2c\x01\x2c\x00\x00"
    at = source.index(b"\xff\xdb")
    out = again(source[:at] + late + source[at:])
    assert out.count(late) == out.count(b"JFIF") == 1
    assert out.index(b"Exif") < out.index(late)
    assert opened(out).info["dpi"] == (300, 300)


@pytest.mark.parametrize("garbage", [b"garbage", b"\xff\xff\xff", b"\xff\xe1\0\0", b"\xff\xd0"])
def test_jpeg_metadata_after_garbage(garbage: bytes) -> None:
    source = with_everything("jpeg")
    at = source.index(b"\xff\xe1")
    out = again(source[:at] + garbage + source[at:])
    image = opened(out)
    assert image.info["icc_profile"] == ICC
    assert image.info["xmp"] == XMP
    assert image.getexif()[MAKE] == "Lantern"
    assert out == again(source)  # without the garbage
