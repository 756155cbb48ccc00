"""The end of a plan: its rows move from parts to ``metadata/``, and replace the old ones there.

In this order, so that it can be repeated after a crash at any point: outputs that are no longer
true are deleted, old rows are removed, new rows are moved, the plan is marked as closed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from batchlight.output.plan import Plan
from batchlight.output.recordfiles import (
    BatchRange,
    committed_batches,
    compact,
    metadata_path,
    metadata_ranges,
    old_rows,
    part_path,
    read_table,
    remove_rows,
)
from batchlight.output.records import Tally
from batchlight.storage import Storage


def close_plan(storage: Storage, plan: Plan) -> None:
    """Move a plan's rows to ``metadata/``, as far as its batches are committed."""
    committed = committed_batches(storage)
    moved = set(metadata_ranges(storage))
    _delete_stale_outputs(storage, plan, committed, moved)
    for chunk, keys in replaced_keys(storage, plan, committed):
        remove_rows(storage, keys, before=plan.first)
        compact(storage, chunk, committed, moved=chunk in moved)
    plan.close(storage, metadata_ranges(storage))


def replaced_tally(storage: Storage, plan: Plan) -> Tally:
    """Count the old rows that already have a replacement, while a plan is not closed."""
    total = Tally()
    for _, keys in replaced_keys(storage, plan, committed_batches(storage)):
        for old in old_rows(storage, keys, before=plan.first):
            total += Tally.of(old)
    return total


def _delete_stale_outputs(
    storage: Storage, plan: Plan, committed: set[int], moved: set[BatchRange]
) -> None:
    """Delete what replaced rows named as their output and no new row does.

    An input that has become unreadable must not keep the image of what it was before, nor one that
    is now written in another format.
    """

    def outputs(chunk: BatchRange) -> Iterator[str]:
        """Of a chunk's new rows, wherever these stand."""
        parts = [part_path(number) for number in chunk.numbers() if number in committed]
        for path in [metadata_path(chunk)] if chunk in moved else parts:
            yield from read_table(storage, path, ["output"])["output"].to_pylist()

    # Chunk by chunk, so that the set stays small; what is left, another chunk may have written.
    stale: set[str] = set()
    for chunk, keys in replaced_keys(storage, plan, committed):
        for old in old_rows(storage, keys, before=plan.first):
            stale.update(old["output"].drop_null().to_pylist())
        if stale:
            stale.difference_update(outputs(chunk))
    if stale:
        for chunk in plan.chunks:
            stale.difference_update(outputs(chunk))
    for path in sorted(stale):
        storage.delete(path)


def replaced_keys(
    storage: Storage, plan: Plan, committed: set[int] | None = None
) -> Iterator[tuple[BatchRange, pa.Table]]:
    """Per chunk of a plan, the (input, method) pairs whose old rows its parts replace.

    Those of the batches that are committed; by default of all, committed or not.
    """
    for chunk in plan.chunks:
        rows = plan.read_chunk(storage, chunk)
        replaced = rows.filter(rows["again"])
        if committed is not None:
            done = pa.array(committed, pa.int64())
            replaced = replaced.filter(pc.is_in(replaced["batch"], done))
        yield chunk, _keys(replaced)


def _keys(rows: pa.Table) -> pa.Table:
    """One row per (input, method) of plan rows that hold lists of methods."""
    parents = pc.list_parent_indices(rows["methods"])
    return pa.table(
        {"input": rows["input"].take(parents), "method": pc.list_flatten(rows["methods"])}
    )
