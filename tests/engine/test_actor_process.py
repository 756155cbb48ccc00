"""An actor inside, without Ray: turns, one alone, the record of calls, deadlines of threads."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from batchlight.engine.actor_process import DEATHS_REMEMBERED, RECORD_BYTES, CallLog, Outcome
from batchlight.engine.exclusive import SharedOrExclusive
from batchlight.host.turns import Turns, in_turns

PATIENCE_S = 60.0
MOMENT_S = 0.1
"""In which what is not held back would happen."""


# Turns


class Watched:
    """Notes what is done in a turn, and what beside it."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    @contextmanager
    def turn(self) -> Iterator[None]:
        self.notes.append("(")
        try:
            yield
        finally:
            self.notes.append(")")

    def plain(self, number: int) -> int:
        self.notes.append("all")
        return 2 * number

    def staged(self, number: int, turns: int) -> Turns[int]:
        for _ in range(turns):
            self.notes.append("beside")
            yield
            self.notes.append("in")
            yield
        self.notes.append("end")
        return 2 * number

    def ends_in_its_turn(self) -> Turns[str]:
        yield
        return "early"

    def fails_in_its_turn(self) -> Turns[None]:
        yield
        raise OSError("gone")


def test_a_function_has_one_turn() -> None:
    watched = Watched()
    assert in_turns(watched.plain, (3,), watched.turn) == 6
    assert watched.notes == ["(", "all", ")"]


@pytest.mark.parametrize("turns", [0, 1, 3])
def test_a_generator_has_as_many_as_it_asks_for(turns: int) -> None:
    watched = Watched()
    assert in_turns(watched.staged, (3, turns), watched.turn) == 6
    assert watched.notes == ["beside", "(", "in", ")"] * turns + ["end"]


def test_a_turn_ends_with_the_generator() -> None:
    watched = Watched()
    assert in_turns(watched.ends_in_its_turn, (), watched.turn) == "early"
    with pytest.raises(OSError, match="gone"):
        in_turns(watched.fails_in_its_turn, (), watched.turn)
    assert watched.notes == ["(", ")"] * 2


# One alone


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_one_alone_waits_for_the_others_and_others_wait_for_it() -> None:
    admission, inside, most = SharedOrExclusive(), set[str](), set[frozenset[str]]()
    leave = {name: threading.Event() for name in ("a", "b", "alone", "later")}

    def call(name: str) -> None:
        with admission.entered(alone=name == "alone"):
            inside.add(name)
            most.add(frozenset(inside))
            assert leave[name].wait(PATIENCE_S)
            inside.remove(name)

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(call, name) for name in ("a", "b")]
        until(lambda: inside == {"a", "b"})
        calls.append(pool.submit(call, "alone"))
        time.sleep(MOMENT_S)
        calls.append(pool.submit(call, "later"))  # no later one keeps it from being alone
        time.sleep(MOMENT_S)
        assert inside == {"a", "b"}
        leave["a"].set()
        time.sleep(MOMENT_S)
        assert inside == {"b"}
        leave["b"].set()
        until(lambda: inside == {"alone"})
        time.sleep(MOMENT_S)
        leave["alone"].set()
        until(lambda: inside == {"later"})
        leave["later"].set()
        for done in calls:
            done.result()
    assert all(len(names) == 1 for names in most if "alone" in names)


def test_several_are_alone_one_after_the_other() -> None:
    admission, inside, most = SharedOrExclusive(), [0], [0]

    def call(_: int) -> None:
        with admission.entered(alone=True):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.001)
            inside[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(40)))
    assert most == [1]


def test_an_error_inside_lets_others_in() -> None:
    admission = SharedOrExclusive()
    for alone in (True, False, True):
        with pytest.raises(OSError), admission.entered(alone):
            raise OSError


# The record


@pytest.mark.parametrize("hung", [False, True])
def test_the_only_one_that_had_begun_is_to_blame(tmp_path: Path, hung: bool) -> None:
    before = CallLog(tmp_path / "record", fresh=True)
    for call in ("done", "responsible", "early"):
        before.enter(call)
    before.begin("done")
    before.leave("done")
    before.begin("responsible")
    after = CallLog(tmp_path / "record", fresh=False, hung=hung)
    assert after.outcome("responsible") == Outcome(suspect=True, responsible=True, hung=hung)
    for call in ("done", "early", "in line"):
        outcome = after.outcome(call)
        assert (outcome.suspect, outcome.responsible) == (False, False)


def test_a_call_has_begun_with_its_first_turn(tmp_path: Path) -> None:
    before = CallLog(tmp_path / "record", fresh=True)
    for call in ("a", "b"):
        before.enter(call)
    before.begin("a")
    assert CallLog(tmp_path / "record", fresh=False).outcome("a").responsible


def test_several_that_had_begun_are_suspects(tmp_path: Path) -> None:
    before = CallLog(tmp_path / "record", fresh=True)
    for call in ("a", "b", "early"):
        before.enter(call)
    before.begin("a")
    before.begin("b")
    after = CallLog(tmp_path / "record", fresh=False)
    assert after.outcome("a") == after.outcome("b") == Outcome(suspect=True)
    assert after.outcome("early") == Outcome(suspect=False)


def test_if_none_had_begun_those_on_their_way_in_are_suspects(tmp_path: Path) -> None:
    before = CallLog(tmp_path / "record", fresh=True)
    before.enter("a")
    before.enter("b")
    after = CallLog(tmp_path / "record", fresh=False)
    assert after.outcome("a") == after.outcome("b") == Outcome(suspect=True)
    assert after.outcome("in line") == Outcome(suspect=False)


def test_earlier_deaths_are_remembered(tmp_path: Path) -> None:
    record = CallLog(tmp_path / "record", fresh=True)
    for number in range(DEATHS_REMEMBERED + 1):
        for other in range(3):
            record.enter(f"{number:032d}{other}")
            record.begin(f"{number:032d}{other}")
        record = CallLog(tmp_path / "record", fresh=False)
    assert record.outcome(f"{1:032d}0") == Outcome(suspect=True)
    assert (tmp_path / "record").stat().st_size < RECORD_BYTES


@pytest.mark.parametrize("content", [None, b"", b"{", b"no record\n"])
def test_where_nothing_is_left_everybody_is_a_suspect(
    tmp_path: Path, content: bytes | None
) -> None:
    """Also the call's of still earlier processes, however many come after."""
    if content is not None:
        (tmp_path / "record").write_bytes(content)
    for _ in range(2):
        record = CallLog(tmp_path / "record", fresh=False)
        assert record.outcome("any") == Outcome(suspect=True)
    record.enter("a")
    assert not CallLog(tmp_path / "record", fresh=True).outcome("a").suspect


# Deadlines


TWO_THREADS = """
import sys, threading, time
from batchlight.engine.timeout import DEADLINE

def call(allowed, takes, pauses):
    with DEADLINE.of(allowed):
        if pauses:
            with DEADLINE.restarted_after():
                time.sleep(pauses)
        time.sleep(takes)

calls = [threading.Thread(target=call, args=eval(one)) for one in sys.argv[1:]]
for thread in calls:
    thread.start()
for thread in calls:
    thread.join()
print("all done")
"""


@pytest.mark.parametrize(
    ("calls", "end"),
    [
        (["(9, 0.1, 0)", "(1.5, 0.1, 0)"], "done"),
        (["(0.3, 9, 0)", "(9, 0.1, 0)"], "exit"),
        (["(9, 0.1, 0)", "(0.3, 9, 0)"], "exit"),
        (["(1.5, 0.1, 2)", "(9, 0.2, 0)"], "done"),
        (["(0.5, 9, 0.2)", "(9, 9, 0)"], "exit"),
    ],
)
def test_each_thread_has_its_deadline(calls: list[str], end: str) -> None:
    """Of (allowed, takes, pauses) seconds; that of one neither ends nor hides another's."""
    done = subprocess.run(
        [sys.executable, "-c", TWO_THREADS, *calls],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == ((0, "all done\n") if end == "done" else (1, ""))
