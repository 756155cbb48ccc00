"""Rows are counted once, by what became of them, however they are spread over tables."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from batchlight.output.records import SCHEMA, TALLY_COLUMNS, Tally

Row = tuple[tuple[str, str | None], int | None, int | None]

OUTCOMES = st.sampled_from(
    [("ok", None), ("skipped", None), ("failed", "corrupt"), ("failed", "crash")]
)
BYTES = st.none() | st.integers(0, 9)
ROWS = st.lists(st.tuples(OUTCOMES, BYTES, BYTES))


def table(rows: list[Row]) -> pa.Table:
    columns = [[*outcome, read, written, None] for outcome, read, written in rows]
    fields = [SCHEMA.field(name) for name in TALLY_COLUMNS]
    arrays = [pa.array([row[n] for row in columns], f.type) for n, f in enumerate(fields)]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


@given(ROWS, ROWS)
def test_tallies_add_up(some: list[Row], more: list[Row]) -> None:
    one, other = table(some), table(more)
    both = Tally.of(pa.concat_tables([one, other]))
    assert both == Tally.of(one) + Tally.of(other)
    assert both - Tally.of(other) == Tally.of(one)
    statuses = [*one["status"].to_pylist(), *other["status"].to_pylist()]
    for status, count in (("ok", both.ok), ("skipped", both.skipped), ("failed", both.failed)):
        assert count == statuses.count(status)
    assert both.rows == both.ok + both.skipped + both.failed == len(statuses)
