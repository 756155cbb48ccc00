"""The pace of requests to a store that answers SlowDown, and under a limit of our own."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

import batchlight
from batchlight.driver.places import require_pace
from batchlight.engine import InProcessEngine
from batchlight.errors import UsageError
from batchlight.storage import Location, objects, open_storage, pacing
from batchlight.storage.pacing import FREE_AFTER_S, LEAST_PER_S, Pace, exempt
from tests.support.faulty_proxy import Fault, FaultPlan, faulty_proxy
from tests.support.helpers import write_images
from tests.support.s3_server import BUCKET, S3Server


class Time:
    """Passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_nothing_waits_until_the_store_complains() -> None:
    time = Time()
    pace = Pace(time, time.sleep)
    for _ in range(1000):
        pace.wait()
    assert time.now == 100.0
    assert math.isinf(pace.per_s)


@given(st.floats(0.1, 1000), st.integers(2, 50))
def test_a_limit_is_kept(per_s: float, requests: int) -> None:
    time = Time()
    pace = Pace(time, time.sleep)
    pace.limit(per_s)
    for _ in range(requests):
        pace.wait()
    assert time.now - 100.0 == pytest.approx((requests - 1) / per_s)


def test_a_thread_may_go_ahead() -> None:
    """As that of the lock's heartbeat."""
    time = Time()
    pace = Pace(time, time.sleep)
    pace.limit(0.01)
    pace.wait()
    with exempt():
        pace.wait()
        assert time.now == 100.0
    pace.wait()
    assert time.now == 200.0


def test_a_complaint_lowers_the_pace_and_time_makes_up_for_it() -> None:
    time = Time()
    pace = Pace(time, time.sleep)
    for _ in range(400):
        pace.wait()
        time.sleep(0.01)  # 100 a second
    pace.slow_down()
    assert pace.per_s == pytest.approx(70, rel=0.1)
    pace.slow_down()  # for a request that had begun before
    assert pace.per_s == pytest.approx(70, rel=0.1)
    time.sleep(5)
    assert pace.per_s == pytest.approx(105, rel=0.1)
    time.sleep(FREE_AFTER_S)
    assert math.isinf(pace.per_s)
    for _ in range(100):
        pace.slow_down()
        time.sleep(2)
    assert pace.per_s < 2 * LEAST_PER_S


def test_many_processes_come_to_what_a_store_bears() -> None:
    """Each asks as fast as it may; the store serves 200 requests per second, and refuses more."""
    clients, seconds, capacity = 20, 60.0, 200
    time = Time()
    paces = [Pace(time, lambda _: None) for _ in range(clients)]
    due = [(100.0 + number / 1000, number) for number in range(clients)]
    heapq.heapify(due)
    served: deque[float] = deque()
    done, refused = [0] * clients, 0
    while due[0][0] < 100.0 + seconds:
        time.now, client = heapq.heappop(due)
        while served and served[0] < time.now - 1:
            served.popleft()
        if len(served) < capacity:
            served.append(time.now)
            done[client] += 1
        else:
            refused += 1
            paces[client].slow_down()
        paces[client].wait()
        ready = 0.0 if math.isinf(paces[client].per_s) else 1 / paces[client].per_s
        heapq.heappush(due, (time.now + max(ready, 0.02), client))
    assert sum(done) > 0.7 * capacity * seconds
    assert refused < 0.1 * sum(done)
    assert min(done) > max(done) / 10


@pytest.fixture
def pace(monkeypatch: pytest.MonkeyPatch) -> Pace:
    """The pace of this process, for one test."""
    found = Pace()
    monkeypatch.setattr(objects, "PACE", found)
    monkeypatch.setattr(pacing, "PACE", found)
    return found


@pytest.fixture
def plan() -> FaultPlan:
    return FaultPlan()


@pytest.fixture
def prefix(s3: S3Server, plan: FaultPlan, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with faulty_proxy(s3.endpoint, plan) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield str(uuid4())


def test_an_answer_of_the_store_slows_the_process_down(
    pace: Pace, prefix: str, plan: FaultPlan
) -> None:
    storage = open_storage(Location.parse(f"s3://{BUCKET}/{prefix}"))
    storage.write("a", b"1")
    assert math.isinf(pace.per_s)
    plan.next("GET", "/a", Fault.SLOW_DOWN)
    assert storage.read("a") == b"1"
    assert pace.per_s < 10


def test_a_run_keeps_to_its_limit(pace: Pace, prefix: str, plan: FaultPlan, tmp_path: Path) -> None:
    write_images(tmp_path / "in", 6)
    config = batchlight.JobConfig(
        input=str(tmp_path / "in"),
        output=f"s3://{BUCKET}/{prefix}",
        workers=0,
        progress="off",
        requests_per_second=20,
    )
    began = monotonic()
    assert batchlight.run(config).ok == 6
    requests = sum(plan.requests.values())
    assert requests > 12
    assert monotonic() - began > 0.9 * requests / 20
    assert math.isinf(pace.per_s)  # the caller may go on as before


def test_too_little_for_each_worker_is_refused() -> None:
    engine = InProcessEngine()
    require_pace(batchlight.JobConfig(input="in", requests_per_second=1), engine)
    config = batchlight.JobConfig(input="in", requests_per_second=0.5)
    with pytest.raises(UsageError, match=r"^--requests-per-second 0\.5 is less than one for each"):
        require_pace(config, engine)


def test_it_is_refused_before_a_plan_is_stored(tmp_path: Path) -> None:
    """Else the corrected command would first do what the refused one had planned."""
    write_images(tmp_path / "in", 2)
    config = batchlight.JobConfig(
        input=str(tmp_path / "in"), output=str(tmp_path / "out"), workers=0, progress="off"
    )
    too_slow = config.model_copy(update={"requests_per_second": 0.5})
    with pytest.raises(UsageError, match="--requests-per-second"):
        batchlight.run(too_slow)
    assert not (tmp_path / "out").exists()
    assert batchlight.run(config.model_copy(update={"limit": 1})).ok == 1
    with pytest.raises(UsageError, match="--requests-per-second"):
        batchlight.run(too_slow)
    assert batchlight.run(config.model_copy(update={"limit": 1})).ok == 1
