"""What lies on disk outlives the version that wrote it, and docs/format.md describes it."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchlight
from batchlight.driver.verify import verify
from batchlight.errors import StorageError
from batchlight.fingerprint import Fingerprint
from batchlight.output.plan import Plan
from batchlight.output.records import REQUIRED, SCHEMA
from batchlight.output.status import read_status
from batchlight.report import write_report
from batchlight.storage import Location
from batchlight.worker.comparing import Problem
from tests.support.helpers import ALL_DARK, stable_rows, tree
from tests.support.helpers import batchlight as command

DATA = Path(__file__).parent / "data"
FORMAT_PAGE = (Path(__file__).parents[2] / "docs/format.md").read_text()
PARAMETERS: dict[str, Any] = {
    "batch_size": 2,
    "omega": 0.93,
    "t0": 0.1,
    "window": 20,
    "denoise": "none",
    **ALL_DARK,
    "max_failures": "1",
}
TAKEN = 1_767_225_600
"""When the first image of the kept outputs was made; the others follow by seconds."""
SECONDS_AFTER = {
    "a.png": 0,
    "broken.png": 0,
    "c.png": 2,
    "sub/d.png": 3,
    "e.jpg": 4,
    "b.png": 100,
    "f.png": 101,
    "g.png": 102,
    "h.png": 103,
}


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """An output of an earlier version: one plan closed, one killed after its first batch."""
    shutil.copytree(DATA / "format-1", tmp_path / "kept")
    folder = tmp_path / "kept"
    for name, seconds in SECONDS_AFTER.items():
        os.utime(folder / "in" / name, (TAKEN + seconds, TAKEN + seconds))
    out = folder / "out"
    for document in [*out.glob("_batchlight/plan/*.json"), out / "summary.json"]:
        document.write_text(document.read_text().replace("/tmp/golden", str(folder)))
    for lock in out.glob("_batchlight/locks/*"):  # its host is not this one
        os.utime(lock, (time.time() - 100,) * 2)
    return folder


def run(folder: Path, out: str = "out") -> batchlight.Summary:
    where = {"input": str(folder / "in"), "output": str(folder / out)}
    config = {**where, **PARAMETERS, "workers": 0, "progress": "off"}
    return batchlight.run(batchlight.JobConfig(**config))


def problems(out: Path) -> list[Problem]:
    found: list[Problem] = []
    verify(str(out), on_problem=found.append)
    return found


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tables(out: Path, pattern: str, change: Callable[[pa.Table], pa.Table]) -> None:
    for path in out.glob(pattern):
        pq.write_table(change(pq.read_table(path)), path)


def test_an_earlier_output_is_read_and_gone_on_with(kept: Path) -> None:
    status = read_status(str(kept / "out"))
    assert (status.state, status.planned, status.done) == ("interrupted", 4, 2)
    assert problems(kept / "out") == []
    images = tree(kept / "out/classical")  # all were written, but not all committed
    summary = run(kept)
    assert (summary.exit_code, summary.ok, summary.failed, summary.done_now) == (0, 8, 1, 2)
    assert tree(kept / "out/classical") == images
    batches = {row["input"]: row["batch"] for row in stable_rows(kept / "out")}
    assert [batches[name] for name in ("a.png", "b.png", "f.png", "h.png")] == [0, 3, 3, 4]
    assert problems(kept / "out") == []
    assert json.loads((kept / "out/_batchlight/format.json").read_text())["version"] == 1
    write_report(Location.parse(str(kept / "out")))
    assert run(kept).done_now == 0


def test_parameters_that_came_later_leave_earlier_fingerprints_as_they_are(kept: Path) -> None:
    [*_, plan] = sorted(kept.glob("out/_batchlight/plan/*.json"))
    stored = Fingerprint(json.loads(plan.read_text())["fingerprints"]["classical"])
    config = batchlight.JobConfig(input="in", **PARAMETERS)
    assert config.fingerprint("classical").digest == stored.digest
    assert {row["fingerprint"] for row in stable_rows(kept / "out")} == {stored.digest}


def test_unknown_fields_and_columns_are_ignored(kept: Path) -> None:
    out = kept / "out"
    for document in [*out.glob("_batchlight/*/*.json"), out / "summary.json"]:
        seen = document.stat()
        edit_json(document, of_a_later_version={"deep": [1]})
        os.utime(document, (seen.st_atime, seen.st_mtime))
    plan = max(out.glob("_batchlight/plan/*.json"))
    counts = json.loads(plan.read_text())["counts"]
    edit_json(plan, counts=counts | {"later": 1, "gone_tally": counts["gone_tally"] | {"later": 0}})
    new = "of_a_later_version"
    for pattern in ("metadata/*", "_batchlight/parts/*", "_batchlight/plan/*/*"):
        edit_tables(out, pattern, lambda t: t.append_column(new, pa.array(["new"] * len(t))))
    assert problems(out) == []
    assert read_status(str(out)).done == 2
    assert run(kept).exit_code == 0
    assert problems(out) == []
    # What this version does not know, it does not throw away either.
    [old] = [t for t in map(pq.read_table, out.glob("metadata/*")) if 0 in t["batch"].to_pylist()]
    assert set(old[new].to_pylist()) == {"new"}


@pytest.mark.parametrize(
    "columns",
    [["clipped_fraction"], ["attempts"], ["output"], sorted(set(SCHEMA.names) - REQUIRED)],
    ids=["one", "needed", "output", "all"],
)
def test_columns_that_are_not_there_are_null(kept: Path, columns: list[str]) -> None:
    out = kept / "out"
    for pattern in ("metadata/*", "_batchlight/parts/*"):
        edit_tables(
            out, pattern, lambda t: t.drop_columns([n for n in columns if n in t.schema.names])
        )
    write_report(Location.parse(str(out)))
    assert problems(out) == []
    assert run(kept).exit_code == 0
    assert problems(out) == []
    write_report(Location.parse(str(out)))
    assert run(kept).done_now == 0
    assert command("failures", out).returncode == 0


def test_fields_that_are_not_there_have_defaults(kept: Path) -> None:
    out = kept / "out"
    plan = max(out.glob("_batchlight/plan/*.json"))
    values = json.loads(plan.read_text())
    del values["overwrite"], values["counts"]["gone_tally"]
    plan.write_text(json.dumps(values))
    assert run(kept).exit_code == 0


@pytest.mark.parametrize("name", ["run", "plan", "status", "verify", "failures", "report"])
def test_an_output_of_a_later_format_is_refused_and_left_alone(kept: Path, name: str) -> None:
    out = kept / "out"
    (out / "_batchlight/format.json").write_text('{"version": 2, "written_by": "9.9.9"}')
    before = tree(out)
    where = ["--input", kept / "in", "--output", out] if name in ("run", "plan") else [out]
    done = command(name, *where)
    assert done.returncode == 2, done.stderr
    assert "this output was written in format 2 by batchlight 9.9.9" in done.stderr
    assert "upgrade batchlight" in done.stderr
    assert tree(out) == before


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"first": []}', b"\xff\x00", b"[" * 99999])
@pytest.mark.parametrize(
    "document",
    ["summary.json", "_batchlight/format.json", "_batchlight/plan/0000000003.json", "lock"],
)
def test_a_damaged_document_is_named(kept: Path, document: str, damage: bytes) -> None:
    document = document.replace("lock", "_batchlight/locks/0000000002.json")
    (kept / "out" / document).write_bytes(damage)
    with pytest.raises(StorageError, match=rf"^{re.escape(document)} is damaged; "):
        read_status(str(kept / "out"))
    if document != "summary.json":
        with pytest.raises(StorageError, match="is damaged; "):
            run(kept)


def test_an_output_without_needed_columns_is_damaged(kept: Path) -> None:
    edit_tables(kept / "out", "metadata/*", lambda t: t.drop_columns(["method"]))
    [problem] = problems(kept / "out")
    assert (problem.trouble, problem.detail) == ("damaged", "it has no column 'method'")


def documented(heading: str) -> list[str]:
    section = FORMAT_PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([a-z0-9_]+)` \|", section, re.MULTILINE)


def test_the_page_describes_what_is_written(kept: Path) -> None:
    run(kept)
    internal = kept / "out/_batchlight"

    def keys(path: Path) -> list[str]:
        return list(json.loads(path.read_text()))

    assert documented("`format.json`") == keys(internal / "format.json")
    assert documented("`locks/`") == keys(max(internal.glob("locks/*")))
    assert documented("`summary.json`") == keys(kept / "out/summary.json")
    assert documented("`plan/*.json`") == list(Plan.model_fields)
    run(kept, "new")
    [chunk] = kept.glob("new/_batchlight/plan/*/*")
    assert documented("Chunks of a plan") == pq.read_schema(chunk).names
    assert all(f"`{name}`" in FORMAT_PAGE for name in ("metadata/", "parts/"))


def test_the_schema_is_that_of_the_page_of_records() -> None:
    page = (Path(__file__).parents[2] / "docs/records.md").read_text()
    assert all(f"`{name}`" in page for name in SCHEMA.names)


def test_a_format_is_named_with_the_first_lock(kept: Path) -> None:
    run(kept, "new")
    found = json.loads((kept / "new/_batchlight/format.json").read_text())
    assert found == {"version": 1, "written_by": batchlight.__version__}


@pytest.mark.parametrize(
    "name",
    ["2024-01.parquet", "0000000009-0000000001.parquet", "0-1.parquet", "x.parquet", "²-3.parquet"],
)
def test_files_of_others_in_metadata_are_left_alone(kept: Path, name: str) -> None:
    foreign = kept / "out/metadata" / name
    foreign.write_bytes(b"somebody's own")
    assert run(kept).exit_code == 0
    assert problems(kept / "out") == []
    assert foreign.read_bytes() == b"somebody's own"


def test_without_its_state_folder_an_output_is_still_gone_on_with(kept: Path) -> None:
    run(kept)
    shutil.rmtree(kept / "out/_batchlight")
    image = (kept / "in/a.png").read_bytes()
    (kept / "in/a.png").write_bytes((kept / "in/c.png").read_bytes())
    (kept / "in/new.png").write_bytes(image)
    summary = run(kept)
    assert (summary.exit_code, summary.done_now, summary.ok) == (0, 2, 9)
    assert (kept / "out/classical/new.png").exists()
    assert problems(kept / "out") == []
    batches = {row["input"]: row["batch"] for row in stable_rows(kept / "out")}
    assert batches["a.png"] == batches["new.png"] == 5


def test_paths_in_records_lead_nowhere_else(kept: Path) -> None:
    """Not a word of records is taken for granted: neither what is read, nor what is deleted."""
    out = kept / "out"
    precious = kept / "precious.png"
    precious.write_bytes(b"precious")
    names = ["../precious.png", "summary.json", "_batchlight/format.json", "classical/../../x"]

    def crafted(table: pa.Table) -> pa.Table:
        paths = pa.array([names[n % len(names)] for n in range(len(table))], pa.string())
        at = table.schema.get_field_index("output")
        return table.set_column(at, table.schema.field(at), paths)

    edit_tables(out, "metadata/*", crafted)
    assert {problem.trouble for problem in problems(out)} <= {
        "unreadable",
        "altered",
        "missing",
        "truncated",
    }
    write_report(Location.parse(str(out)))
    assert run(kept).exit_code == 0
    assert precious.exists()
    assert (out / "_batchlight/format.json").exists()
