"""How far a run is, or how it ended, read from its output alone."""

from __future__ import annotations

from dataclasses import dataclass

from batchlight.errors import UsageError
from batchlight.output.lock import holder_of
from batchlight.output.plan import Plan, latest_plan
from batchlight.output.recordfiles import committed_batches
from batchlight.output.summary import read_summary
from batchlight.storage import Location, Storage, open_storage
from batchlight.storage.base import is_output


@dataclass(frozen=True)
class Status:
    """One output at one moment. Images are (input, method) pairs of the last plan."""

    output: str
    state: str
    """``running``, ``interrupted`` (run the same command again), or ``finished``."""
    planned: int
    done: int
    """In committed batches."""
    holder: str | None
    ended: str | None
    """When and how the last run that is over ended."""
    exit_code: int | None


def open_output(text: str) -> Storage:
    """The storage of an output. Raises ``UsageError`` if nothing was ever run there."""
    location = Location.parse(text)
    storage = open_storage(location)
    storage.check(writable=False)
    if not is_output(storage):
        raise UsageError(f"{location} is not the output of a run; check the path")
    return storage


def read_status(text: str) -> Status:
    """Look at an output without changing it."""
    storage = open_output(text)
    plan = latest_plan(storage)
    holder = _holder(storage)
    planned, done, closed = 0, 0, True
    if plan is not None:
        planned, closed = plan.rows, plan.is_closed(storage)
        done = planned if closed else done_rows(storage, plan)
    summary = read_summary(storage)
    state = "running" if holder else "finished" if closed and summary else "interrupted"
    ended = (
        f"{summary.finished_at}, exit {summary.exit_code}: {summary.reason}" if summary else None
    )
    return Status(text, state, planned, done, holder, ended, summary.exit_code if summary else None)


def done_rows(storage: Storage, plan: Plan) -> int:
    """How many (input, method) pairs of a plan are in committed batches."""
    done = committed_batches(storage)
    total = 0
    for chunk in plan.chunks:
        rows = plan.read_chunk(storage, chunk).select(["batch", "methods"]).to_pylist()
        total += sum(len(row["methods"]) for row in rows if row["batch"] in done)
    return total


def _holder(storage: Storage) -> str | None:
    holder = holder_of(storage)
    return f"{holder} since {holder.acquired_at}" if holder else None
