"""The CPUs, GPUs and memory that this process may use."""

from __future__ import annotations

import math
import os
import resource

import psutil

from batchlight.host import cgroups
from batchlight.host.cgroups import granted_cpus, granted_memory

COUNTED_BELOW = 20_000
"""Process limits of at least this are never reached, so existing processes are not counted."""


def usable_cpus() -> int:
    """CPUs that this process may use; containers and ``taskset`` may grant fewer than exist."""
    cpus = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        cpus = len(os.sched_getaffinity(0))
    return math.ceil(min(cpus, granted_cpus()))


def usable_memory() -> int:
    """Bytes of memory available to this process and those beside it together."""
    return int(min(psutil.virtual_memory().total, granted_memory()))


def free_memory() -> int:
    """Bytes of unused memory."""
    return int(min(psutil.virtual_memory().available, cgroups.free_memory()))


def address_space() -> float:
    """Bytes of addresses that a process may use, whether or not memory is behind them."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return math.inf if limit == resource.RLIM_INFINITY else limit


def free_processes() -> float:
    """How many more processes and threads this user may start here."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    left = math.inf
    if limit != resource.RLIM_INFINITY and limit < COUNTED_BELOW and os.geteuid():
        found = psutil.process_iter(["uids", "num_threads"])
        mine = (p.info for p in found if p.info["uids"] and p.info["uids"].real == os.getuid())
        left = limit - sum(info["num_threads"] or 1 for info in mine)
    return min(left, cgroups.free_processes())


def local_gpus() -> int:
    """GPUs of this machine that PyTorch can use. Needs PyTorch."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
