"""Outputs and records that were damaged: found, told, and made again to the same bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pyarrow.parquet as pq
import pytest

import batchlight
from batchlight.driver.repair import repair
from batchlight.driver.verify import Problem, verify
from batchlight.output.lock import Lock
from batchlight.storage import Location, open_storage
from tests.support.helpers import batchlight as command
from tests.support.helpers import dark_image, rows, stable_rows, tree, write_images

IMAGES = 14
State = tuple[dict[str, bytes], dict[str, bytes]]


def run(folder: Path, out: Path, **options: Any) -> batchlight.Summary:
    settings: dict[str, Any] = {"workers": 0, "batch_size": 4, "progress": "off"} | options
    return batchlight.run(batchlight.JobConfig(input=str(folder), output=str(out), **settings))


def state(out: Path) -> State:
    return tree(out / "classical"), tree(out / "metadata")


def check(out: Path, *, mend: bool = False) -> tuple[bool, list[Problem]]:
    """Whether all is well in the end, and what was not."""
    found: list[Problem] = []
    if mend:
        return repair(str(out), found.append, lambda text: None).sound, found
    return verify(str(out), found.append).sound, found


def troubles(found: list[Problem]) -> dict[str, str]:
    return {problem.path: problem.trouble for problem in found}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "in", IMAGES)
    (tmp_path / "in/broken.jpg").write_bytes(b"no image")
    return tmp_path / "in"


@pytest.fixture
def out(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two plans: nine chunks of one batch each, one of them with a changed and a new image."""
    monkeypatch.setattr("batchlight.driver.planner.CHUNK_ROWS", 4)
    out = photos.parent / "out"
    run(photos, out)
    cv2.imwrite(str(photos / "b/0004.jpg"), dark_image(51))
    cv2.imwrite(str(photos / "new.jpg"), dark_image(52))
    run(photos, out)
    assert len(tree(out / "metadata")) == 5
    return out


def test_what_is_as_recorded_is_not_touched(out: Path) -> None:
    before = tree(out)
    done = command("verify", out)
    assert done.returncode == 0
    assert f"{out}: as recorded" in done.stdout
    assert f"outputs           {IMAGES + 1}" in done.stdout
    assert check(out, mend=True) == (True, [])
    after = tree(out)
    kept = [path for path in before if "locks" not in path]
    assert {path: after[path] for path in kept} == {path: before[path] for path in kept}


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def alter(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_bad_outputs_are_found_and_exactly_those_are_redone(out: Path) -> None:
    calm = state(out)
    damage: dict[str, tuple[Callable[[Path], None], str]] = {
        "classical/a/0000.jpg": (Path.unlink, "missing"),
        "classical/a/0003.jpg": (truncate, "truncated"),
        "classical/b/0004.jpg": (alter, "altered"),
        "classical/new.jpg": (empty, "truncated"),
    }
    for name, (change, _) in damage.items():
        change(out / name)
    expected = {name: trouble for name, (_, trouble) in damage.items()}
    times = {path: path.stat().st_mtime_ns for path in (out / "classical").rglob("*.jpg")}

    sound, found = check(out)
    assert (sound, troubles(found)) == (False, expected)
    assert {path: path.stat().st_mtime_ns for path in times} == times

    sound, found = check(out, mend=True)
    assert (sound, troubles(found)) == (True, expected)
    assert all(problem.repaired for problem in found)
    assert state(out) == calm
    touched = {p for p in times if p.stat().st_mtime_ns != times[p]}
    assert touched <= {out / name for name in expected}
    assert check(out) == (True, [])


@pytest.mark.parametrize("number", [0, 2, 3, 4])
@pytest.mark.parametrize("damage", [Path.unlink, truncate, alter])
def test_damaged_records_are_made_again(
    out: Path, damage: Callable[[Path], None], number: int
) -> None:
    calm, records = state(out), stable_rows(out)
    name = f"metadata/{sorted(calm[1])[number]}"
    damage(out / name)
    sound, found = check(out)
    assert (sound, troubles(found)) == (False, {name: "damaged"})
    if damage is truncate:
        again = command("run", "--input", out.parent / "in", "--output", out, "--batch-size", 4)
        assert again.returncode == 1
        assert "'batchlight verify OUTPUT --repair' makes them again" in again.stderr
    assert check(out, mend=True)[0]
    assert state(out)[0] == calm[0]
    assert state(out)[1].keys() == calm[1].keys()
    assert stable_rows(out) == records
    assert check(out) == (True, [])


def test_lost_records_of_a_batch_of_which_an_image_has_changed_since(out: Path) -> None:
    """Its old content is gone, and with it the batch's old mean: the new one is as true."""
    name = sorted(tree(out / "metadata"))[1]
    lost = [row["input"] for row in pq.read_table(out / "metadata" / name).to_pylist()]
    assert len(lost) == 3  # of a batch of four
    (out / "metadata" / name).unlink()
    assert check(out, mend=True)[0]
    found = {row["input"]: row for row in rows(out)}
    assert len(rows(out)) == len(found) == IMAGES + 2
    for input in lost:
        row = found[input]
        light = max(row["batch_atmospheric_light"], row["atmospheric_light"])
        alone = out.parent / "alone" / input
        run(out.parent / "in" / input, alone, atmospheric_light=light)
        [expected] = tree(alone / "classical").values()
        assert (out / row["output"]).read_bytes() == expected


def test_several_at_once_and_the_newest_count(out: Path) -> None:
    """Both files that tell of the changed image are gone: it gets one row, not two."""
    calm = tree(out / "metadata")
    for name in calm:
        (out / "metadata" / name).write_bytes(b"PAR1")
    assert check(out, mend=True)[0]
    assert tree(out / "metadata").keys() == calm.keys()
    assert len(rows(out)) == len({row["input"] for row in rows(out)}) == IMAGES + 2
    assert check(out) == (True, [])
    assert run(out.parent / "in", out).done_now == 0


def test_a_damaged_part_of_an_unfinished_run(photos: Path) -> None:
    """The run cannot end before it is repaired; then it ends like any other."""
    calm, out = photos.parent / "calm", photos.parent / "out"
    run(photos, calm)
    assert run(photos, out, fail_fast=True).reason.startswith("stopped early")
    part = sorted((out / "_batchlight/parts").iterdir())[1]
    truncate(part)
    sound, found = check(out)
    assert (sound, troubles(found)) == (False, {f"_batchlight/parts/{part.name}": "damaged"})
    assert check(out, mend=True)[0]
    assert check(out) == (True, [])
    assert run(photos, out).done_before == 12
    assert stable_rows(out) == stable_rows(calm)


def test_an_output_that_an_unfinished_run_has_replaced_is_no_problem(out: Path) -> None:
    photos = out.parent / "in"
    for number, path in enumerate(sorted((photos / "a").iterdir())):
        cv2.imwrite(str(path), dark_image(70 + number))
    (photos / "a/0001.png").write_bytes(b"")
    (photos / "z.png").write_bytes(b"")
    assert run(photos, out, fail_fast=True).reason.startswith("stopped early")
    assert len(list((out / "_batchlight/parts").iterdir())) == 1
    assert check(out) == (True, [])


def test_what_cannot_be_made_again_is_told_and_kept(out: Path) -> None:
    """Its input is gone, and so nothing that is left is thrown away."""
    (out.parent / "in/a/0000.jpg").unlink()
    truncate(out / "classical/a/0000.jpg")
    left, records = tree(out / "classical"), rows(out)
    sound, [problem] = check(out, mend=True)
    assert (sound, problem.repaired) == (False, False)
    assert "cannot be made again: vanished since it was listed" in problem.detail
    assert (tree(out / "classical"), rows(out)) == (left, records)


def test_the_command(out: Path) -> None:
    (out / "classical/a/0000.jpg").unlink()
    alter(out / "classical/new.jpg")
    done = command("verify", out)
    assert done.returncode == 3
    assert done.stdout.startswith(
        "classical/new.jpg\taltered\tits sha256 is not the recorded one\n"
        "classical/a/0000.jpg\tmissing\tthere is no such file\n"
    )
    assert f"{out}: not as recorded" in done.stdout
    done = command("verify", out, "--repair", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["outputs"], told["problems"], told["repaired"]) == (IMAGES + 1, 2, 2)
    assert [p["repaired"] for p in told["found"]] == [True, True]
    (out / "classical/a/0000.jpg").unlink()
    (out.parent / "in/a/0000.jpg").unlink()
    done = command("verify", out, "--repair")
    assert done.returncode == 3
    assert "cannot be made again: vanished since it was listed\tnot repaired\n" in done.stdout


def test_an_input_that_has_changed_gives_its_new_image_and_row(out: Path) -> None:
    photos = out.parent / "in"
    cv2.imwrite(str(photos / "a/0000.jpg"), dark_image(99))
    (out / "classical/a/0000.jpg").unlink()
    before = {row["input"]: row for row in rows(out)}
    assert check(out, mend=True)[0]
    after = {row["input"]: row for row in rows(out)}
    assert {name for name in before if before[name] != after[name]} == {"a/0000.jpg"}
    assert check(out) == (True, [])
    assert run(photos, out).done_now == 1  # since its record still is of the old file


def test_both_methods(photos: Path) -> None:
    out = photos.parent / "out"
    run(photos, out, method=("classical", "absgn"), device="cpu", max_failures="100%")
    calm, records = (tree(out / "classical"), tree(out / "absgn")), stable_rows(out)
    (out / "classical/a/0000.jpg").unlink()
    alter(out / "absgn/b/0001.jpg")
    (out / "absgn/c/0002.jpg").unlink()
    assert check(out, mend=True)[0]
    assert (tree(out / "classical"), tree(out / "absgn")) == calm
    assert stable_rows(out) == records


def test_parameters_are_those_of_the_records(photos: Path) -> None:
    """Whatever the last run was told: here it did another method only."""
    out = photos.parent / "out"
    run(photos, out, omega=0.5, format="webp", atmospheric_light="image", max_failures="100%")
    run(photos, out, method="absgn", device="cpu", format="png", max_failures="100%")
    calm = tree(out / "classical")
    for path in (out / "classical").rglob("*.webp"):
        path.unlink()
    assert check(out, mend=True)[0]
    assert tree(out / "classical") == calm


def test_only_when_nobody_works_on_it(out: Path) -> None:
    with Lock(open_storage(Location.parse(str(out))), str(out), "run"):
        for options in ([], ["--repair"]):
            done = command("verify", out, *options)
            assert done.returncode == 4
            assert f"process {os.getpid()} on " in done.stderr
    missing = command("verify", out.parent / "in")
    assert missing.returncode == 2
    assert "is not the output of a run; check the path" in missing.stderr
