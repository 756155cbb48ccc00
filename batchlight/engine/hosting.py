"""Objects as Ray actors: made once, called often, by workers rather than by the driver.

What is sent to them and comes back travels through Ray's object store, straight between the worker
and the actor. Ray restarts the process of an actor that dies, but repeats none of its calls: of
one that had begun, ``calls.py`` decides.

Calls of several workers wait in line at one actor. If it dies, only the call that had begun is to
blame, as its begin is the first thing that it tells; the others are sent again and nobody hears of
it. Otherwise an image that kills the network could take innocent ones along, three times.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import TYPE_CHECKING, Any

from batchlight import __version__
from batchlight.engine.base import WorkerDied
from batchlight.engine.deadline import DEADLINE
from batchlight.errors import BatchlightError, ClusterError, ErrorCode, brief
from batchlight.feeding import Answer

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

    Made = list[ObjectRef[Callable[[], object]]]
    """What makes the object; in a list, so that Ray leaves it a reference until it is needed."""

RESENDS_AT_MOST = 1000
PAUSE_BEFORE_RESENDING = 0.5
"""Seconds: an actor takes some to start again."""

TIME_TO_TELL_S = 0.005
"""Between a call's begin and all that could kill it: the begin leaves from another thread."""

NODE_LOST = "node has died"
"""What Ray says of an actor that went down with its node, which is no image's fault."""

WARN_EVERY_S = 60.0
"""While waiting for actors to start."""

DOES_NOT_FIT = "the network does not fit into memory; choose a smaller --model"

logger = logging.getLogger(__name__)


class Host:
    """The actor: holds one object."""

    def __init__(self, version: str, timeout: float) -> None:
        self._version = version
        self._timeout = timeout
        self._target: object = None

    def ready(self, make: Made) -> None:
        """Make the object; not in ``__init__``, whose exceptions Ray would only quote as text."""
        if self._target is None:
            import ray

            refuse_other_version(self._version)
            self._target = ray.get(make[0])()

    def answer(self, make: Made, method: str, arguments: tuple[object, ...]) -> Iterator[Any]:
        """First the time at which the call begins; then its result.

        ``make`` comes with each call, for the first one after a restart.
        """
        with DEADLINE.of(self._timeout):
            self.ready(make)  # which is no fault of the call, that has not begun yet
        yield time.time()
        time.sleep(TIME_TO_TELL_S)
        with DEADLINE.of(self._timeout):
            try:
                result = getattr(self._target, method)(*arguments)
            except (BatchlightError, MemoryError):
                raise
            except Exception:
                # After an error of a GPU nothing works in this process any more, so whatever is
                # unexpected is a death: Ray starts another process.
                traceback.print_exc()
                os._exit(1)
        yield result


@dataclass
class RayService:
    """Some equal actors, called in turn. Travels to workers as an argument of their calls."""

    actors: tuple[ActorHandle[Host], ...]
    make: Made
    timeout: float
    turns: Iterator[int] = field(default_factory=count)

    @classmethod
    def start(
        cls, make: Callable[[], object], number: int, on_gpus: bool, timeout: float
    ) -> RayService:
        """Start ``number`` actors, with a GPU each or spread over the nodes that have CPUs."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        host: Any = ray.remote(Host)
        # Actors reserve no CPU: the tasks that feed them need it, even where there is only one.
        options: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": 0}
        placements = cycle([{"num_gpus": 1, "scheduling_strategy": "SPREAD"}])
        if not on_gpus:
            placements = cycle(
                {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True)}
                for node in nodes_with_cpus()
            )
        actors = tuple(
            host.options(**options, **next(placements, {})).remote(__version__, timeout)
            for _ in range(number)
        )
        return cls(actors, [ray.put(make)], timeout)

    async def ready(self) -> None:
        """Wait until all have made their object. Raises what that raised, and ``ClusterError``."""
        import ray.exceptions

        async def made(actor: ActorHandle[Host]) -> None:
            await actor.ready.remote(self.make)

        waiting = {asyncio.ensure_future(made(actor)) for actor in self.actors}
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, timeout=WARN_EVERY_S)
                for actor in done:
                    actor.result()
                if not done:
                    logger.warning("still waiting for the cluster to start the network")
        except ray.exceptions.RayTaskError as error:
            cause = as_ours(error)
            if isinstance(cause, WorkerDied):
                raise ClusterError(DOES_NOT_FIT) from error
            raise cause from error
        except ray.exceptions.RayError as error:
            raise ClusterError(f"the network does not start: {brief(error)}") from error
        finally:
            for task in waiting:
                task.cancel()

    def stop(self) -> None:
        """End the actors."""
        import ray

        for actor in self.actors:
            ray.kill(actor)

    def submit(self, method: str, *arguments: object) -> Answer:
        return _RayAnswer(self, method, arguments)

    def next_actor(self) -> ActorHandle[Host]:
        """Each process begins its turns elsewhere, so that they do not all march in step."""
        return self.actors[(os.getpid() + next(self.turns)) % len(self.actors)]

    def __reduce__(self) -> tuple[Any, ...]:
        return RayService, (self.actors, self.make, self.timeout)


class _RayAnswer:
    def __init__(self, service: RayService, method: str, arguments: tuple[object, ...]) -> None:
        import ray

        self._service = service
        # Put once, so that a call that is sent again does not carry its pixels again.
        self._call = (service.make, method, ray.put(arguments))
        self._send()

    def _send(self) -> None:
        actor = self._service.next_actor()  # another one each time: this one may be gone for good
        self._stream: Any = actor.answer.options(num_returns="streaming").remote(*self._call)

    def result(self) -> Any:
        import ray

        with DEADLINE.paused():
            for _ in range(RESENDS_AT_MOST):
                begun: float | None = None
                try:
                    begun = ray.get(next(self._stream))
                    return ray.get(next(self._stream))
                except ray.exceptions.RayTaskError as error:
                    raise as_ours(error) from error
                except ray.exceptions.OutOfMemoryError as error:
                    if begun is not None:
                        raise WorkerDied(ErrorCode.OUT_OF_MEMORY) from error
                except (ray.exceptions.ActorDiedError, ray.exceptions.ActorUnavailableError) as e:
                    if begun is not None and NODE_LOST not in str(e):
                        hung = time.time() - begun >= self._service.timeout
                        raise WorkerDied(ErrorCode.TIMEOUT if hung else ErrorCode.CRASH) from e
                except (ray.exceptions.ObjectLostError, ray.exceptions.NodeDiedError):
                    pass  # the answer went down with its node
                time.sleep(PAUSE_BEFORE_RESENDING)
                self._send()
        raise ClusterError(
            "the network actors keep dying before they begin; check the GPUs of the cluster"
        )


def nodes_with_cpus() -> list[str]:
    """Ids of the nodes that run tasks; a head often does not."""
    import ray

    return [n["NodeID"] for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")]


def refuse_other_version(version: str) -> None:
    """Raise ``ClusterError`` on a worker whose batchlight is not the driver's."""
    if version != __version__:
        raise ClusterError(
            f"a worker has batchlight {__version__} and this is {version}; "
            "install the same version on every node"
        )


def as_ours(error: Any) -> Exception:
    """The exception that a function raised on its worker."""
    cause = error.cause
    if isinstance(cause, BatchlightError | WorkerDied):
        return cause
    if isinstance(cause, MemoryError):
        return WorkerDied(ErrorCode.OUT_OF_MEMORY)
    if isinstance(cause, ModuleNotFoundError) or "ModuleNotFoundError" in str(error):
        return ClusterError(
            f"a worker cannot import what it needs ({brief(cause or error)}); "
            "install the same batchlight, with the same extras, on every node"
        )
    return BatchlightError(
        f"a worker failed unexpectedly: {brief(cause or error)}; "
        "run again with --debug and report what it says"
    )
