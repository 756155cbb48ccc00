"""Memory for the codecs."""

from __future__ import annotations

import mmap

CODEC_BYTES, CODEC_BYTES_PER_PIXEL = 2**24, 24
"""Upper bounds of what any codec takes: per image, and per pixel."""


def require_memory(pixels: int) -> None:
    """Raise ``MemoryError`` if a codec would not get the memory for this many pixels.

    A codec that runs out of memory fails in the same way as for a damaged file; this check
    distinguishes the two.
    """
    try:
        mmap.mmap(-1, CODEC_BYTES + CODEC_BYTES_PER_PIXEL * pixels).close()
    except (OSError, OverflowError) as error:
        raise MemoryError(f"too little memory for {pixels} pixels") from error
