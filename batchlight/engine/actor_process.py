"""The actor that holds an object, in its own process; ``actors.py`` is the caller's side.

Several calls are inside at once, so that one computes while others arrive and leave; they take
turns to compute. If the process dies, each caller needs to know whether its call is to blame. So
the process keeps a small file about its calls, which the process that replaces it on the same node
reads.

A call that was one of several suspects is repeated alone. Then the caller hears before it begins,
which costs some milliseconds.
"""

from __future__ import annotations

import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from inspect import isgeneratorfunction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchlight._version import __version__
from batchlight.engine.marks import session_folder
from batchlight.engine.timeout import DEADLINE
from batchlight.errors import BatchlightError, ClusterError
from batchlight.host.turns import in_turns

if TYPE_CHECKING:
    from ray import ObjectRef

    Made = list[ObjectRef[Callable[[], object]]]
    """What makes the object; in a list, so that Ray leaves it a reference until it is needed."""

CALLS_INSIDE = 3
"""One on its way in, one that computes, one on its way out."""

TIME_TO_TELL_S = 0.005
"""Between the begin of a call that is alone and all that could kill it: Ray tells the begin from
another thread."""

DEATHS_REMEMBERED = 16
RECORD_BYTES = 16_384
"""At most, of the calls inside and of those that were inside at earlier deaths."""


@dataclass(frozen=True)
class Fate:
    """What is known of a call whose process died."""

    suspect: bool
    """Whether it may have been the one that killed."""
    guilty: bool = False
    """Whether it was the only one that had begun: then it was the one."""
    hung: bool = False
    """Whether a deadline ended the process."""


@dataclass
class Calls:
    """The calls inside a process, by their names."""

    begun: dict[str, bool] = field(default_factory=dict)
    """Whether each had a turn yet."""
    hung: bool = False
    """Whether the process died of a deadline."""

    def fate(self, call: str) -> Fate:
        """Of one of them, when the process has died."""
        begun = [name for name, had_turn in self.begun.items() if had_turn]
        # Where none had its turn yet, it must have been one that was on its way in.
        return Fate(call in begun or not begun, begun == [call], self.hung)


class Record:
    """The calls inside this process, in a file that outlives it."""

    def __init__(self, path: Path, fresh: bool, hung: bool = False) -> None:
        """``fresh``: whether there was no process before this one; ``hung``: how that one died."""
        self._lock = threading.Lock()
        self._inside: dict[str, bool] = {}
        self._deaths: list[Calls] = []
        self._complete = fresh
        """Whether all earlier processes were on this node, so that their calls are known."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not fresh:
            try:
                before = json.loads(os.pread(self._file, RECORD_BYTES, 0).partition(b"\n")[0])
                deaths = [*before["deaths"], {"begun": before["inside"], "hung": hung}]
                self._deaths = [Calls(**death) for death in deaths[-DEATHS_REMEMBERED:]]
                self._complete = before["complete"]
            except ValueError:
                pass  # they were elsewhere
        self._write()

    def enter(self, call: str) -> None:
        """A call is inside."""
        with self._lock:
            self._inside[call] = False
            self._write()

    def begin(self, call: str) -> None:
        """It has its turn."""
        with self._lock:
            self._inside[call] = True
            self._write()

    def leave(self, call: str) -> None:
        """It can kill no more: it has its result, or has failed."""
        with self._lock:
            self._inside.pop(call, None)
            self._write()

    def fate(self, call: str) -> Fate:
        """Of a call that this process or an earlier one was asked."""
        for death in reversed(self._deaths):
            if call in death.begun:
                return death.fate(call)
        return Fate(suspect=not self._complete)

    def _write(self) -> None:
        now = {
            "inside": self._inside,
            "deaths": [asdict(death) for death in self._deaths],
            "complete": self._complete,
        }
        # One line; of what may follow it, nothing is read. A write to a file is there for other
        # processes when it returns; it needs to reach no disk.
        os.pwrite(self._file, json.dumps(now).encode() + b"\n", 0)


class Door:
    """Lets calls in: many at once, or one alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = 0
        """Calls that are, or want to be, alone."""

    @contextmanager
    def entered(self, alone: bool) -> Iterator[None]:
        """Wait to be let in."""
        with self._changed:
            if alone:
                self._alone += 1
                self._changed.wait_for(lambda: not self._inside)
            else:
                self._changed.wait_for(lambda: not self._alone)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._alone -= alone
                self._changed.notify_all()


class NotMade(Exception):
    """A process that took the place of another was asked before it had made its object."""


class Host:
    """The actor: holds one object."""

    def __init__(self, version: str, timeout: float) -> None:
        import ray

        self._version = version
        self._timeout = timeout
        self._target: object = None
        self._making = threading.Lock()
        self._door = Door()
        self._turn = threading.Lock()
        context = ray.get_runtime_context()
        path = session_folder() / f"batchlight-{context.get_actor_id()}.json"
        mark = path.with_suffix(".timeout")
        hung = mark.exists() and mark.stat().st_size > 0
        self._record = Record(path, not context.was_current_actor_reconstructed, hung)
        DEADLINE.write_to(mark.open("wb", buffering=0))

    def ready(self, make: Made) -> None:
        """Make the object; not in ``__init__``, whose exceptions Ray would only quote as text."""
        with self._making:
            if self._target is None:
                import ray

                refuse_other_version(self._version)
                self._target = ray.get(make[0])()

    def _ready_again(self, make: Made | None) -> None:
        """For the first call after a restart, whose fault it is not if this fails.

        Raises ``NotMade`` if it brings nothing to make the object with; if each call did, each
        would cost Ray some time to keep count of it.
        """
        if self._target is None:
            if make is None:
                raise NotMade
            with DEADLINE.of(self._timeout):
                self.ready(make)

    def answer(
        self, call: str, method: str, arguments: tuple[object, ...], make: Made | None
    ) -> Any:
        """The result of a call, in whose turns no other computes; ``call`` is its name."""
        self._ready_again(make)
        with self._door.entered(alone=False):
            self._record.enter(call)
            try:
                return self._carry_out(call, method, arguments)
            finally:
                self._record.leave(call)

    def answer_alone(
        self, call: str, method: str, arguments: tuple[object, ...], make: Made
    ) -> Iterator[Any]:
        """First None, when the call begins, then its result; no other is inside."""
        self._ready_again(make)
        with self._door.entered(alone=True):
            self._record.enter(call)
            yield None
            time.sleep(TIME_TO_TELL_S)
            try:
                result = self._carry_out(call, method, arguments)
            finally:
                self._record.leave(call)
            yield result

    def fate(self, call: str) -> Fate:
        """What is known of a call, asked when it is known to have died."""
        return self._record.fate(call)

    def _carry_out(self, call: str, method: str, arguments: tuple[object, ...]) -> Any:
        function = getattr(self._target, method)
        staged = isgeneratorfunction(function)

        @contextmanager
        def turn() -> Iterator[None]:
            with DEADLINE.paused():
                self._turn.acquire()
            try:
                self._record.begin(call)
                yield
            finally:
                if not staged:
                    self._record.leave(call)  # before another begins
                self._turn.release()

        with DEADLINE.of(self._timeout):
            try:
                return in_turns(function, arguments, turn)
            except (BatchlightError, MemoryError):
                raise
            except Exception:
                # After an error of a GPU nothing works in this process any more, so whatever is
                # unexpected is a death: Ray starts another process.
                traceback.print_exc()
                os._exit(1)


def refuse_other_version(version: str) -> None:
    """Raise ``ClusterError`` on a worker whose batchlight is not the driver's."""
    if version != __version__:
        raise ClusterError(
            f"a worker has batchlight {__version__} and this is {version}; "
            "install the same version on every node"
        )
