"""Identify an image before a pixel is decoded, and refuse what cannot be kept.

Pillow's headers tell size, mode and frames in under a millisecond; the rest is each format's own.
"""

from __future__ import annotations

import io

from PIL import Image, UnidentifiedImageError

from batchlight.errors import ErrorCode, ImageError, brief
from batchlight.images import pillow
from batchlight.images.effort import has_several_pages, refuse_many_scans
from batchlight.images.formats import BY_PILLOW_NAME, FORMATS
from batchlight.images.image import Header, check_size
from batchlight.images.memory import require_memory

_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I;16L", "I;16B"})
_WHY_NOT: dict[str, str] = {
    "CMYK": "CMYK colours",
    "LAB": "LAB colours",
    "F": "floating-point samples",
    "I": "32-bit or signed samples",
    "YCbCr": "YCbCr samples",
    "RGBa": "premultiplied alpha",
    "La": "premultiplied alpha",
}
_NOT_READ = tuple(message for format in FORMATS.values() for message in format.not_read)


def read_header(data: bytes, max_pixels: int) -> Header:
    """Identify an image and refuse what cannot be kept, before decoding it.

    Any thread may call it. Raises ``MemoryError``, and ``ImageError``: ``empty``, ``corrupt``,
    ``unsupported`` or ``too_large``.
    """
    if not data:
        raise ImageError(ErrorCode.EMPTY, "the file is empty")
    refuse_many_scans(data)
    # Decoders reserve memory for what these say, Pillow's while it reads the header.
    claimed = [size for format in FORMATS.values() for size in format.claimed_sizes(data)]
    for width, height in claimed:
        check_size(width, height, max_pixels)
    try:
        with pillow.undisturbed():
            return _identify(data, max_pixels)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # parsers meet hostile bytes: any failure means a damaged header
        if str(error).startswith(_NOT_READ):
            reason = f"this kind cannot be read: {brief(error)}"
            raise ImageError(ErrorCode.UNSUPPORTED, reason) from error
        require_memory(max((width * height for width, height in claimed), default=0))
        raise ImageError(ErrorCode.CORRUPT, f"the header is damaged: {brief(error)}") from error


def _identify(data: bytes, max_pixels: int) -> Header:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _inspect(image, data, max_pixels)
    except UnidentifiedImageError:
        raise _unidentified(data) from None


def _inspect(image: Image.Image, data: bytes, max_pixels: int) -> Header:
    """The checks that are the same for all formats, then those of the image's own."""
    format = BY_PILLOW_NAME.get(image.format or "")
    if format is None:
        raise ImageError(
            ErrorCode.UNSUPPORTED, f"the content is {image.format}, which batchlight does not read"
        )
    check_size(image.width, image.height, max_pixels)
    if has_several_pages(image):
        raise ImageError(
            ErrorCode.UNSUPPORTED, f"{format.several} cannot be kept; split the file first"
        )
    if image.mode not in _MODES:
        kind = _WHY_NOT.get(image.mode, f"pixels of the kind {image.mode}")
        raise ImageError(ErrorCode.UNSUPPORTED, f"{kind} cannot be kept")
    return format.inspect(image, data, max_pixels)


def _unidentified(data: bytes) -> ImageError:
    for format in FORMATS.values():
        if reason := format.why_unidentified(data):
            return ImageError(ErrorCode.UNSUPPORTED, reason)
    return ImageError(ErrorCode.CORRUPT, "the content is no image of a known format")
