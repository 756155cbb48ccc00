"""What every storage promises, on each of them: a local directory, and a real object store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from batchlight.output.layout import LOCKS, is_output
from batchlight.storage import Location, Storage, open_storage
from batchlight.storage.base import OUTPUT_FOLDER, FileRefusedError
from batchlight.storage.objects import LARGE_BYTES
from tests.support.s3_server import BUCKET

Place = Callable[[str], Storage]
"""Opens the storage of a folder; below one that others of a test do not see."""

# But for the backslash, which SeaweedFS, as Windows, takes for a slash.
ODD_NAMES = [
    *("x #%20+?é.bin", "a b/c d", "a%20b.jpg", "a+b&c='<>.jpg", "ünï/雪 ☃.webp", "e\u0301", "é"),
    *("~tilde", "star*", "(paren)", "[0]", "semi;colon", "a:b", "@at", "$dollar"),
    *("A/a", "quote'\"", "dots...jpg", "\uffee", "😀/x"),
]
IN_ORDER = [
    # '/' sorts between '.' and '0', and UTF-8 after U+FFEE otherwise than UTF-16.
    *("A/a.jpg", "a b/x.jpg", "a-/x.jpg", "a.jpg", "a/b.jpg", "a/b/c.jpg", "a0", "b.jpg"),
    *("e\u0301.jpg", "é.jpg", "\uffee/x", "😀/x"),
]
LARGE = bytes(range(256)) * (LARGE_BYTES // 256 + 1)
"""More than one write of a small file may hold."""


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Under an odd name."""
    root = str(tmp_path)
    if request.param == "s3":
        request.getfixturevalue("s3")
        root = f"s3://{BUCKET}/{uuid4()}"
    return lambda folder: open_storage(Location.parse(f"{root}/an odd #%20 name?/{folder}"))


@pytest.fixture
def storage(place: Place) -> Storage:
    storage = place("in")
    storage.check(writable=True)
    return storage


def written(place: Place, *paths: str) -> Storage:
    """A storage of these files, each of which holds its path.

    Written from outside, since a folder that was written to through a storage may be an output.
    """
    outside = place("")
    for path in paths:
        outside.write(f"in/{path}", path.encode())
    return place("in")


def walked(storage: Storage) -> list[str]:
    return [info.path for info in storage.walk()]


def test_where_nothing_is_nothing_is_found(storage: Storage) -> None:
    assert storage.names("") == storage.names("folder") == walked(storage) == []
    assert not storage.is_file("x")
    for look in (storage.read, storage.stat):
        with pytest.raises(FileNotFoundError):
            look("folder/x")
    storage.delete("folder/x")
    assert not is_output(storage)


@pytest.mark.parametrize("data", [b"", b"1", bytes(range(256)), LARGE], ids=len)
def test_what_is_written_is_read(storage: Storage, data: bytes) -> None:
    storage.write("folder/file", data)
    assert storage.read("folder/file") == data
    found = storage.stat("folder/file")
    assert (found.path, found.size) == ("folder/file", len(data))
    assert found.modified is not None
    assert abs(found.modified.timestamp() - time.time()) < 60


def test_a_write_replaces(storage: Storage) -> None:
    for data in (b"long enough", b"short", b"", b"again"):
        storage.write("file", data)
        assert storage.read("file") == data
        assert storage.stat("file").size == len(data)
    assert storage.names("") == ["file"]


def test_readers_see_the_old_or_the_new(storage: Storage) -> None:
    contents = [bytes([number]) * 50_000 for number in range(4)]
    storage.write("file", contents[0])
    over = threading.Event()

    def replace() -> None:
        for number in range(20):
            storage.write("file", contents[number % 4])
        over.set()

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(replace)
        while not over.is_set() and not writer.done():
            assert storage.read("file") in contents
        writer.result()


def test_only_what_is_not_there_is_created(storage: Storage) -> None:
    assert storage.create("folder/file", b"1")
    assert not storage.create("folder/file", b"another's")
    assert storage.read("folder/file") == b"1"
    storage.delete("folder/file")
    assert storage.create("folder/file", b"2")
    assert storage.create("large", LARGE)
    assert storage.read("large") == LARGE


def test_of_many_creators_one_wins(storage: Storage) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(3):
            made = list(pool.map(lambda i, n=number: storage.create(f"{n}", b"%d" % i), range(8)))
            assert made.count(True) == 1
            assert storage.read(f"{number}") == b"%d" % made.index(True)


def test_names_are_those_of_the_files_of_one_folder_in_order(place: Place) -> None:
    storage = written(place, "f/b", "f/a", "f/a-", "f/B", "f/deeper/x", "g/y", "f.txt", "fa/z")
    assert storage.names("f") == ["B", "a", "a-", "b"]
    assert storage.names("") == ["f.txt"]
    assert storage.names("f/deeper") == ["x"]
    assert list(storage.each_name("f/deeper")) == ["x"]
    assert sorted(set(storage.each_name("f"))) == storage.names("f")
    assert not list(storage.each_name("nowhere"))


def test_a_folder_or_the_start_of_a_name_is_no_file(place: Place) -> None:
    storage = written(place, "folder/file")
    assert storage.is_file("folder/file")
    for path in ("folder", "fold", "folder/fi", "folder/file.txt"):
        assert not storage.is_file(path)
        with pytest.raises((FileNotFoundError, FileRefusedError)):
            storage.stat(path)
        with pytest.raises(FileNotFoundError):
            storage.read(path)


def test_what_is_deleted_is_gone(place: Place) -> None:
    storage = written(place, "folder/file", "folder/kept")
    for _ in range(2):
        storage.delete("folder/file")
        assert storage.names("folder") == ["kept"]
        assert walked(storage) == ["folder/kept"]
        assert not storage.is_file("folder/file")
        with pytest.raises(FileNotFoundError):
            storage.read("folder/file")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(place: Place, name: str) -> None:
    storage = written(place, name)
    [info] = storage.walk()
    assert (info.path, info.size, info.defect) == (name, len(name.encode()), None)
    assert storage.read(name) == name.encode()
    folder, _, last = name.rpartition("/")
    assert storage.names(folder) == [last]
    assert not storage.create(name, b"another's")
    storage.delete(name)
    assert walked(storage) == []


def test_a_walk_is_in_the_order_of_the_bytes_of_whole_paths(place: Place) -> None:
    found = list(written(place, *reversed(IN_ORDER)).walk())
    assert [info.path for info in found] == IN_ORDER == sorted(IN_ORDER, key=str.encode)
    assert [info.size for info in found] == [len(path.encode()) for path in IN_ORDER]
    assert all(info.modified for info in found)


def test_a_walk_ends_after_as_many_files_as_will_do(place: Place) -> None:
    found = written(place, *reversed(IN_ORDER)).walk(at_most=3)
    assert [info.path for info in found] == IN_ORDER[:3]


def test_a_walk_passes_over_hidden_names_and_outputs(place: Place) -> None:
    seen = ["a/x.jpg", "outer.jpg", "z/z.jpg"]
    hidden = [".h/x.jpg", "a/.h.jpg", "out/_batchlight/plan/x", "out/Z.jpg", "out/deep/y.jpg"]
    found = list(written(place, *seen, *hidden).walk())
    assert [info.path for info in found if info.defect is None] == seen
    assert [i.path for i in found if i.defect is not None] == ["out/"]
    assert {i.defect for i in found} == {None, OUTPUT_FOLDER}


def test_control_characters_are_a_defect(place: Place) -> None:
    """Of the ones that an object store lists too."""
    found = list(written(place, "c1\x85.jpg", "c1a.jpg").walk())
    assert [(info.path, bool(info.defect)) for info in found] == [
        ("c1\\x85.jpg", True),
        ("c1a.jpg", False),
    ]


def test_a_name_that_is_too_long_is_refused(storage: Storage) -> None:
    for write in (storage.write, storage.create):
        with pytest.raises(FileRefusedError):
            write("n" * 2000, b"data")
    assert storage.names("") == []


def test_an_output_is_known_by_its_locks(storage: Storage) -> None:
    storage.create(f"{LOCKS}/0000000001.json", b"{}")
    assert is_output(storage)
    assert walked(storage) == []


def test_to_make_it_last_and_to_sweep_leave_what_is_there(storage: Storage) -> None:
    storage.write("folder/file", b"1")
    storage.sync()
    storage.sweep()
    assert storage.read("folder/file") == b"1"
    assert storage.names("folder") == ["file"]
