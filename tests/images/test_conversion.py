"""Into another format goes what has a counterpart there; the rest is named, and nothing dangles."""

from __future__ import annotations

import io
import struct
import zlib
from functools import partial
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageCms

from batchlight.config import Format
from batchlight.images import colour, png_text
from batchlight.images.boxes import box
from batchlight.images.metadata import Cicp
from batchlight.images.segments import segment
from tests.images.test_carry_boxes import properties
from tests.images.test_carry_jpeg import brightened, of
from tests.images.test_carry_png import PLAIN, chunks, with_chunks
from tests.support import image_parts as parts
from tests.support.image_checks import assert_looks_like, refusal
from tests.support.image_files import ICC, again, opened, patches, read, saved

OTHERS: list[Format] = ["png", "webp", "tiff", "avif"]
P3_XY = (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
P3 = [struct.pack(">8I", 31270, 32900, *(round(100_000 * value) for value in P3_XY))]


def shown(data: bytes) -> Image.Image:
    """As a reader shows it that heeds the profile."""
    image = opened(data).convert("RGB")
    profile = opened(data).info.get("icc_profile")
    if profile is None:
        return image
    srgb = ImageCms.createProfile("sRGB")
    made = ImageCms.profileToProfile(
        image, io.BytesIO(profile), srgb, renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC
    )
    assert made is not None
    return made


@pytest.mark.parametrize("target", OTHERS)
def test_extended_xmp_is_one_packet_elsewhere(target: Format) -> None:
    depth = b'<GDepth:Data xmlns:GDepth="d">' + b"QUJD" * 25_000 + b"</GDepth:Data>"
    identifier = b"0123456789ABCDEF0123456789abcdef"
    packet = parts.xmp(b'xmpNote:HasExtendedXMP="' + identifier + b'"')
    extension = parts.xmp(inner=depth)
    pieces = [extension[at : at + 60_000] for at in range(0, len(extension), 60_000)]
    own = [
        segment(
            0xE1,
            b"http://ns.adobe.com/xmp/extension/\0"
            + identifier
            + struct.pack(">II", len(extension), 60_000 * number)
            + piece,
        )
        for number, piece in enumerate(pieces)
    ]
    source = parts.jpeg(segment(0xE1, parts.XMP_PREFIX + packet), *own[::-1])
    out = brightened(source, target)
    assert out.lost == ()
    found = read(out.data).header.metadata.xmp or b""
    assert depth in found
    assert b"HasExtendedXMP" not in found
    back = read(again(out.data, "jpeg")).header.metadata.xmp or b""
    assert depth in back
    missing = parts.jpeg(segment(0xE1, parts.XMP_PREFIX + packet), own[0])
    assert brightened(missing, target).lost == ("extended XMP",)
    assert b"HasExtendedXMP" not in brightened(missing, target).data


def test_namespaces_of_an_extension_go_along() -> None:
    identifier = b"0123456789ABCDEF0123456789ABCDEF"
    extension = parts.xmp(inner=b"<a:b>c</a:b>").replace(b"<rdf:RDF", b'<rdf:RDF xmlns:a="urn:a"')
    head = b"http://ns.adobe.com/xmp/extension/\0" + identifier
    packet = parts.xmp(b'xmpNote:HasExtendedXMP="' + identifier + b'"')
    own = (parts.XMP_PREFIX + packet, head + struct.pack(">II", len(extension), 0) + extension)
    out = again(parts.jpeg(*(segment(0xE1, one) for one in own)), "png")
    found = read(out).header.metadata.xmp or b""
    assert ElementTree.fromstring(found).find(".//{urn:a}b") is not None


@pytest.mark.parametrize("target", ["jpeg", "webp", "tiff", "avif"])
@pytest.mark.parametrize("gamma", [100_000, 55_000])
@pytest.mark.parametrize("chromaticities", [[], P3])
def test_gamma_and_primaries_become_a_profile(
    target: Format, gamma: int, chromaticities: list[bytes]
) -> None:
    own = [(b"gAMA", struct.pack(">I", gamma)), *((b"cHRM", one) for one in chromaticities)]
    source = with_chunks(saved(patches(), "PNG"), own)
    out = again(source, target, quality=100)
    linear = (np.asarray(patches()) / 255.0) ** (100_000 / gamma)
    if chromaticities:
        to_srgb = np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]])
        linear = np.clip(linear @ to_srgb.T, 0, 1)
    low = linear <= 0.0031308
    expected = np.where(low, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    assert np.abs(np.asarray(shown(out)) - expected).mean() < 6


@pytest.mark.parametrize("chunk", [(b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 45455))])
def test_srgb_needs_no_profile(chunk: tuple[bytes, bytes]) -> None:
    assert "icc_profile" not in opened(again(with_chunks(PLAIN, [chunk]), "jpeg")).info


@pytest.mark.parametrize("target", ["jpeg", "webp", "tiff"])
def test_code_points_go_along_or_become_a_profile(target: Format) -> None:
    source = with_chunks(PLAIN, [(b"cICP", b"\x0c\x0d\0\1")])
    colours = colour.Colours.of(Cicp(12, 13))
    assert colours is not None
    assert opened(again(source, target)).info["icc_profile"] == colour.profile(colours)
    in_avif = again(source, "avif")
    assert properties(in_avif)[b"nclx"][12:16] == b"\0\x0c\0\x0d"
    assert read(again(in_avif, "png")).header.metadata.cicp == Cicp(12, 13, 0)
    assert opened(again(in_avif, target)).info["icc_profile"] == colour.profile(colours)


@pytest.mark.parametrize("transfer", [16, 18])
def test_what_no_profile_says_is_unsupported(transfer: int) -> None:
    source = with_chunks(PLAIN, [(b"cICP", bytes([9, transfer, 0, 1]))])
    targets: list[Format] = ["jpeg", "webp", "tiff"]
    for target in targets:
        assert refusal(partial(again, source, target)) == "unsupported"
    assert properties(again(source, "avif"))[b"nclx"][12:16] == bytes([0, 9, 0, transfer])


def test_samples_of_narrow_range_are_read_in_png_alone() -> None:
    for points in (b"\x0c\x0d\0\0", b"\1\x0d\0\0"):
        source = with_chunks(PLAIN, [(b"cICP", points)])
        assert (b"cICP", points) in chunks(again(source))
        for target in ("jpeg", "webp", "tiff", "avif"):
            assert refusal(partial(again, source, target)) == "unsupported"


def test_code_points_that_only_the_stream_has() -> None:
    plain = parts.avif("yuv420", (12, 13, 1))
    without = plain.replace(b"colrnclx", b"freenclx")
    assert read(without).header.metadata.cicp == Cicp(12, 13, 1, full_range=True)
    assert properties(again(without))[b"nclx"][12:16] == b"\0\x0c\0\x0d"
    assert "icc_profile" in opened(again(without, "jpeg")).info


def test_cropping_and_aspect_of_avif() -> None:
    cropped = parts.avif("yuv420", (1, 13, 6), parts.CLAP)
    wide = parts.avif("yuv420", (1, 13, 6), parts.PASP)
    for target in ("jpeg", "png", "tiff", "webp"):
        assert refusal(partial(again, cropped, target)) == "unsupported"
    assert refusal(partial(again, wide, "webp")) == "unsupported"
    assert opened(again(wide, "jpeg")).info["jfif_density"] == (1, 2)
    turned = parts.avif("yuv420", (1, 13, 6), parts.PASP, box(b"irot", b"\1"))
    assert read(again(turned, "png")).header.metadata.aspect == (2, 1)


def test_properties_of_avif_are_named() -> None:
    source = parts.avif("yuv420", (1, 13, 6), box(b"clli", bytes(4)), box(b"udes", b"night"))
    plain = with_optional_properties(source)
    assert brightened(plain, "png").lost == ("clli property", "udes property")
    assert refusal(lambda: read(source)) == "unsupported"  # since every reader must understand udes


def with_optional_properties(data: bytes) -> bytes:
    """The last two are no longer essential."""
    at = data.index(b"ipma") - 4
    end = at + int.from_bytes(data[at : at + 4], "big")
    return data[: end - 2] + bytes(value & 0x7F for value in data[end - 2 : end]) + data[end:]


def in_parts(*numbered: tuple[int, int, bytes]) -> bytes:
    """A JPEG with the parts of a profile: number, of how many, content."""
    return parts.jpeg(
        *(segment(0xE2, b"ICC_PROFILE\0" + bytes([n, of]) + part) for n, of, part in numbered)
    )


def test_profiles_whose_parts_are_numbered_oddly() -> None:
    half = len(ICC) // 2
    first, second = ICC[:half], ICC[half:]
    for source in (
        in_parts((2, 2, second), (1, 2, first)),
        in_parts((0, 2, first), (1, 2, second)),
        in_parts((1, 1, ICC), (1, 1, ICC)),
    ):
        assert opened(again(source, "png")).info["icc_profile"] == ICC
    missing = brightened(in_parts((1, 2, first)), "png")
    assert missing.lost == ("damaged colour profile",)
    damaged = with_chunks(PLAIN, [(b"iCCP", b"ICC\0\0" + zlib.compress(ICC)[:50])])
    assert brightened(damaged, "jpeg").lost == ("damaged colour profile",)


def test_a_colour_profile_of_a_gray_picture_becomes_a_gray_one() -> None:
    """As PNG demands; in gray, only the curve counts."""
    gray = Image.fromarray(parts.DARK).convert("L")
    linear = colour.profile(colour.Colours((0.31, 0.33, *P3_XY), (1.0,))) or b""
    source = saved(gray, "JPEG", icc_profile=linear)
    for target in ("png", "tiff", "avif"):
        out = brightened(source, target)
        assert out.lost == ()
        assert opened(out.data).info["icc_profile"] == colour.gray_profile((1.0,))
    assert opened(again(source, "webp")).info["icc_profile"] == linear
    differing = linear.replace(b"bTRC", b"bXXX")
    assert (
        refusal(lambda: again(saved(gray, "JPEG", icc_profile=differing), "png")) == "unsupported"
    )


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("target", OTHERS)
def test_a_profile_of_other_channels_than_the_pixels_is_named(mode: str, target: Format) -> None:
    cmyk = ICC.replace(b"RGB ", b"CMYK", 1)
    out = brightened(saved(opened(parts.jpeg()).convert(mode), "JPEG", icc_profile=cmyk), target)
    assert out.lost == ("damaged colour profile",)
    assert "icc_profile" not in opened(out.data).info


def test_a_gray_profile_becomes_one_of_colours() -> None:
    gray = Image.fromarray(parts.DARK).convert("L")
    profile = colour.gray_profile((1.0,))
    source = saved(gray, "JPEG", icc_profile=profile, quality=95)
    for target in ("png", "tiff", "avif"):
        assert opened(again(source, target)).info["icc_profile"] == profile
    out = again(source, "webp", quality=100)
    linear = np.asarray(gray) / 255.0
    low = linear <= 0.0031308
    expected = np.where(low, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    assert np.abs(np.asarray(shown(out))[:, :, 0] - expected).mean() < 5
    clear = saved(gray.convert("LA"), "PNG", icc_profile=profile)
    assert opened(again(clear, "png")).info["icc_profile"] == profile
    assert not colour.is_gray(opened(again(clear, "avif")).info["icc_profile"])
    broken = saved(gray, "JPEG", icc_profile=profile.replace(b"kTRC", b"A2B0"))
    assert refusal(lambda: again(broken, "webp")) == "unsupported"


@pytest.mark.parametrize("target", OTHERS)
def test_iptc_comments_and_resolution(target: Format) -> None:
    blocks = parts.PHOTOSHOP + parts.resource(0x0404, parts.IPTC)
    comment = "Zoë by night"
    options = {"dpi": (300, 150), "comment": comment.encode()}
    plain = saved(Image.fromarray(parts.DARK), "JPEG", **options)
    source = plain[:2] + segment(0xED, blocks) + plain[2:]
    out = brightened(source, target)
    found = read(out.data).header.metadata
    if target in ("webp", "avif"):
        assert out.lost == ("IPTC", "comment")
    else:
        assert out.lost == ()
        assert found.iptc == parts.IPTC
        assert comment.encode() in out.data or comment.encode("latin-1") in out.data
    if found.density is None:
        assert _in_exif(out.data) == pytest.approx((300, 150), abs=0.1)
    else:
        assert found.density == pytest.approx((11811, 5906), abs=1)


def _in_exif(data: bytes) -> tuple[float, float]:
    exif = opened(data).getexif()
    return float(exif[282]), float(exif[283])


def test_texts_of_png() -> None:
    own = [
        (b"tEXt", b"Title\0night"),
        (b"zTXt", b"Author\0\0" + zlib.compress(b"Zoe")),
        (b"iTXt", "Copyright\0\0\0\0\0© Zoë".encode()),
        (b"tIME", bytes(7)),
    ]
    source = with_chunks(PLAIN, own)
    jpeg = brightened(source, "jpeg")
    comments = [one.payload.decode() for one in of(jpeg.data, 0xFE, b"")]
    assert comments == ["Title: night", "Author: Zoe", "Copyright: © Zoë"]
    assert jpeg.lost == ("modification time",)
    tiff = opened(brightened(source, "tiff").data).getexif()
    assert (tiff[269], tiff[315]) == ("night", "Zoe")


def test_pixels_that_are_not_square() -> None:
    source = with_chunks(PLAIN, [(b"pHYs", struct.pack(">IIB", 2, 1, 0))])
    jpeg = again(source, "jpeg")
    assert opened(jpeg).info["jfif_density"] == (2, 1)
    assert opened(jpeg).info["jfif_unit"] == 0
    assert read(again(jpeg, "png")).header.metadata.aspect == (2, 1)
    tiff = opened(again(source, "tiff")).getexif()
    assert (tiff[296], float(tiff[282]) / float(tiff[283])) == (1, 2)
    targets: list[Format] = ["webp", "avif"]
    for target in targets:
        assert refusal(partial(again, source, target)) == "unsupported"


@pytest.mark.parametrize(("source", "target"), [("tiff", "png"), ("jpeg", "tiff")])
def test_a_resolution_turns_with_the_pixels(source: Format, target: Format) -> None:
    exif = Image.Exif()
    exif.update({0x0112: 6, 282: 200.0, 283: 100.0, 296: 2})
    out = again(saved(Image.fromarray(parts.DARK), source.upper(), exif=exif), target)
    assert opened(out).size == parts.DARK.shape[:2]
    assert _in_exif(out) == (100, 200)
    assert opened(out).info["dpi"] == pytest.approx((100, 200), abs=0.1)


def test_resolution_beside_exif_without_a_unit() -> None:
    exif = Image.Exif()
    exif.update({282: 72.0, 283: 72.0, 296: 1})
    source = saved(Image.fromarray(parts.DARK), "JPEG", exif=exif, dpi=(300, 300))
    out = opened(again(source, "webp")).getexif()
    assert (out[282], out[283], out[296]) == (300, 300, 2)
    resolution = parts.resource(0x03ED, struct.pack(">IHHIHH", 300 << 16, 1, 1, 150 << 16, 1, 1))
    scanned = parts.tiff_with([(34377, 7, len(resolution), resolution)], resolutionunit=1)
    plain = opened(again(scanned, "png")).info["dpi"]
    assert plain == pytest.approx((300, 150), abs=0.1)


@pytest.mark.parametrize("prefix", [b"", b"Photoshop 3.0\0"])
def test_profiles_in_texts_of_png(prefix: bytes) -> None:
    wrapped = prefix + parts.resource(0x0404, parts.IPTC)
    app1 = [b"Exif\0\0" + parts.exif_with_thumbnail(), parts.XMP_PREFIX + parts.xmp()]
    own = [
        (b"zTXt", png_text.new_raw_profile(png_text.RAW_IPTC, b"iptc", wrapped)),
        *((b"zTXt", png_text.new_raw_profile(png_text.RAW_APP1, b"generic", one)) for one in app1),
    ]
    source = with_chunks(PLAIN, own)
    assert brightened(source).lost == ()
    out = brightened(source, "jpeg")
    assert out.lost == ()
    found = read(out.data).header.metadata
    assert (found.iptc, found.xmp) == (parts.IPTC, parts.xmp())
    assert parts.MAKER_NOTE in (found.exif or b"")
    twice = with_chunks(PLAIN, [(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + parts.xmp())] * 2)
    assert brightened(twice, "jpeg").lost == ("second XMP",)


def test_code_points_of_srgb_count_more_than_gamma() -> None:
    own = [(b"cICP", b"\1\x0d\0\1"), (b"gAMA", struct.pack(">I", 100_000))]
    assert "icc_profile" not in opened(again(with_chunks(PLAIN, own), "jpeg")).info


def test_what_jpeg_says_twice_or_elsewhere_is_named() -> None:
    block = b"Exif\0\0" + parts.exif_with_thumbnail()
    packet = parts.XMP_PREFIX + parts.xmp()
    twice = parts.jpeg(*(segment(0xE1, one) for one in (block, packet, block, packet)))
    assert brightened(twice, "png").lost == ("second EXIF", "second XMP")
    small = segment(0xE0, b"JFIF\0\1\2\0\0\1\0\1\2\2" + bytes(12))
    extension = segment(0xE0, b"JFXX\0\x10" + parts.small_jpeg())
    for own in (small, extension):
        assert brightened(parts.jpeg(own), "png").lost == ("JFIF thumbnail",)
    old = segment(0xED, b"Adobe_Photoshop2.5:" + bytes(30))
    assert brightened(parts.jpeg(old), "png").lost == ("APP13 segment",)
    elsewhere = segment(0xE5, b"Exif\0\0of its maker")
    assert brightened(parts.jpeg(elsewhere), "png").lost == ("APP5 segment",)
    iptc = parts.resource(0x0404, parts.IPTC)
    resources = segment(0xED, parts.PHOTOSHOP + iptc * 2 + parts.photoshop_thumbnail())
    assert brightened(parts.jpeg(resources), "png").lost == ("Photoshop thumbnail", "second IPTC")
    resolution = parts.resource(0x03ED, struct.pack(">IHHIHH", 300 << 16, 1, 1, 150 << 16, 1, 1))
    plain = parts.jpeg(segment(0xED, parts.PHOTOSHOP + resolution))
    assert opened(again(plain, "png")).info["dpi"] == pytest.approx((300, 150), abs=0.1)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("kind", "format"), [(1, "B"), (3, "H"), (4, "I")])
@pytest.mark.parametrize("target", ["jpeg", *OTHERS])
def test_an_orientation_of_any_type(order: str, kind: int, format: str, target: Format) -> None:
    value = struct.pack(order + format, 6).ljust(4, b"\0")
    block = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    block += struct.pack(order + "HHHI", 1, 0x0112, kind, 1) + value + bytes(4)
    plain = saved(patches(), "JPEG", subsampling="4:4:4")
    source = plain[:2] + segment(0xE1, b"Exif\0\0" + block) + plain[2:]
    exif = Image.Exif()
    exif[0x0112] = 6
    expected = saved(patches(), "JPEG", exif=exif, subsampling="4:4:4")
    header = read(source).header
    assert header.orientation == 6
    if target in ("tiff", "avif"):
        assert_looks_like(again(source, target, quality=100), expected)
    else:
        assert read(again(source, target)).header.orientation == 6
