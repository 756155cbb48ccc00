"""What a JPEG file contains besides its coded image, and carrying it into another one.

Layouts: Exif 2.3, ICC.1 annex B.4, XMP part 3, Adobe Photoshop File Formats, ISO/IEC 19566-5
(JUMBF), JFIF 1.02; AFCP as described in ExifTool.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from batchlight.images import exif, mpf, photoshop, xmp
from batchlight.images.holed import merge, subtract
from batchlight.images.jpeg_previews import previews
from batchlight.images.segments import (
    APP0,
    APP1,
    APP11,
    APP13,
    APP14,
    SEGMENT_MAX,
    Segment,
    segment,
)
from batchlight.images.thumbnails import Picture, as_jpeg

ICC_PREFIX = b"ICC_PROFILE\x00"
JFIF_PREFIX, JFXX_PREFIX, ADOBE_PREFIX = b"JFIF\x00", b"JFXX\x00", b"Adobe"
_JUMBF, _C2PA, _JUMBF_HEAD = b"JP", b"c2pa", 128
_RATIO_IMAGE = b"HDR_RI"
"""Of JPEG-HDR: like a gain map, from the pixels to those of a wider range."""
_ADOBE_TRANSFORM = 11
_EXIF_HEAD = len(exif.PREFIX)
_JFIF_HEAD = 14
"""Bytes of JFIF's segment before its thumbnail; the last two are the thumbnail's size."""


_Group = tuple[Sequence[Segment], Sequence[bytes], str | None]
"""Segments that belong together, the contents to put in the place of the first, and the name of a
loss."""
_NO_GROUP: _Group = ((), (), None)


@dataclass(frozen=True)
class Carried:
    """A JPEG file without its coded image."""

    segments: tuple[Segment, ...]
    trailer: bytes
    """What follows the image; absolute offsets in it count from its own start."""
    left_out: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """Memory used, in bytes."""
        return sum(len(one.payload) for one in self.segments) + len(self.trailer)


def take(
    data: bytes, found: Sequence[Segment], end: int, pictures: Sequence[mpf.Further]
) -> Carried:
    """Everything but the coded image and what would be stale for the new one.

    ``found``: the segments; ``end``: where the image ends; ``pictures``: those listed in the index.
    """
    left_out = {one.name for one in pictures if one.name}
    kept = [one for one in found if one.is_metadata]
    if any(not one.is_coding for one in found if not one.is_metadata):
        left_out.add("unknown segment")
    gone = {id(one) for one in kept if one.payload.startswith(mpf.PREFIX) and pictures}
    gain_map = "gain map" in left_out
    if gain_map:
        gone |= {id(one) for one in kept if one.payload.startswith(mpf.GAIN_MAP_URN)}
    ratios = {id(one) for one in with_prefix(kept, APP11, _RATIO_IMAGE)}
    if ratios:
        left_out.add("gain map")
    credentials = {id(one) for one in _credentials(kept)}
    if credentials:
        left_out.add("Content Credentials")
    kept = [
        _cleaned(one, gain_map, bool(credentials))
        for one in kept
        if id(one) not in gone | ratios | credentials
    ]
    cut = merge(((one.start, one.end) for one in pictures), len(data))
    rest = subtract([(end, len(data))], cut, len(data))
    trailer = b"".join(data[a:b] for a, b in rest)
    trailer = _shifted(trailer, -end - sum(b - a for a, b in cut))
    return Carried(tuple(kept), trailer, tuple(sorted(left_out)))


def put(carried: Carried, coded: bytes, colours: int, picture: Picture) -> tuple[bytes, list[str]]:
    """The file with another coded image and new thumbnails; and the names of what is lost.

    ``coded``: from the encoder's tables to EOI; ``colours``: 1 or 3.
    """
    lost, out = list(carried.left_out), [b"\xff\xd8"]
    replaced: dict[int, list[bytes]] = {}
    joined = [
        join(carried.segments, picture) for join in (_resources, _exif_of_parts, _extended_xmp)
    ]
    for group, payloads, name in (*joined, *_previews(carried.segments, picture)):
        replaced |= {id(one): [] for one in group}
        for first in group[:1]:
            replaced[id(first)] = [segment(first.marker, payload) for payload in payloads]
        lost += [name] if name else []
    for one in carried.segments:
        if id(one) in replaced:
            out += replaced[id(one)]
            continue
        payload, name = _renewed(one, colours, picture)
        lost += [name] if name else []
        if payload is not None:
            out.append(segment(one.marker, payload))
    out.append(coded)
    trailer = _shifted(carried.trailer, sum(map(len, out)))
    return b"".join([*out, trailer]), lost


def is_adobe(one: Segment) -> bool:
    """Whether it declares how the colours are coded."""
    payload = one.payload
    return one.marker == APP14 and payload.startswith(ADOBE_PREFIX) and len(payload) >= 12


def has_jfif_thumbnail(one: Segment) -> bool:
    """Whether it is JFIF's own segment, with a thumbnail."""
    is_jfif = one.marker == APP0 and one.payload.startswith(JFIF_PREFIX)
    return is_jfif and len(one.payload) > _JFIF_HEAD


def with_prefix(found: Iterable[Segment], marker: int, prefix: bytes) -> list[Segment]:
    """The segments of a marker whose content begins with a prefix."""
    return [one for one in found if one.marker == marker and one.payload.startswith(prefix)]


def exif_segments(found: Sequence[Segment]) -> list[Segment]:
    """The segments of the first EXIF block: its beginning, and those that continue it."""
    every = with_prefix(found, APP1, exif.PREFIX) or with_prefix(found, APP1, exif.MARK)
    return every[:1] + [one for one in every[1:] if not exif.begins(one.payload[_EXIF_HEAD:])]


def _split(data: bytes, prefix: bytes) -> list[bytes]:
    size = SEGMENT_MAX - len(prefix)
    return [prefix + data[at : at + size] for at in range(0, len(data), size)]


def _resources(found: Sequence[Segment], picture: Picture) -> _Group:
    """Photoshop's resources with a new thumbnail."""
    group = with_prefix(found, APP13, photoshop.APP13_PREFIX)
    joined = b"".join(one.payload[len(photoshop.APP13_PREFIX) :] for one in group)
    if not photoshop.has_thumbnail(joined):
        return _NO_GROUP
    new, kept = photoshop.with_thumbnail(joined, picture)
    parts = _split(new, photoshop.APP13_PREFIX)
    return group, parts, None if kept else "Photoshop thumbnail"


def _exif_of_parts(found: Sequence[Segment], picture: Picture) -> _Group:
    """EXIF that goes on in further segments, with a new thumbnail."""
    group = exif_segments(found)
    joined = b"".join(one.payload[_EXIF_HEAD:] for one in group)
    new, kept = exif.with_thumbnail(joined, picture) if len(group) > 1 else (joined, True)
    if new == joined:
        return _NO_GROUP
    parts = _split(new, group[0].payload[:_EXIF_HEAD])
    return group, parts, None if kept else "EXIF thumbnail"


def _extended_xmp(found: Sequence[Segment], picture: Picture) -> _Group:
    """XMP and its extension, if the latter has thumbnails, with new ones."""
    packets = with_prefix(found, APP1, xmp.PREFIX)[:1]
    packet = packets[0].payload[len(xmp.PREFIX) :] if packets else b""
    identifier, head = xmp.extension_of(packet), len(xmp.EXTENSION_PREFIX)
    if identifier is None:
        return _NO_GROUP
    extensions = with_prefix(found, APP1, xmp.EXTENSION_PREFIX)
    parts = [one for one in extensions if xmp.is_part_of(one.payload[head:], identifier)]
    payloads = [one.payload[head:] for one in parts]
    packet, made, kept = xmp.with_thumbnails_in_extension(packet, payloads, picture, SEGMENT_MAX)
    if not made:
        return _NO_GROUP
    packet, kept_too = xmp.with_thumbnails(packet, picture)
    lost = None if kept and kept_too else "XMP thumbnail"
    return [*packets, *parts], [xmp.PREFIX + packet, *made], lost


def _previews(found: Sequence[Segment], picture: Picture) -> Iterator[_Group]:
    """Previews of cameras, each in one segment as a new one."""
    for one in previews(found):
        new = picture.like(one.jpeg, SEGMENT_MAX - len(one.prefix))
        parts = [] if new is None else [one.prefix + new]
        yield one.segments, parts, "preview" if new is None else None


def _is_xmp(one: Segment) -> bool:
    return one.marker == APP1 and one.payload.startswith(xmp.PREFIX)


def _credentials(found: Sequence[Segment]) -> Iterator[Segment]:
    """The segments of C2PA manifests: JUMBF boxes, each of which may span several segments."""
    boxes = [one for one in found if one.marker == APP11 and one.payload.startswith(_JUMBF)]
    numbers = {one.payload[2:4] for one in boxes if _C2PA in one.payload[:_JUMBF_HEAD]}
    return (one for one in boxes if one.payload[2:4] in numbers)


def _cleaned(one: Segment, gain_map: bool, credentials: bool) -> Segment:
    """A segment without pointers to parts that are left out."""
    if not _is_xmp(one):
        return one
    packet = one.payload[len(xmp.PREFIX) :]
    if gain_map:
        packet = xmp.without_gain_map(packet)
    if credentials:
        packet = xmp.without_provenance(packet)
    return Segment(one.marker, one.start, xmp.PREFIX + packet)


def _renewed(one: Segment, colours: int, picture: Picture) -> tuple[bytes | None, str | None]:
    """A segment's content for the new image, None to leave it out; and the name of a loss."""
    payload = one.payload
    if one.marker == APP1 and payload.startswith(exif.MARK):
        block, kept = exif.with_thumbnail(payload[_EXIF_HEAD:], picture)
        return payload[:_EXIF_HEAD] + block, None if kept else "EXIF thumbnail"
    if _is_xmp(one):
        packet, kept = xmp.with_thumbnails(payload[len(xmp.PREFIX) :], picture)
        return xmp.PREFIX + packet, None if kept else "XMP thumbnail"
    if is_adobe(one):
        transform = bytes([colours == 3])  # as the encoder has stored the colours
        return payload[:_ADOBE_TRANSFORM] + transform + payload[_ADOBE_TRANSFORM + 1 :], None
    if has_jfif_thumbnail(one):
        return _jfif(payload, picture)
    if one.marker == APP0 and payload.startswith(JFXX_PREFIX):
        return _jfxx(payload, picture)
    return payload, None


def _jfif(payload: bytes, picture: Picture) -> tuple[bytes, str | None]:
    """JFIF's own thumbnail: its width, its height, and red, green, blue."""
    width, height = payload[_JFIF_HEAD - 2 : _JFIF_HEAD]
    if not (width and height):
        return payload, None
    small = picture.small(width, height)
    if small is None or len(payload) < _JFIF_HEAD + small.nbytes:
        return payload[: _JFIF_HEAD - 2] + bytes(2), "JFIF thumbnail"
    return payload[:_JFIF_HEAD] + small[:, :, ::-1].tobytes(), None


def _jfxx(payload: bytes, picture: Picture) -> tuple[bytes | None, str | None]:
    """JFIF's extension: a thumbnail as a JPEG (10), with a palette (11), or as colours (13)."""
    kind = payload[5:6]
    if kind == b"\x10":
        new = picture.like(payload[6:], SEGMENT_MAX - 6)
        if new is not None:
            return payload[:6] + new, None
    elif kind == b"\x13" and len(payload) >= 8:
        small = picture.small(payload[6], payload[7])
        if small is not None:
            return payload[:8] + small[:, :, ::-1].tobytes(), None
    elif kind == b"\x11" and len(payload) >= 8:
        small = picture.small(payload[6], payload[7])
        jpeg = None if small is None else as_jpeg(small, SEGMENT_MAX - 6)
        if jpeg is not None:
            return JFXX_PREFIX + b"\x10" + jpeg, None
    return None, "JFIF thumbnail"


def _shifted(trailer: bytes, by: int) -> bytes:
    """A trailer with ``by`` added to the offsets of its AFCP records, from the file's start.

    The records are a footer (mark, offset of the header, reserved) and a header of entries (tag,
    size, offset).
    """
    order = {b"AXS!": "big", b"AXS*": "little"}.get(trailer[-12:-8])
    if order is None:
        return trailer
    big = order == "big"
    out = bytearray(trailer)

    def read(at: int, size: int) -> int:
        return int.from_bytes(out[at : at + size], "big" if big else "little")

    def add(at: int) -> int:
        value = read(at, 4) + by
        if not 0 <= value < 2**32:
            return -1
        out[at : at + 4] = value.to_bytes(4, "big" if big else "little")
        return value

    before = read(len(out) - 8, 4)
    after = add(len(out) - 8)
    start = after if by < 0 else before  # within the trailer
    if after < 0 or out[start : start + 4] != trailer[-12:-8]:
        return trailer
    for number in range(read(start + 6, 2)):
        at = start + 12 + 12 * number + 8
        if at + 4 > len(out) or add(at) < 0:
            return trailer
    return bytes(out)
