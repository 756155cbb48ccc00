"""EXIF, XMP, ICC and the rest, through real files; and orientation, which applies exactly once."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from batchlight.config import Format
from batchlight.errors import ImageError
from batchlight.images.containers import Metadata
from batchlight.images.pixels import Pixels
from tests.support.image_files import (
    FORMATS,
    ICC,
    MAKE,
    ORIENTATION,
    XMP,
    again,
    opened,
    patches,
    png_chunk,
    png_with_late_metadata,
    read,
    samples,
    saved,
    tiff,
    with_everything,
)


@pytest.mark.parametrize("target", ["jpeg", "png", "webp", "avif", "tiff"])
@pytest.mark.parametrize("source", ["jpeg", "png", "webp", "avif"])
def test_exif_xmp_and_icc_go_along(source: Format, target: Format) -> None:
    image = opened(again(with_everything(source), target))
    assert image.info["icc_profile"] == ICC
    assert image.info["xmp"] == XMP
    if target != "tiff":  # which the README names as the exception
        assert image.getexif()[MAKE] == "Lantern"


@pytest.mark.parametrize("target", ["tiff", "png", "jpeg"])
def test_xmp_and_icc_leave_tiff(target: Format) -> None:
    tags = [(700, 1, len(XMP), XMP, True), (34675, 7, len(ICC), ICC, True)]
    image = opened(again(tiff(samples(3), extratags=tags), target))
    assert image.info["icc_profile"] == ICC
    assert image.info["xmp"] == XMP


@pytest.mark.parametrize("target", ["jpeg", "png", "webp", "avif", "tiff"])
@pytest.mark.parametrize("source", ["jpeg", "png"])
def test_a_colour_profile_of_more_than_one_jpeg_segment(source: Format, target: Format) -> None:
    profile = ICC + bytes(range(256)) * 600
    out = again(with_everything(source, profile), target)
    assert opened(out).info["icc_profile"] == profile


def test_png_keeps_its_own_chunks() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "night")
    info.add_text("Long", "dark " * 500, zip=True)
    info.add_itxt("Author", "Zoë", lang="de", tkey="Autor")
    info.add(b"gAMA", struct.pack(">I", 45455))
    image = opened(again(saved(patches(), "PNG", pnginfo=info, dpi=(300, 300))))
    texts = {key: str(image.info[key]) for key in ("Title", "Long", "Author")}
    assert texts == {"Title": "night", "Long": "dark " * 500, "Author": "Zoë"}
    assert image.info["gamma"] == 0.45455
    assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_jpeg_keeps_density_and_comment() -> None:
    image = opened(again(saved(patches(), "JPEG", dpi=(300, 200), comment=b"by night")))
    assert image.info["dpi"] == (300, 200)
    assert image.info["comment"] == b"by night"


def test_jpeg_density_that_comes_after_exif() -> None:
    source = with_everything("jpeg").replace(b"\xff\xe0\x00\x10JFIF", b"\xff\xe5\x00\x10gone", 1)
    late = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x01\x01\x2c\x01\x2c\x00\x00"
    at = source.index(b"\xff\xdb")
    out = again(source[:at] + late + source[at:])
    assert out[2:].startswith(late)
    assert out.count(b"JFIF") == 1


@pytest.mark.parametrize("target", FORMATS)
def test_png_metadata_after_the_pixels(target: Format) -> None:
    out = again(png_with_late_metadata(), target)
    if target in ("jpeg", "png", "webp", "avif"):
        assert opened(out).getexif()[MAKE] == "Lantern"
    if target != "bmp":
        assert opened(out).info["xmp"] == XMP
    assert_looks_like(out, png_with_late_metadata())


@pytest.mark.parametrize("target", FORMATS)
def test_exif_that_imagemagick_put_into_png_text(target: Format) -> None:
    exif = Image.Exif()
    exif[MAKE], exif[ORIENTATION] = "Lantern", 6
    block = exif.tobytes()
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n", zip=True)
    source = saved(patches(), "PNG", pnginfo=info)
    out = again(source, target)
    assert_looks_like(out, source)
    if target in ("jpeg", "png", "webp", "avif"):
        assert opened(out).getexif()[MAKE] == "Lantern"


def test_what_follows_the_end_of_a_png_is_no_metadata() -> None:
    out = again(saved(patches(), "PNG") + png_chunk(b"tEXt", b"Title\0hidden"))
    assert b"hidden" not in out


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


@pytest.mark.parametrize("kind", [b"eXIf", b"iTXt"])
def test_png_metadata_that_its_checksum_belies(kind: bytes) -> None:
    damaged = bytearray(png_with_late_metadata())
    damaged[damaged.index(kind) + 9] ^= 1
    with pytest.raises(ImageError) as caught:
        read(bytes(damaged))
    assert caught.value.code == "corrupt"


def test_png_metadata_of_more_than_a_megabyte() -> None:
    profile, text = ICC + bytes(2 * 2**20), "dark " * 2**19
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", text, zip=True)
    info.add_text("Long", text, zip=True)
    out = again(saved(patches(), "PNG", pnginfo=info, icc_profile=profile))
    assert read(out).header.metadata.icc == profile
    assert read(out).header.metadata.xmp == text.encode()
    assert out.count(b"zTXt") == 1


@settings(deadline=None)
@given(st.binary(max_size=80), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_any_exif_has_an_orientation(payload: bytes, start: bytes) -> None:
    metadata = Metadata(exif=start + payload, xmp=payload)
    assert 1 <= metadata.orientation <= 8
    upright = metadata.upright()
    assert upright.orientation == 1
    assert len(upright.exif or b"") == len(start + payload)


# Orientation


def assert_looks_like(out: bytes, source: bytes) -> None:
    """A viewer that heeds the orientation shows the same picture."""
    shown, expected = (
        np.asarray(ImageOps.exif_transpose(opened(data)).convert("RGB"), dtype=np.int16)
        for data in (out, source)
    )
    assert shown.shape == expected.shape
    assert np.abs(shown - expected).mean() < 8


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", ["jpeg", "png", "webp", "tiff", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_applies_exactly_once(source: Format, target: Format, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    # 4:4:4, since the patches would bleed into each other in a turned block grid.
    options: dict[str, Any] = {"subsampling": "4:4:4"} if source in ("jpeg", "avif") else {}
    options |= {"lossless": True} if source == "webp" else {}
    data = saved(patches(), source.upper(), exif=exif, **options)
    out = again(data, target, quality=100)
    assert_looks_like(out, data)
    if target == "avif":  # no reader turns it by its boxes, nor by its tag
        assert b"irot" not in out
        assert b"imir" not in out
        assert opened(out).getexif().get(ORIENTATION, 1) == 1


@pytest.mark.parametrize("alpha", [None, "unassalpha"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_of_every_kind_comes_upright(orientation: int, dtype: type, alpha: str | None) -> None:
    array: Pixels = np.full((32, 48, 4), np.iinfo(dtype).max, dtype)
    array[:, :, :3] = np.asarray(patches())
    array = array if alpha else array[:, :, :3]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    turned = np.asarray(ImageOps.exif_transpose(opened(saved(patches(), "PNG", exif=exif))))
    out = again(tiff(array, alpha, extratags=[(274, 3, 1, orientation, True)]))
    np.testing.assert_array_equal(read(out).pixels, turned[:, :, ::-1])


def test_xmp_does_not_turn_an_upright_picture() -> None:
    xmp = b'<x:xmpmeta tiff:Orientation="6"/>'
    tags = [(274, 3, 1, 6, True), (700, 1, len(xmp), xmp, True)]
    source = tiff(np.asarray(patches()), extratags=tags)
    for target in FORMATS:
        assert_looks_like(again(source, target), source)


def test_avif_readers_ignore_the_exif_tag() -> None:
    # The encoder makes boxes of the tag that it is given, so that the tag is changed afterwards.
    upright, turned = (b"II*\0\x08\0\0\0\x01\0\x12\1\3\0\1\0\0\0" + n for n in (b"\1", b"\6"))
    block = np.frombuffer(upright + bytes(7), np.uint8)
    bgr = np.ascontiguousarray(np.asarray(patches())[:, :, ::-1])
    _, plain = cv2.imencodeWithMetadata(".avif", bgr, [cv2.IMAGE_METADATA_EXIF], [block])
    assert plain.tobytes().count(upright) == 1
    source = plain.tobytes().replace(upright, turned)
    for target in FORMATS:
        assert_looks_like(again(source, target), saved(patches(), "PNG"))
