"""Settings of a process that works on images.

What can be restored is set for a block only, so that a program that calls this package keeps its
own settings. What cannot be restored is set only in processes of our own.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

MMAP_THRESHOLD = 32 * 2**20
TRIM_THRESHOLD = 128 * 2**20

NEW_OBJECTS = 100_000
"""Between two searches for garbage, in place of Python's hundreds."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as in malloc.h


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Let OpenCV compute in the calling thread alone.

    Batches run in parallel, so threads within one would only compete.
    """
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


@contextmanager
def seldom_looking_for_cycles() -> Iterator[None]:
    """Look for garbage less often while a block makes many objects that hold no cycles.

    Each search goes through those that are new, and they are kept for long enough to be searched
    again and again.
    """
    before, *others = gc.get_threshold()
    gc.set_threshold(max(before, NEW_OBJECTS) if before else 0, *others)
    try:
        yield
    finally:
        gc.set_threshold(before, *others)


def keep_freed_memory() -> None:
    """Let glibc keep the memory of one image for the next; only for processes of our own.

    By default it returns large blocks to the kernel, which then has to map and clear every page
    again: a fifth of the time of decoding and encoding. Above the largest threshold that it accepts
    it still returns them. Neither setting can be read, so they cannot be restored.
    """
    with suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD)
