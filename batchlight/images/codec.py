"""Bytes to pixels and back, changing nothing but what the enhancement changes.

What a format cannot keep is refused as ``unsupported``, never silently lost.
"""

from __future__ import annotations

import struct
from dataclasses import replace

import cv2
import numpy as np

from batchlight.config import Format
from batchlight.errors import ImageError, brief
from batchlight.images import conversion
from batchlight.images.formats import FORMATS
from batchlight.images.image import Decoded, Encoded, Header
from batchlight.images.image_format import ImageFormat
from batchlight.images.memory import require_memory
from batchlight.images.pixels import Pixels


def decode(data: bytes, header: Header) -> Decoded:
    """Decode the pixels as stored.

    Raises ``MemoryError``, and ``ImageError``: ``corrupt`` or ``unsupported``.
    """
    try:
        samples = FORMATS[header.format].decode(data, header)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # the decoders' own failures, whatever their type
        _blame_memory(error, header)
        if str(error).startswith(FORMATS[header.format].not_read):
            reason = f"this kind cannot be read: {brief(error)}"
            raise ImageError.unsupported(reason) from error
        raise ImageError.corrupt(f"cannot be decoded: {brief(error)}") from error
    if samples is None:
        require_memory(header.width * header.height)
        raise ImageError.corrupt("cannot be decoded; the file is damaged or cut short")
    _check_samples(samples, header)
    alpha = np.ascontiguousarray(samples[:, :, 3]) if header.has_alpha else None
    if header.mode == "LA" or (samples.ndim == 3 and samples.shape[2] == 1):
        samples = samples[:, :, 0]
    elif samples.ndim == 3:
        samples = samples[:, :, :3]
    return Decoded(header, np.ascontiguousarray(samples), alpha)


def encode(decoded: Decoded, pixels: Pixels, format: Format, quality: int) -> Encoded:
    """Encode enhanced pixels with everything that came with the decoded image.

    ``pixels``: like ``decoded.pixels`` in shape and dtype. Raises ``MemoryError``, and
    ``ImageError`` with ``unsupported`` for what the format cannot hold.
    """
    source, target = FORMATS[decoded.header.format], FORMATS[format]
    _check_target(decoded, target)
    enhanced, lost = replace(decoded, pixels=pixels), tuple[str, ...]()
    try:
        if source is not target:
            if not (source.holds_orientation and target.holds_orientation):
                # No tag could store the orientation, so the pixels are turned instead.
                enhanced = enhanced.upright()
            enhanced, lost = conversion.converted(enhanced, target)
        encoded = target.encode(enhanced, quality)
    except (cv2.error, ValueError, struct.error, OverflowError) as error:
        # The last two: a value from a damaged file, or a size, exceeds a field of the output.
        _blame_memory(error, decoded.header)
        reason = f"cannot be written as {format.upper()}: {brief(error)}"
        raise ImageError.unsupported(reason) from error
    return Encoded.of(encoded.data, (*encoded.lost, *lost))


def _check_samples(samples: Pixels, header: Header) -> None:
    if samples.shape[:2] != (header.height, header.width):
        raise ImageError.corrupt("the pixels differ in size from the header")
    if samples.dtype not in (np.uint8, np.uint16):
        raise ImageError.unsupported(f"{samples.dtype} samples cannot be kept")
    if samples.dtype == np.uint16 and not FORMATS[header.format].holds_16_bit:
        name = header.format.upper()
        raise ImageError.unsupported(f"{name} deeper than 8 bits cannot be kept")
    if header.has_alpha and (samples.ndim != 3 or samples.shape[2] != 4):
        raise ImageError.unsupported(
            f"this kind of transparency in {header.format} is lost in decoding"
        )


def _check_target(decoded: Decoded, target: ImageFormat) -> None:
    name = target.name.upper()
    if decoded.alpha is not None and not target.holds_alpha:
        raise ImageError.unsupported(f"{name} cannot hold its transparency")
    if decoded.bit_depth == 16 and not target.holds_16_bit:
        raise ImageError.unsupported(f"{name} cannot hold its 16 bits")
    if decoded.alpha is not None and decoded.pixels.ndim == 2 and not target.holds_gray_alpha:
        raise ImageError.unsupported(f"gray with transparency cannot be written as {name}")


def _blame_memory(error: Exception, header: Header) -> None:
    """Raise ``MemoryError`` if a codec's failure is not the fault of the image."""
    if isinstance(error, cv2.error) and error.code == cv2.Error.STS_NO_MEM:
        raise MemoryError(str(error)) from error
    require_memory(header.width * header.height)
