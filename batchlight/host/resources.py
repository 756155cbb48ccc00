"""The CPUs, GPUs and memory that this process may use."""

from __future__ import annotations

import math
import os

import psutil

from batchlight.host.cgroups import granted_cpus, granted_memory


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
