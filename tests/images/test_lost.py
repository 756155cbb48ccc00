"""What an output does not have is named: in its row, in the summary, in the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from batchlight import JobConfig, run
from tests.support.helpers import batchlight_here, dark_image, rows
from tests.support.image_files import saved

DARK = Image.fromarray(dark_image(1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "colours.png").write_bytes(saved(DARK.quantize(16), "PNG"))
    (folder / "plain.png").write_bytes(saved(DARK, "PNG"))
    return folder


def job(folder: Path, output: Path, **options: object) -> JobConfig:
    values = {"input": str(folder), "output": str(output), "workers": 0, "progress": "off"}
    return JobConfig(**{**values, **options})  # type: ignore[arg-type]


def test_what_is_lost_is_named(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    summary = run(job(folder, output))
    assert {row["input"]: row["lost"] for row in rows(output)} == {
        "colours.png": ["palette"],
        "plain.png": None,
    }
    assert summary.lost_by_name == {"palette": 1}
    assert json.loads((output / "summary.json").read_text())["lost_by_name"] == {"palette": 1}
    assert "without palette" in (output / "report.html").read_text()
    again = batchlight_here("run", "--input", folder, "--output", output, "--workers", 0)
    assert "without palette" in again.stdout


def test_strict_fails_what_would_lose_anything(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    summary = run(job(folder, output, metadata="strict"))
    assert (summary.exit_code, summary.ok, summary.failed_by_code) == (3, 1, {"unsupported": 1})
    [failed] = [row for row in rows(output) if row["status"] == "failed"]
    assert failed["error"].endswith(": palette")
    assert failed["lost"] is None


def test_the_default_leaves_fingerprints_as_they_were() -> None:
    kept, strict = (
        JobConfig(input="x", metadata=m).fingerprint("classical") for m in ("keep", "strict")
    )
    assert "metadata" not in kept.parameters
    assert strict.changes_since(kept) == ["metadata None -> strict"]
