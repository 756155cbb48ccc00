"""A JPEG file's metadata in the terms that all formats share, and those written as segments.

Layouts: Exif 2.3, ICC.1 annex B.4, XMP part 3, JFIF 1.02, Adobe Photoshop File Formats.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from batchlight.images import exif, photoshop, xmp
from batchlight.images.jpeg_carry import (
    ADOBE_PREFIX,
    ICC_PREFIX,
    JFIF_PREFIX,
    JFXX_PREFIX,
    Carried,
    exif_segments,
    has_jfif_thumbnail,
    with_prefix,
)
from batchlight.images.metadata import COMMENT as COMMENT_KEYWORD
from batchlight.images.metadata import Metadata, ratio_within
from batchlight.images.segments import APP0, APP1, APP2, APP13, APP14, COMMENT, SEGMENT_MAX, segment

_METRES_PER_UNIT = {1: exif.METRES_PER_INCH, 2: 0.01}
"""By JFIF's unit: inches, centimetres."""
_JFIF_DENSITY_MAX = 65535
_SHARED = {
    APP0: (JFIF_PREFIX, JFXX_PREFIX),
    APP1: (exif.MARK, xmp.PREFIX, xmp.EXTENSION_PREFIX),
    APP2: (ICC_PREFIX,),
    APP13: (photoshop.APP13_PREFIX,),
    APP14: (ADOBE_PREFIX,),
}
"""How segments begin that have equivalents in other formats, or belong to the coded image."""


def read(carried: Carried) -> Metadata:
    """The metadata of a file."""

    def payloads(marker: int, prefix: bytes) -> list[bytes]:
        found = with_prefix(carried.segments, marker, prefix)
        return [one.payload[len(prefix) :] for one in found]

    parts = exif_segments(carried.segments)
    block = b"".join(one.payload[len(exif.PREFIX) :] for one in parts) or None
    packet, whole = None, True
    if packets := payloads(APP1, xmp.PREFIX):
        packet, whole = xmp.joined(packets[0], payloads(APP1, xmp.EXTENSION_PREFIX))
    resources = b"".join(payloads(APP13, photoshop.APP13_PREFIX))
    comments = [one.payload for one in carried.segments if one.marker == COMMENT]
    others = [*carried.left_out, *_others(carried)]
    others += [] if whole else ["extended XMP"]
    others += ["second EXIF"] if len(payloads(APP1, exif.MARK)) > len(parts) else []
    others += ["second XMP"] if packets[1:] else []
    others += photoshop.not_shared(resources)
    if payloads(APP0, JFXX_PREFIX) or any(map(has_jfif_thumbnail, carried.segments)):
        others.append("JFIF thumbnail")
    profiles = payloads(APP2, ICC_PREFIX)
    density, aspect = _density(payloads(APP0, JFIF_PREFIX), block)
    if density is None and aspect is None and exif.density(block) is None:
        density = photoshop.density(resources)
    icc = _joined_profile(profiles)
    others += ["damaged colour profile"] if profiles and icc is None else []
    return Metadata(
        exif=block,
        xmp=packet,
        icc=icc,
        iptc=photoshop.iptc(resources),
        texts=tuple((COMMENT_KEYWORD, _text(comment)) for comment in comments),
        density=density,
        aspect=aspect,
        others=tuple(others),
    )


def _others(carried: Carried) -> Iterator[str]:
    names = {
        f"APP{one.marker - APP0} segment"
        for one in carried.segments
        if one.marker != COMMENT and not one.payload.startswith(_SHARED.get(one.marker, ()))
    }
    yield from sorted(names)
    if carried.trailer:
        yield "data behind the image"


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _density(
    headers: Sequence[bytes], block: bytes | None
) -> tuple[tuple[float, float] | None, tuple[int, int] | None]:
    """From JFIF (version, unit, across, down), unless EXIF has it; or the shape of a pixel."""
    if exif.density(block) is not None or not headers or len(headers[0]) < 7:
        return None, None
    metres = _METRES_PER_UNIT.get(headers[0][2])
    x, y = (int.from_bytes(headers[0][at : at + 2], "big") for at in (3, 5))
    if not (x and y):
        return None, None
    if metres is None:
        return None, None if x == y else (x, y)
    return (x / metres, y / metres), None


def _joined_profile(parts: Sequence[bytes]) -> bytes | None:
    """A profile assembled in the order that its parts state; None if one is missing.

    Like ExifTool, takes numbers from 0 too, and parts that are there twice.
    """
    ordered = sorted(set(parts))
    numbers = [part[0] for part in ordered if part]
    if not numbers or numbers != list(range(numbers[0], numbers[0] + len(ordered))):
        return None
    total = max((part[1] for part in ordered if len(part) > 1), default=0)
    if numbers[0] > 1 or len(ordered) < total:
        return None
    return b"".join(part[2:] for part in ordered) or None


def converted(metadata: Metadata, jfif: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The segments for an image of another format, and the names of what they cannot hold.

    ``jfif``: the encoder's segment. Raises ``ValueError`` for EXIF over 64 KB.
    """
    held = {"EXIF", "XMP", "colour profile", "IPTC", "comment", "text", "resolution"}
    density = metadata.resolution
    x, y = (math.floor(value * _METRES_PER_UNIT[1] + 0.5) for value in density or (0, 0))
    if density is not None and not 1 <= min(x, y) <= max(x, y) <= _JFIF_DENSITY_MAX:
        held.remove("resolution")
    elif density is not None:
        jfif = jfif[:11] + b"\1" + x.to_bytes(2, "big") + y.to_bytes(2, "big") + jfif[16:]
    elif metadata.aspect is not None:
        x, y = ratio_within(metadata.aspect, _JFIF_DENSITY_MAX)
        jfif = jfif[:11] + b"\0" + x.to_bytes(2, "big") + y.to_bytes(2, "big") + jfif[16:]
    return jfif + b"".join(_segments(metadata)), metadata.lost(held)


def _segments(metadata: Metadata) -> Iterator[bytes]:
    if metadata.exif:
        yield segment(APP1, exif.PREFIX + metadata.exif)
    if metadata.xmp:
        packet, parts = metadata.xmp, list[bytes]()
        if len(xmp.PREFIX + packet) > SEGMENT_MAX:
            packet, parts = xmp.split(packet, SEGMENT_MAX)
        yield segment(APP1, xmp.PREFIX + packet)
        yield from (segment(APP1, part) for part in parts)
    if metadata.icc:
        size = SEGMENT_MAX - len(ICC_PREFIX) - 2
        profile = [metadata.icc[at : at + size] for at in range(0, len(metadata.icc), size)]
        if len(profile) > 255:
            raise ValueError("the colour profile is too long for a JPEG file")
        for number, part in enumerate(profile, 1):
            yield segment(APP2, ICC_PREFIX + bytes([number, len(profile)]) + part)
    if metadata.iptc:
        data = photoshop.APP13_PREFIX + photoshop.resource(photoshop.IPTC, metadata.iptc)
        yield segment(APP13, data)
    for keyword, text in metadata.texts:
        shown = text if keyword == COMMENT_KEYWORD else f"{keyword}: {text}"
        encoded = shown.encode()
        for at in range(0, len(encoded), SEGMENT_MAX):
            yield segment(COMMENT, encoded[at : at + SEGMENT_MAX])
