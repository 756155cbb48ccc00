"""What ``--input`` may be, and what it lists."""

from __future__ import annotations

import logging
import threading
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchlight.config import JobConfig
from batchlight.errors import UsageError
from batchlight.output.inputs import Input
from batchlight.planning.listing import InputSet, open_inputs
from tests.support.s3_server import BUCKET, S3Server


def opened(place: object, **options: Any) -> InputSet:
    return open_inputs(JobConfig(input=str(place), **options))


def listed(place: object, **options: Any) -> list[Input]:
    return list(opened(place, **options).images())


def paths(place: object, **options: Any) -> list[str]:
    return [image.path for image in listed(place, **options)]


def write_list(file: Path, entries: list[str]) -> Path:
    """A list of the kind that the suffix says."""
    if file.suffix.lower() == ".parquet":
        pq.write_table(pa.table({"n": range(len(entries)), "path": entries}), file)
    elif file.suffix == ".csv":
        quoted = (entry.replace('"', '""') for entry in entries)
        file.write_text("n,path\n" + "".join(f'1,"{entry}"\n' for entry in quoted))
    else:  # as some editors on Windows write it
        file.write_bytes(b"\xef\xbb\xbf" + "".join(f"{e}\r\n" for e in entries).encode())
    return file


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Not images at all, but named like some."""
    folder = tmp_path / "in"
    for name in ("b.PNG", "a/x.jpeg", "a.jpg", "#1.tif", "a b/y.webp", "a/z.avif"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"12345")
    for name in ("notes.txt", "jpg", "a/x.jpg.part", ".a.jpg"):
        (folder / name).write_bytes(b"")
    return folder


def test_a_directory(photos: Path) -> None:
    found = listed(photos)
    names = ["#1.tif", "a b/y.webp", "a.jpg", "a/x.jpeg", "a/z.avif", "b.PNG"]
    assert [image.path for image in found] == names
    assert all((image.size, image.source, image.defect) == (5, None, None) for image in found)
    assert all(image.modified is not None for image in found)


def test_a_parquet_file_that_may_not_be_looked_into_is_accounted_for(tmp_path: Path) -> None:
    """As a tar is, unless tars lie beside it, whose captions it would be."""
    folder = tmp_path / "in"
    for name in ("x/00000.tar", "x/captions.txt", "y/a.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"12345")
    table = pa.table({"image": [b"\xff\xd8\xff"]})
    pq.write_table(table, tmp_path / "blob")
    pq.write_table(table, folder / "y/nl\n.parquet")
    pq.write_table(pa.table({"n": [1]}), folder / "y/labels.parquet")
    for name in ("a.parquet", "x/00000.parquet", "y/b.parquet", "y/dead.parquet"):
        target = tmp_path / ("nowhere" if "dead" in name else "blob")
        (folder / name).symlink_to(target)
    odd = {item.path: item.defect for item in listed(folder) if item.container}
    refused = ["a.parquet", "y/b.parquet", "y/dead.parquet", r"y/nl\x0a.parquet"]
    assert sorted(odd) == sorted([*refused, "x/00000.tar"])
    assert [path for path, defect in odd.items() if not defect] == ["x/00000.tar"]
    followed = [item for item in listed(folder, follow_links=True) if item.container]
    assert {item.path for item in followed if item.size is not None and item.defect is None} == {
        *("a.parquet", "x/00000.tar", "y/b.parquet"),
    }


def test_threads_look_into_parquet_files_with_one_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def noted(function: Any) -> Any:
        made.append(threading.current_thread())
        return cache(function)

    monkeypatch.setattr("batchlight.planning.listing.cache", noted)
    (tmp_path / "in").mkdir()
    for number in range(8):
        pq.write_table(pa.table({"image": [b"\xff\xd8\xff"]}), tmp_path / f"in/{number}.parquet")
    assert len(list(listed(tmp_path / "in"))) == 8
    assert made == [threading.main_thread()]


def test_a_directory_named_like_an_image_or_a_list(photos: Path) -> None:
    for name in ("in.jpg", "in.txt"):
        renamed = photos.rename(photos.with_name(name))
        assert len(paths(renamed)) == 6
        assert opened(renamed).default_output().name == f"{name}-enhanced"
        renamed.rename(photos)


def test_one_image(photos: Path) -> None:
    found = opened(photos / "a/x.jpeg")
    assert [(image.path, image.size) for image in found.images()] == [("x.jpeg", 5)]
    assert found.root.path == str(photos / "a")
    assert found.default_output().path == str(photos / "a/x.jpeg-enhanced")
    (photos / "a/x.jpeg").unlink()
    assert [(image.path, image.size) for image in found.images()] == [("x.jpeg", None)]


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".parquet", ".PARQUET"])
def test_a_list(photos: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    entries = [
        *("b.PNG", "./a//x.jpeg", "a/x.jpeg", "#1.tif", "a b/y.webp", ""),
        *("gone.jpg", "notes.txt", "a", f"{photos}/a.jpg", f"file://{photos}/a.jpg"),
    ]
    with caplog.at_level(logging.WARNING):
        found = listed(write_list(photos / f"list{suffix}", entries))
    absolute = f"{photos}/a.jpg"
    assert [(image.path, image.source, image.size) for image in found] == sorted(
        [
            *[(name, None, 5) for name in ("b.PNG", "a/x.jpeg", "#1.tif", "a b/y.webp")],
            (absolute[1:], absolute, 5),
            *[(name, None, None) for name in ("gone.jpg", "notes.txt", "a")],
        ],
        key=lambda row: row[0].encode(),
    )
    odd = [image.path for image in found if image.defect]
    assert odd == ["a", "notes.txt"]
    assert "names 2 images more than once" in caplog.text


@pytest.mark.parametrize("kind", ["directory", "loop", "too long", "control"])
def test_an_odd_entry_fails_alone(photos: Path, kind: str) -> None:
    name = {"too long": "n" * 300 + ".jpg", "control": "bell\x07.jpg"}.get(kind, "odd.jpg")
    if kind == "directory":
        (photos / name).mkdir()
    elif kind == "loop":
        (photos / name).symlink_to(name)
    found = listed(write_list(photos / "list.txt", ["a.jpg", name, "zz.jpg", "b.PNG"]))
    shown = name.replace("\x07", "\\x07")
    assert [image.path for image in found] == sorted(["a.jpg", "b.PNG", shown, "zz.jpg"])
    assert [image.path for image in found if image.defect] == [shown]


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        (["../x.jpg"], r"names \.\./x\.jpg, whose output would lie outside"),
        (["a/../../x.jpg"], "outside the output"),
        (["s3://b/a/../../x.jpg"], "outside the output"),
        (["/"], "names /, which is the root directory, not an image"),
        (["//"], "names //, which is the root"),
        (["file:///"], "names file:///, which is the root"),
        (["ftp://host/x.jpg"], r"in the list .*list\.txt: cannot use ftp://"),
        (["s3://me:pw@b/x.jpg"], "must not contain credentials"),
        (["tmp/x.jpg", "/tmp/x.jpg"], "names tmp/x.jpg and /tmp/x.jpg, which would be written to"),
    ],
)
def test_a_list_is_refused(photos: Path, entries: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        listed(write_list(photos / "list.txt", ["a.jpg", *entries]))


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("list.csv", b"name,size\na.jpg,1\n", "no column 'path'"),
        ("list.csv", b"Path,size\n", "no column 'path', but Path, size; rename one, or "),
        ("list.csv", b"path;size\n", "no column 'path', but path;size; .* commas between columns"),
        ("list.csv", b"a\x07" * 60_000, r"'path', but a\\x07a\\x07.{100,160}\.\.\.; rename"),
        ("list.csv", b"", "no column 'path', but none; "),
        ("list.csv", b"path,path\na.jpg,b.jpg\n", "has 2 columns 'path'; keep one"),
        ("list.csv", b"path,size,size\na.jpg,1,2\n", "has 2 columns 'size'"),
        ("list.csv", b'path\n"' + b"x" * 200_000 + b'"\n', "cannot read the list .*: field larger"),
        ("list.txt", b"\xff\xfea\x00", "cannot read the list .*: 'utf-8'"),
        ("list.parquet", b"PAR1 not really", "neither a container of images, .*, nor a list: "),
        ("list.parquet", b"", "neither a container of images, .*, nor a list: "),
    ],
)
def test_a_damaged_list_is_refused(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match=says):
        listed(tmp_path / name)


def test_a_parquet_list_needs_a_column_of_paths(tmp_path: Path) -> None:
    pq.write_table(pa.table({"name": ["a.jpg"]}), tmp_path / "list.parquet")
    with pytest.raises(
        UsageError, match=r"neither .* nor a list: it has no column 'path', but name"
    ):
        listed(tmp_path / "list.parquet")
    pq.write_table(pa.table({"path": [{"not": "text"}]}), tmp_path / "list.parquet")
    with pytest.raises(UsageError, match=r"neither .* nor a list"):
        listed(tmp_path / "list.parquet")


def test_an_empty_list_names_nothing(tmp_path: Path) -> None:
    assert listed(write_list(tmp_path / "list.txt", [])) == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"include": "*.jp*g"}, ["a.jpg", "a/x.jpeg"]),
        ({"include": "/*.jpg"}, ["a.jpg"]),
        ({"include": ("a/**", "*.PNG")}, ["a/x.jpeg", "a/z.avif", "b.PNG"]),
        ({"include": "#1.tif"}, ["#1.tif"]),
        ({"exclude": "a*"}, ["#1.tif", "b.PNG"]),
        ({"include": "a/", "exclude": "*.avif"}, ["a/x.jpeg"]),
        ({"include": "*.gif"}, []),
    ],
)
def test_globs(photos: Path, options: dict[str, Any], expected: list[str]) -> None:
    assert paths(photos, **options) == expected


@pytest.mark.parametrize("option", ["include", "exclude"])
@pytest.mark.parametrize("glob", ["!", "[z-a].png"])
def test_a_glob_that_is_none(photos: Path, option: str, glob: str) -> None:
    with pytest.raises(UsageError, match=f"--{option} is not a valid glob"):
        opened(photos, **{option: glob})


@pytest.mark.parametrize("name", ["nothing", "nothing.jpg", "nothing.txt", "nothing/x.jpg"])
def test_what_is_not_there(photos: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"nothing.* does not exist; check "):
        opened(photos / name)


def test_what_is_no_input(photos: Path) -> None:
    with pytest.raises(UsageError, match=r"neither a directory, nor an image, nor a list"):
        opened(photos / "jpg")
    (photos / "_batchlight/locks").mkdir(parents=True)
    (photos / "_batchlight/locks/0000000001.json").write_bytes(b"{}")
    with pytest.raises(UsageError, match=r"output of a run and cannot be an input.*/in/classical"):
        opened(photos)


@pytest.mark.parametrize(
    ("place", "expected"),
    [("in", "in-enhanced"), ("in/", "in-enhanced"), ("in/a/../a", "in/a-enhanced")],
)
def test_default_output(photos: Path, place: str, expected: str) -> None:
    output = opened(f"{photos.parent}/{place}").default_output()
    assert output.path == str(photos.parent / expected)


def test_where_an_output_must_be_named(photos: Path) -> None:
    with pytest.raises(UsageError, match="--output is required when --input is a list"):
        opened(write_list(photos / "list.txt", ["a.jpg"])).default_output()
    with pytest.raises(UsageError, match=r"--output is required when --input is .* file system"):
        opened("/").default_output()


def test_object_stores(s3: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["a b/x #%20+?.jpg", "a.jpg", "a/é.png", "notes.md"]
    s3.put(dict.fromkeys(names, b"12345"), "inputs/of #%")
    base = f"s3://{BUCKET}/inputs/of #%"
    found = opened(f"{base}/")
    images = list(found.images())
    assert [image.path for image in images] == names[:3]
    assert all(image.size == 5 and image.etag and image.modified for image in images)
    assert str(found.default_output()) == f"{base}-enhanced"
    with pytest.raises(UsageError, match="--output is required when --input is a bucket"):
        opened(f"s3://{BUCKET}").default_output()

    assert listed(f"{base}/a b/x #%20+?.jpg")[0].path == "x #%20+?.jpg"
    for missing in ("gone.jpg", "gone.txt"):
        with pytest.raises(UsageError, match=r"s3://.*/gone\..* does not exist"):
            opened(f"{base}/{missing}")

    entries = ["a.jpg", f"{base}/a b/x #%20+?.jpg", f"{base}/a.jpg", f"{base}/gone.jpg"]
    local = listed(write_list(tmp_path / "list.txt", [*entries[1:], f"s3://{BUCKET}/x//y.jpg"]))
    s3.put({"inputs/of #%/list.txt": "\n".join(entries).encode()})
    remote = listed(f"{base}/list.txt")
    below = f"{BUCKET}/inputs/of #%"
    uris = [(f"{below}/a b/x #%20+?.jpg", 5), (f"{below}/a.jpg", 5), (f"{below}/gone.jpg", None)]
    assert [(image.path, image.size) for image in remote] == [("a.jpg", 5), *uris]
    assert [(image.path, image.size) for image in local] == [*uris, (f"{BUCKET}/x//y.jpg", None)]
    assert [image.path for image in local if image.defect] == [f"{BUCKET}/x//y.jpg"]
    assert not caplog.records


def test_a_list_that_knows_its_objects_asks_for_none(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = str(uuid4())
    names = ["a.jpg", "b.tar", "c.jpg"]
    for name in names:
        obstore.put(s3.store(), f"{prefix}/{name}", name.encode() * 3)
    [*looked] = listed(f"s3://{BUCKET}/{prefix}")
    heads: list[str] = []
    head = obstore.head

    def counted(store: Any, path: str) -> Any:
        heads.append(path)
        return head(store, path)

    monkeypatch.setattr(obstore, "head", counted)
    inventory = {
        "bucket": [BUCKET] * 3,
        "key": [f"{prefix}/{name}" for name in names],
        "size": [image.size for image in looked],
        "e_tag": [(image.etag or "").strip('"') for image in looked[:2]] + [None],
        "last_modified_date": [image.modified for image in looked],
    }
    pq.write_table(pa.table(inventory), tmp_path / "list.parquet")
    found = listed(tmp_path / "list.parquet", output=str(tmp_path / "out"))
    assert [image.path for image in found] == [f"{BUCKET}/{prefix}/{name}" for name in names]
    for one, other in zip(found, looked, strict=True):
        assert not one.changed_since(other.size, other.modified, other.etag)
        assert one.container == other.container == other.path.endswith(".tar")
    assert len(heads) == 1


def test_of_a_local_file_no_list_is_believed(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"12345")
    (tmp_path / "list.csv").write_text("path,size,etag\na.jpg,7,x\n")
    [found] = listed(tmp_path / "list.csv")
    assert (found.size, found.etag) == (5, None)
