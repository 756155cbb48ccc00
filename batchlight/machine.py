"""What this machine has to compute with, and how to set a process up for images on it."""

from __future__ import annotations

import ctypes
import math
import os
from contextlib import suppress

import psutil

from batchlight.cgroups import granted_cpus, granted_memory

MMAP_THRESHOLD = 32 * 2**20
TRIM_THRESHOLD = 128 * 2**20
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as in malloc.h


def usable_cpus() -> int:
    """CPUs that this process may use; containers and ``taskset`` may grant fewer than there are."""
    cpus = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        cpus = len(os.sched_getaffinity(0))
    return math.ceil(min(cpus, granted_cpus()))


def usable_memory() -> int:
    """Bytes of memory that there are for this process and those beside it."""
    return int(min(psutil.virtual_memory().total, granted_memory()))


def local_gpus() -> int:
    """GPUs of this machine that PyTorch can use. Needs PyTorch."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


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
