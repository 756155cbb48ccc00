"""``jobs/submit.sh`` on a Ray cluster with a job server: it ends as the run ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pytest
import yaml

from batchlight.errors import ExitCode
from tests.support.helpers import under_way, wait_until, write_copies, write_images
from tests.support.s3_server import free_ports

SUBMIT = Path(__file__).parents[2] / "jobs/submit.sh"
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "RAY_AUTH_MODE": "disabled",
    "POLL_S": "1",
}
WITHIN_S = 120.0

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the cluster's processes are looked up as Linux names them"
)


@pytest.fixture(scope="module")
def job_server() -> Iterator[str]:
    """The address of a cluster's job server."""
    port, dashboard = free_ports(2)
    address = f"http://127.0.0.1:{dashboard}"
    start = ["ray", "start", "--head", "--block", "--port", port, "--num-cpus", 2]
    ours = ["--dashboard-host", "127.0.0.1", "--dashboard-port", dashboard]
    # Other clusters of this machine have the usual ports.
    any_port = ["--dashboard-agent-listen-port", 0, "--dashboard-agent-grpc-port", 0]
    any_port += ["--min-worker-port", 0, "--max-worker-port", 0]
    small = ["--object-store-memory", 80 * 2**20, "--disable-usage-stats"]
    # Not below pytest's folder, since the path of a socket may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="submit") as folder:
        command = [*start, *ours, *any_port, *small, "--temp-dir", folder]
        with (
            Path(folder, "log").open("wb") as log,
            under_way(command, ENVIRONMENT, stdout=log, stderr=log) as head,
        ):
            wait_until(partial(answers, address), head, WITHIN_S)
            yield address


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/api/version", timeout=5).close()
    except OSError:
        time.sleep(0.1)
        return False
    return True


@dataclass(frozen=True)
class Place:
    """A folder of images, a config and what runs make of them."""

    folder: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @contextmanager
    def submitted(self, address: str, *options: object) -> Iterator[subprocess.Popen[str]]:
        self.folder.mkdir(exist_ok=True)
        config = self.folder / "nightly.yaml"
        paths = {"input": str(self.folder / "in"), "output": str(self.out)}
        config.write_text(yaml.safe_dump(paths | {"progress": "json"}))
        with under_way(
            ["sh", SUBMIT, config, *options],
            {**ENVIRONMENT, "RAY_API_SERVER_ADDRESS": address},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        ) as process:
            yield process


@pytest.mark.nightly
def test_submit_ends_as_the_runs_end(job_server: str, tmp_path: Path) -> None:
    """At the same time, since most of it is waiting: one that is well, one with a damaged image on
    the cluster's workers, and one that is stopped."""
    well, damaged, stopped = (Place(tmp_path / name) for name in ("well", "damaged", "stopped"))
    for place in (well, damaged):
        write_images(place.folder / "in", 2)
    (damaged.folder / "in/a/0000.jpg").write_bytes(b"no image")
    write_copies(stopped.folder / "in", 1000, height=1080, width=1920)

    with (
        stopped.submitted(job_server, "--workers", 0) as to_stop,
        well.submitted(job_server, "--workers", 0) as to_end_well,
        damaged.submitted(job_server, "--workers", 1) as to_find_damage,
    ):
        wait_until((stopped.out / "classical").exists, to_stop, WITHIN_S)
        to_stop.terminate()
        for place, run, code in (
            (well, to_end_well, ExitCode.OK),
            (damaged, to_find_damage, ExitCode.FAILURES),
        ):
            printed, errors = run.communicate(timeout=WITHIN_S)
            assert run.returncode == code, errors
            assert errors.endswith(f"ended with exit code {code}\n")
            summary = json.loads((place.out / "summary.json").read_text())
            assert summary["exit_code"] == code
            assert f'{{"event": "summary", "run_id": "{summary["run_id"]}"' in printed
        assert "working in the Ray cluster at" in printed
        _, errors = to_stop.communicate(timeout=WITHIN_S)
    assert to_stop.returncode == 128 + signal.SIGTERM, errors
    assert errors.endswith("run the same command again to continue\n")
    assert not [p for p in psutil.process_iter() if str(stopped.folder) in " ".join(cmdline(p))]


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_submit_says_what_it_lacks(tmp_path: Path) -> None:
    """Before it would start anything."""
    config = tmp_path / "nightly.yaml"
    for arguments, address, words in (
        ((), "http://127.0.0.1:1", "usage: submit.sh CONFIG"),
        ((config,), "http://127.0.0.1:1", "cannot read"),
        ((SUBMIT,), "", "set RAY_API_SERVER_ADDRESS"),
    ):
        done = subprocess.run(
            ["sh", SUBMIT, *arguments],
            capture_output=True,
            text=True,
            env={**ENVIRONMENT, "RAY_API_SERVER_ADDRESS": address},
            check=False,
        )
        assert done.returncode == ExitCode.USAGE
        assert done.stderr.startswith(f"submit.sh: {words}")


def test_submit_tells_that_there_is_no_cluster(tmp_path: Path) -> None:
    with Place(tmp_path).submitted("http://127.0.0.1:9") as run:
        _, errors = run.communicate(timeout=WITHIN_S)
    assert run.returncode == ExitCode.FATAL
    assert "submit.sh: cannot submit to http://127.0.0.1:9" in errors
    assert "RAY_AUTH_MODE=token" in errors
