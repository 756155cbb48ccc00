"""Calls as Ray tasks, on a cluster or on a Ray of our own. Ray's own retries are off."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, Self, TypeVar
from weakref import WeakKeyDictionary

from batchlight._version import __version__
from batchlight.config import TIMEOUT_S
from batchlight.engine.actors import RayService, nodes_with_cpus
from batchlight.engine.address import address_of_running, ray_address, refuse_silence
from batchlight.engine.base import Lost, Meter, Service, Work
from batchlight.engine.calls import Resends
from batchlight.engine.head import Head
from batchlight.engine.own_ray import (
    LOOK_EVERY_S,
    connection,
    job_of_this_path,
    private_folder,
    private_token,
    quick_start,
)
from batchlight.engine.task_call import TASK_OPTIONS, TaskCall, on_worker, report_every_s
from batchlight.errors import (
    BatchlightError,
    ClusterError,
    StorageError,
    UsageError,
    brief,
    counted,
)
from batchlight.host.resources import usable_cpus, usable_memory

if TYPE_CHECKING:
    from ray.util.metrics import Counter

T = TypeVar("T")
R = TypeVar("R")

RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Do not touch the variables that select visible accelerators. This will become the default, and
    # Ray warns about the change.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # The engine itself reports calls that die.
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
}
"""Environment variables read by Ray on import, and by its processes when they start."""

CONNECT_TIMEOUT_S = 5.0
"""Time limit for the first contact with a cluster."""

OBJECT_STORE_BYTES = 100 * 2**20
"""For a Ray of our own, which carries only small results unless it hosts objects."""
HOSTING_BYTES_PER_WORKER = 256 * 2**20
HOSTING_SHARE_OF_MEMORY = 0.25

logger = logging.getLogger(__name__)


Surroundings = Callable[[int], AbstractContextManager[None]]
"""Entered in a worker around each call, with the number of workers."""


def no_surroundings(workers: int) -> AbstractContextManager[None]:
    """For calls that need none."""
    return nullcontext()


class RayEngine:
    """Calls run as Ray tasks, each with one CPU, on a cluster or on a Ray of our own."""

    parts_at_once = sys.maxsize

    def __init__(
        self,
        workers: int | None,
        address: str | None,
        timeout: float = TIMEOUT_S,
        hosts: bool = False,
        surroundings: Surroundings = no_surroundings,
        meanwhile: Callable[[], object] | None = None,
    ) -> None:
        """``hosts``: whether it will host objects, whose calls need space in the object store.

        ``surroundings``: entered in a worker around each call. ``meanwhile``: run in a thread of
        this process while a Ray of our own starts; ``follow`` waits for its end.
        """
        self._surroundings = surroundings
        self._meanwhile = Thread(target=meanwhile, daemon=True)
        self._wanted = workers
        self._given, self._address = address, ray_address(address)
        self._timeout = timeout
        self._hosts = hosts
        self._services: list[RayService] = []
        self._heads: WeakKeyDictionary[asyncio.AbstractEventLoop, Head] = WeakKeyDictionary()
        self._settings = ExitStack()
        """Changes to this process, to be undone."""
        self._counters: dict[Meter, Counter] = {}
        self.workers = workers or 1
        self.nodes = 1
        self.gpus = 0
        own = self._address == "local"
        self.place = "a Ray of its own" if own else f"the Ray cluster at {self._address}"

    def __enter__(self) -> Self:
        self._started = self._settings.enter_context(connection())
        self._settings.enter_context(_variables(RAY_SETTINGS))
        try:
            if self._started:
                self._start()
            else:
                self._address = address_of_running(self._given)
                self.place = f"the Ray cluster at {self._address}"
            import ray

            self._look_around()
            self._gcs_address: str = ray.get_runtime_context().gcs_address
            self._remote: Any = ray.remote(**TASK_OPTIONS)(on_worker)
        except BaseException as error:
            self.__exit__()
            if isinstance(error, BatchlightError) or not isinstance(error, Exception):
                raise
            # Ray raises many kinds of exceptions, none of them documented as its own.
            raise ClusterError(_why_no_ray(self._address, error)) from error
        return self

    def _start(self) -> None:
        """Start a Ray of our own, or join a cluster."""
        if self._address == "local":
            self._settings.enter_context(private_token())  # Ray looks for it during import
        import ray

        if not logger.isEnabledFor(logging.DEBUG):
            # Ray prints pages about a lost node to stdout, whatever the log level.
            self._settings.callback(setattr, ray._private.worker, "_worker_logs_enabled", True)
            ray._private.worker._worker_logs_enabled = False
        local: dict[str, Any] = {}
        if self._address == "local":
            self._meanwhile.start()  # not earlier: it would slow down the import of Ray
            workers = self._wanted or usable_cpus()
            local = {
                "num_cpus": workers,
                "object_store_memory": self._object_store_bytes(workers),
                "include_dashboard": False,
                "_temp_dir": self._settings.enter_context(private_folder()),
            }
        refuse_silence(self._address)
        its_logger = logging.getLogger("ray")
        self._settings.callback(its_logger.setLevel, its_logger.level)
        with quick_start() if local else nullcontext():
            ray.init(
                address=self._address,
                job_config=job_of_this_path(),
                log_to_driver=False,
                logging_level=logging.ERROR,
                **local,
            )

    def _look_around(self) -> None:
        """Count the nodes, CPUs and GPUs. Raises ``UsageError`` if there is no CPU to work on."""
        import ray

        cluster_resources: Callable[[], dict[str, float]] = ray.cluster_resources
        resources = cluster_resources()
        cpus = int(resources.get("CPU", 0))
        self.gpus = int(resources.get("GPU", 0))
        self.nodes = max(1, len(nodes_with_cpus()))
        self.workers = self._wanted or max(1, cpus)
        if self._address == "local":
            return
        if not (cpus or self._wanted):
            raise UsageError(
                f"the Ray cluster at {self._address} has no CPUs now; give --workers N, "
                "the number of CPUs that it can grow to"
            )
        self.place += f", {counted(cpus, 'CPU')} on {counted(self.nodes, 'node')}"
        if self.workers > cpus:
            logger.warning(
                "--workers %d is more than the %d CPUs of the cluster; the rest have to wait",
                self.workers,
                cpus,
            )

    @property
    def preparing(self) -> bool:
        return self._meanwhile.is_alive()

    @property
    def window(self) -> int:
        return self.workers + 1  # the extra one waits in Ray's queue

    def _object_store_bytes(self, workers: int) -> int:
        if not self._hosts:
            return OBJECT_STORE_BYTES
        most = int(usable_memory() * HOSTING_SHARE_OF_MEMORY)
        return max(OBJECT_STORE_BYTES, min(workers * HOSTING_BYTES_PER_WORKER, most))

    def __exit__(self, *_: object) -> None:
        import ray

        for service in self._services:
            try:
                service.stop()
            except Exception as error:  # the cluster may be gone; another error says so better
                logger.debug("an actor could not be stopped: %s", error)
        with self._settings:
            if self._started:
                ray.shutdown()

    def count(self, meter: Meter, amount: float, **tags: str) -> None:
        from ray.util.metrics import Counter

        if meter not in self._counters:
            self._counters[meter] = Counter(meter.name, meter.meaning, meter.tags)
        if amount:  # a counter rejects zero
            self._counters[meter].inc(amount, tags)

    async def call(self, function: Callable[..., T], *arguments: object, timeouts: float = 1) -> T:
        timeout = self._timeout * timeouts
        resends = Resends()
        around = partial(self._surroundings, self.workers)
        while True:
            stream = self._remote.remote(__version__, timeout, None, around, function, *arguments)
            try:
                result: T = await self._watched(TaskCall(stream, timeout).result())
                return result
            except Lost as loss:
                await resends.add(loss)

    async def follow(
        self, make: Callable[..., Work[R]], *arguments: object, on_report: Callable[[R], object]
    ) -> None:
        while self.preparing:
            await asyncio.sleep(LOOK_EVERY_S)
        how = report_every_s(self.workers), partial(self._surroundings, self.workers)
        stream = self._remote.remote(__version__, self._timeout, *how, make, *arguments)
        on_report(await self._watched(TaskCall(stream, self._timeout).result(on_report)))

    async def _watched(self, result: Coroutine[Any, Any, T]) -> T:
        try:
            return await self._head.watch(result)
        except StorageError as error:
            raise self._on_a_worker(error) from error

    @property
    def _head(self) -> Head:
        """The head, as watched by everything that waits in this event loop."""
        return self._heads.setdefault(asyncio.get_running_loop(), Head(self._gcs_address))

    def _on_a_worker(self, error: StorageError) -> StorageError:
        """The error, naming the place if looking at this machine would not explain it."""
        if self._address == "local" or error.transient:
            return error
        return StorageError(
            f"{error.message}; this was on a worker of the cluster; each node needs its "
            "own credentials and mounts",
            transient=False,
        )

    async def host(self, make: Callable[[], object], count: int, on_gpus: bool) -> Service:
        if on_gpus and count > self.gpus:
            if self._address == "local":
                raise UsageError(
                    f"{count} GPUs are requested, but this machine has {self.gpus}; "
                    "give a smaller --gpu-workers, or --device cpu"
                )
            logger.warning(
                "--gpu-workers %d is more than the %d GPUs of the cluster; waiting for more",
                count,
                self.gpus,
            )
        service = RayService.start(make, count, on_gpus, self._timeout)
        self._services.append(service)
        await self._head.watch(service.ready())
        return service


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables that are not set yet, for the duration of the block."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _why_no_ray(address: str, error: Exception) -> str:
    if address == "local":
        return f"cannot start Ray on this machine: {brief(error)}; --workers 0 works without it"
    # Ray logs that a token is missing, but its exception only says that there is no connection.
    return (
        f"cannot join a Ray cluster at {address}: {brief(error)}; check --address and RAY_ADDRESS, "
        "and if the cluster demands a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
    )
