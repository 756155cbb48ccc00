"""Images are counted as images, pairs as pairs, bytes as they were read; and what ends with 3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import batchlight
from batchlight.config import JobConfig
from batchlight.worker import pipeline
from tests.support.helpers import batchlight_here, write_images

BOTH = ("classical", "absgn")


def run(folder: Path, **options: Any) -> batchlight.Summary:
    where: dict[str, Any] = {"input": str(folder), "output": str(folder.parent / "out")}
    return batchlight.run(JobConfig(**{**where, "workers": 0, "progress": "off", **options}))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "in", 4)
    return tmp_path / "in"


@pytest.fixture
def one_broken(photos: Path) -> Path:
    (photos / "z.jpg").write_bytes(b"no image")
    return photos


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_rerun_with_nothing_to_do_ends_well_and_says_what_failed_before(one_broken: Path) -> None:
    first = run(one_broken)
    assert (first.exit_code, first.pairs_now, first.failed_now) == (3, 5, 1)
    assert first.reason.startswith("1 of 5 images failed in this run, more than --max-failures 0")
    again = run(one_broken)
    assert (again.exit_code, again.pairs_now, again.failed_now, again.failed) == (0, 0, 0, 1)
    assert again.reason.startswith("nothing to do; 1 image failed in earlier runs (see: batchlight")
    assert again.reason.endswith("and --retry-failed tries again")
    assert run(one_broken, retry_failed=True).exit_code == 3
    assert run(one_broken).exit_code == 0


def test_new_images_are_judged_without_the_old_ones(one_broken: Path) -> None:
    run(one_broken)
    (one_broken / "new.jpg").write_bytes((one_broken / "a/0000.jpg").read_bytes())
    summary = run(one_broken)
    assert (summary.exit_code, summary.pairs_now, summary.failed) == (0, 1, 1)
    assert summary.reason.startswith("everything new is done; 1 image failed in earlier runs")
    (one_broken / "newer.jpg").write_bytes(b"")
    summary = run(one_broken, max_failures="99%")
    assert (summary.exit_code, summary.pairs_now, summary.failed_now) == (3, 1, 1)
    assert "1 of 1 image failed in this run" in summary.reason


def test_what_every_run_tries_again_fails_again(photos: Path) -> None:
    (photos / "z.jpg").symlink_to("nowhere")
    for _ in range(2):
        assert run(photos).exit_code == 3
    assert run(photos, max_failures=1).reason == (
        "1 of 1 image failed in this run, which --max-failures allows"
    )


def test_failures_of_a_plan_count_whatever_was_interrupted(one_broken: Path) -> None:
    (one_broken / "0.jpg").write_bytes(b"no image")
    stopped = run(one_broken, batch_size=1, fail_fast=True)
    assert (stopped.exit_code, stopped.done_now) == (3, 1)
    rest = run(one_broken, batch_size=1, max_failures=1)
    assert (rest.exit_code, rest.done_now, rest.pairs_now, rest.failed_now) == (3, 5, 6, 2)
    assert run(one_broken, batch_size=1).exit_code == 0


def test_failures_of_what_is_gone_by_the_end_are_nobodys_concern(one_broken: Path) -> None:
    (one_broken / "0.jpg").write_bytes(b"no image")
    run(one_broken, batch_size=1, fail_fast=True)
    for name in ("0.jpg", "z.jpg"):
        (one_broken / name).unlink()
    summary = run(one_broken, batch_size=1)
    assert (summary.exit_code, summary.gone, summary.pairs_now) == (0, 2, 4)
    assert summary.reason == "all images are done"


def test_a_failure_that_is_tried_again_in_the_same_run_counts_once(photos: Path) -> None:
    (photos / "0.jpg").symlink_to("nowhere")
    run(photos, batch_size=1, fail_fast=True)
    again = run(photos, batch_size=1)  # finishes the plan, and then tries it again
    assert (again.exit_code, again.done_now, again.pairs_now, again.failed_now) == (3, 5, 5, 1)


def test_bytes_are_those_that_were_read(one_broken: Path) -> None:
    summary = run(one_broken, method=BOTH, device="cpu", max_failures=2)
    assert summary.read_bytes == size(one_broken)
    assert summary.input_bytes == 2 * size(one_broken)
    assert summary.written_bytes == summary.output_bytes
    assert summary.written_bytes == sum(size(one_broken.parent / "out" / m) for m in BOTH)
    again = run(one_broken, method=BOTH, device="cpu")
    assert (again.read_bytes, again.written_bytes) == (0, 0)


def test_an_image_that_was_read_twice_was(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "KEEP_BYTES", 0)
    once = run(photos, atmospheric_light="image").read_bytes
    again = run(photos, output=str(photos.parent / "second"), batch_size=4)
    assert once == size(photos) < again.read_bytes <= 2 * once


def test_the_terminal_tells_pairs_from_images(one_broken: Path) -> None:
    words = ("--input", one_broken, "--output", one_broken.parent / "out", "--device", "cpu")
    both = ("--method", "classical", "--method", "absgn")
    assert "5 (10 pairs)" in batchlight_here("plan", *words, *both).stdout
    run_words = ("run", *words, *both, "--workers", 0, "--progress", "off")
    done = batchlight_here(*run_words)
    lines = dict(line.split("  ", 1) for line in done.stdout.splitlines() if "  " in line.strip())
    told = {name: value.strip() for name, value in lines.items()}
    assert (told["images"], told["(image, method)"]) == ("5", "10 pairs")
    assert (told["ok"], told["failed"]) == ("8 pairs", "2 pairs")
    assert "exit 3: 2 of 10 (image, method) pairs failed in this run" in done.stdout
    status = batchlight_here("status", one_broken.parent / "out")
    assert "10 of 10 (image, method) pairs done" in status.stdout
    found = json.loads(batchlight_here("status", one_broken.parent / "out", "--json").stdout)
    assert (found["images"], found["planned"], found["done"]) == (5, 10, 10)
    again = batchlight_here(*run_words)
    assert again.returncode == 0
    assert "read, written     0 B, 0 B\n" in again.stdout
    assert "nothing to do; 2 (image, method) pairs failed in earlier runs" in again.stdout


def test_with_one_method_all_is_images(photos: Path) -> None:
    words = ("--input", photos, "--workers", 0, "--progress", "off")
    done = batchlight_here("run", *words)
    assert "pair" not in done.stdout
    assert "images/s" in done.stdout
    planned = batchlight_here("plan", *words).stdout
    assert "pair" not in planned
    status = batchlight_here("status", photos.parent / "in-enhanced").stdout
    assert "4 of 4 images done" in status
