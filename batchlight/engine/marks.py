"""The file by which a process that runs a call tells others the state of that call.

The process creates the file when the call begins and deletes it when the call ends. A deadline that
expires writes a traceback into it (``timeout.py``). The file outlives its writer, so another
process on the same node can tell a call that was ended by its deadline from one that crashed, and a
call that is still running from one that no process is working on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from batchlight.engine.timeout import DEADLINE


class CallState(Enum):
    """The state of a call that has begun."""

    AT_WORK = auto()
    ENDED = auto()
    """Ended with a result or an exception, which should have arrived."""
    CRASHED = auto()
    HUNG = auto()
    """Its deadline ended the process."""


@dataclass(frozen=True)
class Mark:
    """Where to look up the state of a call."""

    node: str
    """Id of the Ray node."""
    path: str
    process: int

    @classmethod
    def of_this_process(cls) -> Mark:
        """A new mark, for the next call of a Ray worker."""
        import ray

        path = session_folder() / f"batchlight-{uuid4().hex}.call"
        return cls(ray.get_runtime_context().get_node_id(), str(path), os.getpid())

    @contextmanager
    def left(self) -> Iterator[None]:
        """Leave the mark while the block, the call, runs."""
        with open(self.path, "wb", buffering=0) as file:
            DEADLINE.write_to(file)
            try:
                yield
            finally:
                DEADLINE.write_to(None)
                os.unlink(self.path)

    def look(self) -> CallState:
        """The state of the call; to be run on its node."""
        try:
            written = os.stat(self.path).st_size
        except FileNotFoundError:
            return CallState.ENDED
        if written:
            return CallState.HUNG
        return CallState.AT_WORK if psutil.pid_exists(self.process) else CallState.CRASHED


def session_folder() -> Path:
    """Where this node's Ray keeps what its processes leave behind."""
    import ray

    node: Any = ray._private.worker._global_node
    return Path(node.get_session_dir_path())
