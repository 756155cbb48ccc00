"""The layout of a BMP file, as its header states it.

Layouts: Microsoft, Bitmap Header Types; OS/2 Presentation Manager, BITMAPINFOHEADER2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

FILE_HEADER, CORE = 14, 12
"""Bytes of the file header, and of OS/2's header, which has 16-bit sizes."""
BASIC, ALPHA_MASK, WITH_COLOURS, WITH_PROFILE = 40, 56, 108, 124
"""Bytes of a header: Windows's, the first with an alpha mask, a colour space, a profile."""
OS2 = 64
RGB, RLE8, RLE4, BITFIELDS, ALPHA_BITFIELDS = 0, 1, 2, 3, 6
"""Compressions."""
MASKS = (0x00FF0000, 0x0000FF00, 0x000000FF, 0xFF000000)
_555 = (0x7C00, 0x03E0, 0x001F)
FOURTH = 0xFF000000
"""The bits that are unused if there are three bytes of colours in four."""


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
    def has_alpha(self) -> bool:
        """Whether it has a mask of alpha."""
        return len(self.masks) == len(MASKS) and self.masks[-1] != 0

    @property
    def unused(self) -> int:
        """The bits of a pixel of 16 or 32 bits that no channel has."""
        if self.bits not in (16, 32) or self.compression not in (RGB, BITFIELDS, ALPHA_BITFIELDS):
            return 0
        unused: int = 2**self.bits - 1
        for mask in self.masks or MASKS[:3]:
            unused &= ~mask
        return unused

    @property
    def end(self) -> int | None:
        """End of the pixels in the file; None if that is the end of the file."""
        if self.compression in (RLE8, RLE4):
            return self.start + self.size_image if self.size_image else None
        return self.start + self.stride * abs(self.height)


def layout_of(data: bytes) -> Layout:
    """Raises ``struct.error`` for a truncated header."""
    start, header = struct.unpack_from("<II", data, 10)
    if header == CORE:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        return Layout(header, width, height, bits, RGB, 0, start, ())
    width, height, _, bits, compression, size = struct.unpack_from("<iiHHII", data, 18)
    masks: tuple[int, ...] = ()
    if compression in (BITFIELDS, ALPHA_BITFIELDS):
        count = 4 if header >= ALPHA_MASK or compression == ALPHA_BITFIELDS else 3
        masks = struct.unpack_from(f"<{count}I", data, FILE_HEADER + BASIC)
    elif bits == 16:
        masks = _555
    return Layout(header, width, height, bits, compression, size, start, masks)
