"""Places that misbehave: full, closed, read-only, or changing while a run works on them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import pytest

import batchlight
from batchlight.storage.local import LocalStorage
from batchlight.worker.copying import SMALL_BYTES
from tests.support.helpers import (
    COMMAND,
    Row,
    batchlight_here,
    dark_image,
    has_parts,
    outcomes,
    rows,
    stable_rows,
    tree,
    wait_until,
    write_images,
)
from tests.support.helpers import batchlight as command
from tests.support.tars import jpeg, write_tar

IMAGES = 40
STARTS_WITHIN_S = 120.0
LIMIT = 2**20
"""Bytes that a file may have in a place that does not allow large ones."""
TOO_LARGE = "file too large; choose a place that may have larger files, or raise 'ulimit -f'"
UNPRIVILEGED = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
"""Takes from root what lets it read and write whatever it likes."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "in", IMAGES, height=120, width=160)
    return tmp_path / "in"


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Callable[[str], None]]:
    """A small file system of its own; yields what mounts it anew with other options."""

    def mount(options: str) -> None:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
            check=True,
            capture_output=True,
        )

    folder.mkdir()
    try:
        mount(options)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount")
    try:
        yield lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return command("run", *arguments, "--batch-size", 5, "--progress", "off")


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.nightly)])
def test_a_full_disk_stops_the_run_at_once_and_is_no_images_fault(
    photos: Path, workers: int
) -> None:
    calm, out = photos.parent / "calm", photos.parent / "small"
    run("--input", photos, "--output", calm, "--workers", 0)
    where = ("--input", photos, "--output", out, "--workers", workers)
    with mounted(out, "size=192k") as mount:
        done = run(*where)
        assert done.returncode == 1
        assert "no space left on device; free some space and run the same command" in done.stderr
        assert done.stderr.count("\n") == 1
        assert not rows(out)
        # It did not go on failing: most batches were not even begun.
        assert len(tree(out / "classical")) < IMAGES / 2
        written, whole = tree(out / "classical"), tree(calm / "classical")
        assert written.items() <= whole.items()
        mount("size=16m")
        done = run(*where)
        assert done.returncode == 0, done.stderr
        assert (tree(out / "classical"), stable_rows(out)) == (
            tree(calm / "classical"),
            stable_rows(calm),
        )
        assert not tree(out / "_batchlight/tmp")


def test_what_is_too_large_for_the_output_fails_alone(photos: Path) -> None:
    """Beyond what a FAT file system allows, or a limit of the process."""
    (photos / "film.bin").write_bytes(bytes(LIMIT + 1))
    (photos / "longer.bin").write_bytes(bytes(SMALL_BYTES + 1))
    done, out = limited_run(photos, "--copy-others")
    assert done.returncode == 3, done.stderr
    failed = {path for path, row in outcomes(out).items() if row.error_code == "write_failed"}
    assert failed == {"film.bin", "longer.bin"}
    messages = {row["error"].partition(": ")[2] for row in rows(out) if row["error_code"]}
    assert messages == {TOO_LARGE}
    assert len(tree(out / "classical")) == IMAGES
    assert not tree(out / "_batchlight/tmp")


def test_a_shard_that_is_too_large_for_the_output_fails_alone(tmp_path: Path) -> None:
    """And what is too large beside it is named."""
    write_tar(tmp_path / "in/large.tar", {"1.jpg": jpeg(1), "film.bin": bytes(LIMIT + 1)})
    write_tar(tmp_path / "in/small.tar", {"1.jpg": jpeg(1)})
    (tmp_path / "in/notes.txt").write_bytes(bytes(LIMIT + 1))
    done, out = limited_run(tmp_path / "in")
    assert done.returncode == 3, done.stderr
    assert "notes.txt: file too large" in done.stderr
    [failed] = [row for row in rows(out) if row["status"] == "failed"]
    assert (failed["input"], failed["error_code"]) == ("large.tar", "write_failed")
    assert failed["error"].endswith(TOO_LARGE)
    assert set(tree(out / "classical")) == {"small.tar"}
    assert not tree(out / "_batchlight/tmp")


def limited_run(given: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A run that may not write large files, and where its output is."""
    out = given.parent / "out"
    limited = ["prlimit", f"--fsize={LIMIT}", *COMMAND, "run", "--workers", "0", *options]
    line = [*limited, "--input", str(given), "--output", str(out)]
    return subprocess.run(line, capture_output=True, text=True, check=False), out


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("file", "the output {0}/file is not a folder"),
        ("file/x/y", "the output {0}/file/x/y cannot be made, since {0}/file is not a folder"),
        ("link", "the output {0}/link is a link that leads to no folder"),
        ("link/x", "cannot be made, since {0}/link is a link that leads to no folder"),
        ("loop", "the output {0}/loop is a link that leads to no folder"),
        (f"new/{'n' * 256}/x", "n/x has too long a path for its file system"),
        ("n/" * 2100, "/n/n/n has too long a path for its file system"),
    ],
    ids=lambda value: value[:6],
)
def test_an_output_that_cannot_be_a_folder(tmp_path: Path, name: str, says: str) -> None:
    """Is wrong usage, and nothing is written."""
    write_images(tmp_path / "in", 1)
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to("nothing")
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.rglob("*"))
    where = ("--input", tmp_path / "in", "--output", f"{tmp_path}/{name}")
    for words in (("plan", *where), ("run", *where, "--workers", 0)):
        done = batchlight_here(*words)
        assert done.returncode == 2
        assert says.format(tmp_path) in done.stderr
        assert done.stderr.rstrip().endswith(" --output")
        assert (done.stderr.count("\n"), len(done.stderr) < 1000) == (1, True)
        assert sorted(tmp_path.rglob("*")) == before


def test_a_file_in_place_of_a_folder_of_an_output(photos: Path) -> None:
    out = photos.parent / "out"
    out.mkdir()
    (out / "_batchlight").write_text("precious")
    done = batchlight_here("run", "--input", photos, "--output", out, "--workers", 0)
    assert done.returncode == 1
    assert f"cannot write to {out}: not a directory; remove what is there in" in done.stderr


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("summary.json", "a summary.json"),
        ("report.html", "a report.html"),
        ("classical/mine.jpg", "a folder classical"),
        ("classical/a/0000.jpg", "a folder classical"),
    ],
)
def test_what_is_of_somebody_else_is_not_replaced(photos: Path, name: str, what: str) -> None:
    out = photos.parent / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("mine")
    where = ("--input", photos, "--output", out)
    for command_ in ("plan", "run"):
        done = batchlight_here(command_, *where)
        assert done.returncode == 2
        assert f"{out} contains {what}, which batchlight did not create" in done.stderr
        assert tree(out) == {name: b"mine"}
    assert run(*where, "--workers", 0, "--overwrite").returncode == 0
    assert len(outcomes(out)) == IMAGES


def test_an_output_without_its_plans_begins_anew(photos: Path) -> None:
    out = photos.parent / "out"
    assert run("--input", photos, "--output", out, "--workers", 0).returncode == 0
    shutil.rmtree(out / "_batchlight")
    assert run("--input", photos, "--output", out, "--workers", 0).returncode == 0


def test_a_read_only_output(photos: Path) -> None:
    out = photos.parent / "closed"
    with mounted(out, "size=16m,ro") as mount:
        done = run("--input", photos, "--output", out, "--workers", 0)
        assert done.returncode == 1
        assert "read-only file system; choose a place that can be written to" in done.stderr
        mount("rw")
        assert run("--input", photos, "--output", out, "--workers", 0).returncode == 0


def test_no_permission(photos: Path) -> None:
    """To read one image: a row. To write the output: a sentence. Given it, the same run ends."""
    if not shutil.which("setpriv") or os.geteuid():
        pytest.skip("needs setpriv, and root to take permissions from")
    out, closed = photos.parent / "out", photos / "a/0000.jpg"
    arguments = ("--input", photos, "--output", out, "--workers", 0, "--batch-size", 5)
    line = [*UNPRIVILEGED, *COMMAND, "run", *map(str, arguments)]
    closed.chmod(0)
    out.mkdir(mode=0o500)
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"cannot write to {out}: permission denied; give this user the permission" in done.stderr
    out.chmod(0o700)
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert outcomes(out)["a/0000.jpg"] == Row("failed", "unreadable")
    assert sum(row.status == "ok" for row in outcomes(out).values()) == IMAGES - 1
    closed.chmod(0o600)
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(tree(out / "classical")) == len(rows(out)) == IMAGES


@pytest.mark.parametrize("mode", [0, 0o400, 0o100])
def test_no_permission_to_an_input(photos: Path, mode: int) -> None:
    """The message names what was given, and what to permit."""
    if not shutil.which("setpriv") or os.geteuid():
        pytest.skip("needs setpriv, and root to take permissions from")
    photos.chmod(mode)
    for words in (["plan"], ["run", "--workers", "0", "--output", f"{photos.parent}/out"]):
        line = [*UNPRIVILEGED, *COMMAND, *words, "--input", str(photos)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.endswith(
            f"error: cannot read the folder {photos}: permission denied; give this user the "
            "permission to list and enter it, and run the same command again\n"
        )
        assert mode == 0o100 or not (photos.parent / "out").exists()
    photos.chmod(0o700)
    (photos.parent / "closed").mkdir()
    photos.rename(photos.parent / "closed/in")
    (photos.parent / "closed").chmod(0)
    line = [*UNPRIVILEGED, *COMMAND, "plan", "--input", f"{photos.parent}/closed/in"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    (photos.parent / "closed").chmod(0o700)
    assert f"cannot read the folder {photos.parent}/closed/in: permission denied" in done.stderr
    assert "give this user the permission to enter the folders above it" in done.stderr


@contextmanager
def halted(photos: Path, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run that is stopped after its first batches, and then let go on."""
    arguments = ["run", "--input", photos, "--output", out, "--workers", 0, "--batch-size", 5]
    with subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=subprocess.DEVNULL) as process:
        wait_until(partial(has_parts, out, 1), process, STARTS_WITHIN_S)
        process.send_signal(signal.SIGSTOP)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)


def test_inputs_that_vanish_or_change_after_the_listing(photos: Path) -> None:
    out = photos.parent / "out"
    gone, changed, broken = (photos / f"c/{n:04d}.jpg" for n in (32, 35, 38))
    with halted(photos, out) as process:
        assert not (out / "classical/c/0038.jpg").exists()
        gone.unlink()
        cv2.imwrite(str(changed), dark_image(99))
        broken.write_bytes(broken.read_bytes()[:-20])
    assert process.returncode == 3
    found = {row["input"]: row for row in rows(out)}
    assert len(found) == IMAGES
    assert found["c/0032.jpg"]["error_code"] == "missing"
    assert found["c/0038.jpg"]["error_code"] == "corrupt"
    assert found["c/0035.jpg"]["status"] == "ok"  # as it is now, under what the listing said
    assert sum(row["status"] == "ok" for row in found.values()) == IMAGES - 2

    cv2.imwrite(str(gone), dark_image(98))
    cv2.imwrite(str(broken), dark_image(97))
    done = run("--input", photos, "--output", out, "--workers", 0)
    assert done.returncode == 0, done.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["ok"], summary["done_now"]) == (IMAGES, 3)  # the listing's size was not true


def test_an_input_that_changes_between_the_two_passes(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its light is in the batch's mean already, so it must not be finished as something else."""
    monkeypatch.setattr("batchlight.worker.pipeline.KEEP_BYTES", 0)
    changing = photos / "a/0003.jpg"
    read = LocalStorage.read
    times_read = 0

    def reading(self: LocalStorage, path: str) -> bytes:
        nonlocal times_read
        data = read(self, path)
        if path == "a/0003.jpg":
            times_read += 1
            cv2.imwrite(str(changing), dark_image(200 + times_read))
        return data

    out = photos.parent / "out"
    settings: dict[str, Any] = {"workers": 0, "progress": "off", "batch_size": 5}
    config = batchlight.JobConfig(input=str(photos), output=str(out), **settings)
    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "read", reading)
        assert batchlight.run(config).failed_by_code == {"unreadable": 1}
    [row] = [row for row in rows(out) if row["status"] == "failed"]
    assert row["error"] == "the file changed while it was being processed"
    assert not (out / "classical/a/0003.jpg").exists()
    assert batchlight.run(config).ok == IMAGES
