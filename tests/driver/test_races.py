"""Two runs on one output: only one works, whatever became of the other."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

import batchlight
from batchlight.errors import LockedError
from batchlight.output import lock as lock_module
from batchlight.storage.local import LocalStorage
from tests.support.helpers import COMMAND, batchlight_here, deadly, stable_rows, tree, write_copies
from tests.support.s3_server import BUCKET, S3Server

IMAGES = 36
HEIGHT, WIDTH = 48, 64
OPTIONS = ("--batch-size", 12, "--progress", "off")
SAYS_SO_WITHIN_S = 30.0


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "in"
    write_copies(folder, IMAGES, height=HEIGHT, width=WIDTH)
    return folder


@pytest.fixture
def slow(tmp_path: Path) -> dict[str, str]:
    """What makes a run take seconds for each batch."""
    return deadly(tmp_path / "slow", {f"{HEIGHT}x{WIDTH}": "pause"})


@contextmanager
def started(photos: Path, out: object, workers: int, **environment: str) -> Iterator[psutil.Popen]:
    arguments = ["run", "--input", photos, "--output", out, "--workers", workers, *OPTIONS]
    with psutil.Popen(
        [*COMMAND, *map(str, arguments)],
        env={**psutil.Process().environ(), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        yield process


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_on_an_object_store_the_second_run_is_told_of_the_first(
    photos: Path, s3_server: S3Server, slow: dict[str, str]
) -> None:
    s3_server.put({"bucket-is-there": b""})
    prefix = f"{uuid4()}/out"
    out = f"s3://{BUCKET}/{prefix}"
    where = ("--input", photos, "--output", out, "--workers", 0, *OPTIONS)
    with started(photos, out, 0, **s3_server.environment, **slow) as first:
        deadline = time.monotonic() + 120
        while not any("/locks/" in path for path in s3_server.tree(prefix)):
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        began = time.monotonic()
        second = batchlight_here("run", *where, **s3_server.environment)
        assert time.monotonic() - began < SAYS_SO_WITHIN_S
        assert first.poll() is None
        first.kill()
    assert second.returncode == 4
    assert (
        f"another run is using {out}: process {first.pid} on {socket.gethostname()}, for "
        in second.stderr
    )
    # The first was killed, and so the third replaces it at once.
    third = batchlight_here("run", *where, **s3_server.environment)
    assert third.returncode == 0, third.stderr
    found = s3_server.tree(prefix)
    assert len([path for path in found if path.startswith("classical/")]) == IMAGES


def test_a_run_whose_lock_is_gone_stops(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "HEARTBEAT", timedelta(milliseconds=10))
    out = tmp_path / "out"
    locks = out / "_batchlight/locks"

    def take_over() -> None:
        while not list(out.glob("_batchlight/parts/*")):
            time.sleep(0.01)
        (locks / "0000000002.json").write_bytes((locks / "0000000001.json").read_bytes())

    write = LocalStorage.write

    def write_slowly(self: LocalStorage, path: str, data: bytes, *how: Any) -> None:
        time.sleep(0.05)
        write(self, path, data, *how)

    monkeypatch.setattr(LocalStorage, "write", write_slowly)
    thief = threading.Thread(target=take_over)
    thief.start()
    config = batchlight.JobConfig(
        input=str(photos), output=str(out), workers=0, batch_size=2, progress="off"
    )
    with pytest.raises(LockedError, match=f"another run has taken over {out}") as caught:
        batchlight.run(config)
    thief.join()
    assert caught.value.exit_code == 4
    assert not (out / "summary.json").exists()  # which is the other's to write
    assert not (out / "metadata").exists()
    assert len(tree(out / "classical")) < IMAGES


@pytest.mark.parametrize("times", [1, pytest.param(3, marks=pytest.mark.nightly)])
def test_orphans_of_a_killed_driver_race_with_the_next_run_and_change_nothing(
    photos: Path, tmp_path: Path, slow: dict[str, str], times: int
) -> None:
    calm, out = tmp_path / "calm", tmp_path / "out"
    arguments = ("--input", photos, "--workers", 0, *OPTIONS)
    assert batchlight_here("run", *arguments, "--output", calm).returncode == 0
    for _ in range(times):
        with started(photos, out, 2, **slow) as driver:
            while not list(out.glob("classical/*/*")):
                assert driver.poll() is None
                time.sleep(0.005)
            below = driver.children(recursive=True)
            workers = [p for p in below if "ray::" in " ".join(p.cmdline())]
            # Ray ends the workers of a driver that is gone; its own way of telling is held up
            # here, so that they go on for as long as they have work.
            for process in below:
                if process.name() in ("raylet", "gcs_server"):
                    process.send_signal(signal.SIGSTOP)
            driver.kill()
        written = len(tree(out / "classical"))
        with started(photos, out, 0) as run:
            held = set(out.glob("_batchlight/locks/*"))
            raced = 0
            while run.poll() is None:
                holds = held != set(out.glob("_batchlight/locks/*"))
                raced += holds and any(map(is_alive, workers))
                time.sleep(0.005)
        assert raced
        assert run.returncode == 0
        assert len(tree(out / "classical")) >= written
        assert (tree(out / "classical"), stable_rows(out)) == (
            tree(calm / "classical"),
            stable_rows(calm),
        )
        for process in below:
            if is_alive(process):
                process.kill()
        assert batchlight_here("run", *arguments, "--output", out).returncode == 0
        assert not list(out.glob("_batchlight/parts/*"))
        assert stable_rows(out) == stable_rows(calm)
        shutil.rmtree(out)
