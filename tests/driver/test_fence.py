"""A run that has lost its lock writes nothing more, at whatever moment it lost it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest

import batchlight
from batchlight.driver.repair import RepairOptions, repair
from batchlight.errors import LockedError, StorageError
from batchlight.output import lock as lock_module
from batchlight.output.fence import FencedStorage
from batchlight.output.lock import Lock, while_held
from batchlight.storage import EVERYONE, Location, open_storage
from batchlight.storage.local import LocalStorage
from tests.support.helpers import tree, write_images

IMAGES = 8


def run(folder: Path, **options: Any) -> batchlight.Summary:
    settings: dict[str, Any] = {"workers": 0, "batch_size": 2, "progress": "off"} | options
    out = str(folder / "out")
    return batchlight.run(batchlight.JobConfig(input=str(folder / "in"), output=out, **settings))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path / "in", IMAGES)
    return tmp_path


def take_over(out: Path) -> dict[str, bytes]:
    """Another run takes the lock; returns all that the output holds by then."""
    locks = out / "_batchlight/locks"
    last = max(locks.iterdir())
    (locks / f"{int(last.stem) + 1:010d}.json").write_bytes(last.read_bytes())
    return written(out)


def written(out: Path) -> dict[str, bytes]:
    return {path: data for path, data in tree(out).items() if "_batchlight/tmp/" not in path}


MOMENTS = {
    "listing": "batchlight.driver.run.draft_plans",
    "plan drafted": "batchlight.driver.run.store_plan",
    "at work": "batchlight.worker.steps.Steps.encode",
    "before a plan is closed": "batchlight.driver.run.close_plan",
    "while a plan is closed": "batchlight.worker.closing.moved",
    "before the report": "batchlight.report.write_report",
    "before the summary": "batchlight.driver.run.package_versions",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_lock_taken_over_stops_all_writing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    out = folder / "out"
    run(folder)
    for path in (folder / "in").rglob("*.jpg"):  # so that rows are replaced
        path.write_bytes(path.read_bytes() + b" ")
    then: dict[str, bytes] = {}

    def first_taken_over(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            then.update(then or take_over(out))
            return original(*arguments, **options)

        return wrapper

    original = resolve_name(MOMENTS[moment])
    monkeypatch.setattr(MOMENTS[moment], first_taken_over(original))
    with pytest.raises(LockedError, match=f"another run has taken over {out}"):
        run(folder)
    assert then
    assert written(out) == then


def test_a_repair_that_loses_its_lock_writes_nothing_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder / "out"
    run(folder)
    for path in (out / "classical").rglob("*.jpg"):
        path.unlink()
    then: dict[str, bytes] = {}
    read = LocalStorage.read

    def taken_over(self: LocalStorage, path: str) -> bytes:
        if path.endswith(".jpg") and not then:
            then.update(take_over(out))
        return read(self, path)

    monkeypatch.setattr(LocalStorage, "read", taken_over)
    options = RepairOptions(input=str(folder / "in"), workers=0)
    with pytest.raises(LockedError):
        repair(str(out), options, on_problem=lambda _: None, say=lambda _: None)
    assert written(out) == then


def test_a_heartbeat_that_does_not_get_through_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before others may take over, and also while nothing is written."""
    assert lock_module.GIVE_UP_AFTER < lock_module.STALE_AFTER
    monkeypatch.setattr(lock_module, "HEARTBEAT", timedelta(milliseconds=20))
    monkeypatch.setattr(lock_module, "GIVE_UP_AFTER", timedelta(milliseconds=200))
    monkeypatch.setattr(lock_module, "LOOK_EVERY", timedelta(milliseconds=10))
    storage = open_storage(Location.parse(str(tmp_path)))
    storage.check(writable=True)

    class Stalls(FencedStorage):
        """A storage whose writes take longer than a run may be silent."""

        stalled = False

        def write(
            self,
            path: str,
            data: bytes,
            permissions: int = EVERYONE,
            modified: datetime | None = None,
        ) -> None:
            if self.stalled:
                time.sleep(1)
            super().write(path, data, permissions, modified)

    stalling = Stalls(storage, lambda: None)

    async def wait_for_ever() -> None:
        await asyncio.sleep(60)

    with Lock(stalling, "out", "mine") as lock:
        fenced = FencedStorage(storage, lock.require)
        fenced.write("kept", b"1")
        stalling.stalled = True
        began = time.monotonic()
        with pytest.raises(StorageError, match="could not be renewed for"):
            asyncio.run(while_held(lock, wait_for_ever()))
        assert time.monotonic() - began < 30
        with pytest.raises(StorageError, match="could not be renewed"):
            fenced.write("lost", b"1")
    assert not (tmp_path / "lost").exists()


def test_a_fence_looks_once_a_second_for_what_happens_often(tmp_path: Path) -> None:
    looks = threading.Semaphore(0)
    storage = open_storage(Location.parse(str(tmp_path)))
    storage.check(writable=True)
    fenced = FencedStorage(storage, looks.release, writes_often=True)
    for number in range(50):
        fenced.write(f"classical/{number}.jpg", b"1")
    assert looks.acquire(blocking=False)
    assert fenced.create("part", b"1")
    assert looks.acquire(blocking=False)
    for _ in range(5):  # what says what is done, not even a second late
        fenced.write("metadata/records", b"1")
        assert looks.acquire(blocking=False)
    many = 0
    while looks.acquire(blocking=False):
        many += 1
    assert many < 10  # one a second, however slow the machine is
