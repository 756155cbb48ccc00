"""Storage that misbehaves: a faulty proxy in front of a real object store, and real runs on it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import cv2
import obstore
import pytest

from batchlight.errors import LockedError, StorageError
from batchlight.output.layout import LOCKS
from batchlight.output.lock import Lock
from batchlight.storage import Location, Storage, listing, objects, open_storage
from batchlight.storage.pacing import Pace
from tests.storage.test_s3 import images, records
from tests.support.faulty_proxy import BODIES_ONLY, Fault, FaultPlan, FaultyProxy, faulty_proxy
from tests.support.helpers import batchlight, batchlight_here, dark_image
from tests.support.s3_server import BUCKET, S3Server

PASSING = [fault for fault in Fault if fault is not Fault.INVALID]
OF_ANY_REQUEST = [fault for fault in PASSING if fault is not Fault.CONFLICT]
"""Those that a whole run meets; a store answers with a conflict only where there is one."""
LOST_ANSWERS = [Fault.RESET_AFTER, Fault.CLOSE_AFTER, Fault.CUT_RESPONSE]

IN_OUTAGES = [Fault.SLOW_DOWN, Fault.RESET_BEFORE, Fault.CUT_REQUEST, Fault.CUT_RESPONSE]

IMAGES, BATCH_SIZE = 60, 8
DATA = bytes(range(256)) * 2000
IMPATIENT = """
from datetime import timedelta
from batchlight.cli.main import main
from batchlight.engine import calls
from batchlight.storage import objects
from batchlight.output.layout import LOCKS
objects.PATIENCE = timedelta(seconds=0.5)
objects.CLIENT_RETRIES = 2
calls.PAUSE_AFTER_STORAGE_TROUBLE = 0.1
main()
"""


@pytest.fixture
def plan() -> FaultPlan:
    return FaultPlan(stall_s=1.0)


@pytest.fixture
def proxy(s3: S3Server, plan: FaultPlan, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """Between the store and the storages of this process, which lose their patience soon."""
    monkeypatch.setattr(objects, "STALL_TIMEOUT", timedelta(seconds=0.3))
    monkeypatch.setattr(objects, "PACE", Pace())  # what slows one test down is not for the next
    with faulty_proxy(s3.endpoint, plan) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture
def prefix() -> str:
    """A place of its own in the bucket, under an odd name."""
    return f"{uuid4()}/data sets #1%20+?"


@pytest.fixture
def storage(proxy: FaultyProxy, prefix: str) -> Storage:
    return open_storage(Location.parse(f"s3://{BUCKET}/{prefix}"))


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.name)
def test_no_fault_of_a_request_shows(
    s3: S3Server, storage: Storage, plan: FaultPlan, prefix: str, fault: Fault
) -> None:
    s3.put({"in": DATA, "old": b"old", "gone": b"", "sub/x": b""}, prefix)

    def suffering(method: str, path_holds: str, use: Callable[[], Any]) -> Any:
        if fault in BODIES_ONLY and method not in ("PUT", "POST"):
            return use()
        injected, requests = plan.injected[fault], plan.requests[method]
        plan.next(method, path_holds, fault)
        answer = use()
        assert plan.injected[fault] == injected + 1
        assert plan.requests[method] >= requests + 2
        return answer

    assert suffering("GET", "/in", lambda: storage.read("in")) == DATA
    assert suffering("HEAD", "/in", lambda: storage.stat("in")).size == len(DATA)
    assert suffering("GET", "list-type", lambda: storage.names("")) == ["gone", "in", "old"]
    found = suffering("GET", "list-type", lambda: list(storage.walk()))
    assert [info.path for info in found] == ["gone", "in", "old", "sub/x"]
    suffering("GET", "list-type", lambda: storage.check(writable=True))
    suffering("PUT", "/new", lambda: storage.write("new", DATA))
    suffering("PUT", "/old", lambda: storage.write("old", DATA))
    assert suffering("PUT", "/lock", lambda: storage.create("lock", DATA))
    assert not suffering("PUT", "/lock", lambda: storage.create("lock", b"another's"))
    suffering("POST", "delete", lambda: storage.delete("gone"))
    left = {"in": DATA, "new": DATA, "old": DATA, "lock": DATA, "sub/x": b""}
    assert s3.tree(prefix) == left


@pytest.mark.parametrize("fault", [*IN_OUTAGES, Fault.INVALID], ids=lambda fault: fault.name)
def test_what_lasts_is_given_up_and_leaves_nothing_half_done(
    s3: S3Server,
    proxy: FaultyProxy,
    plan: FaultPlan,
    prefix: str,
    fault: Fault,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(objects, "PATIENCE", timedelta(seconds=0.5))
    monkeypatch.setattr(objects, "CLIENT_RETRIES", 2)
    storage = open_storage(Location.parse(f"s3://{BUCKET}/{prefix}"))
    s3.put({"in": DATA, "old": b"old"}, prefix)
    plan.outage = fault
    uses: list[Callable[[], object]] = [
        lambda: storage.read("in"),
        lambda: storage.names(""),
        lambda: list(storage.walk()),
        lambda: storage.write("old", DATA),
        lambda: storage.create("new", DATA),
    ]

    def fail(use: Callable[[], object]) -> None:
        with pytest.raises(StorageError) as caught:
            use()
        assert caught.value.transient == (fault is not Fault.INVALID)
        assert "\n" not in str(caught.value)

    monkeypatch.setattr(objects, "LISTING_PATIENCE", timedelta(seconds=0.5))
    with at_most(50), ThreadPoolExecutor() as pool:
        list(pool.map(fail, uses))
    if fault is Fault.INVALID:
        assert plan.injected[fault] == len(uses)
    kept = {"in": DATA, "old": b"old"}
    done = {"in": DATA, "old": DATA, "new": DATA}
    assert s3.tree(prefix) == (done if fault in LOST_ANSWERS else kept)


def test_an_outage_is_waited_out_once(
    s3: S3Server,
    proxy: FaultyProxy,
    plan: FaultPlan,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(objects, "PATIENCE", timedelta(seconds=1.5))
    monkeypatch.setattr(objects, "PROBE_PATIENCE", timedelta(seconds=0.1))
    monkeypatch.setattr(objects, "CLIENT_RETRIES", 0)
    storage = open_storage(Location.parse(f"s3://{BUCKET}/{prefix}"))
    s3.put({"in": DATA}, prefix)

    def tries() -> int:
        plan.outage, before = Fault.SLOW_DOWN, plan.requests["GET"]
        with pytest.raises(StorageError, match="the store answered SlowDown"):
            storage.read("in")
        return plan.requests["GET"] - before

    assert tries() > 1
    assert tries() == 1
    plan.outage = None
    assert storage.read("in") == DATA
    assert tries() > 1


@pytest.fixture
def three_pages(s3: S3Server, prefix: str) -> list[str]:
    """Keys in the store, sorted; its own order, folder by folder, is another one."""
    store = s3.store(prefix)
    names = [f"{number:04d}{end}" for number in range(700) for end in ("-.jpg", ".jpg", "/x.jpg")]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: obstore.put(store, name, b"1", use_multipart=False), names))
    return names


def test_a_listing_that_breaks_off_goes_on_at_its_last_key(
    storage: Storage, plan: FaultPlan, three_pages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long all of it takes: patience is had with each page."""
    monkeypatch.setattr(objects, "LISTING_PATIENCE", timedelta(seconds=0.5))
    cut, fine = Fault.CUT_RESPONSE, None
    plan.next("GET", "list-type", cut, fine, cut, fine, cut, fine)
    assert [info.path for info in storage.walk()] == three_pages
    assert plan.injected[cut] == 3
    assert plan.requests["GET"] == 6


def test_no_more_is_listed_than_will_do(
    storage: Storage, plan: FaultPlan, three_pages: list[str]
) -> None:
    assert [info.path for info in storage.walk(at_most=10)] == three_pages[:10]
    assert plan.requests["GET"] == 1


def test_a_listing_that_cannot_go_on_begins_anew(
    storage: Storage, plan: FaultPlan, three_pages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_DIRECTORY_BUCKET", BUCKET)
    cut, fine = Fault.CUT_RESPONSE, None
    plan.next("GET", "list-type", fine, fine, cut, cut)
    assert [info.path for info in storage.walk()] == three_pages
    assert plan.requests["GET"] == 4 + 3


@pytest.mark.parametrize("resumable", [True, False])
def test_a_listing_that_always_breaks_off_ends(
    storage: Storage,
    plan: FaultPlan,
    three_pages: list[str],
    resumable: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(objects, "LISTING_PATIENCE", timedelta(seconds=0.5))
    monkeypatch.setattr(listing, "RESTARTS", 3)
    if not resumable:
        monkeypatch.setattr(listing, "_DIRECTORY_BUCKET", BUCKET)
    cut, fine = Fault.CUT_RESPONSE, None
    plan.next("GET", "list-type", *([fine, *[cut] * 100] if resumable else [fine, cut] * 100))
    with at_most(10), pytest.raises(StorageError, match=r"cannot list|broke off 3 times"):
        list(storage.walk())


def test_large_writes_have_time(
    s3: S3Server, storage: Storage, plan: FaultPlan, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "LARGE_BYTES", len(DATA) - 1)
    plan.next("PUT", "/large", Fault.STALL)
    storage.write("large", DATA)
    assert plan.requests["PUT"] == 1
    assert s3.tree(prefix) == {"large": DATA}


@pytest.mark.parametrize("fault", LOST_ANSWERS, ids=lambda fault: fault.name)
def test_a_lock_is_ours_though_the_answer_was_lost(
    storage: Storage, plan: FaultPlan, fault: Fault
) -> None:
    plan.next("PUT", LOCKS, fault, fault)
    with Lock(storage, "out", "one"):
        with pytest.raises(LockedError, match="another run is using out"):
            Lock(storage, "out", "two").__enter__()
        assert storage.names(LOCKS) == ["0000000001.json"]
    plan.next("PUT", LOCKS, fault)
    with Lock(storage, "out", "three"):
        assert storage.names(LOCKS) == ["0000000002.json"]
    assert plan.injected == {fault: 3}


@dataclass(frozen=True)
class DataSet:
    """Images in the store, and what a calm run makes of them."""

    source: str
    images: dict[str, bytes]
    records: list[dict[str, Any]]


@pytest.fixture(scope="module")
def data_set(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    place = f"{uuid4()}/in"
    files = {}
    for number in range(IMAGES):
        suffix = (".jpg", ".png", ".webp")[number % 3]
        encoded = cv2.imencode(suffix, dark_image(number))[1]
        files[f"{number % 7}/{number:04d} #{suffix}"] = encoded.tobytes()
    s3_server.put(files, place)
    source = f"s3://{BUCKET}/{place}"
    output = f"{uuid4()}/calm"
    done = batchlight_here(*command(source, output), **s3_server.environment)
    assert done.returncode == 0, done.stderr
    made = s3_server.tree(output)
    assert len(images(made)) == IMAGES
    return DataSet(source, images(made), records(made))


def command(source: str, output: str, workers: int = 0) -> list[object]:
    settings = ("--workers", workers, "--batch-size", BATCH_SIZE, "--progress", "off")
    return ["run", "--input", source, "--output", f"s3://{BUCKET}/{output}", *settings]


def assert_as_calm(s3_server: S3Server, output: str, expected: DataSet) -> None:
    made = s3_server.tree(output)
    assert images(made) == expected.images
    assert records(made) == expected.records
    assert all(row["status"] == "ok" for row in expected.records)
    assert not [path for path in made if path.startswith("_batchlight/parts/")]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.nightly)])
def test_a_run_on_faulty_storage_is_like_a_calm_one(
    s3_server: S3Server, data_set: DataSet, prefix: str, workers: int
) -> None:
    faults = FaultPlan(OF_ANY_REQUEST, every=10 * len(OF_ANY_REQUEST), seed=workers)
    with faulty_proxy(s3_server.endpoint, faults) as proxy:
        environment = proxy.environment(s3_server.environment)
        done = batchlight(*command(data_set.source, prefix, workers), **environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert_as_calm(s3_server, prefix, data_set)
    assert set(faults.injected) == set(OF_ANY_REQUEST)
    assert faults.injected.total() == pytest.approx(0.1 * faults.requests.total(), rel=0.4)


def test_an_outage_ends_the_run_and_the_next_one_goes_on(
    s3_server: S3Server, data_set: DataSet, prefix: str
) -> None:
    faults = FaultPlan()
    faults.outage_after(IMAGES // 2, "PUT", "/classical/", Fault.SLOW_DOWN)
    with faulty_proxy(s3_server.endpoint, faults) as proxy:
        environment = proxy.environment(s3_server.environment)
        words = [str(word) for word in command(data_set.source, prefix)]
        with at_most(100):
            stopped = subprocess.run(
                [sys.executable, "-c", IMPATIENT, *words],
                capture_output=True,
                text=True,
                timeout=120,
                env={**os.environ, **environment},
                check=False,
            )
        assert stopped.returncode == 1, stopped.stderr
        assert stopped.stdout == ""
        *warnings, sentence = stopped.stderr.splitlines()
        # A slow machine also comes to renew the lock while the store is out.
        expected = ("trying again", "could not be renewed")
        assert all(any(words in line for words in expected) for line in warnings), warnings
        assert sentence.startswith("error: cannot ")
        assert f"s3://{BUCKET}/" in sentence
        made = images(s3_server.tree(prefix))
        assert len(made) >= IMAGES // 2
        assert made.items() <= data_set.images.items()

        faults.outage = None
        faults.requests.clear()
        done = batchlight(*command(data_set.source, prefix), **environment)
    assert done.returncode == 0, done.stderr
    assert "done before" in done.stdout
    assert_as_calm(s3_server, prefix, data_set)


def test_answers_that_are_lost_mislead_no_run(
    s3_server: S3Server, data_set: DataSet, prefix: str
) -> None:
    faults = FaultPlan()
    for place in ("_batchlight/locks/", "_batchlight/plan/", "_batchlight/parts/"):
        faults.next("PUT", place, *LOST_ANSWERS)
    faults.next("PUT", "metadata/", Fault.RESET_AFTER)
    faults.next("PUT", ".closed", Fault.CLOSE_AFTER, Fault.CUT_RESPONSE)
    with faulty_proxy(s3_server.endpoint, faults) as proxy:
        environment = proxy.environment(s3_server.environment)
        done = batchlight(*command(data_set.source, prefix), **environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert faults.injected.total() == 12
    assert_as_calm(s3_server, prefix, data_set)
