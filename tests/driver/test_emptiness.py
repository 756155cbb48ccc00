"""An input that holds no images, or none any more, and globs that match nothing."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchlight
from batchlight.driver.dry_run import dry_run
from batchlight.errors import BatchlightError, UsageError
from tests.support.helpers import batchlight_here, rows, write_images
from tests.support.s3_server import BUCKET, S3Server


def config(place: object, out: object, **options: Any) -> batchlight.JobConfig:
    settings: dict[str, Any] = {"workers": 0, "progress": "off"} | options
    return batchlight.JobConfig(input=str(place), output=str(out), **settings)


def refused(job: batchlight.JobConfig, code: int, says: str) -> None:
    """By a run and by its plan alike, unless it is allowed; and by a preview."""
    with pytest.raises(UsageError, match=says if code == 2 else "there are no images in"):
        batchlight.preview(job, page=f"{job.output}.html")
    for command in (dry_run, batchlight.run):
        with pytest.raises(BatchlightError, match=says) as caught:
            command(job)
        assert caught.value.exit_code == code
    allowed = job.model_copy(update={"allow_empty": True})
    assert dry_run(allowed).inputs == 0
    assert batchlight.run(allowed).exit_code == 0


@pytest.mark.parametrize("there", ["out/of", "."])
def test_a_refused_run_leaves_nothing(tmp_path: Path, there: str) -> None:
    """Else the folder would be an output, and left out wherever it is an input."""
    write_images(tmp_path / "in", 1)
    before = sorted(tmp_path.rglob("*"))
    out = tmp_path / "photos" / there
    if there == ".":
        write_images(out, 1)
        before = sorted(tmp_path.rglob("*"))
    job = config(tmp_path / "in", out, include=["*.tiff"])
    with pytest.raises(UsageError, match="leave none of 1 image"):
        batchlight.run(job)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_refused_run_leaves_what_was_there(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 1)
    (tmp_path / "out/_batchlight").mkdir(parents=True)
    (tmp_path / "out/_batchlight/note").write_text("of mine")
    with pytest.raises(UsageError):
        batchlight.run(config(tmp_path / "in", tmp_path / "out", include=["*.tiff"]))
    assert [path.name for path in (tmp_path / "out/_batchlight").iterdir()] == ["note"]


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "photos").mkdir()
    refused(config(tmp_path / "in", tmp_path / "out"), 2, "no images in .*/in: it is empty; in ")


def test_what_is_there_instead(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.heif2", "b.heif2", "notes.txt", "README"):
        (folder / name).write_bytes(b"1")
    says = r"it holds 2 \.heif2, 1 .*none of them an image; check --input"
    refused(config(folder, tmp_path / "out"), 2, says)


def test_folders_that_are_links(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_images(tmp_path / "real", 1)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/train").symlink_to(tmp_path / "real")
    refused(
        config(tmp_path / "in", tmp_path / "out"),
        2,
        r"the link train/ points to a folder and is not",
    )
    write_images(tmp_path / "in", 1)
    (tmp_path / "in/test").symlink_to("train")
    with caplog.at_level(logging.WARNING):
        assert batchlight.run(config(tmp_path / "in", tmp_path / "out")).exit_code == 0
    assert "are not followed (2, such as test/)" in caplog.text


def test_folders_that_are_outputs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    photos, new = tmp_path / "photos", tmp_path / "new"
    write_images(new, 1)
    assert batchlight.run(config(new, photos / "night")).exit_code == 0
    refused(config(photos, tmp_path / "out"), 2, "its folder night/ is the output of a run and")
    write_images(photos, 1)
    caplog.clear()
    own = config(photos, photos / "enhanced")
    with caplog.at_level(logging.WARNING):
        assert [dry_run(own).inputs, batchlight.run(own).inputs] == [1, 1]
    said = [record.message for record in caplog.records if "skipped in" in record.message]
    assert len(said) == 2
    assert all("outputs of runs: 1 folder, such as night/;" in text for text in said)


def test_an_empty_folder_of_state_makes_no_output(tmp_path: Path) -> None:
    write_images(tmp_path / "in/night", 1)
    (tmp_path / "in/night/_batchlight/tmp").mkdir(parents=True)
    assert dry_run(config(tmp_path / "in", tmp_path / "out")).inputs == 1


@pytest.mark.parametrize("suffix", ["csv", "parquet", "txt"])
def test_a_list_that_is_a_folder(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / f"list.{suffix}"
    folder.mkdir()
    part = folder / f"part-00000.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({"path": ["a.jpg"]}), part)
    else:
        part.write_text("path\na.jpg\n")
    refused(config(folder, tmp_path / "out"), 2, "part files of a list: give one of them")


def test_an_empty_list(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path\n")
    refused(config(tmp_path / "list.csv", tmp_path / "out"), 2, "the list is empty")


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("rwa", r"there is raw/"),
        ("raw/*", r"in s3://.*/raw there is "),
        ("raw/a/00", r"in s3://.*/raw/a there is 0000\.jpg"),
        ("nothing/at/all", r"no object's key begins with it"),
    ],
)
def test_a_prefix_that_is_not_there(s3: S3Server, tmp_path: Path, place: str, says: str) -> None:
    base = f"emptiness/{uuid4()}"
    [image] = write_images(tmp_path / "in", 1)
    s3.put({"raw/a/0000.jpg": image.read_bytes(), "raw/b.txt": b""}, base)
    refused(config(f"s3://{BUCKET}/{base}/{place}", tmp_path / "out"), 2, says)


def test_all_images_gone(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "in", 2)
    job = config(tmp_path / "in", tmp_path / "out")
    assert batchlight.run(job).ok == 2
    for path in paths:
        path.unlink()
    refused(job, 1, "no longer holds any of the 2 images .* check that it is mounted")
    assert len(rows(tmp_path / "out")) == 2
    write_images(tmp_path / "in", 1)  # one is there again
    assert batchlight.run(job).exit_code == 0


def test_a_killed_run_of_an_input_that_is_gone_is_finished_first(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "in", 3)
    (tmp_path / "in/broken.jpg").write_bytes(b"")
    job = config(tmp_path / "in", tmp_path / "out", batch_size=1, fail_fast=True)
    batchlight.run(job)
    for path in (*paths, tmp_path / "in/broken.jpg"):
        path.unlink(missing_ok=True)
    with pytest.raises(BatchlightError, match="check that it is mounted"):
        batchlight.run(job.model_copy(update={"fail_fast": False}))
    assert len(rows(tmp_path / "out")) == 4


@pytest.mark.parametrize(
    ("glob", "says"),
    [
        ("*.{jpg,png}", "braces and commas have no special meaning"),
        ("*.jpg,*.png", "braces and commas have no special meaning"),
        ("./*.jpg", "relative to the input, without"),
        ("in/*.jpg", "relative to the input"),
        ("*.JPG", "case matters"),
    ],
)
def test_a_glob_that_matches_nothing(
    tmp_path: Path, glob: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(tmp_path / "in", 2)
    job = config(tmp_path / "in", tmp_path / "out", include=(glob,))
    refused(job, 2, f"leave none of 2 images .*{says}")
    beside = job.model_copy(update={"include": (glob, "*.jpg"), "exclude": ("*.tmp",)})
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert batchlight.run(beside).ok == 2
    told = [r.getMessage() for r in caplog.records]
    assert sum(repr(glob) in text and "matches nothing" in text for text in told) == 1
    assert any("--exclude '*.tmp' matches nothing" in text for text in told)
    assert not any("'*.jpg'" in text for text in told)


@pytest.mark.parametrize("option", ["input", "output", "include", "exclude", "address", "weights"])
def test_an_empty_value_is_none(tmp_path: Path, option: str) -> None:
    write_images(tmp_path / "in", 1)
    given = () if option == "input" else ("--input", tmp_path / "in")
    done = batchlight_here("run", *given, "--workers", 0, f"--{option}", "")
    assert done.returncode == 2
    assert f"--{option} must not be empty" in done.stderr
    assert not (tmp_path / "in-enhanced").exists()


def test_a_folder_that_may_not_be_listed_costs_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "in", 2)
    (tmp_path / "in/lost+found").mkdir()
    scandir, opened = os.scandir, os.open

    def denied(path: Any) -> Any:
        if str(path).endswith("lost+found/"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    def not_opened(path: Any, *rest: Any, **more: Any) -> int:
        if str(path).rstrip("/").endswith("lost+found"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *rest, **more)

    monkeypatch.setattr(os, "scandir", denied)
    monkeypatch.setattr(os, "open", not_opened)
    for options in ({"exclude": ("lost+found/",)}, {"include": ("*.jpg",)}):
        job = config(tmp_path / "in", tmp_path / f"out{len(options)}", **options)
        assert batchlight.run(job).exit_code == 0
    job = config(tmp_path / "in", tmp_path / "out")
    assert batchlight.run(job).failed_by_code == {"unreadable": 1}
    assert batchlight.run(job).failed_by_code == {"unreadable": 1}
    monkeypatch.undo()
    assert batchlight.run(job).exit_code == 0


def test_a_folder_whose_path_is_too_long_costs_a_row(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 2)
    folder = tmp_path / "in"
    while len(str(folder)) < 4096 - 252:
        folder /= "d" * 250
    folder.mkdir(parents=True)
    descriptor = os.open(folder, os.O_RDONLY)
    os.makedirs(f"/proc/self/fd/{descriptor}/{'d' * 250}")
    os.close(descriptor)
    job = config(tmp_path / "in", tmp_path / "out")
    for _ in range(2):
        assert batchlight.run(job).failed_by_code == {"unreadable": 1}
        assert dry_run(job, estimate=True).retried == 1
    told = batchlight_here("failures", tmp_path / "out").stdout
    path, _, code, reason = told.rstrip("\n").split("\t")
    assert (path, code) == (f"{folder.relative_to(tmp_path / 'in')}/{'d' * 250}/", "unreadable")
    assert reason.endswith("file name too long")
    assert len(reason) < 500
    assert batchlight_here("verify", tmp_path / "out").returncode == 0
    shutil.rmtree(tmp_path / "in" / ("d" * 250))
    assert batchlight.run(job).exit_code == 0
