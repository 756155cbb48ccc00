"""An image: its header and its pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import cv2

from batchlight.config import Format
from batchlight.errors import ErrorCode, ImageError
from batchlight.images.metadata import Metadata
from batchlight.images.pixels import Mask, Pixels, in_colour, turned, visible_in

_ALPHA_MODES = frozenset({"LA", "PA", "RGBA"})


class Carried(Protocol):
    """A file without its coded image, in a form specific to its format."""

    @property
    def nbytes(self) -> int:
        """Memory used, in bytes."""


@dataclass(frozen=True)
class Encoded:
    """An output."""

    data: bytes
    lost: tuple[str, ...] = ()
    """Names of the parts of the input's file that it lacks."""

    @classmethod
    def of(cls, data: bytes, lost: Iterable[str]) -> Encoded:
        """With each name once, sorted."""
        return cls(data, tuple(sorted(set(lost))))


@dataclass(frozen=True)
class Header:
    """What can be known about an image without decoding it."""

    format: Format
    width: int
    """As stored, before any orientation."""
    height: int
    mode: str
    """Pillow's name for the pixel format."""
    metadata: Metadata
    orientation: int = 1
    """1..8; from EXIF, TIFF's tag, or AVIF's rotation and mirror boxes."""
    transparent_colour: bool = False
    """Alpha is stored separately from the samples (PNG's tRNS)."""
    sampling: tuple[int, int] = (1, 1)
    """JPEG and AVIF: horizontal and vertical sampling of luminance relative to chrominance."""
    lossless: bool = False
    """WebP, AVIF and HEIC: the pixels are stored losslessly."""
    carried: Carried | None = None
    """The file without its coded image, for an output of the same format."""

    @property
    def has_alpha(self) -> bool:
        """Whether the image has transparency of any kind."""
        return self.mode in _ALPHA_MODES or self.transparent_colour


@dataclass(frozen=True)
class Decoded:
    """An image as its pixels, its alpha, and its header."""

    header: Header
    pixels: Pixels
    """(height, width) or (height, width, 3) in blue, green, red; uint8 or uint16; as stored."""
    alpha: Pixels | None
    """(height, width) of the same dtype; None for an opaque image."""

    @cached_property
    def visible(self) -> Mask | None:
        """Which pixels are not wholly transparent; None if all count."""
        return visible_in(self.alpha)

    @property
    def channels(self) -> int:
        """1..4, including alpha."""
        return (1 if self.pixels.ndim == 2 else 3) + (self.alpha is not None)

    @property
    def bit_depth(self) -> int:
        """8 or 16."""
        return self.pixels.dtype.itemsize * 8

    @property
    def nbytes(self) -> int:
        """Memory used, in bytes."""
        alpha = 0 if self.alpha is None else self.alpha.nbytes
        carried = 0 if self.header.carried is None else self.header.carried.nbytes
        return self.pixels.nbytes + alpha + carried

    @property
    def samples(self) -> Pixels:
        """All channels in one array, as OpenCV encodes them; gray with alpha becomes colour."""
        if self.alpha is None:
            return self.pixels
        return cv2.merge([*cv2.split(in_colour(self.pixels)), self.alpha])

    def upright(self) -> Decoded:
        """The same image with its pixels turned as they are meant to be seen."""
        orientation, alpha = self.header.orientation, self.alpha
        return Decoded(
            replace(
                self.header,
                metadata=self.header.metadata.upright(turned_aside=orientation >= 5),
                orientation=1,
                carried=None,
            ),
            turned(self.pixels, orientation),
            None if alpha is None else turned(alpha, orientation),
        )


def check_size(width: int, height: int, max_pixels: int, what: str = "") -> None:
    """Raise ``ImageError`` (``too_large``) for more than ``max_pixels``.

    ``what`` follows the word "pixels" in the message, with a space before it.
    """
    if width * height > max_pixels:
        raise ImageError(
            ErrorCode.TOO_LARGE,
            f"{width}x{height} pixels{what} are more than --max-pixels {max_pixels}",
        )
