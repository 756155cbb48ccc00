"""What this machine has to compute with."""

from __future__ import annotations

import os


def usable_cpus() -> int:
    """CPUs that this process may use; containers and ``taskset`` may grant fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def local_gpus() -> int:
    """GPUs of this machine that PyTorch can use. Needs PyTorch."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
