"""``--limit``: the first images of a listing, and reruns with more and with less."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import batchlight
from batchlight.config import JobConfig
from batchlight.driver.dry_run import dry_run
from tests.support.helpers import batchlight_here, outcomes, rows, stable_rows, tree, write_images


def run(folder: Path, **options: Any) -> batchlight.Summary:
    """In this process, into ``out`` beside the input."""
    where = {"input": str(folder), "output": str(folder.parent / "out")}
    return batchlight.run(
        JobConfig(**{**where, "workers": 0, "batch_size": 2, "progress": "off", **options})
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "in", 7)
    return tmp_path / "in"


@pytest.fixture
def names(photos: Path) -> list[str]:
    return sorted(tree(photos))


def counts(summary: batchlight.Summary) -> tuple[int, ...]:
    return (
        *(summary.exit_code, summary.inputs, summary.ok, summary.missing, summary.gone),
        *(summary.done_now, summary.done_before),
    )


def test_reruns_with_a_larger_limit_go_on(photos: Path, names: list[str]) -> None:
    out = photos.parent / "out"
    assert counts(run(photos, limit=3)) == (0, 3, 3, 0, 0, 3, 0)
    assert [row["input"] for row in rows(out)] == names[:3]
    assert sorted(tree(out / "classical")) == names[:3]
    first = rows(out)
    assert counts(run(photos, limit=5)) == (0, 5, 5, 0, 0, 2, 3)
    assert counts(run(photos)) == (0, 7, 7, 0, 0, 2, 5)
    assert [row for row in rows(out) if row["input"] in names[:3]] == first
    assert counts(run(photos, limit=100)) == (0, 7, 7, 0, 0, 0, 7)


def test_what_lies_beyond_it_is_neither_gone_nor_counted(photos: Path, names: list[str]) -> None:
    (photos / names[5]).write_bytes(b"no image")
    assert run(photos).exit_code == 3
    out = photos.parent / "out"
    before, images = stable_rows(out), tree(out / "classical")
    assert counts(run(photos, limit=3)) == (0, 3, 3, 0, 0, 0, 3)
    plan = dry_run(JobConfig(input=str(photos), output=str(out), batch_size=2, limit=3))
    assert (plan.inputs, plan.todo, plan.gone, plan.not_selected) == (3, 0, 0, 4)
    assert (stable_rows(out), tree(out / "classical")) == (before, images)


def test_what_was_looked_for_is_gone(photos: Path, names: list[str]) -> None:
    """Only what comes before the last image that is listed."""
    run(photos)
    (photos / names[1]).unlink()
    (photos / names[6]).unlink()
    summary = run(photos, limit=3)
    assert counts(summary) == (0, 3, 3, 0, 1, 0, 3)
    assert counts(run(photos)) == (0, 5, 5, 0, 2, 0, 5)
    assert outcomes(photos.parent / "out").keys() == {*names}


def test_both_methods_and_an_added_one(photos: Path) -> None:
    run(photos)
    summary = run(photos, limit=2, method=("classical", "absgn"), device="cpu")
    assert counts(summary) == (0, 2, 4, 0, 0, 2, 2)


def test_changed_images_within_it_are_done_again(photos: Path, names: list[str]) -> None:
    run(photos)
    for name in (names[1], names[5]):
        (photos / name).write_bytes((photos / names[0]).read_bytes())
    assert counts(run(photos, limit=2)) == (0, 2, 2, 0, 0, 1, 1)
    assert counts(run(photos)) == (0, 7, 7, 0, 0, 1, 6)


def test_a_stored_plan_is_finished_first(photos: Path, names: list[str]) -> None:
    (photos / names[0]).write_bytes(b"no image")
    assert run(photos, fail_fast=True).reason.startswith("stopped early")
    assert counts(run(photos, limit=3)) == (3, 3, 2, 0, 0, 5, 0)
    assert len(rows(photos.parent / "out")) == 7


def test_it_counts_what_the_globs_leave(photos: Path, names: list[str]) -> None:
    run(photos, limit=2, exclude=("a/",))
    left = [name for name in names if not name.startswith("a/")]
    assert sorted(tree(photos.parent / "out/classical")) == left[:2]


def test_of_a_list(photos: Path, names: list[str]) -> None:
    listing = photos / "some.txt"
    listing.write_text("\n".join(reversed(names)))
    run(listing, output=str(photos.parent / "out"), limit=2)
    assert sorted(tree(photos.parent / "out/classical")) == names[:2]


def test_the_plan_shows_it(photos: Path) -> None:
    run(photos)
    out = photos.parent / "out"
    arguments = ("plan", "--input", photos, "--output", out, "--batch-size", 2, "--limit", 3)
    assert "records not selected  4\n" in batchlight_here(*arguments).stdout
    told = json.loads(batchlight_here(*arguments, "--json").stdout)
    assert (told["inputs"], told["not_selected"], told["gone"]) == (3, 4, 0)
