"""Pictures of images that a run refuses, so that the user can recognise them."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from batchlight.images.pillow import undisturbed
from batchlight.images.pixels import Pixels

PIXELS_AT_MOST = 50_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF")
"""The formats that Pillow may try: those that can be inputs."""


def decoded_somehow(data: bytes, side: int) -> Pixels | None:
    """What can be seen of an image, as 8 bits in blue, green, red; None if nothing can.

    ``side``: the longer side that the picture will be shrunk to; more pixels are not needed. The
    first page or frame of several; for a truncated JPEG, the part that exists.
    """
    for attempt in (_by_pillow, _what_is_left):
        try:
            return attempt(data, side)
        except MemoryError:
            raise
        except Exception:  # the decoders' own failures, whatever their type
            continue
    return None


def _by_pillow(data: bytes, side: int) -> Pixels:
    with undisturbed(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > PIXELS_AT_MOST:
            raise ValueError("too large")
        image.draft(None, (side, side))
        upright = ImageOps.exif_transpose(image)
        upright.thumbnail((side, side))
        return np.ascontiguousarray(np.asarray(upright.convert("RGB"))[:, :, ::-1])


def _what_is_left(data: bytes, side: int) -> Pixels:
    height, width, *_ = simplejpeg.decode_jpeg_header(data, strict=False)
    if width * height > PIXELS_AT_MOST:
        raise ValueError("too large")
    pixels: Pixels = simplejpeg.decode_jpeg(
        data, colorspace="BGR", min_height=side, min_width=side, strict=False
    )
    return pixels
