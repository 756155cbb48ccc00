"""Metadata of an image file: EXIF, XMP, ICC, and the orientation that they state."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

from batchlight.images import ifd

EXIF_PREFIX = b"Exif\x00\x00"
"""What comes before EXIF in a JPEG segment, and by mistake elsewhere."""

ORIENTATION_TAG = 0x0112
_XMP_ORIENTATION = re.compile(rb'(tiff:Orientation(?:="|>))[0-9]')


@dataclass(frozen=True)
class Metadata:
    """What an image file says about itself beside its pixels."""

    exif: bytes | None = None
    """A TIFF structure, without JPEG's ``Exif`` prefix."""

    xmp: bytes | None = None
    """The XMP packet, without JPEG's namespace prefix."""

    icc: bytes | None = None
    """The whole colour profile."""

    native: dict[str, bytes] = field(default_factory=dict)
    """By format, the metadata blocks of the file, to go verbatim into a file of that format."""

    @property
    def orientation(self) -> int:
        """EXIF orientation, 1..8; 1 where there is none."""
        place = ifd.find_value(self.exif or b"", ORIENTATION_TAG)
        if place is None or self.exif is None:
            return 1
        offset, order = place
        value: int = struct.unpack_from(order + "H", self.exif, offset)[0]
        return value if 1 <= value <= 8 else 1

    def upright(self) -> Metadata:
        """The same for pixels that have been turned: orientation 1, no native blocks.

        XMP may repeat the orientation, and some readers use it where EXIF has none.
        """
        exif = self.exif
        if exif is not None and (place := ifd.find_value(exif, ORIENTATION_TAG)) is not None:
            offset, order = place
            exif = exif[:offset] + struct.pack(order + "H", 1) + exif[offset + 2 :]
        xmp = None if self.xmp is None else _XMP_ORIENTATION.sub(rb"\g<1>1", self.xmp)
        return Metadata(exif, xmp, self.icc)
