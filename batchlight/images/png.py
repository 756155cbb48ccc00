"""PNG: gray with alpha; metadata chunks, taken out and put in.

OpenCV decodes and encodes the pixels. It would lose XMP, texts and the resolution, so the metadata
is spliced in here: verbatim from another PNG, else as EXIF, XMP and ICC.
Layouts: W3C, Portable Network Graphics, third edition.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from PIL import Image

from batchlight.errors import ErrorCode, ImageError
from batchlight.images import opencv, pillow
from batchlight.images.image import Decoded, Header
from batchlight.images.image_format import ImageFormat
from batchlight.images.metadata import EXIF_PREFIX, Metadata
from batchlight.images.pillow import PNG_TEXT_MAX
from batchlight.images.pixels import Pixels

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = len(PNG_SIGNATURE) + 25
"""IHDR is always first and always 13 bytes long."""
_DEPTH_AND_KIND = slice(24, 26)
_GRAY_ALPHA = 4
"""Kind of pixel (IHDR's colour type)."""

# Everything about an image but its pixels, its palette and its transparency.
_METADATA = frozenset(b"gAMA cHRM sRGB iCCP cICP mDCV cLLI pHYs eXIf tEXt zTXt iTXt tIME".split())
_XMP_KEYWORD = b"XML:com.adobe.xmp"


def inspect(image: Image.Image, data: bytes, max_pixels: int) -> Header:
    """The header, with metadata from before and after the pixels."""
    if not is_whole(data):
        raise ImageError(ErrorCode.CORRUPT, "the file is cut short, or a chunk is damaged")
    header = pillow.header_of(image, "png", _metadata(image, data))
    # Pillow calls 16-bit gray with alpha RGBA.
    gray_alpha = data[_DEPTH_AND_KIND] == bytes([16, _GRAY_ALPHA])
    return replace(header, mode="LA") if gray_alpha else header


def encode(decoded: Decoded, quality: int) -> bytes:
    """A PNG of the same channels and depth."""
    if decoded.alpha is not None and decoded.pixels.ndim == 2:
        data = _gray_alpha_png(decoded.pixels, decoded.alpha)
    else:
        data = opencv.encode(".png", decoded.samples)
    return with_metadata(data, decoded.header.metadata)


PNG = ImageFormat(
    "png",
    pillow_names=("PNG",),
    inspect=inspect,
    encode=encode,
    not_read=("Decompressed data too large",),
    holds_16_bit=True,
    holds_orientation=True,
)


def is_whole(data: bytes) -> bool:
    """Whether all chunks lie within the file, with pixels and undamaged metadata among them.

    A decoder may reserve what a chunk claims to hold, even behind an end without pixels: up to
    4 GB for a few damaged bytes. And readers refuse a file for the checksum of metadata, even if
    their decoders do not mind.
    """
    has_pixels = False
    for kind, at, end in _places(data):
        if kind == b"IEND":
            return has_pixels and end <= len(data)
        has_pixels |= kind == b"IDAT"
        if kind in _METADATA:
            checked = memoryview(data)[at + 4 : end - 4]
            if data[end - 4 : end] != zlib.crc32(checked).to_bytes(4, "big"):
                return False
    return False


def metadata_chunks(data: bytes) -> bytes:
    """The chunks with metadata as they stand."""
    return b"".join(chunk for kind, chunk in chunks(data) if kind in _METADATA)


def payloads(data: bytes) -> tuple[bytes | None, bytes | None]:
    """EXIF and XMP, wherever they stand: before or after the pixels."""
    exif = xmp = None
    for kind, chunk in chunks(data):
        if kind == b"eXIf":
            exif = chunk[8:-4].removeprefix(EXIF_PREFIX)
        elif kind == b"iTXt" and chunk[8:].startswith(_XMP_KEYWORD + b"\x00"):
            xmp = _international_text(chunk[8 + len(_XMP_KEYWORD) + 1 : -4])
    return exif or None, xmp or None


def with_metadata(data: bytes, metadata: Metadata) -> bytes:
    """Put metadata into a freshly encoded PNG that has none."""
    new = metadata.native.get("png")
    if new is None:
        new = b"".join(_new_chunks(metadata))
    return data[:_HEADER_END] + new + data[_HEADER_END:]


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, whole chunk) of each chunk, up to the end of the image."""
    for kind, at, end in _places(data):
        if kind == b"IEND":
            return
        yield kind, data[at:end]


def _places(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of each chunk, even if its end lies behind that of the file."""
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at, end
        at = end


def _chunk(kind: bytes, payload: bytes) -> bytes:
    check = zlib.crc32(kind + payload).to_bytes(4, "big")
    return len(payload).to_bytes(4, "big") + kind + payload + check


def _metadata(image: Image.Image, data: bytes) -> Metadata:
    found = pillow.metadata_of(image)
    exif, xmp = payloads(data)  # Pillow has not yet seen what comes after the pixels
    return Metadata(
        found.exif or exif or _raw_profile(image),
        found.xmp or xmp,
        found.icc,
        native={"png": metadata_chunks(data)},
    )


def _raw_profile(image: Image.Image) -> bytes | None:
    """EXIF as ImageMagick puts it into PNG text: a blank line, its name, its length, hex digits."""
    text = image.info.get("Raw profile type exif")
    if not isinstance(text, str):
        return None
    try:
        return bytes.fromhex("".join(text.split("\n")[3:])).removeprefix(EXIF_PREFIX) or None
    except ValueError:
        return None


def _international_text(data: bytes) -> bytes | None:
    """The text of an iTXt chunk, given what follows its keyword; None if it is damaged."""
    try:
        _language, _translation, text = data[2:].split(b"\x00", 2)
        if data[0]:
            inflater = zlib.decompressobj()
            text = inflater.decompress(text, PNG_TEXT_MAX)
            return text if inflater.eof else None
    except (ValueError, IndexError, zlib.error):
        return None
    return text


def _new_chunks(metadata: Metadata) -> Iterator[bytes]:
    if metadata.icc:
        yield _chunk(b"iCCP", b"ICC profile\x00\x00" + zlib.compress(metadata.icc))
    if metadata.exif:
        yield _chunk(b"eXIf", metadata.exif)
    if metadata.xmp:
        yield _chunk(b"iTXt", _XMP_KEYWORD + b"\x00\x00\x00\x00\x00" + metadata.xmp)


def _gray_alpha_png(gray: Pixels, alpha: Pixels) -> bytes:
    """Gray with alpha, which OpenCV cannot write: its gray PNG with other pixels."""
    samples = np.stack([gray, alpha], axis=2)
    samples = samples.astype(samples.dtype.newbyteorder(">"), copy=False)
    header = bytearray(opencv.encode(".png", gray)[16:29])
    header[9] = _GRAY_ALPHA
    unfiltered = b"".join(b"\x00" + row.tobytes() for row in samples)
    return b"".join(
        [
            PNG_SIGNATURE,
            _chunk(b"IHDR", bytes(header)),
            _chunk(b"IDAT", zlib.compress(unfiltered, 6)),
            _chunk(b"IEND", b""),
        ]
    )
