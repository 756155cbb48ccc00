"""What distinguishes a process from all others, even those of other machines and earlier boots."""

from __future__ import annotations

import os


def ticks_at_start(pid: int) -> int | None:
    """When a process of this machine started, in clock ticks since the boot."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The program's name comes second, in brackets, and may contain anything.
            return int(file.read().rpartition(b")")[2].split()[19])
    except OSError:  # not Linux, hidden, or gone
        return None


def pid_scope() -> str:
    """The boot of the machine and the PID namespace of this process.

    Host names are not enough: machines may share one, as may containers on their host's network.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()}:{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # not Linux
        return ""
