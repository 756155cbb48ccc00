"""One run at a time on one output.

Locks are numbered files; the run that created the highest number holds the output. Creating a file
exclusively is all that this needs, locally and on object stores: of two runs that find the same
dead holder, only one can create the next number. The highest file is never deleted, only marked as
released, so a number is never given twice.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Self

import psutil

from batchlight.errors import BatchlightError, LockedError
from batchlight.storage import Storage
from batchlight.storage.base import LOCKS, parse_json

HEARTBEAT = timedelta(seconds=15)
STALE_AFTER = timedelta(seconds=60)
ACQUIRE_TRIES = 5


def new_run_id() -> str:
    """As in ``20260131T235959-0123abcd``: sorted by time, and never given twice."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True)
class Holder:
    """Who holds a lock."""

    run_id: str
    host: str
    pid: int
    process_started: float
    """Seconds since the epoch; tells a process from a later one of the same number."""
    acquired_at: str
    released: bool = False
    pid_scope: str = ""
    """What ``pid`` is a number of; "" where that cannot be known."""

    @classmethod
    def this_process(cls, run_id: str) -> Holder:
        """The calling process, now."""
        started = psutil.Process().create_time()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(run_id, socket.gethostname(), os.getpid(), started, now, pid_scope=_pid_scope())

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def is_gone(self, last_sign: datetime, now: datetime) -> bool:
        """Whether the run has ended: known at once if it ran on this host, else after a minute."""
        if self.released:
            return True
        if (self.host, self.pid_scope) != (socket.gethostname(), _pid_scope()):
            return now - last_sign > STALE_AFTER
        try:
            started: float = psutil.Process(self.pid).create_time()
        except psutil.NoSuchProcess:
            return True
        return abs(started - self.process_started) > 1


class Lock:
    """Held from ``__enter__`` to ``__exit__``; raises ``LockedError`` if another run holds it."""

    def __init__(
        self, storage: Storage, where: str, run_id: str, clock: Callable[[], datetime] | None = None
    ) -> None:
        self._storage = storage
        self._where = where
        self._holder = Holder.this_process(run_id)
        self._clock = clock or (lambda: datetime.now(UTC))
        self._number = 0
        self._lost: BatchlightError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_stopped, daemon=True)

    def __enter__(self) -> Self:
        self._acquire()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._lost is None:
            # If it cannot be released, the end of this process releases it too.
            with suppress(BatchlightError):
                self._write(replace(self._holder, released=True))

    def check(self) -> None:
        """Raise ``LockedError`` if another run has taken this lock over."""
        if self._lost is not None:
            raise self._lost

    def _acquire(self) -> None:
        for _ in range(ACQUIRE_TRIES):
            numbers = lock_numbers(self._storage)
            if numbers:
                try:
                    self._refuse_if_held(numbers[-1])
                except FileNotFoundError:  # replaced while we looked
                    continue
            self._number = numbers[-1] + 1 if numbers else 1
            data = _to_json(self._holder)
            if not self._storage.create(_path(self._number), data):
                continue
            if lock_numbers(self._storage)[-1] != self._number:
                # Others have come and gone since we looked, and a later one holds it now.
                self._storage.delete(_path(self._number))
                continue
            for number in numbers:
                self._storage.delete(_path(number))
            return
        raise LockedError(f"other runs are starting on {self._where}; try again in a minute")

    def _refuse_if_held(self, number: int) -> None:
        holder, last_sign = read_lock(self._storage, number)
        if holder.is_gone(last_sign, self._clock()):
            return
        age = self._clock() - datetime.fromisoformat(holder.acquired_at)
        raise LockedError(
            f"another run works on {self._where}: {holder}, "
            f"for {int(age.total_seconds())} s; wait until it ends, or stop it"
        )

    def _beat_until_stopped(self) -> None:
        while not self._stop.wait(HEARTBEAT.total_seconds()):
            try:
                if lock_numbers(self._storage)[-1:] != [self._number]:
                    self._lost = LockedError(
                        f"another run has taken over {self._where}, or its lock was removed; "
                        "if no other run is at work, run the same command again"
                    )
                    return
                self._write(self._holder)
            except (BatchlightError, OSError):
                continue  # the next beat may succeed; storage trouble shows in the batches too

    def _write(self, holder: Holder) -> None:
        self._storage.write(_path(self._number), _to_json(holder))


def holder_of(storage: Storage) -> Holder | None:
    """Who works on an output that was worked on; None if nobody does."""
    holder, last_sign = read_lock(storage, lock_numbers(storage)[-1])
    return None if holder.is_gone(last_sign, datetime.now(UTC)) else holder


def lock_numbers(storage: Storage) -> list[int]:
    """The locks there are, in order."""
    stems = (name.removesuffix(".json") for name in storage.names(LOCKS))
    return [int(stem) for stem in stems if stem.isdigit()]


def read_lock(storage: Storage, number: int) -> tuple[Holder, datetime]:
    """A lock's holder and when it last gave a sign of life."""
    holder = Holder(**parse_json(storage.read(_path(number)), _path(number)))
    modified = storage.stat(_path(number)).modified
    return holder, modified or datetime.fromisoformat(holder.acquired_at)


def _pid_scope() -> str:
    """The boot of the machine, and the PID namespace of this process.

    Machines may have the same name, and so have containers that use the network of their host.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()}:{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # not Linux
        return ""


def _path(number: int) -> str:
    return f"{LOCKS}/{number:010d}.json"


def _to_json(holder: Holder) -> bytes:
    return (json.dumps(asdict(holder)) + "\n").encode()
