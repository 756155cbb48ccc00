"""Blocks in which signals wait."""

from __future__ import annotations

import signal

import pytest

from batchlight.errors import Interrupted
from batchlight.host.signals import Interrupt


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
