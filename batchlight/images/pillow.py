"""Pillow's headers and decoders, without its warnings and its own limits."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, PngImagePlugin

from batchlight.config import Format
from batchlight.images.image import Header
from batchlight.images.metadata import EXIF_PREFIX, Metadata
from batchlight.images.pixels import Pixels

PNG_TEXT_MAX = 2**24
"""Bytes of a compressed text or profile that are read; more is a decompression bomb."""

_turn = threading.Lock()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Pillow without warnings, and without its own limits, which are tighter than ours.

    Warnings and limits belong to the process: they are restored, and only one thread at a time may
    be in here.
    """
    with _turn, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limits = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, PNG_TEXT_MAX
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = limits


def header_of(image: Image.Image, format: Format, metadata: Metadata) -> Header:
    """What is the same for all formats."""
    return Header(
        format,
        image.width,
        image.height,
        image.mode,
        metadata,
        orientation=metadata.orientation,
        transparent_colour="transparency" in image.info,
    )


def metadata_of(image: Image.Image) -> Metadata:
    """EXIF, XMP and ICC as Pillow finds them in the header."""

    def payload(name: str) -> bytes | None:
        value = image.info.get(name)
        return value if isinstance(value, bytes) and value else None

    exif = payload("exif")
    if exif is not None:
        exif = exif.removeprefix(EXIF_PREFIX)
    return Metadata(exif, payload("xmp"), payload("icc_profile"))


def decode(data: bytes, header: Header) -> Pixels:
    """The 8-bit samples in OpenCV's order, palettes resolved, TIFF upright as by OpenCV."""
    with undisturbed(), Image.open(io.BytesIO(data)) as image:
        mode = {"1": "L", "P": "RGB"}.get(image.mode)
        samples = np.asarray(image.convert(mode))
    order = {"P": [2, 1, 0], "RGB": [2, 1, 0], "RGBA": [2, 1, 0, 3]}.get(header.mode)
    return samples if order is None else samples[:, :, order]
