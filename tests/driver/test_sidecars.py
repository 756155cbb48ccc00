"""Files beside containers: copied, written anew where they hold offsets, or refused."""

from __future__ import annotations

import json
import os
import struct
import sys
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchlight
from batchlight.config import METHODS
from batchlight.driver.repair import RepairOptions, repair
from batchlight.storage import Location, open_storage
from batchlight.storage.streams import LocalReader
from batchlight.worker import sidecars
from batchlight.worker.comparing import Problem
from tests.driver.test_shards import problems
from tests.support.helpers import rows, tree, write_images
from tests.support.parquets import write_parquet
from tests.support.s3_server import S3Server
from tests.support.tars import headers_and_data, samples, write_tar

WIDS = {"__kind__": "wids-shard-index-v1", "shardlist": [{"url": "00000.tar", "md5sum": "0"}]}


def run(folder: Path | str, out: Path | str, **options: Any) -> batchlight.Summary:
    values: dict[str, Any] = {"workers": 0, "batch_size": 4, "progress": "off"} | options
    config = batchlight.JobConfig(input=str(folder), output=str(out), **values)
    return batchlight.run(config)


def dali_index(path: Path) -> bytes:
    """As DALI's ``wds2idx`` writes it."""
    bundles: dict[str, list[str]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, _, suffix = member.name.partition(".")
            told = f"{suffix} {member.offset_data} {member.size} {member.name}"
            bundles.setdefault(key, []).append(told)
    lines = [f"v1.2 {len(bundles)}", *map(" ".join, bundles.values())]
    return "".join(f"{line}\n" for line in lines).encode()


def energon_index(path: Path) -> bytes:
    """As ``energon prepare`` writes it."""
    offsets, last = [], None
    with tarfile.open(path) as tar:
        for member in tar:
            key = member.name.partition(".")[0]
            if key != last:
                offsets.append(member.offset)
                last = key
        offsets.append(tar.offset)
    return struct.pack(f"<{len(offsets)}Q", *offsets)


KEPT = (
    "_common_metadata",
    "md5.py",
    "labels.sqlite",
    "sha256.json",
    "heights.asc",
    "labels.txt.sig",
)
"""The last two are a map, and the signature of a file that stays as it is."""


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards as img2dataset leaves them, with the indices of readers, and labels of the set."""
    folder = tmp_path / "in"
    for number in range(2):
        write_tar(folder / f"{number:05d}.tar", samples(5, 10 * number))
        (folder / f"{number:05d}.parquet").write_bytes(b"PAR1 rows PAR1")
        (folder / f"{number:05d}_stats.json").write_bytes(b'{"successes": 5}')
        (folder / f"{number:05d}.idx").write_bytes(dali_index(folder / f"{number:05d}.tar"))
        (folder / f"{number:05d}.tar.idx").write_bytes(energon_index(folder / f"{number:05d}.tar"))
    (folder / "labels.txt").write_text("cat\ndog\n")
    return folder


def test_sidecars_come_along_and_indices_are_true(shards: Path, tmp_path: Path) -> None:
    (shards / "other").mkdir()
    (shards / "other/notes.txt").write_text("in a folder without containers")
    assert run(shards, tmp_path / "out").exit_code == 0
    out = tmp_path / "out/classical"
    found = tree(out)
    for name in ("00000.parquet", "00001_stats.json", "labels.txt"):
        assert found[name] == (shards / name).read_bytes()
        times = [(top / name).stat().st_mtime_ns // 1000 for top in (shards, out)]
        assert times[0] == times[1]
    for number in range(2):
        shard = out / f"{number:05d}.tar"
        assert found[f"{number:05d}.idx"] == dali_index(shard)
        assert found[f"{number:05d}.idx"] != (shards / f"{number:05d}.idx").read_bytes()
        assert found[f"{number:05d}.tar.idx"] == energon_index(shard)
    assert len(found) == 11
    assert {row["container"] for row in rows(tmp_path / "out")} == {"00000.tar", "00001.tar"}


def test_what_cannot_be_true_is_refused(
    shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (shards / "index.json").write_text(json.dumps(WIDS))
    (shards / "00000.idx").write_bytes(b"v1.2 1\njpg 7 7 none.jpg\n")
    (shards / "00001.tar.idx").write_bytes(struct.pack("<2Q", 0, 11))
    (shards / "of-no-shard.idx").write_bytes(b"v1.1 0\n")
    (shards / ".nv-meta").mkdir()
    (shards / ".nv-meta/.info.yaml").write_text("shard_counts: {}")
    run(shards, tmp_path / "out")
    absent = ("index.json", "00000.idx", "00001.tar.idx", "of-no-shard.idx", ".nv-meta")
    assert not any((tmp_path / "out/classical" / name).exists() for name in absent)
    told = " ".join(record.getMessage() for record in caplog.records)
    for command in ("widsindex create", "wds2idx", "energon prepare"):
        assert command in told


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("00000.tar.md5", "it contains checksums of the old files; 'md5sum FILES'"),
        ("SHA256SUMS", "'sha256sum FILES'"),
        ("sha512sums.txt", "'sha512sum FILES'"),
        ("set.sha1", "'sha1sum FILES'"),
        ("CHECKSUMS.txt", "it contains checksums of the old files"),
        ("set-checksums.md5", "'md5sum FILES'"),
        ("all.sfv", "it contains checksums"),
        ("B2SUMS", "'b2sum FILES'"),
        ("SHASUMS", "'shasum FILES'"),
        ("00000.tar.sha", "'shasum FILES'"),
        ("00000.tar.b3", "'b3sum FILES'"),
        ("00000.tar.blake2b", "'b2sum FILES'"),
        ("00000.tar.xxh64", "'xxh64sum FILES'"),
        ("00000.tar.crc", "it contains checksums"),
        ("00000.tar.crc32c", "it contains checksums"),
        ("00000.tar.adler32", "it contains checksums"),
        ("manifest-sha256.json", "'sha256sum FILES'"),
        ("tagmanifest-md5.txt", "'md5sum FILES'"),
        ("checksums.json", "it contains checksums"),
        ("set_checksum.csv", "it contains checksums"),
        ("SHA256SUMS.asc", "it signs an old file"),
        ("SHA256SUMS.gpg", "it signs an old file"),
        ("checksums.txt.sig", "it signs an old file"),
        ("00000.tar.asc", "it signs an old file"),
        ("00000.TGZ.minisig", "it signs an old file"),
        ("_metadata", "'pyarrow.parquet.write_metadata'"),
        ("00000.tar.index.sqlite", "'ratarmount SHARD'"),
        (
            "train-labels.idx",
            "unknown format; if it does not refer to the containers, copy it yourself",
        ),
        ("00000.tar.idx", "unknown format"),
    ],
)
def test_what_states_offsets_or_hashes_is_not_copied(
    name: str, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "in"
    write_tar(source / "00000.tar", samples(2))
    (source / name).write_bytes(b"\0\0\x08\x01 neither DALI's nor Energon's")
    for kept in KEPT:
        (source / kept).write_bytes(b"to keep")
    run(source, tmp_path / "out")
    assert sorted(tree(tmp_path / "out/classical")) == sorted(["00000.tar", *KEPT])
    [message] = [r.getMessage() for r in caplog.records if "beside" in r.getMessage()]
    assert name in message
    assert told in message
    assert "energon" not in message


def test_dropped_members_leave_no_index_that_lies(shards: Path, tmp_path: Path) -> None:
    members = samples(5)
    members["000000002.jpg"] = b"broken"
    write_tar(shards / "00000.tar", members)
    (shards / "00000.idx").write_bytes(dali_index(shards / "00000.tar"))
    run(shards, tmp_path / "out", failed_images="drop-sample", max_failures=1)
    out = tmp_path / "out/classical"
    assert len(headers_and_data(out / "00000.tar")) == 16
    assert not (out / "00000.idx").exists()
    assert (out / "00001.idx").read_bytes() == dali_index(out / "00001.tar")


def test_only_sidecars_of_what_is_there(shards: Path, tmp_path: Path) -> None:
    (shards / "00001.tar").write_bytes(b"damaged" * 1000)
    run(shards, tmp_path / "out", exclude=("*.parquet",), max_failures=1)
    assert sorted(tree(tmp_path / "out/classical")) == [
        *("00000.idx", "00000.tar", "00000.tar.idx", "00000_stats.json", "labels.txt")
    ]


def test_later_runs_copy_what_is_new(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(shards, out)
    before = {p: p.stat().st_mtime_ns for p in (out / "classical").iterdir()}
    run(shards, out)
    assert {p: p.stat().st_mtime_ns for p in (out / "classical").iterdir()} == before
    (shards / "labels.txt").write_text("cat\ncow\n")
    write_tar(shards / "00001.tar", samples(3, 50))
    (shards / "00001.idx").write_bytes(dali_index(shards / "00001.tar"))
    run(shards, out)
    assert (out / "classical/labels.txt").read_text() == "cat\ncow\n"
    assert (out / "classical/00001.idx").read_bytes() == dali_index(out / "classical/00001.tar")


def test_what_has_been_copied_is_not_copied_again(shards: Path, tmp_path: Path) -> None:
    """Whatever the time of a file: none of these can be written as a floating-point number."""
    for number in range(100):
        path = shards / f"c{number}.txt"
        path.write_text("caption")
        os.utime(path, ns=(0, 1_769_903_999_000_000_000 + 7_654_321_987 * number))
    out = tmp_path / "out"
    run(shards, out)
    before = {p: p.stat().st_ino for p in (out / "classical").iterdir()}
    run(shards, out)
    assert {p: p.stat().st_ino for p in (out / "classical").iterdir()} == before


def test_sidecars_on_an_object_store(shards: Path, tmp_path: Path, s3: S3Server) -> None:
    run(shards, tmp_path / "out")
    s3.put(tree(shards), "sidecars/in")
    run("s3://data/sidecars/in", "s3://data/sidecars/out")
    found = s3.tree("sidecars/out")
    expected = tree(tmp_path / "out/classical")
    assert {n: found[f"classical/{n}"] for n in expected} == expected


def test_compressed_files_that_are_no_tars_are_nobody_s_failure(
    shards: Path, tmp_path: Path
) -> None:
    for name in ("captions.jsonl.zst", "a.xz", "b.bz2", "c.lz4"):
        (shards / name).write_bytes(b"compressed")
    assert run(shards, tmp_path / "out").exit_code == 0
    assert (tmp_path / "out/classical/captions.jsonl.zst").read_bytes() == b"compressed"
    (shards / "00002.tar.zst").write_bytes(b"compressed")
    summary = run(shards, tmp_path / "out")
    assert (summary.exit_code, summary.failed_by_code) == (3, {"unsupported": 1})
    [failed] = [row for row in rows(tmp_path / "out") if row["status"] == "failed"]
    assert failed["error"] == ".tar.zst is not read; decompress it, or compress it as .tar.gz"


@pytest.mark.parametrize("folder", ["", "set/"])
def test_names_of_one_character_own_their_files(folder: str, tmp_path: Path) -> None:
    source, out = tmp_path / "in" / folder, tmp_path / "out/classical" / folder
    write_tar(source / "0.tar", samples(2))
    (source / "0.idx").write_bytes(dali_index(source / "0.tar"))
    (source / "1.tar").write_bytes(b"damaged" * 1000)
    (source / "1.json").write_text("of a shard that fails")
    run(tmp_path / "in", tmp_path / "out")
    assert sorted(tree(out)) == ["0.idx", "0.tar"]
    assert (out / "0.idx").read_bytes() == dali_index(out / "0.tar")


@pytest.mark.parametrize("becomes", ["captions", "a table"])
def test_a_container_that_is_one_no_longer_keeps_its_output(
    becomes: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise runs and repairs would undo each other's work, again and again."""
    source, out = tmp_path / "in", tmp_path / "out"
    write_tar(source / "b.tar", samples(2))
    write_parquet(source / "a.parquet", range(2))
    run(source, out)
    before = tree(out / "classical")
    if becomes == "captions":  # of a tar that has appeared
        write_tar(source / "a.tar", samples(2, 10))
    else:
        pq.write_table(pa.table({"n": [1]}), source / "a.parquet")
    for _ in range(2):
        caplog.clear()
        run(source, out)
        assert tree(out / "classical")["a.parquet"] == before["a.parquet"]
        assert (
            "such as a.parquet: recorded outputs of earlier runs are in their place" in caplog.text
        )
        assert problems(out) == []
    if becomes == "captions":
        (out / "classical/a.parquet").write_bytes(b"damaged")
        options = RepairOptions(str(source), workers=0)
        assert repair(str(out), options, on_problem=list[Problem]().append, say=print).sound
        run(source, out)
        assert tree(out / "classical")["a.parquet"] == before["a.parquet"]


def test_a_copied_file_with_a_record_keeps_it_when_a_container_appears(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, label = tmp_path / "in", tmp_path / "out/classical/a/labels.txt"
    write_tar(source / "b/b.tar", samples(2))
    (source / "a").mkdir()
    (source / "a/labels.txt").write_text("cat")
    run(source, tmp_path / "out", copy_others=True)
    write_tar(source / "a/a.tar", samples(2, 10))
    (source / "a/labels.txt").write_text("cat and dog")
    run(source, tmp_path / "out")
    assert label.read_text() == "cat"
    assert "a/labels.txt: recorded outputs of earlier runs are in their place" in caplog.text
    caplog.clear()
    (source / "a/new.txt").write_text("copied with the container")
    summary = run(source, tmp_path / "out", copy_others=True)
    assert (label.read_text(), summary.others, summary.done_now) == ("cat and dog", 1, 1)
    assert summary.beside == 1
    assert (label.parent / "new.txt").exists()
    assert "labels.txt" not in caplog.text
    assert run(source, tmp_path / "out", copy_others=True).done_now == 0
    assert problems(tmp_path / "out") == []


@pytest.mark.parametrize("case", ["excluded", "refused", "excluded Parquet"])
def test_copy_others_beside_containers_that_are_never_in_the_output(
    case: str, tmp_path: Path
) -> None:
    """With a row each, as in any folder without shards, since nothing else would copy them."""
    source, out = tmp_path / "in", tmp_path / "out"
    write_images(source, 1)
    (source / "a/labels.txt").write_text("cat")
    run(source, out, copy_others=True)
    name = {"excluded": "a/b.tar", "refused": "a/b.tar.xz"}.get(case, "a/b.parquet")
    if name == "a/b.tar":
        write_tar(source / name, samples(2))
    elif name == "a/b.parquet":
        pq.write_table(pa.table({"embedding": [b"1"]}), source / name)
    else:
        (source / name).write_bytes(b"\xfd7zXZ")
    (source / "a/labels.txt").write_text("cat and dog")
    (source / "a/new.txt").write_text("new")
    options = {"copy_others": True, "max_failures": 1}
    summary = run(source, out, exclude=("*.tar", "*.parquet"), **options)
    assert (summary.others, summary.copied, summary.done_now) == (2, 2, 2 + (case == "refused"))
    assert (out / "classical/a/labels.txt").read_text() == "cat and dog"
    assert (out / "classical/a/new.txt").read_text() == "new"
    assert problems(out) == []


def test_copy_others_beside_a_container_that_fails(
    shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They go along with a shard once it is mended; until then, they are not forgotten."""
    good = {path.name: path.read_bytes() for path in shards.iterdir()}
    for number in range(2):
        (shards / f"{number:05d}.tar").write_bytes(b"damaged" * 1000)
    options = {"copy_others": True, "max_failures": 9}
    run(shards, tmp_path / "out", include=("*.tar", "labels.txt"), **options)
    assert sorted(tree(tmp_path / "out/classical")) == ["labels.txt"]
    run(shards, tmp_path / "out", exclude=("00001.parquet",), **options)
    plain = {"00000.parquet", "00000_stats.json", "00001_stats.json", "labels.txt"}
    assert set(tree(tmp_path / "out/classical")) == plain
    assert "such as 00000.idx: it contains offsets into a container" in caplog.text
    (shards / "labels.txt").write_text("cat\ncow\n")
    run(shards, tmp_path / "out", **options)
    assert (tmp_path / "out/classical/labels.txt").read_text() == "cat\ncow\n"
    (shards / "00000.tar").write_bytes(good["00000.tar"])
    (shards / "00001.tar").write_bytes(good["00001.tar"])
    run(shards, tmp_path / "out", exclude=("00001.tar",), **options)
    assert "such as 00001.idx: its container is not in the output" in caplog.text
    index = (tmp_path / "out/classical/00000.idx").read_bytes()
    assert index == dali_index(tmp_path / "out/classical/00000.tar")


def test_a_limit_copies_files_only_beside_what_it_takes(tmp_path: Path) -> None:
    for name in "ab":
        write_tar(tmp_path / "in" / name / "0.tar", samples(2))
        (tmp_path / "in" / name / "labels.txt").write_text("cat")
    run(tmp_path / "in", tmp_path / "out", copy_others=True, limit=1)
    assert sorted(tree(tmp_path / "out/classical")) == ["a/0.tar", "a/labels.txt"]


def test_a_file_is_read_once_for_all_methods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes(range(256)) * 3
    (tmp_path / "labels").write_bytes(data)
    storage = open_storage(Location.parse(tmp_path))
    storage.check(writable=True)
    monkeypatch.setattr(sidecars, "PIECE_BYTES", 256)
    read_at, reads = LocalReader.read_at, list[int]()

    def noted(self: LocalReader, start: int, length: int) -> bytes:
        reads.append(start)
        return read_at(self, start, length)

    monkeypatch.setattr(LocalReader, "read_at", noted)
    writers = [storage.open_writer(f"{method}/labels") for method in METHODS]
    with closing(storage.open_reader("labels")) as source:
        sidecars._copy(source, writers)
    assert reads == [0, 256, 512]
    for method in METHODS:
        assert (tmp_path / method / "labels").read_bytes() == data


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such names")
@pytest.mark.parametrize("copy_others", [False, True])
def test_files_that_cannot_be_copied_are_named(
    shards: Path, tmp_path: Path, copy_others: bool, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (shards / "secret.txt").symlink_to(tmp_path / "secret.txt")
    (shards / "nowhere.txt").symlink_to("nothing")
    (tmp_path / "folder").mkdir()
    (shards / "folder").symlink_to(tmp_path / "folder")
    (shards / "left-out.txt").symlink_to(tmp_path / "secret.txt")
    with open(os.fsencode(shards) + b"/caf\xe9.txt", "w"):
        pass
    run(shards, tmp_path / "out", exclude="left-out.txt", copy_others=copy_others)
    assert not {"secret.txt", "nowhere.txt"} & tree(tmp_path / "out/classical").keys()
    assert "1 file beside containers, such as caf\\xe9.txt: the name is not UTF-8" in caplog.text
    assert "1 file beside containers, such as secret.txt: it is a link that" in caplog.text
    assert "1 file beside containers, such as nowhere.txt: " in caplog.text
    assert caplog.text.count("not in the output") == 3
