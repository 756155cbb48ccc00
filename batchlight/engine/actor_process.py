"""The actor that holds an object, in its own process; ``actors.py`` is the caller's side.

Several calls are inside at once, so that one computes while others arrive and leave; they take
turns to compute. If the process dies, each caller needs to know whether its call is to blame. So
the process keeps a small file about its calls, which its replacement on the same node reads.

A call that was one of several suspects is repeated alone. Its caller is then told before it begins,
which costs a few milliseconds.
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

from batchlight.engine.base import refuse_other_version
from batchlight.engine.exclusive import SharedOrExclusive
from batchlight.engine.marks import session_folder
from batchlight.engine.timeout import DEADLINE
from batchlight.errors import BatchlightError
from batchlight.host.turns import in_turns

if TYPE_CHECKING:
    from ray import ObjectRef

    Made = list[ObjectRef[Callable[[], object]]]
    """The factory of the object; in a list, so that Ray passes a reference to it until needed."""

CALLS_INSIDE = 3
"""One call arriving, one computing, one leaving."""

TIME_TO_TELL_S = 0.005
"""Pause between the start of a call that runs alone and anything in it that could kill the process:
Ray reports the start from another thread."""

DEATHS_REMEMBERED = 16
RECORD_BYTES = 16_384
"""Upper limit, for the calls inside and those that were inside at earlier deaths."""


@dataclass(frozen=True)
class Outcome:
    """What is known about a call whose process died."""

    suspect: bool
    """Whether it may have killed the process."""
    responsible: bool = False
    """Whether it was the only one that had begun, and so killed it."""
    hung: bool = False
    """Whether a deadline ended the process."""


@dataclass
class Calls:
    """The calls inside a process, by name."""

    begun: dict[str, bool] = field(default_factory=dict)
    """Whether each call has had a turn yet."""
    hung: bool = False
    """Whether a deadline ended the process."""

    def outcome(self, call: str) -> Outcome:
        """The outcome of one of these calls, once the process has died."""
        begun = [name for name, had_turn in self.begun.items() if had_turn]
        # If none had had a turn yet, the responsible call was still arriving.
        return Outcome(call in begun or not begun, begun == [call], self.hung)


class CallLog:
    """The calls inside this process, in a file that outlives it."""

    def __init__(self, path: Path, fresh: bool, hung: bool = False) -> None:
        """``fresh``: whether there was no process before this one; ``hung``: how that one died."""
        self._lock = threading.Lock()
        self._inside: dict[str, bool] = {}
        self._deaths: list[Calls] = []
        self._complete = fresh
        """Whether all earlier processes ran on this node, so that their calls are known."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not fresh:
            try:
                before = json.loads(os.pread(self._file, RECORD_BYTES, 0).partition(b"\n")[0])
                deaths = [*before["deaths"], {"begun": before["inside"], "hung": hung}]
                self._deaths = [Calls(**death) for death in deaths[-DEATHS_REMEMBERED:]]
                self._complete = before["complete"]
            except ValueError:
                pass  # they ran on another node
        self._write()

    def enter(self, call: str) -> None:
        """Note that a call is inside."""
        with self._lock:
            self._inside[call] = False
            self._write()

    def begin(self, call: str) -> None:
        """Note that a call has its turn."""
        with self._lock:
            self._inside[call] = True
            self._write()

    def leave(self, call: str) -> None:
        """Note that a call can no longer kill: it has its result, or has failed."""
        with self._lock:
            self._inside.pop(call, None)
            self._write()

    def outcome(self, call: str) -> Outcome:
        """The outcome of a call that was sent to this process or an earlier one."""
        for death in reversed(self._deaths):
            if call in death.begun:
                return death.outcome(call)
        return Outcome(suspect=not self._complete)

    def _write(self) -> None:
        now = {
            "inside": self._inside,
            "deaths": [asdict(death) for death in self._deaths],
            "complete": self._complete,
        }
        # Only the first line is ever read, whatever follows it. Other processes see a write as soon
        # as it returns; it need not reach the disk.
        os.pwrite(self._file, json.dumps(now).encode() + b"\n", 0)


class NotMade(Exception):
    """A replacement process was called before it had made its object."""


class Host:
    """The actor: holds one object."""

    def __init__(self, version: str, timeout: float) -> None:
        import ray

        self._version = version
        self._timeout = timeout
        self._target: object = None
        self._making = threading.Lock()
        self._admission = SharedOrExclusive()
        self._turn = threading.Lock()
        context = ray.get_runtime_context()
        path = session_folder() / f"batchlight-{context.get_actor_id()}.json"
        mark = path.with_suffix(".timeout")
        hung = mark.exists() and mark.stat().st_size > 0
        self._record = CallLog(path, not context.was_current_actor_reconstructed, hung)
        DEADLINE.write_to(mark.open("wb", buffering=0))

    def ready(self, make: Made) -> None:
        """Make the object; not in ``__init__``, whose exceptions Ray reports only as text."""
        with self._making:
            if self._target is None:
                import ray

                refuse_other_version(self._version)
                self._target = ray.get(make[0])()

    def _ready_again(self, make: Made | None) -> None:
        """Make the object in the first call after a restart, which is not to blame if this fails.

        Raises ``NotMade`` if the call does not carry the factory; if every call did, Ray would
        spend time counting references to it.
        """
        if self._target is None:
            if make is None:
                raise NotMade
            with DEADLINE.of(self._timeout):
                self.ready(make)

    def answer(
        self, call: str, method: str, arguments: tuple[object, ...], make: Made | None
    ) -> Any:
        """The result of the call named ``call``; no other call computes during its turns."""
        self._ready_again(make)
        with self._admission.entered(alone=False):
            self._record.enter(call)
            try:
                return self._carry_out(call, method, arguments)
            finally:
                self._record.leave(call)

    def answer_alone(
        self, call: str, method: str, arguments: tuple[object, ...], make: Made
    ) -> Iterator[Any]:
        """Yield None when the call begins, then its result; no other call is inside."""
        self._ready_again(make)
        with self._admission.entered(alone=True):
            self._record.enter(call)
            try:
                yield None
                time.sleep(TIME_TO_TELL_S)
                result = self._carry_out(call, method, arguments)
            finally:
                self._record.leave(call)
            yield result

    def outcome(self, call: str) -> Outcome:
        """What is known about a call whose process is known to have died."""
        return self._record.outcome(call)

    def _carry_out(self, call: str, method: str, arguments: tuple[object, ...]) -> Any:
        function = getattr(self._target, method)
        staged = isgeneratorfunction(function)

        @contextmanager
        def turn() -> Iterator[None]:
            with DEADLINE.restarted_after():
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
                # After a GPU error, nothing works in this process any longer, so treat anything
                # unexpected as a death: Ray starts another process.
                traceback.print_exc()
                os._exit(1)
