"""The engine on a real Ray: deaths, deadlines, storage trouble, bisection."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import ray

from batchlight.engine import (
    InProcessEngine,
    RayEngine,
    Trials,
    WorkerDied,
    base,
    call_patiently,
    call_until_done,
    calls,
    task_call,
    tasks,
    window,
)
from batchlight.engine.marks import Mark
from batchlight.engine.task_call import TaskCall
from batchlight.engine.timeout import DEADLINE
from batchlight.errors import ClusterError, ErrorCode, StorageError

T = TypeVar("T")
TIMEOUT_S = 3.0
ENDS_WITHIN_S = 60.0


@pytest.fixture(scope="module")
def ray_engine(ray_address: str) -> Iterator[RayEngine]:
    with RayEngine(workers=2, address=ray_address, timeout=TIMEOUT_S) as engine:
        yield engine


def wait(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def double_unless_poisoned(log: Path, poison: set[int], items: Sequence[int]) -> list[int]:
    with log.open("a") as file:
        file.write(f"{len(items)}\n")
    if poison & set(items):
        os.kill(os.getpid(), signal.SIGKILL)
    return [2 * item for item in items]


def hang() -> None:
    time.sleep(600)


def exhaust_memory() -> None:
    raise MemoryError


def fail_on_storage(log: Path, times: int, transient: bool) -> str:
    with log.open("a") as file:
        file.write("x")
    if len(log.read_text()) <= times:
        raise StorageError("the bucket is away", transient=transient)
    return "done"


def wait_for_another(seconds: float) -> str:
    with DEADLINE.restarted_after():
        time.sleep(seconds)
    return "done"


def divide_by_zero() -> float:
    return 1 / 0


async def killers_among(
    trials: Trials[int], function: Callable[[Sequence[int]], object], items: Sequence[int]
) -> dict[int, ErrorCode]:
    found = {}
    for item in await trials.suspects(function, items):
        code = await trials.death_alone(function, item)
        if code is not None:
            found[item] = code
    return found


@pytest.mark.parametrize(
    "poison",
    [{17}, *(pytest.param(items, marks=pytest.mark.nightly) for items in ({3, 4}, {0}, {31}))],
)
def test_bisection_finds_the_killers(
    ray_engine: RayEngine, tmp_path: Path, poison: set[int]
) -> None:
    log = tmp_path / "log"
    trials = Trials[int](ray_engine, "the work")
    function = partial(double_unless_poisoned, log, poison)
    found = wait(killers_among(trials, function, range(32)))
    assert found == dict.fromkeys(poison, ErrorCode.CRASH)
    calls = log.read_text().splitlines()
    assert len(calls) == trials.total + trials.survived
    assert trials.total <= len(poison) * (4 + 3)  # halves down to pairs, and three times alone
    assert trials.survived <= len(poison) * (4 + 1)
    assert max(trials.deaths, key=lambda item: trials.deaths[item]) in poison


class DeadlyEngine(InProcessEngine):
    """Kills whatever it is given, in no time."""

    async def call(self, function: Callable[..., T], *arguments: object, timeouts: float = 1) -> T:
        raise WorkerDied(ErrorCode.OUT_OF_MEMORY)


def test_where_everything_dies_the_search_ends_at_its_budget() -> None:
    trials = Trials[int](DeadlyEngine(), "batch 7")
    with pytest.raises(ClusterError, match=r"^batch 7 killed 65 workers.*memory") as caught:
        wait(killers_among(trials, len, range(64)))
    assert "run the same command again" in str(caught.value)
    assert trials.total == calls.DEATHS_AT_MOST + 1


def crash_late() -> None:
    time.sleep(TIMEOUT_S + 1)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_call_that_may_take_longer_has_its_own_deadline(ray_engine: RayEngine) -> None:
    with pytest.raises(WorkerDied) as caught:
        wait(ray_engine.call(crash_late, timeouts=3))
    assert caught.value.code == ErrorCode.CRASH


def test_a_hanging_call_is_ended_by_its_deadline(ray_engine: RayEngine) -> None:
    started = time.monotonic()
    with pytest.raises(WorkerDied) as caught:
        wait(ray_engine.call(hang))
    assert caught.value.code == ErrorCode.TIMEOUT
    assert TIMEOUT_S <= time.monotonic() - started < TIMEOUT_S + ENDS_WITHIN_S


@pytest.mark.parametrize("make", ["ray", "in process"])
def test_memory_error_counts_as_a_death(ray_engine: RayEngine, make: str) -> None:
    engine = ray_engine if make == "ray" else InProcessEngine()
    with pytest.raises(WorkerDied) as caught:
        wait(engine.call(exhaust_memory))
    assert caught.value.code == ErrorCode.OUT_OF_MEMORY


def test_storage_trouble_is_tried_again_unless_it_lasts(
    ray_engine: RayEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "PAUSE_AFTER_STORAGE_TROUBLE", 0.01)
    for times, transient, tries in ((2, True, 3), (9, True, 3), (9, False, 1)):
        log = tmp_path / f"log{times}{transient}"
        work = call_patiently(ray_engine, fail_on_storage, log, times, transient)
        if times == 2:
            assert wait(work) == "done"
        else:
            with pytest.raises(StorageError, match="the bucket is away"):
                wait(work)
        assert len(log.read_text()) == tries


def test_an_unexpected_failure_is_one_sentence(ray_engine: RayEngine) -> None:
    with pytest.raises(Exception, match=r"^a worker failed unexpectedly: division by zero; run"):
        wait(ray_engine.call(divide_by_zero))


async def at_once(value: T) -> T:
    return value


class VanishedTask:
    """The stream of a task that Ray has lost, before or after it told that it begins."""

    def __init__(self, begin: Mark | None) -> None:
        self._items = [begin] if begin else []

    def __aiter__(self) -> AsyncIterator[Coroutine[Any, Any, Mark]]:
        return self

    async def __anext__(self) -> Coroutine[Any, Any, Mark]:
        if not self._items:
            await asyncio.Event().wait()
        return at_once(self._items.pop())


class Remote:
    """Loses tasks, some times."""

    def __init__(self, real: Any, lost: Sequence[VanishedTask]) -> None:
        self._real = real
        self._lost = list(lost)
        self.sent = 0

    def remote(self, *arguments: object) -> Any:
        self.sent += 1
        return self._lost.pop() if self._lost else self._real.remote(*arguments)


def mark_of(path: Path, process: int) -> Mark:
    return Mark(ray.get_runtime_context().get_node_id(), str(path), process)


@pytest.mark.parametrize("begun", ["no", "ended", "died", "elsewhere"])
def test_a_task_that_has_vanished_is_sent_again(
    ray_engine: RayEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, begun: str
) -> None:
    wait(ray_engine.call(str, 7))  # so that a worker is there, and no start-up is taken for a loss
    monkeypatch.setattr(task_call, "LOOK_EVERY_S", 0.3)
    monkeypatch.setattr(calls, "PAUSE_BEFORE_RESENDING", 0.01)
    monkeypatch.setattr(ray, "cancel", lambda stream, force: None)
    (tmp_path / "died").touch()
    begins = {
        "no": None,
        "ended": mark_of(tmp_path / "ended", os.getpid()),
        "died": mark_of(tmp_path / "died", 2**22 + 1),
        "elsewhere": Mark("0" * 56, str(tmp_path / "died"), os.getpid()),
    }
    remote = Remote(ray_engine._remote, [VanishedTask(begins[begun])])
    monkeypatch.setattr(ray_engine, "_remote", remote)
    monkeypatch.setattr(ray_engine, "_timeout", 0.5)
    assert wait(ray_engine.call(str, 7)) == "7"
    assert remote.sent == 2


def test_a_task_that_is_late_but_at_work_is_waited_for(
    ray_engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that waits for the network, with its deadline paused."""

    async def waits_in_the_queue(self: TaskCall) -> bool:  # however long a worker takes to start
        return False

    monkeypatch.setattr(TaskCall, "_is_not_queued", waits_in_the_queue)
    monkeypatch.setattr(task_call, "LOOK_EVERY_S", 0.3)
    remote = Remote(ray_engine._remote, [])
    monkeypatch.setattr(ray_engine, "_remote", remote)
    monkeypatch.setattr(ray_engine, "_timeout", 1.0)
    assert wait(ray_engine.call(wait_for_another, 4.0)) == "done"
    assert remote.sent == 1


@dataclass
class Deadly:
    """An engine under whose first calls the worker dies."""

    deaths: int

    async def call(self, function: Callable[[], str], *, timeouts: float = 1) -> str:
        if self.deaths:
            self.deaths -= 1
            raise WorkerDied(ErrorCode.OUT_OF_MEMORY)
        return function()


def test_a_call_that_no_image_is_to_blame_for_survives_deaths() -> None:
    def called(deaths: int) -> str:
        engine: Any = Deadly(deaths)
        return asyncio.run(call_until_done(engine, "listing the keys after 'a'", lambda: "done"))

    assert [called(deaths) for deaths in (0, 1, calls.DEATHS_ALONE - 1)] == ["done"] * 3
    with pytest.raises(ClusterError, match=r"^listing the keys .* killed 3 workers .*memory"):
        called(calls.DEATHS_ALONE)


def test_a_ray_that_cannot_be_used_is_not_left_behind(
    ray_engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own, for this one has a Ray."""
    script = (
        "import ray, batchlight.engine.tasks as tasks\n"
        "from batchlight.errors import ClusterError\n"
        "def fail(): raise RuntimeError('no nodes')\n"
        "tasks.nodes_with_cpus = fail\n"
        "try:\n"
        "    tasks.RayEngine(1, 'local').__enter__()\n"
        "except ClusterError as error:\n"
        "    print(ray.is_initialized(), error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.startswith("False cannot start Ray on this machine: no nodes"), done.stderr


class Unstoppable:
    def stop(self) -> None:
        raise RuntimeError("the actor is gone")


def test_what_fails_while_a_run_ends_does_not_hide_what_ended_it() -> None:
    engine = RayEngine(1, "local")
    engine._services.append(Unstoppable())  # type: ignore[arg-type]
    engine._started = False
    engine.__exit__()


def test_a_worker_of_another_version_is_refused(
    ray_engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "__version__", "0.0.0")
    with pytest.raises(ClusterError, match="install the same version on every node"):
        wait(ray_engine.call(hang))


def test_the_window_is_bounded_and_stops_at_the_first_failure() -> None:
    running, most, done = 0, 0, 0

    async def job(number: int) -> int:
        nonlocal running, most, done
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        if number == 20:
            raise StorageError("no more")
        done += 1
        return number

    async def jobs() -> AsyncIterator[Coroutine[Any, Any, int]]:
        for number in range(1000):
            yield job(number)

    async def drain() -> None:
        results = [result async for result in window(jobs(), 4)]
        assert not results

    with pytest.raises(StorageError, match="no more"):
        wait(drain())
    assert most == 4
    assert done < 30


class Parts:
    """Long work: parts that take so many seconds each; a negative one kills its worker."""

    def __init__(self, seconds: Sequence[float]) -> None:
        self._seconds = seconds
        self._done = 0

    def steps(self, timed: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
        for seconds in self._seconds:
            with timed():
                if seconds < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    time.sleep(0.01)
                    yield
            self._done += 1

    def report(self) -> int:
        return self._done


@pytest.mark.parametrize("where", ["ray", "in process"])
def test_long_work_tells_how_far_it_is(
    ray_engine: RayEngine, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """And each of its parts may take the timeout for itself, where there can be several."""
    monkeypatch.setattr(tasks, "report_every_s", lambda workers: 0.1)
    monkeypatch.setattr(base, "REPORT_EVERY_S", 0.1)
    engine = ray_engine if where == "ray" else InProcessEngine(timeout=60)
    told: list[int] = []
    wait(engine.follow(Parts, [0.6 * TIMEOUT_S] * 2, on_report=told.append))
    assert told == sorted(told)
    assert set(told) == {0, 1, 2}
    assert len(told) > 5


@pytest.mark.parametrize(("last", "code"), [(600.0, ErrorCode.TIMEOUT), (-1.0, ErrorCode.CRASH)])
def test_the_death_of_long_work(
    ray_engine: RayEngine, monkeypatch: pytest.MonkeyPatch, last: float, code: ErrorCode
) -> None:
    monkeypatch.setattr(tasks, "report_every_s", lambda workers: 0.1)
    told: list[int] = []
    with pytest.raises(WorkerDied) as caught:
        wait(ray_engine.follow(Parts, [1.0, 1.0, last], on_report=told.append))
    assert caught.value.code == code
    assert 1 in told


class HeardEnough(Exception):
    pass


def test_whoever_hears_of_long_work_may_end_it(
    ray_engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "report_every_s", lambda workers: 0.1)

    def enough(told: int) -> None:
        raise HeardEnough

    with pytest.raises(HeardEnough):
        wait(ray_engine.follow(Parts, [600.0], on_report=enough))
