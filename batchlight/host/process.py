"""How a process is set up for images."""

from __future__ import annotations

import ctypes
from contextlib import suppress

MMAP_THRESHOLD = 32 * 2**20


TRIM_THRESHOLD = 128 * 2**20


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as in malloc.h


def prepare_for_images() -> None:
    """Set this process up for one image after the other.

    OpenCV computes in this thread alone: batches are done in parallel, and threads inside one would
    only compete. And glibc keeps the memory of the last image for the next one: by default it
    returns it to the kernel, which then has to map and clear every page of it again, a fifth of the
    time that decoding and encoding take. Above the largest threshold it still returns it.
    """
    import cv2

    cv2.setNumThreads(1)
    with suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD)
