"""What an image is, found out before a pixel is decoded; and what cannot be kept, refused.

Pillow's headers tell size, mode, frames and sampling in under a millisecond.
"""

from __future__ import annotations

import io
import mmap
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from batchlight.config import Format
from batchlight.errors import ErrorCode, ImageError, brief
from batchlight.images import av1, containers
from batchlight.images.containers import EXIF_PREFIX, UNASSOCIATED_ALPHA, Metadata

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
_ORIENTATION = 0x0112
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
_TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH, _TIFF_EXTRA_SAMPLES = 322, 323, 338
_MIN_IS_WHITE, _PLANES = 0, 2
_ASSOCIATED_ALPHA = 1
# None, CCITT (three kinds), LZW, JPEG, Deflate (two numbers), PackBits: what OpenCV decodes.
_TIFF_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32946, 32773})

_CORE_HEADER_BYTES = 12
"""Of OS/2's BMP, the header that comes after the file's own."""

# What Pillow says of files that may be whole, but are of a kind that it does not read.
_NOT_READ = (
    "Unsupported BMP",
    "Failed to decode image: Not implemented",
    "Decompressed data too large",
)

CODEC_BYTES, CODEC_BYTES_PER_PIXEL = 2**24, 24
"""No codec takes more, for an image and for each of its pixels."""

_pillow = threading.Lock()


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
    """TIFF: what the alpha is, as the tag ExtraSamples; None where the file does not say."""
    pillow_pixels: bool = False
    """OpenCV would decode it wrongly or not at all; 8 bit only."""

    @property
    def has_alpha(self) -> bool:
        """Whether some of it is transparent."""
        return self.mode in _ALPHA_MODES or self.transparent_colour


@contextmanager
def undisturbed_pillow() -> Iterator[None]:
    """Pillow without warnings, and without its own limits, which are tighter than ours.

    They belong to the process, so only one thread at a time may be in here.
    """
    with _pillow, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limits = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, containers.PNG_TEXT_MAX
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = limits


def require_memory(pixels: int) -> None:
    """Raise ``MemoryError`` if a codec would not get what it takes for so many pixels.

    Codecs that get no memory fail as they do for damaged files; this tells the two apart.
    """
    try:
        mmap.mmap(-1, CODEC_BYTES + CODEC_BYTES_PER_PIXEL * pixels).close()
    except (OSError, OverflowError) as error:
        raise MemoryError(f"too little memory for {pixels} pixels") from error


def read_header(data: bytes, max_pixels: int) -> Header:
    """Identify an image and refuse what cannot be kept, before decoding it.

    Any thread may call it. Raises ``MemoryError``, and ``ImageError``: ``empty``, ``corrupt``,
    ``unsupported`` or ``too_large``.
    """
    if not data:
        raise ImageError(ErrorCode.EMPTY, "the file is empty")
    try:
        # Decoders reserve memory for what these say, Pillow's while it reads the header.
        inside = [*containers.webp_sizes(data), *av1.picture_sizes(data)]
        for width, height in inside:
            _check_size(width, height, max_pixels)
        with undisturbed_pillow():
            return _identify(data, max_pixels)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # parsers meet hostile bytes: any failure means a damaged header
        if str(error).startswith(_NOT_READ):
            reason = f"this kind cannot be read: {brief(error)}"
            raise ImageError(ErrorCode.UNSUPPORTED, reason) from error
        require_memory(max((width * height for width, height in inside), default=0))
        raise ImageError(ErrorCode.CORRUPT, f"the header is damaged: {brief(error)}") from error


def _check_size(width: int, height: int, max_pixels: int, what: str = "") -> None:
    if width * height > max_pixels:
        raise ImageError(
            ErrorCode.TOO_LARGE,
            f"{width}x{height} pixels{what} are more than --max-pixels {max_pixels}",
        )


def _identify(data: bytes, max_pixels: int) -> Header:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _checked_header(image, data, max_pixels)
    except UnidentifiedImageError:
        raise _unidentified(data) from None


def _checked_header(image: Image.Image, data: bytes, max_pixels: int) -> Header:
    if image.format not in _FORMATS:
        raise ImageError(
            ErrorCode.UNSUPPORTED, f"the content is {image.format}, which batchlight does not read"
        )
    format = _FORMATS[image.format]
    _check_size(image.width, image.height, max_pixels)
    if getattr(image, "n_frames", 1) > 1:
        kind = "several pages" if format == "tiff" else "several pictures or an animation"
        raise ImageError(ErrorCode.UNSUPPORTED, f"{kind} cannot be kept; split the file first")
    if image.mode not in _MODES:
        kind = _WHY_NOT.get(image.mode, f"pixels of the kind {image.mode}")
        raise ImageError(ErrorCode.UNSUPPORTED, f"{kind} cannot be kept")
    if format == "png" and not containers.png_is_whole(data):
        raise ImageError(ErrorCode.CORRUPT, "the file is cut short, or a chunk is damaged")
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
        return replace(header, orientation=image.getexif().get(_ORIENTATION, 1))
    if format == "bmp":
        # OpenCV makes gray of the colours of the one, and darkens the 5 bits of the other.
        core = int.from_bytes(data[14:18], "little") == _CORE_HEADER_BYTES
        packed = int.from_bytes(data[28:30], "little") == 16
        return replace(header, pillow_pixels=core or packed)
    return _tiff_header(image, header, max_pixels) if format == "tiff" else header


def _tiff_header(image: Image.Image, header: Header, max_pixels: int) -> Header:
    tags: Any = image.getexif()
    # A tile takes memory by what it claims to be, however small the image is.
    width, height = (_values(tags.get(t, 1))[0] for t in (_TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH))
    _check_size(width, height, max_pixels, " in a tile")
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
    if extra == _ASSOCIATED_ALPHA:  # enhanced, a colour would exceed its alpha
        raise ImageError(ErrorCode.UNSUPPORTED, "premultiplied alpha cannot be kept")
    # OpenCV reads 8 bit through an interface that multiplies colours by an unassociated alpha,
    # and that fails for small tiles.
    straight = header.mode == "RGBA" and extra == UNASSOCIATED_ALPHA
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
    # A damaged header may say 0; decoding refuses it.
    return (layers[0][1] // max(1, layers[1][1]), layers[0][2] // max(1, layers[1][2]))
