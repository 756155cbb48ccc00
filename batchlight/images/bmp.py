"""BMP: no metadata. OpenCV decodes and encodes; Pillow decodes the kinds that OpenCV gets wrong."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image

from batchlight.images import opencv, pillow
from batchlight.images.image import Decoded, Header
from batchlight.images.image_format import ImageFormat
from batchlight.images.pixels import Pixels

_CORE_HEADER_BYTES = 12
"""OS/2's header, which comes after the file's own."""
_HEADER_BYTES, _BITS_PER_PIXEL = slice(14, 18), slice(28, 30)


def inspect(image: Image.Image, data: bytes, max_pixels: int) -> Header:
    """The header, with which decoder to use."""
    header = pillow.header_of(image, "bmp", pillow.metadata_of(image))
    # OpenCV turns the colours of OS/2 files into gray, and darkens samples of 5 bits.
    core = int.from_bytes(data[_HEADER_BYTES], "little") == _CORE_HEADER_BYTES
    packed = int.from_bytes(data[_BITS_PER_PIXEL], "little") == 16
    return replace(header, pillow_pixels=core or packed)


def decode(data: bytes, header: Header) -> Pixels | None:
    """The samples, palettes resolved."""
    return pillow.decode(data, header) if header.pillow_pixels else opencv.decode(data)


def encode(decoded: Decoded, quality: int) -> bytes:
    """An uncompressed BMP."""
    return opencv.encode(".bmp", decoded.samples)


BMP = ImageFormat(
    "bmp",
    pillow_names=("BMP", "DIB"),
    inspect=inspect,
    encode=encode,
    decode=decode,
    not_read=("Unsupported BMP",),
    holds_gray_alpha=False,
)
