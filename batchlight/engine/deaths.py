"""Classifies a failed Ray call: the work's own exception, a death it caused, or bad luck.

The one place that reads Ray's exceptions, for both tasks (``task_call.py``) and actors
(``actors.py``).
"""

from __future__ import annotations

from typing import Any

from batchlight.engine.base import Lost, WorkerDied
from batchlight.errors import BatchlightError, ClusterError, ErrorCode, brief

NODE_LOST = "node has died"
"""Ray's message about an actor that went down with its node."""


def classify(error: Any, begun: bool, hung: bool) -> Exception:
    """The exception to raise for ``error``, the Ray exception that a call failed with.

    ``begun``: whether the call is known to have been running when its process died; otherwise the
    call is ``Lost``. ``hung``: whether the deadline of the call ended the process, according to the
    mark that the process left (``marks.py``). A clock elsewhere cannot tell, since a deadline
    pauses while its call waits for another process.
    """
    from ray import exceptions

    if isinstance(error, exceptions.RayTaskError):
        return as_ours(error)
    if isinstance(error, exceptions.LocalRayletDiedError):
        return ClusterError(
            "the Ray node that this run is connected to is gone; run the same command again"
        )
    if isinstance(error, exceptions.NodeDiedError | exceptions.ObjectLostError) or (
        NODE_LOST in str(error)
    ):
        return Lost("a node was lost")
    if isinstance(error, exceptions.OutOfMemoryError):
        return WorkerDied(ErrorCode.OUT_OF_MEMORY) if begun else _lost_early()
    if isinstance(error, exceptions.WorkerCrashedError | exceptions.RayActorError):
        code = ErrorCode.TIMEOUT if hung else ErrorCode.CRASH
        return WorkerDied(code) if begun else _lost_early()
    return ClusterError(f"Ray failed: {brief(error)}")


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


def _lost_early() -> Lost:
    return Lost("a worker died before its work began")
