"""Images of every kind, good and bad, for the tests of the codecs and of whole runs."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

from batchlight.config import Format
from batchlight.images import codec
from batchlight.images.chunks import PNG_SIGNATURE
from batchlight.images.header import read_header
from batchlight.images.image import Decoded
from batchlight.images.pixels import Pixels

TARGETS: list[Format] = ["jpeg", "png", "webp", "tiff", "avif"]
"""What ``--format`` names; BMP and HEIC are written only for an input of the same format."""
FORMATS: list[Format] = [*TARGETS, "bmp"]
MAX_PIXELS = 200_000_000
ORIENTATION, MAKE, EXTRA_SAMPLES = 0x0112, 0x010F, 0x0152
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>dark</x:xmpmeta>"


def samples(channels: int, dtype: type = np.uint8, height: int = 6, width: int = 9) -> Pixels:
    """Noise over the whole range, in file order: RGB; alpha comes last."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    rng = np.random.default_rng(channels)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def patches() -> Image.Image:
    """A picture without any symmetry, kind to lossy codecs: 3x2 flat patches of 16 pixels."""
    top = [(200, 30, 30), (30, 180, 30), (30, 30, 200)]
    bottom = [(230, 220, 40), (90, 90, 90), (5, 5, 5)]
    colours = np.array([top, bottom], np.uint8)
    return Image.fromarray(colours.repeat(16, axis=0).repeat(16, axis=1))


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def png(array: Pixels) -> bytes:
    """Any kind of PNG, written by hand: gray, gray and alpha, RGB or RGBA with 8 or 16 bits."""
    array = array[:, :, None] if array.ndim == 2 else array
    height, width, channels = array.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in array)
    pixels = png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND")
    return png_start(width, height, array.itemsize * 8, kind) + pixels


def png_start(width: int, height: int, depth: int = 8, kind: int = 2) -> bytes:
    """Signature and header."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return PNG_SIGNATURE + png_chunk(b"IHDR", header)


def png_chunk(kind: bytes, payload: bytes = b"") -> bytes:
    check = zlib.crc32(kind + payload)
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", check)


def tiff(array: Pixels, alpha: str | None = None, **options: Any) -> bytes:
    """A TIFF by tifffile; ``alpha`` is ``unassalpha`` or ``assocalpha``."""
    buffer = io.BytesIO()
    options.setdefault("photometric", "rgb" if array.shape[2:] >= (3,) else "minisblack")
    if alpha:
        options["extrasamples"] = [alpha]
    tifffile.imwrite(buffer, array, metadata=None, **options)
    return buffer.getvalue()


def animation(format: str) -> bytes:
    """Three frames, or pages, that really differ: encoders drop repeated ones."""
    flips = (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM)
    others = [patches().transpose(flip) for flip in flips]
    return saved(patches(), format, save_all=True, append_images=others)


def avif_10_bit() -> bytes:
    deep = samples(3, np.uint16) >> 6
    return bytes(cv2.imencode(".avif", deep, [cv2.IMWRITE_AVIF_DEPTH, 10])[1])


def planes(array: Pixels) -> bytes:
    """A TIFF whose channels are stored one after another."""
    apart = np.ascontiguousarray(np.moveaxis(array, 2, 0))
    return tiff(apart, photometric="rgb", planarconfig="separate")


def with_everything(format: Format, icc: bytes = ICC) -> bytes:
    exif = Image.Exif()
    exif[MAKE], exif[ORIENTATION] = "Lantern", 6
    options: dict[str, Any] = {"exif": exif, "icc_profile": icc}
    if format == "png":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        return saved(patches(), "PNG", pnginfo=info, **options)
    return saved(patches(), format.upper(), xmp=XMP, **options)


def png_with_late_metadata() -> bytes:
    exif = Image.Exif()
    exif[MAKE], exif[ORIENTATION] = "Lantern", 6
    plain = saved(patches(), "PNG")
    xmp = b"XML:com.adobe.xmp" + b"\0\1\0\0\0" + zlib.compress(XMP)
    late = png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + png_chunk(b"iTXt", xmp)
    return plain[:-12] + late + plain[-12:]


def read(data: bytes) -> Decoded:
    return codec.decode(data, read_header(data, MAX_PIXELS))


def again(data: bytes, format: Format | None = None, quality: int = 95) -> bytes:
    """The image decoded and encoded again, with its pixels unchanged."""
    decoded = read(data)
    return codec.encode(decoded, decoded.pixels, format or decoded.header.format, quality).data


UNSUPPORTED: dict[str, bytes] = {
    "gif-content.png": saved(patches(), "GIF"),
    "cmyk.jpg": saved(patches().convert("CMYK"), "JPEG"),
    "cmyk.tif": saved(patches().convert("CMYK"), "TIFF"),
    "lab.tif": tiff(samples(3), photometric="cielab"),
    "lab-16.tif": tiff(samples(3, np.uint16), photometric="cielab"),
    "float.tif": tiff(samples(1).astype(np.float32)),
    "float-rgb.tif": tiff(samples(3).astype(np.float32)),
    "int32.tif": tiff(samples(1, np.int32)),
    "uint32-rgb.tif": tiff(samples(3, np.uint32)),
    "int8.tif": tiff(samples(1, np.int8)),
    "inverted-16.tif": tiff(samples(1, np.uint16), photometric="miniswhite"),
    "planes-16.tif": planes(samples(3, np.uint16)),
    "gray-alpha.tif": tiff(samples(2), "unassalpha"),
    "gray-alpha-16.tif": tiff(samples(2, np.uint16), "unassalpha"),
    "five-samples.tif": tiff(samples(5)),
    "unnamed-sample.tif": tiff(samples(4), "unspecified"),
    "unnamed-sample-16.tif": tiff(samples(4, np.uint16), "unspecified"),
    "zstd.tif": saved(patches(), "TIFF", compression="zstd"),
    "pages.tif": animation("TIFF"),
    "animated.webp": animation("WEBP"),
    "animated.png": animation("PNG"),
    "animated.avif": animation("AVIF"),
    "mpo.jpg": animation("MPO"),
    "ten-bit.avif": avif_10_bit(),
}
"""By name: valid files of kinds that cannot be kept."""
