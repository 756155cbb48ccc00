"""Pillow's decoders, without its warnings and its own limit."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from batchlight.images.image import Header
from batchlight.images.pixels import Pixels

_turn = threading.Lock()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Pillow without warnings and without its own size limit, which is tighter than ours.

    Both settings are process-wide: they are restored, and only one thread at a time may be inside.
    """
    with _turn, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def decode(data: bytes, header: Header) -> Pixels:
    """The 8-bit samples in OpenCV's order, palettes resolved."""
    with undisturbed(), Image.open(io.BytesIO(data)) as image:
        mode = {"1": "L", "P": "RGB"}.get(image.mode)
        samples = np.asarray(image.convert(mode))
    order = {"P": [2, 1, 0], "RGB": [2, 1, 0], "RGBA": [2, 1, 0, 3]}.get(header.mode)
    return samples if order is None else samples[:, :, order]
