"""Runs that die, at every point where they can, and the same command run again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import RLock
from typing import IO, Any

import cv2
import pytest

import batchlight
from batchlight.storage.local import LocalStorage
from tests.support.dying import Died, die_at
from tests.support.helpers import (
    COMMAND,
    batchlight_here,
    bright_image,
    dark_image,
    deadly,
    has_parts,
    parts,
    rows,
    sha256,
    stable_rows,
    tree,
    wait_until,
    write_images,
)

IMAGES = 240
BRIGHT_EVERY = 7
"""One of so many is not dark, and so copied."""
KILL_TIMEOUT_S = 120.0
SAYS_SO_WITHIN_S = 30.0

State = tuple[dict[str, bytes], list[dict[str, Any]], list[str]]


def run(folder: Path, out: Path) -> batchlight.Summary:
    config = batchlight.JobConfig(
        input=str(folder), output=str(out), workers=0, batch_size=2, progress="off"
    )
    return batchlight.run(config)


def state(out: Path) -> State:
    """All that two equal outputs agree in."""
    return tree(out / "classical"), stable_rows(out), sorted(tree(out / "metadata"))


def test_death_at_every_single_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First run and incremental run (new, changed and vanished inputs), killed at each change."""
    # It takes most of a run's time, and nothing that is done here depends on it.
    monkeypatch.setattr("batchlight.report.write_report", lambda *_: None)
    photos = tmp_path / "in"
    write_images(photos, 7)
    cv2.imwrite(str(photos / "b/0001.jpg"), bright_image(1))
    first = tmp_path / "first"
    run(photos, first)

    calm_first = state(first)
    shutil.copytree(first, tmp_path / "second")
    cv2.imwrite(str(photos / "a/0000.jpg"), dark_image(50))
    cv2.imwrite(str(photos / "b/0004.jpg"), dark_image(51))
    cv2.imwrite(str(photos / "new.jpg"), dark_image(52))
    cv2.imwrite(str(photos / "c/0005.jpg"), bright_image(53))
    (photos / "c/0002.jpg").write_bytes(b"no image any more")  # so its old output must go
    run(photos, tmp_path / "second")
    calm_second = state(tmp_path / "second")
    assert calm_second != calm_first

    deaths = 0
    for start, calm in ((tmp_path / "none", None), (first, calm_second)):
        operation = 1
        while True:
            out = tmp_path / "out"
            shutil.rmtree(out, ignore_errors=True)
            if start.exists():
                shutil.copytree(start, out)
            with monkeypatch.context() as patch:
                count = die_at(patch, LocalStorage, operation)
                try:
                    run(photos, out)
                except Died:
                    deaths += 1
                if count() < operation:
                    break
            assert_no_row_twice(out)
            shutil.rmtree(out / "_batchlight/locks", ignore_errors=True)  # held by this process
            run(photos, out)
            if calm is None:
                calm = state(out)
                assert len(calm[1]) == 8
            assert state(out) == calm, f"after death at operation {operation}"
            assert not tree(out / "_batchlight/parts")
            operation += 1
    assert deaths > 30


class Disk:
    """A disk at its worst: a power cut undoes whatever was moved, unless its folder was flushed.

    Only deletions, and the last change of all, survive for sure. After each change, what a cut
    would leave of ``out`` is copied to ``cuts``.
    """

    def __init__(self, out: Path, cuts: Path, patch: pytest.MonkeyPatch) -> None:
        self.out = out
        self.cuts = cuts
        self.count = 0
        self._undo: dict[Path, bytes | None] = {}
        """What stood there before; None for nothing."""
        self._one_at_a_time = RLock()  # several threads delete
        for name, target in (("mkdir", 0), ("replace", 1), ("link", 1), ("unlink", 0)):
            patch.setattr(os, name, partial(self._change, getattr(os, name), target))
        patch.setattr(os, "fsync", partial(self._fsync, os.fsync))

    def _change(self, change: Callable[..., None], target: int, *given: Any, **more: Any) -> None:
        folder = more.get("dst_dir_fd", more.get("dir_fd"))
        path = Path(os.readlink(f"/proc/self/fd/{folder}") if folder else "", given[target])
        with self._one_at_a_time:
            before = path.read_bytes() if path.is_file() else None
            change(*given, **more)
            if self.out not in path.parents or path.parent.name == "tmp":
                return
            earliest = self._undo.pop(path, before)
            self._leave()
            if path.exists():
                self._undo[path] = earliest

    def _fsync(self, fsync: Callable[[int], None], descriptor: int) -> None:
        fsync(descriptor)
        flushed = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        with self._one_at_a_time:
            self._undo = {p: before for p, before in self._undo.items() if p.parent != flushed}

    def _leave(self) -> None:
        cut = self.cuts / str(self.count)
        self.count += 1
        shutil.copytree(self.out, cut)
        for path, before in self._undo.items():
            undone = cut / path.relative_to(self.out)
            if undone.is_dir():
                shutil.rmtree(undone)
            elif undone.exists() and before is None:
                undone.unlink()
            elif before is not None:
                undone.write_bytes(before)


def test_a_power_cut_at_every_single_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "in"
    write_images(photos, 7)
    # It takes most of a run's time, and nothing that is done here depends on it.
    monkeypatch.setattr("batchlight.report.write_report", lambda *_: None)
    calm = run_with_power_cuts(photos, tmp_path / "first", monkeypatch)
    cv2.imwrite(str(photos / "a/0000.jpg"), dark_image(50))
    (photos / "c/0002.jpg").write_bytes(b"no image any more")  # so its old output must go
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    assert run_with_power_cuts(photos, tmp_path / "second", monkeypatch) != calm


def run_with_power_cuts(photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """A run; and one that goes on after each change that it made, to the same end."""
    cuts = out.with_name(f"cuts of {out.name}")
    with monkeypatch.context() as patch:
        disk = Disk(out, cuts, patch)
        run(photos, out)
    calm = state(out)
    for cut in cuts.iterdir():
        shutil.rmtree(cut / "_batchlight/locks", ignore_errors=True)  # held by this process
        run(photos, cut)
        assert state(cut) == calm, f"after a power cut at change {cut.name}"
    assert disk.count > 10
    return calm


def assert_no_row_twice(out: Path) -> None:
    keys = [(row["input"], row["method"]) for row in rows(out)] if out.exists() else []
    assert len(keys) == len(set(keys))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "in"
    for number, path in enumerate(write_images(folder, IMAGES, height=240, width=320)):
        if number % BRIGHT_EVERY == 0:
            cv2.imwrite(str(path), bright_image(number))
    (folder / "broken.jpg").write_bytes(b"not an image")
    return folder


@pytest.fixture(scope="module")
def calm(photos: Path) -> State:
    out = photos.parent / "calm"
    done = batchlight_here(
        "run", "--input", photos, "--output", out, "--workers", 0, "--batch-size", 10
    )
    assert done.returncode == 3
    return state(out)


def in_order(photos: Path) -> list[Path]:
    """The images as a run does them."""
    return sorted(photos.rglob("*.jpg"), key=lambda path: bytes(path.relative_to(photos)))


def start_and_kill(
    photos: Path, out: Path, workers: int, when: Callable[[], bool], endless: dict[str, str]
) -> None:
    """SIGKILL the driver as soon as ``when`` holds, in an environment in which it never ends."""
    arguments = ["run", "--input", photos, "--output", out, "--workers", workers]
    command_line = [*COMMAND, *map(str, arguments), "--batch-size", "10"]
    with subprocess.Popen(
        command_line,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **endless},
    ) as run:
        wait_until(when, run, KILL_TIMEOUT_S)
        run.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.nightly)])
def test_killed_drivers(photos: Path, calm: object, tmp_path: Path, workers: int) -> None:
    """SIGKILL before the plan, before the first part, in the middle, several times in a row."""
    out = tmp_path / "out"
    at_work: list[Callable[[], bool]] = [
        lambda: (out / "classical").exists(),
        partial(has_parts, out, 3),
        partial(has_parts, out, 20),
    ]
    before_any_work = [
        lambda: (out / "_batchlight/locks").exists(),
        lambda: (out / "_batchlight/plan").exists(),
    ]
    endless = deadly(tmp_path / "endless", {sha256(in_order(photos)[-1]): "hold"})
    for moment in at_work if workers else before_any_work + at_work:
        start_and_kill(photos, out, workers, moment, endless)
    kept = {p: p.stat().st_mtime_ns for p in (out / "_batchlight/parts").glob("*.parquet")}
    done = batchlight_here(
        "run", "--input", photos, "--output", out, "--workers", workers, "--batch-size", 10
    )
    assert done.returncode == 3, done.stderr
    assert len(kept) >= 20
    assert state(out) == calm
    assert not tree(out / "_batchlight/tmp")


def test_a_signal_ends_the_run_with_its_code_and_the_next_goes_on(
    photos: Path, calm: object, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    images = in_order(photos)
    for signum, code, image in (
        (signal.SIGINT, 130, images[35]),
        (signal.SIGTERM, 143, images[-1]),
    ):
        folder = tmp_path / signum.name
        environment = {**os.environ, **deadly(folder, {sha256(image): "hold"})}
        arguments = ["run", "--input", photos, "--output", out, "--workers", 0, "--batch-size", 10]
        before = parts(out)
        with subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env=environment,
        ) as process:
            wait_until((folder / "held").exists, process, KILL_TIMEOUT_S)
            assert parts(out) >= before + 3
            process.send_signal(signum)
            assert process.stderr is not None
            errors = read_to(process.stderr, "stopping")
            (folder / "go").touch()
            errors += process.stderr.read()
        assert process.returncode == code
        assert "stopping; a second signal stops at once" in errors
        assert f"interrupted by {signum.name}; run the same command again" in errors
        assert f'"exit_code": {code}' in (out / "summary.json").read_text()
    done = batchlight_here(
        "run", "--input", photos, "--output", out, "--workers", 0, "--batch-size", 10
    )
    assert done.returncode == 3
    assert state(out) == calm


def read_to(stream: IO[str], word: str) -> str:
    """What comes up to the line with a word, or to the end."""
    lines: list[str] = []
    while not (lines and (word in lines[-1] or not lines[-1])):
        lines.append(stream.readline())
    return "".join(lines)


@pytest.mark.nightly
@pytest.mark.parametrize("delay", [0.0, 0.5])
def test_a_signal_while_ray_starts(photos: Path, tmp_path: Path, delay: float) -> None:
    arguments = ["run", "--input", photos, "--output", tmp_path / "out", "--workers", "2"]
    with subprocess.Popen([*COMMAND, *map(str, arguments)], stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while b"working in a Ray" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read().decode()
    assert process.returncode == 130, errors
    assert "interrupted by SIGINT" in errors


def test_a_second_run_is_locked_out_and_told_by_whom(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["run", "--input", photos, "--output", out, "--workers", 0]
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as first:
        while not (out / "_batchlight/plan").exists():
            time.sleep(0.002)
        first.send_signal(signal.SIGSTOP)
        try:
            started = time.monotonic()
            second = batchlight_here(*arguments)
            assert time.monotonic() - started < SAYS_SO_WITHIN_S
            assert second.returncode == 4
            assert f"process {first.pid} on " in second.stderr
            status = batchlight_here("status", out, "--json")
            assert '"state": "running"' in status.stdout
        finally:
            first.send_signal(signal.SIGCONT)
    assert first.returncode == 3
