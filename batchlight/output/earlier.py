"""What earlier runs recorded, in the order of a listing."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

from batchlight.config import Method
from batchlight.output.layout import BatchRange, metadata_path, part_path
from batchlight.output.recordfiles import read_records
from batchlight.output.records import joined
from batchlight.output.state import OutputState
from batchlight.storage import Storage


@dataclass(frozen=True)
class Earlier:
    """What an earlier run recorded of one (input, method)."""

    path: str
    """Of the input."""
    method: Method
    status: str
    failed_with: str | None
    """A code, perhaps of a later version."""
    size: int | None
    modified: datetime | None
    etag: str | None
    fingerprint: str
    output: str | None
    output_bytes: int | None
    batch: int
    lost: tuple[str, ...] = ()


ROWS_AT_ONCE = 4096
"""Earlier records that are Python objects at one time."""


def earlier_rows(storage: Storage, state: OutputState) -> Iterator[Earlier]:
    """The records of earlier runs, in the order of their inputs.

    The chunks of one plan hold ascending ranges of inputs, so that a plan is one sorted stream of
    which one chunk at a time is in memory; only the streams of the plans need to be merged.
    """
    chunks = [(chunk, [metadata_path(chunk)]) for chunk in state.metadata]
    if state.unfinished is not None:
        chunks += [
            (chunk, [part_path(number) for number in chunk.numbers() if number in state.parts])
            for chunk in state.unfinished.chunks
            if chunk not in state.metadata
        ]

    def stream(item: tuple[BatchRange, list[str]]) -> tuple[int, int]:
        """Of a file its plan; if that is not known any more, it is a stream by itself."""
        plan = bisect_right(state.plans, item[0].first)
        return plan, 0 if plan else item[0].first

    streams = groupby(sorted(chunks), key=stream)
    return heapq.merge(
        *(_stream(storage, [paths for _, paths in members]) for _, members in streams),
        key=attrgetter("path"),
    )


def _stream(storage: Storage, chunks: list[list[str]]) -> Iterator[Earlier]:
    recorded = ("input_bytes", "input_modified", "input_etag", "output", "output_bytes")
    of_row = ("input", "method", "status", "error_code", "fingerprint")
    columns = (*of_row, *recorded, "batch", "lost")
    for paths in chunks:
        tables = [read_records(storage, path, columns) for path in paths]
        if not tables:
            continue
        for batch in joined(tables).to_batches(max_chunksize=ROWS_AT_ONCE):
            yield from map(_as_earlier, batch.to_pylist())


def _as_earlier(row: dict[str, Any]) -> Earlier:
    return Earlier(
        row["input"],
        row["method"],
        row["status"],
        row["error_code"],
        row["input_bytes"],
        row["input_modified"],
        row["input_etag"],
        row["fingerprint"],
        row["output"],
        row["output_bytes"],
        row["batch"],
        tuple(row["lost"] or ()),
    )
