"""The parts of a chunk become a file of ``metadata/``, on a worker: it takes a second or two."""

from __future__ import annotations

from batchlight.output.commit import Move, moved
from batchlight.storage import Location
from batchlight.worker.places import output_of


def move_parts(output: Location, run_id: str, lock: int, move: Move) -> None:
    """Do it behind the lock of a run; fine if somebody has begun with it, or done it."""
    moved(output_of(output, run_id, lock), move)
