"""Bytes to pixels and back, altering nothing but what the enhancement alters.

Pillow reads header facts (size, mode, frames, sampling), in under a millisecond and before a pixel
is decoded, and the pixels of a few kinds of TIFF that OpenCV gets wrong; OpenCV decodes all others
and encodes; ``containers`` carries the metadata. What a format cannot keep is refused as
``unsupported``, never quietly lost.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from batchlight import containers
from batchlight.config import Format
from batchlight.containers import EXIF_PREFIX, Metadata
from batchlight.errors import ErrorCode, ImageError

Pixels = npt.NDArray[Any]

SUFFIXES: dict[str, Format] = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".png": "png",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".bmp": "bmp",
    ".avif": "avif",
}
"""The names that are taken for images; what they hold is decided by their content."""

CANONICAL_SUFFIX: dict[Format, str] = {
    "jpeg": ".jpg",
    "png": ".png",
    "webp": ".webp",
    "tiff": ".tiff",
    "bmp": ".bmp",
    "avif": ".avif",
}

_FORMATS: dict[str, Format] = {
    "JPEG": "jpeg",
    "MPO": "jpeg",
    "PNG": "png",
    "WEBP": "webp",
    "TIFF": "tiff",
    "BMP": "bmp",
    "DIB": "bmp",
    "AVIF": "avif",
}
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I;16L", "I;16B"})
_ALPHA_MODES = frozenset({"LA", "PA", "RGBA"})
_WHY_NOT: dict[str, str] = {
    "CMYK": "CMYK colours",
    "LAB": "LAB colours",
    "F": "floating-point samples",
    "I": "32-bit or signed samples",
    "YCbCr": "YCbCr samples",
    "RGBa": "premultiplied alpha",
    "La": "premultiplied alpha",
}
_TIFF_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_TIFF_BITS_PER_SAMPLE, _TIFF_COMPRESSION, _TIFF_PHOTOMETRIC = 258, 259, 262
_TIFF_SAMPLES_PER_PIXEL, _TIFF_PLANAR = 277, 284
_TIFF_TILE_WIDTH, _TIFF_EXTRA_SAMPLES = 322, 338
_TIFF_XMP, _TIFF_ICC = 700, 34675
_TIFF_BYTE, _TIFF_SHORT, _TIFF_UNDEFINED = 1, 3, 7
_MIN_IS_WHITE, _PLANES = 0, 2
_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA = 1, 2
# None, CCITT (three kinds), LZW, JPEG, Deflate (two numbers), PackBits: what OpenCV decodes.
_TIFF_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32946, 32773})

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

# The size limit is ours (--max-pixels), checked from the header; Pillow's own would come first.
Image.MAX_IMAGE_PIXELS = None
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@dataclass(frozen=True)
class Header:
    """What can be known of an image without decoding it."""

    format: Format
    width: int
    """Of the pixels as stored, before any orientation."""
    height: int
    mode: str
    """Pillow's name for the kind of pixel."""
    metadata: Metadata
    orientation: int = 1
    """1..8; from EXIF, or from AVIF's rotation and mirror boxes; TIFF is decoded upright."""
    transparent_colour: bool = False
    """Alpha is stored apart from the samples (PNG's tRNS)."""
    sampling: tuple[int, int] = (1, 1)
    """JPEG: horizontal and vertical sampling of the luminance against the colours."""
    lossless: bool = False
    """WebP: the pixels are stored losslessly."""
    extra_samples: int | None = None
    """TIFF: what the alpha is; None where the file does not say."""
    pillow_pixels: bool = False
    """OpenCV would decode it wrongly or not at all; 8 bit only."""


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


def read_header(data: bytes, max_pixels: int) -> Header:
    """Identify an image and refuse what cannot be kept, before decoding it.

    Raises ``ImageError``: ``empty``, ``corrupt``, ``unsupported`` or ``too_large``.
    """
    if not data:
        raise ImageError(ErrorCode.EMPTY, "the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                return _checked_header(image, data, max_pixels)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise _unidentified(data) from None
    except Exception as error:  # parsers meet hostile bytes: any failure means a damaged header
        raise ImageError(ErrorCode.CORRUPT, f"the header is damaged: {_brief(error)}") from error


def decode(data: bytes, header: Header) -> Decoded:
    """Decode the pixels as stored. Raises ``ImageError``: ``corrupt`` or ``unsupported``."""
    try:
        array = _raw_pixels(data, header)
    except MemoryError:
        raise
    except Exception as error:  # the decoders' own failures, whatever their type
        if isinstance(error, cv2.error) and error.code == cv2.Error.STS_NO_MEM:
            raise MemoryError(str(error)) from error
        raise ImageError(ErrorCode.CORRUPT, f"cannot be decoded: {_brief(error)}") from error
    if array is None:
        raise ImageError(ErrorCode.CORRUPT, "cannot be decoded; the file is damaged or cut short")
    if array.dtype not in (np.uint8, np.uint16):
        raise ImageError(ErrorCode.UNSUPPORTED, f"{array.dtype} samples cannot be kept")
    if header.format == "avif" and array.dtype == np.uint16:
        raise ImageError(ErrorCode.UNSUPPORTED, "AVIF deeper than 8 bits cannot be kept")
    has_alpha = header.mode in _ALPHA_MODES or header.transparent_colour
    if has_alpha and (array.ndim != 3 or array.shape[2] != 4):
        raise ImageError(
            ErrorCode.UNSUPPORTED,
            f"this kind of transparency in {header.format} is lost in decoding",
        )
    alpha = np.ascontiguousarray(array[:, :, 3]) if has_alpha else None
    if header.mode == "LA" or (array.ndim == 3 and array.shape[2] == 1):
        array = array[:, :, 0]
    elif array.ndim == 3:
        array = array[:, :, :3]
    return Decoded(header, np.ascontiguousarray(array), alpha)


def encode(decoded: Decoded, pixels: Pixels, format: Format, quality: int) -> bytes:
    """Encode enhanced pixels with all that came along with the decoded image.

    ``pixels``: as ``decoded.pixels`` in shape and dtype. Raises ``ImageError`` with
    ``unsupported`` for what the format cannot hold.
    """
    _check_target(decoded, format)
    header, alpha = decoded.header, decoded.alpha
    metadata = header.metadata
    if format not in _HOLDS_ORIENTATION or header.format == "avif":
        # No tag would carry the orientation, so the pixels are turned instead.
        pixels = _turn(pixels, header.orientation)
        alpha = None if alpha is None else _turn(alpha, header.orientation)
        metadata = metadata.upright()
    try:
        data = _encoded(pixels, alpha, format, _parameters(header, format, quality), metadata)
        return _with_tiff_tags(data, decoded, metadata) if format == "tiff" else data
    except (cv2.error, ValueError) as error:
        reason = f"cannot be written as {format.upper()}: {_brief(error)}"
        raise ImageError(ErrorCode.UNSUPPORTED, reason) from error


def output_name(path: str, format: Format | Literal["same"]) -> str:
    """The relative path with its suffix changed, if need be, to one of the format."""
    stem, dot, suffix = path.rpartition(".")
    if format == "same" or SUFFIXES.get(dot + suffix.lower()) == format:
        return path
    return stem + CANONICAL_SUFFIX[format]


def is_image_name(path: str) -> bool:
    """Whether a file of this name is taken for an image."""
    name = path.rpartition("/")[2]
    return "." + name.rpartition(".")[2].lower() in SUFFIXES and "." in name


def _checked_header(image: Image.Image, data: bytes, max_pixels: int) -> Header:
    if image.format not in _FORMATS:
        raise ImageError(
            ErrorCode.UNSUPPORTED, f"the content is {image.format}, which is no format of this job"
        )
    format = _FORMATS[image.format]
    if image.width * image.height > max_pixels:
        size = f"{image.width}x{image.height}"
        raise ImageError(
            ErrorCode.TOO_LARGE, f"{size} pixels are more than --max-pixels {max_pixels}"
        )
    if getattr(image, "n_frames", 1) > 1:
        kind = "several pages" if format == "tiff" else "several pictures or an animation"
        raise ImageError(ErrorCode.UNSUPPORTED, f"{kind} cannot be kept; split the file first")
    if image.mode not in _MODES:
        kind = _WHY_NOT.get(image.mode, f"pixels of the kind {image.mode}")
        raise ImageError(ErrorCode.UNSUPPORTED, f"{kind} cannot be kept")
    if format == "png" and not containers.png_is_whole(data):
        raise ImageError(ErrorCode.CORRUPT, "the file is cut short, or a chunk's length is damaged")
    # Pillow calls 16-bit gray with alpha RGBA; the PNG header tells.
    gray_alpha = format == "png" and data[24:26] == b"\x10\x04"
    mode = "LA" if gray_alpha else image.mode
    header = Header(format, image.width, image.height, mode, _metadata(image, data, format))
    header = replace(
        header,
        orientation=header.metadata.orientation,
        transparent_colour="transparency" in image.info,
    )
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        return replace(header, sampling=_sampling(image))
    if format == "webp":
        return replace(header, lossless=containers.webp_is_lossless(data))
    if format == "avif":
        return replace(header, orientation=image.getexif().get(0x0112, 1))
    return _tiff_header(image, header) if format == "tiff" else header


def _tiff_header(image: Image.Image, header: Header) -> Header:
    tags: Any = image.getexif()
    bits = set(_values(tags.get(_TIFF_BITS_PER_SAMPLE, 1)))
    if not bits <= {1, 8, 16}:
        raise ImageError(
            ErrorCode.UNSUPPORTED, f"TIFF of {max(bits)} bits per sample cannot be kept"
        )
    compression = tags.get(_TIFF_COMPRESSION, 1)
    if compression not in _TIFF_COMPRESSIONS:
        raise ImageError(ErrorCode.UNSUPPORTED, f"TIFF compression {compression} cannot be decoded")
    samples = tags.get(_TIFF_SAMPLES_PER_PIXEL, 1)
    if samples > Image.getmodebands(header.mode):
        raise ImageError(
            ErrorCode.UNSUPPORTED, f"the TIFF's {samples} samples per pixel cannot all be kept"
        )
    # Both are decoded without a complaint, to the wrong pixels.
    if 16 in bits and tags.get(_TIFF_PHOTOMETRIC) == _MIN_IS_WHITE:
        raise ImageError(ErrorCode.UNSUPPORTED, "16-bit TIFF with inverted gray cannot be kept")
    if 16 in bits and tags.get(_TIFF_PLANAR) == _PLANES and header.mode != "I;16":
        raise ImageError(ErrorCode.UNSUPPORTED, "16-bit TIFF in separate planes cannot be kept")
    extra = next(iter(_values(tags.get(_TIFF_EXTRA_SAMPLES, ()))), None)
    # OpenCV reads 8 bit through an interface that multiplies colours by an unassociated alpha,
    # and that fails for small tiles.
    straight = header.mode == "RGBA" and extra == _UNASSOCIATED_ALPHA
    tiled = header.mode in ("L", "RGB") and _TIFF_TILE_WIDTH in tags
    return replace(header, extra_samples=extra, pillow_pixels=bits == {8} and (straight or tiled))


def _values(tag: Any) -> tuple[Any, ...]:
    return tag if isinstance(tag, tuple) else (tag,)


def _unidentified(data: bytes) -> ImageError:
    """What to say of content that Pillow takes for no image: TIFF has kinds that it cannot read."""
    if data.startswith(_TIFF_MAGIC):
        try:
            TiffImagePlugin.TiffImageFile(io.BytesIO(data)).close()
        except SyntaxError as error:
            if "pixel mode" in str(error):
                return ImageError(ErrorCode.UNSUPPORTED, "this kind of TIFF pixel cannot be kept")
        except Exception as error:
            return ImageError(ErrorCode.CORRUPT, f"the header is damaged: {_brief(error)}")
    return ImageError(ErrorCode.CORRUPT, "the content is no image of a known format")


def _metadata(image: Image.Image, data: bytes, format: Format) -> Metadata:
    def payload(name: str) -> bytes | None:
        value = image.info.get(name)
        return value if isinstance(value, bytes) and value else None

    exif = payload("exif") if format != "tiff" else None
    if exif is not None:
        exif = exif.removeprefix(EXIF_PREFIX)
    xmp = payload("xmp")
    if format == "png":  # Pillow has not yet seen what comes after the pixels
        found = containers.png_payloads(data)
        exif, xmp = exif or found[0] or _raw_profile(image), xmp or found[1]
    native = containers.native_blocks(data, format)
    metadata = Metadata(exif, xmp, payload("icc_profile"), native)
    return metadata.upright() if format == "tiff" else metadata


def _raw_profile(image: Image.Image) -> bytes | None:
    """EXIF as ImageMagick puts it into PNG text: a blank line, its name, its length, hex digits."""
    text = image.info.get("Raw profile type exif")
    if not isinstance(text, str):
        return None
    try:
        return bytes.fromhex("".join(text.split("\n")[3:])).removeprefix(EXIF_PREFIX) or None
    except ValueError:
        return None


def _sampling(image: JpegImagePlugin.JpegImageFile) -> tuple[int, int]:
    layers = image.layer  # (identifier, horizontal, vertical, table) of each channel
    if len(layers) < 3:
        return (1, 1)
    return (layers[0][1] // layers[1][1], layers[0][2] // layers[1][2])


def _raw_pixels(data: bytes, header: Header) -> Pixels | None:
    if header.pillow_pixels:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
            warnings.simplefilter("ignore")
            samples = np.asarray(image)  # turned upright, as OpenCV does
        order = {"RGB": [2, 1, 0], "RGBA": [2, 1, 0, 3]}.get(header.mode)
        return samples if order is None else samples[:, :, order]
    decoded: Pixels | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return decoded


def _check_target(decoded: Decoded, format: Format) -> None:
    name = format.upper()
    if decoded.alpha is not None and format not in _HOLDS_ALPHA:
        raise ImageError(ErrorCode.UNSUPPORTED, f"{name} cannot hold its transparency")
    if decoded.bit_depth == 16 and format not in _HOLDS_16_BIT:
        raise ImageError(ErrorCode.UNSUPPORTED, f"{name} cannot hold its 16 bits")
    if decoded.header.extra_samples == _ASSOCIATED_ALPHA and format != "tiff":
        raise ImageError(ErrorCode.UNSUPPORTED, f"{name} cannot hold premultiplied alpha")
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
        colour = pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
        pixels = cv2.merge([*cv2.split(colour), alpha])
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


def _with_tiff_tags(data: bytes, decoded: Decoded, metadata: Metadata) -> bytes:
    """What the encoder leaves out: the kind of alpha, XMP and ICC."""
    header = decoded.header
    tags: dict[int, tuple[int, bytes]] = {}
    extra = header.extra_samples if header.format == "tiff" else _UNASSOCIATED_ALPHA
    if decoded.alpha is not None and extra is not None:
        tags[_TIFF_EXTRA_SAMPLES] = (_TIFF_SHORT, extra.to_bytes(2, "little"))
    if metadata.xmp:
        tags[_TIFF_XMP] = (_TIFF_BYTE, metadata.xmp)
    if metadata.icc:
        tags[_TIFF_ICC] = (_TIFF_UNDEFINED, metadata.icc)
    return containers.with_tiff_tags(data, tags) if tags else data


def _imencode(suffix: str, pixels: Pixels, parameters: list[int]) -> bytes:
    done, buffer = cv2.imencode(suffix, pixels, parameters)
    return _bytes(done, buffer)


def _bytes(done: bool, buffer: Any) -> bytes:
    if not done:
        raise ValueError("the encoder refuses it, most likely for its size")
    return bytes(buffer)


def _turn(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation to the pixels."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return np.ascontiguousarray(np.flip(pixels, flips))


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
