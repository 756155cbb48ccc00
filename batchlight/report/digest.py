"""What the records say, read file by file; memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchlight.output.recordfiles import read_records
from batchlight.output.records import STAGES, TALLY_COLUMNS, Tally
from batchlight.report.bins import Bins, Floats, Integers
from batchlight.report.folders import Folders
from batchlight.report.selections import SHOWN, Selections
from batchlight.storage import Storage

HISTOGRAM_BINS = 64
LIGHT_BINS = 256
PACE_BINS = 64
FAILURES_BYTES = 24_000
"""Budget for the failures listed under each code."""
MARKUP_BYTES = 100
"""Overhead of each path and reason."""

_COLUMNS = (
    *(name for name in TALLY_COLUMNS if name not in SHOWN),
    *(*SHOWN, *STAGES, "batch_atmospheric_light", "error", "run_id", "finished_at"),
)


@dataclass(frozen=True, eq=False)
class MethodDigest:
    """The results of one method on the data set."""

    tally: Tally = field(default_factory=Tally)
    before: Integers = field(default_factory=lambda: np.zeros(HISTOGRAM_BINS, np.int64))
    """Number of images by mean luminance, 0..1 in equal bins."""
    after: Integers = field(default_factory=lambda: np.zeros(HISTOGRAM_BINS, np.int64))
    luminance: tuple[float, float] = (0.0, 0.0)
    """Sums of the luminance of the enhanced images, before and after."""
    stages_ms: tuple[float, ...] = (0.0,) * len(STAGES)
    """Sums over the enhanced images, in the order of ``STAGES``."""

    def added(self, table: pa.Table) -> MethodDigest:
        """With more rows of this method added."""
        done = table.filter(pc.equal(table["status"], "ok"))
        before, after = _floats(done["luminance_before"]), _floats(done["luminance_after"])
        return MethodDigest(
            self.tally + Tally.of(table),
            self.before + _histogram(before),
            self.after + _histogram(after),
            (
                self.luminance[0] + float(np.nansum(before)),
                self.luminance[1] + float(np.nansum(after)),
            ),
            tuple(
                total + float(np.nansum(_floats(done[name])))
                for total, name in zip(self.stages_ms, STAGES, strict=True)
            ),
        )


@dataclass(frozen=True)
class RunDigest:
    """What one run left in the records."""

    run_id: str
    first: datetime
    last: datetime
    images: int
    failed: int

    def joined(self, other: RunDigest) -> RunDigest:
        """With more of the same run added."""
        return RunDigest(
            self.run_id,
            min(self.first, other.first),
            max(self.last, other.last),
            self.images + other.images,
            self.failed + other.failed,
        )


@dataclass(frozen=True)
class FailedImage:
    """An image that needs attention."""

    input: str
    method: str
    error: str
    row: Mapping[str, Any]
    """The columns ``SHOWN``."""


@dataclass(frozen=True, eq=False)
class Digest:
    """Everything that the report says, except the pictures."""

    methods: Mapping[str, MethodDigest] = field(default_factory=dict)
    light: Bins = field(default_factory=partial(Bins, LIGHT_BINS))
    """The batches' atmospheric light, by batch number; only the classical method uses one."""
    runs: Mapping[str, RunDigest] = field(default_factory=dict)
    pace: Bins = field(default_factory=partial(Bins, PACE_BINS))
    """The images that the last run finished, by millisecond since 1970."""
    failures: Mapping[str, tuple[FailedImage, ...]] = field(default_factory=dict)
    """By code, as many as are shown."""
    read_bytes: int = 0
    """Bytes of the inputs; an image processed by two methods at once counts once."""
    folders: Folders = field(default_factory=Folders)
    selections: Selections = field(default_factory=Selections)
    """The images whose pictures are shown."""

    def added(self, table: pa.Table) -> Digest:
        """With the rows of one more file added."""
        methods = dict(self.methods)
        for method in pc.unique(table["method"]).to_pylist():
            rows = table.filter(pc.equal(table["method"], method))
            methods[method] = methods.get(method, MethodDigest()).added(rows)
        lit = table.filter(
            pc.and_(
                pc.is_valid(table["batch_atmospheric_light"]),
                pc.equal(table["method"], "classical"),
            )
        )
        runs, pace = self._runs_with(table)
        return replace(
            self,
            methods=methods,
            light=self.light.added(
                lit["batch"].to_numpy(), _floats(lit["batch_atmospheric_light"])
            ),
            runs=runs,
            pace=pace,
            read_bytes=self.read_bytes + _read_bytes(table),
            folders=self.folders.added(table),
            selections=self.selections.added(table),
            failures=_failures(self.failures, table.filter(pc.equal(table["status"], "failed"))),
        )

    def _runs_with(self, table: pa.Table) -> tuple[Mapping[str, RunDigest], Bins]:
        """The runs, and the speed of the last of them."""
        runs, pace, last = dict(self.runs), self.pace, self.last_run
        table = table.filter(pc.and_(*(pc.is_valid(table[n]) for n in ("run_id", "finished_at"))))
        for run_id in pc.unique(table["run_id"]).to_pylist():
            rows = table.filter(pc.equal(table["run_id"], run_id))
            ends = pc.min_max(rows["finished_at"]).as_py()
            failed = Tally.of(rows).failed
            more = RunDigest(run_id, ends["min"], ends["max"], rows.num_rows, failed)
            runs[run_id] = runs[run_id].joined(more) if run_id in runs else more
            if last is None or last.run_id != run_id:
                if last is not None and last.last > more.last:
                    continue
                pace = Bins(PACE_BINS)
            last = runs[run_id]
            pace = pace.added(_milliseconds(rows["finished_at"]), np.ones(rows.num_rows))
        return runs, pace

    @property
    def tally(self) -> Tally:
        """Total over all methods."""
        return sum((method.tally for method in self.methods.values()), Tally())

    @property
    def last_run(self) -> RunDigest | None:
        """The run that ended last."""
        return max(self.runs.values(), key=lambda run: run.last, default=None)


def digest(storage: Storage, paths: Sequence[str]) -> Digest:
    """Read these files of records once, ignoring copied other files. Raises ``StorageError``."""
    found = Digest()
    for path in paths:
        table = read_records(storage, path, _COLUMNS)
        found = found.added(table.filter(pc.not_equal(table["status"], "copied")))
    return found


def _read_bytes(table: pa.Table) -> int:
    if len(pc.unique(table["method"])) == 1:
        return pc.sum(table["input_bytes"]).as_py() or 0
    once = table.group_by(["batch", "input"]).aggregate([("input_bytes", "max")])
    return pc.sum(once["input_bytes_max"]).as_py() or 0


def _histogram(luminance: Floats) -> Integers:
    counts, _ = np.histogram(luminance, HISTOGRAM_BINS, (0.0, 1.0))
    return counts.astype(np.int64)


def _floats(column: pa.ChunkedArray) -> Floats:
    """As numbers, with NaN for null."""
    return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)


def _milliseconds(column: pa.ChunkedArray) -> Integers:
    """Since 1970."""
    return np.asarray(column.cast(pa.int64()).to_numpy(), np.int64) // 1_000


def _failures(
    known: Mapping[str, tuple[FailedImage, ...]], failed: pa.Table
) -> Mapping[str, tuple[FailedImage, ...]]:
    """With the first of more failed rows added, as long as their code's budget allows."""
    found = {code: list(images) for code, images in known.items()}
    room = {code: FAILURES_BYTES - sum(map(_size, images)) for code, images in known.items()}
    for code in pc.unique(failed["error_code"]).to_pylist():
        rows = failed.filter(pc.equal(failed["error_code"], code))
        for row in (
            rows.select([*SHOWN, "error"]).slice(0, FAILURES_BYTES // MARKUP_BYTES).to_pylist()
        ):
            image = FailedImage(row["input"], row["method"], row["error"] or "", row)
            left = room.get(code, FAILURES_BYTES) - _size(image)
            if left < 0:
                break
            room[code] = left
            found.setdefault(code, []).append(image)
    return {code: tuple(images) for code, images in found.items()}


def _size(image: FailedImage) -> int:
    """Bytes of a path, which appears on the page twice, and its reason."""
    return 2 * len(image.input.encode()) + len(image.error.encode()) + MARKUP_BYTES
