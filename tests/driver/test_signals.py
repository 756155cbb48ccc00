"""SIGINT, SIGTERM and SIGHUP: a run stops soon, says how to go on, and the next one does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

import batchlight
from batchlight.engine import InProcessEngine
from tests.support.helpers import (
    COMMAND,
    batchlight_here,
    deadly,
    stable_rows,
    tree,
    wait_until,
    write_copies,
)

IMAGES = 80
HEIGHT, WIDTH = 48, 64
SLOW = {f"{HEIGHT}x{WIDTH}": "pause"}
"""By which each batch takes seconds to write."""

STARTS_WITHIN_S = 120.0
STOPS_WITHIN_S = 120.0
ANSWERS_WITHIN_S = 5.0
"""Of which a busy machine may take four."""
OPTIONS = ("--batch-size", 40)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two batches."""
    folder = tmp_path_factory.mktemp("photos") / "in"
    write_copies(folder, IMAGES, height=HEIGHT, width=WIDTH)
    return folder


@pytest.fixture(scope="module")
def calm(photos: Path) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    out = photos.parent / "calm"
    assert (
        batchlight_here(
            "run", "--input", photos, "--output", out, "--workers", 0, *OPTIONS
        ).returncode
        == 0
    )
    return tree(out / "classical"), stable_rows(out)


def as_on_a_terminal() -> None:
    """Python's own way with signals, which a shell changes for jobs in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@contextmanager
def running(
    photos: Path, out: Path, workers: int, stderr: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    """A run in the middle of its batches, as on a terminal."""
    arguments = ["run", "--input", photos, "--output", out, "--workers", workers, *OPTIONS]
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stderr=stderr,
        text=True,
        env={**os.environ, **deadly(out.with_name("slow"), SLOW)},
        preexec_fn=as_on_a_terminal,
    ) as process:
        wait_until(lambda: list(out.glob("classical/*/*.jpg")), process, STARTS_WITHIN_S)
        yield process


def fill(pipe: int) -> None:
    """Write to a pipe until it takes no more; whoever shares it waits for a reader."""
    os.set_blocking(pipe, False)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, b"\n")
    os.set_blocking(pipe, True)


def catches(pid: int, signum: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signum - 1) & 1)


@pytest.mark.parametrize(
    ("workers", "signum", "code"),
    [
        (0, signal.SIGTERM, 143),
        (2, signal.SIGINT, 130),
        (0, signal.SIGHUP, 129),
        pytest.param(2, signal.SIGHUP, 129, marks=pytest.mark.nightly),
        pytest.param(0, signal.SIGINT, 130, marks=pytest.mark.nightly),
        pytest.param(2, signal.SIGTERM, 143, marks=pytest.mark.nightly),
    ],
)
def test_a_run_stops_in_the_middle_of_its_batches(
    photos: Path, calm: object, tmp_path: Path, workers: int, signum: signal.Signals, code: int
) -> None:
    out = tmp_path / "out"
    with running(photos, out, workers) as process:
        below = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signum)
        _, errors = process.communicate(timeout=STOPS_WITHIN_S)
    assert process.returncode == code, errors
    assert "stopping; a second signal stops at once" in errors
    assert f"interrupted by {signum.name}; run the same command again to continue" in errors
    assert "Traceback" not in errors
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["exit_code"], summary["ok"]) == (code, 0)  # no batch was ended
    assert not list(out.glob("_batchlight/parts/*"))
    assert not psutil.wait_procs(below, timeout=STOPS_WITHIN_S)[1], "a worker is left"
    again = batchlight_here("run", "--input", photos, "--output", out, "--workers", 0, *OPTIONS)
    assert again.returncode == 0, again.stderr
    assert (tree(out / "classical"), stable_rows(out)) == calm


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.nightly)])
def test_a_second_signal_stops_at_once(
    photos: Path, calm: object, tmp_path: Path, workers: int
) -> None:
    out = tmp_path / "out"
    read_end, write_end = os.pipe()
    with running(photos, out, workers, write_end) as process:
        # A terminal that takes no more text: stopping in good order would never end.
        fill(write_end)
        process.send_signal(signal.SIGINT)
        wait_until(lambda: not catches(process.pid, signal.SIGINT), process, STOPS_WITHIN_S)
        for child in psutil.Process(process.pid).children(recursive=True):
            if "raylet" in child.name():
                os.kill(child.pid, signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=STOPS_WITHIN_S)
    os.close(read_end)
    os.close(write_end)
    assert process.returncode == -signal.SIGINT
    again = batchlight_here("run", "--input", photos, "--output", out, "--workers", 0, *OPTIONS)
    assert again.returncode == 0, again.stderr
    assert (tree(out / "classical"), stable_rows(out)) == calm


def read_until(terminal: int, pattern: str) -> str:
    """What a terminal shows until something is on it, or the process has ended."""
    shown = ""
    while not re.search(pattern, shown):
        try:
            shown += os.read(terminal, 4096).decode()
        except OSError:
            break
    return shown


def signalled_at(photos: Path, out: Path, word: str, *options: object) -> tuple[float, str, int]:
    """Ctrl-C as soon as a run has said a word: seconds until it answers, what it says, its code."""
    arguments = ["run", "--input", photos, "--output", out, *options]
    terminal, slave = os.openpty()
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=slave,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        os.close(slave)
        assert re.search(word, read_until(terminal, word))
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        answer = read_until(terminal, "stopping|interrupted")
        took = time.monotonic() - sent
        rest = read_until(terminal, "(?!)")
    os.close(terminal)
    return took, answer + rest, process.returncode


@pytest.mark.parametrize(
    ("word", "workers"), [("batchlight", 0), ("listing", 0), ("to do", 2), ("working in", 2)]
)
def test_a_signal_is_answered_at_once_while_a_run_starts(
    photos: Path, tmp_path: Path, word: str, workers: int
) -> None:
    """Whether it loads its packages, lists, or starts Ray. On a quiet machine, within a second."""
    took, said, code = signalled_at(photos, tmp_path / "out", word, "--workers", workers)
    assert took < ANSWERS_WITHIN_S
    assert code == 130
    assert "interrupted" in said
    assert "Traceback" not in said


class InterruptedAtItsEnd(InProcessEngine):
    """Gets a Ctrl-C while it stops."""

    stopped = False

    def __exit__(self, *_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        self.stopped = True


def test_a_signal_after_all_is_done_changes_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else Ray would be stopped half-way, and a complete run would be called interrupted."""
    engine = InterruptedAtItsEnd(600)
    monkeypatch.setattr("batchlight.driver.run.engine_of", lambda *_: engine)
    out = str(tmp_path / "out")
    config = batchlight.JobConfig(input=str(photos), output=out, workers=0, progress="off")
    summary = batchlight.run(config)
    assert engine.stopped
    assert (summary.exit_code, summary.ok) == (0, IMAGES)
    assert json.loads((tmp_path / "out/summary.json").read_text())["exit_code"] == 0
