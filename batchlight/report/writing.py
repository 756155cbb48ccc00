"""The digest, the charts and the pictures as one page, which needs nothing beside itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from batchlight.images.names import passed_over_in_words
from batchlight.output.fence import fenced_for_worker
from batchlight.output.inputs import DataSet
from batchlight.output.layout import REPORT
from batchlight.output.plan import Plan
from batchlight.output.records import STAGES
from batchlight.output.state import OutputState
from batchlight.report import charts
from batchlight.report.digest import Digest, FailedImage, MethodDigest, RunDigest, digest
from batchlight.report.pictures import Album, Pair
from batchlight.report.rendering import render
from batchlight.storage import EVERYONE, Location, Storage, open_storage
from batchlight.storage.base import escape_controls

RUNS_SHOWN = 10

_SAMPLE = {"sample": "A sample of all"}
_EXTREMES = {
    "darkest": "The darkest originals",
    "changed": "Those that changed most",
    "clipped": "Those with the most clipped samples",
    "skipped": "The darkest of those that are not dark",
}


def reported_since(storage: Storage, plan: Plan) -> bool:
    """Whether the report of an output was made when all of its last plan was there."""
    try:
        made = storage.stat(REPORT).modified
    except FileNotFoundError:
        return False
    closed = plan.closed_at(storage)
    return closed is None or (made is not None and made >= closed)


@dataclass(frozen=True)
class _Shown:
    """A picture before and after, and the record it belongs to."""

    row: Mapping[str, Any]
    pair: Pair

    @property
    def facts(self) -> str:
        """What is on record of it; records of other versions may lack some."""
        facts = {
            "{method}": ("method",),
            "{width}×{height}": ("width", "height"),
            "luminance {luminance_before:.2f} → {luminance_after:.2f}": (
                *("luminance_before", "luminance_after"),
            ),
            "clipped {clipped_fraction:.1%}": ("clipped_fraction",),
            "light {atmospheric_light:.0f}": ("atmospheric_light",),
        }
        return " · ".join(
            fact.format(**self.row)
            for fact, names in facts.items()
            if all(self.row[name] is not None for name in names)
        )


@dataclass(frozen=True)
class _Failures:
    """The failed images of one code, of which those that are listed may be only the first."""

    code: str
    count: int
    listed: Sequence[FailedImage]

    @property
    def paths(self) -> str:
        """What the button copies, a path a line."""
        return "\n".join(dict.fromkeys(escape_controls(image.input) for image in self.listed))


@dataclass(frozen=True)
class _Method:
    """What is told of one method."""

    name: str
    digest: MethodDigest
    luminance_chart: str

    @property
    def luminance(self) -> tuple[float, float]:
        """The mean, before and after."""
        before, after = self.digest.luminance
        return before / self.digest.tally.ok, after / self.digest.tally.ok

    @property
    def stages(self) -> Sequence[tuple[str, float, float]]:
        """Of each stage its name, its mean milliseconds, and its share of them all."""
        total = sum(self.digest.stages_ms) or 1.0
        return [
            (name.removesuffix("_ms"), value / self.digest.tally.ok, value / total)
            for name, value in zip(STAGES, self.digest.stages_ms, strict=True)
        ]


def write_report(output: Location, data_set: DataSet | None = None, lock: int | None = None) -> str:
    """Make the report of an output and put it there; returns where it is.

    Reads the records and the images that it shows, nothing else; originals only of ``data_set``,
    since what the output itself says of them may come from anybody. ``lock``: the number of the
    lock under which a run writes it. Raises ``StorageError``, and ``LockedError`` if that lock is
    lost.
    """
    storage = open_storage(output)
    if lock is not None:
        storage = fenced_for_worker(storage, lock, str(output))
    state = OutputState.load(storage)
    found = digest(storage, state.record_files)
    album = Album(storage, state, data_set)
    readers = EVERYONE
    for path in state.record_files:
        readers &= storage.readers(path)

    def shown(titles: Mapping[str, str]) -> Mapping[str, Sequence[_Shown]]:
        rows = {title: found.selections.get(why, ()) for why, title in titles.items()}
        return {
            t: [_Shown(row, album.pair(row)) for row in some] for t, some in rows.items() if some
        }

    storage.write(
        REPORT,
        _page(
            found,
            output=str(output),
            root=state.plan.root if state.plan else "",
            passed_over=passed_over_in_words(state.plan.counts.passed_over) if state.plan else "",
            unfinished=state.unfinished is not None,
            sample=shown(_SAMPLE),
            extremes=shown(_EXTREMES),
        ).encode(),
        readers,
    )
    return str(output.joined(REPORT))


def _page(found: Digest, **facts: Any) -> str:
    counts = dict(found.tally.failed_by_code)
    runs = sorted(found.runs.values(), key=attrgetter("last"), reverse=True)
    return render(
        "page.html",
        ["page.css"],
        ["page.js"],
        **facts,
        tally=found.tally,
        methods=[
            _Method(name, method, charts.luminance(method.before, method.after))
            for name, method in sorted(found.methods.items())
            if method.tally.ok
        ],
        light=_described_light(found),
        light_chart=charts.light(found.light),
        last_run=found.last_run,
        pace=_pace(found.last_run),
        pace_chart=charts.pace(found.pace) if found.pace.index.size else "",
        runs=runs[:RUNS_SHOWN],
        runs_before=len(runs[RUNS_SHOWN:]),
        failures=[
            _Failures(code, count, found.failures.get(code, ()))
            for code, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        ],
    )


def _pace(run: RunDigest | None) -> float:
    """Images per second of a run, from the first that it finished to the last."""
    lasted = (run.last - run.first).total_seconds() if run else 0.0
    return run.images / lasted if run and lasted else 0.0


def _described_light(found: Digest) -> str:
    """The curve in words, for who cannot see it."""
    bins = found.light
    if not bins.index.size:
        return ""
    mean = float(np.average(bins.mean, weights=bins.count))
    return f"from {bins.low.min():.1f} to {bins.high.max():.1f}, on average {mean:.1f} of 255"
