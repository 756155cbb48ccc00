"""Old rows are found wherever they are, in a number of reads that grows with the files alone."""

from __future__ import annotations

import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchlight.config import JobConfig, Method
from batchlight.driver import drafting
from batchlight.driver.drafting import draft_plans
from batchlight.fingerprint import Fingerprint
from batchlight.output.chunks import BatchKind, PlannedBatch, as_rows, write_chunk
from batchlight.output.commit import close_plan, held_rows, store_plan
from batchlight.output.earlier import earlier_rows
from batchlight.output.inputs import Batch, Input
from batchlight.output.layout import BatchRange, metadata_path, part_path
from batchlight.output.plan import Plan, PlanCounts
from batchlight.output.recordfiles import read_records, to_parquet
from batchlight.output.records import Record, as_table
from batchlight.output.replaced import OldFile, old_spans, replaced_by
from batchlight.output.state import OutputState
from batchlight.planning import cutting
from batchlight.planning.planner import Planner
from batchlight.storage import Location, Storage, open_storage
from batchlight.storage.local import LocalStorage

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
CONFIG = JobConfig(input="in", batch_size=4)
FINGERPRINTS: dict[Method, Fingerprint] = {"classical": Fingerprint({"omega": 0.9})}


def record(name: str, batch: int) -> Record:
    return Record(
        input=name,
        method="classical",
        status="ok",
        output=f"classical/{name}",
        input_bytes=1,
        output_bytes=2,
        batch=batch,
        attempts=1,
        worker="host:1",
        run_id="run",
        fingerprint="f",
        finished_at=WHEN,
    )


def opened(folder: str | Path) -> Storage:
    storage = open_storage(Location.parse(str(folder)))
    storage.check(writable=True)
    return storage


def put_file(storage: Storage, first: int, names: list[str]) -> None:
    path = metadata_path(BatchRange(first, first))
    storage.write(path, to_parquet(as_table(record(name, first) for name in names), path))


names_of_files = st.lists(
    st.lists(st.integers(0, 60), min_size=1, max_size=12, unique=True), min_size=1, max_size=8
)


@settings(max_examples=40)
@given(
    files=names_of_files,
    chunks=st.lists(st.integers(0, 60), unique=True, max_size=40),
    size=st.integers(1, 15),
    uncommitted=st.sets(st.integers(0, 10), max_size=3),
)
def test_every_replaced_row_is_found_and_no_other(
    files: list[list[int]], chunks: list[int], size: int, uncommitted: set[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        storage = opened(folder)
        held = {}
        for number, members in enumerate(files):
            names = sorted(f"{n:03d}.jpg" for n in members)
            put_file(storage, number, names)
            held[metadata_path(BatchRange(number, number))] = names
        todo = sorted(f"{n:03d}.jpg" for n in chunks)
        again = {name for members in held.values() for name in members}
        first = len(files)
        written = []
        batch_of: dict[str, int] = {}
        for number, start in enumerate(range(0, len(todo), size)):
            some = todo[start : start + size]
            batch = Batch(first + number, ("classical",), tuple(map(Input, some)))
            batch_of |= dict.fromkeys(some, batch.number)
            flags = [name in again for name in some]
            planned = PlannedBatch(
                batch.number, BatchKind(batch.methods), as_rows(batch.inputs, flags)
            )
            written.append(write_chunk(storage, first, [planned]))
        plan = Plan(
            first=first,
            counts=PlanCounts(batches=len(written)),
            rows=len(todo),
            rows_by_method=None,
            root="in",
            overwrite=False,
            fingerprints=FINGERPRINTS,
            methods=("classical",),
            chunks=tuple(written),
        )
        committed = {chunk.first for chunk in written} - {first + n for n in uncommitted}
        state = OutputState.load(storage)
        steps = list(replaced_by(storage, plan, old_spans(storage, state, plan), committed))
        # Each old file and each chunk once, and no chunk before the old files it shares rows with.
        assert Counter(s.path for s in steps if isinstance(s, OldFile)) == Counter(list(held))
        assert [s for s in steps if isinstance(s, BatchRange)] == written
        lost = {name for name in todo if batch_of[name] in committed}
        for place, step in enumerate(steps):
            if isinstance(step, OldFile):
                found = step.lost_rows(storage, ["input"])["input"].to_pylist()
                assert found == [name for name in held[step.path] if name in lost]
                kept = step.kept_rows(read_records(storage, step.path))["input"].to_pylist()
                assert kept == [name for name in held[step.path] if name not in lost]
                for name in found:
                    assert steps.index(BatchRange(batch_of[name], batch_of[name])) > place


def overwritten(folder: Path, monkeypatch: pytest.MonkeyPatch, chunks: int) -> int:
    """Reads of whole files that replacing all rows of so many chunks costs."""
    monkeypatch.setattr(cutting, "CHUNK_ROWS", 8)
    monkeypatch.setattr(drafting, "CHUNKS_OF_FIRST_PLAN", chunks)
    storage = opened(folder)
    images = [Input(f"{n:04d}.jpg", None, 1, WHEN) for n in range(8 * chunks)]
    reads = 0
    read = LocalStorage.read

    def counted(self: LocalStorage, path: str) -> bytes:
        nonlocal reads
        reads += 1
        return read(self, path)

    for overwrite in (False, True):
        config = CONFIG.model_copy(update={"overwrite": overwrite})
        state = OutputState.load(storage)
        planner = Planner(config, FINGERPRINTS)
        stretches = planner.stretches(images, earlier_rows(storage, state))
        [plan] = draft_plans(storage, state, planner, stretches, "in")
        assert len(plan.chunks) == chunks
        store_plan(storage, state, plan)
        for chunk in plan.chunks:
            for batch in plan.batches_of(storage, chunk):
                path = part_path(batch.number)
                rows = as_table(record(item.path, batch.number) for item in batch.inputs)
                storage.write(path, to_parquet(rows, path))
        with monkeypatch.context() as patch:
            patch.setattr(LocalStorage, "read", counted)
            reads = 0
            close_plan(storage, OutputState.load(storage))
    state = OutputState.load(storage)
    assert len(state.metadata) == chunks
    held = held_rows(storage, ("classical",))
    assert held is not None
    assert held.rows.ok == 8 * chunks
    return reads


def test_replacing_rows_is_linear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = overwritten(tmp_path / "few", monkeypatch, 4)
    many = overwritten(tmp_path / "many", monkeypatch, 32)
    assert many <= 8.5 * few


def test_counting_can_be_cut_short(tmp_path: Path) -> None:
    storage = opened(tmp_path)
    for number in range(3):
        put_file(storage, number, [f"{number}.jpg"])
    assert held_rows(storage, ("classical",), within_s=-1) is None
    whole = held_rows(storage, ("classical",), within_s=60)
    assert whole is not None
    assert whole.rows.rows == 3
