"""Blocks in which signals wait; a connection that is lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator

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
