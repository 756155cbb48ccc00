"""A cluster of several nodes, as ``ray start`` makes it, and an object store that all can reach.

Each node is a raylet with an address of its own (127.0.0.2, ...) and files of its own, among them a
log per worker: so it is known which node a worker belonged to, also after its death.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from tests.support import helpers
from tests.support.helpers import (
    COMMAND,
    deadly,
    decodings,
    kill_with_all_below,
    processes_below,
    rows,
    stable_rows,
    tree,
    under_way,
    write_images,
)
from tests.support.helpers import batchlight as command
from tests.support.s3_server import BUCKET, S3Server, free_ports

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="Ray has clusters of several nodes on Linux only"
)

IMAGES, BATCH = 40, 4
OPTIONS = ("--batch-size", BATCH, "--max-failures", 1, "--progress", "json")
SLOW_S = 0.1
"""For each image, so that a batch can be struck while it is worked on."""

RAY = Path(sys.executable).with_name("ray")
SMALL = ("--object-store-memory", 80 * 2**20, "--disable-usage-stats", "--block")
ANY_PORT = ("--min-worker-port", 0, "--max-worker-port", 0)
"""Otherwise all raylets of this machine would give their workers the same ports."""

HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "4",
}
"""By which a head notices within seconds that a node is gone."""

NO_TOKEN = {"RAY_AUTH_MODE": "disabled"}

ENDS_WITHIN_S = 120.0

wait_until = partial(helpers.wait_until, within_s=ENDS_WITHIN_S)


# A cluster


@dataclass(frozen=True)
class Node:
    """A process of ``ray start``, and the folder of its sockets and logs."""

    process: subprocess.Popen[bytes]
    folder: Path

    def has_started(self) -> bool:
        return "Ray runtime started" in self.folder.with_suffix(".log").read_text()

    @property
    def raylet(self) -> psutil.Process:
        children = psutil.Process(self.process.pid).children()
        [raylet] = [child for child in children if child.name() == "raylet"]
        return raylet

    @property
    def workers(self) -> set[int]:
        """The processes of all workers that this node has started so far."""
        logs = self.folder.glob("session_2*/logs/worker-*.out")
        return {int(log.stem.rpartition("-")[2]) for log in logs}


class Cluster:
    """A head that runs no tasks, and the nodes that join it, with one CPU each."""

    def __init__(self, folder: Path, environment: dict[str, str], exits: ExitStack) -> None:
        """``environment`` is the nodes'; so their credentials are not those of a command."""
        self._folder = folder
        self._environment = environment
        self._exits = exits
        self._numbers = count(2)
        port, clients = free_ports(2)
        self.address = f"127.0.0.1:{port}"
        ports = ("--port", port, "--ray-client-server-port", clients)
        head = ("--head", *ports, "--num-cpus", 0, "--include-dashboard", "false")
        self.head = self._start("head", *head)
        wait_until(self.head.has_started, self.head.process)

    def join(self, nodes: int) -> list[Node]:
        """So many nodes more, started at the same time."""
        joining = [self._join(next(self._numbers)) for _ in range(nodes)]
        for node in joining:
            wait_until(node.has_started, node.process)
        return joining

    def join_without(self, hidden: Path) -> Node:
        """One more node, to which a folder is empty."""
        node = self._join(next(self._numbers), hiding(hidden))
        wait_until(node.has_started, node.process)
        return node

    def _join(self, number: int, prefix: Sequence[str] = ()) -> Node:
        place = ("--address", self.address, "--node-ip-address", f"127.0.0.{number}")
        return self._start(f"node-{number}", *place, "--num-cpus", 1, prefix=prefix)

    def _start(self, name: str, *options: object, prefix: Sequence[str] = ()) -> Node:
        folder = self._folder / name
        command = [*prefix, RAY, "start", "--temp-dir", folder, *SMALL, *ANY_PORT, *options]
        environment = {**NO_TOKEN, **HEALTH_CHECKS, **self._environment}
        log = self._exits.enter_context((self._folder / f"{name}.log").open("wb"))
        node = under_way(command, environment, stdout=log, stderr=log)
        return Node(self._exits.enter_context(node), folder)


def hiding(folder: Path) -> Sequence[str]:
    """Words before a command by which it does not see what is in a folder."""
    script = f'mount -t tmpfs none {shlex.quote(str(folder))} && exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh"]


def can_hide(folder: Path) -> bool:
    try:
        return subprocess.run([*hiding(folder), "true"], check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture
def slow(tmp_path: Path) -> dict[str, str]:
    """What makes workers take their time, and write down what they decode."""
    return deadly(tmp_path / "slow", {}, SLOW_S)


@pytest.fixture
def cluster(s3_server: S3Server, slow: dict[str, str]) -> Iterator[Cluster]:
    # Not below pytest's folder, since the path of a socket may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="nodes") as folder, ExitStack() as exits:
        yield Cluster(Path(folder), {**s3_server.environment, **slow}, exits)


# Runs


@dataclass(frozen=True)
class State:
    """All that two equal outputs agree in."""

    images: dict[str, bytes]
    records: list[dict[str, Any]]


@dataclass(frozen=True)
class Bucket:
    """Images in an object store, and what runs make of them."""

    server: S3Server
    prefix: str

    def arguments(self, output: str, *options: object) -> list[str]:
        place = f"s3://{BUCKET}/{self.prefix}"
        arguments = ("--input", f"{place}/in", "--output", f"{place}/{output}", *OPTIONS, *options)
        return ["run", *map(str, arguments)]

    def fetched(self, output: str, folder: Path) -> Path:
        """A local copy of an output."""
        for path, data in self.server.tree(f"{self.prefix}/{output}").items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        return folder


@pytest.fixture
def bucket(s3_server: S3Server, tmp_path: Path) -> Bucket:
    folder = tmp_path / "in"
    write_images(folder, IMAGES)
    (folder / "last.jpg").write_bytes(b"no image")
    bucket = Bucket(s3_server, str(uuid4()))
    s3_server.put(tree(folder), f"{bucket.prefix}/in")
    return bucket


@pytest.fixture
def calm(bucket: Bucket, tmp_path: Path) -> State:
    """What a run in one process makes of the bucket."""
    done = command(*bucket.arguments("calm", "--workers", 0), **bucket.server.environment)
    assert done.returncode == 0, done.stderr
    return state(bucket.fetched("calm", tmp_path / "calm"))


def state(output: Path) -> State:
    return State(tree(output / "classical"), stable_rows(output))


def workers_of(output: Path) -> set[int]:
    """The processes that the records name."""
    return {int(row["worker"].rpartition(":")[2]) for row in rows(output)}


def decoded(log: Path, node: Node) -> int:
    """How many images a node has decoded."""
    return sum(pid in node.workers for _, pid in decodings(log))


def has_decoded(log: Path, node: Node, count: int) -> bool:
    return decoded(log, node) >= count


def mid_batch(log: Path, node: Node) -> bool:
    """Whether a node has done a batch, begun another, and is not about to end it."""
    done, begun = divmod(decoded(log, node), BATCH)
    return done > 0 and begun in (1, 2)


def halted_worker(log: Path, node: Node, run: subprocess.Popen[str]) -> psutil.Process:
    """A node's only worker, stopped in the middle of a batch."""
    wait_until(partial(mid_batch, log, node), run)
    [worker] = processes_below(node.raylet.pid, "ray::on_worker")
    worker.suspend()
    return worker


@pytest.mark.nightly
def test_nodes_share_the_work_and_come_and_go(
    cluster: Cluster, slow: dict[str, str], bucket: Bucket, calm: State, tmp_path: Path
) -> None:
    """Two that work are halted in a batch each, until a third one joins and works.

    Then one of the two is lost, and the other goes on. ``--workers`` is what the cluster is to grow
    to, so that there is work for the third.
    """
    log = Path(slow["DEADLY"])
    halted, lost = cluster.join(2)
    with under_way(
        [*COMMAND, *bucket.arguments("out", "--address", cluster.address, "--workers", 3)],
        {**bucket.server.environment, **NO_TOKEN},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        worker = halted_worker(log, halted, run)
        halted_worker(log, lost, run)
        [joined] = cluster.join(1)
        wait_until(partial(has_decoded, log, joined, 2 * BATCH), run)
        kill_with_all_below(lost.raylet.pid)
        worker.resume()
        printed, errors = run.communicate(timeout=ENDS_WITHIN_S)
    assert run.returncode == 0, errors
    assert "--workers 3 is more than the 2 CPUs of the cluster" in errors
    assert errors.count("WARNING a node was lost; its work is redone elsewhere") == 1
    # Ray has much to say of a lost node, and stdout is not the place for it.
    events = [json.loads(line)["event"] for line in printed.splitlines()]
    assert events[-1] == "summary"
    out = bucket.fetched("out", tmp_path / "out")
    assert state(out) == calm
    assert {row["attempts"] for row in rows(out)} == {1}
    workers = workers_of(out)
    assert all(workers & node.workers for node in (halted, lost, joined))


IN_PARTS = """
from batchlight.driver import surveying
from batchlight.storage import objects
objects.lists_in_order = lambda location: True
surveying.KEYS_IN_THE_DRIVER, surveying.KEYS_AT_ONCE, surveying.KEYS_PER_PART = 4, 3, 3
from batchlight.cli.main import main
main()
"""


@pytest.mark.nightly
def test_nodes_survey_a_bucket(
    cluster: Cluster, bucket: Bucket, calm: State, tmp_path: Path
) -> None:
    """Its listing in parts, compared with the records of an earlier run."""
    nodes = cluster.join(2)
    for _ in range(2):
        done = subprocess.run(
            [
                *(sys.executable, "-c", IN_PARTS),
                *bucket.arguments("out", "--address", cluster.address),
            ],
            env={**os.environ, **bucket.server.environment, **NO_TOKEN},
            capture_output=True,
            text=True,
            check=False,
            timeout=ENDS_WITHIN_S,
        )
        assert done.returncode == 0, done.stderr
    out = bucket.fetched("out", tmp_path / "out")
    assert state(out) == calm
    assert all(workers_of(out) & node.workers for node in nodes)


def test_a_node_without_the_folders_ends_the_run(cluster: Cluster, tmp_path: Path) -> None:
    """Rather than to make every image a row ``missing``, or to write where nobody looks."""
    shared = tmp_path / "shared"
    write_images(shared / "in", 2)
    if not can_hide(shared):
        pytest.skip("this machine gives no file system of its own to a process")
    cluster.join_without(shared)
    done = command("run", "--input", shared / "in", "--address", cluster.address, **NO_TOKEN)
    assert done.returncode == 1
    assert (
        f"does not see {shared / 'in'}; a cluster needs an object store, or folders" in done.stderr
    )
    assert not rows(shared / "in-enhanced")
