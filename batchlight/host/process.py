"""Settings of a process that works on images.

Settings that can be restored apply to a block only, so that a program that calls this package keeps
its own. Settings that cannot are made only in our own processes.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

MMAP_THRESHOLD = 32 * 2**20
TRIM_THRESHOLD = 128 * 2**20

NEW_OBJECTS = 100_000
"""Allocations between two garbage collections; Python's default is some hundreds."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as in malloc.h


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Make OpenCV compute in the calling thread only.

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
def relaxed_gc() -> Iterator[None]:
    """Collect garbage less often while a block creates many objects that form no cycles.

    Each collection scans the new objects, and they live long enough to be scanned again and again.
    """
    before, *others = gc.get_threshold()
    gc.set_threshold(max(before, NEW_OBJECTS) if before else 0, *others)
    try:
        yield
    finally:
        gc.set_threshold(before, *others)


def keep_freed_memory() -> None:
    """Make glibc keep the memory of one image for the next; only for our own processes.

    By default it returns large blocks to the kernel, which then has to map and clear every page
    again: a fifth of the time of decoding and encoding. Blocks above the largest threshold that it
    accepts are still returned. Neither setting can be read, so they cannot be restored.
    """
    with suppress(AttributeError, OSError):  # a C library other than glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD)
