"""Real deaths under real runs: workers, the head of a cluster, and images that kill."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from batchlight.engine import RayEngine, WorkerDied, calls
from batchlight.errors import ClusterError, ErrorCode
from tests.support import helpers
from tests.support.helpers import (
    COMMAND,
    batchlight_here,
    deadly,
    decodings,
    has_parts,
    kill_with_all_below,
    processes_below,
    rows,
    sha256,
    stable_rows,
    tree,
    under_way,
    write_images,
)
from tests.support.helpers import batchlight as command
from tests.support.ray_head import CPUS, RayHead

IMAGES, BATCH = 140, 20
OPTIONS = ("--batch-size", BATCH, "--progress", "off")
WORKERS = 2
SLOW_S = 0.02
"""For each image, so that there is time to strike."""

KILLS = 7
"""One less than it takes to blame an image: 2 of the batch, its 10, 5, 2 images, and 3 times 1."""

ENDS_WITHIN_S = 150.0

RAYS_PATIENCE_S = 33.0
"""With a lost head, in the test; a minute unless told otherwise."""

TIMEOUT_S = 6.0
CALL_TIMEOUT_S = 3.0
"""Of calls that do nothing but die, or sleep."""

ROOM_BYTES = 3 * 2**29
"""For all that other processes of this machine may need while an image's memory grows."""


# What it takes to attack


def decoded(folder: Path) -> Counter[str]:
    """How often each image was decoded, by the SHA-256 of its bytes."""
    return Counter(digest for digest, _ in decodings(folder))


def at_work(ray: RayHead) -> list[psutil.Process]:
    """The workers of a Ray that are in a batch, and have decoded images of it."""
    lately = {by for _, by in decodings(ray.orders)[-2 * WORKERS :]}
    return [worker for worker in processes_below(ray.pid, "ray::on_worker") if worker.pid in lately]


def started(
    photos: Path, out: Path, *options: object, **environment: str
) -> AbstractContextManager[subprocess.Popen[str]]:
    command = [*COMMAND, "run", "--input", photos, "--output", out, *OPTIONS, *options]
    return under_way(command, environment, stderr=subprocess.PIPE, text=True)


wait_until = partial(helpers.wait_until, within_s=ENDS_WITHIN_S)


State = tuple[dict[str, bytes], list[dict[str, Any]]]


def state(out: Path) -> State:
    """All that two equal outputs agree in."""
    return tree(out / "classical"), stable_rows(out)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "in"
    write_images(folder, IMAGES)
    return folder


@pytest.fixture(scope="module")
def calm(photos: Path) -> State:
    out = photos.parent / "calm"
    done = batchlight_here("run", "--input", photos, "--output", out, *OPTIONS, "--workers", 0)
    assert done.returncode == 0, done.stderr
    return state(out)


# Workers, nodes, the head


@pytest.mark.nightly
def test_killed_workers_change_nothing(
    photos: Path, calm: State, tmp_path: Path, deadly_ray: RayHead
) -> None:
    out, kills = tmp_path / "out", 0
    deadly_ray.order({}, SLOW_S)
    with started(photos, out, "--workers", WORKERS, "--address", deadly_ray.address) as run:
        while kills < KILLS:  # one in each batch or so
            wait_until(partial(has_parts, out, kills // 2), run)
            wait_until(partial(at_work, deadly_ray), run)
            with suppress(psutil.NoSuchProcess, IndexError):  # it may have ended by itself
                at_work(deadly_ray)[0].kill()
                kills += 1
        _, errors = run.communicate(timeout=ENDS_WITHIN_S)
    assert run.returncode == 0, errors
    assert state(out) == calm
    assert max(row["attempts"] for row in rows(out)) > 1


@dataclass(frozen=True)
class Cluster:
    """A real one on this machine: a head without CPUs, and a node with one."""

    address: str
    head: Sequence[int]
    """Its processes: where all is known, and the one that starts workers, if it had CPUs."""


START_CLUSTER = """
import json, sys
from ray._common.utils import reset_ray_address
from ray.cluster_utils import Cluster
small = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
cluster.add_node(num_cpus=1, **small)
pid = lambda node, name: node.all_processes[name][0].process.pid
head = [pid(cluster.head_node, "gcs_server"), pid(cluster.head_node, "raylet")]
reset_ray_address()  # nobody else on this machine is to find it
print(json.dumps([cluster.address, head]), flush=True)
sys.stdin.read()
"""
NO_TOKEN = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


@contextmanager
def ray_cluster(**environment: str) -> Iterator[Cluster]:
    with under_way(
        [sys.executable, "-c", START_CLUSTER],
        {**NO_TOKEN, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield Cluster(*json.loads(process.stdout.readline()))


@pytest.mark.nightly
def test_a_lost_head_ends_the_run_with_a_sentence_and_the_next_goes_on(
    photos: Path, calm: State, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    patience = {"RAY_gcs_rpc_server_reconnect_timeout_s": str(int(RAYS_PATIENCE_S))}
    with (
        ray_cluster(**deadly(tmp_path / "deadly", {}, SLOW_S)) as ray,
        started(photos, out, "--address", ray.address, **NO_TOKEN, **patience) as run,
    ):
        wait_until(partial(has_parts, out, 2), run)
        for pid in ray.head:
            os.kill(pid, signal.SIGKILL)
        lost_at = time.monotonic()
        _, errors = run.communicate(timeout=ENDS_WITHIN_S)
        assert time.monotonic() - lost_at < RAYS_PATIENCE_S
    assert_stopped_by(r"the head of the Ray cluster at [\d.:]+ is gone", run, errors, out)
    assert_goes_on(photos, calm, out)


def test_a_lost_ray_of_its_own_ends_the_run_with_a_sentence(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    environment = deadly(tmp_path / "deadly", {}, SLOW_S)
    environment["RAY_health_check_period_ms"] = "500"  # sooner noticed
    with started(photos, out, "--workers", 2, **environment) as run:
        wait_until(partial(has_parts, out, 2), run)
        [raylet] = [p for p in psutil.Process(run.pid).children() if p.name() == "raylet"]
        kill_with_all_below(raylet.pid)
        _, errors = run.communicate(timeout=ENDS_WITHIN_S)
    assert_stopped_by("the Ray node that this run is connected to is gone", run, errors, out)


def assert_stopped_by(words: str, run: subprocess.Popen[str], errors: str, out: Path) -> None:
    assert run.returncode == 1, errors
    assert len(re.findall(rf"^error: {words}; run the same command again", errors, re.M)) == 1
    assert "Traceback" not in errors
    summary = json.loads((out / "summary.json").read_text())
    assert summary["exit_code"] == 1
    assert re.match(words, summary["reason"])
    assert summary["failed"] == 0


def assert_goes_on(photos: Path, calm: State, out: Path) -> None:
    again = command("run", "--input", photos, "--output", out, *OPTIONS, "--workers", 2)
    assert again.returncode == 0, again.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert 2 * BATCH <= summary["done_before"] < IMAGES
    assert state(out) == calm


# Images that kill


@pytest.mark.nightly
def test_one_killer_among_64_costs_a_logarithm(tmp_path: Path) -> None:
    """And the others are what they are in a batch without it, since it has no say in the mean."""
    photos, out = tmp_path / "in", tmp_path / "out"
    files = write_images(photos, 64)
    killer = files[20]
    environment = deadly(tmp_path / "deadly", {sha256(killer): "kill"})
    one_batch = ("--batch-size", 64)
    run_with_failures(photos, out, {"crash": 1}, "--workers", 2, *one_batch, **environment)
    [failed] = [row for row in rows(out) if row["status"] == "failed"]
    assert failed["input"] == str(killer.relative_to(photos))
    deaths = 2 + 5 + 3  # the batch, twice; its halves down to two; three times alone
    attempts = Counter(row["attempts"] for row in rows(out))
    assert failed["attempts"] == deaths
    assert attempts == {3: 32, 4: 16, 5: 8, 6: 4, 7: 2, 8: 1, deaths: 1}  # each of 32 saw 2 deaths
    counted = decoded(tmp_path / "deadly")
    assert counted.pop(sha256(killer)) == deaths
    assert max(counted.values()) <= deaths

    killer.write_bytes(b"no image")
    assert_as_without(photos, tmp_path / "without", out, *one_batch)


def test_every_way_to_kill_has_its_code_and_harms_nobody(
    tmp_path: Path, deadly_ray: RayHead
) -> None:
    """Several at once, in decoders and in an encoder, in several batches."""
    photos, out = tmp_path / "in", tmp_path / "out"
    files = sorted(write_images(photos, 13))
    [odd] = write_images(tmp_path / "odd", 1, height=33, width=47)
    odd.rename(files[7])  # dies of being written, so its light counts
    deadly_ray.order(
        {
            sha256(files[4]): "segfault",
            sha256(files[5]): "limit",
            "33x47": "kill",
            sha256(files[12]): "hang",
        }
    )
    expected = {4: "crash", 5: "out_of_memory", 7: "crash", 12: "timeout"}
    options = ("--batch-size", 4, "--timeout", TIMEOUT_S, "--address", deadly_ray.address)
    codes = dict(Counter(expected.values()))
    run_with_failures(photos, out, codes, *options)
    failed = {row["input"]: row["error_code"] for row in rows(out) if row["status"] == "failed"}
    names = [str(file.relative_to(photos)) for file in files]
    assert failed == {names[number]: code for number, code in expected.items()}
    attempts = {row["input"]: row["attempts"] for row in rows(out)}
    # Of others' batches nobody is tried alone; a busy machine may let one exceed its time once.
    assert {attempts[name] for name in names[:4] + names[8:12]} <= {1, 2}
    assert max(attempts.values()) <= 2 * (1 + 2 + 3)  # of 4 images, in both passes

    for number in (4, 5, 12):
        files[number].write_bytes(b"no image")
    assert_as_without(photos, tmp_path / "without", out, "--batch-size", 4)


@pytest.mark.nightly
def test_memory_that_ray_takes_back(tmp_path: Path) -> None:
    """Ray would repeat for ever what it ends for its memory; its repetitions are off."""
    photos, out = tmp_path / "in", tmp_path / "out"
    files = write_images(photos, 2)
    memory = psutil.virtual_memory()
    threshold = (memory.total - memory.available + ROOM_BYTES) / memory.total
    environment = {
        "RAY_memory_usage_threshold": f"{threshold:.4f}",
        "RAY_memory_monitor_refresh_ms": "50",
        **deadly(tmp_path / "deadly", {sha256(files[1]): "grow"}),
    }
    run_with_failures(photos, out, {"out_of_memory": 1}, "--workers", 1, **environment)
    assert decoded(tmp_path / "deadly")[sha256(files[1])] == 1 + 1 + 3
    files[1].write_bytes(b"no image")
    assert_as_without(photos, tmp_path / "without", out)


def run_with_failures(
    photos: Path, out: Path, codes: dict[str, int], *options: object, **environment: str
) -> None:
    arguments = ("--input", photos, "--output", out, "--progress", "off")
    done = command("run", *arguments, *options, **environment)
    assert done.returncode == 3, done.stderr
    assert json.loads((out / "summary.json").read_text())["failed_by_code"] == codes


def assert_as_without(photos: Path, without: Path, out: Path, *options: object) -> None:
    """All that did not fail is what it is where those that did are harmless, means included."""
    done = batchlight_here("run", "--input", photos, "--output", without, "--workers", 0, *options)
    assert done.returncode == 3, done.stderr
    found, calm = state(out), state(without)
    ok = [row for row in found[1] if row["status"] == "ok"]
    names = {row["input"] for row in ok}
    assert ok == [row for row in calm[1] if row["input"] in names]
    assert found[0] == {name: data for name, data in calm[0].items() if name in names}


# Whose fault a death is


def crash(log: Path | None = None) -> None:
    if log is not None:
        with log.open("a") as file:
            file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


def echo(value: object) -> object:
    return value


@dataclass(frozen=True)
class DeadlyLuggage:
    """An argument that kills the worker that unpacks it, some times."""

    log: Path
    times: int

    def __reduce__(self) -> tuple[Any, ...]:
        return unpack, (self.log, self.times)


def unpack(log: Path, times: int) -> str:
    with log.open("a") as file:
        file.write("x")
    if len(log.read_text()) <= times:
        crash()
    return "luggage"


@pytest.fixture(scope="module")
def ray_engine(ray_head: RayHead) -> Iterator[RayEngine]:
    with RayEngine(CPUS, ray_head.address, CALL_TIMEOUT_S) as engine:
        yield engine


def test_waiting_in_line_makes_a_crash_no_timeout(ray_engine: RayEngine) -> None:
    async def one_after_another() -> list[Any]:
        sleeps = [ray_engine.call(time.sleep, 0.6 * CALL_TIMEOUT_S) for _ in range(2 * CPUS)]
        return await asyncio.gather(*sleeps, ray_engine.call(crash), return_exceptions=True)

    started_at = time.monotonic()
    *slept, death = asyncio.run(one_after_another())
    assert slept == [None] * 2 * CPUS
    assert time.monotonic() - started_at > CALL_TIMEOUT_S
    assert isinstance(death, WorkerDied)
    assert death.code == ErrorCode.CRASH


def test_the_very_first_thing_that_kills_is_to_blame(ray_engine: RayEngine) -> None:
    """However little time there is to tell that it began."""

    for _ in range(5):
        with pytest.raises(WorkerDied):
            asyncio.run(ray_engine.call(crash))


def test_a_death_before_the_call_begins_is_not_its_fault(
    ray_engine: RayEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "PAUSE_BEFORE_RESENDING", 0.01)
    assert asyncio.run(ray_engine.call(echo, DeadlyLuggage(tmp_path / "two", 2))) == "luggage"
    monkeypatch.setattr(calls, "RESENDS_AT_MOST", 3)
    with pytest.raises(ClusterError, match="lost 3 nodes or workers during one batch"):
        asyncio.run(ray_engine.call(echo, DeadlyLuggage(tmp_path / "all", 100)))
    assert len((tmp_path / "all").read_text()) == 3
