"""Outputs and records that were damaged: found, told, and made again to the same bytes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import batchlight
from batchlight.driver.repair import RepairOptions, repair
from batchlight.driver.verify import Verification, verify
from batchlight.errors import Interrupted, StorageError, UsageError
from batchlight.output.lock import Lock
from batchlight.output.recordfiles import DamagedRecordsError
from batchlight.storage import Location, open_storage
from batchlight.storage.base import FileRefusedError
from batchlight.storage.local import LocalStorage
from batchlight.worker.comparing import Problem
from tests.support.helpers import (
    batchlight_here,
    dark_image,
    rows,
    stable_rows,
    tree,
    write_images,
)

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
        options = RepairOptions(input=str(out.parent / "in"), workers=0)
        return repair(str(out), options, on_problem=found.append, say=print).sound, found
    return verify(str(out), on_problem=found.append).sound, found


def test_workers_find_the_same(out: Path, shared_ray: str) -> None:
    (out / "classical/a/0000.jpg").unlink()
    alter(out / "classical/b/0004.jpg")
    damaged = sorted((out / "metadata").iterdir())[2]
    alter(damaged)

    def compared(**options: Any) -> tuple[Verification, list[tuple[str, str, str]]]:
        found: list[Problem] = []
        progress: list[int] = []
        done = verify(
            str(out),
            on_problem=found.append,
            on_progress=lambda v: progress.append(v.outputs),
            **options,
        )
        assert progress[-1] == done.outputs
        return done, sorted((p.path, p.trouble, p.detail) for p in found)

    here = compared()
    assert (len(here[1]), here[1][-1][0]) == (3, f"metadata/{damaged.name}")
    assert compared(workers=0) == compared(workers=2) == compared(address=shared_ray) == here


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
    monkeypatch.setattr("batchlight.planning.cutting.CHUNK_ROWS", 4)
    out = photos.parent / "out"
    run(photos, out)
    cv2.imwrite(str(photos / "b/0004.jpg"), dark_image(51))
    cv2.imwrite(str(photos / "new.jpg"), dark_image(52))
    run(photos, out)
    assert len(tree(out / "metadata")) == 5
    return out


def test_all_functions_take_paths(out: Path) -> None:
    photos = out.parent / "in"
    assert batchlight.status(out) == batchlight.status(str(out))
    assert batchlight.verify(out) == batchlight.verify(str(out), on_problem=print)
    options = RepairOptions(input=photos, workers=0)
    assert batchlight.repair(out, options=options).output == str(out)
    assert batchlight.make_report(out, photos) == batchlight.make_report(str(out))
    page = out.parent / "page.html"
    assert batchlight.preview(batchlight.JobConfig(input=str(photos)), page=page).page == str(page)
    assert batchlight.survey(out / "classical", photos).enhanced == f"{out}/classical"
    found = batchlight.evaluate(out / "classical", out / "classical")
    assert found.reference == f"{out}/classical"


def test_what_is_as_recorded_is_not_touched(out: Path) -> None:
    before = tree(out)
    done = batchlight_here("verify", out)
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
        again = batchlight_here(
            "run", "--input", out.parent / "in", "--output", out, "--batch-size", 4
        )
        assert again.returncode == 1
        assert "'batchlight verify OUTPUT --repair --input INPUT' regenerates them" in again.stderr
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
    assert (
        "cannot be regenerated: there is no such file, or it vanished after the listing"
        in problem.detail
    )
    assert (tree(out / "classical"), rows(out)) == (left, records)


def test_records_that_may_not_be_read_are_not_damaged(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repair would otherwise replace sound ones, forgetting what only they tell."""
    path = f"metadata/{sorted(tree(out / 'metadata'))[1]}"
    read = LocalStorage.read
    for error, words in (
        (PermissionError(errno.EACCES, "Permission denied", path), "permission denied"),
        (FileRefusedError("cannot read it: input/output error"), "input/output error"),
    ):

        def denied(self: LocalStorage, name: str, error: OSError = error) -> bytes:
            if name == path:
                raise error
            return read(self, name)

        before = tree(out)
        with monkeypatch.context() as patched:
            patched.setattr(LocalStorage, "read", denied)
            for mend in (False, True):
                with pytest.raises(StorageError, match=f"{path}: .*{words}") as caught:
                    check(out, mend=mend)
                assert not isinstance(caught.value, DamagedRecordsError)
        assert tree(out / "metadata") == {
            name.removeprefix("metadata/"): data
            for name, data in before.items()
            if name.startswith("metadata/")
        }


@pytest.mark.parametrize("unnamed", [False, True])
def test_lost_records_of_a_batch_of_which_an_image_is_gone(photos: Path, unnamed: bool) -> None:
    """Only they told what its output is, and the light of the batch: nothing is replaced."""
    out, given = photos.parent / "out", photos.parent / "list.txt"
    given.write_text("".join(f"{photos}/a/000{n}.jpg\n" for n in (0, 3, 6, 9)))
    run(given, out)
    [records] = tree(out / "metadata")
    truncate(out / "metadata" / records)
    if unnamed:
        shorter = photos.parent / "shorter.txt"
        shorter.write_text("".join(given.read_text().splitlines(keepends=True)[1:]))
        given = shorter
    else:
        (photos / "a/0000.jpg").unlink()
    left = state(out)
    found: list[Problem] = []
    options = RepairOptions(input=str(given), workers=0)
    assert not repair(str(out), options, on_problem=found.append, say=print).sound
    [problem] = found
    assert (problem.path, problem.repaired) == (f"metadata/{records}", False)
    assert "cannot be regenerated: " in problem.detail
    assert "a/0000.jpg: " in problem.detail
    assert state(out) == left


def test_an_image_that_goes_while_its_records_are_made_again(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchlight.driver.repair.first_gone", lambda *_: None)
    name = sorted(tree(out / "metadata"))[0]
    truncate(out / "metadata" / name)
    (out.parent / "in/a/0000.jpg").unlink()
    records = tree(out / "metadata")
    sound, [problem] = check(out, mend=True)
    assert (sound, problem.repaired) == (False, False)
    assert "a/0000.jpg: there is no such file, or it vanished after the listing" in problem.detail
    assert tree(out / "metadata") == records


def test_without_records_that_cannot_be_made_again(out: Path) -> None:
    """Put aside, they no longer stop a run: what they described and is still there is new."""
    (out.parent / "in/a/0000.jpg").unlink()
    lost = out / "metadata" / sorted(tree(out / "metadata"))[0]
    truncate(lost)
    assert not check(out, mend=True)[0]
    lost.rename(out.parent / lost.name)
    assert run(out.parent / "in", out, max_failures="100%").done_now == 3
    assert check(out) == (True, [])
    assert (out / "classical/a/0000.jpg").exists()


def test_the_command(out: Path) -> None:
    (out / "classical/a/0000.jpg").unlink()
    alter(out / "classical/new.jpg")
    done = batchlight_here("verify", out)
    assert done.returncode == 3
    assert done.stdout.startswith(
        "classical/new.jpg\taltered\tits sha256 differs from the recorded one\n"
        "classical/a/0000.jpg\tmissing\tthere is no such file\n"
    )
    assert f"{out}: not as recorded" in done.stdout
    repairing: tuple[object, ...] = ("verify", out, "--repair", "--workers", 0)
    done = batchlight_here(*repairing)
    assert done.returncode == 2
    assert f"--repair --input URI (the output says that it was {out.parent}/in)" in done.stderr
    repairing = (*repairing, "--input", out.parent / "in")
    done = batchlight_here(*repairing, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["outputs"], told["problems"], told["repaired"]) == (IMAGES + 1, 2, 2)
    assert [p["repaired"] for p in told["found"]] == [True, True]
    (out / "classical/a/0000.jpg").unlink()
    (out.parent / "in/a/0000.jpg").unlink()
    done = batchlight_here(*repairing)
    assert done.returncode == 3
    assert (
        "regenerated: there is no such file, or it vanished after the listing\tnot" in done.stdout
    )


def test_a_folder_in_place_of_an_output(out: Path) -> None:
    """It is not removed, as somebody may have put something there."""
    path = out / "classical/a/0000.jpg"
    path.unlink()
    path.mkdir()
    done = batchlight_here("verify", out)
    assert done.returncode == 3
    told = "classical/a/0000.jpg\tmissing\tsomething other than a file is in its place"
    assert done.stdout.startswith(f"{told}\n")
    sound, [problem] = check(out, mend=True)
    assert (sound, problem.repaired) == (False, False)
    assert "is a directory" in problem.detail


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


def test_nothing_in_an_output_says_where_a_repair_works(out: Path) -> None:
    """An unpacked output could otherwise make it join a cluster, or read a file, of its choice."""
    (out / "classical/a/0000.jpg").unlink()
    with socket.create_server(("127.0.0.1", 0)) as server:
        summary = json.loads((out / "summary.json").read_text())
        summary["config"] |= {
            "address": f"127.0.0.1:{server.getsockname()[1]}",
            "workers": 1,
            "weights": "/nowhere/weights.safetensors",
        }
        (out / "summary.json").write_text(json.dumps(summary))
        assert check(out, mend=True)[0]
        server.settimeout(0.01)
        with pytest.raises(TimeoutError):
            server.accept()


def test_weights_of_ones_own_are_given_again(photos: Path) -> None:
    """A repair finds those that come with batchlight by their hash, and no others by their name."""
    out = photos.parent / "out"
    mine = photos.parent / "mine.safetensors"
    shipped = Path(batchlight.__file__).parent / "absgn/models/absgn-small.safetensors"
    tensors = load_file(shipped)
    first = sorted(tensors)[0]
    with safe_open(shipped, "pt") as file:
        about = file.metadata()
    save_file({**tensors, first: tensors[first] * 1.01}, mine, about)
    (photos.parent / "few").mkdir()
    shutil.copy(photos / "a/0000.jpg", photos.parent / "few/0000.jpg")
    run(photos.parent / "few", out, method="absgn", device="cpu", weights=str(mine))
    calm = tree(out / "absgn")
    (out / "absgn/0000.jpg").unlink()
    few = RepairOptions(input=str(photos.parent / "few"), workers=0)
    with pytest.raises(UsageError, match="give --weights if the weights differ"):
        repair(str(out), few, on_problem=lambda _: None, say=print)
    options = RepairOptions(input=str(photos.parent / "few"), workers=0, weights=str(mine))
    assert repair(str(out), options, on_problem=lambda _: None, say=print).sound
    assert tree(out / "absgn") == calm


def test_a_repair_stops_on_a_signal(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even while it only compares, and although a storage takes its time."""
    monkeypatch.setattr("batchlight.driver.verify.CHECKS_AT_ONCE", 1)
    read, slow = LocalStorage.read, threading.Event()
    pause_s = 1.0

    def slowly(self: LocalStorage, path: str) -> bytes:
        if path.startswith("classical/"):
            if not slow.is_set():
                slow.set()
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(pause_s)
        return read(self, path)

    monkeypatch.setattr(LocalStorage, "read", slowly)
    began = time.monotonic()
    with pytest.raises(Interrupted) as caught:
        check(out, mend=True)
    assert caught.value.exit_code == 130
    assert time.monotonic() - began < (IMAGES - 2) * pause_s


def test_only_when_nobody_works_on_it(out: Path) -> None:
    with Lock(open_storage(Location.parse(str(out))), str(out), "run"):
        for options in ([], ["--repair"]):
            done = batchlight_here("verify", out, *options)
            assert done.returncode == 4
            assert f"process {os.getpid()} on " in done.stderr
    missing = batchlight_here("verify", out.parent / "in")
    assert missing.returncode == 2
    assert "is not the output of a run; check the path" in missing.stderr
