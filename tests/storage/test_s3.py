"""Whole runs on a real object store, through the real command."""

from __future__ import annotations

import io
import urllib.request
from pathlib import Path
from typing import Any
from uuid import uuid4

import cv2
import obstore
import pyarrow.parquet as pq
import pytest

from batchlight.output.records import VOLATILE
from batchlight.storage import Location, listing, open_storage
from tests.support.helpers import batchlight, batchlight_here, dark_image, tree
from tests.support.s3_server import ACCESS_KEY, BUCKET, PUBLIC_BUCKET, SECRET_KEY, S3Server

NAMES = [
    *("a#b/c%20d.jpg", "plus+sign.png", "what?.jpg", "spaced name/x y.jpg", "ünïcode/雪 ☃.webp"),
    *("100%.jpg", "a&b'<c>.png", "a/b.jpg", "a.jpg", "a b.jpg", "%41.jpg"),
]
WRONG_SECRET = "another-secret-that-must-not-leak"
KEPT = ("_batchlight/locks/", "summary.json", "_batchlight/parts")
"""What a run that has nothing to do writes all the same, and a folder that the server lists for
some time after its last file is gone."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images under all kinds of names, and one file that is none."""
    folder = tmp_path / "in"
    for number, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        encoded = cv2.imencode(Path(name).suffix, dark_image(number))[1]
        (folder / name).write_bytes(encoded.tobytes())
    (folder / "broken.jpg").write_bytes(b"no image at all")
    return folder


@pytest.fixture
def prefix() -> str:
    """A place of its own in the bucket, under an odd name."""
    return f"{uuid4()}/data sets #1%20+?"


def run(source: object, output: object, *options: object, **environment: str) -> str:
    """A run that must end well but for the broken image; returns all it printed."""
    settings = ("--workers", 0, "--batch-size", 4, "--max-failures", 1, "--progress", "off")
    done = batchlight_here(
        "run", "--input", source, "--output", output, *settings, *options, **environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def records(files: dict[str, bytes], *also_without: str) -> list[dict[str, Any]]:
    """The rows of an output, but for what two equal runs, or two storages, may differ in."""
    found: list[dict[str, Any]] = []
    for path, data in files.items():
        if path.startswith("metadata/"):
            found += pq.read_table(io.BytesIO(data)).to_pylist()
    left_out = {*VOLATILE, "input_etag", "input_modified", *also_without}
    found.sort(key=lambda row: str(row["input"]))
    return [{k: v for k, v in row.items() if k not in left_out} for row in found]


def images(files: dict[str, bytes]) -> dict[str, bytes]:
    return {path: data for path, data in files.items() if path.startswith("classical/")}


def pictures(files: dict[str, bytes]) -> int:
    """How many the report shows."""
    return files["report.html"].count(b"data:image/webp")


def versions(s3_server: S3Server, place: str) -> dict[str, tuple[Any, Any]]:
    """What every object is and when it was last written, but for those of ``KEPT``."""
    found = [meta for chunk in obstore.list(s3_server.store(place)) for meta in chunk]
    return {
        meta["path"]: (meta["e_tag"], meta["last_modified"])
        for meta in found
        if not meta["path"].startswith(KEPT)
    }


def assert_no_secrets(*texts: str, files: dict[str, bytes] | None = None) -> None:
    everything = [text.encode() for text in texts] + list((files or {}).values())
    for secret in (ACCESS_KEY, SECRET_KEY, WRONG_SECRET, "Authorization", "Traceback"):
        assert not any(secret.encode() in each for each in everything)


def test_an_object_store_is_like_a_directory(
    s3_server: S3Server, photos: Path, prefix: str, tmp_path: Path
) -> None:
    environment = s3_server.environment
    s3_server.put(tree(photos), f"{prefix}/in")
    source, output = f"s3://{BUCKET}/{prefix}/in", f"s3://{BUCKET}/{prefix}/out"
    run(photos, tmp_path / "out")
    expected = tree(tmp_path / "out")
    assert len(images(expected)) == len(NAMES)
    assert [row["input"] for row in records(expected)] == sorted([*NAMES, "broken.jpg"])

    printed = run(source, output, **environment)
    first = s3_server.tree(f"{prefix}/out")
    assert images(first) == images(expected)
    assert records(first) == records(expected)
    assert pictures(first) == pictures(expected) >= 2 * len(NAMES)
    assert sorted(p for p in first if "_batchlight" not in p) == sorted(
        path for path in expected if "_batchlight" not in path
    )
    assert not [p for p in first if p.startswith(("_batchlight/tmp/", "_batchlight/parts/"))]
    assert_no_secrets(printed, files=first)
    metadata = next(data for path, data in first.items() if path.startswith("metadata/"))
    stored = pq.read_table(io.BytesIO(metadata), columns=["input_etag", "input_modified"])
    assert stored["input_etag"].null_count == stored["input_modified"].null_count == 0

    before = versions(s3_server, f"{prefix}/out")
    assert "done before" in run(source, output, **environment)
    assert versions(s3_server, f"{prefix}/out") == before

    run(source, tmp_path / "down", **environment)
    assert images(tree(tmp_path / "down")) == images(expected)
    assert records(tree(tmp_path / "down")) == records(expected)
    assert_no_secrets(files=tree(tmp_path / "down"))

    run(photos, f"s3://{BUCKET}/{prefix}/up", **environment)
    up = s3_server.tree(f"{prefix}/up")
    assert (images(up), records(up)) == (images(expected), records(expected))


def test_workers_and_a_changed_object(
    s3_server: S3Server, shared_ray: str, photos: Path, prefix: str, tmp_path: Path
) -> None:
    environment = s3_server.environment
    s3_server.put(tree(photos), f"{prefix}/in")
    source, output = f"s3://{BUCKET}/{prefix}/in", f"s3://{BUCKET}/{prefix}/out"
    run(photos, tmp_path / "out")
    printed = run(source, output, "--workers", 2, **environment)
    found = s3_server.tree(f"{prefix}/out")
    assert pictures(found) == pictures(tree(tmp_path / "out"))  # the report's, made by a worker
    assert images(found) == images(tree(tmp_path / "out"))
    assert records(found) == records(tree(tmp_path / "out"))
    assert_no_secrets(printed, files=found)

    before = versions(s3_server, f"{prefix}/out")
    s3_server.put({"a.jpg": (photos / "what?.jpg").read_bytes()}, f"{prefix}/in")
    run(source, output, **environment)
    after = versions(s3_server, f"{prefix}/out")
    rewritten = {path for path in before if before[path] != after[path]}
    assert {path for path in rewritten if path.startswith("classical")} == {"classical/a.jpg"}


def test_lists(s3_server: S3Server, photos: Path, prefix: str, tmp_path: Path) -> None:
    environment = s3_server.environment
    s3_server.put(tree(photos), f"{prefix}/in")
    base = f"s3://{BUCKET}/{prefix}/in"
    chosen = ["a b.jpg", "a#b/c%20d.jpg", "what?.jpg", "ünïcode/雪 ☃.webp"]
    lines = "\n".join(chosen)
    s3_server.put({"list.txt": lines.encode()}, f"{prefix}/in")
    (photos / "list.txt").write_text(lines)
    (tmp_path / "uris.csv").write_text("path\n" + "".join(f'"{base}/{n}"\n' for n in chosen))
    run(photos / "list.txt", tmp_path / "expected")
    expected = tree(tmp_path / "expected")
    assert len(images(expected)) == 4

    run(f"{base}/list.txt", f"s3://{BUCKET}/{prefix}/out", **environment)
    remote = s3_server.tree(f"{prefix}/out")
    assert (images(remote), records(remote)) == (images(expected), records(expected))
    assert pictures(remote) == pictures(expected)

    run(tmp_path / "uris.csv", tmp_path / "uris", **environment)
    below = f"{BUCKET}/{prefix}/in/"
    uris = tree(tmp_path / "uris")
    assert {path.replace(below, ""): data for path, data in images(uris).items()} == (
        images(expected)
    )
    assert [row["input"] for row in records(uris)] == [below + name for name in chosen]
    assert records(uris, "input", "output") == records(expected, "input", "output")
    assert pictures(uris) == pictures(expected)


UNREACHABLE = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}


@pytest.mark.parametrize(
    ("changes", "source", "output", "says"),
    [
        ({"AWS_SECRET_ACCESS_KEY": WRONG_SECRET}, "s3", "local", "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_SECRET_ACCESS_KEY": WRONG_SECRET}, "local", "s3", "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_SKIP_SIGNATURE": "true"}, "s3", "s3", "access denied (AccessDenied)"),
        (UNREACHABLE, "s3", "s3", "cannot reach http://127.0.0.1:1; check the endpoint"),
        (UNREACHABLE, "local", "s3", "cannot reach http://127.0.0.1:1; check the endpoint"),
        ({}, "s3://no-such-bucket/in", "local", "there is no bucket no-such-bucket; create it"),
        ({}, "local", "s3://no-such-bucket/out", "there is no bucket no-such-bucket; create it"),
    ],
)
def test_storage_out_of_reach(
    s3_server: S3Server,
    tmp_path: Path,
    changes: dict[str, str],
    source: str,
    output: str,
    says: str,
) -> None:
    s3_server.put({"x.jpg": b""}, "reach/in")
    (tmp_path / "in").mkdir()
    places = {"s3": f"s3://{BUCKET}/reach", "local": str(tmp_path)}
    source = source if "://" in source else f"{places[source]}/in"
    output = output if "://" in output else f"{places[output]}/out"
    environment = {**s3_server.environment, **changes}
    for command in ("run", "plan"):
        done = batchlight_here(command, "--input", source, "--output", output, **environment)
        assert done.returncode == 1, done.stderr
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert says in done.stderr
        assert_no_secrets(done.stdout, done.stderr)
    assert not (tmp_path / "out").exists()


def test_debug_tells_no_secrets_either(s3_server: S3Server, tmp_path: Path) -> None:
    s3_server.put({"x.jpg": b""}, "reach/in")
    environment = {**s3_server.environment, "AWS_SECRET_ACCESS_KEY": WRONG_SECRET}
    arguments = ("--input", f"s3://{BUCKET}/reach/in", "--output", tmp_path / "out", "--debug")
    done = batchlight("run", *arguments, **environment)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert_no_secrets(done.stdout, done.stderr.replace("Traceback", ""))


def test_a_public_bucket_needs_no_credentials(
    s3_server: S3Server, photos: Path, prefix: str, tmp_path: Path
) -> None:
    s3_server.put(tree(photos), prefix, PUBLIC_BUCKET)
    endpoint = {
        name: value
        for name, value in s3_server.environment.items()
        if name in ("AWS_ENDPOINT_URL", "AWS_REGION")
    }
    run(
        f"s3://{PUBLIC_BUCKET}/{prefix}",
        tmp_path / "out",
        AWS_SKIP_SIGNATURE="true",
        **endpoint,
    )
    run(photos, tmp_path / "expected")
    assert images(tree(tmp_path / "out")) == images(tree(tmp_path / "expected"))


def test_marks_of_folders_and_outputs_are_none_of_the_files_that_will_do(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some tools make an empty object for each folder, whose key ends in a slash."""
    place = f"{PUBLIC_BUCKET}/{uuid4()}"
    images = [f"{letter}/{number}.jpg" for letter in "zyx" for number in range(2)]
    theirs = [f"a/{number}.jpg" for number in range(4)] + ["a/_batchlight/format.json"]
    store = s3.store(place.partition("/")[2], PUBLIC_BUCKET)
    for name in (*images, *theirs):
        obstore.put(store, name, b"1", use_multipart=False)
    obstore.put(store, "z/empty.jpg", b"", use_multipart=False)
    for number in range(9):
        for mark in (f"b{number}", f"z/{number}.jpg.d"):
            request = urllib.request.Request(f"{s3.endpoint}/{place}/{mark}/", method="PUT")
            urllib.request.urlopen(request, timeout=30).close()
    monkeypatch.setattr(listing, "KEYS_PER_PAGE", 2)
    storage = open_storage(Location.parse(f"s3://{place}"))
    assert [info.path for info in storage.walk()] == ["a/", *sorted([*images, "z/empty.jpg"])]
    for enough in range(1, 7):
        assert len(list(storage.walk(at_most=enough))) == enough
    assert len(list(storage.walk(at_most=9))) == 8
