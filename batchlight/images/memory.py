"""Memory for the codecs."""

from __future__ import annotations

import mmap

CODEC_BYTES, CODEC_BYTES_PER_PIXEL = 2**24, 24
"""Upper bounds of what any codec takes: for an image, and for each of its pixels."""


def require_memory(pixels: int) -> None:
    """Raise ``MemoryError`` if a codec would not get the memory for so many pixels.

    A codec that gets no memory fails in the same way as for a damaged file; this tells the two
    apart.
    """
    try:
        mmap.mmap(-1, CODEC_BYTES + CODEC_BYTES_PER_PIXEL * pixels).close()
    except (OSError, OverflowError) as error:
        raise MemoryError(f"too little memory for {pixels} pixels") from error
