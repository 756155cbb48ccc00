"""Symbolic links below an output lead nowhere; those of an input are read if they stay in it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import batchlight
from batchlight.errors import StorageError
from batchlight.storage import Location, Storage, open_source, open_storage
from batchlight.storage.base import FileRefusedError
from batchlight.storage.local import TEMPORARY
from tests.support.helpers import rows, tree, write_images

USES: dict[str, Callable[[Storage, str], object]] = {
    "read": lambda storage, folder: storage.read(f"{folder}/file"),
    "stat": lambda storage, folder: storage.stat(f"{folder}/file"),
    "is_file": lambda storage, folder: storage.is_file(f"{folder}/file"),
    "names": lambda storage, folder: storage.names(folder),
    "write": lambda storage, folder: storage.write(f"{folder}/file", b"new"),
    "write below": lambda storage, folder: storage.write(f"{folder}/deep/new", b"new"),
    "create": lambda storage, folder: storage.create(f"{folder}/new", b"new"),
    "delete": lambda storage, folder: storage.delete(f"{folder}/file"),
}


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "file").write_bytes(b"precious")
    (folder / uuid4().hex).write_bytes(b"named like a temporary file")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def opened(folder: Path) -> Storage:
    return open_storage(Location.parse(str(folder)))


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize("folder", ["classical", "classical/deep"])
@pytest.mark.parametrize("use", USES)
def test_no_folder_is_reached_through_a_link(
    out: Path, victim: Path, folder: str, use: str
) -> None:
    link(out / folder, victim)
    before = tree(victim)
    with pytest.raises(StorageError, match=rf"{folder} is a symbolic link.*; replace") as caught:
        USES[use](opened(out), folder)
    assert not caught.value.transient
    assert tree(victim) == before


@pytest.mark.parametrize("folder", ["_batchlight", TEMPORARY])
@pytest.mark.parametrize("use", ["check", "sweep", "write", "create"])
def test_no_link_in_place_of_the_own_folders(
    out: Path, victim: Path, folder: str, use: str
) -> None:
    link(out / folder, victim)
    (victim / "tmp").mkdir()
    (victim / "tmp" / uuid4().hex).write_bytes(b"precious too")
    before = tree(victim)
    uses: dict[str, Callable[[Storage], object]] = {
        "check": lambda storage: storage.check(writable=True),
        "sweep": lambda storage: storage.sweep(),
        "write": lambda storage: storage.write("file", b"new"),
        "create": lambda storage: storage.create("file", b"new"),
    }
    with pytest.raises(StorageError, match=f"{folder} is a symbolic link"):
        uses[use](opened(out))
    assert tree(victim) == before


def test_a_link_in_place_of_a_file_is_refused_or_replaced(out: Path, victim: Path) -> None:
    storage = opened(out)
    for name in ("replaced", "deleted", "read"):
        link(out / name, victim / "file")
    link(out / "dangling", victim / "new")
    before = tree(victim)
    storage.write("replaced", b"new")
    storage.delete("deleted")
    assert not storage.create("dangling", b"new")
    assert (out / "replaced").read_bytes() == b"new"
    assert not (out / "replaced").is_symlink()
    assert not (out / "deleted").is_symlink()
    assert storage.names("") == ["dangling", "read", "replaced"]  # so that using them is refused
    assert [info.path for info in storage.walk()] == ["replaced"]
    for name in ("read", "dangling"):
        assert not storage.is_file(name)
        for use in (storage.read, storage.stat):
            with pytest.raises(StorageError, match=f"{name} is a symbolic link"):
                use(name)
    assert tree(victim) == before


def test_the_root_itself_may_be_a_link(out: Path, tmp_path: Path) -> None:
    link(tmp_path / "link", out)
    storage = opened(tmp_path / "link")
    storage.check(writable=True)
    storage.write("a/file", b"1")
    assert storage.read("a/file") == (out / "a/file").read_bytes() == b"1"
    storage.sweep()
    storage.sync()


def test_with_follow_links_a_source_is_read_through_any_link_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/real").write_bytes(b"12345")
    link(tmp_path / "in/link", tmp_path / "elsewhere/real")
    link(tmp_path / "in/folder", tmp_path / "elsewhere")
    storage = open_source(Location.parse(str(tmp_path / "in")), follow_links=True)
    assert [info.path for info in storage.walk()] == ["folder/", "link"]
    assert storage.read("link") == storage.read("folder/real") == b"12345"
    assert storage.stat("link").size == 5
    assert storage.is_file("link")
    assert storage.names("") == ["link"]


def test_only_own_names_are_swept(out: Path, victim: Path) -> None:
    storage = opened(out)
    storage.sweep()  # nothing there yet
    storage.check(writable=True)
    place = out / TEMPORARY
    own = uuid4().hex
    (place / own).write_bytes(b"half")
    (place / uuid4().hex).mkdir()  # of a creation that died
    (place / uuid4().hex).symlink_to(victim)
    for claim in (uuid4().hex, uuid4().hex):
        (place / claim).mkdir()
        (place / claim / uuid4().hex).write_bytes(b"whole")
    (place / claim / "somebody's").write_bytes(b"1")
    (place / "somebody's").write_bytes(b"2")
    (place / "somebody's folder").mkdir()
    (place / "somebody's folder" / own).write_bytes(b"3")
    before = tree(victim)
    storage.sweep()
    assert sorted(tree(place).values()) == [b"1", b"2", b"3"]
    assert {path.name for path in place.iterdir()} == {"somebody's", "somebody's folder", claim}
    assert tree(victim) == before


def test_a_link_that_comes_and_goes_is_never_followed(out: Path, victim: Path) -> None:
    storage = opened(out)
    (out / "aside").mkdir()
    before = tree(victim)
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            with suppress(OSError):  # not made anew so far
                os.rename(out / "classical", out / "aside" / uuid4().hex)
            with suppress(OSError):
                os.symlink(victim, out / "classical")
            with suppress(OSError):  # it is a folder by now
                os.unlink(out / "classical")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(500):
            with suppress(StorageError, OSError):
                storage.write("classical/file", b"new")
            with suppress(StorageError, OSError):
                assert storage.read("classical/file") == b"new"
            with suppress(StorageError, OSError):
                storage.delete("classical/file")
    finally:
        over.set()
        thread.join()
    assert tree(victim) == before


@pytest.mark.parametrize("folder", [TEMPORARY, "_batchlight/plan", "classical", "metadata"])
def test_a_run_refuses_an_output_with_links(
    tmp_path: Path, out: Path, victim: Path, folder: str
) -> None:
    write_images(tmp_path / "in", 2)
    link(out / folder, victim)
    before = tree(victim)
    config = batchlight.JobConfig(
        input=str(tmp_path / "in"), output=str(out), workers=0, progress="off"
    )
    with pytest.raises(StorageError, match=f"{folder} is a symbolic link.*another --output$"):
        batchlight.run(config)
    assert tree(victim) == before


@pytest.fixture
def inside(tmp_path: Path, victim: Path) -> Path:
    """A folder with links of all kinds, named like images."""
    folder = tmp_path / "in"
    (folder / "real").mkdir(parents=True)
    (folder / "real/a.jpg").write_bytes(b"12345")
    link(folder / "near.jpg", Path("real/a.jpg"))
    link(folder / "absolute.jpg", folder / "real/a.jpg")
    link(folder / "twice.jpg", folder / "near.jpg")
    link(folder / "up.jpg", Path("../in/real/a.jpg"))
    link(folder / "leaves.jpg", victim / "file")
    link(folder / "later.jpg", folder / "leaves.jpg")
    link(folder / "proc.jpg", Path("/proc/self/environ"))
    link(folder / "dangling.jpg", Path("../nothing"))
    link(folder / "folder", victim)
    return folder


def test_links_that_leave_an_input_are_not_read(inside: Path, victim: Path) -> None:
    storage = open_source(Location.parse(str(inside)))
    found = {info.path: info for info in storage.walk()}
    leaving = {"leaves.jpg", "later.jpg", "proc.jpg", "dangling.jpg"}
    staying = {"near.jpg", "absolute.jpg", "twice.jpg", "up.jpg", "real/a.jpg"}
    assert set(found) == {*leaving, *staying, "folder/"}
    for name in staying:
        assert (found[name].defect, found[name].size) == (None, 5)
        assert storage.read(name) == b"12345"
        assert storage.stat(name).size == 5
    for name in (*leaving, "folder/file"):
        assert name == "folder/file" or "--follow-links" in str(found[name].defect)
        assert not storage.is_file(name)
        for use in (storage.read, storage.stat):
            with pytest.raises(FileRefusedError, match="points outside the input"):
                use(name)
    assert open_source(Location.parse(str(inside)), True).read("leaves.jpg") == b"precious"


def test_a_link_of_an_input_that_changes_its_mind_is_never_read(inside: Path) -> None:
    storage = open_source(Location.parse(str(inside)))
    name = inside / "near.jpg"
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            for target in ("../victim/file", "real/a.jpg"):
                (inside / "next").symlink_to(target)
                os.replace(inside / "next", name)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(2000):
            with suppress(FileRefusedError):
                assert storage.read("near.jpg") == b"12345"
    finally:
        over.set()
        thread.join()


def test_a_run_reads_no_link_that_leaves_unless_told(tmp_path: Path) -> None:
    write_images(tmp_path / "secret", 1)
    write_images(tmp_path / "in", 1)
    link(tmp_path / "in/x.jpg", tmp_path / "secret/a/0000.jpg")

    def run(**options: Any) -> batchlight.Summary:
        config: dict[str, Any] = {
            "input": str(tmp_path / "in"),
            "output": str(tmp_path / "out"),
            "workers": 0,
        }
        return batchlight.run(batchlight.JobConfig(**config, progress="off", **options))

    assert run().failed_by_code == {"unsupported": 1}
    [row] = [row for row in rows(tmp_path / "out") if row["input"] == "x.jpg"]
    assert (row["input_sha256"], row["input_bytes"]) == (None, None)
    assert run(follow_links=True).exit_code == 0
    assert (tmp_path / "out/classical/x.jpg").exists()
    named = batchlight.JobConfig(
        input=str(tmp_path / "in/x.jpg"), output=str(tmp_path / "one"), workers=0, progress="off"
    )
    assert batchlight.run(named).ok == 1  # a link that is named itself
