"""WebP: still pictures, lossy or lossless; also those stored as an animation of one frame.

OpenCV decodes and encodes the pixels. All other chunks are carried over.
Layouts: WebP Container Specification, RFC 9649; the chunk C2PA by C2PA 2.1.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
from PIL import Image

from batchlight.errors import ImageError
from batchlight.images import exif, opencv, xmp
from batchlight.images.chunks import CarriedChunks, RawChunk, riff_chunk, riff_chunks
from batchlight.images.image import Decoded, Encoded, Header, check_size
from batchlight.images.image_format import ImageFormat
from batchlight.images.metadata import Metadata, with_density_in_exif
from batchlight.images.thumbnails import Picture

_IMAGE = frozenset({b"VP8 ", b"VP8L", b"ALPH"})
_FEATURES, _FRAME, _C2PA, _EXIF, _XMP, _ICC = b"VP8X", b"ANMF", b"C2PA", b"EXIF", b"XMP ", b"ICCP"
_KNOWN = _IMAGE | {_FEATURES, _FRAME, b"ANIM", _EXIF, _XMP, _ICC}
_FRAME_HEAD = 16
"""Bytes of a frame's position, size, duration and flags, before its chunks."""
_HAS_ICC, _HAS_ALPHA, _HAS_EXIF, _HAS_XMP = 0x20, 0x10, 0x08, 0x04
"""Flags in the first byte of VP8X."""


@dataclass(frozen=True)
class Carried(CarriedChunks):
    """A WebP file without its coded image."""

    frame: tuple[bytes, tuple[RawChunk, ...]] | None
    """For an animation of one frame: its head, and its chunks besides the image."""


def inspect(data: bytes, max_pixels: int) -> Header:
    """The header, and whether the pixels are lossless."""
    with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
        (width, height), mode = image.size, image.mode
        frames = getattr(image, "n_frames", 1)
    check_size(width, height, max_pixels)
    if frames > 1:
        raise ImageError.unsupported("an animation cannot be kept; split the file first")
    _require_order([chunk.kind for chunk in riff_chunks(data)])
    carried = take(data)
    metadata = _metadata(carried)
    return Header(
        "webp",
        width,
        height,
        mode,
        metadata,
        orientation=metadata.orientation,
        lossless=is_lossless(data),
        carried=carried,
    )


def _require_order(kinds: list[bytes]) -> None:
    """Raise ``ImageError`` for a file in which decoders ignore parts that others would show."""
    extended = kinds[:1] == [_FEATURES]
    of_extended = [kind for kind in kinds if kind in (_FEATURES, b"ANIM", _FRAME, b"ALPH")]
    images = [kind for kind in kinds if kind in (b"VP8 ", b"VP8L", _FRAME)]
    if len(images) != 1 or (of_extended and not extended) or kinds.count(_FEATURES) > 1:
        raise ImageError.corrupt("the chunks are damaged or out of order")


def take(data: bytes) -> Carried:
    """Everything but the coded image."""
    before: list[RawChunk] = []
    after: list[RawChunk] = []
    into, frame = before, None
    end = min(8 + _little(data[4:8]), len(data))
    for chunk in riff_chunks(data, end=end):
        payload = data[chunk.content : chunk.content + chunk.size]
        if chunk.kind == _FRAME:
            inner = (
                (c.kind, payload[c.content : c.content + c.size])
                for c in riff_chunks(payload, _FRAME_HEAD)
            )
            frame = payload[:_FRAME_HEAD], tuple(p for p in inner if p[0] not in _IMAGE)
            into = after
        elif chunk.kind in _IMAGE:
            into = after
        else:
            into.append((chunk.kind, payload))
    return Carried(tuple(before), tuple(after), data[end:], frame)


def _metadata(carried: Carried) -> Metadata:
    block = carried.get(_EXIF)
    others = [
        "Content Credentials" if kind == _C2PA else f"{kind.decode('latin-1').strip()} chunk"
        for kind, _ in carried.chunks
        if kind not in _KNOWN
    ]
    others += ["data behind the image"] if carried.trailer else []
    return Metadata(
        exif=block.removeprefix(exif.PREFIX) or None if block else None,
        xmp=carried.get(_XMP) or None,
        icc=carried.get(_ICC) or None,
        others=tuple(others),
    )


def encode(decoded: Decoded, quality: int) -> Encoded:
    """A lossless WebP if the image came from one, otherwise a lossy one."""
    if decoded.header.lossless and decoded.header.format == "webp":
        parameters = [cv2.IMWRITE_WEBP_LOSSLESS_MODE, cv2.IMWRITE_WEBP_LOSSLESS_PRESERVE_COLOR]
    else:
        parameters = [cv2.IMWRITE_WEBP_QUALITY, quality]
    coded = opencv.encode(".webp", decoded.samples, parameters)
    height, width = decoded.pixels.shape[:2]
    if isinstance(decoded.header.carried, Carried):
        return _put(decoded.header.carried, coded, (width, height), Picture(decoded.pixels))
    metadata = with_density_in_exif(decoded.header.metadata)
    before = [(_ICC, metadata.icc)] if metadata.icc else []
    after = [(k, v) for k, v in ((_EXIF, metadata.exif), (_XMP, metadata.xmp)) if v]
    carried = Carried(tuple(before), tuple(after), b"", None)
    out = _file(carried, coded, (width, height), carried.chunks)
    return Encoded.of(out, metadata.lost({"EXIF", "XMP", "colour profile"}))


def _put(carried: Carried, coded: bytes, size: tuple[int, int], picture: Picture) -> Encoded:
    """The file with another coded image."""
    lost: list[str] = []
    chunks: list[RawChunk] = []
    credentials = carried.get(_C2PA) is not None
    for kind, payload in carried.chunks:
        if kind == _C2PA:
            lost.append("Content Credentials")
            continue
        if kind == _EXIF:
            prefix = exif.PREFIX if payload.startswith(exif.PREFIX) else b""
            block, kept = exif.with_thumbnail(payload[len(prefix) :], picture)
            payload = prefix + block
            lost += [] if kept else ["EXIF thumbnail"]
        elif kind == _XMP:
            payload, kept = xmp.with_thumbnails(payload, picture)
            payload = xmp.without_provenance(payload) if credentials else payload
            lost += [] if kept else ["XMP thumbnail"]
        chunks.append((kind, payload))
    return Encoded.of(_file(carried, coded, size, tuple(chunks)), lost)


def _file(
    carried: Carried, coded: bytes, size: tuple[int, int], chunks: tuple[RawChunk, ...]
) -> bytes:
    """A file of the encoder's image and these chunks, as many before the image as in the source."""
    first = len([1 for kind, _ in carried.before if kind != _C2PA])
    image = [
        (c.kind, coded[c.content : c.content + c.size])
        for c in riff_chunks(coded)
        if c.kind in _IMAGE
    ]
    before, after = list(chunks[:first]), list(chunks[first:])
    if carried.frame is not None:
        head, inner = carried.frame
        place = bytes(6) + _size(size) + head[12:]
        frame = place + b"".join(riff_chunk(*part) for part in [*image, *inner])
        image = [(_FRAME, frame)]
    has_alpha = any(c.kind == b"ALPH" for c in riff_chunks(coded)) or _lossless_alpha(coded)
    parts = [*before, *image, *after]
    if chunks or carried.frame is not None or (has_alpha and len(image) > 1):
        parts = [_features(parts, size, has_alpha), *(p for p in parts if p[0] != _FEATURES)]
    body = b"WEBP" + b"".join(riff_chunk(*part) for part in parts)
    return b"RIFF" + len(body).to_bytes(4, "little") + body + carried.trailer


def _features(parts: list[RawChunk], size: tuple[int, int], has_alpha: bool) -> RawChunk:
    """VP8X: the source's with the image's alpha, otherwise one that lists what is there."""
    old = next((payload for kind, payload in parts if kind == _FEATURES), None)
    if old is None or len(old) < 10:
        kinds = {kind for kind, _ in parts}
        flags = sum(
            flag
            for kind, flag in ((_ICC, _HAS_ICC), (_EXIF, _HAS_EXIF), (_XMP, _HAS_XMP))
            if kind in kinds
        )
        old = bytes([flags]).ljust(10, b"\0")
    flags = old[0] & ~_HAS_ALPHA | (_HAS_ALPHA if has_alpha else 0)
    return _FEATURES, bytes([flags]) + old[1:4] + _size(size) + old[10:]


def _size(size: tuple[int, int]) -> bytes:
    return b"".join((value - 1).to_bytes(3, "little") for value in size)


def is_lossless(data: bytes) -> bool:
    """Whether a still file's pixels are coded losslessly (a VP8L chunk)."""
    pixels = (kind for kind, _ in _images(data) if kind in (b"VP8L", b"VP8 "))
    return next(pixels, None) == b"VP8L"


def _lossless_alpha(data: bytes) -> bool:
    bits = next((_little(body[1:5]) for kind, body in _images(data) if kind == b"VP8L"), 0)
    return bool(bits >> 28 & 1)


def claimed_sizes(data: bytes) -> list[tuple[int, int]]:
    """Every (width, height) that a file states; empty for other content."""
    found = []
    for kind, body in _images(data):
        if kind == _FEATURES:
            found.append((_little(body[4:7]) + 1, _little(body[7:10]) + 1))
        elif kind == _FRAME:
            found.append((_little(body[6:9]) + 1, _little(body[9:12]) + 1))
        elif kind == b"VP8L":
            bits = _little(body[1:5])
            found.append(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1))
        elif kind == b"VP8 ":
            found.append((_little(body[6:8]) & 0x3FFF, _little(body[8:10]) & 0x3FFF))
    return found


WEBP = ImageFormat(
    "webp",
    recognises=lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP",
    inspect=inspect,
    encode=encode,
    claimed_sizes=claimed_sizes,
    holds_orientation=True,
    always_colour=True,
)


def _images(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, start of the content) of each chunk, also inside frames; none for other content."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return
    for chunk in riff_chunks(data):
        yield chunk.kind, data[chunk.content : chunk.content + _FRAME_HEAD]
        if chunk.kind == _FRAME:
            end = min(chunk.end, len(data))
            for inner in riff_chunks(data, chunk.content + _FRAME_HEAD, end):
                yield inner.kind, data[inner.content : inner.content + _FRAME_HEAD]


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")
