"""TIFF: one page of 1, 8 or 16 bits per sample; decoded upright; XMP, ICC and the kind of alpha.

OpenCV decodes and encodes the pixels; Pillow decodes the kinds that OpenCV gets wrong. XMP and ICC
are written as tags beside those of the encoder; EXIF is not kept.
Layouts: TIFF, revision 6.0.
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

from PIL import Image, TiffImagePlugin

from batchlight.errors import ErrorCode, ImageError
from batchlight.images import ifd, opencv, pillow
from batchlight.images.image import Decoded, Header, check_size
from batchlight.images.image_format import ImageFormat
from batchlight.images.metadata import Metadata
from batchlight.images.pixels import Pixels

_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_BITS_PER_SAMPLE, _COMPRESSION, _PHOTOMETRIC, _SAMPLES_PER_PIXEL = 258, 259, 262, 277
_PLANAR_CONFIGURATION, _TILE_WIDTH, _TILE_LENGTH, _EXTRA_SAMPLES = 284, 322, 323, 338
_XMP, _ICC = 700, 34675

_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32946, 32773})
"""None, CCITT (three kinds), LZW, JPEG, Deflate (two numbers), PackBits: what OpenCV decodes."""
_BITS = frozenset({1, 8, 16})
_MIN_IS_WHITE = 0
"""Photometric interpretation of inverted gray."""
_SEPARATE = 2
"""Planar configuration of channels that are stored one after the other."""
_ASSOCIATED, UNASSOCIATED = 1, 2
"""Kinds of alpha (ExtraSamples): colours multiplied by alpha, or not."""


def inspect(image: Image.Image, data: bytes, max_pixels: int) -> Header:
    """The header, with the kind of alpha and which decoder to use."""
    metadata = replace(pillow.metadata_of(image), exif=None).upright()
    header = pillow.header_of(image, "tiff", metadata)
    tags: Any = image.getexif()
    # A tile takes memory by what it claims to be, however small the image is.
    width, height = (_values(tags.get(tag, 1))[0] for tag in (_TILE_WIDTH, _TILE_LENGTH))
    check_size(width, height, max_pixels, " in a tile")
    bits = set(_values(tags.get(_BITS_PER_SAMPLE, 1)))
    extra = next(iter(_values(tags.get(_EXTRA_SAMPLES, ()))), None)
    if reason := _refusal(tags, bits, extra, header.mode):
        raise ImageError(ErrorCode.UNSUPPORTED, reason)
    # OpenCV reads 8 bit through an interface that multiplies colours by an unassociated alpha,
    # and that fails for small tiles.
    straight = header.mode == "RGBA" and extra == UNASSOCIATED
    tiled = header.mode in ("L", "RGB") and _TILE_WIDTH in tags
    return replace(header, extra_samples=extra, pillow_pixels=bits == {8} and (straight or tiled))


def _refusal(tags: Any, bits: set[Any], extra: Any, mode: str) -> str | None:
    """Why this kind of TIFF cannot be kept, by its tags; None if it can."""
    if not bits <= _BITS:
        return f"TIFF of {max(bits)} bits per sample cannot be kept"
    compression = tags.get(_COMPRESSION, 1)
    if compression not in _COMPRESSIONS:
        return f"TIFF compression {compression} cannot be decoded"
    samples = tags.get(_SAMPLES_PER_PIXEL, 1)
    if samples > Image.getmodebands(mode):
        return f"the TIFF's {samples} samples per pixel cannot all be kept"
    # The next two are decoded without a complaint, to the wrong pixels.
    if 16 in bits and tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE:
        return "16-bit TIFF with inverted gray cannot be kept"
    if 16 in bits and tags.get(_PLANAR_CONFIGURATION) == _SEPARATE and mode != "I;16":
        return "16-bit TIFF in separate planes cannot be kept"
    if extra == _ASSOCIATED:  # enhanced, a colour would exceed its alpha
        return "premultiplied alpha cannot be kept"
    return None


def why_unidentified(data: bytes) -> str | None:
    """Pillow says nothing of pixels that it cannot read; its TIFF plugin alone does."""
    if data.startswith(_MAGIC):
        try:
            TiffImagePlugin.TiffImageFile(io.BytesIO(data)).close()
        except SyntaxError as error:
            if "pixel mode" in str(error):
                return "this kind of TIFF pixel cannot be kept"
    return None


def decode(data: bytes, header: Header) -> Pixels | None:
    """The samples, upright."""
    return pillow.decode(data, header) if header.pillow_pixels else opencv.decode(data)


def encode(decoded: Decoded, quality: int) -> bytes:
    """A TIFF in strips, compressed with LZW; the alpha is of the kind that it was."""
    header = decoded.header
    kind = header.extra_samples if header.format == "tiff" else UNASSOCIATED
    data = opencv.encode(".tiff", decoded.samples)
    return with_metadata(data, header.metadata, None if decoded.alpha is None else kind)


TIFF = ImageFormat(
    "tiff",
    pillow_names=("TIFF",),
    inspect=inspect,
    encode=encode,
    decode=decode,
    why_unidentified=why_unidentified,
    several="several pages",
    holds_gray_alpha=False,
    holds_16_bit=True,
)


def with_metadata(data: bytes, metadata: Metadata, extra_samples: int | None) -> bytes:
    """Put XMP, ICC and the kind of alpha into a freshly encoded TIFF of one page.

    ``extra_samples``: the value of the tag of that name; None for none.
    """
    tags: dict[int, tuple[int, bytes]] = {}
    if extra_samples is not None:
        tags[_EXTRA_SAMPLES] = (ifd.SHORT, extra_samples.to_bytes(2, "little"))
    if metadata.xmp:
        tags[_XMP] = (ifd.BYTE, metadata.xmp)
    if metadata.icc:
        tags[_ICC] = (ifd.UNDEFINED, metadata.icc)
    return ifd.with_tags(data, tags) if tags else data


def _values(tag: Any) -> tuple[Any, ...]:
    return tag if isinstance(tag, tuple) else (tag,)
