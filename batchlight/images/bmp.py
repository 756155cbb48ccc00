"""BMP: palettes, run lengths, masks of any kind; resolution, profile and colour space.

OpenCV decodes the files that all decoders read alike, Pillow those of OS/2. The header, and what
surrounds the pixels, is carried over.
Layouts: Microsoft, Bitmap Header Types; OS/2 Presentation Manager, BITMAPINFOHEADER2.
"""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image

from batchlight.errors import ImageError
from batchlight.images import bmp_runs, opencv, pillow
from batchlight.images.bmp_carry import Carried, adapted_header, metadata, take
from batchlight.images.bmp_layout import (
    ALPHA_BITFIELDS,
    ALPHA_MASK,
    BASIC,
    BITFIELDS,
    CORE,
    FILE_HEADER,
    MASKS,
    OS2,
    RLE4,
    RLE8,
    Layout,
    layout_of,
)
from batchlight.images.image import Decoded, Encoded, Header, check_size
from batchlight.images.image_format import ImageFormat
from batchlight.images.pixels import Pixels

_OS2_CODINGS = {3: "Huffman", 4: "RLE24"}
_ARRAY = b"BA"
"""Begins several bitmaps of OS/2 in one file."""
_HEADERS, _DEPTHS = frozenset({40, 52, 56, 108, 124}), frozenset({1, 4, 8, 16, 24, 32})


def _whole(data: bytes) -> bytes:
    """The file with a file header, which images from a clipboard lack."""
    if data.startswith(b"BM"):
        return data
    header, bits = int.from_bytes(data[:4], "little"), int.from_bytes(data[14:16], "little")
    compression, used = (int.from_bytes(data[at : at + 4], "little") for at in (16, 32))
    masks = {BITFIELDS: 3, ALPHA_BITFIELDS: 4}.get(compression, 0) if header == BASIC else 0
    start = FILE_HEADER + header + 4 * (masks + (used or (2**bits if bits <= 8 else 0)))
    return b"BM" + struct.pack("<IHHI", FILE_HEADER + len(data), 0, 0, start) + data


def _recognises(data: bytes) -> bool:
    if data.startswith(b"BM") or (data.startswith(_ARRAY) and data[14:16] == b"BM"):
        return True
    if len(data) < BASIC or int.from_bytes(data[:4], "little") not in _HEADERS:
        return False
    planes, bits = struct.unpack_from("<HH", data, 12)
    return planes == 1 and bits in _DEPTHS


def inspect(data: bytes, max_pixels: int) -> Header:
    """The header, with everything but the pixels."""
    if data.startswith(_ARRAY):
        raise ImageError.unsupported("several bitmaps of OS/2 cannot be kept; split the file first")
    whole = _whole(data)
    layout = layout_of(whole)
    if layout.header == OS2 and layout.compression in _OS2_CODINGS:
        raise ImageError.unsupported(
            f"BMP in OS/2's {_OS2_CODINGS[layout.compression]} cannot be read"
        )
    if layout.header not in _HEADERS | {CORE, OS2}:
        raise ImageError.unsupported(f"BMP header of {layout.header} bytes cannot be read")
    width, height = layout.width, abs(layout.height)
    if width <= 0 or height == 0:
        raise ImageError.corrupt("the header is damaged: an image without pixels")
    check_size(width, height, max_pixels)
    if layout.masks:
        if layout.bits not in (16, 32):
            raise ImageError.corrupt(f"the header is damaged: masks of {layout.bits} bits")
        mode = "RGBA" if layout.has_alpha else "RGB"
    else:
        with Image.open(io.BytesIO(whole), formats=["BMP"]) as image:
            mode = image.mode
    carried = take(whole, layout, mode == "P", whole is data)
    return Header(
        "bmp", width, height, mode, metadata(carried, gray=mode in ("1", "L")), carried=carried
    )


def decode(data: bytes, header: Header) -> Pixels | None:
    """The samples, palettes resolved."""
    data = _whole(data)
    layout = layout_of(data)
    if layout.masks:
        return _by_masks(data, layout, header.has_alpha)
    if layout.compression in (RLE8, RLE4):
        indices = bmp_runs.decode(
            data[layout.start : layout.end], layout.width, abs(layout.height), layout.compression
        )
        upward = indices if layout.height < 0 else indices[::-1]
        colours = _palette(data, layout)
        return np.ascontiguousarray(colours[upward, 0] if header.mode != "P" else colours[upward])
    if layout.header == CORE:
        return pillow.decode(data, header)
    return opencv.decode(data)


def _palette(data: bytes, layout: Layout) -> Pixels:
    """256 colours in blue, green and red; black where the file has fewer."""
    at = FILE_HEADER + layout.header
    count = min(int.from_bytes(data[46:50], "little") or 2**layout.bits, 256)
    stored = np.frombuffer(data[at : at + 4 * count].ljust(4 * count, b"\0"), np.uint8)
    colours = np.zeros((256, 3), np.uint8)
    colours[:count] = stored.reshape(-1, 4)[:, :3]
    return colours


def _by_masks(data: bytes, layout: Layout, has_alpha: bool) -> Pixels | None:
    """Samples of as many bits as the masks have, scaled to 0..255."""
    height, size = abs(layout.height), layout.bits // 8
    rows = data[layout.start : layout.end]
    if len(rows) < layout.stride * height:
        return None
    words = np.frombuffer(rows, f"<u{size}", count=layout.stride * height // size)
    words = words.reshape(height, -1)[:, : layout.width].astype(np.uint32)
    order = [2, 1, 0, 3] if has_alpha else [2, 1, 0]
    samples = np.stack([_channel(words, layout.masks[n]) for n in order], axis=2)
    return samples if layout.height < 0 else np.ascontiguousarray(samples[::-1])


def _channel(words: Pixels, mask: int) -> Pixels:
    if not mask:
        return np.zeros(words.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    top = mask >> shift
    values = (words & np.uint32(mask)) >> np.uint32(shift)
    return (values.astype(np.uint64) * 255 // top).astype(np.uint8)


def encode(decoded: Decoded, quality: int) -> Encoded:
    """An uncompressed BMP with the header of the file that the image came from."""
    carried = decoded.header.carried
    assert isinstance(carried, Carried)  # no other format is written as BMP
    samples = decoded.samples
    layout = carried.layout
    gray, alpha = samples.ndim == 2, decoded.alpha is not None
    if carried.fourth:
        fourth = np.frombuffer(carried.fourth, np.uint8).reshape(*samples.shape[:2], 1)
        samples = np.concatenate([samples, fourth], axis=2)
    bits = 8 if gray else 8 * samples.shape[2]
    palette = _gray_palette(layout.header) if gray else b""
    masks = struct.pack("<4I", *MASKS) if alpha and layout.header < ALPHA_MASK else b""
    before = carried.head[FILE_HEADER:], masks + palette, carried.gap
    start = FILE_HEADER + sum(map(len, before))
    rows = _rows(samples, layout.height < 0)
    end = start + rows.nbytes
    header = adapted_header(carried, bits, alpha, rows.nbytes, end)
    file_header = b""
    if carried.is_file:
        size = struct.pack("<I", end + len(carried.trailer))
        file_header = b"BM" + size + carried.head[6:10] + struct.pack("<I", start)
    out = b"".join((file_header, header, *before[1:], rows.data, carried.trailer))
    named = {"palette": carried.has_palette, "unused bits": carried.unused and not carried.fourth}
    return Encoded.of(out, [name for name, is_lost in named.items() if is_lost])


def _gray_palette(header: int) -> bytes:
    zero = b"" if header == CORE else b"\0"
    return b"".join(bytes([value] * 3) + zero for value in range(256))


def _rows(samples: Pixels, top_first: bool) -> Pixels:
    """The rows as bytes, (height, stride), each padded to a multiple of four."""
    stored = samples.reshape(samples.shape[0], -1)
    if not top_first:
        stored = stored[::-1]
    height, width = stored.shape
    rows = np.zeros((height, width + -width % 4), np.uint8)
    rows[:, :width] = stored
    return rows


BMP = ImageFormat(
    "bmp",
    recognises=_recognises,
    inspect=inspect,
    encode=encode,
    decode=decode,
    not_read=("Unsupported BMP",),
)
