"""Resolutions that are unusually high or low: as they were, or named; never the end of a run."""

from __future__ import annotations

import struct

import pytest
from PIL import Image

from batchlight.config import Format
from batchlight.images import exif, metadata
from batchlight.images.ifd import Structure, StructureError
from batchlight.images.metadata import Metadata
from tests.images.test_carry_jpeg import brightened
from tests.images.test_carry_png import PLAIN, with_chunks
from tests.support import image_parts as parts
from tests.support.image_checks import refusal
from tests.support.image_files import again, opened, read, saved

PER_INCH = 0.0254
NANOMETRE = 10**9
"""Pixels per metre of an electron microscope."""
IN_EXIF: list[Format] = ["tiff", "webp", "avif"]


def png(across: int, down: int, unit: int = 1) -> bytes:
    return with_chunks(PLAIN, [(b"pHYs", struct.pack(">IIB", across, down, unit))])


def bmp(per_metre: int) -> bytes:
    data = bytearray(saved(Image.fromarray(parts.DARK), "BMP"))
    struct.pack_into("<II", data, 38, per_metre, per_metre)
    return bytes(data)


@pytest.mark.parametrize("target", IN_EXIF)
@pytest.mark.parametrize("per_metre", [1, 39, 11811, NANOMETRE, 2**31 - 1])
def test_any_resolution_goes_along(target: Format, per_metre: int) -> None:
    for source in (png(per_metre, per_metre), bmp(per_metre)):
        out = brightened(source, target)
        assert out.lost == ()
        tags = opened(out.data).getexif()
        wanted = [per_metre * PER_INCH] * 2
        assert [float(tags[282]), float(tags[283])] == pytest.approx(wanted, rel=1e-4)
        assert tags[296] == 2


@pytest.mark.parametrize("per_metre", [1, NANOMETRE])
def test_what_jfif_cannot_say_is_named(per_metre: int) -> None:
    assert brightened(png(per_metre, per_metre), "jpeg").lost == ("resolution",)


def test_what_tags_cannot_say_stays_to_be_named() -> None:
    beyond = Metadata(density=(10.0**12, 10.0**12))
    assert metadata.density_tags(Structure(exif.EMPTY), (10.0**12, 1.0)) == {}
    assert metadata.density_tags(Structure(exif.EMPTY), (10.0**-9, 1.0)) == {}
    assert metadata.with_density_in_exif(beyond) == beyond


@pytest.mark.parametrize(
    ("across", "down"), [(5_000_000, 4_000_000), (2**32 - 1, 3 * 2**30), (100, 80), (1, 0.8)]
)
@pytest.mark.parametrize("shrunk", [1, 10**6])
@pytest.mark.parametrize("target", ["png", "jpeg"])
def test_pixels_of_any_shape(across: float, down: float, shrunk: int, target: Format) -> None:
    source = bytearray(parts.tiff_with([], resolution=(1, 1), resolutionunit=1))
    structure = Structure(bytes(source))
    entries = structure.directory(structure.first).entries
    for tag, value in ((282, across), (283, down)):
        fraction = (value, shrunk) if value == int(value) else (round(value * 10), 10 * shrunk)
        struct.pack_into("<II", source, entries[tag].value_at, *map(int, fraction))
    out = brightened(bytes(source), target)
    found = read(out.data).header.metadata.aspect
    assert out.lost == ()
    assert found is not None
    assert found[0] / found[1] == pytest.approx(across / down, rel=1e-4)


def test_a_ratio_is_kept_within_a_limit() -> None:
    assert metadata.ratio_within((200, 100), 200) == (200, 100)
    assert metadata.ratio_within((2000, 1000), 200) == (2, 1)
    assert metadata.ratio_within((2001, 1000), 200) == (200, 100)
    assert metadata.ratio_within((2001, 1), 200) == (200, 1)


def test_a_value_that_tiff_cannot_hold_is_no_unexpected_error() -> None:
    with pytest.raises(StructureError):
        Structure(exif.EMPTY).pack("I", 2**32)
    with pytest.raises(StructureError):
        Structure(exif.EMPTY).pack("H", -1)


def test_a_profile_of_bmp_that_is_nowhere_fails_this_image_alone() -> None:
    size = 124
    header = bytearray(struct.pack("<IiiHHIIiiII", size, 2, 4, 1, 8, 1, 18, 0, 0, 1, 0))
    header = header.ljust(size, b"\0")
    header[56:60] = b"DEBM"
    struct.pack_into("<I", header, 112, 2**32 - 1)
    start = 14 + size + 4
    body = bytes([20, 20, 20, 0]) + bytes([2, 0, 0, 0] * 4) + b"\0\1"
    data = b"BM" + struct.pack("<IHHI", start + len(body) - 4, 0, 0, start) + header + body
    assert refusal(lambda: again(data)) == "unsupported"
