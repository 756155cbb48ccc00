"""``--copy-others``: labels and sidecars come along, kept as safely as images are."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

import cv2
import pytest

import batchlight
from batchlight.config import JobConfig
from batchlight.driver.dry_run import dry_run
from batchlight.driver.repair import RepairOptions, repair
from batchlight.driver.verify import verify
from batchlight.errors import BatchlightError, UsageError
from batchlight.output.state import OutputState
from batchlight.report.digest import digest
from batchlight.storage import Location
from batchlight.storage.local import LocalStorage
from batchlight.storage.streams import LocalReader
from batchlight.worker import copying
from batchlight.worker.comparing import Problem
from tests.support.dying import Died, die_at
from tests.support.helpers import (
    batchlight_here,
    dark_image,
    rows,
    stable_rows,
    tree,
    write_images,
)
from tests.support.s3_server import BUCKET, S3Server

BOTH = ("classical", "absgn")
LABEL = "0 0.5 0.5 0.25 0.25\n"


def run(folder: Path, out: str = "out", **options: Any) -> batchlight.Summary:
    where: dict[str, Any] = {"input": str(folder), "output": str(folder.parent / out)}
    fixed: dict[str, Any] = {"workers": 0, "progress": "off", "copy_others": True, "device": "cpu"}
    return batchlight.run(JobConfig(**{**where, **fixed, **options}))


def others(folder: Path) -> dict[str, bytes]:
    return {path: data for path, data in tree(folder).items() if not path.endswith(".jpg")}


def troubles(out: Path, *, mend: bool = False) -> dict[str, tuple[str, bool]]:
    found: list[Problem] = []
    if mend:
        options = RepairOptions(str(out.parent / "yolo"), copy_others=True, workers=0)
        assert repair(str(out), options, on_problem=found.append, say=print).sound
    else:
        verify(str(out), on_problem=found.append)
    return {problem.path: (problem.trouble, problem.repaired) for problem in found}


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """A data set as detectors are trained on: a label beside each image, in another folder."""
    folder = tmp_path / "yolo"
    for image in write_images(folder / "images/train", 4):
        label = folder / "labels/train" / image.parent.name / f"{image.stem}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(LABEL)
    (folder / "data.yaml").write_text("train: images/train\nnc: 1\nnames: [car]\n")
    (folder / "labels/empty.txt").touch()
    (folder / ".hidden").write_text("not copied")
    return folder


def test_the_output_is_a_data_set_to_train_on(yolo: Path) -> None:
    summary = run(yolo, method=BOTH)
    out = yolo.parent / "out"
    assert (summary.exit_code, summary.reason) == (0, "all files are done")
    assert (summary.inputs, summary.others, summary.pairs) == (4, 6, 20)
    assert (summary.ok, summary.copied, summary.missing, summary.passed_over) == (8, 12, 0, {})
    assert summary.read_bytes == sum(map(len, tree(yolo).values())) - len("not copied")
    for method in BOTH:
        assert set(tree(out / method)) == set(tree(yolo)) - {".hidden"}
        assert others(out / method) == {k: v for k, v in others(yolo).items() if k != ".hidden"}
    found = [row for row in rows(out) if row["input"] == "data.yaml"]
    assert [(row["method"], row["status"], row["output"]) for row in found] == [
        (method, "copied", f"{method}/data.yaml") for method in sorted(BOTH)
    ]
    assert found[0]["output_sha256"] == found[0]["input_sha256"]
    assert found[0]["output_bytes"] == (yolo / "data.yaml").stat().st_size
    assert found[0]["luminance_before"] is None
    assert troubles(out) == {}
    again = run(yolo, method=BOTH)
    assert (again.done_now, again.read_bytes, again.copied) == (0, 0, 12)


def test_an_image_folder_with_other_suffixes(tmp_path: Path) -> None:
    """As torchvision and Hugging Face read it; ``--format`` changes the names of images alone."""
    write_images(tmp_path / "in", 3)
    for name in ("metadata.jsonl", "a/0000.jpg.xmp", "classes"):
        (tmp_path / "in" / name).write_text(f'{{"of": "{name}"}}')
    run(tmp_path / "in", format="png")
    names = {
        "a/0000.png",
        "b/0001.png",
        "c/0002.png",
        "metadata.jsonl",
        "a/0000.jpg.xmp",
        "classes",
    }
    assert set(tree(tmp_path / "out/classical")) == names


def test_what_is_new_changed_or_gone(yolo: Path) -> None:
    run(yolo)
    out = yolo.parent / "out"
    (yolo / "labels/new.txt").write_text("new")
    (yolo / "data.yaml").write_text("changed")
    (yolo / "labels/empty.txt").unlink()
    where = JobConfig(input=str(yolo), output=str(out), copy_others=True)
    planned = dry_run(where)
    assert (planned.todo, planned.others, planned.todo_others, planned.gone) == (0, 6, 2, 1)
    summary = run(yolo)
    assert (summary.done_now, summary.gone, summary.copied) == (2, 1, 6)
    assert (out / "classical/data.yaml").read_text() == "changed"
    assert (out / "classical/labels/empty.txt").exists()  # as the outputs of images that are gone
    assert troubles(out) == {}


def test_it_can_be_turned_on_and_off(yolo: Path) -> None:
    plain = run(yolo, copy_others=False)
    assert (plain.others, plain.passed_over) == (0, {".txt": 5, ".yaml": 1})
    assert run(yolo).done_now == 6
    off = run(yolo, copy_others=False)
    assert (off.exit_code, off.done_now, off.gone, off.ok, off.copied) == (0, 0, 0, 4, 0)
    assert (yolo.parent / "out/classical/data.yaml").exists()


def test_globs_and_limit_hold_for_them(yolo: Path) -> None:
    summary = run(yolo, exclude="labels/")
    assert (summary.inputs, summary.others, summary.passed_over) == (4, 1, {".txt": 5})
    limited = run(yolo, "limited", limit=2)
    assert (limited.inputs, limited.ok) == (2, 2)


@pytest.mark.parametrize("name", ["data.yaml", "labels/train/a/0000.txt"])
def test_what_is_damaged_is_found_and_made_again(yolo: Path, name: str) -> None:
    run(yolo)
    out = yolo.parent / "out"
    calm = tree(out / "classical"), tree(out / "metadata")
    (out / "classical" / name).write_bytes(b"0 0.5 0.5 0.25 0.26\n" + b"#" * 99)
    (out / "classical/labels/empty.txt").unlink()
    both = {f"classical/{name}", "classical/labels/empty.txt"}
    assert set(troubles(out)) == both
    assert set(troubles(out, mend=True).values()) == {("altered", True), ("missing", True)}
    assert (tree(out / "classical"), tree(out / "metadata")) == calm
    [records] = (out / "metadata").iterdir()
    records.unlink()
    assert set(troubles(out, mend=True).values()) == {("damaged", True)}
    assert stable_rows(out)
    assert tree(out / "classical") == calm[0]


def test_a_repair_reads_no_labels_unless_told(yolo: Path) -> None:
    run(yolo)
    out = yolo.parent / "out"
    (out / "classical/data.yaml").unlink()
    found: list[Problem] = []
    options = RepairOptions(str(yolo), workers=0)
    assert not repair(str(out), options, on_problem=found.append, say=print).sound
    assert (
        "cannot be regenerated: it is not an image, and --copy-others is not given"
        in found[0].detail
    )
    [records] = (out / "metadata").iterdir()
    records.unlink()
    del found[:]
    assert not repair(str(out), options, on_problem=found.append, say=print).sound
    assert (
        "data.yaml: it is not an image, and --copy-others is not given (and 5 more)"
        in found[0].detail
    )


def test_failures_are_rows_and_end_with_3(yolo: Path) -> None:
    (yolo.parent / "secret.txt").write_text("secret")
    (yolo / "labels/secret.txt").symlink_to(yolo.parent / "secret.txt")
    (yolo / "labels/nowhere.txt").symlink_to("nothing")
    summary = run(yolo)
    assert (summary.exit_code, summary.missing) == (3, 0)
    assert summary.failed_by_code == {"missing": 1, "unsupported": 1}
    assert "2 of 12 files failed in this run" in summary.reason
    assert not (yolo.parent / "out/classical/labels/secret.txt").exists()


def test_those_that_fail_are_no_images(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_images(folder, 1)
    (folder / "a.txt").write_text("a")
    (tmp_path / "x.sh").write_text("#!")
    (folder / "a.sh").symlink_to("../x.sh")
    (folder / "bell\x07.txt").write_text("b")
    job = JobConfig(input=str(folder), copy_others=True)
    planned, limited = dry_run(job), dry_run(job.model_copy(update={"limit": 1}))
    assert (planned.inputs, planned.todo, planned.others, planned.todo_others) == (1, 1, 3, 3)
    assert (limited.inputs, limited.others) == (1, 2)
    summary = run(folder)
    assert (summary.inputs, summary.others, summary.pairs) == (1, 3, 4)
    assert (summary.ok, summary.copied, summary.failed_by_code) == (1, 1, {"unsupported": 2})
    off = run(folder, copy_others=False)
    assert (off.inputs, off.failed, off.gone, off.not_selected) == (1, 0, 0, 3)
    assert off.exit_code == 0


def test_entries_of_a_list_that_are_no_images_count_as_such(tmp_path: Path) -> None:
    """Only a folder has files that are copied."""
    write_images(tmp_path / "in", 1)
    (tmp_path / "list.txt").write_text("in/a/0000.jpg\nnotes.txt\nbell\x07.txt\n")
    summary = run(tmp_path / "list.txt", copy_others=False)
    assert (summary.inputs, summary.others, summary.ok) == (3, 0, 1)
    assert summary.failed_by_code == {"unsupported": 2}


def test_death_at_every_single_write(
    yolo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchlight.report.write_report", lambda *_: None)
    monkeypatch.setattr("batchlight.planning.cutting.OTHERS_PER_BATCH", 3)
    run(yolo, "calm", batch_size=4)
    calm, out = tmp_path / "calm", tmp_path / "out"
    for operation in range(1, 100):
        shutil.rmtree(out, ignore_errors=True)
        with monkeypatch.context() as patch:
            count = die_at(patch, LocalStorage, operation)
            with contextlib.suppress(Died):
                run(yolo, batch_size=4)
            if count() < operation:
                break
        shutil.rmtree(out / "_batchlight/locks", ignore_errors=True)  # held by this process
        assert run(yolo, batch_size=4).exit_code == 0
        assert tree(out / "classical") == tree(calm / "classical"), operation
        assert stable_rows(out) == stable_rows(calm), operation
    assert operation > 15


@pytest.fixture
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that anything is large."""
    monkeypatch.setattr(copying, "SMALL_BYTES", 4)
    monkeypatch.setattr(copying, "PIECE_BYTES", 5)
    monkeypatch.setattr("batchlight.worker.comparing.WHOLE_BYTES", 4)


def test_large_files_go_through_in_pieces(
    yolo: Path, in_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(yolo, "calm")
    assert others(yolo.parent / "calm/classical") == {
        k: v for k, v in others(yolo).items() if k != ".hidden"
    }
    assert troubles(yolo.parent / "calm") == {}
    for path in others(yolo.parent / "calm/classical"):
        times = [(top / path).stat().st_mtime for top in (yolo, yolo.parent / "calm/classical")]
        assert times[0] == pytest.approx(times[1], abs=1e-5)
    read_at = LocalReader.read_at

    def dying(self: LocalReader, offset: int, size: int) -> bytes:
        if offset >= 10:
            raise Died
        return read_at(self, offset, size)

    with monkeypatch.context() as patch:
        patch.setattr(LocalReader, "read_at", dying)
        with pytest.raises(Died):
            run(yolo)
    out = yolo.parent / "out"
    assert not (out / "classical/data.yaml").exists()
    shutil.rmtree(out / "_batchlight/locks")
    run(yolo)
    assert tree(out / "classical") == tree(yolo.parent / "calm/classical")
    assert not tree(out / "_batchlight/tmp")


@pytest.mark.nightly
def test_workers_do_not_matter(yolo: Path, shared_ray: str) -> None:
    for workers in (0, 2):
        run(yolo, f"out{workers}", workers=workers)
    first, second = (yolo.parent / f"out{workers}" for workers in (0, 2))
    assert stable_rows(first) == stable_rows(second)
    assert tree(first / "classical") == tree(second / "classical")


@pytest.mark.parametrize("pieces", [False, True])
def test_on_an_object_store(
    yolo: Path, s3: S3Server, pieces: bool, request: pytest.FixtureRequest
) -> None:
    if pieces:
        request.getfixturevalue("in_pieces")
    source, target = str(uuid4()), str(uuid4())
    (yolo / ".hidden").unlink()
    (yolo / "labels/empty.txt").write_text("no longer")  # stores have marks of folders, empty too
    s3.put(tree(yolo), source)
    where = {"input": f"s3://{BUCKET}/{source}", "output": f"s3://{BUCKET}/{target}"}
    summary = run(yolo, **where)
    assert (summary.exit_code, summary.ok, summary.copied) == (0, 4, 6)
    stored = {
        path.removeprefix("classical/"): data
        for path, data in s3.tree(target).items()
        if path.startswith("classical/")
    }
    assert stored.keys() == tree(yolo).keys()
    assert all(stored[name] == data for name, data in others(yolo).items())
    assert run(yolo, **where).done_now == 0
    found: list[Problem] = []
    assert verify(where["output"], on_problem=found.append).outputs == 10
    assert not found


def test_an_unfinished_run_needs_the_option_too(yolo: Path) -> None:
    (yolo / "images/0.jpg").write_bytes(b"")
    run(yolo, batch_size=1, fail_fast=True)
    with pytest.raises(UsageError, match="an unfinished run that also needs --copy-others"):
        run(yolo, batch_size=1, copy_others=False)
    assert run(yolo, batch_size=1, max_failures=1).exit_code == 0


def test_a_list_has_no_other_files(yolo: Path) -> None:
    (yolo.parent / "list.txt").write_text("yolo/images/train/a/0000.jpg\n")
    with pytest.raises(UsageError, match="--copy-others needs a folder"):
        run(yolo.parent / "list.txt")


def test_other_files_alone_are_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text("a")
    with pytest.raises(BatchlightError, match="contains only 1 file that --copy-others copies"):
        run(tmp_path / "in")
    assert run(tmp_path / "in", allow_empty=True).copied == 1


def test_a_label_where_an_output_would_need_a_folder(tmp_path: Path, s3: S3Server) -> None:
    """As ``a.jpg`` and ``a.jpg/label.txt``, which only an object store can hold."""
    source = str(uuid4())
    image = bytes(cv2.imencode(".jpg", dark_image(1))[1])
    s3.put({"a.jpg": image, "a.jpg/label.txt": b"label"}, source)
    summary = run(tmp_path / "in", input=f"s3://{BUCKET}/{source}")
    assert (summary.ok, summary.failed_by_code) == (1, {"unsupported": 1})


def test_the_terminal_says_so(yolo: Path) -> None:
    words = ("--input", yolo, "--copy-others")
    assert re.search(r"^other files +6, ", batchlight_here("plan", *words).stdout, re.MULTILINE)
    done = batchlight_here("run", *words, "--workers", 0, "--progress", "off")
    assert "other files       6\n" in done.stdout
    assert "copied            6\n" in done.stdout
    planned = json.loads(batchlight_here("plan", *words, "--json").stdout)
    assert (planned["others"], planned["todo_others"], planned["inputs"]) == (6, 0, 4)


def test_the_report_tells_of_images_alone(yolo: Path) -> None:
    run(yolo)
    out = LocalStorage(Location.parse(str(yolo.parent / "out")))
    found = digest(out, OutputState.load(out).record_files)
    images = sum(path.endswith(".jpg") for path in tree(yolo))
    assert found.tally.rows == sum(c.images for c in found.folders.counts.values()) == images
    assert found.tally.failed == sum(c.failed for c in found.folders.counts.values()) == 0
    page = (yolo.parent / "out/report.html").read_text()
    assert "<dt>other files, copied</dt><dd>6</dd>" in page
