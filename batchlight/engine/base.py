"""What an engine is, and the one that needs no Ray: calls run in this very process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from batchlight.errors import ErrorCode
from batchlight.host.given_up import TooLongError, call_in_thread
from batchlight.host.signals import interruptible
from batchlight.host.turns import in_turns

T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

REPORT_EVERY_S = 1.0
"""How often long work tells how far it is."""


class WorkerDied(Exception):
    """The process that ran a call is gone; ``code`` says what killed it, as far as is known."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code)
        self.code = code


class Lost(Exception):
    """A call came to nothing through no fault of its own; send it again."""


class Work(Protocol[R_co]):
    """Long work in many parts, which tells how far it is."""

    def steps(self, timed: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
        """Do it, and yield often: only then can a report be sent.

        ``timed()`` goes around each part that may take the timeout for itself.
        """

    def report(self) -> R_co:
        """What is new since the last report; another thread may ask."""


@dataclass(frozen=True)
class Meter:
    """A number that only grows, apart for every combination of its tags."""

    name: str
    meaning: str
    tags: tuple[str, ...]


class Engine(Protocol):
    """Runs functions on workers, and hosts objects that answer calls."""

    @property
    def workers(self) -> int:
        """How many calls run at once."""

    @property
    def window(self) -> int:
        """How many to keep under way, so that no worker waits for the next one."""

    @property
    def parts_at_once(self) -> int:
        """How many parts a piece of ``Work`` may have."""

    @property
    def nodes(self) -> int:
        """On how many machines."""

    @property
    def gpus(self) -> int:
        """How many GPUs there are for hosted objects."""

    @property
    def place(self) -> str:
        """Where all this is, for a person."""

    def count(self, meter: Meter, amount: float, **tags: str) -> None:
        """Add to what whoever watches the cluster sees of this run."""

    async def call(self, function: Callable[..., T], *arguments: object, timeouts: float = 1) -> T:
        """Run one call to its end. Raises ``WorkerDied``, and whatever the function raises.

        ``timeouts``: how many times the usual timeout the call may take.
        """

    async def follow(
        self, make: Callable[..., Work[R]], *arguments: object, on_report: Callable[[R], object]
    ) -> None:
        """Do ``make(*arguments)`` on a worker to its end; ``on_report`` gets all of its reports.

        Raises ``WorkerDied``, ``Lost``, and whatever the work or ``on_report`` raises. Then what
        was done since the last report is not known.
        """

    async def host(self, make: Callable[[], object], count: int, on_gpus: bool) -> Service:
        """Make ``count`` equal objects, each in a process of its own, that last as long as this.

        The service can be an argument of a call, which can then call them. Returns when the first
        is there; the others join. If none will be, raises what ``make`` raised, or
        ``ClusterError``.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


@dataclass(frozen=True)
class _Done:
    """An answer that is there already."""

    value: Any

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        return self.value


class _InProcessService:
    def __init__(self, target: object) -> None:
        self._target = target

    def submit(self, method: str, *arguments: object) -> Answer:
        return _Done(in_turns(getattr(self._target, method), arguments))


class InProcessEngine:
    """``--workers 0``: calls run here, one after the other, and a crash is this process's crash.

    A call that takes too long is given up: its thread goes on, but writes nothing more.
    """

    workers = window = 1
    parts_at_once = 1
    nodes = 1
    gpus = 0
    place = "this process"
    _timeout: float | None = None

    def __init__(self, timeout: float | None = None) -> None:
        """``timeout``: seconds that a call may take."""
        self._timeout = timeout

    def count(self, meter: Meter, amount: float, **tags: str) -> None:
        """Nobody watches a process."""

    async def call(self, function: Callable[..., T], *arguments: object, timeouts: float = 1) -> T:
        seconds = None if self._timeout is None else self._timeout * timeouts
        return self._call(partial(function, *arguments), seconds)

    async def follow(
        self, make: Callable[..., Work[R]], *arguments: object, on_report: Callable[[R], object]
    ) -> None:
        work = make(*arguments)

        def do() -> None:
            for _ in work.steps(nullcontext):
                pass

        self._call(do, self._timeout, lambda: on_report(work.report()))
        on_report(work.report())

    def _call(
        self,
        function: Callable[[], T],
        seconds: float | None,
        meanwhile: Callable[[], object] | None = None,
    ) -> T:
        try:
            with interruptible():
                return call_in_thread(function, seconds, meanwhile, REPORT_EVERY_S)
        except TooLongError as error:
            raise WorkerDied(ErrorCode.TIMEOUT) from error
        except MemoryError as error:
            raise WorkerDied(ErrorCode.OUT_OF_MEMORY) from error

    async def host(self, make: Callable[[], object], count: int, on_gpus: bool) -> Service:
        return _InProcessService(make())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to stop."""


class Answer(Protocol):
    """A call that is under way."""

    def done(self) -> bool:
        """Whether ``result`` would not wait."""

    def result(self) -> Any:
        """Wait for it. Raises what it raised."""


class Service(Protocol):
    """Something that lives elsewhere, and whose methods are called by name."""

    def submit(self, method: str, *arguments: object) -> Answer:
        """Begin a call. What it carries must not be changed until it is answered."""
