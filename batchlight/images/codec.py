"""Bytes to pixels and back, altering nothing but what the enhancement alters.

OpenCV decodes and encodes, Pillow decodes the few kinds of TIFF that OpenCV gets wrong, and
``containers`` carries the metadata. What a format cannot keep is refused as ``unsupported``, never
quietly lost.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from batchlight.config import Format
from batchlight.errors import ErrorCode, ImageError, brief
from batchlight.images import containers
from batchlight.images.containers import Metadata
from batchlight.images.header import Header, require_memory, undisturbed_pillow
from batchlight.images.names import CANONICAL_SUFFIX
from batchlight.images.pixels import Pixels

# (horizontal, vertical) sampling of the luminance, to OpenCV's constant.
_SAMPLINGS = {
    (1, 1): cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    (2, 1): cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    (2, 2): cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    (1, 2): cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    (4, 1): cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
}

_HOLDS_ALPHA = frozenset({"png", "webp", "tiff", "bmp", "avif"})
_HOLDS_16_BIT = frozenset({"png", "tiff"})
_HOLDS_ORIENTATION = frozenset({"jpeg", "png", "webp"})

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@dataclass(frozen=True)
class Decoded:
    """An image as its pixels, its alpha, and what must be kept beside them."""

    header: Header
    pixels: Pixels
    """(height, width) or (height, width, 3) in blue, green, red; uint8 or uint16; as stored."""
    alpha: Pixels | None
    """(height, width) of the same dtype; None for an opaque image."""

    @property
    def channels(self) -> int:
        """1..4, alpha included."""
        return (1 if self.pixels.ndim == 2 else 3) + (self.alpha is not None)

    @property
    def bit_depth(self) -> int:
        """8 or 16."""
        return self.pixels.dtype.itemsize * 8


def decode(data: bytes, header: Header) -> Decoded:
    """Decode the pixels as stored.

    Raises ``MemoryError``, and ``ImageError``: ``corrupt`` or ``unsupported``.
    """
    try:
        array = _raw_pixels(data, header)
    except MemoryError:
        raise
    except Exception as error:  # the decoders' own failures, whatever their type
        _blame_memory(error, header)
        raise ImageError(ErrorCode.CORRUPT, f"cannot be decoded: {brief(error)}") from error
    if array is None:
        require_memory(header.width * header.height)
        raise ImageError(ErrorCode.CORRUPT, "cannot be decoded; the file is damaged or cut short")
    if {*array.shape[:2]} != {header.width, header.height}:  # TIFF may be turned
        raise ImageError(ErrorCode.CORRUPT, "the pixels are of another size than the header says")
    if array.dtype not in (np.uint8, np.uint16):
        raise ImageError(ErrorCode.UNSUPPORTED, f"{array.dtype} samples cannot be kept")
    if header.format == "avif" and array.dtype == np.uint16:
        raise ImageError(ErrorCode.UNSUPPORTED, "AVIF deeper than 8 bits cannot be kept")
    if header.has_alpha and (array.ndim != 3 or array.shape[2] != 4):
        raise ImageError(
            ErrorCode.UNSUPPORTED,
            f"this kind of transparency in {header.format} is lost in decoding",
        )
    alpha = np.ascontiguousarray(array[:, :, 3]) if header.has_alpha else None
    if header.mode == "LA" or (array.ndim == 3 and array.shape[2] == 1):
        array = array[:, :, 0]
    elif array.ndim == 3:
        array = array[:, :, :3]
    return Decoded(header, np.ascontiguousarray(array), alpha)


def in_colour(pixels: Pixels) -> Pixels:
    """Gray as three equal channels; colour as it is."""
    return pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """The pixels as they are meant to be seen, by their EXIF orientation, 1..8."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return np.ascontiguousarray(np.flip(pixels, flips))


def encode(decoded: Decoded, pixels: Pixels, format: Format, quality: int) -> bytes:
    """Encode enhanced pixels with all that came along with the decoded image.

    ``pixels``: as ``decoded.pixels`` in shape and dtype. Raises ``MemoryError``, and
    ``ImageError`` with ``unsupported`` for what the format cannot hold.
    """
    _check_target(decoded, format)
    header, alpha = decoded.header, decoded.alpha
    metadata = header.metadata
    if format not in _HOLDS_ORIENTATION or header.format == "avif":
        # No tag would carry the orientation, so the pixels are turned instead.
        pixels = turned(pixels, header.orientation)
        alpha = None if alpha is None else turned(alpha, header.orientation)
        metadata = metadata.upright()
    try:
        data = _encoded(pixels, alpha, format, _parameters(header, format, quality), metadata)
        if format != "tiff":
            return data
        kind = header.extra_samples if header.format == "tiff" else containers.UNASSOCIATED_ALPHA
        return containers.with_tiff_metadata(data, metadata, kind if header.has_alpha else None)
    except (cv2.error, ValueError) as error:
        _blame_memory(error, header)
        reason = f"cannot be written as {format.upper()}: {brief(error)}"
        raise ImageError(ErrorCode.UNSUPPORTED, reason) from error


def _raw_pixels(data: bytes, header: Header) -> Pixels | None:
    if header.pillow_pixels:
        with undisturbed_pillow(), Image.open(io.BytesIO(data)) as image:
            mode = {"1": "L", "P": "RGB"}.get(image.mode)
            samples = np.asarray(image.convert(mode))  # TIFF is turned upright, as by OpenCV
        order = {"P": [2, 1, 0], "RGB": [2, 1, 0], "RGBA": [2, 1, 0, 3]}.get(header.mode)
        return samples if order is None else samples[:, :, order]
    decoded: Pixels | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return decoded


def _blame_memory(error: Exception, header: Header) -> None:
    """Raise ``MemoryError`` if a codec's failure is not the image's fault."""
    if isinstance(error, cv2.error) and error.code == cv2.Error.STS_NO_MEM:
        raise MemoryError(str(error)) from error
    require_memory(header.width * header.height)


def _check_target(decoded: Decoded, format: Format) -> None:
    name = format.upper()
    if decoded.alpha is not None and format not in _HOLDS_ALPHA:
        raise ImageError(ErrorCode.UNSUPPORTED, f"{name} cannot hold its transparency")
    if decoded.bit_depth == 16 and format not in _HOLDS_16_BIT:
        raise ImageError(ErrorCode.UNSUPPORTED, f"{name} cannot hold its 16 bits")
    if decoded.alpha is not None and decoded.pixels.ndim == 2 and format in ("tiff", "bmp"):
        raise ImageError(
            ErrorCode.UNSUPPORTED, f"gray with transparency cannot be written as {name}"
        )


def _parameters(header: Header, format: Format, quality: int) -> list[int]:
    if format == "jpeg":
        sampling = _SAMPLINGS.get(header.sampling, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
        return [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    if format == "webp":
        if header.lossless:
            return [cv2.IMWRITE_WEBP_LOSSLESS_MODE, cv2.IMWRITE_WEBP_LOSSLESS_PRESERVE_COLOR]
        return [cv2.IMWRITE_WEBP_QUALITY, quality]
    if format == "avif":
        return [cv2.IMWRITE_AVIF_QUALITY, quality]
    return []


def _encoded(
    pixels: Pixels, alpha: Pixels | None, format: Format, parameters: list[int], metadata: Metadata
) -> bytes:
    suffix = CANONICAL_SUFFIX[format]
    if alpha is not None and pixels.ndim == 2 and format == "png":
        rows = np.stack([pixels, alpha], axis=2)
        big_endian = rows.astype(rows.dtype.newbyteorder(">"), copy=False)
        plain = _imencode(suffix, pixels, parameters)
        data = containers.gray_alpha_png(plain, big_endian.tobytes(), rows[0].nbytes)
        return containers.with_png_metadata(data, metadata)
    if alpha is not None:
        pixels = cv2.merge([*cv2.split(in_colour(pixels)), alpha])
    if format in ("webp", "avif"):
        blocks = {
            cv2.IMAGE_METADATA_EXIF: metadata.exif,
            cv2.IMAGE_METADATA_XMP: metadata.xmp,
            cv2.IMAGE_METADATA_ICCP: metadata.icc,
        }
        kinds = [kind for kind, block in blocks.items() if block]
        payloads = [np.frombuffer(block, np.uint8) for block in blocks.values() if block]
        done, buffer = cv2.imencodeWithMetadata(suffix, pixels, kinds, payloads, parameters)
        return _bytes(done, buffer)
    data = _imencode(suffix, pixels, parameters)
    if format == "jpeg":
        return containers.with_jpeg_metadata(data, metadata)
    if format == "png":
        return containers.with_png_metadata(data, metadata)
    return data


def _imencode(suffix: str, pixels: Pixels, parameters: list[int]) -> bytes:
    done, buffer = cv2.imencode(suffix, pixels, parameters)
    return _bytes(done, buffer)


def _bytes(done: bool, buffer: Any) -> bytes:
    if not done:
        raise ValueError("the encoder refuses it, most likely for its size")
    return bytes(buffer)
