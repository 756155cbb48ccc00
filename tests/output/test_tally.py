"""Rows are counted once, by what became of them, however they are spread over tables."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from batchlight.output.records import SCHEMA, TALLY_COLUMNS, Tally

Row = tuple[tuple[str, str | None], int | None, int | None, list[str] | None]

OUTCOMES = st.sampled_from(
    [("ok", None), ("skipped", None), ("failed", "corrupt"), ("failed", "crash")]
)
BYTES = st.none() | st.integers(0, 9)
LOST = st.none() | st.lists(st.sampled_from(["palette", "gain map"]), unique=True)
ROWS = st.lists(st.tuples(OUTCOMES, BYTES, BYTES, LOST))


def table(rows: list[Row]) -> pa.Table:
    columns = [[*outcome, *rest, None] for outcome, *rest in rows]
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
    lost = [name for row in (*some, *more) for name in row[3] or ()]
    assert dict(both.lost_by_name) == {name: lost.count(name) for name in set(lost)}
    assert both.rows == both.ok + both.skipped + both.failed == len(statuses)
