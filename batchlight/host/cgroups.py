"""What the control groups of this process grant it: where containers and services keep limits.

A container sees all CPUs and all memory of its host, so that nothing else tells it how little of
them is its own. Both versions of the kernel's interface are in use; limits of groups further up
hold as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def granted_cpus() -> float:
    """How many CPUs' worth of time; infinite without a limit."""
    return min(map(_cpus_of, _groups("cpu")), default=math.inf)


def granted_memory() -> float:
    """Bytes; infinite without a limit, or more than any machine has."""
    return min(map(_memory_of, _groups("memory")), default=math.inf)


def free_memory() -> float:
    """Bytes of it that nobody uses yet, files that are only cached left out."""
    return min(map(_free_memory_of, _groups("memory")), default=math.inf)


def free_processes() -> float:
    """How many more processes and threads may be started."""
    return min(map(_free_processes_of, _groups("pids")), default=math.inf)


def _cpus_of(group: Path) -> float:
    # What is not there is of the other version, and what is no number tells that all is granted.
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
    """The folders of the groups that this process is in, and of all above them.

    Inside a container, its own may be mounted as the root: then only the last one is there.
    """
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = MOUNT / controller if controllers else MOUNT  # version 2 has one tree for all
        own = Path(path[1:])
        for below in (own, *own.parents):
            yield root / below
