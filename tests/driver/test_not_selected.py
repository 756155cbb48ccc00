"""Records of files that the present options do not select are neither gone nor counted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import batchlight
from batchlight.config import JobConfig
from batchlight.driver.dry_run import dry_run
from batchlight.errors import BatchlightError
from tests.support.helpers import batchlight_here, stable_rows, tree, write_images
from tests.support.tars import samples, write_tar


def config(folder: Path, **options: Any) -> JobConfig:
    where = {"input": str(folder), "output": str(folder.parent / "out")}
    return JobConfig(**{**where, "workers": 0, "batch_size": 2, "progress": "off", **options})


def unlisted(folder: Path, **options: Any) -> tuple[int, int]:
    """As gone, and as not selected: the same by a plan and by a run, which must succeed."""
    job = config(folder, **options)
    planned, summary = dry_run(job), batchlight.run(job)
    assert (summary.exit_code, summary.missing, summary.done_now) == (0, 0, 0)
    found = summary.gone, summary.not_selected
    assert (planned.gone, planned.not_selected) == found
    stored = json.loads((folder.parent / "out/summary.json").read_text())
    assert (stored["gone"], stored["not_selected"]) == found
    return found


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven images, done, in the folders a, b and c."""
    write_images(tmp_path / "in", 7)
    assert batchlight.run(config(tmp_path / "in")).ok == 7
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("options", "number"),
    [
        ({"include": ("a/",)}, 4),
        ({"exclude": ("a/",)}, 3),
        ({"include": ("a/", "b/"), "exclude": ("*3.jpg",)}, 3),
        ({"include": ("b/", "c/"), "limit": 2}, 5),
        ({"limit": 3}, 4),
    ],
)
def test_what_is_excluded_is_not_gone(photos: Path, options: dict[str, Any], number: int) -> None:
    before = stable_rows(photos.parent / "out"), tree(photos.parent / "out/classical")
    assert unlisted(photos, **options) == (0, number)
    assert (stable_rows(photos.parent / "out"), tree(photos.parent / "out/classical")) == before
    assert unlisted(photos) == (0, 0)


def test_what_is_deleted_is_gone_unless_it_is_excluded(photos: Path) -> None:
    (photos / "a/0000.jpg").unlink()
    (photos / "b/0001.jpg").unlink()
    assert unlisted(photos) == (2, 0)
    assert unlisted(photos, exclude=("a/",)) == (1, 3)
    assert unlisted(photos, include=("a/", "c/")) == (1, 2)


def test_of_a_nightly_folder_only_the_new_one_is_counted(photos: Path) -> None:
    new = write_images(photos / "new", 1)[0]
    summary = batchlight.run(config(photos, include=("new/**",)))
    assert (summary.exit_code, summary.reason) == (0, "all images are done")
    assert (summary.inputs, summary.ok, summary.done_now) == (1, 1, 1)
    assert (summary.gone, summary.not_selected) == (0, 7)
    assert (photos.parent / "out/classical" / new.relative_to(photos)).exists()


def test_failures_that_are_excluded_are_accepted_for_good(photos: Path) -> None:
    (photos / "a/bad.jpg").write_bytes(b"no image")
    assert batchlight.run(config(photos)).exit_code == 3
    summary = batchlight.run(config(photos, exclude=("a/bad.jpg",)))
    assert (summary.failed, summary.gone, summary.not_selected) == (0, 0, 1)
    assert (summary.exit_code, summary.reason) == (0, "nothing to do, all images are done")


def test_a_failure_of_this_run_that_is_excluded_does_not_count(photos: Path) -> None:
    """It was in the plan that an earlier run had left."""
    for number in range(4):
        (photos / f"a/bad{number}.jpg").write_bytes(b"no image")
    assert batchlight.run(config(photos, fail_fast=True)).reason.startswith("stopped early")
    summary = batchlight.run(config(photos, exclude=("bad*",)))
    assert (summary.exit_code, summary.done_now, summary.failed_now) == (0, 2, 0)
    assert (summary.failed, summary.gone, summary.not_selected) == (0, 0, 4)


def test_a_shard(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 2)
    write_tar(tmp_path / "in/a.tar", samples(3))
    assert batchlight.run(config(tmp_path / "in")).pairs == 5
    assert unlisted(tmp_path / "in", exclude=("*.tar",)) == (0, 3)
    (tmp_path / "in/a.tar").unlink()
    assert unlisted(tmp_path / "in") == (3, 0)


def test_an_input_that_is_gone_as_a_whole_is_told_from_an_empty_one(photos: Path) -> None:
    """Even if nothing that this run selects was there before: it may not be mounted."""
    shutil.rmtree(photos)
    photos.mkdir()
    for options in ({}, {"include": ("new/",)}):
        for command in (dry_run, batchlight.run):
            with pytest.raises(BatchlightError, match="no longer holds any of the 7 im") as caught:
                command(config(photos, **options))
            assert caught.value.exit_code == 1


def test_the_terminal_says_so(photos: Path) -> None:
    where = ("--input", photos, "--output", photos.parent / "out", "--batch-size", 2)
    words = (*where, "--include", "a/")
    assert "records not selected  4\n" in batchlight_here("plan", *words).stdout
    said = batchlight_here("run", *words, "--workers", 0, "--progress", "off").stdout
    assert "not selected      4\n" in said
    assert "gone" not in said
