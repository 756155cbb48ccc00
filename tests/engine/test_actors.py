"""Hosted objects on a real Ray: answers, deaths, deadlines, and who is to blame for them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pytest
import ray

from batchlight.engine import InProcessEngine, RayEngine, WorkerDied, actors
from batchlight.engine.base import Service
from batchlight.engine.marks import session_folder
from batchlight.errors import BatchlightError, ClusterError, ErrorCode, StorageError, UsageError
from batchlight.host.turns import Turns

T = TypeVar("T")
TIMEOUT_S = 3.0
MOST_S = 0.55 * TIMEOUT_S
"""A call that may take that long, and two in a row that may not."""

ENDS_WITHIN_S = 60.0
"""After its deadline, a process that is ended, and another that starts."""


class Thing:
    """Stands for the network."""

    def double(self, arrays: list[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        return [2 * array for array in arrays]

    def slow(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def die(self, log: Path) -> None:
        with log.open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)

    def die_on_its_way_in(self, log: Path) -> Turns[None]:
        self.die(log)
        yield
        yield

    def in_three_parts(self, log: Path, seconds: float) -> Turns[int]:
        """On its way in, its turn, and on its way out."""
        entered = time.time()
        time.sleep(seconds)
        yield
        started = time.time()
        time.sleep(seconds)
        with log.open("a") as file:
            file.write(f"{entered} {started} {time.time()}\n")
        yield
        time.sleep(seconds)
        return os.getpid()

    def fail(self) -> float:
        return 1 / 0

    def refuse(self) -> None:
        raise StorageError("the bucket is away", transient=False)

    def exhaust_memory(self) -> None:
        raise MemoryError

    def pid(self) -> int:
        return os.getpid()


def without_gpu() -> Thing:
    raise UsageError("this worker has no GPU")


def without_memory() -> Thing:
    raise MemoryError


def broken() -> Thing:
    raise ZeroDivisionError("no network")


def deadly() -> Thing:
    os._exit(1)


def is_first(folder: Path) -> bool:
    """Of those that ask."""
    try:
        (folder / "first").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def first_or_late(folder: Path) -> Thing:
    """At once for the first, for others when they are told to go."""
    while not is_first(folder) and not (folder / "go").exists():
        time.sleep(0.05)
    return Thing()


def first_fails(folder: Path) -> Thing:
    if is_first(folder):
        return without_gpu()
    time.sleep(1)  # so that the failure comes first
    return Thing()


def ask(service: Service, method: str, *arguments: object) -> Any:
    """What runs on a worker."""
    return service.submit(method, *arguments).result()


def ask_and_work(service: Service, seconds: float, method: str, *arguments: object) -> Any:
    """Work on while the call is under way, as a batch does."""
    answer = service.submit(method, *arguments)
    time.sleep(seconds)
    return answer.result()


def ask_after(service: Service, moment: Path, method: str, *arguments: object) -> Any:
    """As soon as there is a file."""
    while not moment.exists():
        time.sleep(0.01)
    return ask(service, method, *arguments)


def ask_often(service: Service, times: int, method: str, *arguments: object) -> list[Any]:
    answers = [service.submit(method, *arguments) for _ in range(times)]
    return [answer.result() for answer in answers]


def ask_and_hang(service: Service) -> None:
    ask(service, "slow", 0.1)
    time.sleep(60)


def ask_and_crash(service: Service) -> None:
    ask_often(service, 3, "slow", TIMEOUT_S / 2)
    os.kill(os.getpid(), signal.SIGKILL)


def ask_before_a_killer(service: Service, log: Path) -> tuple[float, bool]:
    """A large answer, and right behind it a call that kills: what of the one, and did it?"""
    innocent = service.submit("double", [np.ones(1_000_000)])
    killer = service.submit("die", log)
    doubled = innocent.result()[0]
    try:
        killer.result()
    except WorkerDied:
        return float(doubled.sum()), True
    return float(doubled.sum()), False


@pytest.fixture(scope="module")
def ray_engine() -> Iterator[RayEngine]:
    with RayEngine(workers=4, address="local", timeout=TIMEOUT_S, hosts=True) as engine:
        yield engine


@pytest.fixture(scope="module")
def one(ray_engine: RayEngine) -> Service:
    return wait(ray_engine.host(Thing, 1, on_gpus=False))


def wait(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def outcomes(*calls: Coroutine[Any, Any, Any]) -> list[Any]:
    """Of calls at the same time: results, and the codes of deaths."""
    ended = await asyncio.gather(*calls, return_exceptions=True)
    return [end.code if isinstance(end, WorkerDied) else end for end in ended]


def test_arrays_come_back_right(ray_engine: RayEngine, one: Service) -> None:
    arrays: list[npt.NDArray[Any]] = [
        np.arange(60_000, dtype=np.uint16).reshape(100, 200, 3)[::2, ::-1],
        np.ones((700, 900, 3), np.uint8),
        np.zeros((1, 1), np.uint8),
    ]
    doubled = wait(ray_engine.call(ask, one, "double", arrays))
    for array, twice in zip(arrays, doubled, strict=True):
        assert twice.dtype == array.dtype
        assert np.array_equal(twice, 2 * array)


def test_work_begins_with_the_first_actor_and_the_others_join(
    ray_engine: RayEngine, tmp_path: Path
) -> None:
    service = wait(ray_engine.host(partial(first_or_late, tmp_path), 2, on_gpus=False))
    assert len(set(wait(ray_engine.call(ask_often, service, 8, "pid")))) == 1
    (tmp_path / "go").touch()
    deadline = time.monotonic() + ENDS_WITHIN_S
    while len(set(pids := wait(ray_engine.call(ask_often, service, 8, "pid")))) == 1:
        assert time.monotonic() < deadline
    assert sorted(pids.count(pid) for pid in set(pids)) == [4, 4]
    assert os.getpid() not in pids


def test_one_actor_that_starts_is_enough(
    ray_engine: RayEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = wait(ray_engine.host(partial(first_fails, tmp_path), 2, on_gpus=False))
    assert len(set(wait(ray_engine.call(ask_often, service, 8, "pid")))) == 1
    assert "one of the networks does not start: this worker has no GPU" in caplog.text


def test_if_none_starts_it_is_told_why_the_first_did_not(ray_engine: RayEngine) -> None:
    with pytest.raises(UsageError, match=r"^this worker has no GPU$"):
        wait(ray_engine.host(without_gpu, 2, on_gpus=False))


def test_the_driver_can_ask_too(one: Service) -> None:
    assert ask(one, "slow", 0.0) == 0.0


def test_only_the_call_that_kills_dies(ray_engine: RayEngine, one: Service, tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def all_at_once() -> list[Any]:
        sleeps = [ray_engine.call(ask, one, "slow", 0.1 * n) for n in range(1, 6)]
        killers = [ray_engine.call(ask, one, "die", log) for _ in range(2)]
        return await outcomes(sleeps[0], killers[0], sleeps[1], killers[1], *sleeps[2:])

    before = wait(ray_engine.call(ask, one, "pid"))
    found = wait(all_at_once())
    assert found.pop(3) == ErrorCode.CRASH
    assert found.pop(1) == ErrorCode.CRASH
    assert found == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert log.read_text() == "xx"  # whoever is to blame is not sent again
    assert wait(ray_engine.call(ask, one, "pid")) != before


def test_an_answer_that_was_given_outlives_its_actor(
    ray_engine: RayEngine, one: Service, tmp_path: Path
) -> None:
    for number in range(2):
        log = tmp_path / str(number)
        assert wait(ray_engine.call(ask_before_a_killer, one, log)) == (2_000_000.0, True)
        assert log.read_text() == "x"


def test_calls_overlap_but_not_their_turns(
    ray_engine: RayEngine, one: Service, tmp_path: Path
) -> None:
    wait(ray_engine.call(ask, one, "pid"))
    wait(ray_engine.call(ask_often, one, 6, "in_three_parts", tmp_path / "log", 0.3))
    lines = (tmp_path / "log").read_text().splitlines()
    calls = sorted((tuple(map(float, line.split())) for line in lines), key=lambda call: call[1])
    assert len(calls) == 6
    assert all(ended <= begun for (_, _, ended), (_, begun, _) in pairwise(calls))
    assert all(entered < ended for (_, _, ended), (entered, _, _) in pairwise(calls))


def test_of_several_that_had_begun_the_one_that_kills_is_found(
    ray_engine: RayEngine, one: Service, tmp_path: Path
) -> None:
    """One is on its way out when another has its turn, and kills."""
    log = tmp_path / "log"

    async def both() -> list[Any]:
        innocent = ray_engine.call(ask, one, "in_three_parts", tmp_path / "parts", 1.0)
        killer = ray_engine.call(ask_after, one, tmp_path / "parts", "die", log)
        return await outcomes(innocent, killer)

    wait(ray_engine.call(ask, one, "pid"))
    pid, code = wait(both())
    assert code == ErrorCode.CRASH
    assert isinstance(pid, int)
    assert len((tmp_path / "parts").read_text().splitlines()) == 2  # it was asked again
    assert log.read_text() == "xx"  # and so was this one, alone


def test_a_call_that_kills_before_its_turn_is_found(
    ray_engine: RayEngine, one: Service, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    found = wait(outcomes(ray_engine.call(ask, one, "die_on_its_way_in", log)))
    assert found == [ErrorCode.CRASH]
    assert log.read_text() == "xx"


def test_a_call_that_kills_is_found_where_nothing_was_left_of_its_process(
    ray_engine: RayEngine, one: Service, tmp_path: Path
) -> None:
    """As on another node."""
    assert isinstance(one, actors.RayService)
    log = tmp_path / "log"
    wait(ray_engine.call(ask, one, "pid"))
    name = f"batchlight-{one.actors[0]._actor_id.hex()}.json"
    (session_folder() / name).unlink()
    assert wait(outcomes(ray_engine.call(ask, one, "die", log))) == [ErrorCode.CRASH]
    assert log.read_text() == "xx"


def test_an_unexpected_error_is_a_death(ray_engine: RayEngine, one: Service) -> None:
    before = wait(ray_engine.call(ask, one, "pid"))
    assert wait(outcomes(ray_engine.call(ask, one, "fail"))) == [ErrorCode.CRASH]
    assert wait(ray_engine.call(ask, one, "pid")) != before


def test_errors_of_ours_come_through_and_kill_nobody(ray_engine: RayEngine, one: Service) -> None:
    before = wait(ray_engine.call(ask, one, "pid"))
    with pytest.raises(StorageError, match=r"^the bucket is away$") as caught:
        wait(ray_engine.call(ask, one, "refuse"))
    assert not caught.value.transient
    with pytest.raises(WorkerDied) as death:
        wait(ray_engine.call(ask, one, "exhaust_memory"))
    assert death.value.code == ErrorCode.OUT_OF_MEMORY
    assert wait(ray_engine.call(ask, one, "pid")) == before


def test_a_crash_after_a_long_wait_for_answers_is_no_timeout(
    ray_engine: RayEngine, one: Service
) -> None:
    """The deadline of a worker pauses while it waits; the driver's clock does not."""
    started = time.monotonic()
    assert wait(outcomes(ray_engine.call(ask_and_crash, one))) == [ErrorCode.CRASH]
    assert time.monotonic() - started > TIMEOUT_S


@pytest.mark.parametrize("work_s", [0.0, MOST_S])
def test_a_call_that_hangs_is_a_timeout(ray_engine: RayEngine, one: Service, work_s: float) -> None:
    """Also where its worker had something else to do before it asked for the answer."""
    wait(ray_engine.call(ask, one, "pid"))  # there, and not just starting
    started = time.monotonic()
    found = wait(outcomes(ray_engine.call(ask_and_work, one, work_s, "slow", 600.0)))
    assert TIMEOUT_S <= time.monotonic() - started < TIMEOUT_S + ENDS_WITHIN_S
    assert found == [ErrorCode.TIMEOUT]


def test_waiting_in_line_is_no_fault(ray_engine: RayEngine, one: Service) -> None:
    async def all_at_once() -> list[Any]:
        return await outcomes(*(ray_engine.call(ask, one, "slow", MOST_S) for _ in range(3)))

    started = time.monotonic()
    assert wait(all_at_once()) == [MOST_S] * 3
    assert time.monotonic() - started > 1.5 * TIMEOUT_S  # it was one line


def test_the_deadline_of_the_worker_goes_on_after_an_answer(
    ray_engine: RayEngine, one: Service
) -> None:
    assert wait(outcomes(ray_engine.call(ask_and_hang, one))) == [ErrorCode.TIMEOUT]


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (without_gpu, UsageError, r"^this worker has no GPU$"),
        (broken, BatchlightError, r"no network"),
        (without_memory, BatchlightError, r"memory"),
        (deadly, ClusterError, r"does not start"),
    ],
)
def test_what_make_raises_comes_out_of_host(
    ray_engine: RayEngine, make: Callable[[], object], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        wait(ray_engine.host(make, 1, on_gpus=False))


def test_an_actor_of_another_version_is_refused(
    ray_engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors, "__version__", "0.0.0")
    with pytest.raises(ClusterError, match="install the same version on every node"):
        wait(ray_engine.host(Thing, 1, on_gpus=False))


def test_in_process_the_object_is_here(tmp_path: Path) -> None:
    with InProcessEngine() as engine:
        service = wait(engine.host(Thing, 2, on_gpus=False))
        assert wait(engine.call(ask, service, "pid")) == os.getpid()
        assert np.array_equal(ask(service, "double", [np.ones(3)])[0], [2, 2, 2])
        log = tmp_path / "log"
        assert ask(service, "in_three_parts", log, 0.0) == os.getpid()
        with pytest.raises(StorageError, match="the bucket is away"):
            wait(engine.call(ask, service, "refuse"))
        with pytest.raises(WorkerDied) as death:
            wait(engine.call(ask, service, "exhaust_memory"))
        assert death.value.code == ErrorCode.OUT_OF_MEMORY
        with pytest.raises(UsageError, match="no GPU"):
            wait(engine.host(without_gpu, 1, on_gpus=False))


@pytest.mark.parametrize("told", [0, 1])
def test_a_stream_that_ends_too_soon_is_the_clusters_trouble(
    told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bare end of iteration would end, or break, the generator that waits for the result."""
    monkeypatch.setattr(ray, "get", lambda reference: reference)
    answer = object.__new__(actors._RayAnswer)
    answer._alone, answer._coming = True, iter([None] * told)
    with pytest.raises(ClusterError, match="ended a call without a result"):
        answer.result()
