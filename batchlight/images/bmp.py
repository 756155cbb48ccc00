"""BMP: palettes, run lengths, masks of any kind; resolution, profile and colour space.

OpenCV decodes the files that all decoders read alike, Pillow those of OS/2. The header, and what
surrounds the pixels, is carried over.
Layouts: Microsoft, Bitmap Header Types; OS/2 Presentation Manager, BITMAPINFOHEADER2.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image

from batchlight.errors import ErrorCode, ImageError
from batchlight.images import bmp_runs, opencv, pillow
from batchlight.images.image import Decoded, Encoded, Header, check_size
from batchlight.images.image_format import ImageFormat
from batchlight.images.metadata import Metadata
from batchlight.images.pixels import Pixels

_FILE_HEADER, _CORE = 14, 12
"""Bytes of the file header, and of OS/2's header, which has 16-bit sizes."""
_BASIC, _ALPHA_MASK, _WITH_PROFILE = 40, 56, 124
"""Bytes of a header: Windows's, the first with an alpha mask, the first with a profile."""
_RGB, _RLE8, _RLE4, _BITFIELDS, _ALPHA_BITFIELDS = 0, 1, 2, 3, 6
"""Compressions."""
_OS2 = 64
_HEADERS, _DEPTHS = frozenset({40, 52, 56, 108, 124}), frozenset({1, 4, 8, 16, 24, 32})
_MASKS = (0x00FF0000, 0x0000FF00, 0x000000FF, 0xFF000000)
_555 = (0x7C00, 0x03E0, 0x001F)
_EMBEDDED = (b"DEBM", b"KNIL")
"""Colour space types of version 5 that have a profile."""


@dataclass(frozen=True)
class Layout:
    """The layout of the pixels according to the header."""

    header: int
    """Size in bytes."""
    width: int
    height: int
    """Negative if the first row is the top one."""
    bits: int
    compression: int
    size_image: int
    start: int
    """Offset of the pixels in the file."""
    masks: tuple[int, ...]
    """For red, green, blue and alpha; empty if there are none."""

    @property
    def stride(self) -> int:
        """Bytes of a row."""
        return (self.width * self.bits + 31) // 32 * 4

    @property
    def end(self) -> int | None:
        """End of the pixels in the file; None if that is the end of the file."""
        if self.compression in (_RLE8, _RLE4):
            return self.start + self.size_image if self.size_image else None
        return self.start + self.stride * abs(self.height)


@dataclass(frozen=True)
class Carried:
    """A BMP file without its pixels."""

    layout: Layout
    head: bytes
    """Both headers."""
    gap: bytes
    """Bytes between palette and pixels."""
    trailer: bytes
    has_palette: bool
    is_file: bool
    """Whether it has a file header."""

    @property
    def nbytes(self) -> int:
        """Memory used, in bytes."""
        return len(self.head) + len(self.gap) + len(self.trailer)


def _whole(data: bytes) -> bytes:
    """The file with a file header, which images from a clipboard lack."""
    if data.startswith(b"BM"):
        return data
    header, bits = int.from_bytes(data[:4], "little"), int.from_bytes(data[14:16], "little")
    compression, used = (int.from_bytes(data[at : at + 4], "little") for at in (16, 32))
    masks = {_BITFIELDS: 3, _ALPHA_BITFIELDS: 4}.get(compression, 0) if header == _BASIC else 0
    start = _FILE_HEADER + header + 4 * (masks + (used or (2**bits if bits <= 8 else 0)))
    return b"BM" + struct.pack("<IHHI", _FILE_HEADER + len(data), 0, 0, start) + data


def _recognises(data: bytes) -> bool:
    if data.startswith(b"BM"):
        return True
    if len(data) < _BASIC or int.from_bytes(data[:4], "little") not in _HEADERS:
        return False
    planes, bits = struct.unpack_from("<HH", data, 12)
    return planes == 1 and bits in _DEPTHS


def layout_of(data: bytes) -> Layout:
    """Raises ``struct.error`` for a truncated header."""
    start, header = struct.unpack_from("<II", data, 10)
    if header == _CORE:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        return Layout(header, width, height, bits, _RGB, 0, start, ())
    width, height, _, bits, compression, size = struct.unpack_from("<iiHHII", data, 18)
    masks: tuple[int, ...] = ()
    if compression in (_BITFIELDS, _ALPHA_BITFIELDS):
        count = 4 if header >= _ALPHA_MASK or compression == _ALPHA_BITFIELDS else 3
        masks = struct.unpack_from(f"<{count}I", data, _FILE_HEADER + _BASIC)
    elif bits == 16:
        masks = _555
    return Layout(header, width, height, bits, compression, size, start, masks)


def inspect(data: bytes, max_pixels: int) -> Header:
    """The header, with everything but the pixels."""
    whole = _whole(data)
    layout = layout_of(whole)
    if layout.header not in _HEADERS | {_CORE, _OS2}:
        raise ImageError(
            ErrorCode.UNSUPPORTED, f"BMP header of {layout.header} bytes cannot be read"
        )
    width, height = layout.width, abs(layout.height)
    if width <= 0 or height == 0:
        raise ImageError(ErrorCode.CORRUPT, "the header is damaged: an image without pixels")
    check_size(width, height, max_pixels)
    if layout.masks:
        if layout.bits not in (16, 32):
            raise ImageError(
                ErrorCode.CORRUPT, f"the header is damaged: masks of {layout.bits} bits"
            )
        mode = "RGBA" if len(layout.masks) == 4 and layout.masks[3] else "RGB"
    else:
        with Image.open(io.BytesIO(whole), formats=["BMP"]) as image:
            mode = image.mode
    carried = _take(whole, layout, mode == "P", whole is data)
    return Header("bmp", width, height, mode, _metadata(carried), carried=carried)


def _take(data: bytes, layout: Layout, has_palette: bool, is_file: bool) -> Carried:
    head_end = _FILE_HEADER + layout.header
    entries_at = head_end
    if layout.header == _BASIC and layout.masks and layout.compression:
        entries_at += 4 * len(layout.masks)
    colours = 0
    if layout.bits <= 8:
        stated = 0 if layout.header == _CORE else int.from_bytes(data[46:50], "little")
        colours = stated or 2**layout.bits
    gap_at = entries_at + colours * (3 if layout.header == _CORE else 4)
    end = layout.end
    return Carried(
        layout,
        data[:head_end],
        data[gap_at : layout.start] if gap_at < layout.start else b"",
        b"" if end is None else data[end:],
        has_palette,
        is_file,
    )


def _metadata(carried: Carried) -> Metadata:
    head, layout = carried.head, carried.layout
    others = ["palette"] if carried.has_palette else []
    if layout.header == _CORE:
        return Metadata(others=tuple(others))
    x, y = struct.unpack_from("<ii", head, 38)
    icc = None
    if layout.header >= _WITH_PROFILE and head[70:74] == _EMBEDDED[0]:
        offset, size = struct.unpack_from("<II", head, 126)
        start = _FILE_HEADER + offset - (layout.end or 0)
        icc = carried.trailer[start : start + size] if start >= 0 else None
    elif carried.trailer.strip(b"\0"):
        others.append("data behind the image")
    density = (float(x), float(y)) if x > 0 and y > 0 else None
    return Metadata(icc=icc or None, density=density, others=tuple(others))


def decode(data: bytes, header: Header) -> Pixels | None:
    """The samples, palettes resolved."""
    data = _whole(data)
    layout = layout_of(data)
    if layout.masks:
        return _by_masks(data, layout, header.has_alpha)
    if layout.compression in (_RLE8, _RLE4):
        indices = bmp_runs.decode(
            data[layout.start : layout.end], layout.width, abs(layout.height), layout.compression
        )
        upward = indices if layout.height < 0 else indices[::-1]
        colours = _palette(data, layout)
        return np.ascontiguousarray(colours[upward, 0] if header.mode != "P" else colours[upward])
    if layout.header == _CORE:
        return pillow.decode(data, header)
    return opencv.decode(data)


def _palette(data: bytes, layout: Layout) -> Pixels:
    """256 colours in blue, green and red; black where the file has fewer."""
    at = _FILE_HEADER + layout.header
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
    if not isinstance(carried, Carried):
        return Encoded.of(
            opencv.encode(".bmp", decoded.samples), decoded.header.metadata.lost(set())
        )
    samples = decoded.samples
    layout = carried.layout
    gray, alpha = samples.ndim == 2, decoded.alpha is not None
    bits = 8 if gray else 32 if alpha else 24
    palette = _gray_palette(layout.header) if gray else b""
    masks = struct.pack("<4I", *_MASKS) if alpha and layout.header < _ALPHA_MASK else b""
    before = carried.head[_FILE_HEADER:], masks + palette, carried.gap
    start = _FILE_HEADER + sum(map(len, before))
    rows = _rows(samples, layout.height < 0)
    end = start + rows.nbytes
    header = _header(carried, bits, alpha, rows.nbytes, end)
    file_header = b""
    if carried.is_file:
        size = struct.pack("<I", end + len(carried.trailer))
        file_header = b"BM" + size + carried.head[6:10] + struct.pack("<I", start)
    out = b"".join((file_header, header, *before[1:], rows.data, carried.trailer))
    return Encoded.of(out, ["palette"] if carried.has_palette else [])


def _header(carried: Carried, bits: int, alpha: bool, size: int, end: int) -> bytes:
    """The source's header adapted to other pixels; ``end``: where they end in the file."""
    layout, header = carried.layout, bytearray(carried.head[_FILE_HEADER:])
    if layout.header == _CORE:
        struct.pack_into("<H", header, 10, bits)
        return bytes(header)
    compression = _RGB
    if alpha:
        compression = _BITFIELDS if layout.header >= _ALPHA_MASK else _ALPHA_BITFIELDS
    struct.pack_into("<HII", header, 14, bits, compression, size)
    struct.pack_into("<II", header, 32, 256 if bits == 8 else 0, 0)
    if layout.header > _BASIC and layout.header != _OS2:
        masks = _MASKS if alpha else (*_MASKS[:3], 0)
        count = min(4, (layout.header - _BASIC) // 4)
        struct.pack_into(f"<{count}I", header, _BASIC, *masks[:count])
    if layout.header >= _WITH_PROFILE and bytes(header[56:60]) in _EMBEDDED:
        (offset,) = struct.unpack_from("<I", header, 112)
        behind = offset + _FILE_HEADER - (layout.end or 0)
        if behind >= 0:
            struct.pack_into("<I", header, 112, end + behind - _FILE_HEADER)
    return bytes(header)


def _gray_palette(header: int) -> bytes:
    zero = b"" if header == _CORE else b"\0"
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
    holds_gray_alpha=False,
)
