"""Blocks in which signals wait; a connection that is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from batchlight.errors import Interrupted
from batchlight.host.signals import Interrupt


@pytest.fixture(autouse=True)
def connected() -> Iterator[None]:
    """Not under nohup, whatever started the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("inside", [True, False])
def test_a_signal_waits_for_the_end_of_the_outer_block(inside: bool) -> None:
    interrupt = Interrupt(lambda _: None)
    steps: list[str] = []

    def work() -> None:
        with interrupt.held():
            with interrupt.held():
                if inside:
                    signal.raise_signal(signal.SIGTERM)
                steps.append("inner")
            if not inside:
                signal.raise_signal(signal.SIGTERM)
            steps.append("outer")

    with interrupt.caught(), pytest.raises(Interrupted):
        work()
    assert steps == ["inner", "outer"]


def test_a_lost_connection_is_one_signal_however_often_it_is_told() -> None:
    """The shell tells it to its jobs, and the kernel to the processes in the foreground."""
    interrupt = Interrupt(lambda _: None)

    def work() -> None:
        with interrupt.held():
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGHUP)

    with interrupt.caught(), pytest.raises(Interrupted) as caught:
        work()
    assert caught.value.exit_code == 129
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_under_nohup_a_lost_connection_changes_nothing() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupt = Interrupt(lambda _: None)
    with interrupt.caught(), interrupt.held():
        signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.parametrize("failing", [False, True])
def test_what_was_entered_is_left_whatever_arrives(failing: bool) -> None:
    interrupt = Interrupt(lambda _: None)
    steps: list[str] = []

    @contextmanager
    def engine() -> Iterator[str]:
        try:
            yield "engine"
        finally:
            signal.raise_signal(signal.SIGTERM)
            steps.append("left")

    def work() -> None:
        with interrupt.caught():
            steps.append(interrupt.entered(engine()))
            if failing:
                raise ValueError("of the work")

    before = signal.getsignal(signal.SIGTERM)
    if failing:
        with pytest.raises(ValueError, match="of the work"):
            work()
    else:
        work()
    assert steps == ["engine", "left"]
    assert signal.getsignal(signal.SIGTERM) == before


IGNORED = """
import os, signal
from batchlight.host.signals import Interrupt
with Interrupt(print).caught():
    os.kill(os.getpid(), signal.SIGINT)
    caught = signal.getsignal(signal.SIGTERM)
print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN, caught == signal.SIG_DFL)
"""


def test_a_signal_that_this_process_is_to_ignore_is_ignored() -> None:
    """As SIGINT is for a command that a script leaves in the background."""
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-c", IGNORED]
    done = subprocess.run(ignoring, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "True False\n"), done.stderr


def test_a_handler_that_python_does_not_know_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that a program in C has set before it started Python; it could not be set again."""
    known = signal.getsignal

    def unknown(signum: signal.Signals) -> object:
        return None if signum == signal.SIGTERM else known(signum)

    before = known(signal.SIGTERM)
    monkeypatch.setattr(signal, "getsignal", unknown)
    with Interrupt(lambda _: None).caught():
        assert known(signal.SIGTERM) == before
    assert known(signal.SIGTERM) == before
