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

import pyarrow as pa

from batchlight.config import Method
from batchlight.errors import ErrorCode
from batchlight.output.plan import _stored_plans, unfinished_plan
from batchlight.output.recordfiles import (
    committed_batches,
    metadata_path,
    metadata_ranges,
    part_path,
    read_table,
)
from batchlight.output.records import ORDER
from batchlight.storage import Storage


@dataclass(frozen=True)
class Earlier:
    """What an earlier run recorded of one (input, method)."""

    path: str
    """Of the input."""
    method: Method
    failed_with: ErrorCode | None
    size: int | None
    modified: datetime | None
    etag: str | None
    fingerprint: str
    output: str | None
    output_bytes: int | None


ROWS_AT_ONCE = 4096
"""Earlier records that are Python objects at one time."""


def earlier_rows(storage: Storage) -> Iterator[Earlier]:
    """The records of earlier runs, in the order of their inputs.

    The chunks of one plan hold ascending ranges of inputs, so that a plan is one sorted stream of
    which one chunk at a time is in memory; only the streams of the plans need to be merged.
    """
    plans = _stored_plans(storage)
    chunks = [(chunk, [metadata_path(chunk)]) for chunk in metadata_ranges(storage)]
    latest = unfinished_plan(storage)
    if latest is not None:
        moved = {chunk for chunk, _ in chunks}
        parts = committed_batches(storage)
        chunks += [
            (chunk, [part_path(number) for number in chunk.numbers() if number in parts])
            for chunk in latest.chunks
            if chunk not in moved
        ]
    streams = groupby(sorted(chunks), key=lambda item: bisect_right(plans, item[0].first))
    return heapq.merge(
        *(_stream(storage, [paths for _, paths in members]) for _, members in streams),
        key=attrgetter("path"),
    )


def _stream(storage: Storage, chunks: list[list[str]]) -> Iterator[Earlier]:
    recorded = ("input_bytes", "input_modified", "input_etag", "output", "output_bytes")
    columns = ("input", "method", "error_code", "fingerprint", *recorded)
    for paths in chunks:
        tables = [read_table(storage, path, columns) for path in paths]
        if not tables:
            continue
        table = pa.concat_tables(tables).sort_by(ORDER)
        for batch in table.to_batches(max_chunksize=ROWS_AT_ONCE):
            yield from map(_as_earlier, batch.to_pylist())


def _as_earlier(row: dict[str, Any]) -> Earlier:
    code = row["error_code"]
    return Earlier(
        row["input"],
        row["method"],
        None if code is None else ErrorCode(code),
        row["input_bytes"],
        row["input_modified"],
        row["input_etag"],
        row["fingerprint"],
        row["output"],
        row["output_bytes"],
    )
