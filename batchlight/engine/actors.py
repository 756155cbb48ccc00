"""Objects as Ray actors: made once, then called often, by workers rather than by the driver.

Arguments and results travel through Ray's object store, directly between worker and actor. Ray
restarts the process of an actor that dies, but repeats none of its calls.

An image that kills the network must not take down the calls of other images. So a call that had not
begun when its actor died is sent again, and its caller never notices. If it was the only one that
had begun, it is to blame, and ``calls.py`` decides what follows. If it was one of several, it is
sent again alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from batchlight._version import __version__
from batchlight.engine.actor_process import CALLS_INSIDE, Host, NotMade, Outcome
from batchlight.engine.base import Answer, Lost, WorkerDied
from batchlight.engine.deaths import as_ours, classify
from batchlight.engine.timeout import DEADLINE
from batchlight.errors import ClusterError, brief

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

    from batchlight.engine.actor_process import Made

RESENDS_AT_MOST = 1000
PAUSE_BEFORE_RESENDING = 0.5
"""Seconds; an actor takes some time to restart."""

ASKING = "asking"
"""An actor's thread that reports the outcome of calls, whatever its other threads do."""
ASKING_TIMEOUT_S = 60.0
"""Time for a process to start; if none does, the outcome is unknown."""

READY_EVERY_S = 0.1
"""How often to check on starting actors."""
WARN_EVERY_S = 60.0
"""While waiting for actors to start."""

DOES_NOT_FIT = "the network does not fit into memory; choose a smaller --model"

logger = logging.getLogger(__name__)


@dataclass
class RayService:
    """Several identical actors, called in turn. Sent to workers as an argument of their calls.

    Work begins with the first actor that is ready. A worker knows the actors that were ready when
    the service was sent to it, so each batch may know more of them.
    """

    actors: list[ActorHandle[Host]]
    """Actors that are ready."""
    timeout: float
    make: Made
    starting: dict[ObjectRef[None], ActorHandle[Host]] = field(default_factory=dict)
    """The others, by the reference that resolves when they are ready; known to the driver only."""
    turns: Iterator[int] = field(default_factory=count)

    @classmethod
    def start(
        cls, make: Callable[[], object], number: int, on_gpus: bool, timeout: float
    ) -> RayService:
        """Start ``number`` actors, with a GPU each or spread over the nodes that have CPUs."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        remote: Any = ray.remote  # its types do not cover concurrency groups
        host = remote(concurrency_groups={ASKING: 1})(Host)
        # Actors reserve no CPU: the tasks that feed them need it, even if there is only one.
        options: dict[str, Any] = {
            "num_cpus": 0,
            "max_restarts": -1,
            "max_task_retries": 0,
            "max_concurrency": CALLS_INSIDE,
        }
        placements = cycle([{"num_gpus": 1, "scheduling_strategy": "SPREAD"}])
        if not on_gpus:
            placements = cycle(
                {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True)}
                for node in nodes_with_cpus()
            )
        made: Made = [ray.put(make)]
        actors = [
            host.options(**options, **next(placements, {})).remote(__version__, timeout)
            for _ in range(number)
        ]
        return cls([], timeout, made, {actor.ready.remote(made): actor for actor in actors})

    async def ready(self) -> None:
        """Wait until one actor has made its object. If none does, raise the first failure.

        That is an error of ``make``, or a ``ClusterError``.
        """
        first: Exception | None = None
        warned = time.monotonic()
        while not self.actors:
            for error in self._join():
                first = first or error
            if self.actors:
                break
            if not self.starting:
                assert first is not None
                raise first
            if time.monotonic() - warned > WARN_EVERY_S:
                warned = time.monotonic()
                logger.warning("still waiting for the cluster to start the network")
            await asyncio.sleep(READY_EVERY_S)

    def _join(self) -> list[Exception]:
        """Take in the actors that are ready by now; returns why others never will be."""
        import ray

        if not self.starting:
            return []
        done, _ = ray.wait(list(self.starting), num_returns=len(self.starting), timeout=0)
        errors: list[Exception] = []
        for told in done:
            actor = self.starting.pop(told)
            try:
                ray.get(told)
                self.actors.append(actor)
            except ray.exceptions.RayError as error:
                errors.append(_why_not_ready(error))
        if errors and (self.actors or self.starting):
            logger.warning("one of the networks does not start: %s", errors[0])
        return errors

    def stop(self) -> None:
        """End the actors."""
        import ray

        for actor in [*self.actors, *self.starting.values()]:
            ray.kill(actor)

    def submit(self, method: str, *arguments: object) -> Answer:
        return _RayAnswer(self, method, arguments)

    def next_actor(self) -> ActorHandle[Host]:
        """Each process starts at a different actor, so that they do not all move in lockstep."""
        self._join()
        return self.actors[(os.getpid() + next(self.turns)) % len(self.actors)]

    def __reduce__(self) -> tuple[Any, ...]:
        self._join()
        return RayService, (list(self.actors), self.timeout, self.make)


class _RayAnswer:
    def __init__(self, service: RayService, method: str, arguments: tuple[object, ...]) -> None:
        self._service = service
        self._name = uuid4().hex
        # Not put into the object store here: Ray does that for large arguments, and small ones
        # arrive faster with the call itself.
        self._call = (self._name, method, arguments)
        self._make: Made | None = None
        """Sent only to an actor that has restarted."""
        self._alone = False
        self._actor: Any = None
        self._coming: Any = None
        """A reference to the result; for a call that runs alone, a stream of references."""
        self._send()

    def _send(self) -> None:
        # A different one each time: this one may be gone for good.
        self._actor = self._service.next_actor()
        if self._alone:
            streaming = self._actor.answer_alone.options(num_returns="streaming")
            self._coming = streaming.remote(*self._call, self._service.make)
        else:
            self._coming = self._actor.answer.remote(*self._call, self._make)

    def done(self) -> bool:
        import ray

        return not self._alone and bool(ray.wait([self._coming], timeout=0)[0])

    def result(self) -> Any:
        import ray

        with DEADLINE.restarted_after():
            for _ in range(RESENDS_AT_MOST):
                try:
                    return self._result_alone() if self._alone else ray.get(self._coming)
                except ray.exceptions.RayTaskError as error:
                    if not isinstance(error.cause, NotMade):
                        raise as_ours(error) from error
                    self._make = self._service.make
                    self._send()
                    continue
                except ray.exceptions.RayError as error:
                    self._judge(error)
                time.sleep(PAUSE_BEFORE_RESENDING)
                self._send()
        raise ClusterError(
            "the network actors keep dying before they begin; check the GPUs of the cluster"
        )

    def _result_alone(self) -> Any:
        import ray

        ray.get(self._next())
        begun = time.monotonic()
        try:
            return ray.get(self._next())
        except ray.exceptions.RayTaskError:
            raise
        except ray.exceptions.RayError as error:
            if isinstance(classify(error, begun=True, hung=False), Lost):
                raise
            outcome = self._outcome()
            hung = outcome.hung if outcome else time.monotonic() - begun >= self._service.timeout
            raise classify(error, begun=True, hung=hung) from error

    def _next(self) -> Any:
        """The next of the stream; its end must not end the generator that waits for it."""
        for reference in self._coming:
            return reference
        raise ClusterError("the network ended a call without a result; run the same command again")

    def _judge(self, error: Exception) -> None:
        """Return if the call has to be sent again; raise the failure that it is to blame for."""
        at_worst = classify(error, begun=True, hung=False)
        if not isinstance(at_worst, Lost | WorkerDied):
            raise at_worst from error
        if isinstance(at_worst, Lost) or self._alone:
            return
        outcome = self._outcome()
        if outcome is not None and outcome.responsible:
            raise classify(error, begun=True, hung=outcome.hung) from error
        self._alone = outcome is None or outcome.suspect

    def _outcome(self) -> Outcome | None:
        """The outcome of the call, as reported by the process that replaces the dead one.

        None if unknown.
        """
        import ray

        try:
            # Retried until the replacement is running, and again if that one dies too.
            ask = self._actor.outcome.options(concurrency_group=ASKING, max_task_retries=-1)
            outcome: Outcome = ray.get(ask.remote(self._name), timeout=ASKING_TIMEOUT_S)
        except ray.exceptions.RayError:
            return None
        return outcome


def nodes_with_cpus() -> list[str]:
    """Ids of the nodes that run tasks; the head node often runs none."""
    import ray

    return [n["NodeID"] for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")]


def _why_not_ready(error: Exception) -> Exception:
    """What kept an actor from making its object."""
    import ray.exceptions

    if not isinstance(error, ray.exceptions.RayTaskError):
        ours: Exception = ClusterError(f"the network does not start: {brief(error)}")
    else:
        ours = as_ours(error)
        if isinstance(ours, WorkerDied):
            ours = ClusterError(DOES_NOT_FIT)
    ours.__cause__ = error
    return ours
