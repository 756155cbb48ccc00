"""Who may read what is made of a file: nobody who may not read the file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import batchlight
from batchlight.storage import Location, open_source, open_storage
from batchlight.storage.permissions import permissions_of
from tests.support.helpers import write_images


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("folder", "file", "expected"),
    [
        (0o755, 0o644, 0o777),
        (0o755, 0o600, 0o700),
        (0o755, 0o640, 0o770),
        (0o750, 0o644, 0o770),
        (0o700, 0o644, 0o700),
        (0o711, 0o604, 0o707),
        (0o744, 0o644, 0o700),
    ],
)
def test_classes_of_readers(tmp_path: Path, folder: int, file: int, expected: int) -> None:
    path = tmp_path / f"in{folder}/x.jpg"
    path.parent.mkdir()
    path.write_bytes(b"1")
    os.chmod(path, file)
    os.chmod(path.parent, folder)
    beside = tmp_path / "out"
    beside.mkdir()
    assert permissions_of(str(path), str(beside)) == expected
    # What protects the new file too counts for nothing.
    assert permissions_of(str(path), str(path.parent / "out")) | 0o700 == {
        0o644: 0o777, 0o600: 0o700, 0o640: 0o770, 0o604: 0o707,
    }[file]  # fmt: skip
    link = tmp_path / f"link{folder}.jpg"
    link.symlink_to(path)
    assert permissions_of(str(link), str(beside)) == expected


def test_a_file_of_another_group_is_not_for_the_own(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root gives files away")
    path = tmp_path / "x.jpg"
    path.write_bytes(b"1")
    os.chown(path, -1, 54321)
    os.chmod(path, 0o640)
    assert permissions_of(str(path), str(tmp_path)) == 0o700


def test_what_a_storage_makes(tmp_path: Path) -> None:
    storage = open_storage(Location.parse(str(tmp_path / "out")), permissions=0o750)
    storage.check(writable=True)
    storage.write("a/private", b"1", 0o700)
    storage.create("a/group", b"1", 0o770)
    storage.write("a/public", b"1")
    made = {path.name: mode(path) for path in (tmp_path / "out").rglob("*")}
    assert made["private"] == 0o600
    assert made["group"] == 0o640
    assert made["public"] == 0o644
    assert made["a"] == made["_batchlight"] == mode(tmp_path / "out") == 0o750
    assert open_source(Location.parse(str(tmp_path))).permissions("nothing") == 0o777


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_of_a_private_data_set_becomes_public(
    tmp_path: Path, workers: int, request: pytest.FixtureRequest
) -> None:
    if workers:
        request.getfixturevalue("shared_ray")
    write_images(tmp_path / "in", 4)
    private = tmp_path / "in/a"
    os.chmod(private, 0o700)
    os.chmod(tmp_path / "in/b/0001.jpg", 0o600)
    os.chmod(tmp_path / "in", 0o755)
    out = tmp_path / "out"

    def run() -> None:
        options: dict[str, Any] = {"workers": workers, "batch_size": 1, "progress": "off"}
        config = batchlight.JobConfig(input=str(tmp_path / "in"), output=str(out), **options)
        assert batchlight.run(config).exit_code == 0

    run()
    write_images(tmp_path / "in", 5)
    run()
    assert mode(out) == 0o755
    assert mode(out / "classical/c/0002.jpg") == 0o644
    hidden = ["classical/a/0000.jpg", "classical/b/0001.jpg", "classical/a/0003.jpg", "report.html"]
    assert [mode(out / name) for name in hidden] == [0o600] * 4
    assert {mode(path) for path in (out / "metadata").iterdir()} == {0o600}
