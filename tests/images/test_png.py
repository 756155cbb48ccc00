"""PNG: every kind of pixel, and metadata chunks."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from batchlight.config import Format
from batchlight.errors import ImageError
from batchlight.images import png_carry, png_metadata
from batchlight.images.chunks import PNG_SIGNATURE
from batchlight.images.png_text import TEXT_MAX as PNG_TEXT_MAX
from tests.support.image_checks import assert_holds, assert_looks_like
from tests.support.image_files import (
    ICC,
    MAKE,
    ORIENTATION,
    TARGETS,
    XMP,
    again,
    opened,
    patches,
    png,
    png_chunk,
    png_with_late_metadata,
    read,
    samples,
    saved,
)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_keeps_every_sample(channels: int, dtype: type) -> None:
    array = samples(channels, dtype)
    out = again(png(array))
    assert_holds(read(png(array)), array)
    assert_holds(read(out), array)
    assert out[24:26] == png(array)[24:26]  # depth and colour type, as any reader sees them
    if dtype == np.uint8:
        assert opened(out).mode == {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
        np.testing.assert_array_equal(np.asarray(opened(out)), array)


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


@pytest.mark.parametrize("target", TARGETS)
def test_png_metadata_after_the_pixels(target: Format) -> None:
    out = again(png_with_late_metadata(), target)
    if target in ("jpeg", "png", "webp", "avif"):
        assert opened(out).getexif()[MAKE] == "Lantern"
    assert opened(out).info["xmp"] == XMP
    assert_looks_like(out, png_with_late_metadata())


@pytest.mark.parametrize("target", TARGETS)
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


def test_what_follows_the_end_of_a_png_stays_there_and_is_no_metadata() -> None:
    trailer = png_chunk(b"tEXt", b"Title\0hidden")
    source = saved(patches(), "PNG") + trailer
    assert again(source).endswith(trailer)
    assert b"hidden" not in again(source, "jpeg")


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


@given(st.binary(max_size=60))
def test_any_text_in_png(text: bytes) -> None:
    packet = b"XML:com.adobe.xmp\0" + text
    data = (
        PNG_SIGNATURE + png_chunk(b"iTXt", packet) + png_chunk(b"eXIf", text) + png_chunk(b"IEND")
    )
    found = png_metadata.read(png_carry.take(data, 8, png_carry.RGB))
    assert (found.exif or b"") == text.removeprefix(b"Exif\0\0")
    assert found.xmp is None or len(found.xmp) <= PNG_TEXT_MAX
