"""One run at a time."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from batchlight.errors import LockedError, StorageError
from batchlight.output import lock as lock_module
from batchlight.output.lock import Holder, Lock, holder_of, lock_numbers, new_run_id, read_lock
from batchlight.storage import Location, Storage, open_storage
from batchlight.storage.local import LocalStorage
from tests.support.helpers import under_way


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    opened = open_storage(Location.parse(str(tmp_path)))
    opened.check(writable=True)
    return opened


def lock_files(tmp_path: Path) -> list[dict[str, Any]]:
    files = sorted((tmp_path / "_batchlight/locks").iterdir())
    return [json.loads(file.read_text()) for file in files]


def put_holder(tmp_path: Path, **changes: object) -> None:
    (tmp_path / "_batchlight/locks").mkdir()
    holder = {
        "run_id": "other",
        "host": socket.gethostname(),
        "pid": 1,
        "process_started": 0.0,
        "acquired_at": "2026-01-01T00:00:00+00:00",
        "pid_scope": Holder.this_process("").pid_scope,
        **changes,
    }
    (tmp_path / "_batchlight/locks/0000000007.json").write_text(json.dumps(holder))


def test_a_failure_while_it_is_acquired_releases_it(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Storage) -> None:
        raise StorageError("no space left on device", transient=False)

    with monkeypatch.context() as patch:
        patch.setattr(lock_module, "name_format", refused)
        with pytest.raises(StorageError, match="no space left"):
            Lock(storage, "out", "one").__enter__()
    assert [h["released"] for h in lock_files(tmp_path)] == [True]
    with Lock(storage, "out", "two"):
        pass


def test_held_then_released(storage: Storage, tmp_path: Path) -> None:
    with Lock(storage, "out", "one"):
        assert [h["released"] for h in lock_files(tmp_path)] == [False]
        with pytest.raises(LockedError, match=r"another run is using out: process \d+ on .*, for"):
            Lock(storage, "out", "two").__enter__()
    assert [h["released"] for h in lock_files(tmp_path)] == [True]
    with Lock(storage, "out", "three"):
        assert [h["run_id"] for h in lock_files(tmp_path)] == ["three"]


def replacing(storage: Storage, monkeypatch: pytest.MonkeyPatch, times: int) -> list[Lock]:
    """Have another run start, and the one before end, after each of the next few looks."""
    started: list[Lock] = []

    def racing(looked_at: Storage) -> list[int]:
        found = lock_numbers(looked_at)
        if len(started) < times:
            with monkeypatch.context() as patch:
                patch.setattr(lock_module, "lock_numbers", lock_numbers)
                for lock in started[-1:]:
                    lock.__exit__()
                started.append(Lock(storage, "out", new_run_id()).__enter__())
        return found

    monkeypatch.setattr(lock_module, "lock_numbers", racing)
    return started


@pytest.mark.parametrize("times", [1, 3])
def test_a_look_at_a_lock_that_is_just_replaced_finds_the_next(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    with Lock(storage, "out", "before"):
        pass
    started = replacing(storage, monkeypatch, times)
    holder = holder_of(storage)
    assert len(started) == times
    assert holder is not None
    assert holder.run_id == started[-1].run_id
    started[-1].__exit__()


def test_a_look_at_locks_that_are_always_replaced_ends(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lock(storage, "out", "before"):
        pass
    started = replacing(storage, monkeypatch, 100)
    with pytest.raises(LockedError, match="are starting on this output; look again in a minute"):
        holder_of(storage)
    started[-1].__exit__()


def test_nobody_holds_an_output_that_is_withdrawn(storage: Storage) -> None:
    with Lock(storage, "out", "refused") as lock:
        lock.refused = True
    assert holder_of(storage) is None


def test_a_lock_that_is_removed_as_it_is_made_is_made_again(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a run whose lock of the same number somebody has removed, and that withdraws."""
    create, removed = LocalStorage.create, list[str]()

    def removing(self: LocalStorage, path: str, *more: Any) -> bool:
        created = create(self, path, *more)
        if "/locks/" in path and not removed:
            removed.append(path)
            self.delete(path)
        return created

    monkeypatch.setattr(LocalStorage, "create", removing)
    with Lock(storage, "out", "mine"):
        assert removed
        assert [h["run_id"] for h in lock_files(tmp_path)] == ["mine"]


def test_a_dead_process_of_this_host_is_replaced_at_once(storage: Storage, tmp_path: Path) -> None:
    put_holder(tmp_path, pid=2**22 + 1)
    with Lock(storage, "out", "mine"):
        assert [h["run_id"] for h in lock_files(tmp_path)] == ["mine"]


def test_a_later_process_of_the_same_number_is_not_the_holder(
    storage: Storage, tmp_path: Path
) -> None:
    put_holder(tmp_path, pid=1, process_started=12345.0)
    with Lock(storage, "out", "mine"):
        pass


def test_another_host_is_replaced_after_a_minute_without_a_sign(
    storage: Storage, tmp_path: Path
) -> None:
    put_holder(tmp_path, host="elsewhere")
    with pytest.raises(LockedError, match="process 1 on elsewhere"):
        Lock(storage, "out", "mine").__enter__()
    age(tmp_path, seconds=61)
    with Lock(storage, "out", "mine"):
        assert [h["run_id"] for h in lock_files(tmp_path)] == ["mine"]


def age(tmp_path: Path, seconds: float) -> None:
    """Let the newest lock have given its last sign of life so long ago."""
    last = max((tmp_path / "_batchlight/locks").iterdir())
    then = time.time() - seconds
    os.utime(last, (then, then))


HOLD = """
import sys
from batchlight.output.lock import Lock
from batchlight.storage import Location, open_storage
with Lock(open_storage(Location.parse(sys.argv[1])), "out", "contained"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_container_of_the_same_host_name_is_another_host(
    storage: Storage, tmp_path: Path
) -> None:
    """Its process numbers mean nothing here: it would seem dead, whatever it does."""
    contain = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*contain, "true"], capture_output=True).returncode:
        pytest.skip("no PID namespaces can be made here")
    command = [*contain, sys.executable, "-c", HOLD, tmp_path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with under_way(command, {}, text=True, **pipes) as container:
        assert container.stdout is not None
        assert container.stdout.readline() == "held\n"
        [holder] = lock_files(tmp_path)
        assert holder["host"] == socket.gethostname()
        with pytest.raises(LockedError, match="another run is using out"):
            Lock(storage, "out", "mine").__enter__()
        assert container.stdin is not None
        container.stdin.close()
        assert container.wait(timeout=60) == 0
    with Lock(storage, "out", "mine"):
        pass


def test_of_many_at_once_one_wins(storage: Storage, tmp_path: Path) -> None:
    put_holder(tmp_path, released=True)
    start, end = threading.Barrier(8), threading.Barrier(8)
    won: list[int] = []

    def contend(number: int) -> None:
        lock = Lock(storage, "out", str(number))
        start.wait()
        try:
            with lock:
                won.append(number)
                end.wait()
        except LockedError:
            end.wait()

    threads = [threading.Thread(target=contend, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert [h["run_id"] for h in lock_files(tmp_path)] == [str(won[0])]


def test_a_run_whose_lock_was_taken_over_is_told(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "HEARTBEAT", timedelta(milliseconds=5))
    with Lock(storage, "out", "mine") as lock:
        lock.check()
        usurper = {**lock_files(tmp_path)[0], "run_id": "usurper"}
        (tmp_path / "_batchlight/locks/0000000002.json").write_text(json.dumps(usurper))
        lock._thread.join(timeout=60)
        with pytest.raises(LockedError, match="another run has taken over out"):
            lock.check()
    assert lock_files(tmp_path)[-1] == usurper  # and it does not touch the other's lock


def test_the_heartbeat_is_a_sign_of_life(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "HEARTBEAT", timedelta(milliseconds=5))
    file = tmp_path / "_batchlight/locks/0000000001.json"
    with Lock(storage, "out", "mine"):
        before = file.stat().st_mtime_ns
        deadline = time.monotonic() + 60
        while file.stat().st_mtime_ns == before:
            assert time.monotonic() < deadline
            time.sleep(0.002)


def test_a_clock_that_is_ahead_steals_no_lock(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The age of a lock is told by the clock of the storage, not by that of this machine."""
    put_holder(tmp_path, host="elsewhere")

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(minutes=5)

    monkeypatch.setattr(lock_module, "datetime", Ahead)
    with pytest.raises(LockedError, match="process 1 on elsewhere"):
        Lock(storage, "out", "mine").__enter__()
    assert [path.name for path in (tmp_path / "_batchlight/locks").iterdir()] == ["0000000007.json"]


def test_a_hidden_process_is_not_taken_for_dead(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With hidepid=2, ``/proc`` shows no process of another user."""
    put_holder(tmp_path, pid=os.getppid())

    def hidden(pid: int) -> None:
        raise psutil.NoSuchProcess(pid)

    monkeypatch.setattr("batchlight.output.lock.psutil.Process", hidden)
    holder, _ = read_lock(storage, 7)
    assert holder.has_ended is None  # its heartbeat tells


def test_setting_the_clock_makes_no_other_process_of_the_holder(
    storage: Storage, tmp_path: Path
) -> None:
    """psutil tells the start of a process by the wall clock, which moves all starts along."""
    me = Holder.this_process("other")
    assert me.process_ticks is not None
    moved = me.process_started - 3
    put_holder(tmp_path, pid=me.pid, process_started=moved, process_ticks=me.process_ticks)
    with pytest.raises(LockedError, match=f"process {me.pid} on"):
        Lock(storage, "out", "mine").__enter__()
