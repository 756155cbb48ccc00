"""The engine protocol, and an engine without Ray: calls run in this very process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from batchlight._version import __version__
from batchlight.errors import ClusterError, ErrorCode
from batchlight.host.abandoned import TooLongError, call_in_thread
from batchlight.host.signals import interruptible
from batchlight.host.turns import in_turns

T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

REPORT_EVERY_S = 1.0
"""How often long work reports its progress."""


class WorkerDied(Exception):
    """The process that ran a call is gone; ``code`` says what killed it, as far as known."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code)
        self.code = code


class Lost(Exception):
    """A call was lost through no fault of its own; send it again."""


class Work(Protocol[R_co]):
    """Long work in many parts that reports its progress."""

    def steps(self, timed: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
        """Do the work, yielding often: reports can only be sent then.

        ``timed()`` goes around each part that gets the full timeout for itself.
        """

    def report(self) -> R_co:
        """What is new since the last report; may be called from another thread."""


@dataclass(frozen=True)
class Meter:
    """A counter, kept separately for every combination of its tags."""

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
        """How many calls to keep in flight, so that no worker waits for the next one."""

    @property
    def parts_at_once(self) -> int:
        """Maximum number of parts in a piece of ``Work``."""

    @property
    def nodes(self) -> int:
        """Number of machines."""

    @property
    def gpus(self) -> int:
        """Number of GPUs for hosted objects."""

    @property
    def place(self) -> str:
        """Description of the place for the user."""

    @property
    def preparing(self) -> bool:
        """Whether ``follow`` will have to wait for something that this process still does."""

    def count(self, meter: Meter, amount: float, **tags: str) -> None:
        """Add to a metric of this run for cluster monitoring."""

    async def call(self, function: Callable[..., T], *arguments: object, timeouts: float = 1) -> T:
        """Run one call to completion. Raises ``WorkerDied``, and whatever the function raises.

        ``timeouts``: how many times the usual timeout the call may take.
        """

    async def follow(
        self, make: Callable[..., Work[R]], *arguments: object, on_report: Callable[[R], object]
    ) -> None:
        """Run ``make(*arguments)`` on a worker to completion; ``on_report`` gets all its reports.

        Raises ``WorkerDied``, ``Lost``, and whatever the work or ``on_report`` raises. In that
        case, what was done since the last report is unknown.
        """

    async def host(self, make: Callable[[], object], count: int, on_gpus: bool) -> Service:
        """Make ``count`` equal objects, each in its own process, that live as long as the engine.

        The service can be passed to calls, which can then call the objects. Returns when the first
        is ready; the others join later. If none will be, raises what ``make`` raised, or
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
    """An answer that is already available."""

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
    """``--workers 0``: calls run here, one after another, and a crash takes this process down.

    A call that takes too long is abandoned: its thread goes on, but writes nothing more.
    """

    workers = window = 1
    parts_at_once = 1
    nodes = 1
    gpus = 0
    place = "this process"
    preparing = False

    def __init__(self, timeout: float | None = None) -> None:
        """``timeout``: seconds that a call may take."""
        self._timeout = timeout

    def count(self, meter: Meter, amount: float, **tags: str) -> None:
        """Do nothing; no one monitors a single process."""

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
    """A call in flight."""

    def done(self) -> bool:
        """Whether ``result`` would return without waiting."""

    def result(self) -> Any:
        """Wait for the result. Raises what the call raised."""


class Service(Protocol):
    """A remote object whose methods are called by name."""

    def submit(self, method: str, *arguments: object) -> Answer:
        """Start a call. Its arguments must not be changed until it is answered."""


def refuse_other_version(version: str) -> None:
    """Raise ``ClusterError`` on a worker whose batchlight is not the driver's."""
    if version != __version__:
        raise ClusterError(
            f"a worker has batchlight {__version__}, but this is {version}; "
            "install the same version on every node"
        )
