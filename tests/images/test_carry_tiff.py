"""TIFF files come back with all their tags, at their places; only the page's pixels are other."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from batchlight.config import Format
from batchlight.images import colour, exif
from batchlight.images.ifd import Structure
from tests.images.test_carry_jpeg import brightened, mean
from tests.support import image_parts as parts
from tests.support.image_checks import refusal
from tests.support.image_files import ICC, again, opened, read, samples, saved, tiff

GEO = [
    (33550, 12, 3, (0.5, 0.5, 0.0)),
    (33922, 12, 6, (0.0, 0.0, 0.0, 440720.0, 3751320.0, 0.0)),
    (34735, 3, 8, (1, 1, 0, 1, 1024, 0, 1, 1)),
    (34736, 12, 1, (6378137.0,)),
    (34737, 2, 8, b"UTM 11N|"),
    (42112, 2, 30, b"<GDALMetadata></GDALMetadata>\0"),
    (42113, 2, 6, b"-9999\0"),
]
SCAN = [
    (270, 2, 11, b"by lantern\0"),
    (269, 2, 7, b"page 7\0"),
    (315, 2, 4, b"Zoe\0"),
    (33432, 2, 8, b"(c) Zoe\0"),
    (306, 2, 20, b"2026:01:02 03:04:05\0"),
    (33723, 7, len(parts.IPTC), parts.IPTC),
    (34675, 7, len(ICC), ICC),
    (700, 1, len(parts.xmp()), parts.xmp()),
    (65000, 5, 2, (1, 2, 3, 4)),
    (65001, 16, 1, (2**40,)),
]
OF_PIXELS = {256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 339}


def tags(data: bytes) -> dict[int, Any]:
    """Of the first page, by tifffile, but for those that say how pixels are stored."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        found = file.pages[0].tags  # type: ignore[union-attr]
        return {t.code: (t.dtype, t.count, t.value) for t in found if t.code not in OF_PIXELS}


def changed(data: bytes, tag: int, value: int) -> bytes:
    """With another integer in a tag that holds one."""
    structure = Structure(data)
    entry = structure.directory(structure.first).entries[tag]
    new = value.to_bytes(entry.nbytes, "little")
    return data[: entry.value_at] + new + data[entry.value_at + entry.nbytes :]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_every_tag_stays(order: str, big: bool, compression: str | None) -> None:
    own = [tag for tag in [*GEO, *SCAN] if big or tag[1] != 16]
    options: dict[str, Any] = {"byteorder": order, "bigtiff": big, "compression": compression}
    source = parts.tiff_with(own, resolution=(204, 98), **options)
    out = brightened(source)
    assert tags(out.data) == tags(source)
    assert out.data[:4] == source[:4]
    assert out.lost == ()
    with tifffile.TiffFile(io.BytesIO(out.data)) as file:
        assert set(np.unique(file.asarray())) == {parts.BRIGHT}
    if not (big and order == ">"):  # which Pillow does not read
        assert np.asarray(opened(out.data)).min() == parts.BRIGHT


def test_what_was_not_compressed_takes_no_more_room() -> None:
    for data in (parts.tiff_with(SCAN[:3]), saved(Image.fromarray(parts.DARK), "TIFF")):
        assert len(again(data)) <= len(data) + 400
        assert opened(again(data)).info["compression"] == "raw"


def test_exif_and_its_makernote_stay_at_their_offsets() -> None:
    block = parts.exif_with_thumbnail()
    jpeg = parts.jpeg(b"\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block)
    moved = brightened(jpeg, "tiff")
    assert moved.lost == ("EXIF thumbnail",)
    for data in (moved.data, again(moved.data)):
        assert data.index(parts.MAKER_NOTE) == block.index(parts.MAKER_NOTE)
        assert opened(data).getexif().get_ifd(0x8769)[37500] == parts.MAKER_NOTE
    assert getattr(opened(moved.data), "n_frames", 1) == 1
    back = again(moved.data, "jpeg")
    assert read(moved.data).header.metadata.others == ("MakerNote",)
    assert opened(back).getexif().get_ifd(0x8769) == {}


@pytest.mark.parametrize("mask", [False, True])
def test_overviews_are_no_pages_but_masks_are(mask: bool) -> None:
    source = parts.with_overview(mask)
    if mask:
        assert refusal(lambda: read(source)) == "unsupported"
        return
    out = brightened(source)
    assert out.lost == ("overviews",)
    with tifffile.TiffFile(io.BytesIO(out.data)) as file:
        assert len(file.pages) == 1


def test_the_layout_of_a_cloud_optimized_file_is_not_promised_any_more() -> None:
    ghost = b"LAYOUT=IFDS_BEFORE_DATA\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
    ghost = b"GDAL_STRUCTURAL_METADATA_SIZE=%06d bytes\n" % len(ghost) + ghost
    plain = parts.tiff_with(SCAN)
    structure = Structure(plain)
    first = structure.directory(structure.first)
    assert (first.at, first.end - first.at > len(ghost)) == (8, True)
    moved = exif.relocated(structure, first, {}, len(plain), 0)
    source = plain[:4] + struct.pack("<I", len(plain)) + ghost + plain[8 + len(ghost) :] + moved
    out = again(source)
    assert tags(out) == tags(source)
    assert out[8 : 8 + len(ghost)] == ghost.replace(b"EDITION=NO\n ", b"EDITION=YES\n")


def test_raw_is_no_picture() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        half = np.ascontiguousarray(parts.DARK[::2, ::2])
        file.write(half, photometric="rgb", subfiletype=1, subifds=1, metadata=None)
        cfa = [(33421, 3, 2, (2, 2), True), (33422, 1, 4, b"\0\1\1\2", True)]
        file.write(
            parts.DARK[:, :, 0].astype(np.uint16), photometric="cfa", metadata=None, extratags=cfa
        )
    assert refusal(lambda: read(buffer.getvalue())) == "unsupported"
    marked = parts.tiff_with([(50706, 1, 4, b"\1\4\0\0")])
    assert refusal(lambda: read(marked)) == "unsupported"


def test_photoshops_thumbnail_and_layers() -> None:
    blocks = parts.resource(0x03ED, bytes(16)) + parts.photoshop_thumbnail()
    own = [
        (34377, 7, len(blocks), blocks),
        (37724, 7, 40, b"Adobe Photoshop Document Data Block\0" + bytes(4)),
    ]
    out = brightened(parts.tiff_with(own))
    assert out.lost == ("Photoshop layers",)
    assert 37724 not in tags(out.data)
    new = bytes(tags(out.data)[34377][2]) if 34377 in tags(out.data) else b""
    assert mean(new[new.index(b"\xff\xd8") :]) == pytest.approx(parts.BRIGHT, abs=3)


def test_content_credentials_are_left_out() -> None:
    out = brightened(parts.tiff_with([(52545, 7, 9, b"c2pa data")]))
    assert out.lost == ("Content Credentials",)
    assert 52545 not in tags(out.data)


def test_a_palette_of_two_colours() -> None:
    image = Image.fromarray(parts.DARK[:, :, 0]).convert("1")
    indices = np.asarray(image).astype(np.uint8)
    colours = np.array([[65535, 10 << 8], [0, 200 << 8], [32768, 99 << 8]], np.uint16)
    source = saved(image, "TIFF")
    structure = Structure(source)
    assert structure.first
    data = tiff(
        indices.astype(np.uint8),
        photometric="palette",
        colormap=np.pad(colours, ((0, 0), (0, 254))),
    )
    expected = (colours >> 8).T[indices]
    np.testing.assert_array_equal(read(data).pixels[:, :, ::-1], expected)
    assert brightened(data).lost == ("palette",)
    assert 320 not in tags(again(data))


@pytest.mark.parametrize("compression", ["lzw", "zlib", "packbits"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("layout", [{"rowsperstrip": 16}, {"tile": (16, 32)}])
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_strips_of_zeros_are_corrupt(
    compression: str, dtype: type, layout: dict[str, Any], share: float
) -> None:
    source = tiff(parts.DARK.astype(dtype), compression=compression, **layout)
    with tifffile.TiffFile(io.BytesIO(source)) as file:
        page = file.pages[0]
        places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    data = bytearray(source)
    for start, length in places[-max(1, int(len(places) * share)) :]:
        data[start : start + length] = bytes(length)
    assert refusal(lambda: read(bytes(data))) == "corrupt"


def test_old_lzw() -> None:
    """The lowest bit first, codes of nine bits: each row starts anew, and holds no repetition."""
    gray = np.arange(64 * 8, dtype=np.uint8).reshape(8, 64)
    codes = [code for row in gray for code in (256, *map(int, row))] + [257]
    bits = sum(code << 9 * n for n, code in enumerate(codes))
    packed = bits.to_bytes((9 * len(codes) + 7) // 8, "little")
    plain = tiff(gray)
    structure = Structure(plain)
    out = bytearray(plain + packed)
    for tag, value in ((259, 5), (273, len(plain)), (279, len(packed))):
        entry = structure.directory(structure.first).entries[tag]
        size = "<H" if entry.kind == 3 else "<I"
        struct.pack_into(size, out, entry.value_at, value)
    np.testing.assert_array_equal(read(bytes(out)).pixels, gray)


@pytest.mark.parametrize("name", ["JPEG 2000", "LERC", "PNG", "JPEG XL"])
def test_compressions_are_named(name: str) -> None:
    number = {"JPEG 2000": 34712, "LERC": 34887, "PNG": 34933, "JPEG XL": 50002}[name]
    plain = parts.tiff_with([])
    structure = Structure(plain)
    entry = structure.directory(structure.first).entries[259]
    data = plain[: entry.value_at] + struct.pack("<H", number) + plain[entry.value_at + 2 :]
    with pytest.raises(Exception, match=name) as caught:
        read(data)
    assert getattr(caught.value, "code", None) == "unsupported"


@pytest.mark.parametrize("compression", [None, "packbits"])
def test_a_predictor_counts_only_with_its_compressions(compression: str | None) -> None:
    source = parts.tiff_with([(317, 3, 1, 2)], compression=compression)
    np.testing.assert_array_equal(read(source).pixels, parts.DARK[:, :, ::-1])


def test_a_thumbnail_as_cameras_store_it_is_no_page() -> None:
    small = parts.small_jpeg()
    source = bytearray(parts.tiff_with([]))
    structure = Structure(bytes(source))
    first = structure.directory(structure.first)
    at = len(source) + (len(source) & 1)
    source += bytes(at - len(source)) + struct.pack("<H", 3)
    for tag, kind, value in ((259, 3, 6), (513, 4, at + 42), (514, 4, len(small))):
        source += struct.pack("<HHII", tag, kind, 1, value)
    source += bytes(4) + small
    struct.pack_into("<I", source, first.next_at, at)
    out = brightened(bytes(source))
    assert out.lost == ("overviews",)
    assert small not in out.data


def test_the_range_of_samples_is_stated_anew() -> None:
    own = [(tag, 3, 3, (value,) * 3) for tag, value in ((280, 0), (281, 90), (340, 0), (341, 90))]
    out = brightened(parts.tiff_with([*own, (532, 5, 6, (0, 1, 255, 1) * 3)]))
    found = tags(out.data)
    assert {found[tag][2] for tag in (280, 281, 340, 341)} == {(parts.BRIGHT,) * 3}
    assert found[532][2] == (0, 1, 255, 1) * 3
    assert out.lost == ()


@pytest.mark.parametrize("big", [False, True])
def test_a_second_description_stays_too(big: bool) -> None:
    """tifffile writes its own after that of the user."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, parts.DARK, photometric="rgb", description="well B07", bigtiff=big)
    source = buffer.getvalue()
    out = brightened(source)
    with tifffile.TiffFile(io.BytesIO(out.data)) as file:
        page = file.pages[0]
        texts = [tag.value for tag in page.tags if tag.code == 270]  # type: ignore[union-attr]
    assert texts == ["well B07", f'{{"shape": {[*parts.DARK.shape]}}}']
    assert out.lost == ()
    elsewhere = brightened(source, "png")
    assert opened(elsewhere.data).getexif()[270] == "well B07"
    assert elsewhere.lost == ("TIFF tag 270",)


def test_a_thumbnail_in_the_first_directory_is_named() -> None:
    small = parts.small_jpeg()
    source = parts.tiff_with([(513, 4, 1, 0), (514, 4, 1, len(small))])
    out = brightened(changed(source, 513, len(source)) + small)
    assert out.lost == ("overviews",)
    assert not {513, 514} & tags(out.data).keys()
    assert brightened(changed(source, 513, len(source)) + small, "png").lost == ("overviews",)


@pytest.mark.parametrize("stated", [0, 2**20])
def test_what_lies_behind_the_pixels_stays(stated: int) -> None:
    """Only a tag of its maker knows where it is."""
    note = b"calibration of this microscope"
    source = parts.tiff_with([(65000, 4, 1, 0)])
    source = changed(changed(source, 65000, len(source)), 279, stated) + note
    out = brightened(source).data
    at = tags(out)[65000][2]
    assert out[at : at + len(note)] == note
    with tifffile.TiffFile(io.BytesIO(out)) as file:
        assert set(np.unique(file.asarray())) == {parts.BRIGHT}


def test_primaries_become_a_profile() -> None:
    white = (318, 5, 2, (3127, 10_000, 329, 1000))
    primaries = (319, 5, 6, (68, 100, 32, 100, 265, 1000, 69, 100, 15, 100, 6, 100))
    out = brightened(parts.tiff_with([white, primaries]), "png")
    points = colour.Colours((0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06), (2.2,))
    assert opened(out.data).info["icc_profile"] == colour.profile(points)
    assert out.lost == ()
    alone = opened(again(parts.tiff_with([primaries]), "png"))
    assert alone.info["icc_profile"] == colour.profile(points)
    curve = (301, 3, 256, tuple(range(256)))
    assert (
        refusal(lambda: again(parts.tiff_with([white, primaries, curve]), "png")) == "unsupported"
    )


def test_a_tag_whose_value_lies_outside_the_file_is_named() -> None:
    """In a longer file, it would point to anything."""
    source = parts.tiff_with([(65000, 2, 9, b"of night\0")])
    structure = Structure(source)
    entry = structure.directory(structure.first).entries[65000]
    outside = struct.pack("<I", len(source) + 5)
    out = brightened(source[: entry.at + 8] + outside + source[entry.at + 12 :])
    assert out.lost == ("TIFF tag 65000",)
    assert 65000 not in tags(out.data)


def test_an_unknown_kind_of_extra_sample_is_unsupported() -> None:
    source = tiff(samples(4), "unassalpha")
    at = Structure(source)
    entry = at.directory(at.first).entries[338]
    changed = source[: entry.value_at] + b"\3\0" + source[entry.value_at + 2 :]
    assert read(source).alpha is not None
    assert refusal(lambda: read(changed)) == "unsupported"


@pytest.mark.parametrize("target", ["jpeg", "png", "webp", "avif"])
def test_what_tiff_says_goes_along(target: Format) -> None:
    out = brightened(parts.tiff_with([*GEO, *SCAN[:-1]], resolution=(300, 300)), target)
    block = opened(out.data).getexif()
    assert (block[315], block[270], block[282]) == ("Zoe", "by lantern", 300)
    assert opened(out.data).info["icc_profile"] == ICC
    lost = {"GDAL tags", "GeoTIFF tags", "TIFF tag 65000"}
    assert set(out.lost) == lost | ({"IPTC"} if target in ("webp", "avif") else set())
