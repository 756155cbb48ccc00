"""The engine on a real Ray: deaths, deadlines, storage trouble, bisection."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Coroutine, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from batchlight.engine import (
    InProcessEngine,
    RayEngine,
    WorkerDied,
    bisect,
    call_patiently,
    calls,
    tasks,
    window,
)
from batchlight.errors import ClusterError, ErrorCode, StorageError

T = TypeVar("T")
TIMEOUT_S = 3.0
ENDS_WITHIN_S = 60.0


@pytest.fixture(scope="module")
def ray_engine() -> Iterator[RayEngine]:
    with RayEngine(workers=2, address="local", timeout=TIMEOUT_S) as engine:
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


def fail_on_storage(log: Path, times: int, lasting: bool) -> str:
    with log.open("a") as file:
        file.write("x")
    if len(log.read_text()) <= times:
        raise StorageError("the bucket is away", lasting=lasting)
    return "done"


def divide_by_zero() -> float:
    return 1 / 0


@pytest.mark.parametrize("poison", [set(), {0}, {17}, {31}, {3, 4}])
def test_bisection_finds_the_killers_and_spares_the_rest(
    ray_engine: RayEngine, tmp_path: Path, poison: set[int]
) -> None:
    log = tmp_path / "log"
    items = list(range(32))
    function = partial(double_unless_poisoned, log, poison)
    outcomes = wait(bisect(ray_engine, function, items, deaths=0))
    for item, outcome in zip(items, outcomes, strict=True):
        if item in poison:
            assert (outcome.result, outcome.died) == (None, ErrorCode.CRASH)
        else:
            assert (outcome.result, outcome.died) == (2 * item, None)
    calls = len(log.read_text().splitlines())
    assert calls <= 1 + len(poison) * (2 * 5 + 3)  # log2(32) levels, and three deaths alone


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
    for times, lasting, tries in ((2, False, 3), (9, False, 3), (9, True, 1)):
        log = tmp_path / f"log{times}{lasting}"
        work = call_patiently(ray_engine, fail_on_storage, log, times, lasting)
        if times == 2:
            assert wait(work) == "done"
        else:
            with pytest.raises(StorageError, match="the bucket is away"):
                wait(work)
        assert len(log.read_text()) == tries


def test_an_unexpected_failure_is_one_sentence(ray_engine: RayEngine) -> None:
    with pytest.raises(Exception, match=r"^a worker failed unexpectedly: division by zero; run"):
        wait(ray_engine.call(divide_by_zero))


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

    async def drain() -> None:
        results = [result async for result in window((job(n) for n in range(1000)), 4)]
        assert not results

    with pytest.raises(StorageError, match="no more"):
        wait(drain())
    assert most == 4
    assert done < 30
