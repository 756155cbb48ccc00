"""Whole runs: the same bytes whatever the workers, resume, incremental runs, refusals."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import batchlight
from batchlight.driver.dry_run import dry_run
from batchlight.errors import UsageError
from batchlight.images import codec
from batchlight.images.image import Decoded, Header
from batchlight.images.measures import measure
from batchlight.output.commit import close_plan
from batchlight.output.earlier import earlier_rows
from batchlight.output.records import SCHEMA, Record
from batchlight.output.state import OutputState
from batchlight.output.status import read_status
from batchlight.storage import Location, Storage, open_storage
from tests.support.helpers import (
    ALL_DARK,
    dark_image,
    read_image,
    rows,
    stable_rows,
    tree,
    write_images,
)
from tests.support.helpers import (
    batchlight as command,
)


def run(folder: Path, **options: Any) -> batchlight.Summary:
    """In this process, into ``out`` beside the input."""
    settings = {"output": str(folder.parent / "out"), "workers": 0, "progress": "off", **options}
    return batchlight.run(batchlight.JobConfig(input=str(folder), **settings))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "in", 14)
    return tmp_path / "in"


def test_every_image_gets_its_output_and_its_row(photos: Path) -> None:
    summary = run(photos, batch_size=5)
    out = photos.parent / "out"
    assert (summary.exit_code, summary.ok, summary.failed, summary.missing) == (0, 14, 0, 0)
    names = sorted(tree(photos))
    assert sorted(tree(out / "classical")) == names
    found = rows(out)
    assert [row["input"] for row in found] == names
    for row in found:
        before, after = read_image(photos / row["input"]), read_image(out / row["output"])
        assert after.mean() > before.mean()
        assert row["luminance_after"] > row["luminance_before"]
        assert (row["width"], row["height"], row["channels"], row["bit_depth"]) == (64, 48, 3, 8)
        assert row["output_bytes"] == (out / row["output"]).stat().st_size
        assert row["input_bytes"] == (photos / row["input"]).stat().st_size
        assert (row["format"], row["attempts"]) == ("jpeg", 1)
    for batch in range(3):
        members = [row for row in found if row["batch"] == batch]
        mean = np.float32(np.mean([row["atmospheric_light"] for row in members], dtype=np.float64))
        for row in members:
            assert row["batch_atmospheric_light"] == pytest.approx(mean, rel=1e-6)
    assert json.loads((out / "summary.json").read_text())["exit_code"] == 0
    assert not tree(out / "_batchlight/tmp")
    assert not tree(out / "_batchlight/parts")


@pytest.mark.parametrize("chosen", ["batch", "image", "250"])
def test_pixels_are_those_of_the_light_that_is_recorded(tmp_path: Path, chosen: str) -> None:
    write_images(tmp_path / "in", 6, ".png")
    run(tmp_path / "in", batch_size=3, atmospheric_light=chosen, max_failures="100%")
    for row in rows(tmp_path / "out"):
        own, shared = row["atmospheric_light"], row["batch_atmospheric_light"]
        assert shared is not None
        light = {"batch": max(own, shared), "image": own}.get(chosen, 250.0)
        image = read_image(tmp_path / "in" / row["input"])
        expected = batchlight.enhance(image, atmospheric_light=light, channel_order="bgr")
        assert np.array_equal(read_image(tmp_path / "out" / row["output"]), expected)


def test_a_dark_cut_out_on_hidden_white_is_enhanced(tmp_path: Path) -> None:
    image = dark_image(1, 64, 64, 4) // (4, 4, 4, 1)
    image[..., 3] = 255
    image[:, 24:] = (255, 255, 255, 0)
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/a.png"), image.astype(np.uint8))
    run(tmp_path / "in", atmospheric_light="image")
    (row,) = rows(tmp_path / "out")
    assert row["status"] == "ok"
    assert row["luminance_before"] == pytest.approx(measure(image[:, :24, :3].astype(np.uint8))[0])
    assert row["luminance_after"] > 3 * row["luminance_before"]
    done = cv2.imread(str(tmp_path / "out" / row["output"]), cv2.IMREAD_UNCHANGED)
    assert done is not None
    assert np.array_equal(done, batchlight.enhance(image.astype(np.uint8), channel_order="bgr"))


def test_memory_budget_changes_nothing(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(photos)
    calm = tree(photos.parent / "out/classical")
    for budget in (0, 3000, 20_000):  # nothing kept; some encoded; some decoded
        monkeypatch.setattr("batchlight.worker.pipeline.KEEP_BYTES", budget)
        run(photos, output=str(photos.parent / f"out{budget}"))
        assert tree(photos.parent / f"out{budget}/classical") == calm


def test_only_images_whose_light_the_mean_may_exceed_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits is decoded again here, since nothing can be kept; the others only once."""
    for number in range(6):
        image = np.clip(dark_image(number, 64, 64), 20, None)
        if number % 3:
            image[:32, :32] = 0  # black without a trace of light: nothing is hazier, so A = 255
        (tmp_path / "in").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"in/{number}.png"), image)
    decodings = []
    decode = codec.decode

    def counting(data: bytes, header: Header) -> Decoded:
        decodings.append(hashlib.sha256(data).hexdigest())
        return decode(data, header)

    monkeypatch.setattr("batchlight.images.codec.decode", counting)
    monkeypatch.setattr(
        "batchlight.report.write_report", lambda output: None
    )  # which decodes some too
    monkeypatch.setattr("batchlight.worker.pipeline.KEEP_BYTES", 0)
    run(tmp_path / "in")
    found = {row["input"]: row for row in rows(tmp_path / "out")}
    for number in range(6):
        row = found[f"{number}.png"]
        waits = number % 3 == 0
        assert (row["atmospheric_light"] < row["batch_atmospheric_light"]) == waits
        assert decodings.count(row["input_sha256"]) == 1 + waits


def test_workers_do_not_matter(photos: Path, shared_ray: str) -> None:
    found = {}
    for workers in (0, 2):
        out = photos.parent / f"out{workers}"
        done = command(
            "run", "--input", photos, "--output", out, "--workers", workers, "--batch-size", 3
        )
        assert done.returncode == 0, done.stderr
        found[workers] = (tree(out / "classical"), stable_rows(out), sorted(tree(out / "metadata")))
    assert found[0] == found[2]


AUDITED = """
import os, sys
log = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def note(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        os.write(log, os.fsencode(arguments[0]) + b"\\n")
sys.addaudithook(note)
from batchlight.cli.main import main
main()
"""


def test_a_second_run_opens_no_finished_image(photos: Path) -> None:
    out, log = photos.parent / "out", photos.parent / "opened"
    arguments = ["run", "--input", photos, "--output", out, "--workers", "0", "--batch-size", "4"]
    audited = [sys.executable, "-c", AUDITED, str(log), *map(str, arguments)]
    assert subprocess.run(audited, check=True, capture_output=True).returncode == 0
    images = {str(photos / name) for name in tree(photos)}
    assert images <= set(os.fsdecode(log.read_bytes()).splitlines())  # the first run does open them
    before = {p: p.stat().st_mtime_ns for p in (out / "classical").rglob("*.jpg")}

    log.unlink()
    subprocess.run(audited, check=True, capture_output=True)
    assert not images & set(os.fsdecode(log.read_bytes()).splitlines())
    assert before == {p: p.stat().st_mtime_ns for p in (out / "classical").rglob("*.jpg")}


def test_new_and_changed_files_are_picked_up_and_nothing_else(photos: Path) -> None:
    out = photos.parent / "out"
    run(photos, batch_size=4)
    first = {row["input"]: row for row in rows(out)}
    outputs = tree(out / "classical")

    cv2.imwrite(str(photos / "a/0000.jpg"), dark_image(99))
    cv2.imwrite(str(photos / "z.jpg"), dark_image(100))
    (photos / "b/0001.jpg").unlink()
    summary = run(photos, batch_size=4)
    assert (summary.done_now, summary.gone, summary.inputs, summary.ok) == (2, 1, 14, 14)
    second = {row["input"]: row for row in rows(out)}
    assert len(rows(out)) == len(second) == 15
    assert second.keys() - first.keys() == {"z.jpg"}
    changed = {name for name in first if second[name] != first[name]}
    assert changed == {"a/0000.jpg"}
    assert (second["a/0000.jpg"]["batch"], second["z.jpg"]["batch"]) == (4, 4)
    after = tree(out / "classical")
    assert {name for name in outputs if after[name] != outputs[name]} == {"a/0000.jpg"}

    assert run(photos, batch_size=4).done_now == 0
    assert {row["input"]: row for row in rows(out)} == second


def test_many_plans_of_many_chunks(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchlight.planning.cutting.CHUNK_ROWS", 4)
    out = photos.parent / "out"
    run(photos, batch_size=2)
    for seed, names in ((50, ["a/0000.jpg", "0.jpg"]), (60, ["b/0004.jpg", "bb.jpg", "z.jpg"])):
        for number, name in enumerate(names):
            cv2.imwrite(str(photos / name), dark_image(seed + number))
        summary = run(photos, batch_size=2)
        assert (summary.done_now, summary.exit_code) == (len(names), 0)
    assert len(tree(out / "metadata")) == 4 + 1 + 1
    assert [row["input"] for row in rows(out)] == sorted(tree(photos))
    storage = open_storage(Location.parse(str(out)))
    earlier = list(earlier_rows(storage, OutputState.load(storage)))
    assert [row.path for row in earlier] == sorted(tree(photos))
    run(photos, batch_size=2, overwrite=True)
    assert [row["input"] for row in rows(out)] == sorted(tree(photos))
    assert {row["batch"] for row in rows(out)} == set(range(10, 19))
    assert run(photos, batch_size=2).done_now == 0


def test_a_changed_parameter_is_refused_naming_it(photos: Path) -> None:
    run(photos)
    before = tree(photos.parent / "out/classical")
    with pytest.raises(UsageError, match=r"omega auto -> 0\.5.*--overwrite"):
        run(photos, omega=0.5)
    assert tree(photos.parent / "out/classical") == before
    summary = run(photos, omega=0.5, overwrite=True)
    assert (summary.done_now, summary.ok, len(rows(photos.parent / "out"))) == (14, 14, 14)
    assert tree(photos.parent / "out/classical") != before
    assert run(photos, omega=0.5).done_now == 0


def test_another_input_is_refused(photos: Path) -> None:
    run(photos)
    other = photos.parent / "other"
    shutil.copytree(photos, other)
    with pytest.raises(UsageError, match=r"holds the images of .*/in, not of .*/other"):
        run(other)


def test_a_failure_that_can_pass_is_redone_and_a_permanent_one_is_not(photos: Path) -> None:
    (photos / "corrupt.jpg").write_bytes(b"no image")
    (photos / "missing.jpg").symlink_to("nowhere")
    out = photos.parent / "out"
    summary = run(photos)
    assert (summary.exit_code, summary.failed_by_code) == (3, {"corrupt": 1, "missing": 1})
    first = {row["input"]: row for row in rows(out)}

    (photos / "missing.jpg").unlink()
    cv2.imwrite(str(photos / "missing.jpg"), dark_image(5))
    summary = run(photos)
    assert (summary.done_now, summary.failed_by_code) == (1, {"corrupt": 1})
    assert first["corrupt.jpg"] in rows(out)

    assert run(photos, retry_failed=True).done_now == 1
    for allowed, code in (("1", 0), ("99%", 3), ("100%", 0)):
        assert run(photos, retry_failed=True, max_failures=allowed).exit_code == code


def test_an_output_that_is_no_longer_true_goes(photos: Path) -> None:
    out = photos.parent / "out"
    cv2.imwrite(str(photos / "x.png"), dark_image(3))
    run(photos)
    (photos / "a/0000.jpg").write_bytes(b"no image any more")
    assert run(photos).failed_by_code == {"corrupt": 1}
    assert not (out / "classical/a/0000.jpg").exists()
    assert len(tree(out / "classical")) == 14

    run(photos, overwrite=True, format="webp")
    assert all(name.endswith(".webp") for name in tree(out / "classical"))
    named = {row["output"].removeprefix("classical/") for row in rows(out) if row["output"]}
    assert named == set(tree(out / "classical"))


def test_an_overwriting_run_with_other_parameters_leaves_no_mixture(photos: Path) -> None:
    run(photos)
    run(photos, omega=0.5, overwrite=True, include=["a/"])
    summary = run(photos, omega=0.5)
    assert summary.done_now == 9
    assert len({row["fingerprint"] for row in rows(photos.parent / "out")}) == 1


def test_overwrite_takes_another_input(photos: Path) -> None:
    run(photos, overwrite=True)
    other = photos.parent / "other"
    write_images(other, 3)
    assert run(other, overwrite=True).done_now == 3


def test_an_interrupted_overwrite_counts_no_row_twice(photos: Path) -> None:
    run(photos, batch_size=2)
    (photos / "a/0000.jpg").write_bytes(b"")
    summary = run(photos, batch_size=2, overwrite=True, fail_fast=True)
    assert summary.exit_code == 3
    assert summary.ok + summary.failed == 14
    assert (summary.done_now, summary.failed) == (2, 1)


def test_a_refused_overwrite_leaves_an_unfinished_run_as_it_was(photos: Path) -> None:
    out = photos.parent / "out"
    (photos / "a/0000.jpg").write_bytes(b"")
    run(photos, batch_size=2, fail_fast=True)
    cv2.imwrite(str(photos / "a/0003.png"), dark_image(1))
    before = {path: data for path, data in tree(out).items() if "/locks/" not in path}
    with pytest.raises(UsageError, match="would both be written"):
        run(photos, batch_size=2, format="png", overwrite=True)
    assert {path: data for path, data in tree(out).items() if "/locks/" not in path} == before
    assert read_status(str(out)).state == "interrupted"
    summary = run(photos, batch_size=2)
    assert (summary.ok, summary.failed, summary.missing) == (14, 1, 0)


def test_a_dry_run_of_an_overwrite_goes_on_as_the_run_does(photos: Path) -> None:
    run(photos, batch_size=2)
    (photos / "a/0000.jpg").write_bytes(b"")
    done = run(photos, batch_size=2, omega=0.5, overwrite=True, fail_fast=True).done_now
    options: dict[str, Any] = {"batch_size": 2, "omega": 0.5}
    options |= {"output": str(photos.parent / "out"), "overwrite": True}
    found = dry_run(batchlight.JobConfig(input=str(photos), **options))
    assert (found.todo, found.left_of_stored_plan) == (14 - done, 14 - done)
    assert run(photos, batch_size=2, omega=0.5, overwrite=True).done_now == 14 - done


def test_a_run_that_stops_again_in_a_stored_plan_knows_what_is_gone(photos: Path) -> None:
    (photos / "a/0003.jpg").write_bytes(b"")
    run(photos, batch_size=2)
    for file in photos.rglob("*.jpg"):
        file.rename(file.with_name(f"new {file.name}"))
        file.with_name(f"old {file.name}").write_bytes(b"")
    once = run(photos, batch_size=2, fail_fast=True)
    twice = run(photos, batch_size=2, fail_fast=True)
    assert (once.inputs, twice.inputs) == (28, 28)
    assert (once.gone, twice.gone) == (14, 14)
    assert twice.done_before == once.done_now
    for summary in (once, twice):
        assert summary.ok + summary.failed + summary.missing == 28
    assert twice.missing == once.missing - twice.done_now


def test_a_run_inside_a_running_loop(photos: Path) -> None:
    async def notebook() -> batchlight.Summary:
        return run(photos)

    assert asyncio.run(notebook()).ok == 14


def test_fail_fast_at_the_last_batch_is_the_end(photos: Path) -> None:
    (photos / "z.jpg").write_bytes(b"")
    summary = run(photos, fail_fast=True)
    assert summary.exit_code == 3
    assert "1 of 15 images failed" in summary.reason
    assert len(rows(photos.parent / "out")) == 15


def test_fail_fast_stops_and_the_next_run_goes_on(photos: Path) -> None:
    (photos / "a/0000.jpg").write_bytes(b"")
    summary = run(photos, batch_size=2, fail_fast=True)
    assert summary.exit_code == 3
    assert summary.done_now < 14
    assert "stopped early" in summary.reason
    summary = run(photos, batch_size=2)
    assert (summary.ok, summary.failed_by_code) == (13, {"empty": 1})


def test_fail_fast_stops_no_run_that_would_be_good(photos: Path) -> None:
    """A percentage is one of all that the run does, not of what it has done so far."""
    run(photos, batch_size=1)
    (photos / "y.jpg").write_bytes(b"")
    cv2.imwrite(str(photos / "z.jpg"), dark_image(1))
    summary = run(photos, batch_size=1, max_failures="50%", fail_fast=True)
    assert (summary.exit_code, summary.done_now, summary.failed) == (0, 2, 1)


def test_format_changes_the_suffix_and_collisions_are_refused(photos: Path) -> None:
    run(photos, format="png")
    assert all(name.endswith(".png") for name in tree(photos.parent / "out/classical"))
    cv2.imwrite(str(photos / "a/0000.png"), dark_image(1))
    with pytest.raises(UsageError, match=r"a/0000\.jpg and a/0000\.png would both be written"):
        run(photos, format="png", output=str(photos.parent / "out2"))
    assert not (photos.parent / "out2/classical").exists()


def test_the_advice_for_an_image_that_collides_with_one_done_before_helps(photos: Path) -> None:
    """Every night again, until somebody follows it; nothing is written before that."""
    options = {"format": "webp", "include": ("a/",)}
    run(photos, **options)
    kept = tree(photos.parent / "out/classical")
    cv2.imwrite(str(photos / "a/0000.webp"), dark_image(1))
    cv2.imwrite(str(photos / "a/new.jpg"), dark_image(2))
    with pytest.raises(UsageError, match=r"is the output of a/0000\.jpg, and a/0000\.webp would"):
        run(photos, **options)
    assert tree(photos.parent / "out/classical") == kept
    excluded = run(photos, **options, exclude=("/a/0000.webp",))
    assert (excluded.exit_code, excluded.done_now) == (0, 1)
    (photos / "a/0000.webp").rename(photos / "a/renamed.webp")
    assert run(photos, **options).exit_code == 0
    (photos / "a/renamed.webp").rename(photos / "a/0000.webp")
    elsewhere = run(photos, output=str(photos.parent / "other"), format="same", include=("a/",))
    assert elsewhere.exit_code == 0


def test_a_file_that_is_not_there_is_said_to_be_missing(photos: Path) -> None:
    """A link to nothing and an entry of a list never were there; nobody knows if others were."""
    says = "there is no such file, or it vanished after the listing"
    (photos / "a/link.jpg").symlink_to("nowhere.jpg")
    assert run(photos).failed_by_code == {"missing": 1}
    listed = photos.parent / "list.txt"
    listed.write_text("in/a/0000.jpg\nnope.jpg\n")
    assert run(listed, output=str(photos.parent / "of list")).failed_by_code == {"missing": 1}
    for out in (photos.parent / "out", photos.parent / "of list"):
        assert [row["error"] for row in rows(out) if row["status"] == "failed"] == [says]


def test_what_an_image_left_is_not_overwritten_by_one_of_another_suffix(photos: Path) -> None:
    run(photos, format="jpeg")
    kept = tree(photos.parent / "out/classical")
    (photos / "a/0000.jpg").unlink()
    cv2.imwrite(str(photos / "a/0000.png"), dark_image(1))
    summary = run(photos, format="jpeg")
    assert (summary.failed_by_code, summary.gone) == ({"unsupported": 1}, 1)
    assert tree(photos.parent / "out/classical") == kept
    [failed] = [row for row in rows(photos.parent / "out") if row["status"] == "failed"]
    assert "classical/a/0000.jpg is the output of a/0000.jpg" in failed["error"]
    again = run(photos, format="jpeg")
    assert (again.exit_code, again.done_now) == (0, 0)
    (photos / "a/0000.png").rename(photos / "a/new name.png")
    assert run(photos, format="jpeg").exit_code == 0


@pytest.mark.parametrize("output", ["in", "."])
def test_an_output_that_would_hold_the_input_is_refused(photos: Path, output: str) -> None:
    with pytest.raises(UsageError, match="would contain the input"):
        run(photos, output=str(photos.parent / output))
    assert not (photos / "_batchlight").exists()


def test_an_output_among_the_images_of_the_input_is_refused(photos: Path) -> None:
    """Else they would never be listed, and nobody would be told."""
    with pytest.raises(UsageError, match="contains images of the input"):
        run(photos, output=str(photos / "a"))
    assert sorted(path.name for path in (photos / "a").iterdir() if path.is_dir()) == []
    assert run(photos / "a", output=str(photos / "new")).exit_code == 0


def test_an_output_inside_the_input_is_no_input(photos: Path) -> None:
    out = photos / "enhanced"
    run(photos, output=str(out))
    assert run(photos, output=str(out)).inputs == 14
    assert len(tree(out / "classical")) == 14


def test_the_default_output(photos: Path) -> None:
    run(photos, output=None)
    assert len(tree(photos.parent / "in-enhanced/classical")) == 14


def test_no_images_are_no_failure_if_allowed_but_are_said(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    summary = run(tmp_path / "in", allow_empty=True)
    assert (summary.exit_code, summary.reason) == (0, f"no images were found in {tmp_path}/in")


@pytest.mark.parametrize(("darker_by", "failed"), [(0.019, 0), (0.021, 1)])
def test_a_result_that_is_hardly_darker_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, darker_by: float, failed: int
) -> None:
    (tmp_path / "in").mkdir()
    image = dark_image(1, 24, 32) + 100
    cv2.imwrite(str(tmp_path / "in/a.png"), image)
    before = measure(image)[0]
    monkeypatch.setattr("batchlight.worker.steps.measure", lambda _: (before - darker_by, 0.0))
    assert run(tmp_path / "in", **ALL_DARK).failed == failed
    [row] = rows(tmp_path / "out")
    assert row["luminance_after"] == pytest.approx(before - darker_by)
    assert row["clipped_fraction"] == 0


def test_suspicious_output_is_no_output(tmp_path: Path) -> None:
    image = np.full((40, 40, 3), 100, np.uint8)
    image[:20] = 90
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/a.png"), image)
    summary = run(tmp_path / "in", atmospheric_light=60)  # far too low: everything turns black
    assert summary.failed_by_code == {"suspicious_output": 1}
    assert not (tmp_path / "out/classical").exists()
    [row] = rows(tmp_path / "out")
    assert (row["status"], row["output"], row["luminance_after"]) == ("failed", None, 0)
    assert row["omega"] is None


def test_a_flat_image_may_stay_flat(tmp_path: Path) -> None:
    """Whatever its colour: the result is no more constant than the image."""
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/a.png"), np.full((20, 30, 3), (2, 1, 0), np.uint8))
    assert run(tmp_path / "in", atmospheric_light=250).ok == 1
    assert not read_image(tmp_path / "out/classical/a.png").any()


def test_records_have_the_schema_they_promise(photos: Path) -> None:
    assert list(Record.__dataclass_fields__) == SCHEMA.names
    run(photos)
    assert list(rows(photos.parent / "out")[0]) == SCHEMA.names


def test_a_row_that_is_lost_under_way_is_missed(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inputs x methods = ok + skipped + failed, or the run says what is missing, and is not 0."""
    pytest.importorskip("torch")

    def close(storage: Storage, state: OutputState, move_all: Any) -> OutputState:
        (photos.parent / "out/_batchlight/parts/0000000001.parquet").unlink()
        return close_plan(storage, OutputState.load(storage), move_all)

    with monkeypatch.context() as patch:
        patch.setattr("batchlight.driver.run.close_plan", close)
        summary = run(photos, batch_size=5, method=("classical", "absgn"), max_failures="100%")
    assert (summary.exit_code, summary.inputs, summary.missing) == (1, 14, 10)
    assert summary.ok + summary.failed == 18
    assert (
        "10 of 28 (image, method) pairs have no record; run the same command again"
        in summary.reason
    )
    assert json.loads((photos.parent / "out/summary.json").read_text())["missing"] == 10

    summary = run(photos, batch_size=5, method=("classical", "absgn"), max_failures="100%")
    assert (summary.exit_code, summary.missing, summary.done_now) == (0, 0, 10)
    assert summary.ok + summary.failed == 28
