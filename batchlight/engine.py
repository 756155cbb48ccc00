"""Running calls somewhere else, and what to do when they die: the one place that knows Ray.

An engine knows nothing of images. It runs functions on workers, one CPU each, and tells the death
of a worker from a failure of the work. Retries have their only home here; Ray's own are off.

    call      one function on one worker; storage trouble is retried
    bisect    one function over many items, some of which may kill their worker every time
    window    many jobs, a bounded number at once
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import socket
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

from batchlight import __version__
from batchlight.errors import BatchlightError, ClusterError, ErrorCode, StorageError, brief

if TYPE_CHECKING:
    from ray import ObjectRef

T = TypeVar("T")
Item = TypeVar("Item")

TRIES_ON_STORAGE_TROUBLE = 3
PAUSE_AFTER_STORAGE_TROUBLE = 2.0
"""Seconds; doubled each time. The stores retry by themselves first, so this is for outages."""

DEATHS_ALONE = 3
"""How often an item must kill a worker, all alone, before it is given up."""

NODES_LOST_AT_MOST = 100
PAUSE_AFTER_LOST_NODE = 1.0
"""Seconds. A lost node is nobody's fault and does not count, but must not loop for ever."""

CONNECT_TIMEOUT_S = 5.0
"""For the first contact with a cluster."""

OBJECT_STORE_BYTES = 100 * 2**20
"""Of a local Ray: only small results go through it."""

logger = logging.getLogger(__name__)


class WorkerDied(Exception):
    """The process that ran a call is gone; ``code`` says what killed it, as far as is known."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What came of one item of a bisection."""

    result: T | None
    died: ErrorCode | None
    attempts: int


class Engine(Protocol):
    """Runs functions on workers."""

    @property
    def workers(self) -> int:
        """How many calls run at once."""

    @property
    def place(self) -> str:
        """Where they run, for a person."""

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Run one call to its end. Raises ``WorkerDied``, and whatever the function raises."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class InProcessEngine:
    """``--workers 0``: calls run here, one after the other, and a crash is this process's crash."""

    workers = 1
    place = "this process"

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        try:
            return function(*arguments)
        except MemoryError as error:
            raise WorkerDied(ErrorCode.OUT_OF_MEMORY) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to stop."""


class RayEngine:
    """Calls run as Ray tasks, each with one CPU, on a cluster or on a Ray of our own."""

    def __init__(self, workers: int | None, address: str | None, timeout: float) -> None:
        self._wanted = workers
        self._address = address or os.environ.get("RAY_ADDRESS") or "local"
        self._timeout = timeout
        self.workers = workers or 1
        own = self._address == "local"
        self.place = "a Ray of its own" if own else f"the Ray cluster at {self._address}"

    def __enter__(self) -> Self:
        # Ray reads these once, on import: send no usage reports, and leave the variables that say
        # which accelerators are visible alone (its coming default, about which it warns).
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        self._started = not ray.is_initialized()  # a program may have a Ray of its own already
        local: dict[str, Any] = {}
        if self._address == "local":
            local = {
                "num_cpus": self._wanted or os.cpu_count(),
                "object_store_memory": OBJECT_STORE_BYTES,
                "include_dashboard": False,
            }
        try:
            if self._started:
                _refuse_silence(self._address)
                ray.init(
                    address=self._address,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    **local,
                )
            cluster_resources: Callable[[], dict[str, float]] = ray.cluster_resources
            cpus = int(cluster_resources().get("CPU", 0))
        except BatchlightError:
            raise
        except Exception as error:  # Ray raises many kinds, none of them documented as its own
            raise ClusterError(_why_no_ray(self._address, error)) from error
        self.workers = self._wanted or max(1, cpus)
        if self._address != "local" and self.workers > cpus:
            logger.warning(
                "--workers %d is more than the %d CPUs of the cluster; the rest waits its turn",
                self.workers,
                cpus,
            )
        self._remote = ray.remote(num_cpus=1, max_retries=0)(_on_worker)
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        if self._started:
            ray.shutdown()

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        import ray.exceptions

        for _ in range(NODES_LOST_AT_MOST):
            submitted = time.monotonic()
            ref: ObjectRef[T] = self._remote.remote(
                __version__, self._timeout, function, *arguments
            )
            try:
                return await ref
            except asyncio.CancelledError:
                ray.cancel(ref, force=True)
                raise
            except ray.exceptions.RayTaskError as error:
                raise _as_ours(error) from error
            except ray.exceptions.OutOfMemoryError as error:
                raise WorkerDied(ErrorCode.OUT_OF_MEMORY) from error
            except ray.exceptions.WorkerCrashedError as error:
                hung = time.monotonic() - submitted >= self._timeout
                raise WorkerDied(ErrorCode.TIMEOUT if hung else ErrorCode.CRASH) from error
            except (ray.exceptions.NodeDiedError, ray.exceptions.LocalRayletDiedError) as error:
                logger.warning("a node was lost; its work is done again elsewhere (%s)", error)
                await asyncio.sleep(PAUSE_AFTER_LOST_NODE)
            except ray.exceptions.RayError as error:
                raise ClusterError(f"Ray failed: {brief(error)}") from error
        raise ClusterError(
            f"the cluster lost {NODES_LOST_AT_MOST} nodes under one batch; "
            "check the cluster, then run the same command again"
        )


async def call_patiently(engine: Engine, function: Callable[..., T], *arguments: object) -> T:
    """A call that is tried again after storage trouble, unless that is of the lasting kind."""
    for attempt in range(TRIES_ON_STORAGE_TROUBLE):
        try:
            return await engine.call(function, *arguments)
        except StorageError as error:
            if error.lasting or attempt == TRIES_ON_STORAGE_TROUBLE - 1:
                raise
            pause = PAUSE_AFTER_STORAGE_TROUBLE * 2**attempt
            logger.warning("%s; trying again in %.0f s", error, pause)
            await asyncio.sleep(pause)
    raise AssertionError("unreachable")


async def bisect(
    engine: Engine,
    function: Callable[[Sequence[Item]], list[T]],
    items: Sequence[Item],
    deaths: int,
) -> list[Outcome[T]]:
    """Run ``function`` over items of which some kill their worker, and find out which.

    Whatever dies is cut in two and each half tried by itself, so k killers among n items cost
    about 2 k log2(n) calls; an item that dies alone ``DEATHS_ALONE`` times is given up. ``deaths``:
    how often these items have died together before. Outcomes are in the order of the items.
    """
    if not items:
        return []
    alone = 0
    while True:
        try:
            results = await call_patiently(engine, function, items)
            return [Outcome(result, None, deaths + 1) for result in results]
        except WorkerDied as death:
            deaths += 1
            alone += 1
            if len(items) == 1 and alone == DEATHS_ALONE:
                return [Outcome(None, death.code, deaths)]
        if len(items) > 1:
            middle = len(items) // 2
            left = await bisect(engine, function, items[:middle], deaths)
            return left + await bisect(engine, function, items[middle:], deaths)


async def window(jobs: Iterable[Coroutine[Any, Any, T]], size: int) -> AsyncGenerator[T, None]:
    """Run jobs with at most ``size`` under way, yielding results as they come.

    The first failure stops the rest and is raised.
    """
    waiting = iter(jobs)
    running: set[asyncio.Task[T]] = set()
    try:
        while True:
            while len(running) < size and (job := next(waiting, None)) is not None:
                running.add(asyncio.ensure_future(job))
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def make_engine(workers: int | None, address: str | None, timeout: float) -> Engine:
    """The engine that ``--workers`` and ``--address`` ask for."""
    return InProcessEngine() if workers == 0 else RayEngine(workers, address, timeout)


def _on_worker(version: str, timeout: float, function: Callable[..., T], *arguments: Any) -> T:
    """Run on the worker: with a deadline that counts from its start, not from its submission.

    The deadline is kept by a C thread that needs no interpreter lock, and ends the process.
    """
    if version != __version__:
        raise ClusterError(
            f"a worker has batchlight {__version__} and this is {version}; "
            "install the same version on every node"
        )
    faulthandler.dump_traceback_later(timeout, exit=True)
    try:
        return function(*arguments)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _as_ours(error: Any) -> Exception:
    """The exception that the function raised on its worker."""
    cause = error.cause
    if isinstance(cause, BatchlightError):
        return cause
    if isinstance(cause, MemoryError):
        return WorkerDied(ErrorCode.OUT_OF_MEMORY)
    if isinstance(cause, ModuleNotFoundError) or "ModuleNotFoundError" in str(error):
        return ClusterError(
            f"a worker cannot import what it needs ({brief(cause or error)}); "
            "install the same batchlight on every node"
        )
    return BatchlightError(
        f"a worker failed unexpectedly: {brief(cause or error)}; "
        "run again with --debug and report what it says"
    )


def _refuse_silence(address: str) -> None:
    """Raise ``ClusterError`` if nobody listens at host:port; Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ClusterError(_why_no_ray(address, error)) from error


def _why_no_ray(address: str, error: Exception) -> str:
    if address == "local":
        return f"cannot start Ray on this machine: {brief(error)}; --workers 0 does without it"
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        return f"cannot reach a Ray cluster at {address}: {brief(error)}; check --address"
    # Ray logs that a token is missing, but its exception only says that there is no connection.
    return (
        f"cannot join a Ray cluster at {address}: {brief(error)}; check --address and RAY_ADDRESS, "
        "and if the cluster demands a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
    )
