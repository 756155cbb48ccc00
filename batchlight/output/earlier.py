"""What earlier runs recorded, in the order of a listing."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from itertools import groupby
from operator import attrgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchlight.config import Method
from batchlight.errors import is_permanent
from batchlight.host.abandoned import Pool
from batchlight.output.layout import BatchRange, container_output, metadata_path, part_path
from batchlight.output.recordfiles import input_span, read_records
from batchlight.output.records import Tally, joined
from batchlight.output.state import OutputState
from batchlight.storage import KeyRange, Storage


@dataclass(frozen=True)
class Earlier:
    """What an earlier run recorded for one (input, method)."""

    path: str
    """Path of the input."""
    method: Method
    status: str
    failed_with: str | None
    """An error code, perhaps of a later version."""
    size: int | None
    modified: datetime | None
    etag: str | None
    fingerprint: str
    output: str | None
    output_bytes: int | None
    batch: int
    lost: tuple[str, ...] = ()
    of_container: Tally | None = None
    """For a container: the tally of its rows."""

    @property
    def key(self) -> str:
        """Like ``Input.key``."""
        return self.path if self.of_container is None else f"{self.path}/"

    @property
    def tally(self) -> Tally:
        """The tally of its rows."""
        if self.of_container is not None:
            return self.of_container
        skipped, copied = self.status == "skipped", self.status == "copied"
        codes = ((self.failed_with, 1),) if self.failed_with else ()
        ok = not (skipped or copied or codes)
        lost = tuple((name, 1) for name in self.lost)
        return Tally(
            ok=int(ok),
            failed_by_code=codes,
            input_bytes=self.size or 0,
            output_bytes=self.output_bytes or 0,
            skipped=int(skipped),
            lost_by_name=lost,
            copied=int(copied),
        )


_OF_IMAGES = (
    "input",
    "method",
    "status",
    "error_code",
    "input_bytes",
    "input_modified",
    "input_etag",
    "fingerprint",
    "output",
    "output_bytes",
    "batch",
    "lost",
)
"""Columns that the fields of an ``Earlier`` come from, in the order of the fields."""
EVERY_KEY = KeyRange()
FOOTERS_AT_ONCE = 16
ROWS_AT_ONCE = 4096
"""Earlier records that are held as Python objects at a time."""


def earlier_rows(storage: Storage, state: OutputState) -> Iterator[Earlier]:
    """The records of earlier runs, in the order of their inputs.

    The chunks of one plan hold ascending ranges of inputs, so a plan is one sorted stream, with one
    chunk in memory at a time; only the streams of different plans need to be merged.
    """
    chunks = [(chunk, [metadata_path(chunk)]) for chunk in state.metadata]
    if state.unfinished is not None:
        chunks += [
            (chunk, [part_path(number) for number in chunk.numbers() if number in state.parts])
            for chunk in state.unfinished.chunks
            if chunk not in state.metadata
        ]
    streams = _by_plan(state, chunks)
    return heapq.merge(*(_stream(storage, s) for s in streams), key=attrgetter("key"))


def _by_plan(
    state: OutputState, chunks: Iterable[tuple[BatchRange, list[str]]]
) -> list[list[list[str]]]:
    """The files of each chunk, those of one plan together and in order."""

    def stream(item: tuple[BatchRange, list[str]]) -> tuple[int, int]:
        """The plan of a file; if that is no longer known, the file is a stream by itself."""
        plan = bisect_right(state.plans, item[0].first)
        return plan, 0 if plan else item[0].first

    streams = groupby(sorted(chunks), key=stream)
    return [[paths for _, paths in members] for _, members in streams]


Streams = Sequence[Sequence[str]]
"""Files of records, those of one plan together and in order."""


class EarlierFiles:
    """Finds the files that hold the records of a range of inputs.

    It looks at all files once, before the second part of a listing. Later, while further parts are
    compared, the first plans are closed, which removes files whose rows were all replaced. No part
    needs these, since it comes after the inputs of all stored plans.
    """

    def __init__(self, storage: Storage, state: OutputState) -> None:
        """``state``: with its last plan closed."""
        self._storage = storage
        chunks = ((chunk, [metadata_path(chunk)]) for chunk in state.metadata)
        self._streams = [[path for [path] in files] for files in _by_plan(state, chunks)]

    @cached_property
    def _spans(self) -> Mapping[str, tuple[str, str]]:
        paths = [path for files in self._streams for path in files]
        with Pool(FOOTERS_AT_ONCE) as pool:
            spans = pool.map(partial(input_span, self._storage), paths)
            return dict(zip(paths, spans, strict=True))

    def within(self, keys: KeyRange) -> Streams:
        """The files with records of inputs in a range. Raises ``DamagedRecordsError``."""
        return [found for files in self._streams if (found := self._among(files, keys))]

    def _among(self, files: Sequence[str], keys: KeyRange) -> Sequence[str]:
        begin, end = 0, len(files)
        if keys.after:
            begin = bisect_right(files, keys.after, key=lambda path: self._spans[path][1])
        if keys.up_to is not None:
            end = bisect_right(files, keys.up_to, begin, key=lambda path: self._spans[path][0])
        return files[begin:end]


def rows_within(storage: Storage, streams: Streams, keys: KeyRange) -> Iterator[Earlier]:
    """The records of a range of inputs, from the files that ``EarlierFiles`` has found."""
    rows = (_stream(storage, [[path] for path in files], keys) for files in streams)
    for row in heapq.merge(*rows, key=attrgetter("key")):
        if keys.up_to is not None and row.key > keys.up_to:
            return
        if row.key > keys.after:
            yield row


def _stream(
    storage: Storage, chunks: list[list[str]], keys: KeyRange = EVERY_KEY
) -> Iterator[Earlier]:
    """The records of chunks; of images, at most those in a range need be given."""
    columns = (*_OF_IMAGES, "container", "container_bytes")
    for paths in chunks:
        tables = [read_records(storage, path, columns) for path in paths]
        if not tables:
            continue
        rows = joined(tables)
        inside = pc.is_valid(rows["container"])
        containers = _containers(rows.filter(inside))
        images = _in_range(rows.filter(pc.invert(inside)), keys)
        yield from heapq.merge(_images(images), containers, key=attrgetter("key"))


def _in_range(images: pa.Table, keys: KeyRange) -> pa.Table:
    if keys.after:
        images = images.filter(pc.greater(images["input"], keys.after))
    if keys.up_to is not None:
        images = images.filter(pc.less_equal(images["input"], keys.up_to))
    return images


def _images(rows: pa.Table) -> Iterator[Earlier]:
    for batch in rows.to_batches(max_chunksize=ROWS_AT_ONCE):
        *columns, lost = (batch[name].to_pylist() for name in _OF_IMAGES)
        yield from map(Earlier, *columns, (tuple(names or ()) for names in lost))


def _containers(rows: pa.Table) -> list[Earlier]:
    """One for each container and method."""
    first = ("container_bytes", "input_modified", "input_etag", "fingerprint", "batch")
    kinds = rows.group_by(
        ["container", "method", "status", "error_code"], use_threads=False
    ).aggregate(
        [
            ("input", "count"),
            ("input_bytes", "sum"),
            ("output_bytes", "sum"),
            *((name, "first") for name in first),
        ]
    )
    found: dict[tuple[str, Method], list[dict[str, Any]]] = {}
    for row in kinds.to_pylist():
        found.setdefault((row["container"], row["method"]), []).append(row)
    lost = _lost_in_containers(rows)
    earlier = [_as_container(*key, kinds, tuple(lost[key])) for key, kinds in found.items()]
    return sorted(earlier, key=lambda item: (item.key, item.method))


def _lost_in_containers(rows: pa.Table) -> dict[tuple[str, Method], list[tuple[str, int]]]:
    """How many images lost what, for each container and method."""
    keys = rows.select(["container", "method"]).take(pc.list_parent_indices(rows["lost"]))
    table = keys.append_column("name", pc.list_flatten(rows["lost"]))
    counts = table.group_by(["container", "method", "name"]).aggregate([([], "count_all")])
    found: defaultdict[tuple[str, Method], list[tuple[str, int]]] = defaultdict(list)
    for row in counts.sort_by("name").to_pylist():
        found[row["container"], row["method"]].append((row["name"], row["count_all"]))
    return found


def _as_container(
    path: str,
    method: Method,
    kinds: list[dict[str, Any]],
    lost: tuple[tuple[str, int], ...],
) -> Earlier:
    """``kinds``: rows of one container, counted by status and code."""
    counts = {row["error_code"]: row["input_count"] for row in kinds if row["status"] == "failed"}
    # A failure that every run redoes takes precedence.
    code = min(counts, key=lambda code: (is_permanent(code), code), default=None)
    by_status = {row["status"]: row["input_count"] for row in kinds}
    rows = sum(row["input_count"] for row in kinds)
    tally = Tally(
        ok=by_status.get("ok", 0),
        failed_by_code=tuple(sorted(counts.items())),
        input_bytes=sum(row["input_bytes_sum"] or 0 for row in kinds),
        output_bytes=sum(row["output_bytes_sum"] or 0 for row in kinds),
        skipped=by_status.get("skipped", 0),
        lost_by_name=lost,
        in_containers=rows,
        containers=1,
    )
    return Earlier(
        path,
        method,
        "failed" if counts else "ok",
        code,
        kinds[0]["container_bytes_first"],
        kinds[0]["input_modified_first"],
        kinds[0]["input_etag_first"],
        kinds[0]["fingerprint_first"],
        container_output(method, path),
        tally.output_bytes,
        kinds[0]["batch_first"],
        of_container=tally,
    )
