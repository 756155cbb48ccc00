"""The steps that change an output, each of which is safe to repeat after a crash.

    plan stored -> images written -> part created: the batch is done
                -> stale outputs deleted -> old rows removed -> parts moved -> plan closed

So each row is in a part, in a file of ``metadata/``, or between two steps in both; then
``metadata/`` takes precedence. Old rows are removed before new ones are moved, so readers of that
folder never see a row twice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from batchlight.config import Method
from batchlight.host.abandoned import Pool
from batchlight.output.layout import (
    BatchRange,
    chunk_folder,
    closed_path,
    container_output,
    is_output_path,
    metadata_path,
    part_path,
    plan_path,
    range_of,
)
from batchlight.output.numbers import NumberSet
from batchlight.output.plan import Plan, end_mark
from batchlight.output.recordfiles import permissions_of_records, read_records, tally, to_parquet
from batchlight.output.records import TALLY_COLUMNS, Tally, joined, of_methods
from batchlight.output.replaced import OldFile, Span, old_spans, replaced_by
from batchlight.output.state import OutputState
from batchlight.storage import Storage

REQUESTS_AT_ONCE = 16

_OF_OUTPUTS = ("output", "method", "container", "container_output_sha256")


def store_plan(storage: Storage, state: OutputState, plan: Plan) -> OutputState:
    """Complete a plan whose chunks are written: from now on, it defines what there is to do."""
    storage.sync()
    storage.write(plan_path(plan.first), end_mark(plan))
    storage.sync()  # images without a plan would be somebody else's, after a power cut
    return replace(state, plans=(*state.plans, plan.first), plan=plan, closed=False)


def end_listing(storage: Storage, state: OutputState) -> OutputState:
    """Record that no further plan of its listing follows the last one."""
    if state.plan is None or not state.plan.has_more:
        return state
    plan = state.plan.model_copy(update={"continues_after": None})
    storage.write(plan_path(plan.first), end_mark(plan))
    return replace(state, plan=plan)


def drop_drafts(storage: Storage, first: int) -> None:
    """Remove the chunks of a plan that was never stored and would begin with this batch."""
    folder = chunk_folder(first)
    _delete_all(storage, [f"{folder}/{name}" for name in storage.names(folder)])


def drop_orphaned_parts(storage: Storage, state: OutputState) -> OutputState:
    """Remove parts that an orphan of a killed run committed after their move to ``metadata/``."""
    orphans = {batch for batch in state.parts if state.has_moved(batch)}
    _delete_all(storage, map(part_path, sorted(orphans)))
    return replace(state, parts=NumberSet.of(n for n in state.parts if n not in orphans))


@dataclass(frozen=True)
class Move:
    """The parts of one chunk, to be merged into a file of ``metadata/``."""

    chunk: BatchRange
    parts: tuple[int, ...]
    """Parts that are committed and not yet moved."""


def close_plan(
    storage: Storage,
    state: OutputState,
    move_all: Callable[[Iterator[Move]], object] | None = None,
) -> OutputState:
    """Move the last plan's rows to ``metadata/``, as far as its batches are committed.

    ``move_all`` executes each move as it arrives, perhaps elsewhere, and returns when all are done.
    By default, the moves are executed here.
    """
    plan = state.plan
    assert plan is not None
    moves = _moves(storage, state, plan)
    if move_all is not None:
        move_all(moves)
    else:
        for move in moves:
            moved(storage, move)
    now = OutputState.load(storage)
    names = "".join(f"{chunk.file_name}\n" for chunk in now.metadata)
    storage.create(closed_path(plan.first), names.encode())
    return replace(now, closed=True)


def _moves(storage: Storage, state: OutputState, plan: Plan) -> Iterator[Move]:
    """Each chunk with parts, once the rows that it replaces are gone for good."""
    old = _old_spans(storage, state, plan)
    _delete_stale_outputs(storage, state, plan, old)
    for step in replaced_by(storage, plan, old, state.parts):
        if isinstance(step, OldFile):
            _remove_rows(storage, step)
        elif parts := tuple(n for n in step.numbers() if n in state.parts):
            storage.sync()
            yield Move(step, parts)


def _old_spans(storage: Storage, state: OutputState, plan: Plan) -> list[Span]:
    """The files that may lose rows; if everything is new, none is opened."""
    return old_spans(storage, state, plan) if plan.replaces_any(storage) else []


@dataclass(frozen=True)
class Held:
    """The rows that an output holds."""

    rows: Tally = field(default_factory=Tally)
    new: Tally = field(default_factory=Tally)
    """Rows of new batches only: those from a given batch on."""

    def add(self, tally: Tally, is_new: bool) -> Held:
        """These rows plus more, of new or other batches."""
        return Held(self.rows + tally, self.new + tally if is_new else self.new)


def held_rows(
    storage: Storage,
    methods: Iterable[Method],
    within_s: float | None = None,
    since: float = math.inf,
) -> Held | None:
    """Count the rows that an output holds, except those that already have a replacement.

    ``since``: the first batch that is new. None if counting takes longer than ``within_s`` seconds.
    """
    state = OutputState.load(storage)
    deadline = math.inf if within_s is None else time.monotonic() + within_s
    held = Held()
    for path in state.record_files:
        held = held.add(tally(storage, path, methods), range_of(path).first >= since)
        if time.monotonic() > deadline:
            return None
    if (plan := state.unfinished) is not None:
        for step in replaced_by(storage, plan, _old_spans(storage, state, plan), state.parts):
            if isinstance(step, OldFile) and step.replaced is not None:
                lost = step.lost_rows(storage, ["method", *TALLY_COLUMNS])
                less = Tally() - Tally.of(of_methods(lost, methods))
                held = held.add(less, range_of(step.path).first >= since)
            if time.monotonic() > deadline:
                return None
    return held


def _delete_stale_outputs(
    storage: Storage, state: OutputState, plan: Plan, old: Sequence[Span]
) -> None:
    """Delete outputs that replaced rows name and that no new row does.

    An input that has become unreadable must not keep the image of its earlier version, nor may
    one that is now written in another format.
    """
    # Chunk by chunk, so that the set stays small; what is left may belong to another chunk.
    stale: set[str] = set()
    for step in replaced_by(storage, plan, old, state.parts):
        if isinstance(step, BatchRange):
            if stale:
                stale.difference_update(_new_outputs(storage, state, step))
        elif step.replaced is not None:
            stale.update(_written(step.lost_rows(storage, _OF_OUTPUTS)))
    if stale:
        for chunk in plan.chunks:
            stale.difference_update(_new_outputs(storage, state, chunk))
    for path in filter(is_output_path, sorted(stale)):
        storage.delete(path)


def _new_outputs(storage: Storage, state: OutputState, chunk: BatchRange) -> Iterator[str]:
    """The outputs of a chunk's new rows, wherever these are."""
    paths = [metadata_path(chunk)] if chunk in state.metadata else _parts_of(state, chunk)
    for path in paths:
        yield from _written(read_records(storage, path, _OF_OUTPUTS))


def _written(rows: pa.Table) -> Iterator[str]:
    """The files that rows describe: images, and containers, even if all their images failed."""
    yield from rows["output"].drop_null().unique().to_pylist()
    inside = rows.filter(pc.is_valid(rows["container_output_sha256"]))
    pairs = inside.group_by(["method", "container"]).aggregate([])
    yield from map(container_output, *(pairs[n].to_pylist() for n in ("method", "container")))


def _remove_rows(storage: Storage, old: OldFile) -> None:
    if old.replaced is None:
        return
    kept = old.kept_rows(read_records(storage, old.path))
    if kept.num_rows:
        permissions = storage.permissions(old.path)
        storage.write(old.path, to_parquet(kept, old.path), permissions)
    else:
        storage.delete(old.path)


def moved(storage: Storage, move: Move) -> None:
    """Merge the parts of a chunk into one file; safe if that was begun, or is done."""
    path = metadata_path(move.chunk)
    parts = [part_path(number) for number in move.parts]
    if not storage.is_file(path):
        with Pool(REQUESTS_AT_ONCE) as pool:  # each request takes a while
            tables = list(pool.map(partial(read_records, storage), parts))
        permissions = permissions_of_records(storage, parts)
        storage.write(path, to_parquet(joined(tables), path), permissions)
        storage.sync()
    _delete_all(storage, parts)


def _parts_of(state: OutputState, chunk: BatchRange) -> list[str]:
    return [part_path(batch) for batch in chunk.numbers() if batch in state.parts]


def _delete_all(storage: Storage, paths: Iterable[str]) -> None:
    with Pool(REQUESTS_AT_ONCE) as pool:
        list(pool.map(storage.delete, paths))
