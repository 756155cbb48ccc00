"""How far a run is, or how it ended, from its output alone."""

from __future__ import annotations

import os
from dataclasses import dataclass

from batchlight.errors import UsageError
from batchlight.output.layout import is_output, require_known_format
from batchlight.output.lock import Holder, PlanProgress, holder_of
from batchlight.output.state import OutputState
from batchlight.output.summary import read_summary
from batchlight.storage import Location, Storage, open_storage


@dataclass(frozen=True)
class Status:
    """One output at one moment."""

    output: str
    state: str
    """``running``, ``interrupted`` (run the same command again), or ``finished``."""
    images: int
    """Images of the last plan."""
    planned: int
    """(image, method) pairs of the last plan."""
    done: int
    """In committed batches; during a run, also those in other batches, as of some seconds ago."""
    failed: int | None
    """Failures of the current run; None if there is none, or it has not reported yet."""
    holder: str | None
    ended: str | None
    """When and how the last completed run ended."""
    exit_code: int | None
    more: bool = False
    """Whether the listing goes on after the last plan, so that another plan follows."""


def open_output(place: str | os.PathLike[str]) -> Storage:
    """The storage of an output.

    Raises ``UsageError`` if nothing was ever run there, or if a later version wrote it.
    """
    location = Location.parse(place)
    path = location.path
    if not location.remote and os.path.lexists(path) and not os.path.isdir(path):
        raise UsageError(
            f"{path} is not a folder, so it cannot be the output of a run; check the path"
        )
    storage = open_storage(location)
    storage.check(writable=False)
    if not is_output(storage):
        raise UsageError(f"{location} is not the output of a run; check the path")
    require_known_format(storage)
    return storage


def read_status(output: str | os.PathLike[str]) -> Status:
    """Look at an output without changing it."""
    storage = open_output(output)
    holder = holder_of(storage)  # first, or a run that ends now would seem interrupted
    state = OutputState.load(storage)
    planned = state.plan.rows if state.plan else 0
    told = _told_of(state, holder)
    summary = read_summary(storage)
    ended = "finished" if state.to_go_on_with is None and summary else "interrupted"
    return Status(
        output=os.fspath(output),
        state="running" if holder else ended,
        images=state.plan.counts.todo if state.plan else 0,
        planned=max(planned, told.planned if told else 0),
        done=told.done if told else planned - rows_left(storage, state),
        failed=told.failed if told else None,
        holder=f"{holder} since {holder.acquired_at.isoformat()}" if holder else None,
        ended=(
            f"{summary.finished_at}, exit {summary.exit_code}: {summary.reason}"
            if summary
            else None
        ),
        exit_code=summary.exit_code if summary else None,
        more=state.plan is not None and state.plan.has_more,
    )


def _told_of(state: OutputState, holder: Holder | None) -> PlanProgress | None:
    """What a current run reports about the last plan."""
    told = holder.progress if holder else None
    plan = state.unfinished
    return told if told and plan and told.plan == plan.first else None


def rows_left(storage: Storage, state: OutputState) -> int:
    """Number of (input, method) pairs of the last plan that are not in committed batches."""
    plan = state.unfinished
    return sum(plan.rows_left(storage, state.done).values()) if plan else 0
