"""What a BMP file contains besides its pixels: its headers, and the profile amid other data.

Layouts: Microsoft, Bitmap Header Types; OS/2 Presentation Manager, BITMAPINFOHEADER2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from batchlight.images import colour
from batchlight.images.bmp_layout import (
    ALPHA_BITFIELDS,
    ALPHA_MASK,
    BASIC,
    BITFIELDS,
    CORE,
    FILE_HEADER,
    FOURTH,
    MASKS,
    OS2,
    RGB,
    WITH_COLOURS,
    WITH_PROFILE,
    Layout,
)
from batchlight.images.metadata import Metadata
from batchlight.images.pixels import Pixels

_CALIBRATED = 0
"""Colour space type of headers from version 4 on, whose endpoints and gamma hold."""
_GAMMAS = 110
"""Offset of the gammas of red, green and blue."""
_CHROMATICITIES_WITHIN = 0.01
"""How far from 1 the sum of each endpoint may be that is a chromaticity."""
_EMBEDDED = (b"DEBM", b"KNIL")
"""Colour space types of version 5 that have a profile."""


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
    unused: bool = False
    """Whether bits that no channel has differ between pixels."""
    fourth: bytes = b""
    """Those bits, if they are the fourth byte of each pixel; the top row first."""

    @property
    def nbytes(self) -> int:
        """Memory used, in bytes."""
        return len(self.head) + len(self.gap) + len(self.trailer) + len(self.fourth)


def take(data: bytes, layout: Layout, has_palette: bool, is_file: bool) -> Carried:
    """Everything but the pixels and their palette."""
    head_end = FILE_HEADER + layout.header
    entries_at = head_end
    if layout.header == BASIC and layout.masks and layout.compression:
        entries_at += 4 * len(layout.masks)
    colours = 0
    if layout.bits <= 8:
        stated = 0 if layout.header == CORE else int.from_bytes(data[46:50], "little")
        colours = stated or 2**layout.bits
    gap_at = entries_at + colours * (3 if layout.header == CORE else 4)
    end, (unused, fourth) = layout.end, _unused(data, layout)
    return Carried(
        layout,
        data[:head_end],
        data[gap_at : layout.start] if gap_at < layout.start else b"",
        b"" if end is None else data[end:],
        has_palette,
        is_file,
        unused,
        fourth,
    )


def _unused(data: bytes, layout: Layout) -> tuple[bool, bytes]:
    """Whether unused bits differ; all of them, if they are the fourth byte of each pixel."""
    size, height = layout.stride * abs(layout.height), abs(layout.height)
    if not layout.unused or len(data) < layout.start + size:
        return False, b""
    stored = memoryview(data)[layout.start : layout.start + size]
    is_byte = layout.unused == FOURTH and not layout.has_alpha
    if is_byte:
        bits: Pixels = np.frombuffer(stored, np.uint8).reshape(height, -1)[:, 3::4]
    else:
        words = np.frombuffer(stored, f"<u{layout.bits // 8}").reshape(height, -1)
        bits = words[:, : layout.width] & layout.unused
    if (bits == bits[0, 0]).all():
        return False, b""
    upward = bits if layout.height < 0 else bits[::-1]
    return True, upward.tobytes() if is_byte else b""


def metadata(carried: Carried, gray: bool) -> Metadata:
    """In the terms that all formats share."""
    head, layout = carried.head, carried.layout
    others = ["palette"] if carried.has_palette else []
    icc, gap, behind = _profile(carried)
    others += ["data before the pixels"] if gap.strip(b"\0") else []
    others += ["data behind the image"] if behind.strip(b"\0") else []
    others += ["unused bits"] if carried.unused else []
    if layout.header == CORE:
        return Metadata(others=tuple(others))
    x, y = struct.unpack_from("<ii", head, 38)
    density = (float(x), float(y)) if x > 0 and y > 0 else None
    inexpressible = None
    if icc is None and (own := _calibrated(carried)) is not None:
        icc = colour.gray_profile(own.curve) if gray else colour.profile(own)
        if len({*struct.unpack_from("<3I", head, _GAMMAS)}) > 1:
            inexpressible = "its gammas, which differ"
    return Metadata(icc=icc, density=density, others=tuple(others), inexpressible=inexpressible)


def _profile(carried: Carried) -> tuple[bytes | None, bytes, bytes]:
    """The embedded profile, and the data before and behind the pixels without it."""
    head, layout, gap, trailer = carried.head, carried.layout, carried.gap, carried.trailer
    if layout.header < WITH_PROFILE or head[70:74] != _EMBEDDED[0]:
        return None, gap, trailer
    offset, size = struct.unpack_from("<II", head, 126)
    start = FILE_HEADER + offset
    if start < layout.start:
        at = start - (layout.start - len(gap))
        if at < 0:
            return None, gap, trailer
        return gap[at : at + size] or None, gap[:at] + gap[at + size :], trailer
    at = max(0, start - (layout.end or 0))
    return trailer[at : at + size] or None, gap, trailer[:at] + trailer[at + size :]


def _calibrated(carried: Carried) -> colour.Colours | None:
    """What the header's endpoints and gamma say; None if it states none.

    The endpoints are XYZ, whose sum is white, or just chromaticities, for white as in sRGB; the
    gamma is red's.
    """
    head, layout = carried.head, carried.layout
    if layout.header not in (WITH_COLOURS, WITH_PROFILE):
        return None
    kind, *words = struct.unpack_from("<I9I", head, 70)
    (gamma,) = struct.unpack_from("<I", head, _GAMMAS)
    endpoints = np.array(words, np.float64).reshape(3, 3) / 2**30
    sums = endpoints.sum(axis=1)
    if kind != _CALIBRATED or not gamma or (sums == 0).any():
        return None
    white = endpoints.sum(axis=0)
    points = [tuple(row[:2] / row.sum()) for row in (white, *endpoints)]
    if np.abs(sums - 1).max() < _CHROMATICITIES_WITHIN:
        points[0] = colour.D65
    (a, b), (c, d), (e, f), (g, h) = points
    return colour.Colours((a, b, c, d, e, f, g, h), (gamma / 2**16,))


def adapted_header(carried: Carried, bits: int, alpha: bool, size: int, end: int) -> bytes:
    """The source's header adapted to other pixels; ``end``: where they end in the file."""
    layout, header = carried.layout, bytearray(carried.head[FILE_HEADER:])
    if layout.header == CORE:
        struct.pack_into("<H", header, 10, bits)
        return bytes(header)
    compression = RGB
    if alpha:
        compression = BITFIELDS if layout.header >= ALPHA_MASK else ALPHA_BITFIELDS
    struct.pack_into("<HII", header, 14, bits, compression, size)
    struct.pack_into("<II", header, 32, 256 if bits == 8 else 0, 0)
    as_before = (layout.bits, layout.compression) == (bits, compression)
    if layout.header > BASIC and layout.header != OS2 and not as_before:
        masks = MASKS if alpha else (*MASKS[:3], 0)
        count = min(4, (layout.header - BASIC) // 4)
        struct.pack_into(f"<{count}I", header, BASIC, *masks[:count])
    if layout.header >= WITH_PROFILE and bytes(header[56:60]) in _EMBEDDED:
        (offset,) = struct.unpack_from("<I", header, 112)
        at, behind = offset + FILE_HEADER, layout.end or 0
        if layout.start - len(carried.gap) <= at < layout.start:
            struct.pack_into("<I", header, 112, offset + end - size - layout.start)
        elif at >= behind:
            struct.pack_into("<I", header, 112, offset + end - behind)
    return bytes(header)
