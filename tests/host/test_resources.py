"""What a process may use is what it was granted, not what the machine has."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from batchlight.host import cgroups
from batchlight.host.resources import usable_cpus, usable_memory

MEGABYTE = 2**20


def test_without_limits_all_of_the_machine_is_usable() -> None:
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)
    assert MEGABYTE < usable_memory() <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("member_of", "files", "cpus", "memory"),
    [
        ("0::/", {}, None, None),
        ("0::/", {"cpu.max": "max 100000", "memory.max": "max"}, None, None),
        ("0::/", {"cpu.max": "50000 100000", "memory.max": "900"}, 0.5, 900),
        (
            "0::/pod/app",
            {
                "pod/app/cpu.max": "max 100000",
                "pod/cpu.max": "300000 100000",
                "pod/memory.max": "7",
            },
            3.0,
            7,
        ),
        ("0::/pod/app", {"cpu.max": "100000 50000"}, 2.0, None),  # mounted as the root
        (
            "5:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n1:name=systemd:/docker/1",
            {
                "cpu/cpu.cfs_quota_us": "150000",
                "cpu/cpu.cfs_period_us": "100000",
                "memory/docker/1/memory.limit_in_bytes": "800",
                "memory/memory.limit_in_bytes": "9223372036854771712",
            },
            1.5,
            800,
        ),
        (
            "3:cpu,cpuacct:/",
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            None,
            None,
        ),
        (
            "3:cpuset:/",
            {"cpuset/cpu.cfs_quota_us": "1", "cpuset/cpu.cfs_period_us": "1"},
            None,
            None,
        ),
    ],
)
def test_the_smallest_limit_of_all_groups_counts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    member_of: str,
    files: Mapping[str, str],
    cpus: float | None,
    memory: int | None,
) -> None:
    (tmp_path / "member").write_text(member_of + "\n")
    for path, content in files.items():
        file = tmp_path / "mount" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content + "\n")
    monkeypatch.setattr(cgroups, "MEMBERSHIP", tmp_path / "member")
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path / "mount")
    assert cgroups.granted_cpus() == (cpus or float("inf"))
    assert cgroups.granted_memory() == (memory or float("inf"))


@pytest.fixture
def one_cpu() -> Iterator[Path]:
    """A real group whose processes get the time of one CPU."""
    first_version = (cgroups.MOUNT / "cpu").is_dir()
    group = cgroups.MOUNT / ("cpu" if first_version else "") / f"batchlight-{uuid4().hex}"
    try:
        group.mkdir()
        if first_version:
            (group / "cpu.cfs_quota_us").write_text("100000")
        else:
            (group / "cpu.max").write_text("100000 100000")
    except OSError:
        pytest.skip("no control groups can be made here")
    yield group
    group.rmdir()


def test_a_container_with_one_cpu_gets_one_worker(one_cpu: Path) -> None:
    enter = f"open('{one_cpu}/cgroup.procs', 'w').write(str(os.getpid()))"
    ask = "from batchlight.host.resources import usable_cpus; print(usable_cpus())"
    program = [sys.executable, "-c", f"import os; {enter}; {ask}"]
    assert subprocess.run(program, capture_output=True, text=True, check=True).stdout == "1\n"
