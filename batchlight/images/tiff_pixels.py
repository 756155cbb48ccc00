"""The pixels of a TIFF file: strips and tiles decoded, each completely or not at all.

imagecodecs undoes the compression; for JPEG, simplejpeg, which reports damage; for LZW in strips,
Pillow, which does too. OpenCV's own reader fills damaged parts with black, and does not report it.
Layout: TIFF, revision 6.0.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import imagecodecs
import numpy as np
import simplejpeg
from PIL import Image

from batchlight.images import opencv, pillow
from batchlight.images.effort import bounded_scans
from batchlight.images.pixels import Pixels, turned_back
from batchlight.images.segments import APP0, APP14, after_scan, segment, segments
from batchlight.images.thumbnails import jpeg_size
from batchlight.images.tiff_layout import (
    DEFLATE,
    FAX3,
    FAX4,
    FAX_RLE,
    HORIZONTAL,
    JPEG,
    LZW,
    MIN_IS_BLACK,
    MIN_IS_WHITE,
    NONE,
    OLD_DEFLATE,
    PACKBITS,
    PALETTE,
    RGB,
    YCBCR,
    Layout,
)

_LSB_FIRST = 2
"""Fill order with the lowest bit first."""
_OTHER_CODING = ("Unsupported", "tjDecompressHeader3(): Could not determine subsampling")
"""How errors begin if simplejpeg does not support the kind of JPEG: lossless, odd samplings."""


_JPEG_BLOCK = 32
"""Pixels: the largest unit of a JPEG, up to which its sides may be rounded."""


_BEYOND = 2**16
"""Bytes that are decoded beyond twice those needed, to reach the checksum."""


class DamagedError(ValueError):
    """A strip or tile that is truncated or damaged."""


def _inflated(raw: bytes, size: int) -> bytes:
    """``size`` bytes, hardly more, whatever the input expands to: a few may stand for gigabytes."""
    inflater = zlib.decompressobj()
    decoded = inflater.decompress(raw, size + 1)  # one more, so that the checksum is read
    if not inflater.eof and len(decoded) <= size:
        raise DamagedError("a strip or tile is cut short")
    if not inflater.eof:  # rows below the image, or damage: the checksum tells
        inflater.decompress(inflater.unconsumed_tail, size + _BEYOND)
    return decoded


_DECODERS: Mapping[int, Callable[[bytes, int], Any]] = {
    NONE: lambda raw, _: raw,
    LZW: lambda raw, size: imagecodecs.lzw_decode(raw, out=size),
    DEFLATE: _inflated,
    OLD_DEFLATE: _inflated,
    PACKBITS: lambda raw, _: imagecodecs.packbits_decode(raw),
}
"""Each takes the coded bytes, and the minimum number of decoded bytes."""


def decode(data: bytes, layout: Layout) -> Pixels:
    """The samples as stored, alpha last, in OpenCV's order; palettes resolved.

    Raises ``DamagedError``, and the decoders' own exceptions.
    """
    if len(layout.segments) < layout.needed:
        raise DamagedError("strips or tiles are missing")
    if layout.photometric == YCBCR and layout.compression != JPEG:
        return _ycbcr(data, layout)
    if layout.compression == LZW and (_is_old_lzw(data, layout) or _is_usual(layout)):
        return _by_pillow(data, layout)
    whole_bytes = layout.bits >= 8 and layout.compression in _DECODERS
    if whole_bytes and not layout.tiled and layout.planes == 1:
        samples = _strips(data, layout)
    else:
        samples = _blocks(data, layout)
    if layout.predictor == HORIZONTAL and not layout.tiled and layout.compression != JPEG:
        native = np.ascontiguousarray(samples, samples.dtype.newbyteorder("="))
        samples = imagecodecs.delta_decode(native, axis=1, out=native)
    return _as_read(samples, layout)


def _strips(data: bytes, layout: Layout) -> Pixels:
    """Strips of all channels together, which are also contiguous in memory."""
    dtype = _dtype(layout)
    row_bytes = layout.width * layout.samples * dtype.itemsize
    out: Any = np.empty(layout.height * row_bytes, np.uint8)
    at = 0
    for start, end in layout.segments:
        size = min(layout.rows * row_bytes, out.size - at)
        if size <= 0:
            break
        raw = _raw(data, start, end, layout)
        part = out[at : at + size]
        if layout.compression == LZW:
            whole = len(imagecodecs.lzw_decode(raw, out=part)) == size
        else:
            decoded = np.frombuffer(_DECODERS[layout.compression](raw, size), np.uint8)
            whole = decoded.size >= size
            if whole:
                part[:] = decoded[:size]
        if not whole:
            raise DamagedError("a strip or tile is cut short")
        at += size
    samples: Pixels = out.view(dtype).reshape(layout.height, layout.width, layout.samples)
    return samples


def _raw(data: bytes, start: int, end: int, layout: Layout) -> bytes:
    raw = data[start:end]
    if not raw or (len(raw) < end - start and layout.compression != NONE):
        raise DamagedError("a strip or tile lies outside the file")
    if layout.fill_order == _LSB_FIRST and layout.compression != JPEG:  # as in libtiff
        raw = bytes(imagecodecs.bitorder_decode(raw))
    return raw


def _dtype(layout: Layout) -> np.dtype[Any]:
    return np.dtype(layout.order + ("u2" if layout.bits == 16 else "u1"))


def _blocks(data: bytes, layout: Layout) -> Pixels:
    """Tiles, and strips of any kind, each put in its place."""
    channels, dtype = layout.samples // layout.planes, _dtype(layout)
    out = np.empty((layout.planes, layout.height, layout.width, channels), dtype)
    across = -(-layout.width // layout.columns)
    for number in range(layout.needed):
        plane, place = divmod(number, layout.needed // layout.planes)
        top, left = place // across * layout.rows, place % across * layout.columns
        rows = layout.rows if layout.tiled else min(layout.rows, layout.height - top)
        block = _block(data, layout, number, (rows, layout.columns, channels), dtype)
        shown = out[plane, top : top + rows, left : left + layout.columns]
        shown[...] = block[: shown.shape[0], : shown.shape[1]]
    return np.moveaxis(out[..., 0], 0, 2) if layout.planar else out[0]


def _block(
    data: bytes, layout: Layout, number: int, shape: tuple[int, int, int], dtype: np.dtype[np.uint]
) -> Pixels:
    """The samples of a strip or tile. For strips, differences are undone for all at once."""
    raw = _raw(data, *layout.segments[number], layout)
    if layout.compression == JPEG:
        return _jpeg(raw, layout, shape)
    rows, columns, channels = shape
    row_bytes = (columns * channels * layout.bits + 7) // 8
    size = rows * row_bytes
    if layout.compression in (FAX_RLE, FAX3, FAX4):
        return _fax(raw, layout, rows, columns)
    decoded = _DECODERS[layout.compression](raw, size)
    if len(decoded) < size:
        raise DamagedError("a strip or tile is cut short")
    if layout.bits == 1:
        packed = np.frombuffer(decoded, np.uint8, size).reshape(rows, row_bytes)
        return np.unpackbits(packed, axis=1)[:, :columns, None] * np.uint8(255)
    block: Pixels = np.frombuffer(decoded, dtype, size // dtype.itemsize).reshape(shape)
    if layout.predictor == HORIZONTAL and layout.tiled:
        block = imagecodecs.delta_decode(block.astype(dtype.newbyteorder("=")), axis=1)
    return block


def _fax(raw: bytes, layout: Layout, rows: int, columns: int) -> Pixels:
    """1 bit; black and white as in gray, not as in fax."""
    options: dict[str, Any] = {"height": rows, "width": columns}
    if layout.compression == FAX3:
        options["t4options"] = layout.fax_options
    codec = {
        FAX_RLE: imagecodecs.ccittrle_decode,
        FAX3: imagecodecs.ccittfax3_decode,
        FAX4: imagecodecs.ccittfax4_decode,
    }[layout.compression]
    decoded = np.frombuffer(codec(raw, **options), np.uint8)
    if decoded.size < rows * columns:
        row_bytes = (columns + 7) // 8
        if decoded.size < rows * row_bytes:
            raise DamagedError("a strip or tile is cut short")
        decoded = np.unpackbits(decoded[: rows * row_bytes].reshape(rows, -1), axis=1)[:, :columns]
    bits = decoded.reshape(-1)[: rows * columns].reshape(rows, columns, 1)
    return np.where(bits != 0, np.uint8(255), np.uint8(0))


def _jpeg(raw: bytes, layout: Layout, shape: tuple[int, int, int]) -> Pixels:
    """The samples of a JPEG stream, with its tables first and its colours as TIFF states them."""
    transform = layout.photometric == YCBCR
    colours = segment(APP14, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))
    stream = _without_colours(b"\xff\xd8" + layout.jpeg_tables[2:-2] + raw[2:])
    stream = stream[:2] + colours + stream[2:]
    _refuse_effort(stream, layout)
    kind = "GRAY" if shape[2] == 1 else "RGB"
    block: Pixels
    try:
        block = simplejpeg.decode_jpeg(stream, colorspace=kind, strict=True)
    except ValueError as error:
        if not str(error).startswith(_OTHER_CODING):
            raise
        block = imagecodecs.jpeg8_decode(stream).reshape(-1, layout.columns, shape[2])
    if block.dtype != np.uint8:
        raise ValueError("Unsupported JPEG of more than 8 bits")
    if block.shape[0] < shape[0] or block.shape[1] < shape[1]:
        raise DamagedError("a strip or tile is cut short")
    return block[: shape[0], : shape[1]]


def _without_colours(stream: bytes) -> bytes:
    """Without the segments of JFIF and Adobe, whose colours would precede those of TIFF."""
    kept, at = bytearray(), 0
    for one in segments(stream):
        if one.marker in (APP0, APP14):
            kept += stream[at : one.start]
            at = one.end
    return bytes(kept) + stream[at:]


def _refuse_effort(stream: bytes, layout: Layout) -> None:
    """Raise for a JPEG that takes more memory or time than a strip or tile may."""
    width, height = jpeg_size(stream) or (0, 0)
    if width >= layout.columns + _JPEG_BLOCK or height >= layout.rows + _JPEG_BLOCK:
        raise DamagedError("a strip or tile is larger than it may be")
    *_, last = segments(stream)
    for _ in bounded_scans(after_scan(stream, last.end)):
        pass


def _is_old_lzw(data: bytes, layout: Layout) -> bool:
    """Whether codes are stored as in TIFF before revision 6, lowest bit first."""
    start, end = layout.segments[0]
    return end - start > 1 and data[start] == 0 and data[start + 1] & 1 == 1


def _is_usual(layout: Layout) -> bool:
    """Whether Pillow can decode it, which takes less time than imagecodecs."""
    return (
        (layout.bits, layout.tiled, layout.planar, layout.fill_order) == (8, False, False, 1)
        and (layout.photometric, layout.samples) in ((MIN_IS_BLACK, 1), (RGB, 3))
        and layout.order == "<"
    )


def _by_pillow(data: bytes, layout: Layout) -> Pixels:
    """Pillow's pixels, which it turns upright; it handles old LZW, and refuses what is damaged."""
    with pillow.undisturbed(), Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
        samples = np.asarray(image.convert("RGB") if layout.mode == "P" else image)
    if samples.dtype == bool:
        samples = samples * np.uint8(255)
    if samples.ndim == 3:
        kind = cv2.COLOR_RGBA2BGRA if samples.shape[2] == 4 else cv2.COLOR_RGB2BGR
        samples = cv2.cvtColor(samples, kind)
    return turned_back(samples, layout.orientation)


def _ycbcr(data: bytes, layout: Layout) -> Pixels:
    """OpenCV's pixels, which it turns upright; all strips are checked first."""
    for number in range(layout.needed):
        size = layout.bytes_of(number)
        raw = _raw(data, *layout.segments[number], layout)
        if len(_DECODERS[layout.compression](raw, size)) < size:
            raise DamagedError("a strip or tile is cut short")
    upright = opencv.decode(data)
    if upright is None:
        raise DamagedError("the pixels are damaged")
    return turned_back(upright, layout.orientation)


def _as_read(samples: Pixels, layout: Layout) -> Pixels:
    """Gray, or blue, green, red and alpha."""
    samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
    if layout.photometric == PALETTE:
        return _coloured(samples[..., 0], layout)
    if layout.samples == 1:
        gray = samples[..., 0]
        return np.ascontiguousarray(~gray if layout.photometric == MIN_IS_WHITE else gray)
    kind = cv2.COLOR_RGBA2BGRA if layout.samples == 4 else cv2.COLOR_RGB2BGR
    return cv2.cvtColor(np.ascontiguousarray(samples), kind)


def _coloured(indices: Pixels, layout: Layout) -> Pixels:
    """Apply the palette of 16 bits; some writers store 8."""
    colours = np.array(layout.palette, np.uint32)
    if colours.size < 3 * 2**layout.bits:
        raise DamagedError("the palette is cut short")
    table = colours[: 3 * 2**layout.bits].reshape(3, -1)
    table = (table if table.max() < 256 else table >> 8).astype(np.uint8)
    if layout.bits == 1:
        indices = indices // np.uint8(255)
    return np.ascontiguousarray(table[::-1].T[indices])
