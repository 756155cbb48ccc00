"""Merging the parts of a chunk into a file of ``metadata/`` on a worker, in a second or two."""

from __future__ import annotations

from batchlight.output.commit import Move, moved
from batchlight.storage import Location
from batchlight.worker.places import output_of


def move_parts(output: Location, run_id: str, lock: int, move: Move) -> None:
    """Run it under the lock of a run; safe if another process has begun or finished it."""
    moved(output_of(output, run_id, lock), move)
