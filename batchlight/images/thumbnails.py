"""Small copies of a picture inside its own file, made from the enhanced pixels."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from batchlight.images import opencv
from batchlight.images.pixels import Pixels, in_colour
from batchlight.images.segments import FRAMES, segments

_QUALITIES = (90, 80, 70, 60, 45, 30)
GOOD = 70
"""A quality without visible flaws at the size of a thumbnail."""
_SAME_SHAPE = 0.03
"""How far the aspect ratios of a picture and its thumbnail may differ without adding bars."""
_SIDE_MAX = 4096
"""A thumbnail that claims to be larger is not one."""
_PIXELS_PER_BYTE = 64
"""The encoder takes at least four bytes for 16x16 pixels: a larger thumbnail has no room."""
_PIXELS_AT_MOST, _PIXELS_AT_LEAST = 2**25, 2**17
"""Of all thumbnails of a file, and what each counts for: a few bytes may claim to be a large one,
and a small one takes time as well."""


@dataclass(frozen=True)
class Picture:
    """The enhanced picture, for use in thumbnails."""

    pixels: Pixels
    """Like ``Decoded.pixels``."""

    _left: list[int] = field(default_factory=lambda: [_PIXELS_AT_MOST], repr=False, compare=False)
    """How many pixels its thumbnails may still have."""

    def small(self, width: int, height: int) -> Pixels | None:
        """8-bit blue, green, red of exactly that size, with black bars if the aspect ratios differ.

        None for a size that no thumbnail has, or if there are too many thumbnails.
        """
        if not (0 < width <= _SIDE_MAX and 0 < height <= _SIDE_MAX):
            return None
        self._left[0] -= max(width * height, _PIXELS_AT_LEAST)
        if self._left[0] < 0:
            return None
        rows, columns = self.pixels.shape[:2]
        scale = min(width / columns, height / rows)
        inner = max(1, round(columns * scale)), max(1, round(rows * scale))
        if abs(inner[0] / width - 1) < _SAME_SHAPE and abs(inner[1] / height - 1) < _SAME_SHAPE:
            inner = width, height
        resized = cv2.resize(self.pixels, inner, interpolation=cv2.INTER_AREA)
        if resized.dtype == np.uint16:
            resized = np.right_shift(resized.astype(np.uint16), 8).astype(np.uint8)
        out = np.zeros((height, width, 3), np.uint8)
        top, left = (height - inner[1]) // 2, (width - inner[0]) // 2
        out[top : top + inner[1], left : left + inner[0]] = in_colour(resized)
        return out

    def like(self, old: bytes, at_most: int, quality: int = 0) -> bytes | None:
        """A JPEG of the old one's size, of at most ``at_most`` bytes; None if there is none.

        ``quality``: the lowest that will do.
        """
        size = jpeg_size(old)
        if size is None or size[0] * size[1] > _PIXELS_PER_BYTE * at_most:
            return None
        rows, columns = self.pixels.shape[:2]
        aside = (size[0] > size[1]) != (columns > rows) and size[0] != size[1]
        small = self.small(*(size[::-1] if aside else size))
        return None if small is None else as_jpeg(small, at_most, quality)


def as_jpeg(small: Pixels, at_most: int, lowest: int = 0) -> bytes | None:
    """The best JPEG of at most ``at_most`` bytes; None if even the lowest quality takes more."""
    for quality in (quality for quality in _QUALITIES if quality >= lowest):
        data = opencv.encode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if len(data) <= at_most:
            return data
    return None


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) that a JPEG states; None for other content."""
    if data[:2] != b"\xff\xd8":
        return None
    for segment in segments(data):
        if segment.marker in FRAMES and len(segment.payload) >= 5:
            height, width = segment.payload[1:3], segment.payload[3:5]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
    return None
