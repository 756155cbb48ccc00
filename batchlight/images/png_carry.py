"""What a PNG file contains besides its coded image, and carrying it into another one.

Layouts: W3C, Portable Network Graphics, third edition; the chunk caBX by C2PA 2.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from batchlight.images import exif, png_text, xmp
from batchlight.images.chunks import PNG_SIGNATURE, CarriedChunks, Part, png_chunk, png_chunks
from batchlight.images.thumbnails import Picture

GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6
"""Pixel formats (IHDR's colour type)."""
_CODED = frozenset({b"IHDR", b"IDAT", b"IEND"})
_HEADER_END = len(PNG_SIGNATURE) + 25
"""IHDR always comes first and is always 13 bytes long."""
_OF_OLD_PIXELS = {
    b"hIST": "suggested palette",
    b"sPLT": "suggested palette",
    b"iDOT": "iDOT chunk",
    b"caBX": "Content Credentials",
    b"dSIG": "digital signature",
    b"gmAP": "gain map",
    b"gdAT": "gain map",
}
"""Chunks that would be stale, and the name of each loss."""


@dataclass(frozen=True)
class Carried(CarriedChunks):
    """A PNG file without its coded image."""

    kind: int
    depth: int


def take(data: bytes, depth: int, kind: int) -> Carried:
    """Everything but the coded image."""
    before: list[Part] = []
    after: list[Part] = []
    into, end = before, len(data)
    for chunk in png_chunks(data):
        if chunk.kind == b"IDAT":
            into = after
        elif chunk.kind == b"IEND":
            end = chunk.end
        elif chunk.kind not in _CODED:
            into.append((chunk.kind, data[chunk.content : chunk.content + chunk.size]))
    return Carried(tuple(before), tuple(after), data[end:], kind, depth)


def put(carried: Carried, coded: bytes, picture: Picture) -> tuple[bytes, list[str]]:
    """The file with another coded image, a whole PNG without metadata; the names of what is lost.

    Thumbnails are replaced by new ones.
    """
    lost: list[str] = []
    new_kind = coded[25]

    def written(parts: tuple[Part, ...]) -> Iterator[bytes]:
        for kind, payload in parts:
            fitted = _fitted(carried, kind, payload, new_kind, lost)
            if fitted is not None:
                yield png_chunk(kind, _renewed(carried, kind, fitted, picture, lost))

    middle = coded[_HEADER_END:-12]
    head, tail = b"".join(written(carried.before)), b"".join(written(carried.after))
    return b"".join([coded[:_HEADER_END], head, middle, tail, coded[-12:], carried.trailer]), lost


def _fitted(
    carried: Carried, kind: bytes, payload: bytes, new_kind: int, lost: list[str]
) -> bytes | None:
    """A chunk's content for the pixel format that is written; None to leave it out."""
    if kind in _OF_OLD_PIXELS:
        lost.append(_OF_OLD_PIXELS[kind])
        return None
    if kind == b"PLTE":
        lost.append("palette" if carried.kind == PALETTE else "suggested palette")
        return None
    if kind == b"tRNS":  # it has become alpha
        return None
    if kind == b"bKGD":
        return _background(carried, payload)
    if kind == b"sBIT" and new_kind == RGBA and len(payload) == 3:
        return payload + bytes([max(8, carried.depth)])
    return payload


def _background(carried: Carried, payload: bytes) -> bytes:
    """The value in the pixel format that is written: 16 bits per channel."""
    if carried.kind == PALETTE:
        palette, at = carried.get(b"PLTE") or b"", 3 * payload[0]
        return b"".join(bytes([0, value]) for value in palette[at : at + 3].ljust(3, b"\0"))
    if carried.kind == GRAY and carried.depth < 8 and len(payload) == 2:
        return bytes([0, payload[1] * 255 // (2**carried.depth - 1) & 255])
    return payload


def _renewed(
    carried: Carried, kind: bytes, payload: bytes, picture: Picture, lost: list[str]
) -> bytes:
    """A chunk with a new thumbnail, and without pointers to parts that are left out."""
    if kind == b"eXIf":
        prefix = exif.PREFIX if payload.startswith(exif.PREFIX) else b""
        block, kept = exif.with_thumbnail(payload[len(prefix) :], picture)
        lost += [] if kept else ["EXIF thumbnail"]
        return prefix + block
    raw = (png_text.RAW_EXIF, png_text.RAW_APP1)
    if kind in (b"zTXt", b"tEXt") and payload.startswith(raw):
        old = png_text.raw_profile(kind, payload)
        if old is None or old.startswith(xmp.PREFIX):
            return payload
        prefix = exif.PREFIX if old.startswith(exif.PREFIX) else b""
        block, kept = exif.with_thumbnail(old[len(prefix) :], picture)
        lost += [] if kept else ["EXIF thumbnail"]
        return png_text.with_raw_profile(kind, payload, prefix + block)
    if kind == b"iTXt" and payload.startswith(png_text.XMP_KEYWORD + b"\0"):
        old = png_text.international(payload)
        if old is None:
            return payload
        packet, kept = xmp.with_thumbnails(old, picture)
        lost += [] if kept else ["XMP thumbnail"]
        if carried.get(b"caBX") is not None:
            packet = xmp.without_provenance(packet)
        if carried.get(b"gdAT") is not None:
            packet = xmp.without_gain_map(packet)
        return payload if packet == old else png_text.with_international(payload, packet)
    return payload
