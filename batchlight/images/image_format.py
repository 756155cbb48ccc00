"""What each image format provides; see ``jpeg``, ``png``, ``webp``, ``tiff``, ``bmp``, ``avif``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from batchlight.config import Format
from batchlight.images import opencv
from batchlight.images.image import Decoded, Header
from batchlight.images.pixels import Pixels


def _decode(data: bytes, header: Header) -> Pixels | None:
    return opencv.decode(data)


def _claims_nothing(data: bytes) -> list[tuple[int, int]]:
    return []


def _knows_nothing(data: bytes) -> str | None:
    return None


@dataclass(frozen=True)
class ImageFormat:
    """One image format: how it is read and written, and what it can hold.

    Files are identified by Pillow. The checks that are the same for all formats are in ``header``
    and ``codec``.
    """

    name: Format

    pillow_names: tuple[str, ...]
    """Pillow's names for content of this format."""

    inspect: Callable[[Image.Image, bytes, int], Header]
    """The header, given Pillow's view of the file, its bytes, and ``max_pixels``.

    Refuses what cannot be kept: raises ``ImageError``. Any other exception means a damaged header.
    """

    encode: Callable[[Decoded, int], bytes]
    """The file, given the image with its enhanced pixels, and the quality, 1..100.

    The metadata to write is that of the header; its other fields describe the file that the image
    came from, of any format. Raises ``cv2.error`` or ``ValueError`` for what cannot be written.
    """

    decode: Callable[[bytes, Header], Pixels | None] = _decode
    """The samples as stored, alpha last; None, or any exception, if they are damaged."""

    claimed_sizes: Callable[[bytes], list[tuple[int, int]]] = _claims_nothing
    """(width, height) of all that the content makes a decoder reserve memory for.

    Called with content of any format, before anything else sees it; never raises.
    """

    why_unidentified: Callable[[bytes], str | None] = _knows_nothing
    """Why Pillow does not identify content of this format that may be whole; else None."""

    not_read: tuple[str, ...] = ()
    """How Pillow's errors begin for files that may be whole, but of a kind that it cannot read."""

    several: str = "several pictures or an animation"
    """What a file of this format with more than one picture has."""

    holds_alpha: bool = True
    holds_gray_alpha: bool = True
    """Gray with alpha can be written, if need be as colour."""
    holds_16_bit: bool = False
    holds_orientation: bool = False
    """Readers turn the pixels as the orientation tag in EXIF says."""
