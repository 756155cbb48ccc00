"""PNG: every pixel format, but no animations.

OpenCV decodes and encodes the pixels. Everything else in the file is carried over (``png_carry``),
or converted (``png_metadata``). Layout: W3C, Portable Network Graphics, third edition.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from batchlight.errors import ImageError
from batchlight.images import opencv, png_carry, png_metadata
from batchlight.images.chunks import PNG_SIGNATURE, png_chunk, png_chunks
from batchlight.images.image import Decoded, Encoded, Header, check_size
from batchlight.images.image_format import ImageFormat
from batchlight.images.pixels import Pixels
from batchlight.images.png_carry import GRAY, GRAY_ALPHA, PALETTE, RGB, RGBA
from batchlight.images.thumbnails import Picture

_HEADER = slice(16, 29)
_DEPTHS = {
    GRAY: (1, 2, 4, 8, 16),
    RGB: (8, 16),
    PALETTE: (1, 2, 4, 8),
    GRAY_ALPHA: (8, 16),
    RGBA: (8, 16),
}
_MODES = {GRAY: "L", RGB: "RGB", PALETTE: "P", GRAY_ALPHA: "LA", RGBA: "RGBA"}
_OF_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})
_NOT_DECODED = _OF_ANIMATION | {b"zTXt", b"iTXt", b"iCCP"}
"""Chunks that would be decoded or decompressed for nothing."""
_COMPRESSION = 6
"""Level of zlib, its default; higher ones take far longer for a few percent."""
_FRAMES_MAX = 2**31
_UNDERSTOOD = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_CRITICAL = 0x20
"""The bit of a chunk's first letter that is set if readers may ignore it."""


def inspect(data: bytes, max_pixels: int) -> Header:
    """The header, with everything but the coded image."""
    first = next(png_chunks(data), None)
    if first is not None and first.kind == b"CgBI":
        raise ImageError.unsupported(
            "the content is CgBI, Apple's kind of PNG, which batchlight does not read"
        )
    if len(data) < 33 or first is None or first.kind != b"IHDR" or first.size != 13:
        raise ImageError.corrupt("the header is damaged or cut short")
    if zlib.crc32(data[12:29]) != int.from_bytes(data[29:33], "big"):
        raise ImageError.corrupt("the header is damaged: its checksum is wrong")
    width, height, depth, kind, *_ = struct.unpack(">IIBBBBB", data[_HEADER])
    if not (width and height) or depth not in _DEPTHS.get(kind, ()):
        raise ImageError.corrupt("the header is damaged: unknown pixel type")
    check_size(width, height, max_pixels)
    if not is_whole(data):
        raise ImageError.corrupt("the file is cut short, or a chunk is damaged")
    for chunk in png_chunks(data):
        if not chunk.kind[0] & _CRITICAL and chunk.kind not in _UNDERSTOOD:
            name = chunk.kind.decode("latin-1")
            raise ImageError.unsupported(f"PNG with the chunk {name} cannot be read")
    carried = png_carry.take(data, depth, kind)
    if _frames(carried) > 1:
        raise ImageError.unsupported("an animation cannot be kept; split the file first")
    metadata = png_metadata.read(carried)
    return Header(
        "png",
        width,
        height,
        _MODES[kind] if _transparent_gray(carried) is None else "LA",
        metadata,
        orientation=metadata.orientation,
        transparent_colour=carried.get(b"tRNS") is not None,
        carried=carried,
    )


def _frames(carried: png_carry.Carried) -> int:
    if any(kind == b"fdAT" for kind, _ in carried.chunks):  # whatever is stated
        return 2
    controls = [payload for kind, payload in carried.before if kind == b"acTL"]
    count = int.from_bytes(controls[0][:4], "big") if len(controls) == 1 else 0
    if not 0 < count <= _FRAMES_MAX:  # readers ignore it
        return 1
    # A picture before the first frame is an additional one.
    return count + all(kind != b"fcTL" for kind, _ in carried.before)


def is_whole(data: bytes) -> bool:
    """Whether all chunks lie within the file, with pixels and undamaged metadata among them.

    A decoder may reserve whatever a chunk claims to hold, even after an end without pixels: up to 4
    GB for a few damaged bytes. And readers refuse a file for the checksum of metadata, even if
    their decoders do not mind.
    """
    has_pixels = False
    for chunk in png_chunks(data):
        if chunk.kind == b"IEND":
            return has_pixels and chunk.end <= len(data)
        has_pixels |= chunk.kind == b"IDAT"
        if chunk.kind != b"IDAT" and chunk.kind[0] & _CRITICAL:
            checked = memoryview(data)[chunk.start + 4 : chunk.end - 4]
            if data[chunk.end - 4 : chunk.end] != zlib.crc32(checked).to_bytes(4, "big"):
                return False
    return False


def decode(data: bytes, header: Header) -> Pixels | None:
    """The samples of the picture that is not a frame, or the only one."""
    carried = header.carried
    assert isinstance(carried, png_carry.Carried)
    key = _transparent_gray(carried)
    unread = _NOT_DECODED | ({b"tRNS"} if key is not None else frozenset())
    if any(kind in unread for kind, _ in carried.chunks):
        data = _without(data, unread)
    samples = opencv.decode(data)
    if key is None or samples is None or samples.ndim != 2:
        return samples
    alpha = np.where(samples == key, 0, np.iinfo(samples.dtype).max).astype(samples.dtype)
    return np.stack([samples, samples, samples, alpha], axis=2)


def _without(data: bytes, kinds: frozenset[bytes]) -> bytes:
    """The file without chunks of some kinds, unless they interrupt the pixels: that is damage."""
    chunks = list(png_chunks(data))
    coded = [number for number, chunk in enumerate(chunks) if chunk.kind == b"IDAT"]
    kept = (
        chunk
        for number, chunk in enumerate(chunks)
        if chunk.kind not in kinds or coded[0] < number < coded[-1]
    )
    return PNG_SIGNATURE + b"".join(data[c.start : c.end] for c in kept)


def _transparent_gray(carried: png_carry.Carried) -> int | None:
    """The sample that is transparent in a picture of grays, in 8 or 16 bits; None without one."""
    found = next((payload for kind, payload in carried.before if kind == b"tRNS"), b"")
    if carried.kind != GRAY or len(found) != 2:
        return None
    top: int = 2**carried.depth - 1
    value = int.from_bytes(found, "big") & top
    return value if top > 255 else value * 255 // top


def encode(decoded: Decoded, quality: int) -> Encoded:
    """A PNG with the same channels and depth."""
    if decoded.alpha is not None and decoded.pixels.ndim == 2:
        data = _gray_alpha_png(decoded.pixels, decoded.alpha)
    else:
        data = opencv.encode(".png", decoded.samples)
    if isinstance(decoded.header.carried, png_carry.Carried):
        return Encoded.of(*png_carry.put(decoded.header.carried, data, Picture(decoded.pixels)))
    chunks, lost = png_metadata.converted(decoded.header.metadata)
    return Encoded.of(data[:33] + chunks + data[33:], lost)


PNG = ImageFormat(
    "png",
    recognises=lambda data: data.startswith(PNG_SIGNATURE),
    inspect=inspect,
    encode=encode,
    decode=decode,
    not_read=("a text or profile of more", "texts and profiles of more"),
    keeps_gray_alpha=True,
    holds_16_bit=True,
    holds_orientation=True,
    holds_cicp=True,
    holds_aspect=True,
)


def _gray_alpha_png(gray: Pixels, alpha: Pixels) -> bytes:
    """Gray with alpha, which OpenCV cannot write: its gray PNG with the pixels replaced."""
    samples = np.stack([gray, alpha], axis=2)
    samples = samples.astype(samples.dtype.newbyteorder(">"), copy=False)
    header = bytearray(opencv.encode(".png", gray)[16:29])
    header[9] = GRAY_ALPHA
    unfiltered = b"".join(b"\x00" + row.tobytes() for row in samples)
    return b"".join(
        [
            PNG_SIGNATURE,
            png_chunk(b"IHDR", bytes(header)),
            png_chunk(b"IDAT", zlib.compress(unfiltered, _COMPRESSION)),
            png_chunk(b"IEND", b""),
        ]
    )
