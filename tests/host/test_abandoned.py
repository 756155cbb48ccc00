"""Calls that are abandoned: whoever waits goes on, and they write nothing more."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import batchlight
from batchlight.host import abandoned
from batchlight.host.abandoned import AbandonedError, Pool, TooLongError, call_in_thread, this_call
from tests.support.helpers import batchlight as command
from tests.support.helpers import deadly, rows, write_images


def test_what_a_call_returns_and_raises() -> None:
    assert call_in_thread(lambda: 7) == 7

    def fails() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        call_in_thread(fails, 5)
    this_call()()  # nobody gives this thread up


def test_one_that_takes_too_long_knows_that_it_is_not_wanted() -> None:
    go_on, seen = threading.Event(), threading.Event()

    def slow() -> None:
        require: Callable[[], None] = this_call()
        require()
        go_on.wait(10)
        with pytest.raises(AbandonedError):
            require()
        seen.set()

    with pytest.raises(TooLongError):
        call_in_thread(slow, 0.05)
    go_on.set()
    assert seen.wait(10)


def test_a_signal_ends_the_wait_at_once() -> None:
    class Signalled(Exception):
        pass

    def on_signal(*_: object) -> None:
        raise Signalled

    before = signal.signal(signal.SIGUSR1, on_signal)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    began = time.monotonic()
    try:
        with pytest.raises(Signalled):
            call_in_thread(lambda: time.sleep(5))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert time.monotonic() - began < 3


def test_the_timeout_holds_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that hangs is found, and its neighbours are what they are without it."""
    from batchlight.images import codec

    write_images(tmp_path / "in", 6)
    calm: dict[str, Any] = {"input": str(tmp_path / "in"), "workers": 0, "progress": "off"}
    calm["batch_size"] = 64
    batchlight.run(batchlight.JobConfig(**calm, output=str(tmp_path / "calm")))
    hung = (tmp_path / "in/b/0004.jpg").read_bytes()
    decode, over = codec.decode, threading.Event()

    def decoding(data: bytes, header: object) -> object:
        if data == hung:
            over.wait(20)
        return decode(data, header)  # type: ignore[arg-type]

    monkeypatch.setattr(codec, "decode", decoding)
    began = time.monotonic()
    out = tmp_path / "out"
    summary = batchlight.run(batchlight.JobConfig(**calm, output=str(out), timeout=0.5))
    assert time.monotonic() - began < 18
    over.set()
    assert summary.failed_by_code == {"timeout": 1}
    light = {row["batch_atmospheric_light"] for row in rows(out)}
    assert len(light) == 1
    assert {r["input"]: r["attempts"] for r in rows(out)}["b/0004.jpg"] >= 5
    time.sleep(0.5)  # what was abandoned ends, and changes nothing
    assert not (out / "classical/b/0004.jpg").exists()
    assert len(rows(out)) == 6


def test_the_search_for_what_hangs_takes_a_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that there is no time for are tried by later runs, until all are known."""
    from batchlight.images import codec

    paths = write_images(tmp_path / "in", 8)
    hung = {path.read_bytes() for path in paths[2:6]}
    decode, over = codec.decode, threading.Event()

    def decoding(data: bytes, header: object) -> object:
        if data in hung:
            over.wait(60)
        return decode(data, header)  # type: ignore[arg-type]

    monkeypatch.setattr(codec, "decode", decoding)
    timeout_s = 0.4
    config = batchlight.JobConfig(
        input=str(tmp_path / "in"), output=str(tmp_path / "out"), workers=0, progress="off",
        timeout=timeout_s, max_failures="100%", batch_size=64,
    )  # fmt: skip
    found: list[dict[str, int]] = []
    for _ in range(6):
        began = time.monotonic()
        summary = batchlight.run(config)
        assert time.monotonic() - began < (8 + 3) * timeout_s + 5
        found.append(dict(summary.failed_by_code))
        assert summary.ok + summary.failed == 8
        if "error" not in summary.failed_by_code:
            break
    over.set()
    assert "error" in found[0]
    assert found[-1] == {"timeout": 4}
    assert summary.ok == 4


def test_a_pool_does_not_look_at_all_its_calls_for_each() -> None:
    """Which took seconds for the entries of a list."""
    gate = threading.Event()
    with Pool(1) as pool:
        began = time.monotonic()
        calls = [pool.submit(gate.wait) for _ in range(20_000)]
        assert time.monotonic() - began < 3
        gate.set()
    assert all(call.result() for call in calls)


def test_a_run_that_has_abandoned_calls_ends_in_time(tmp_path: Path) -> None:
    """Although a thread of it never ends."""
    write_images(tmp_path / "in", 2)
    environment = deadly(tmp_path / "orders", {})
    program = tmp_path / "sitecustomize.py"
    program.write_text(
        "import time\nimport batchlight.images.codec as codec\n"
        "codec.decode = lambda data, header: time.sleep(1000)\n"
    )
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    began = time.monotonic()
    done = command(
        *("run", "--input", tmp_path / "in", "--workers", 0, "--timeout", 0.2), **environment
    )
    assert done.returncode == 3, done.stderr
    assert time.monotonic() - began < 40


def test_calls_that_have_ended_are_forgotten() -> None:
    """A program may run jobs, and give up calls, for months."""
    go_on = threading.Event()
    for _ in range(3):
        with pytest.raises(TooLongError):
            call_in_thread(go_on.wait, 0.01)
    waiting = len(abandoned._abandoned)
    assert waiting >= 3
    assert abandoned.any_abandoned()
    go_on.set()
    deadline = time.monotonic() + 10
    while abandoned.any_abandoned() and time.monotonic() < deadline:
        time.sleep(0.01)
    stay = threading.Event()
    with pytest.raises(TooLongError):
        call_in_thread(stay.wait, 0.01)
    stay.set()
    assert len(abandoned._abandoned) == 1
