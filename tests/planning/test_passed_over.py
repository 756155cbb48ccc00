"""Files that are no images leave a trace: counted by suffix wherever a run is told of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchlight import JobConfig, run
from batchlight.images import names
from batchlight.planning.passed_over import SUFFIXES_AT_MOST, PassedOver
from tests.support.helpers import batchlight_here, write_images

OTHERS = [
    "a.txt",
    "b.txt",
    "d.txt",
    "c/d.NEF",
    "photo.jpg_large",
    "photo.jpg ",
    "README",
    "x.",
    "x.gif",
]
COUNTS = {".txt": 3, ".nef": 1, ".jpg_large": 1, ".jpg ": 1, "": 2, ".gif": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    write_images(folder, 3)
    for name in OTHERS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"none")
    (folder / ".hidden").write_bytes(b"none")
    return folder


def test_they_are_counted_everywhere(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    where = ["--input", folder, "--output", output]
    planned = json.loads(batchlight_here("plan", *where, "--json").stdout)
    assert planned["passed_over"] == COUNTS
    assert "3 .txt, 2 without a suffix, 1 .gif" in batchlight_here("plan", *where).stdout
    done = batchlight_here("run", *where, "--workers", 0)
    assert "3 .txt, 2 without a suffix, 1 .gif" in done.stdout
    assert json.loads((output / "summary.json").read_text())["passed_over"] == COUNTS
    assert "3 .txt, 2 without a suffix" in (output / "report.html").read_text()
    again = run(JobConfig(input=str(folder), output=str(output), workers=0, progress="off"))
    assert again.passed_over == COUNTS


def test_without_any_nothing_is_said(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 2)
    where = ["--input", tmp_path / "in", "--output", tmp_path / "out"]
    assert "passed over" not in batchlight_here("run", *where, "--workers", 0).stdout
    assert "passed over" not in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize("suffix", ["jpe", "JFIF", "dib", "heic", "HEIF"])
def test_names_that_are_taken_for_images(suffix: str) -> None:
    assert names.is_image_name(f"a/photo.{suffix}")


def test_heic_without_its_extra_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "HAS_HEIF", False)
    said = names.passed_over_in_words([(".heic", 17), (".txt", 3)])
    assert said == "17 .heic (which batchlight[heif] reads), 3 .txt"


def test_it_does_not_matter_who_counts_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchlight.planning.passed_over.SUFFIXES_AT_MOST", 3)
    paths = [f"{folder}/x.{suffix}" for folder in "abc" for suffix in ("e", "a", "d", "b", "c", "")]
    whole, joined = PassedOver(), PassedOver()
    for path in paths:
        whole.add(path)
    for start in range(0, len(paths), 4):
        part = PassedOver()
        for path in paths[start : start + 4]:
            part.add(path)
        joined.include(part)
    assert whole.counts == joined.counts == (("", 9), (".a", 3), (".b", 3), (".c", 3))


def test_ever_new_suffixes_take_no_more_memory() -> None:
    met = PassedOver()
    for number in range(10 * SUFFIXES_AT_MOST):
        met.add(f"part.{number:06d}")
    met.add("x." + "y" * 99)
    assert len(met.counts) == SUFFIXES_AT_MOST + 1
    assert sum(count for _, count in met.counts) == 10 * SUFFIXES_AT_MOST + 1
