"""All image formats that are read and written."""

from __future__ import annotations

from collections.abc import Mapping

from batchlight.config import Format
from batchlight.images.avif import AVIF
from batchlight.images.bmp import BMP
from batchlight.images.image_format import ImageFormat
from batchlight.images.jpeg import JPEG
from batchlight.images.names import HAS_HEIF
from batchlight.images.png import PNG
from batchlight.images.tiff import TIFF
from batchlight.images.webp import WEBP


def _optional() -> tuple[ImageFormat, ...]:
    """Formats whose codec is an extra."""
    if not HAS_HEIF:
        return ()
    from batchlight.images.heif import HEIF

    return (HEIF,)


FORMATS: Mapping[Format, ImageFormat] = {
    format.name: format for format in (JPEG, PNG, WEBP, TIFF, BMP, AVIF, *_optional())
}
