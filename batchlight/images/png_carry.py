"""What a PNG file contains besides its coded image, and carrying it into another one.

Layouts: W3C, Portable Network Graphics, third edition; the chunk caBX by C2PA 2.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from batchlight.images import exif, photoshop, png_text, xmp
from batchlight.images.chunks import PNG_SIGNATURE, CarriedChunks, RawChunk, png_chunk, png_chunks
from batchlight.images.png_text import XMP_KEYWORD, Inflater
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
    before: list[RawChunk] = []
    after: list[RawChunk] = []
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
    new_kind, renewal = coded[25], _Renewal(carried, picture, lost)

    def written(parts: tuple[RawChunk, ...]) -> Iterator[bytes]:
        for kind, payload in parts:
            fitted = _fitted(carried, kind, payload, new_kind, lost)
            if fitted is not None:
                yield png_chunk(kind, renewal.of(kind, fitted))

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
    if kind == b"sBIT" and len(payload) == {RGBA: 3, GRAY_ALPHA: 1}.get(new_kind):
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


class _Renewal:
    """Metadata with new thumbnails, and without pointers to parts that are left out."""

    def __init__(self, carried: Carried, picture: Picture, lost: list[str]) -> None:
        kinds = {kind for kind, _ in carried.chunks}
        self._credentials, self._gain_map = b"caBX" in kinds, b"gdAT" in kinds
        self._picture, self._lost = picture, lost
        self._inflater = Inflater()

    def of(self, kind: bytes, payload: bytes) -> bytes:
        """A chunk's new content."""
        if kind == b"eXIf":
            return self._exif(payload)
        if kind not in png_text.TEXTS or not payload.startswith((XMP_KEYWORD, *png_text.RAW)):
            return payload
        is_raw = not payload.startswith(XMP_KEYWORD)
        taken = self._inflater.raw_profile if is_raw else self._inflater.text
        old = taken(kind, payload)
        if old is None:
            return payload
        new = self._profile(payload, old)
        if new == old:
            return payload
        written = png_text.with_raw_profile if is_raw else png_text.with_text
        return written(kind, payload, new)

    def _profile(self, payload: bytes, old: bytes) -> bytes:
        """What a text contains; ``payload`` begins with its kind."""
        if payload.startswith((XMP_KEYWORD, png_text.RAW_XMP)) or old.startswith(xmp.PREFIX):
            prefix = xmp.PREFIX if old.startswith(xmp.PREFIX) else b""
            return prefix + self._xmp(old[len(prefix) :])
        if payload.startswith((png_text.RAW_IPTC, png_text.RAW_8BIM)):
            prefix = photoshop.APP13_PREFIX if old.startswith(photoshop.APP13_PREFIX) else b""
            new, kept = photoshop.with_thumbnail(old[len(prefix) :], self._picture)
            self._lost += [] if kept else ["Photoshop thumbnail"]
            return prefix + new
        return self._exif(old)

    def _exif(self, block: bytes) -> bytes:
        prefix = exif.PREFIX if block.startswith(exif.PREFIX) else b""
        new, kept = exif.with_thumbnail(block[len(prefix) :], self._picture)
        self._lost += [] if kept else ["EXIF thumbnail"]
        return prefix + new

    def _xmp(self, packet: bytes) -> bytes:
        packet, kept = xmp.with_thumbnails(packet, self._picture)
        self._lost += [] if kept else ["XMP thumbnail"]
        packet = xmp.without_provenance(packet) if self._credentials else packet
        return xmp.without_gain_map(packet) if self._gain_map else packet
