"""The plans of a listing, written chunk by chunk and one after the other.

A small data set has one. For a large one, the first images are done while the next plan is
drafted, so nothing waits for the end of the listing. At most two plans are ever under way.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchlight.config import Method
from batchlight.errors import UsageError
from batchlight.host.abandoned import begun, this_call
from batchlight.host.process import relaxed_gc
from batchlight.output.chunks import PlannedBatch, write_chunk
from batchlight.output.commit import drop_drafts
from batchlight.output.layout import BatchRange
from batchlight.output.plan import Plan, PlanCounts
from batchlight.output.state import OutputState
from batchlight.planning.cutting import CHUNKS_OF_FIRST_PLAN, CHUNKS_OF_PLAN, Stretch
from batchlight.planning.planner import Planner
from batchlight.storage import Storage


def draft_plans(
    storage: Storage,
    state: OutputState,
    planner: Planner,
    stretches: Iterator[Stretch],
    root: str,
    growth: int = 2,
) -> Iterator[Plan]:
    """Write plans of what there is to do.

    A plan has no effect until it is stored; the caller stores them in order. ``stretches``: a
    listing compared with the earlier records. ``root``: what the paths are relative to.
    ``growth``: how many times as large as the previous plan each may be. Raises ``UsageError`` as
    ``Comparison.stretches`` does.
    """
    fingerprints = {**(state.plan.fingerprints if state.plan else {}), **planner.fingerprints}
    before = PlanCounts()
    draft = _Draft(storage, state.next_batch)
    # The rows of an unfinished plan are read here until the first of these plans is stored; then
    # they are moved. So the first plan takes everything.
    most = math.inf if state.unfinished else CHUNKS_OF_FIRST_PLAN

    def plan(found: PlanCounts, continues_after: str | None) -> Plan:
        return Plan(
            first=draft.first,
            counts=replace(found - before, **draft.counts),
            rows=draft.rows.total(),
            rows_by_method=dict(draft.rows),
            root=root,
            overwrite=planner.config.overwrite,
            fingerprints=fingerprints,
            methods=tuple(sorted(draft.rows)),
            chunks=tuple(draft.chunks),
            member_rules=planner.config.member_rules,
            batch_size=planner.batch_size,
            continues_after=continues_after,
        )

    try:
        with relaxed_gc():
            for chunk in planner.chunks(stretches, draft.first):
                if len(draft.chunks) == most:
                    yield (ended := plan(planner.counts_so_far, draft.last_key))
                    before += ended.counts
                    draft = _Draft(storage, ended.next_batch)
                    most = min(growth * most, CHUNKS_OF_PLAN)
                draft.add(chunk)
                del chunk  # only one is in memory at a time
    except UsageError:
        drop_drafts(storage, draft.first)
        raise
    if draft.chunks:
        yield plan(planner.counts, None)


_OF_ITS_OWN = ("batches", "todo", "todo_bytes", "todo_containers", "todo_others")
"""Counts of what a plan itself contains; the others include what the listing has read ahead."""


class _Draft:
    """A plan that is being written."""

    def __init__(self, storage: Storage, first: int) -> None:
        drop_drafts(storage, first)
        self._storage = storage
        self.first = first
        self.chunks: list[BatchRange] = []
        self.rows: Counter[Method] = Counter()
        """How many records of each method its batches will make."""
        self.counts: dict[str, Any] = dict.fromkeys(_OF_ITS_OWN, 0)
        self.last_key = ""

    def add(self, chunk: list[PlannedBatch]) -> None:
        this_call()()
        self.chunks.append(write_chunk(self._storage, self.first, chunk))
        self.counts["batches"] += len(chunk)
        for item in chunk:
            self._add(item)
        of_images = [item.rows["size"] for item in chunk if not item.kind.of_others]
        sizes = pa.chunked_array([part for size in of_images for part in size.chunks], pa.int64())
        self.counts["todo_bytes"] += pc.sum(sizes).as_py() or 0
        self.last_key = max(item.last_key for item in chunk)

    def _add(self, item: PlannedBatch) -> None:
        kind, files = item.kind, item.rows.num_rows
        self.rows.update(dict.fromkeys(kind.methods, files))
        self.counts["todo_others" if kind.of_others else "todo"] += files
        self.counts["todo_containers"] += kind.of_container


def each_while_the_next_is_drafted(plans: Iterator[Plan]) -> Generator[Plan, None, None]:
    """Pass plans on. Must be closed if not all are taken."""
    plan = next(plans, None)
    while plan is not None:
        if not plan.has_more:
            yield plan
            return
        with begun(lambda: next(plans, None)) as following:
            yield plan
            plan = following.result()
