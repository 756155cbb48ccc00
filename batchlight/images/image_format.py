"""What each image format provides; see ``jpeg``, ``png``, ``webp``, ``tiff``, ``bmp``, ``avif``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from batchlight.config import Format
from batchlight.images import opencv
from batchlight.images.image import Decoded, Encoded, Header
from batchlight.images.pixels import Pixels


def _decode(data: bytes, header: Header) -> Pixels | None:
    return opencv.decode(data)


def _claims_nothing(data: bytes) -> list[tuple[int, int]]:
    return []


@dataclass(frozen=True)
class ImageFormat:
    """One image format: how it is read and written, and what it can hold.

    The checks that are the same for all formats are in ``header`` and ``codec``.
    """

    name: Format

    recognises: Callable[[bytes], bool]
    """Whether content begins like this format; never raises."""

    inspect: Callable[[bytes, int], Header]
    """The header, given the file's bytes and ``max_pixels``.

    Refuses what cannot be kept: raises ``ImageError``. Any other exception means a damaged header.
    """

    encode: Callable[[Decoded, int], Encoded]
    """The file, given the image with its enhanced pixels, and the quality, 1..100.

    For an image of the same format, everything in the header is carried over; for another format,
    the header's metadata are written as far as there is a place for them. (No image of another
    format is written as BMP or HEIC.) Raises ``cv2.error`` or ``ValueError`` for what cannot be
    written.
    """

    decode: Callable[[bytes, Header], Pixels | None] = _decode
    """The samples as stored, alpha last; None, or any exception, if they are damaged."""

    claimed_sizes: Callable[[bytes], list[tuple[int, int]]] = _claims_nothing
    """(width, height) of everything for which the content makes a decoder reserve memory.

    Called with content of any format, before any other code sees it; never raises.
    """

    not_read: tuple[str, ...] = ()
    """How decoders' errors begin for files that may be intact, but of a kind that is not read."""

    holds_alpha: bool = True
    holds_gray_alpha: bool = True
    """Gray with alpha can be written, if necessary as colour."""
    keeps_gray_alpha: bool = False
    """Gray with alpha is written as such."""
    holds_16_bit: bool = False
    holds_cicp: bool = False
    """Colours can be described by code points (``Cicp``)."""
    holds_aspect: bool = False
    """Pixels that are not square can be described."""
    always_colour: bool = False
    """Gray is written as colour."""
    holds_orientation: bool = False
    """Readers turn the pixels according to the orientation tag in EXIF."""
