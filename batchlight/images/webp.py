"""WebP: lossy or lossless. OpenCV decodes and encodes the pixels, and writes the metadata.

Layouts: WebP Container Specification, RFC 9649.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
from PIL import Image

from batchlight.images import opencv, pillow
from batchlight.images.image import Decoded, Header
from batchlight.images.image_format import ImageFormat


def inspect(image: Image.Image, data: bytes, max_pixels: int) -> Header:
    """The header, and whether the pixels are lossless."""
    header = pillow.header_of(image, "webp", pillow.metadata_of(image))
    return replace(header, lossless=is_lossless(data))


def encode(decoded: Decoded, quality: int) -> bytes:
    """A lossless WebP if the image came from one, else a lossy one."""
    if decoded.header.lossless:
        parameters = [cv2.IMWRITE_WEBP_LOSSLESS_MODE, cv2.IMWRITE_WEBP_LOSSLESS_PRESERVE_COLOR]
    else:
        parameters = [cv2.IMWRITE_WEBP_QUALITY, quality]
    metadata = decoded.header.metadata
    return opencv.encode_with_metadata(".webp", decoded.samples, metadata, parameters)


def is_lossless(data: bytes) -> bool:
    """Whether a still file's pixels are in the lossless encoding (a VP8L chunk)."""
    pixels = (kind for kind, _ in _chunks(data) if kind in (b"VP8L", b"VP8 "))
    return next(pixels, None) == b"VP8L"


def claimed_sizes(data: bytes) -> list[tuple[int, int]]:
    """(width, height) each time that a file states it; empty for other content."""
    found = []
    for kind, body in _chunks(data):
        if kind == b"VP8X":
            found.append((_little(body[4:7]) + 1, _little(body[7:10]) + 1))
        elif kind == b"VP8L":
            bits = _little(body[1:5])
            found.append(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1))
        elif kind == b"VP8 ":
            found.append((_little(body[6:8]) & 0x3FFF, _little(body[8:10]) & 0x3FFF))
    return found


WEBP = ImageFormat(
    "webp",
    pillow_names=("WEBP",),
    inspect=inspect,
    encode=encode,
    claimed_sizes=claimed_sizes,
    holds_orientation=True,
)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, start of the content, up to 10 bytes) of each chunk; none of other content."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return
    at = 12
    while at + 8 <= len(data):
        size = _little(data[at + 4 : at + 8])
        yield data[at : at + 4], data[at + 8 : at + 18]
        at += 8 + size + (size & 1)


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")
