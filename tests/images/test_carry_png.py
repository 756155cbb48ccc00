"""PNG files come back with all chunks; what told of the old pixels is fitted, or left out."""

from __future__ import annotations

import re
import struct
import zlib
from base64 import b64decode, b64encode

import numpy as np
import pytest
from PIL import Image

from batchlight.errors import ImageError
from batchlight.images.chunks import png_chunk, png_chunks
from batchlight.images.png_text import Inflater
from tests.images.test_carry_jpeg import brightened, mean
from tests.support import image_parts as parts
from tests.support.image_checks import refusal
from tests.support.image_files import ICC, again, opened, png, png_start, read, samples, saved

PLAIN = saved(Image.fromarray(parts.DARK), "PNG")
BEFORE = [
    (b"sCAL", b"\x010.5\x000.5"),
    (b"oFFs", bytes(9)),
    (b"pCAL", b"depth\0" + bytes(10)),
    (b"sTER", b"\0"),
    (b"sBIT", b"\5\6\5"),
    (b"bKGD", b"\0\1\0\2\0\3"),
    (b"vpAg", bytes(9)),
    (b"caNv", bytes(16)),
    (b"prVt", b"private, and safe to copy"),
    (b"prVT", b"private, and not"),
    (b"mDCV", bytes(24)),
    (b"cLLI", bytes(8)),
    (b"cICP", b"\x0c\x0d\0\1"),
    (b"tIME", bytes([7, 234, 1, 2, 3, 4, 5])),
    (b"pHYs", b"\0\0\x10\0\0\0\x20\0\1"),
]
AFTER = [(b"tEXt", b"Title\0night"), (b"zTXt", b"Long\0\0" + zlib.compress(b"dark " * 99))]


def with_chunks(plain: bytes, before: object, after: object = (), trailer: bytes = b"") -> bytes:
    first, last = (b"".join(png_chunk(*part) for part in some) for some in (before, after))  # type: ignore[attr-defined]
    return plain[:33] + first + plain[33:-12] + last + plain[-12:] + trailer


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Type and content of all that is not of the coded image."""
    return [
        (c.kind, data[c.content : c.content + c.size])
        for c in png_chunks(data)
        if c.kind not in (b"IHDR", b"IDAT", b"IEND", b"PLTE")
    ]


def test_a_chunk_that_every_reader_must_understand_is_named() -> None:
    with pytest.raises(ImageError, match="ABcD") as caught:
        read(with_chunks(PLAIN, [(b"ABcD", b"")]))
    assert caught.value.code == "unsupported"


def test_every_chunk_stays_in_its_place() -> None:
    source = with_chunks(PLAIN, BEFORE, AFTER, b"behind the end")
    out = brightened(source)
    assert chunks(out.data) == chunks(source) == BEFORE + AFTER
    assert out.data.endswith(b"IEND\xaeB`\x82behind the end")
    assert out.lost == ()
    assert opened(out.data).size == opened(source).size


def test_what_told_of_the_old_pixels_is_left_out_and_named() -> None:
    old = [
        (b"sPLT", b"colours\0\x08" + bytes(6)),
        (b"iDOT", bytes(28)),
        (b"caBX", b"manifest"),
        (b"dSIG", b"signature"),
    ]
    packet = parts.xmp(b'dcterms:provenance="https://example.com/c2pa"')
    text = (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)
    out = brightened(with_chunks(PLAIN, [*old, text, BEFORE[0]]))
    assert [kind for kind, _ in chunks(out.data)] == [b"iTXt", b"sCAL"]
    assert b"provenance" not in out.data
    assert out.lost == (
        "Content Credentials",
        "digital signature",
        "iDOT chunk",
        "suggested palette",
    )


def test_a_palette_becomes_colours_with_all_that_depends_on_it() -> None:
    indexed = Image.fromarray(parts.DARK).quantize(8)
    plain = saved(indexed, "PNG")
    at = plain.index(b"PLTE") - 4
    size = 12 + int.from_bytes(plain[at : at + 4], "big")
    own = png_chunk(b"sBIT", b"\5\6\5"), png_chunk(b"bKGD", b"\3"), png_chunk(b"hIST", bytes(16))
    source = plain[:at] + own[0] + plain[at : at + size] + own[1] + own[2] + plain[at + size :]
    out = brightened(source)
    colour = (indexed.getpalette() or [])[9:12]
    assert chunks(out.data) == [
        (b"sBIT", b"\5\6\5"),
        (b"bKGD", bytes([0, colour[0], 0, colour[1], 0, colour[2]])),
    ]
    assert out.lost == ("palette", "suggested palette")


def test_transparent_colours_and_significant_bits() -> None:
    indexed = saved(Image.fromarray(parts.DARK).quantize(8), "PNG", transparency=3)
    source = with_chunks(indexed, [(b"sBIT", b"\5\6\5")])
    out = again(source)
    assert dict(chunks(out)) == {b"sBIT": b"\5\6\5\x08"}
    np.testing.assert_array_equal(
        np.asarray(opened(out)), np.asarray(opened(source).convert("RGBA"))
    )


def test_the_background_of_few_grays() -> None:
    bilevel = saved(Image.fromarray(parts.DARK).convert("1"), "PNG")
    out = again(with_chunks(bilevel, [(b"bKGD", b"\0\1")]))
    assert dict(chunks(out)) == {b"bKGD": b"\0\xff"}


@pytest.mark.parametrize("raw", [False, True])
def test_the_thumbnail_of_exif_in_png(raw: bool) -> None:
    block = parts.exif_with_thumbnail()
    if raw:
        text = b"\nexif\n%8d\n" % (len(block) + 6) + (b"Exif\0\0" + block).hex().encode() + b"\n"
        chunk = (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))
    else:
        chunk = (b"eXIf", block)
    out = brightened(with_chunks(PLAIN, [], [chunk])).data
    new = read(out).header.metadata.exif
    assert new is not None
    assert len(new) == len(block)
    assert mean(new[block.index(b"\xff\xd8") :]) == pytest.approx(parts.BRIGHT, abs=3)


def raw(name: bytes, profile: bytes) -> bytes:
    """A profile in text, as ImageMagick writes it."""
    return b"\n" + name + b"\n%8d\n" % len(profile) + profile.hex().encode() + b"\n"


PACKET = parts.xmp(inner=b"<xmpGImg:image>%s</xmpGImg:image>" % b64encode(parts.small_jpeg()))
PICTURES_IN_TEXTS = {
    "text": (b"tEXt", b"XML:com.adobe.xmp\0" + PACKET),
    "compressed": (b"zTXt", b"XML:com.adobe.xmp\0\0" + zlib.compress(PACKET)),
    "international": (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + PACKET),
    "xmp": (b"tEXt", b"Raw profile type xmp\0" + raw(b"xmp", PACKET)),
    "app1": (b"tEXt", b"Raw profile type APP1\0" + raw(b"generic", parts.XMP_PREFIX + PACKET)),
    "8bim": (b"tEXt", b"Raw profile type 8bim\0" + raw(b"8bim", parts.photoshop_thumbnail())),
    "iptc": (
        b"zTXt",
        b"Raw profile type iptc\0\0"
        + zlib.compress(raw(b"iptc", parts.PHOTOSHOP + parts.photoshop_thumbnail())),
    ),
}


def text(kind: bytes, payload: bytes) -> bytes:
    """What a text says, or the profile in it."""
    found = Inflater().text(kind, payload) or b""
    return Inflater().raw_profile(kind, payload) or b"" if payload.startswith(b"Raw") else found


@pytest.mark.parametrize("kind", PICTURES_IN_TEXTS)
def test_pictures_in_texts_are_made_anew(kind: str) -> None:
    source = PICTURES_IN_TEXTS[kind]
    out = brightened(with_chunks(PLAIN, [source]))
    assert out.lost == ()
    [chunk] = chunks(out.data)
    assert chunk[0] == source[0]
    new, old = text(*chunk), text(*source)
    assert new[:8] == old[:8]
    packet = re.search(b"<xmpGImg:image>(.*)</xmpGImg:image>", new)
    jpeg = b64decode(packet[1]) if packet else new[new.index(b"\xff\xd8") :]
    assert mean(jpeg) == pytest.approx(parts.BRIGHT, abs=3)


def test_what_photoshop_put_into_png_goes_along_or_is_named() -> None:
    own = parts.photoshop_thumbnail() + parts.resource(0x0404, parts.IPTC)
    source = with_chunks(PLAIN, [(b"tEXt", b"Raw profile type 8bim\0" + raw(b"8bim", own))])
    out = brightened(source, "jpeg")
    assert out.lost == ("Photoshop thumbnail",)
    assert read(out.data).header.metadata.iptc == parts.IPTC


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_gray_that_is_transparent(depth: int) -> None:
    rows = np.arange(256, dtype=np.uint8).reshape(16, 16).tobytes()
    width, key = 128 // depth, 0x1213 if depth == 16 else 0x12 & 2**depth - 1
    pixels = b"".join(b"\0" + rows[at : at + 16] for at in range(0, 256, 16))
    own = png_chunk(b"sBIT", b"\1") + png_chunk(b"tRNS", struct.pack(">H", key))
    coded = png_chunk(b"IDAT", zlib.compress(pixels)) + png_chunk(b"IEND", b"")
    source = png_start(width, 16, depth, 0) + own + coded
    out = again(source)
    assert chunks(out) == [(b"sBIT", bytes([1, max(8, depth)]))]
    before, after = read(source), read(out)
    assert (after.header.mode, after.bit_depth) == ("LA", max(8, depth))
    np.testing.assert_array_equal(before.pixels, after.pixels)
    np.testing.assert_array_equal(before.alpha, after.alpha)
    expected = key if depth == 16 else key * 255 // (2**depth - 1)
    np.testing.assert_array_equal(np.asarray(after.alpha) == 0, before.pixels == expected)
    assert (np.asarray(after.alpha) == 0).any()
    if depth == 8:  # Pillow scales the samples of fewer bits, but not the one that is transparent
        shown = opened(source).convert("LA")
        np.testing.assert_array_equal(np.asarray(opened(out)), np.asarray(shown))


@pytest.mark.parametrize("stated", [0, 1])
def test_frames_that_nothing_states(stated: int) -> None:
    control = [(b"acTL", struct.pack(">II", 1, 0)), (b"fcTL", bytes(26))][: 2 * stated]
    source = with_chunks(PLAIN, control, [(b"fdAT", bytes(9))])
    assert refusal(lambda: read(source)) == "unsupported"


def test_apples_own_png_is_named() -> None:
    crushed = PLAIN[:8] + png_chunk(b"CgBI", bytes(4)) + PLAIN[8:]
    assert refusal(lambda: read(crushed)) == "unsupported"


@pytest.mark.parametrize(
    "control", [[], [bytes(8)], [b"\0\0\0\1\0\0\0\0"] * 2], ids=["late", "none", "two"]
)
def test_what_only_seems_an_animation(control: list[bytes]) -> None:
    late = [(b"acTL", b"\0\0\0\2\0\0\0\0")] if not control else []
    source = with_chunks(PLAIN, [(b"acTL", payload) for payload in control], late)
    assert chunks(again(source)) == chunks(source)


def test_a_profile_and_sixteen_bits() -> None:
    deep = png(samples(3, np.uint16))
    source = with_chunks(deep, [(b"iCCP", b"x\0\0" + zlib.compress(ICC)), (b"bKGD", b"\xff\0" * 3)])
    assert chunks(again(source)) == chunks(source)
