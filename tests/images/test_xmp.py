"""XMP is changed as text: in no time whatever its length, and only where it has to be."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable

import numpy as np
import pytest

from batchlight.images import xmp
from batchlight.images.thumbnails import Picture
from tests.support import image_parts as parts
from tests.support.image_files import opened

LENGTH = 500_000
"""Bytes: so long that anything that grows with their square takes a minute or more."""
SECONDS = 2
"""Generous: each of them takes less than a tenth of this."""

HOSTILE = {
    "padding": b" ",
    "padding with names": b" hdrgm:Version" + b" " * 5000,
    "lines": b" \n",
    "attributes": b' hdrgm:a="1"',
    "attributes without an end": b" hdrgm:a=\" Camera:MotionPhoto='",
    "one quote": b' Camera:MotionPhoto="',
    "names alone": b" dcterms:provenance",
    "a long name": b"Camera:MotionPhoto",
    "tags without an end": b"<hdrgm:a ",
    "tags that are not closed": b"<hdrgm:a><GContainer:Directory>",
    "closed tags": b"<dcterms:provenance/>",
    "items": b"<rdf:li/>",
    "items without an end": b"<rdf:li ",
    "items that are not closed": b"<rdf:li>",
    "entries of gain maps": b'<rdf:li Semantic="GainMap"/>',
    "half entries": b"Semantic = ",
    "namespaces": b' xmlns:a="b"',
    "namespaces without an end": b" xmlns:a='",
    "pictures": b" xmpGImg:image =",
    "pictures without an end": b"<xmpGImg:image> xapGImg:image='",
    "orientations": b"tiff:Orientation ",
    "words": b"a.b-",
    "less than": b"<",
}
CHANGES: list[Callable[[bytes], object]] = [
    xmp.of_a_single_picture,
    xmp.upright,
    xmp.tells_of_gain_map,
    lambda packet: xmp.with_thumbnails(packet, parts.PICTURE),
    lambda packet: xmp.joined(packet, [extension(packet)]),
]
IDENTIFIER = b"0123456789ABCDEF0123456789ABCDEF"


def extension(packet: bytes) -> bytes:
    """What follows the prefix of a segment."""
    return IDENTIFIER + len(packet).to_bytes(4, "big") + bytes(4) + packet


@pytest.mark.parametrize("name", HOSTILE)
def test_no_packet_takes_long(name: str) -> None:
    inner = HOSTILE[name] * (LENGTH // len(HOSTILE[name]))
    names = b" dcterms:provenance hdrgm:a Camera:MotionPhoto a:image "
    listed = b'<rdf:li Item:Semantic="GainMap"/>' + names  # so that everything is searched for
    note = b'xmpNote:HasExtendedXMP="' + IDENTIFIER + b'"'
    for packet in (parts.xmp(b"", inner + listed), parts.xmp(note + inner), listed + inner):
        for change in CHANGES:
            began = time.monotonic()
            change(packet)
            assert time.monotonic() - began < SECONDS


def test_usual_padding_takes_no_time() -> None:
    """As every packet of Adobe's has it; the whole of a small image takes 14 ms."""
    packet = parts.xmp() + (b" " * 99 + b"\n") * 40 + b'<?xpacket end="w"?>'
    fastest = min(timed(packet) for _ in range(20))
    assert fastest < 0.001


def timed(packet: bytes) -> float:
    began = time.perf_counter()
    for change in CHANGES:
        change(packet)
    return time.perf_counter() - began


def test_properties_are_left_out_with_the_space_before_them() -> None:
    kept = b' dc:source="dark"'
    for before, after in (
        (b'\n   hdrgm:Version = "1.0"', b""),
        (b" HDRGainMap:HDRGainMapVersion='65536'", b""),
        (b'\t\r\n dcterms:provenance="a" GCamera:MotionPhoto="1"', b""),
        (b'ahdrgm:Version="1.0"', b'ahdrgm:Version="1.0"'),
        (b' b:hdrgm="1.0"', b' b:hdrgm="1.0"'),
    ):
        assert xmp.of_a_single_picture(kept + before + kept) == kept + after + kept
    for before, after in (
        (b"<hdrgm:A>1</hdrgm:A>", b""),
        (b'<hdrgm:A rdf:resource="b"/>', b""),
        (b"<Container:Directory><rdf:Seq/></Container:Directory>", b""),
        (b"<hdrgm:A>1</hdrgm:B>", b"<hdrgm:A>1</hdrgm:B>"),
        (b"<hdrgm:A", b"<hdrgm:A"),
    ):
        assert xmp.of_a_single_picture(b" a " + before + b" b ") == b" a " + after + b" b "


@pytest.mark.parametrize(
    "form",
    [
        b'<rdf:li xmpGImg:image="%s"/>',
        b"<rdf:li xmpGImg:image='%s'/>",
        b"<rdf:li xapGImg:image = '%s'/>",
        b"<xmpGImg:image>%s</xmpGImg:image>",
        b"<xapGImg:image>%s</xapGImg:image>",  # Adobe's before 2004
        b"<a xmlns:p='http://ns.adobe.com/xap/1.0/g/img/'><p:image>%s</p:image></a>",
    ],
)
def test_thumbnails_are_found_however_they_are_written(form: bytes) -> None:
    old = base64.b64encode(parts.small_jpeg())
    lines = b"&#xA;".join(old[at : at + 76] for at in range(0, len(old), 76))
    before, after = form.split(b"%s")
    packet, kept = xmp.with_thumbnails(
        parts.xmp(b"", before + lines + after), Picture(np.full_like(parts.DARK, parts.BRIGHT))
    )
    assert kept
    start = packet.index(before) + len(before)
    new = base64.b64decode(packet[start : packet.index(after, start)], validate=True)
    assert np.asarray(opened(new)).mean() == pytest.approx(parts.BRIGHT, abs=3)
    assert packet[:start] + packet[start:].partition(after)[2] == parts.xmp(b"", before)


def test_other_images_stay() -> None:
    for other in (b"<b:image>QUJD</b:image>", b" image='QUJD'", b"<xmpGImg:imaged>A</xmpGImg:im>"):
        packet = parts.xmp(b"", other)
        assert xmp.with_thumbnails(packet, parts.PICTURE) == (packet, True)


def test_only_so_many_thumbnails_are_made() -> None:
    """Each takes as long as its header claims it is large, and a few bytes may claim it."""
    huge = base64.b64encode(b"\xff\xd8\xff\xc0\0\x11\x08\x10\0\x10\0\3" + bytes(2000))
    packet = parts.xmp(b"", b"<xmpGImg:image>%s</xmpGImg:image>" % huge * 500)
    began = time.monotonic()
    changed, kept = xmp.with_thumbnails(packet, parts.PICTURE)
    assert time.monotonic() - began < SECONDS
    assert (huge in changed, kept) == (False, False)
