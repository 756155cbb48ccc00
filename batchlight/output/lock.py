"""One run at a time on one output.

Locks are numbered files; the run that created the highest number holds the output. All that this
needs is exclusive file creation, locally and on object stores: of two runs that find the same dead
holder, only one can create the next number. The highest file is never deleted, only marked as
released, so a number is never reused.

A holder rewrites its lock every ``HEARTBEAT``. Others may take over after ``STALE_AFTER`` without a
sign of life; a holder whose heartbeat does not get through gives up before that.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Coroutine
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Self

import psutil

from batchlight.errors import BatchlightError, LockedError, StorageError
from batchlight.host.abandoned import TooLongError, call_in_thread
from batchlight.host.identity import pid_scope, ticks_at_start
from batchlight.output.documents import Document, parse, serialise
from batchlight.output.layout import (
    LOCKS,
    lock_path,
    name_format,
    numbered,
    require_known_format,
    state_trouble,
)
from batchlight.output.withdrawing import can_withdraw, withdraw
from batchlight.storage import Storage
from batchlight.storage.pacing import exempt

HEARTBEAT = timedelta(seconds=15)
TELL_EVERY = timedelta(seconds=5)
"""How soon the lock shows how far the run is."""
GIVE_UP_AFTER = timedelta(seconds=45)
STALE_AFTER = timedelta(seconds=60)
LOOK_EVERY = timedelta(seconds=1)
"""How often a run that waits for its workers checks whether its lock is lost."""
ACQUIRE_TRIES = 5
RELEASE_WITHIN = timedelta(seconds=5)
"""A storage that does not answer must not keep a process from exiting."""

logger = logging.getLogger(__name__)


def new_run_id() -> str:
    """An id such as ``20260131T235959-0123abcd``: sorts by time, and is never reused."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"


class PlanProgress(Document):
    """How far a run is with its plan, in (image, method) pairs."""

    plan: int
    """The plan's first batch."""
    planned: int = 0
    """All pairs; the number of images in containers is an estimate."""
    done: int
    """By this run and earlier ones, including batches not yet committed."""
    failed: int
    skipped: int


class Holder(Document):
    """Who holds a lock: the content of its file."""

    run_id: str
    host: str
    pid: int
    process_started: float
    """Seconds since the epoch; distinguishes processes that reuse the same number."""
    process_ticks: int | None = None
    """The same in clock ticks since boot, which setting the clock does not change; None if unknown.
    """
    acquired_at: datetime
    released: bool = False
    pid_scope: str = ""
    """Where ``pid`` is valid: a boot and a PID namespace; "" if unknown."""
    progress: PlanProgress | None = None
    """As of the last heartbeat; None before the first batch."""

    @classmethod
    def this_process(cls, run_id: str) -> Holder:
        """The calling process, now."""
        return cls(
            run_id=run_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            process_started=psutil.Process().create_time(),
            process_ticks=ticks_at_start(os.getpid()),
            acquired_at=datetime.now(UTC).replace(microsecond=0),
            pid_scope=pid_scope(),
        )

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def has_ended(self) -> bool | None:
        """Whether the run is over; None if only its heartbeat can tell."""
        if self.released:
            return True
        if (self.host, self.pid_scope) != (socket.gethostname(), pid_scope()):
            return None
        if self.process_ticks is not None and (ticks := ticks_at_start(self.pid)) is not None:
            return ticks != self.process_ticks
        with suppress(psutil.NoSuchProcess):
            return abs(psutil.Process(self.pid).create_time() - self.process_started) > 1
        # With hidepid=2, processes of other users are hidden but can still be signalled.
        try:
            os.kill(self.pid, 0)
        except PermissionError:
            return None
        except (ProcessLookupError, OverflowError):
            return True
        return None


class Lock:
    """Held from ``__enter__`` to ``__exit__``; raises ``LockedError`` if another run holds it."""

    def __init__(self, storage: Storage, where: str, run_id: str) -> None:
        self._storage = storage
        self._where = where
        self.run_id = run_id
        self._holder = Holder.this_process(run_id)
        self._lost: BatchlightError | None = None
        self._last_sign = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self.number = 0
        self.progress: PlanProgress | None = None
        """Written with the next heartbeat; set by the follower of the run."""
        self.refused = False
        """Set if the run has done nothing: then nothing is left of it where it was the first."""

    def __enter__(self) -> Self:
        named = require_known_format(self._storage)
        began = time.monotonic()
        self._acquire()
        self._last_sign = began
        try:
            if not named:
                name_format(self._storage)
            self._thread.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        # If it cannot be released, the end of this process releases it too.
        with suppress(BatchlightError, OSError, TooLongError):
            call_in_thread(self._release, RELEASE_WITHIN.total_seconds())

    def _release(self) -> None:
        if self._thread.ident is not None:
            self._thread.join()
        with exempt():
            self.require()
            if self.refused and can_withdraw(self._storage, self.number):
                withdraw(self._storage)
            else:
                self._write(self._holder.model_copy(update={"released": True}))

    def check(self) -> None:
        """Raise if this run is known to have lost its lock, or must give it up.

        ``LockedError`` if another run has taken over, ``StorageError`` if the heartbeat does not
        get through. Never blocks.
        """
        if self._lost is not None:
            raise self._lost
        silence = time.monotonic() - self._last_sign
        if silence > GIVE_UP_AFTER.total_seconds():
            self._lost = StorageError(
                f"the lock on {self._where} could not be renewed for {silence:.0f} s, so "
                "another run may take over; check the storage, then run the same command "
                "again to continue",
                transient=False,
            )
            raise self._lost

    def require(self) -> None:
        """As ``check``, after reading the current locks."""
        self.check()
        try:
            require_lock(self._storage, self.number, self._where)
        except LockedError as error:
            self._lost = error
            raise

    def _acquire(self) -> None:
        for _ in range(ACQUIRE_TRIES):
            numbers = lock_numbers(self._storage)
            if numbers:
                try:
                    self._refuse_if_held(numbers[-1])
                except FileNotFoundError:  # replaced while we looked
                    continue
            self.number = numbers[-1] + 1 if numbers else 1
            with state_trouble(lock_path(self.number)):
                created = self._storage.create(lock_path(self.number), serialise(self._holder))
            if not created:
                continue
            if lock_numbers(self._storage)[-1:] != [self.number]:
                # Others have come and gone since we looked, and a later one holds it now.
                self._storage.delete(lock_path(self.number))
                continue
            for number in numbers:
                self._storage.delete(lock_path(number))
            return
        raise LockedError(f"other runs are starting on {self._where}; try again in a minute")

    def _refuse_if_held(self, number: int) -> None:
        holder, last_sign = read_lock(self._storage, number)
        ended = holder.has_ended
        if ended is None:
            ended = self._time_of_storage() - last_sign > STALE_AFTER
        if not ended:
            age = datetime.now(UTC) - holder.acquired_at
            raise LockedError(
                f"another run is using {self._where}: {holder}, "
                f"for {max(0, int(age.total_seconds()))} s; wait for it to finish, or stop it"
            )

    def _time_of_storage(self) -> datetime:
        """The current time by the clock that dates the locks, which may not be this machine's."""
        probe = f"{LOCKS}/{self.run_id}.clock"
        self._storage.write(probe, b"")
        try:
            return self._storage.stat(probe).modified or datetime.now(UTC)
        finally:
            self._storage.delete(probe)

    def _beat(self) -> None:
        with exempt():  # or a slow pace would cost the lock
            self._beat_until_stopped()

    def _beat_until_stopped(self) -> None:
        written = self.progress
        while not self._stop.wait(min(HEARTBEAT, TELL_EVERY).total_seconds()):
            began = time.monotonic()
            due = began - self._last_sign >= HEARTBEAT.total_seconds()
            if not due and written == self.progress:
                continue
            written = self.progress
            try:
                self.require()
                self._write(self._holder.model_copy(update={"progress": written}))
            except (BatchlightError, OSError) as error:
                if self._lost is not None:
                    return
                logger.warning("the lock on %s could not be renewed: %s", self._where, error)
            else:
                self._last_sign = began

    def _write(self, holder: Holder) -> None:
        self._storage.write(lock_path(self.number), serialise(holder))


async def while_held(lock: Lock, work: Coroutine[None, None, None]) -> None:
    """Run ``work`` to completion, or until the lock is lost: then it is cancelled.

    Raises as ``Lock.check`` and ``work`` do.
    """

    async def until_lost() -> None:
        while True:
            lock.check()
            await asyncio.sleep(LOOK_EVERY.total_seconds())

    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(until_lost())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def require_lock(storage: Storage, number: int, where: str) -> None:
    """Raise ``LockedError`` unless the lock with this number is the newest of an output."""
    if lock_numbers(storage)[-1:] != [number]:
        raise LockedError(
            f"another run has taken over {where}, or its lock was removed; "
            "if no other run is active, run the same command again"
        )


def holder_of(storage: Storage) -> Holder | None:
    """The run that is using an existing output, if any."""
    for _ in range(ACQUIRE_TRIES):
        numbers = lock_numbers(storage)
        if not numbers:  # withdrawn
            return None
        with suppress(FileNotFoundError):  # replaced while we looked
            holder, last_sign = read_lock(storage, numbers[-1])
            break
    else:
        raise LockedError("other runs are starting on this output; look again in a minute")
    ended = holder.has_ended
    if ended is None:  # this machine's clock has to do: a look writes nothing
        ended = datetime.now(UTC) - last_sign > STALE_AFTER
    return None if ended else holder


def lock_numbers(storage: Storage) -> list[int]:
    """The locks there are, in order."""
    return numbered(storage.names(LOCKS), ".json")


def read_lock(storage: Storage, number: int) -> tuple[Holder, datetime]:
    """A lock's holder, and when it last gave a sign of life."""
    path = lock_path(number)
    with state_trouble(path):
        return _read_lock(storage, path)


def _read_lock(storage: Storage, path: str) -> tuple[Holder, datetime]:
    holder = parse(Holder, storage.read(path), path)
    return holder, storage.stat(path).modified or holder.acquired_at
