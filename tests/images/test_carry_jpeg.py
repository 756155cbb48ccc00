"""JPEG files come back with all but the coded image; what only told of the old one is made anew."""

from __future__ import annotations

import base64
import io
import re
import struct
import time

import numpy as np
import pytest
from PIL import Image

from batchlight.errors import ImageError
from batchlight.images import codec, exif, ifd, xmp
from batchlight.images.ifd import NewTag
from batchlight.images.image import Encoded
from batchlight.images.photoshop import resources
from batchlight.images.segments import Segment, segment, segments
from batchlight.images.xmp import EXTENSION_PREFIX
from tests.support import image_parts as parts
from tests.support.image_checks import refusal
from tests.support.image_files import opened, read, saved


def brightened(data: bytes, format: str | None = None) -> Encoded:
    """The file with every sample at one bright value."""
    decoded = read(data)
    pixels = np.full_like(decoded.pixels, parts.BRIGHT)
    return codec.encode(decoded, pixels, format or decoded.header.format, 95)  # type: ignore[arg-type]


def metadata(data: bytes) -> list[tuple[int, bytes]]:
    """Marker and content of all that is not of the coded image."""
    return [(one.marker, one.payload) for one in segments(data) if one.is_metadata]


def of(data: bytes, marker: int, prefix: bytes) -> list[Segment]:
    return [s for s in segments(data) if s.marker == marker and s.payload.startswith(prefix)]


def mean(jpeg: bytes) -> float:
    return float(np.asarray(opened(jpeg).convert("RGB")).mean())


def test_every_segment_stays_in_its_place() -> None:
    own = [segment(0xE0 + n, b"own %d\0" % n + bytes(range(200))) for n in range(16) if n != 14]
    adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0\1")
    source = parts.jpeg(*own, segment(0xFE, b"a"), adobe, segment(0xFE, b"b"), segment(0xE9, b""))
    out = brightened(source)
    assert metadata(out.data) == metadata(source)
    assert out.lost == ()


@pytest.mark.parametrize("trailer", [b"RIFF\x24\0\0\0WAVEfmt ", parts.small_jpeg(), b"\0" * 9])
def test_what_follows_the_image_stays(trailer: bytes) -> None:
    out = brightened(parts.jpeg(trailer=trailer))
    assert out.data.endswith(trailer)
    assert out.lost == ()


def test_segments_between_scans_stay() -> None:
    source = parts.jpeg(progressive=True)
    at = source.rindex(b"\xff\xc4")
    own = segment(0xE7, b"between scans")
    assert own in brightened(source[:at] + own + source[at:]).data


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("room", [800, 4000])
def test_the_exif_thumbnail_is_made_anew_and_nothing_else_moves(order: str, room: int) -> None:
    block = parts.exif_with_thumbnail(order, room)
    out = brightened(parts.jpeg(segment(0xE1, b"Exif\0\0" + block)))
    [found] = of(out.data, 0xE1, b"Exif")
    new = found.payload[6:]
    assert out.lost == ()
    assert len(new) == len(block)
    start = block.index(b"\xff\xd8")
    assert new[: start - 8] == block[: start - 8]
    assert mean(new[start:]) == pytest.approx(parts.BRIGHT, abs=3)
    assert opened(new[start:]).size == parts.THUMBNAIL


@pytest.mark.parametrize("behind", [b"", b"something else"])
def test_a_thumbnail_that_needs_more_room_goes_to_the_end(behind: bytes) -> None:
    block = parts.exif_with_thumbnail(room=0)
    start = block.index(b"\xff\xd8")
    decoded = read(parts.jpeg(segment(0xE1, b"Exif\0\0" + block + behind)))
    noise = np.random.default_rng(0).integers(0, 255, decoded.pixels.shape, np.uint8)
    [found] = of(codec.encode(decoded, noise, "jpeg", 95).data, 0xE1, b"Exif")
    new = found.payload[6:]
    where, length = (
        n for n in struct.unpack("<2I", new[start - 20 : start - 16] + new[start - 8 : start - 4])
    )
    assert opened(new[where : where + length]).size == parts.THUMBNAIL
    assert new[: start - 30] == block[: start - 30]
    assert behind in new
    assert (where == start) == (not behind)


def test_a_thumbnail_that_is_no_picture_is_left_out_with_its_pointer() -> None:
    block = parts.exif_with_thumbnail()
    start = block.index(b"\xff\xd8")
    tiny = block[:start] + b"garbage" + bytes(len(block) - start - 7)
    out = brightened(parts.jpeg(segment(0xE1, b"Exif\0\0" + tiny)))
    assert out.lost == ("EXIF thumbnail",)
    exif = opened(out.data).getexif()
    assert not exif.get_ifd(0x8769).keys() - {37500}
    assert b"Lantern" in out.data
    assert of(out.data, 0xE1, b"Exif")[0].payload.count(b"\xff\xd8\xff") == 0


@pytest.mark.parametrize("number", [0x0409, 0x040C])
def test_photoshops_thumbnail_is_made_anew(number: int) -> None:
    blocks = [parts.resource(0x03ED, bytes(16)), parts.photoshop_thumbnail(number)]
    blocks.append(parts.resource(0x0404, parts.IPTC))
    out = brightened(parts.jpeg(segment(0xED, parts.PHOTOSHOP + b"".join(blocks))))
    [found] = of(out.data, 0xED, parts.PHOTOSHOP)
    new = list(resources(found.payload[len(parts.PHOTOSHOP) :]))
    assert [one.number for one in new] == [0x03ED, number, 0x0404]
    assert new[2].payload == parts.IPTC
    assert mean(new[1].payload[28:]) == pytest.approx(parts.BRIGHT, abs=3)
    assert struct.unpack(">I", new[1].payload[20:24])[0] == len(new[1].payload) - 28


def test_only_so_many_thumbnails_are_made() -> None:
    """Each takes as long as it says it is large, and a few bytes may say so."""
    huge = struct.pack(">IIIIIIHH", 1, 1700, 1700, 0, 0, 0, 24, 1)
    blocks = parts.resource(0x040C, huge) * 1000
    began = time.monotonic()
    out = brightened(parts.jpeg(segment(0xED, parts.PHOTOSHOP + blocks)))
    assert time.monotonic() - began < 5
    assert out.lost == ("Photoshop thumbnail",)


def test_jfifs_thumbnail_is_made_anew() -> None:
    plain = saved(Image.fromarray(parts.DARK), "JPEG")
    thumb = np.asarray(Image.fromarray(parts.DARK).resize((9, 6)))
    jfif = segment(0xE0, b"JFIF\0\1\2\0\0\1\0\1\x09\x06" + thumb.tobytes())
    out = brightened(plain[:2] + jfif + plain[20:]).data
    [found] = of(out, 0xE0, b"JFIF")
    assert found.payload[:14] == jfif[4:18]
    assert set(found.payload[14:]) == {parts.BRIGHT}


@pytest.mark.parametrize("kind", [0x010001, 0x010002, 0])
def test_previews_are_left_out_with_their_index(kind: int) -> None:
    source = parts.several_pictures(parts.small_jpeg(), kind, trailer=b"SEFHmotion")
    out = brightened(source)
    assert out.lost == ("preview",)
    assert b"MPF\0" not in out.data
    assert out.data.count(b"\xff\xd8\xff") == 1
    assert out.data.endswith(b"\xff\xd9SEFHmotion")
    with Image.open(io.BytesIO(out.data)) as image:
        assert image.format == "JPEG"


def test_bytes_of_metadata_are_no_frame() -> None:
    """Not even those that begin a frame of JPEG-LS, at the start of the file."""
    comment = segment(0xFE, b"\xff\xf7\0\x0b")
    source = parts.jpeg(comment)
    assert b"\xff\xf7" in source[:64]
    assert comment in brightened(source).data


def test_an_index_of_pictures_that_are_not_there_is_left_out() -> None:
    """Else it would point into the middle of an output that is longer."""
    source = parts.several_pictures(parts.small_jpeg(), 0x020002)
    out = brightened(source[: source.index(b"\xff\xd9") + 2])
    assert out.lost == ("picture index",)
    assert b"MPF\0" not in out.data


@pytest.mark.parametrize("kind", [0x020002, 0x020003, 0])
def test_pictures_of_their_own_right_are_unsupported(kind: int) -> None:
    further = saved(Image.fromarray(parts.DARK), "JPEG")
    assert refusal(lambda: read(parts.several_pictures(further, kind))) == "unsupported"


@pytest.mark.parametrize("is_apple", [True, False])
def test_gain_maps_are_left_out_with_all_that_points_to_them(is_apple: bool) -> None:
    tells = b'HDRGainMap:HDRGainMapVersion="65536"' if is_apple else b'hdrgm:Version="1.0"'
    small = parts.small_jpeg()
    gain = small[:2] + segment(0xE1, parts.XMP_PREFIX + parts.xmp(tells)) + small[2:]
    main = [
        segment(0xE1, parts.XMP_PREFIX + parts.gain_map_xmp(len(gain))),
        segment(0xE2, b"urn:iso:std:iso:ts:21496:-1\0\0\0\0\0"),
    ]
    out = brightened(parts.several_pictures(gain, 0, *([] if is_apple else main)))
    assert out.lost == ("gain map",)
    for trace in (b"hdrgm:", b"HDRGainMap", b"GainMap", b"MPF\0", b"21496"):
        assert trace not in out.data
    assert is_apple or b'Item:Semantic="Primary"' in out.data
    assert is_apple or b'dc:source="dark"' in out.data


def test_a_gain_map_that_no_index_lists_is_left_out_too() -> None:
    """As when a tool has dropped the index."""
    gain, video = parts.small_jpeg(), b"\0\0\0\x18ftypmp42" + bytes(90)
    packet = segment(0xE1, parts.XMP_PREFIX + parts.gain_map_xmp(len(gain)))
    out = brightened(parts.jpeg(packet, trailer=gain + video))
    assert out.lost == ("gain map",)
    assert b"GainMap" not in out.data
    assert out.data.endswith(b"\xff\xd9" + video)
    assert gain not in out.data


@pytest.mark.parametrize("how", ["padded", "behind a video", "index without it", "index of others"])
def test_a_gain_map_is_found_wherever_it_is(how: str) -> None:
    small = parts.small_jpeg()
    tells = segment(0xE1, parts.XMP_PREFIX + parts.xmp(b'hdrgm:Version="1.0"'))
    gain = small[:2] + tells + small[2:]
    packet = segment(0xE1, parts.XMP_PREFIX + parts.gain_map_xmp(len(gain)))
    index = segment(0xE2, parts.mpf([], [], []))
    source = {
        "padded": parts.jpeg(packet, trailer=bytes(8) + gain),
        "behind a video": parts.jpeg(packet, trailer=b"\0\0\0\x18ftypmp42" + gain),
        "index without it": parts.jpeg(packet, index, trailer=gain),
        "index of others": parts.several_pictures(small, 0x010001, packet, trailer=gain),
    }[how]
    out = brightened(source)
    assert "gain map" in out.lost
    assert gain not in out.data
    assert b"GainMap" not in out.data


def test_exif_of_two_segments_gets_a_new_thumbnail() -> None:
    block = parts.exif_with_thumbnail()
    half = block.index(parts.MAKER_NOTE) + 20
    pieces = (segment(0xE1, b"Exif\0\0" + one) for one in (block[:half], block[half:]))
    out = brightened(parts.jpeg(*pieces))
    assert out.lost == ()
    joined = b"".join(one.payload[6:] for one in of(out.data, 0xE1, b"Exif\0\0"))
    assert len(joined) == len(block)
    start = joined.rindex(b"\xff\xd8\xff")
    assert mean(joined[start:]) == pytest.approx(parts.BRIGHT, abs=3)


def test_exif_of_two_segments_without_a_thumbnail_stays_as_it_is() -> None:
    block = exif.with_tags(exif.EMPTY, {270: NewTag(ifd.ASCII, 200, b"n" * 199 + b"\0")})
    pieces = [segment(0xE1, b"Exif\0\0" + one) for one in (block[:90], block[90:])]
    source = parts.jpeg(*pieces)
    assert metadata(brightened(source).data) == metadata(source)


def test_a_thumbnail_in_extended_xmp_is_made_anew() -> None:
    old = base64.b64encode(parts.small_jpeg())
    stray = segment(0xE1, EXTENSION_PREFIX + b"F" * 32 + bytes(8) + b"of another packet")
    identifier, note = (
        b"0123456789ABCDEF0123456789ABCDEF",
        b"<a:note>" + bytes(70_000) + b"</a:note>",
    )
    extension = parts.xmp(inner=note + b"<xmpGImg:image>" + old + b"</xmpGImg:image>")
    main = parts.xmp(b'xmpNote:HasExtendedXMP="' + identifier + b'"')
    head = EXTENSION_PREFIX + identifier + len(extension).to_bytes(4, "big")
    pieces = [
        segment(0xE1, head + at.to_bytes(4, "big") + extension[at : at + 60_000])
        for at in range(0, len(extension), 60_000)
    ]
    out = brightened(parts.jpeg(segment(0xE1, parts.XMP_PREFIX + main), *pieces, pieces[0], stray))
    assert out.lost == ()
    packet, whole = xmp.joined(
        of(out.data, 0xE1, parts.XMP_PREFIX)[0].payload[len(parts.XMP_PREFIX) :],
        [s.payload[len(EXTENSION_PREFIX) :] for s in of(out.data, 0xE1, EXTENSION_PREFIX)],
    )
    assert whole
    assert note in packet
    [new] = re.findall(rb"<xmpGImg:image>([^<]+)<", packet)
    assert mean(base64.b64decode(new)) == pytest.approx(parts.BRIGHT, abs=3)
    assert stray in out.data


def test_motion_photos_stay_and_their_lengths_hold() -> None:
    video = b"\0\0\0\x18ftypmp42" + bytes(400)
    inner = b'<Container:Directory><rdf:Seq><rdf:li Item:Semantic="MotionPhoto" Item:Length="%d"/>'
    packet = parts.xmp(
        b'GCamera:MotionPhoto="1"', inner % len(video) + b"</rdf:Seq></Container:Directory>"
    )
    source = parts.jpeg(segment(0xE1, parts.XMP_PREFIX + packet), trailer=video)
    out = brightened(source)
    assert out.lost == ()
    assert packet in out.data
    length = int(re.search(rb'Length="(\d+)"', out.data)[1])  # type: ignore[index]
    assert out.data[-length:] == video
    moved = brightened(source, "png")
    assert moved.lost == ("data behind the image",)
    assert b"MotionPhoto" not in moved.data


def test_content_credentials_are_left_out_with_their_pointer() -> None:
    packet = parts.xmp(b'dcterms:provenance="self#jumbf=c2pa"')
    other = parts.jumbf(b"another use of boxes", number=2)
    manifest = parts.jumbf(b"c2pa\0\x11\0\x10manifest"), parts.jumbf(b"second part of it")
    xmp = segment(0xE1, parts.XMP_PREFIX + packet)
    out = brightened(parts.jpeg(*manifest, other, xmp))
    assert out.lost == ("Content Credentials",)
    assert b"c2pa" not in out.data
    assert b"second part" not in out.data
    assert other in out.data
    assert b'dc:source="dark"' in out.data


@pytest.mark.parametrize("mark", [b"AXS!", b"AXS*"])
@pytest.mark.parametrize("preview", [False, True])
def test_absolute_offsets_behind_the_image_are_right_afterwards(mark: bytes, preview: bool) -> None:
    order = ">" if mark == b"AXS!" else "<"
    plain = parts.several_pictures(parts.small_jpeg(), 0x010001) if preview else parts.jpeg()
    header = len(plain)
    record = header + 24
    trailer = mark + struct.pack(order + "HHI", 0x100, 1, 0)
    trailer += b"IPTC" + struct.pack(order + "II", len(parts.IPTC), record) + parts.IPTC
    trailer += mark + struct.pack(order + "II", header, 0)
    out = brightened(plain + trailer).data
    at, _ = struct.unpack(order + "II", out[-8:])
    assert out[at : at + 4] == mark
    size, where = struct.unpack(order + "II", out[at + 16 : at + 24])
    assert out[where : where + size] == parts.IPTC


# Damage, and what is none

WHOLE = parts.jpeg(restart_marker_rows=1, quality=95)
SCAN = WHOLE.index(b"\xff\xda") + 14
PLAIN = parts.jpeg(quality=95)
END = len(PLAIN) - 200


def damaged() -> dict[str, bytes]:
    half = (SCAN + len(WHOLE)) // 2
    progressive = parts.jpeg(progressive=True, quality=95)
    first, second = (m.start() for m in list(re.finditer(rb"\xff[\xd0-\xd7]", WHOLE))[:2])
    return {
        "cut, but with an end": WHOLE[:half] + b"\xff\xd9",
        "second half zero": WHOLE[:half] + bytes(len(WHOLE) - half - 2) + b"\xff\xd9",
        "cut, and another file": WHOLE[:half] + WHOLE,
        "a sector missing": WHOLE[: half - 100] + WHOLE[half + 100 :],
        "restarts missing": WHOLE[:first] + WHOLE[second:],
        "progressive, cut": progressive[: len(progressive) * 2 // 3] + b"\xff\xd9",
        "a part twice": PLAIN[:END] + PLAIN[END - 300 :],
        "the rest zero": PLAIN[: END - 400] + bytes(4000) + b"\xff\xd9",
    }


@pytest.mark.parametrize("name", damaged())
def test_what_libjpeg_only_warns_of_is_corrupt(name: str) -> None:
    assert refusal(lambda: read(damaged()[name])) == "corrupt"


def test_oddities_that_do_no_harm() -> None:
    plain = parts.jpeg()
    pixels = read(plain).pixels
    scan = plain.index(b"\xff\xda")
    samsung = plain[: scan + 11] + bytes(3) + plain[scan + 14 :]
    version = parts.jpeg(segment(0xE0, b"JFIF\0\7\0\0\0\1\0\1\0\0"))
    for odd in (
        samsung,
        version,
        plain[:-2] + b"\x12\x34\xff\xd9",
        plain[:-2] + bytes(9) + plain[-2:],
        *(plain[:-2] + bytes([one]) * 5000 + plain[-2:] for one in (0, 0x20, 0x80)),  # filled up
    ):
        np.testing.assert_array_equal(read(odd).pixels, pixels)
    # As Motion JPEG has it: without the usual Huffman tables.
    usual = saved(Image.fromarray(parts.DARK), "JPEG")
    bare = b"".join(
        [b"\xff\xd8", *(usual[s.start : s.end] for s in segments(usual) if s.marker != 0xC4)]
    )
    bare += usual[list(segments(usual))[-1].end :]
    np.testing.assert_array_equal(read(bare).pixels, read(usual).pixels)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("12 bits", lambda d: d.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c")),
        ("lossless", lambda d: d.replace(b"\xff\xc0", b"\xff\xc3")),
        ("DNL", lambda d: d.replace(b"\xff\xc0\0\x11\x08\0\x40", b"\xff\xc0\0\x11\x08\0\0")),
        ("hierarchical", lambda d: d.replace(b"\xff\xc0", b"\xff\xc5")),
        ("JPEG-LS", lambda d: b"\xff\xd8\xff\xf7\0\x0b" + d[20:]),
        ("4x2", lambda d: d.replace(b"\1\x22\0\2\x11", b"\1\x42\0\2\x11")),
        ("3x1", lambda d: d.replace(b"\1\x22\0\2\x11", b"\1\x31\0\2\x11")),
        ("differing", lambda d: d.replace(b"\x22\0\2\x11\1\3\x11", b"\x22\0\2\x11\1\3\x21")),
    ],
)
def test_kinds_of_jpeg_that_are_not_kept(name: str, change: object) -> None:
    plain = parts.jpeg()
    changed = change(plain)  # type: ignore[operator]
    assert changed != plain
    assert refusal(lambda: read(changed)) == "unsupported", name


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1hevx", "HEI"),
        (b"\xff\x0a" + bytes(30), "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(30), "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(30), "JPEG 2000"),
        (b"GIF89a" + bytes(30), "GIF"),
        (b"8BPS" + bytes(30), "PSD"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "RAW of Canon"),
        (b"\0\0\0\x18ftypisom\0\0\0\1isommp42", "a video"),
    ],
)
def test_other_formats_are_named(start: bytes, name: str) -> None:
    with pytest.raises(ImageError, match=name) as caught:
        read(start + bytes(100))
    assert caught.value.code == "unsupported"
