"""What an image file contains besides its pixels, in the terms that all formats share.

Each format derives it from its own structures and, for an image of another format, writes what it
can hold; with the same format, the structures themselves are carried over (``holed``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from batchlight.images import exif, ifd, xmp
from batchlight.images.ifd import NewTag

COMMENT = "Comment"
"""The keyword given to a text that has none."""

_SCALES = (1, 10, 100, 1000)
"""Denominators of a fraction, from coarse to fine."""
_FINE_SCALE, _LITTLE = 10**6, 1
"""The denominator for values below a limit."""


@dataclass(frozen=True)
class Cicp:
    """Colours by code points. Source: ITU-T H.273."""

    primaries: int
    transfer: int
    matrix: int = 0
    full_range: bool = True

    @property
    def is_srgb(self) -> bool:
        """Whether all readers assume it for a picture that declares nothing."""
        return self.primaries in (1, 2) and self.transfer in (13, 2)


@dataclass(frozen=True)
class Metadata:
    """What an image file says about itself besides its pixels."""

    exif: bytes | None = None
    """A TIFF structure, without JPEG's ``Exif`` prefix."""

    xmp: bytes | None = None
    """The whole XMP packet, without JPEG's namespace prefix."""

    icc: bytes | None = None
    """The whole colour profile."""

    iptc: bytes | None = None
    """IPTC records (IIM)."""

    texts: tuple[tuple[str, str], ...] = ()
    """Keyword and text, as in PNG; a comment has the keyword ``COMMENT``."""

    density: tuple[float, float] | None = None
    """Pixels per metre, across and down, unless EXIF says the same."""

    aspect: tuple[int, int] | None = None
    """Pixels per length in an unknown unit, across and down, where they differ."""

    cicp: Cicp | None = None
    """Colours if there is no profile; None for sRGB, or if nothing is declared."""

    others: tuple[str, ...] = ()
    """Names of other parts of the file, for which no other format has a place."""

    inexpressible: str | None = None
    """What decides how the pixels are read, and cannot be said in another format."""

    @property
    def orientation(self) -> int:
        """EXIF orientation, 1..8; 1 if there is none."""
        return exif.orientation(self.exif)

    @property
    def resolution(self) -> tuple[float, float] | None:
        """Pixels per metre, across and down, wherever the file says so."""
        return self.density or exif.density(self.exif)

    def upright(self, turned_aside: bool = False) -> Metadata:
        """The same for pixels that have been turned: orientation 1.

        ``turned_aside``: by a quarter, which swaps across and down.
        """
        density, aspect = self.density, self.aspect
        if turned_aside:
            density = density and (density[1], density[0])
            aspect = aspect and (aspect[1], aspect[0])
        return replace(
            self,
            exif=exif.upright(self.exif, turned_aside),
            xmp=xmp.upright(self.xmp),
            density=density,
            aspect=aspect,
        )

    def named(self) -> Mapping[str, bool]:
        """Whether each part that all formats share is present, by the names that ``lost`` uses."""
        return {
            "EXIF": self.exif is not None,
            "XMP": self.xmp is not None,
            "colour profile": self.icc is not None,
            "IPTC": self.iptc is not None,
            "comment": any(keyword == COMMENT for keyword, _ in self.texts),
            "text": any(keyword != COMMENT for keyword, _ in self.texts),
            "resolution": self.density is not None,
        }

    def lost(self, kept: set[str]) -> tuple[str, ...]:
        """What is lost in a format that can hold only the named parts."""
        mine = (name for name, there in self.named().items() if there and name not in kept)
        return (*mine, *self.others)


def with_density_in_exif(metadata: Metadata) -> Metadata:
    """The same with the resolution in EXIF tags, for formats that have no other place for it.

    It stays where it is if no tag can hold it. Raises ``ifd.StructureError`` if the EXIF is
    damaged.
    """
    if metadata.density is None:
        return metadata
    block = metadata.exif or exif.EMPTY
    tags = density_tags(ifd.Structure(block), metadata.density)
    if not tags:
        return metadata
    return replace(metadata, exif=exif.with_tags(block, tags), density=None)


def density_tags(structure: ifd.Structure, density: tuple[float, float]) -> dict[int, NewTag]:
    """The tags of a resolution, in pixels per inch; none if they cannot hold it."""
    tags: dict[int, NewTag] = {}
    for tag, value in zip((exif.X_RESOLUTION, exif.Y_RESOLUTION), density, strict=True):
        parts = _fraction(value * exif.METRES_PER_INCH)
        if parts is None:
            return {}
        tags[tag] = NewTag(ifd.RATIONAL, 1, structure.pack("II", *parts))
    return tags | {exif.RESOLUTION_UNIT: NewTag(ifd.SHORT, 1, structure.pack("H", 2))}


def _fraction(value: float) -> tuple[int, int] | None:
    """A number as a fraction of 32-bit integers; None if it is too large, or all but zero."""
    fitting = [scale for scale in _SCALES if round(value * scale) <= ifd.LONG_MAX]
    scale = _FINE_SCALE if value < _LITTLE else max(fitting, default=0)
    numerator = round(value * scale)
    return (numerator, scale) if numerator else None


def ratio_within(ratio: tuple[int, int], limit: int) -> tuple[int, int]:
    """The same ratio of numbers up to a limit, as precisely as these can be."""
    if max(ratio) <= limit:
        return ratio
    common = math.gcd(*ratio)
    x, y = (value // common for value in ratio)
    large = max(x, y)
    if large <= limit:
        return x, y
    return max(1, round(x * limit / large)), max(1, round(y * limit / large))
