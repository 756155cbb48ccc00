"""The outcome of a run in numbers: what was listed, what the output holds, what was done."""

from __future__ import annotations

from typing import Any

from batchlight.driver.stats import RunStats
from batchlight.output.commit import Held
from batchlight.output.plan import PlanCounts
from batchlight.output.records import Tally
from batchlight.output.summary import counts_of


def in_numbers(
    counts: PlanCounts, held: Held | None, unlisted: Tally, done: RunStats, methods: int
) -> dict[str, Any]:
    """Fields of a ``Summary``.

    ``held``: the rows that the output holds; None if there was no time to count.
    ``unlisted``: rows made by this run whose inputs are gone or not selected, and so do not count.
    """
    # Failed rows of inputs that are not listed do not matter.
    rows = Tally() if held is None else held.rows - counts.gone_tally - counts.not_selected_tally
    new = Tally() if held is None else held.new - unlisted
    images, pairs = counts.in_all(rows, methods)
    return {
        "inputs": images,
        "containers": counts.containers,
        "beside": counts.beside,
        "others": counts.others,
        "pairs": pairs,
        "counted": held is not None,
        **counts_of(rows),
        "missing": 0 if held is None else max(0, pairs - rows.rows),
        "gone": counts.gone,
        "not_selected": counts.not_selected,
        "passed_over": dict(counts.passed_over),
        "pairs_now": new.rows,
        "failed_now": new.failed,
        "done_now": done.rows,
        "done_before": max(0, rows.rows - done.rows),
        "read_bytes": done.read_bytes,
        "written_bytes": done.tally.output_bytes,
        "elapsed_s": round(done.elapsed_s, 3),
        "images_per_s": round(done.rows / done.elapsed_s, 3) if done.elapsed_s else 0.0,
        "report_s": round(done.report_s, 3),
    }
