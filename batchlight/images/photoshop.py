"""Photoshop's image resources, as in JPEG's APP13 and TIFF's tag 34377.

Layout: Adobe Photoshop File Formats Specification, image resource blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from batchlight.images.exif import METRES_PER_INCH
from batchlight.images.thumbnails import Picture, as_jpeg

APP13_PREFIX = b"Photoshop 3.0\x00"
_SIGNATURES = (b"8BIM", b"PHUT", b"AgHg", b"DCSR")
IPTC = 0x0404
_RESOLUTION = 0x03ED
"""In pixels per inch, whatever the unit in which it is to be shown."""
_THUMBNAILS = {0x0409: True, 0x040C: False}
"""Resources with a thumbnail: whether red and blue are swapped in its JPEG."""
_THUMBNAIL_BYTES = 48 * 1024


@dataclass(frozen=True)
class Resource:
    """One resource: its number, where it starts and ends, and its content."""

    number: int
    start: int
    end: int
    head: bytes
    """Signature, number and name."""
    payload: bytes


def resources(data: bytes) -> Iterator[Resource]:
    """Each resource, up to the first that is damaged."""
    at = 0
    while at + 12 <= len(data) and data[at : at + 4] in _SIGNATURES:
        name_bytes = (data[at + 6] + 2) & ~1
        size_at = at + 6 + name_bytes
        size = int.from_bytes(data[size_at : size_at + 4], "big")
        start = size_at + 4
        if start + size > len(data):
            return
        end = min(start + size + (size & 1), len(data))
        number = int.from_bytes(data[at + 4 : at + 6], "big")
        yield Resource(number, at, end, data[at:size_at], data[start : start + size])
        at = end


def resource(number: int, payload: bytes, head: bytes | None = None) -> bytes:
    """A resource as it is stored."""
    if head is None:
        head = b"8BIM" + number.to_bytes(2, "big") + b"\0\0"
    return head + len(payload).to_bytes(4, "big") + payload + bytes(len(payload) & 1)


def iptc(data: bytes) -> bytes | None:
    """The IPTC records among the resources."""
    found = (one.payload for one in resources(data) if one.number == IPTC)
    return next(found, None) or None


def density(data: bytes) -> tuple[float, float] | None:
    """Pixels per metre, across and down: in a resource as 16.16 bits, each before its unit."""
    found = [one.payload for one in resources(data) if one.number == _RESOLUTION]
    if not found or len(found[0]) < 16:
        return None
    across, down = (int.from_bytes(found[0][at : at + 4], "big") / 2**16 for at in (0, 8))
    return (across / METRES_PER_INCH, down / METRES_PER_INCH) if across and down else None


def not_shared(data: bytes) -> Iterator[str]:
    """The names of resources that have no equivalent in other formats' metadata."""
    found = [one.number for one in resources(data)]
    known = {IPTC, _RESOLUTION, *_THUMBNAILS, 0x0425}  # 0x0425: a digest of the IPTC records
    if {*found} - known:
        yield "Photoshop resources"
    if not _THUMBNAILS.keys().isdisjoint(found):
        yield "Photoshop thumbnail"
    if found.count(IPTC) > 1:
        yield "second IPTC"


def iptc_alone(data: bytes) -> bytes | None:
    """IPTC records that may be wrapped as in JPEG, or as a resource."""
    inner = data.removeprefix(APP13_PREFIX)
    return iptc(inner) if inner.startswith(_SIGNATURES) else data


def has_thumbnail(data: bytes) -> bool:
    """Whether there is a thumbnail among the resources."""
    return any(one.number in _THUMBNAILS for one in resources(data))


def with_thumbnail(data: bytes, picture: Picture) -> tuple[bytes, bool]:
    """The resources with a new thumbnail; False if the thumbnail had to be left out."""
    out, at, kept = bytearray(), 0, True
    for one in resources(data):
        if one.number not in _THUMBNAILS:
            continue
        new = _thumbnail(one, picture)
        out += data[at : one.start]
        if new is not None:
            out += resource(one.number, new, one.head)
        kept &= new is not None
        at = one.end
    return bytes(out + data[at:]), kept


def _thumbnail(old: Resource, picture: Picture) -> bytes | None:
    """A resource's content: format (1: JPEG), width, height, three lengths, bits, planes, JPEG."""
    width, height = (int.from_bytes(old.payload[n : n + 4], "big") for n in (4, 8))
    small = picture.small(width, height)
    if small is None or old.payload[:4] != b"\0\0\0\1":
        return None
    jpeg = as_jpeg(small[:, :, ::-1].copy() if _THUMBNAILS[old.number] else small, _THUMBNAIL_BYTES)
    if jpeg is None:
        return None
    return old.payload[:20] + len(jpeg).to_bytes(4, "big") + old.payload[24:28] + jpeg
