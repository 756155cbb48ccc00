"""AVIF, HEIC, WebP and BMP files come back with all but the coded picture."""

from __future__ import annotations

import io
import struct
from typing import Any

import imagecodecs
import numpy as np
import pillow_heif
import pytest
from PIL import Image

from batchlight.config import Format
from batchlight.errors import ImageError
from batchlight.images import colour, heif_carry, items
from batchlight.images.boxes import Box, box, boxes, full_box
from batchlight.images.chunks import riff_chunk, riff_chunks
from batchlight.images.heif_file import assembled
from tests.images.test_carry_jpeg import brightened, mean
from tests.support import image_parts as parts
from tests.support.image_checks import assert_looks_like, refusal
from tests.support.image_files import ICC, again, opened, read, saved
from tests.support.mutants import bmp_file, bmp_header

POINTS = [(1, 13, 6), (12, 13, 6), (9, 16, 9), (1, 8, 1), (1, 13, 5), (2, 2, 2)]
"""Primaries, transfer, matrix."""


def properties(data: bytes) -> dict[bytes, bytes]:
    """Of the picture of an AVIF or HEIC, by type; of colours, by kind."""
    carried = heif_carry.take(data).items
    found = (carried.properties[n] for n, _ in carried.items[carried.primary].properties)
    return {p[8:12] if p[4:8] == b"colr" else p[4:8]: p for p in found}


def meta(data: bytes) -> items.Items:
    [found] = [one for one in boxes(data) if one.kind == b"meta"]
    return items.read(data, found.content, found.end)


@pytest.mark.parametrize(
    "points", [(1, 13, 6), (12, 13, 6), (9, 16, 9), (1, 8, 1), (1, 13, 5), (2, 2, 2)]
)
@pytest.mark.parametrize("sampling", ["yuv420", "yuv422", "yuv444"])
def test_avif_keeps_code_points_and_sampling(points: tuple[int, int, int], sampling: str) -> None:
    matrix = 6 if points[2] in (2, 5) else points[2]
    source = parts.avif(sampling, (*points[:2], matrix))
    at = source.index(b"nclx") + 8
    source = source[:at] + struct.pack(">H", points[2]) + source[at + 2 :]
    out = again(source)
    before, after = properties(source), properties(out)
    assert after[b"nclx"] == before[b"nclx"]
    assert after[b"av1C"][10] & 0x0C == before[b"av1C"][10] & 0x0C
    assert_looks_like(out, source)


def test_avif_keeps_aspect_cropping_rotation_and_unknown_boxes() -> None:
    more = (parts.PASP, parts.CLAP, box(b"irot", b"\1"), box(b"imir", b"\0"))
    source = parts.avif("yuv420", (1, 13, 6), *more)
    own = box(b"free", b"of nobody"), box(b"uuid", bytes(16) + b"own"), box(b"mpvd", b"video")
    out = again(source + b"".join(own))
    after = properties(out)
    for kind in (b"pasp", b"clap", b"irot", b"imir", b"ispe"):
        assert after[kind] == properties(source)[kind]
    for one in own:
        assert one in out
    assert read(source).header.orientation == opened(source).getexif()[0x0112] == 5


def with_items(data: bytes, *more: tuple[bytes, bytes, bytes | None, bytes]) -> bytes:
    """An AVIF with further items: reference to the picture, type, its data, properties."""
    found = meta(data)
    all_items, references = dict(found.items), list(found.references)
    known = list(found.properties)
    for number, (reference, kind, payload, described) in enumerate(more, 10):
        entry = full_box(b"infe", struct.pack(">HH", number, 0) + kind + b"\0", 2)
        indices = []
        for one in boxes(described):
            known.append(described[one.start : one.end])
            indices.append((len(known) - 1, False))
        all_items[number] = items.Item(
            number, kind, entry, kind not in (b"Exif", b"tmap"), tuple(indices), payload, number
        )
        targets = (1, 10) if kind == b"tmap" else (1,)
        references.append(items.Reference(reference, number, targets))
    whole = items.Items(1, all_items, tuple(references), tuple(known), found.children)
    top = [
        (b.kind, b"" if b.kind in (b"meta", b"mdat") else data[b.start : b.end])
        for b in boxes(data)
    ]

    return assembled(top, whole)


def coded(data: bytes) -> tuple[bytes, bytes]:
    """A picture's bytes and its properties."""
    found = meta(data)
    item = found.items[found.primary]
    return item.data or b"", b"".join(found.properties[n] for n, _ in item.properties)


SMALL_AVIF = coded(bytes(imagecodecs.avif_encode(parts.DARK[:32, :48].copy(), 80, speed=9)))


@pytest.mark.parametrize("kind", ["tmap", "apple", "thumbnail", "depth"])
def test_pictures_beside_the_picture(kind: str) -> None:
    data, described = SMALL_AVIF
    aux = {
        "apple": b"urn:com:apple:photo:2020:aux:hdrgainmap\0",
        "depth": b"urn:mpeg:hevc:2015:auxid:2\0",
    }
    plain = parts.avif()
    if kind == "tmap":
        more = [(b"xxxx", b"av01", data, described), (b"dimg", b"tmap", b"\0" * 20, b"")]
        source = with_items(plain, *more)
    elif kind == "thumbnail":
        source = with_items(plain, (b"thmb", b"av01", data, described))
    else:
        source = with_items(
            plain, (b"auxl", b"av01", data, described + full_box(b"auxC", aux[kind]))
        )
    out = brightened(source)
    names = {
        "tmap": ("gain map",),
        "apple": ("gain map",),
        "thumbnail": ("thumbnail",),
        "depth": (),
    }
    assert out.lost == names[kind]
    kept = meta(out.data)
    assert len(kept.items) == (2 if kind == "depth" else 1)
    assert [item.data for item in kept.items.values()][1:] == ([data] if kind == "depth" else [])
    assert len(kept.references) == (kind == "depth")
    assert np.asarray(opened(out.data)).mean() == pytest.approx(parts.BRIGHT, abs=2)


def test_exif_in_avif_keeps_its_place_and_gets_a_new_thumbnail() -> None:
    block = parts.exif_with_thumbnail()
    source = with_items(parts.avif(), (b"cdsc", b"Exif", b"\0\0\0\6Exif\0\0" + block, b""))
    out = brightened(source).data
    [item] = [item for item in meta(out).items.values() if item.kind == b"Exif"]
    assert item.data is not None
    assert item.data[:10] == b"\0\0\0\6Exif\0\0"
    assert len(item.data) == len(block) + 10
    start = 10 + block.index(b"\xff\xd8")
    assert mean(item.data[start:]) == pytest.approx(parts.BRIGHT, abs=3)


def test_credentials_in_avif() -> None:
    uuid = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
    out = brightened(parts.avif() + box(b"uuid", uuid + b"c2pa"))
    assert out.lost == ("Content Credentials",)
    assert b"c2pa" not in out.data


def test_deep_avif_and_gray_with_alpha_are_unsupported() -> None:
    deep = bytes(imagecodecs.avif_encode(parts.DARK.astype(np.uint16) << 2, 90, bitspersample=10))
    assert refusal(lambda: read(deep)) == "unsupported"
    gray_alpha = np.ascontiguousarray(parts.DARK[:, :, :2])
    data = bytes(imagecodecs.avif_encode(gray_alpha, 90, pixelformat="yuv400"))
    assert refusal(lambda: read(data)) == "unsupported"


# HEIC


def heic(mode: str = "RGB", size: tuple[int, int] = (96, 64), **options: Any) -> bytes:
    image = Image.fromarray(parts.DARK).convert(mode).resize(size)
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=95, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(96, 64), (95, 63)])
@pytest.mark.parametrize("chroma", [420, 444])
def test_heic_comes_back(mode: str, size: tuple[int, int], chroma: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    source = heic(mode, size, chroma=chroma, exif=exif.tobytes())
    out = again(source)
    before, after = (pillow_heif.open_heif(data) for data in (source, out))
    assert (after.mode, after.size) == (before.mode, before.size)
    assert np.abs(np.asarray(after).astype(int) - np.asarray(before)).mean() < 4
    assert properties(out)[b"hvcC"][24] & 3 == properties(source)[b"hvcC"][24] & 3
    assert set(properties(out)) == set(properties(source))
    header = read(source).header
    assert (header.width, header.height, header.orientation) == (*size, 6)


@pytest.mark.parametrize("target", ["jpeg", "png", "webp", "avif", "tiff"])
def test_heic_becomes_anything(target: Format) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Lantern"
    out = opened(again(heic(exif=exif.tobytes()), target))
    assert out.size == (64, 96)
    assert out.getexif()[0x010F] == "Lantern"
    assert out.getexif().get(0x0112, 1) == 1


def test_deep_heic_is_unsupported() -> None:
    deep = parts.DARK.astype(np.uint16) << 8
    file = pillow_heif.from_bytes(mode="RGB;16", size=(96, 64), data=deep.tobytes())
    buffer = io.BytesIO()
    file.save(buffer, quality=90)
    assert refusal(lambda: read(buffer.getvalue())) == "unsupported"


# WebP


def webp_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """All but the coded image."""
    return [
        (c.kind, data[c.content : c.content + c.size])
        for c in riff_chunks(data)
        if c.kind not in (b"VP8 ", b"VP8L", b"ALPH", b"ANMF")
    ]


def webp(
    *chunks: tuple[bytes, bytes], flags: int = 0, image: bytes = b"", trailer: bytes = b""
) -> bytes:
    plain = saved(Image.fromarray(parts.DARK), "WEBP", lossless=True)
    vp8x = bytes([flags, 0, 0, 0]) + (95).to_bytes(3, "little") + (63).to_bytes(3, "little")
    own = [riff_chunk(*chunk) for chunk in chunks]
    body = b"WEBP" + b"".join([riff_chunk(b"VP8X", vp8x), *own[:1], image or plain[12:], *own[1:]])
    return b"RIFF" + len(body).to_bytes(4, "little") + body + trailer


@pytest.mark.parametrize("flags", [0, 0x2C])
def test_every_chunk_of_webp_stays(flags: int) -> None:
    own = [
        (b"ICCP", ICC),
        (b"EXIF", b"II*\0\x08\0\0\0\0\0\0\0\0\0"),
        (b"XMP ", parts.xmp()),
        (b"PrVt", b"odd"),
    ]
    source = webp(*own, flags=flags, trailer=b"behind")
    out = brightened(source)
    assert webp_chunks(out.data) == webp_chunks(source)
    assert out.data.endswith(b"behind")
    assert out.lost == ()


def test_credentials_and_thumbnails_in_webp() -> None:
    packet = parts.xmp(b'dcterms:provenance="here"')
    block = parts.exif_with_thumbnail()
    out = brightened(webp((b"C2PA", b"manifest"), (b"EXIF", block), (b"XMP ", packet), flags=12))
    assert out.lost == ("Content Credentials",)
    kept = dict(webp_chunks(out.data))
    assert set(kept) == {b"VP8X", b"EXIF", b"XMP "}
    assert b"provenance" not in kept[b"XMP "]
    start = block.index(b"\xff\xd8")
    assert mean(kept[b"EXIF"][start:]) == pytest.approx(parts.BRIGHT, abs=3)


@pytest.mark.parametrize("lossless", [True, False])
def test_an_animation_of_one_frame(lossless: bool) -> None:
    plain = saved(Image.fromarray(parts.DARK), "WEBP", lossless=lossless, quality=95)
    head = bytes(6) + (95).to_bytes(3, "little") + (63).to_bytes(3, "little") + b"\x64\0\0\0"
    frame = riff_chunk(b"ANMF", head + plain[12:] + riff_chunk(b"PrVt", b"inside"))
    source = webp((b"ANIM", bytes(6)), flags=2, image=frame)
    out = again(source)
    assert webp_chunks(out) == webp_chunks(source)
    assert riff_chunk(b"PrVt", b"inside") in out
    assert (b"VP8L" in out) == lossless
    assert read(out).header.lossless == lossless
    assert_looks_like(out, source)


# BMP


def bmp_v4(gamma: float, *endpoints: float) -> bytes:
    """Version 4 with calibrated colours."""
    rows = parts.DARK[::-1, :, ::-1].tobytes()
    header = bytearray(bmp_header(96, 64, 24, 0, 108))
    struct.pack_into("<I9I3I", header, 56, 0, *(round(x * 2**30) for x in endpoints), *[0] * 3)
    struct.pack_into("<3I", header, 96, *[round(gamma * 2**16)] * 3)
    return bmp_file(bytes(header), rows)


def test_calibrated_colours_of_bmp_become_a_profile() -> None:
    p3 = (0.4866, 0.2290, 0.0, 0.2657, 0.6917, 0.0451, 0.1982, 0.0793, 1.0439)
    out = again(bmp_v4(1.0, *p3), "png")
    profile = opened(out).info["icc_profile"]
    points = colour.Colours((0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06), (1.0,))
    expected = colour.profile(points)
    assert expected is not None
    values = [np.frombuffer(one, ">i4")[32:] for one in (profile, expected)]
    assert np.abs(values[0].astype(int) - values[1].astype(int)).max() < 100
    assert "icc_profile" not in opened(again(bmp_v4(0, *[0] * 9), "png")).info
    srgb = opened(again(bmp_v4(2.2, 0.64, 0.33, 0.03, 0.3, 0.6, 0.1, 0.15, 0.06, 0.79), "png"))
    red = colour.Colours((0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06), (2.2,))
    own = np.frombuffer(srgb.info["icc_profile"], ">i4")[32:].astype(int)
    made = np.frombuffer(colour.profile(red) or b"", ">i4")[32:].astype(int)
    assert np.abs(own - made).max() < 100
    three = bytearray(bmp_v4(2.2, *p3))
    struct.pack_into("<I", three, 114, 1 << 16)
    assert refusal(lambda: again(bytes(three), "png")) == "unsupported"


def test_a_profile_before_the_pixels_of_bmp() -> None:
    """With a palette, which becomes shorter, and nothing, which leaves all in its place."""
    indexed = Image.fromarray(parts.DARK).quantize(200)
    plain = saved(indexed, "BMP")
    start = int.from_bytes(plain[10:14], "little")
    palette, pixels = plain[54:start], plain[start:]
    header = bytearray(bmp_header(96, 64, 8, 0, 124))
    struct.pack_into("<I", header, 32, len(palette) // 4)
    struct.pack_into("<4s", header, 56, b"DEBM")
    struct.pack_into("<II", header, 112, 124 + len(palette), len(ICC))
    data = bmp_file(bytes(header), palette + ICC + pixels)
    source = data[:10] + struct.pack("<I", 138 + len(palette) + len(ICC)) + data[14:]
    assert opened(again(source, "png")).info["icc_profile"] == ICC
    out = again(source)
    at, length = struct.unpack_from("<II", out, 14 + 112)
    assert out[14 + at : 14 + at + length] == ICC
    named = brightened(bmp_v5(gap=b"of nobody"), "png").lost
    assert named == ("data before the pixels",)
    assert brightened(bmp_v5() + b"more", "png").lost == (*named, "data behind the image")


@pytest.mark.parametrize("kind", [3, 4])
def test_kinds_of_os2_are_named(kind: int) -> None:
    header = bmp_header(8, 8, 1 if kind == 3 else 24, kind, 64)
    with pytest.raises(ImageError, match="OS/2") as caught:
        read(bmp_file(header, bytes(400)))
    assert caught.value.code == "unsupported"
    several = b"BA" + bytes(12) + bmp_v5()
    assert refusal(lambda: read(several)) == "unsupported"


def bmp_v5(profile: bytes = ICC, gap: bytes = b"gap!") -> bytes:
    """Version 5, with a profile behind the pixels, resolution and a gap before them."""
    rows = np.pad(parts.DARK[::-1, :95, ::-1].reshape(64, -1), ((0, 0), (0, 3))).tobytes()
    header = bytearray(bmp_header(95, 64, 24, 0, 124))
    struct.pack_into("<ii", header, 24, 2835, 5670)
    struct.pack_into("<4s", header, 56, b"DEBM")
    start = 14 + 124 + len(gap)
    struct.pack_into("<II", header, 112, start + len(rows) - 14, len(profile))
    data = bmp_file(bytes(header), gap + rows + profile)
    return data[:10] + struct.pack("<I", start) + data[14:]


def test_bmp_keeps_header_profile_and_resolution() -> None:
    source = bmp_v5()
    out = brightened(source).data
    assert len(out) == len(source)
    changed = (
        {n for n in range(142) if out[n] != source[n]} - set(range(34, 38)) - set(range(54, 70))
    )
    assert changed == set()
    assert out.endswith(ICC)
    assert read(source).header.metadata.icc == ICC
    png = opened(again(source, "png"))
    assert png.info["icc_profile"] == ICC
    assert png.info["dpi"] == pytest.approx((72, 144), abs=0.1)


@pytest.mark.parametrize("width", [5, 6, 7, 8, 97])
@pytest.mark.parametrize("bits", [4, 8])
def test_run_lengths_of_rows_that_are_padded(width: int, bits: int) -> None:
    rng = np.random.default_rng(width)
    indices = rng.integers(0, 16, (4, width)).astype(np.uint8)
    padded = np.pad(indices, ((0, 0), (0, -width % 4)))
    runs = b""
    for row in padded:
        for value in row:
            runs += bytes([1, value << 4 if bits == 4 else value])
        runs += b"\0\0"
    colours = [n * 0x0F0A05 for n in range(2**bits)]
    header = bytearray(bmp_header(width, 4, bits, 2 if bits == 4 else 1))
    data = bmp_file(bytes(header), runs + b"\0\1", *colours)
    table = np.array([[c & 255, c >> 8 & 255, c >> 16 & 255] for c in colours], np.uint8)
    np.testing.assert_array_equal(read(data).pixels, table[indices[::-1]])


@pytest.mark.parametrize("runs", [b"\x05\1\0\0", b"\0\2\x7f\x7f", b"\5\1\0\1", b"\0\x08\1\2"])
def test_run_lengths_that_end_early_or_leave_the_image(runs: bytes) -> None:
    data = bmp_file(bmp_header(8, 6, 8, 1), runs, *range(256))
    assert refusal(lambda: read(data)) == "corrupt"


@pytest.mark.parametrize("masks", [(0xFF000000, 0xFF0000, 0xFF00), (0xFF, 0xFF00, 0xFF0000)])
@pytest.mark.parametrize("size", [40, 52, 56])
def test_masks_of_any_header(masks: tuple[int, int, int], size: int) -> None:
    header = bytearray(bmp_header(3, 2, 32, 3, size))
    words = np.arange(6, dtype=np.uint32) * 0x05070B0D + 0x10203040
    behind = struct.pack("<3I", *masks)
    if size == 40:
        data = bmp_file(bytes(header) + behind, words.astype("<u4").tobytes())
    else:
        struct.pack_into("<4I", header, 40, *masks, 0) if size > 52 else struct.pack_into(
            "<3I", header, 40, *masks
        )
        data = bmp_file(bytes(header), words.astype("<u4").tobytes())
    expected = np.stack(
        [(words & mask) >> ((mask & -mask).bit_length() - 1) for mask in masks[::-1]], axis=1
    ).reshape(2, 3, 3)[::-1]
    np.testing.assert_array_equal(read(data).pixels, expected)


def test_a_bitmap_without_a_files_header() -> None:
    whole = saved(Image.fromarray(parts.DARK), "BMP")
    bare = whole[14:]
    np.testing.assert_array_equal(read(bare).pixels, read(whole).pixels)
    assert again(bare) == again(whole)[14:]


def test_boxes_are_found() -> None:
    assert list(boxes(box(b"free", b"1"))) == [Box(b"free", 0, 8, 9)]
