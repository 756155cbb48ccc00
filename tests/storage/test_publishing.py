"""Exclusive creation on file systems without hard links, and creators that die halfway."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import batchlight
from batchlight.errors import StorageError, UsageError
from batchlight.storage import Location, Storage, open_storage
from batchlight.storage.base import FileRefusedError
from batchlight.storage.local import TEMPORARY
from batchlight.storage.publishing import write_file
from tests.support.helpers import outcomes, tree, write_images

DYING = """
import os, sys
from batchlight.storage import Location, open_storage

folder, step = sys.argv[1], int(sys.argv[2])

def no_link(*_, **__):
    raise PermissionError(1, "Operation not permitted")

def dying(call):
    def wrapper(*arguments, **more):
        global step
        step -= 1
        if step < 0:
            os._exit(9)
        return call(*arguments, **more)
    return wrapper

os.link = no_link
for name in ("open", "mkdir", "rename", "rmdir", "unlink", "fsync", "listdir", "stat"):
    setattr(os, name, dying(getattr(os, name)))
created = open_storage(Location.parse(folder)).create("a/name", b"of the dead")
os._exit(0 if created else 1)
"""
"""A process that dies before its n-th call of the system, at any point of a creation."""


@pytest.fixture(params=[errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def storage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Storage:
    """On a disk without hard links."""
    forbid_links(monkeypatch, request.param)
    return opened(tmp_path)


def forbid_links(monkeypatch: pytest.MonkeyPatch, error: int = errno.EPERM) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "link", no_link)


def opened(folder: Path) -> Storage:
    return open_storage(Location.parse(str(folder)))


def test_a_file_is_created_once(storage: Storage, tmp_path: Path) -> None:
    assert storage.create("a/name", b"one")
    assert not storage.create("a/name", b"two")
    assert storage.read("a/name") == b"one"
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileRefusedError):
        storage.create("folder", b"three")
    storage.delete("a/name")
    assert storage.create("a/name", b"four")
    assert tree(tmp_path) == {"a/name": b"four"}
    assert not list((tmp_path / TEMPORARY).iterdir())


def test_of_many_creators_one_wins(storage: Storage, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(20):
            made = list(pool.map(lambda i, n=number: storage.create(f"{n}", b"%d" % i), range(8)))
            assert made.count(True) == 1
            assert storage.read(f"{number}") == b"%d" % made.index(True)
    assert not list((tmp_path / TEMPORARY).iterdir())


def test_a_creator_that_dies_blocks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every single step; the file is then its, or that of the next one, and always whole."""
    forbid_links(monkeypatch)
    its = 0
    for step in range(100):
        folder = tmp_path / str(step)
        done = subprocess.run([sys.executable, "-c", DYING, folder, str(step)], check=False)
        (folder / TEMPORARY).mkdir(parents=True, exist_ok=True)
        storage = opened(folder)
        created = storage.create("a/name", b"of the living")
        content = storage.read("a/name")
        assert content == (b"of the living" if created else b"of the dead")
        its += not created
        storage.sweep()
        assert tree(folder) == {"a/name": content}
        assert not list((folder / TEMPORARY).iterdir())
        if done.returncode == 0:
            break
        assert done.returncode == 9
    assert done.returncode == 0
    assert step > 20
    assert its > 3


def test_a_run_needs_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_links(monkeypatch)
    write_images(tmp_path / "in", 3)
    out = tmp_path / "out"
    config = batchlight.JobConfig(
        input=str(tmp_path / "in"), output=str(out), workers=0, batch_size=2, progress="off"
    )
    for _ in range(2):
        assert batchlight.run(config).exit_code == 0
    assert {row.status for row in outcomes(out).values()} == {"ok"}
    assert not list((out / TEMPORARY).iterdir())


def flushed_folders(monkeypatch: pytest.MonkeyPatch, root: Path) -> list[str]:
    """The folders that are flushed from now on, relative to ``root``."""
    fsync, flushed = os.fsync, []

    def spy(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            flushed.append(str(path.relative_to(root)))
            if flushed.count("b") == 1 and flushed[-1] == "b":
                raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    return flushed


def test_a_flush_that_fails_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = opened(tmp_path)
    for name in "abc":
        storage.write(f"{name}/file", b"1")
    flushed = flushed_folders(monkeypatch, tmp_path)
    with pytest.raises(StorageError, match="input/output error"):
        storage.sync()
    storage.sync()
    assert sorted(flushed) == [".", "a", "b", "b", "c"]
    storage.sync()
    assert len(flushed) == 5


def test_folders_are_flushed_while_others_are_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = opened(tmp_path)
    flushed = flushed_folders(monkeypatch, tmp_path)

    def write(number: int) -> None:
        for folder in range(200):
            storage.write(f"{number}/{folder}/file", b"")

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, number) for number in range(2)]
        while not all(writer.done() for writer in writers):
            storage.sync()
        for writer in writers:
            writer.result()
    storage.sync()
    assert {f"{n}/{i}" for n in range(2) for i in range(200)} < set(flushed)


def test_a_file_of_no_storage_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"old")
    write_file(str(tmp_path / "weights"), b"new")
    assert tree(tmp_path) == {"weights": b"new"}
    with pytest.raises(StorageError, match="cannot write"):
        write_file(str(tmp_path / "nowhere/weights"), b"new")


@pytest.mark.parametrize(
    ("number", "ends"),
    [
        (errno.ENOSPC, "no space left on device; free some space and run the same command again"),
        (errno.EROFS, "read-only file system; choose a place that can be written to"),
        (errno.EACCES, "denied; give this user the permission and run the same command again"),
        (errno.EIO, "input/output error; run the same command again to continue"),
    ],
)
def test_trouble_with_a_file_of_no_storage_says_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, ends: str
) -> None:
    def failing(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(StorageError) as caught:
        write_file(str(tmp_path / "weights"), b"new")
    assert str(caught.value).startswith(f"cannot write {tmp_path}/weights: ")
    assert str(caught.value).endswith(ends)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
def test_only_a_file_is_replaced(tmp_path: Path, kind: str) -> None:
    """Never a device, as which /dev/null is taken for a place that takes anything."""
    victim, path = tmp_path / "victim", tmp_path / "weights"
    if kind == "link":
        victim.write_bytes(b"precious")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(victim)
    before = os.lstat(path).st_ino
    with pytest.raises(UsageError, match="weights exists and is not a regular file"):
        write_file(str(path), b"new")
    assert os.lstat(path).st_ino == before
    assert victim.exists() == (kind == "link")
    assert kind != "link" or victim.read_bytes() == b"precious"


@pytest.mark.parametrize("writer", [False, True])
def test_a_file_has_the_very_time_that_it_is_given(tmp_path: Path, writer: bool) -> None:
    """To the microsecond, or a copy would be older than its source, and be made again for ever."""
    storage = opened(tmp_path)
    first = datetime(2026, 1, 31, 23, 59, 59, 7, tzinfo=UTC)
    for modified in (first + timedelta(days=97 * n, microseconds=99_991 * n) for n in range(-9, 9)):
        if writer:
            file = storage.open_writer("file", modified=modified)
            file.write(b"1")
            file.commit()
        else:
            storage.write("file", b"1", modified=modified)
        assert storage.stat("file").modified == modified
