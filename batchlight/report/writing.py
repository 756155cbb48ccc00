"""The digest, the charts and the pictures as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from batchlight.images.names import passed_over_in_words
from batchlight.output.fence import fenced_for_worker
from batchlight.output.inputs import DataSet
from batchlight.output.layout import REPORT, state_trouble
from batchlight.output.moving import read_whole
from batchlight.output.recordfiles import permissions_of_records
from batchlight.output.records import STAGES
from batchlight.output.state import OutputState
from batchlight.output.summary import Summary, read_summary
from batchlight.report import cards, charts, failures
from batchlight.report.cards import FileLinks
from batchlight.report.digest import Digest, MethodDigest, RunDigest, digest
from batchlight.report.ending import Ending
from batchlight.report.folders import FolderCounts
from batchlight.report.pictures import ByteBudget, PictureMaker
from batchlight.report.rendering import render
from batchlight.report.selections import REASONS, rows_of
from batchlight.storage import Location, Storage, open_storage

RUNS_SHOWN = 10
FOLDERS_SHOWN = 200
FOLDERS_BYTES = 24_000
"""Budget for the names of folders."""
PICTURES_BYTES = 1_750_000
"""Total for all pictures, before encoding as text, which adds a third."""
NAME_TIMES = 16
"""Upper limit for how often the name of a shown image appears on the page."""


@dataclass(frozen=True)
class _Method:
    """The facts about one method."""

    name: str
    digest: MethodDigest
    luminance_chart: str

    @property
    def luminance(self) -> tuple[float, float]:
        """The mean, before and after."""
        before, after = self.digest.luminance
        images = max(1, self.digest.tally.ok)
        return before / images, after / images

    @property
    def stages(self) -> Sequence[tuple[str, float, float]]:
        """For each stage its name, its mean milliseconds, and its share of the total."""
        total = sum(self.digest.stages_ms) or 1.0
        return [
            (name.removesuffix("_ms"), value / max(1, self.digest.tally.ok), value / total)
            for name, value in zip(STAGES, self.digest.stages_ms, strict=True)
        ]


@dataclass(frozen=True)
class _Folder:
    """The counts of one folder for one method."""

    name: str
    method: str
    counts: FolderCounts


def write_report(
    output: Location,
    data_set: DataSet | None = None,
    lock: int | None = None,
    summary: Summary | None = None,
) -> str:
    """Make the report of an output and store it there; returns its path.

    Reads only the records and the images that it shows; originals only from ``data_set``, since the
    output itself cannot be trusted on where they are. ``lock``: the number of the lock under which
    a run writes it. ``summary``: how that run ended; by default, the stored one. Raises
    ``StorageError``, and ``LockedError`` if that lock is lost.
    """
    storage = open_storage(output)
    if lock is not None:
        storage = fenced_for_worker(storage, lock, str(output))
    summary = summary or read_summary(storage)
    ending = Ending(summary) if summary else None

    def read(state: OutputState) -> tuple[str, int]:
        permissions = permissions_of_records(storage, state.record_files)
        return _page(storage, output, state, data_set, ending), permissions

    page, permissions = read_whole(storage, read)
    with state_trouble(REPORT):
        storage.write(REPORT, page.encode(), permissions)
    return str(output.joined(REPORT))


def _page(
    storage: Storage,
    output: Location,
    state: OutputState,
    data_set: DataSet | None,
    ending: Ending | None,
) -> str:
    found = digest(storage, state.record_files)
    reasons = found.selections.reasons
    rows = found.selections.rows()
    if len(found.methods) > 1:
        rows = rows_of(storage, state.record_files, list(reasons))
    names = NAME_TIMES * sum(len(name.encode()) for name in reasons)
    pictures = cards.pictures_of(rows) + failures.pictures_of(found)
    links = FileLinks(output)
    with closing(
        PictureMaker(storage, state, data_set, ByteBudget(PICTURES_BYTES - names, pictures))
    ) as maker:
        failed = failures.failures_of(found, maker, links)
        shown = cards.make_cards(reasons, rows, maker, links)
    return render(
        "report.html",
        ["page.css", "report.css"],
        ["page.js", "report.js"],
        output=str(output),
        root=state.plan.root if state.plan else "",
        passed_over=passed_over_in_words(state.plan.counts.passed_over) if state.plan else "",
        others=state.plan.counts.others if state.plan else 0,
        beside=state.plan.counts.beside if state.plan else 0,
        unfinished=state.unfinished is not None,
        ending=ending,
        failures=failed,
        cards=shown,
        reasons=[reason for reason in REASONS if any(reason in why for why in reasons.values())],
        **_numbers(found),
        **_curves(found, ending.summary if ending else None),
    )


def _numbers(found: Digest) -> dict[str, Any]:
    """The counts."""
    runs = sorted(found.runs.values(), key=attrgetter("last"), reverse=True)
    folders = _folders(found)
    return {
        "tally": found.tally,
        "read_bytes": found.read_bytes,
        "images": max((method.tally.rows for method in found.methods.values()), default=0),
        "methods": [
            _Method(name, method, charts.luminance(method.before, method.after))
            for name, method in sorted(found.methods.items())
        ],
        "folders": folders,
        "folders_left": len(found.folders.counts) - len(folders),
        "runs": runs[:RUNS_SHOWN],
        "runs_before": len(runs[RUNS_SHOWN:]),
    }


def _curves(found: Digest, summary: Summary | None) -> dict[str, Any]:
    """What changes over batches and time; a single value is not a curve."""
    return {
        "light": _described_light(found),
        "light_chart": charts.light(found.light) if found.light.index.size > 1 else "",
        "pace": _pace(found.last_run, summary),
        "pace_chart": charts.pace(found.pace) if found.pace.index.size > 1 else "",
    }


def _folders(found: Digest) -> Sequence[_Folder]:
    """Folders with the most failed images first, then the largest, within the budget."""
    folders = [
        _Folder(name, method, counts) for (name, method), counts in found.folders.counts.items()
    ]
    folders.sort(key=lambda f: (-f.counts.failed, -f.counts.images, f.name, f.method))
    shown, room = [], FOLDERS_BYTES
    for folder in folders[:FOLDERS_SHOWN]:
        room -= len(folder.name.encode())
        if room < 0:
            break
        shown.append(folder)
    return sorted(shown, key=attrgetter("name", "method"))


def _pace(run: RunDigest | None, summary: Summary | None) -> float:
    """Images per second of the last run that did any, as its summary says, if there is one.

    Otherwise from its first finished image to the last, leaving out what came before the first.
    """
    if run and summary and run.run_id == summary.run_id:
        return summary.images_per_s
    lasted = (run.last - run.first).total_seconds() if run else 0.0
    return run.images / lasted if run and lasted else 0.0


def _described_light(found: Digest) -> str:
    """The curve in words, for readers who cannot see it."""
    bins = found.light
    if not bins.index.size:
        return ""
    mean = float(np.average(bins.mean, weights=bins.count))
    return f"from {bins.low.min():.1f} to {bins.high.max():.1f}, on average {mean:.1f} of 255"
