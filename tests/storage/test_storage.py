"""Local directories: what only they have to deal with. What every storage promises is in
``test_conformance.py``.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchlight.errors import StorageError
from batchlight.storage import Location, Storage, open_source, open_storage
from batchlight.storage.base import LINKED_FOLDER, FileRefusedError
from tests.support.helpers import tree

TEMPORARY = "_batchlight/tmp"

# '/' sorts between '.' and '0', and UTF-8 after U+FFEE otherwise than UTF-16.
PARTS = ["a", "a.jpg", "a b", "a-", "A", "a0", "é", "e\u0301", "\uffee", "😀", "_batchlight", ".h"]


def local(folder: Path) -> Storage:
    return open_storage(Location.parse(str(folder)))


def source(folder: Path) -> Storage:
    return open_source(Location.parse(str(folder)))


def path_in(folder: int, name: str) -> Path:
    """Of a file that is named by the descriptor of its folder."""
    return Path(os.readlink(f"/proc/self/fd/{folder}")) / name


def write_tree(folder: Path, paths: list[str]) -> list[str]:
    """Make those files that can be there together; returns them."""
    made = []
    for path in paths:
        try:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(path.encode())
        except OSError:  # a file where a folder is wanted, or the other way round
            continue
        made.append(path)
    return made


def inputs_of(paths: list[str]) -> list[str]:
    """What a walk should give, by the words of the contract."""
    outputs = {path[: path.index("_batchlight/")] for path in paths if "_batchlight/" in path}
    seen = (
        path
        for path in paths
        if not any(part.startswith(".") for part in path.split("/"))
        and not any(path.startswith(output) for output in outputs)
    )
    shown = {o for o in outputs if not any(o != p and o.startswith(p) for p in outputs)}
    shown -= {o for o in shown if not o or "/." in f"/{o}"}
    return sorted({*seen, *shown}, key=str.encode)


@settings(max_examples=100)
@given(st.lists(st.lists(st.sampled_from(PARTS), min_size=1, max_size=4).map("/".join)))
def test_walk_is_in_the_order_of_the_bytes_of_whole_paths(paths: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = write_tree(Path(folder), paths)
        assert [info.path for info in source(Path(folder)).walk()] == inputs_of(made)


def test_walk_takes_files_and_links_to_files_only(tmp_path: Path) -> None:
    (tmp_path / "real.jpg").write_bytes(b"12345")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/x.jpg").write_bytes(b"1")
    (tmp_path / "link.jpg").symlink_to("real.jpg")
    (tmp_path / "folder.jpg").symlink_to("sub")
    (tmp_path / "up").symlink_to(".")
    (tmp_path / "broken.jpg").symlink_to("nothing")
    (tmp_path / "through.jpg").symlink_to("real.jpg/x")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        found = {info.path: info for info in source(tmp_path).walk()}
    sizes = {path: info.size for path, info in found.items()}
    files = {"real.jpg": 5, "link.jpg": 5, "sub/x.jpg": 1}
    links = {"folder.jpg/": None, "up/": None}
    assert {path for path in found if found[path].defect == LINKED_FOLDER} == set(links)
    assert sizes == {**files, **links, "broken.jpg": None, "through.jpg": None, "loop.jpg": None}
    assert [p for p in found if found[p].defect and p not in links] == ["loop.jpg"]
    modified = found["real.jpg"].modified
    assert modified is not None
    assert modified.timestamp() == pytest.approx((tmp_path / "real.jpg").stat().st_mtime)


def test_odd_names_are_listed_readably_and_with_a_defect(tmp_path: Path) -> None:
    for name in (b"\xff.jpg", b"bell\x07.jpg", b"line\n.jpg", b"fine\xc3\xa9.jpg", b"c1\xc2\x85"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"1")
    found = list(source(tmp_path).walk())
    shown = ["\\xff.jpg", "bell\\x07.jpg", "c1\\x85", "fineé.jpg", "line\\x0a.jpg"]
    assert [info.path for info in found] == sorted(shown)
    assert [info.path for info in found if not info.defect] == ["fineé.jpg"]


@pytest.mark.parametrize("kind", ["directory", "pipe", "loop", "too long", "below a file", "none"])
def test_what_is_no_file_cannot_be_read(tmp_path: Path, kind: str) -> None:
    path = {"too long": "n" * 300, "below a file": "file/x"}.get(kind, "x.jpg")
    (tmp_path / "file").write_bytes(b"")
    if kind == "directory":
        (tmp_path / path).mkdir()
    elif kind == "pipe":
        os.mkfifo(tmp_path / path)
    elif kind == "loop":
        (tmp_path / path).symlink_to(path)
    storage = source(tmp_path)
    assert not storage.is_file(path)
    with pytest.raises((FileNotFoundError, FileRefusedError)):
        storage.stat(path)
    with pytest.raises(FileRefusedError if kind == "too long" else FileNotFoundError):
        storage.read(path)


@pytest.fixture
def bottomless(tmp_path: Path) -> Iterator[Path]:
    """An image, and beside it more folders than a path may name, with an image in each."""
    folder, name = tmp_path / "in", "d" * 250
    folder.mkdir()
    (folder / "01.jpg").write_bytes(b"1")
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(19):
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
        os.close(os.open("x.jpg", os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)
    yield folder
    shutil.rmtree(folder)  # as few programs could


def test_a_path_that_is_too_long_costs_only_what_is_below_it(bottomless: Path) -> None:
    storage = source(bottomless)
    found = list(storage.walk())
    assert [info.path for info in found if info.size == 1] == ["01.jpg"]
    [folder] = [info.path for info in found if info.path.endswith("/")]
    assert len(str(bottomless / folder)) > 4096 - 252
    assert all(info.path.endswith("d/x.jpg") for info in found if info.size == 0)
    with pytest.raises(FileRefusedError, match="file name too long") as caught:
        storage.read(folder)
    assert len(str(caught.value)) < 500


def test_a_local_write_goes_through_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = local(tmp_path)
    storage.write("a/b.txt", b"old")
    replace, seen = os.replace, []

    def spy(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        before, after = (path_in(d, n) for d, n in ((src_dir_fd, source), (dst_dir_fd, target)))
        seen.append((before.parent, before.read_bytes(), after.read_bytes()))
        replace(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "replace", spy)
    before = os.umask(0o027)
    try:
        storage.write("a/b.txt", b"new")
        storage.create("c.txt", b"")
    finally:
        os.umask(before)
    assert seen == [(tmp_path / TEMPORARY, b"new", b"old")]
    assert tree(tmp_path) == {"a/b.txt": b"new", "c.txt": b""}
    for name in ("a/b.txt", "c.txt"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o640

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(StorageError, match="input/output error") as caught:
        storage.write("a/b.txt", b"newer")
    assert caught.value.transient
    assert tree(tmp_path) == {"a/b.txt": b"new", "c.txt": b""}


def test_names_that_cannot_be_written(tmp_path: Path) -> None:
    storage = local(tmp_path)
    storage.write("folder/file", b"")
    for path in ("n" * 300, "folder", "folder/file/x", "folder/" + "n" * 300 + "/x"):
        for write in (storage.write, storage.create):
            with pytest.raises(FileRefusedError):
                write(path, b"data")
    for path in ("../x", "a/../../x", "/x"):
        for use in (storage.read, storage.stat, storage.delete, storage.names):
            with pytest.raises(FileRefusedError, match="would leave"):
                use(path)
        with pytest.raises(FileRefusedError, match="would leave"):
            storage.write(path, b"")
    assert tree(tmp_path) == {"folder/file": b""}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)]
    with ExitStack() as exits:
        try:
            subprocess.run(mount, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("this user may not mount a file system")
        exits.callback(lambda: subprocess.run(["umount", str(disk)], check=True))
        yield disk


def test_a_full_or_read_only_disk_is_no_images_fault(small_disk: Path) -> None:
    storage = local(small_disk)
    storage.write("a", b"1")
    with pytest.raises(StorageError, match="free some space") as caught:
        storage.write("b", bytes(2**20))
    assert not caught.value.transient
    assert tree(small_disk) == {"a": b"1"}
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StorageError, match="choose a place that can be written to") as caught:
        storage.write("a", b"2")
    assert not caught.value.transient
    with pytest.raises(StorageError, match="cannot write"):
        local(small_disk / "new").check(writable=True)
