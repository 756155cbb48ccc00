"""Limits from the control groups of this process, where containers and services set them.

A container sees all CPUs and all memory of its host, so nothing else shows how little it may
use. Both versions of the kernel interface are in use; limits of parent groups apply as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def granted_cpus() -> float:
    """Limit in CPUs' worth of time; infinite if there is none."""
    return min(map(_cpus_of, _groups("cpu")), default=math.inf)


def granted_memory() -> float:
    """Limit in bytes; infinite, or larger than any machine, if there is none."""
    return min(map(_memory_of, _groups("memory")), default=math.inf)


def free_memory() -> float:
    """Bytes of it that are unused; cached files do not count as used."""
    return min(map(_free_memory_of, _groups("memory")), default=math.inf)


def free_processes() -> float:
    """How many more processes and threads may be started."""
    return min(map(_free_processes_of, _groups("pids")), default=math.inf)


def _cpus_of(group: Path) -> float:
    # A missing file belongs to the other version; a non-number ("max") means no limit.
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        return int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    return math.inf


def _memory_of(group: Path) -> float:
    for name in ("memory.max", "memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            return int((group / name).read_text())
    return math.inf


def _free_memory_of(group: Path) -> float:
    for usage, prefix in (("memory.current", ""), ("memory.usage_in_bytes", "total_")):
        with suppress(OSError, ValueError):
            used = int((group / usage).read_text())
            lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
            cached = (
                int(v) for n, v in lines if n in (f"{prefix}inactive_file", f"{prefix}active_file")
            )
            return _memory_of(group) - max(0, used - sum(cached))
    return math.inf


def _free_processes_of(group: Path) -> float:
    with suppress(OSError, ValueError):
        return int((group / "pids.max").read_text()) - int((group / "pids.current").read_text())
    return math.inf


def _groups(controller: str) -> Iterator[Path]:
    """The folders of the groups that this process is in, and of all their parents.

    Inside a container, its own group may be mounted as the root; then only the last one exists.
    """
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = MOUNT / controller if controllers else MOUNT  # version 2 has a single tree
        own = Path(path[1:])
        for below in (own, *own.parents):
            yield root / below
