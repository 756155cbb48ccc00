"""The header of an AVIF or HEIF file, derived from its items and their properties.

Layouts: ISO/IEC 23008-12; AV1 Codec ISO Media File Format Binding; ISO/IEC 14496-15 (hvcC).
"""

from __future__ import annotations

from dataclasses import replace

from batchlight.config import Format
from batchlight.errors import ImageError
from batchlight.images.heif_carry import Carried
from batchlight.images.image import Header, check_size

_TURNED = {0: 1, 1: 8, 2: 3, 3: 6}
"""EXIF orientation by quarter turns anti-clockwise (irot)."""
_MIRRORED = {
    (0, 0): 4, (0, 1): 2, (1, 0): 5, (1, 1): 7, (2, 0): 2, (2, 1): 4, (3, 0): 7, (3, 1): 5,
}  # fmt: skip
"""The same, then mirrored top to bottom (imir 0) or left to right (1)."""


def brands(data: bytes) -> frozenset[bytes]:
    """The brands that a file of boxes declares; empty for other content."""
    if data[4:8] != b"ftyp":
        return frozenset()
    end = min(int.from_bytes(data[:4], "big"), len(data), 1024)
    return frozenset(data[at : at + 4] for at in (8, *range(16, end - 3, 4)))


def orientation(carried: Carried) -> int:
    """1..8; readers ignore the one in EXIF."""
    items = carried.items
    turn, mirror = (items.property(items.primary, kind) for kind in (b"irot", b"imir"))
    quarters = turn[0] & 3 if turn else 0
    if not mirror:
        return _TURNED[quarters]
    return _MIRRORED[quarters, mirror[0] & 1]


def header(
    format: Format,
    carried: Carried,
    max_pixels: int,
    mono: bool,
    sampling: tuple[int, int],
    lossless: bool = False,
) -> Header:
    """The parts that are the same for both formats."""
    size = carried.items.property(carried.items.primary, b"ispe")
    if size is None or len(size) < 12:
        raise ImageError.corrupt("the header is damaged: no picture size")
    width, height = (int.from_bytes(size[at : at + 4], "big") for at in (4, 8))
    if not (width and height):
        raise ImageError.corrupt("the header is damaged: an image without pixels")
    check_size(width, height, max_pixels)
    alpha = carried.alpha is not None
    if mono and alpha:
        raise ImageError.unsupported(f"gray with transparency cannot be kept in {format.upper()}")
    return Header(
        format,
        width,
        height,
        "RGBA" if alpha else "L" if mono else "RGB",
        carried.metadata(),
        orientation=orientation(carried),
        sampling=sampling,
        lossless=lossless,
        carried=carried,
    )


def cropped(header: Header, carried: Carried, padding: int) -> Header:
    """The header of a picture that its decoder crops.

    Raises ``ImageError`` if it crops more than an encoder's padding.
    """
    clap = carried.items.property(carried.items.primary, b"clap")
    if clap is None or len(clap) < 16:
        return header
    width, by, height, down = (int.from_bytes(clap[at : at + 4], "big") for at in (0, 4, 8, 12))
    across, along = header.width - width // max(1, by), header.height - height // max(1, down)
    if not (0 <= across <= padding and 0 <= along <= padding):
        reason = f"{header.format.upper()} that is cropped cannot be kept"
        raise ImageError.unsupported(reason)
    return replace(header, width=header.width - across, height=header.height - along)


def require_depth(bits: int, format: Format) -> None:
    """Raise ``ImageError`` for more than 8 bits."""
    if bits > 8:
        raise ImageError.unsupported(f"{format.upper()} of {bits} bits cannot be kept")
