"""Whole runs over tar shards: what comes back, what is recorded, and what dies in between."""

from __future__ import annotations

import gc
import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import obstore
import pytest
import webdataset

import batchlight
from batchlight.driver.dry_run import dry_run
from batchlight.driver.repair import RepairOptions, repair
from batchlight.driver.verify import verify
from batchlight.errors import StorageError, UsageError
from batchlight.storage.base import ChangedError
from batchlight.storage.local import LocalStorage
from batchlight.storage.streams import LocalReader, LocalWriter, UploadWriter
from batchlight.training.evaluate import evaluate
from batchlight.worker.comparing import Problem
from batchlight.worker.overlap import read_ahead
from tests.support.dying import Died, die_at
from tests.support.helpers import batchlight as command
from tests.support.helpers import (
    batchlight_here,
    bright_image,
    outcomes,
    rows,
    stable_rows,
    tree,
)
from tests.support.parquets import write_parquet
from tests.support.ray_head import RayHead
from tests.support.s3_server import S3Server
from tests.support.tars import BRIGHT_EVERY, gnu_tar, headers_and_data, jpeg, samples, write_tar


def run(folder: Path | str, out: Path | str, **options: Any) -> batchlight.Summary:
    values: dict[str, Any] = {"workers": 0, "batch_size": 4, "progress": "off"} | options
    config = batchlight.JobConfig(input=str(folder), output=str(out), **values)
    return batchlight.run(config)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards beside loose images, with names on both sides of theirs."""
    folder = tmp_path / "in"
    write_tar(folder / "00000.tar", samples(11))
    write_tar(folder / "deep/00001.tar", samples(6, 100), tarfile.GNU_FORMAT)
    for number, name in enumerate(("00000.jpg", "00000.tar-1.jpg", "00000.tar.jpg", "z.jpg")):
        (folder / name).write_bytes(jpeg(200 + number))
    return folder


def content(path: Path, name: str) -> bytes:
    with tarfile.open(path) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def problems(out: Path) -> list[Problem]:
    found: list[Problem] = []
    verify(str(out), on_problem=found.append)
    return found


def test_images_change_and_nothing_else(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = run(shards, out)
    assert (summary.exit_code, summary.inputs, summary.containers) == (0, 21, 2)
    assert (summary.ok, summary.skipped, summary.missing) == (18, 3, 0)
    for name in ("00000.tar", "deep/00001.tar"):
        old, new = headers_and_data(shards / name), headers_and_data(out / "classical" / name)
        for (told, data), (told_now, data_now) in zip(old, new, strict=True):
            assert told == told_now
            number, _, suffix = str(told["name"]).partition(".")
            is_dark = suffix == "jpg" and int(number) % BRIGHT_EVERY != BRIGHT_EVERY - 1
            assert (data != data_now) == is_dark
    luminance = [(r["luminance_before"], r["luminance_after"]) for r in rows(out)]
    assert sum(after > before for before, after in luminance) == 18


def test_a_row_finds_its_image_in_both_containers(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(shards, out)
    inside = [row for row in rows(out) if row["container"]]
    assert len(inside) == 17
    for row in inside:
        path, at = out / row["output"], row["output_offset"]
        written = path.read_bytes()
        assert hashlib.sha256(written).hexdigest() == row["container_output_sha256"]
        assert len(written) == row["container_output_bytes"]
        image = written[at : at + row["output_bytes"]]
        assert hashlib.sha256(image).hexdigest() == row["output_sha256"]
        source = (shards / row["container"]).read_bytes()
        original = source[row["member_offset"] :][: row["input_bytes"]]
        assert hashlib.sha256(original).hexdigest() == row["input_sha256"]
        assert row["input"].startswith(f"{row['container']}/")
        assert row["container_bytes"] == len(source)


def test_the_light_is_that_of_images_in_a_row(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(9))
    run(tmp_path / "in", tmp_path / "out")
    found = rows(tmp_path / "out")
    for first in range(0, 9, 4):
        group = found[first : first + 4]
        mean = sum(row["atmospheric_light"] for row in group) / len(group)
        assert all(row["batch_atmospheric_light"] == pytest.approx(mean) for row in group)
    assert len({row["batch_atmospheric_light"] for row in found}) == 3


@pytest.mark.parametrize("format", ["v7", "ustar", "gnu", "posix"])
def test_bright_images_alone_come_back_byte_for_byte(format: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(5):
        cv2.imwrite(str(data / f"{number}.png"), bright_image(number))
        (data / f"{number}.txt").write_text("text")
    (tmp_path / "in").mkdir()
    gnu_tar(tmp_path / "in/a.tar", data, f"--format={format}", "-b1")
    assert run(tmp_path / "in", tmp_path / "out").skipped == 5
    assert (tmp_path / "out/classical/a.tar").read_bytes() == (tmp_path / "in/a.tar").read_bytes()


def test_both_methods_workers_and_object_stores_agree(
    shards: Path, tmp_path: Path, shared_ray: str, s3: S3Server
) -> None:
    both: dict[str, Any] = {"method": ("classical", "absgn"), "model": "absgn-small"}
    run(shards, tmp_path / "out", **both, device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("batchlight.storage.streams.BLOCK_BYTES", 1000)
        s3.put(tree(shards), "in")
        run("s3://data/in", "s3://data/out", workers=2)
    expected = tree(tmp_path / "out")
    on_s3 = s3.tree("out")
    assert [name for name in on_s3 if name.startswith("classical")] == [
        name for name in expected if name.startswith("classical")
    ]
    for name, data in on_s3.items():
        if name.startswith("classical"):
            assert data == expected[name]
    assert {name.partition("/")[2] for name in expected if name.startswith("absgn/")} == {
        name.partition("/")[2] for name in expected if name.startswith("classical/")
    }
    assert len(rows(tmp_path / "out")) == 42
    s3_problems: list[Problem] = []
    assert verify("s3://data/out", on_problem=s3_problems.append).outputs == 21
    assert s3_problems == []


def test_only_remote_shards_are_read_ahead(
    shards: Path, tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel reads ahead in local ones, and threads would take longer to wake."""
    ahead = 0

    def counting(items: Any, size: Any, read: Any) -> Iterator[Any]:
        nonlocal ahead
        ahead += 1
        return read_ahead(items, size, read)

    monkeypatch.setattr("batchlight.worker.pipeline.read_ahead", counting)
    run(shards, tmp_path / "out", include="*.tar")
    assert ahead == 0
    s3.put(tree(shards), "in")
    run("s3://data/in", "s3://data/out", include="*.tar")
    assert ahead > 0


def test_failed_images_stay_in_their_places(tmp_path: Path) -> None:
    members = samples(6)
    members["000000002.jpg"] = members["000000002.jpg"][:60]
    write_tar(tmp_path / "in/a.tar", members)
    summary = run(tmp_path / "in", tmp_path / "out")
    assert (summary.exit_code, summary.failed, summary.ok) == (3, 1, 4)
    assert outcomes(tmp_path / "out")["a.tar/000000002.jpg"].error_code == "corrupt"
    back = tmp_path / "out/classical/a.tar"
    assert content(back, "000000002.jpg") == members["000000002.jpg"]
    with tarfile.open(back) as tar:
        assert tar.getnames() == list(members)
    assert problems(tmp_path / "out") == []


@pytest.mark.parametrize("order", ["by sample", "by kind"])
@pytest.mark.parametrize("drop", ["drop", "drop-sample"])
def test_failed_images_are_dropped(drop: str, order: str, tmp_path: Path) -> None:
    members = samples(6)
    members["000000002.jpg"] = b"broken"
    if order == "by kind":  # so that much of a sample is written before its image fails
        members = dict(sorted(members.items(), key=lambda item: item[0].rpartition(".")[::-1]))
        members = {n: members[n] for n in sorted(members, key=lambda n: (n.endswith("jpg"), n))}
    write_tar(tmp_path / "in/a.tar", members)
    run(tmp_path / "in", tmp_path / "out", failed_images=drop)
    with tarfile.open(tmp_path / "out/classical/a.tar") as tar:
        names = tar.getnames()
    gone = "000000002.jpg" if drop == "drop" else "000000002."
    assert names == [name for name in members if not name.startswith(gone)]
    assert outcomes(tmp_path / "out")["a.tar/000000002.jpg"].status == "failed"
    assert problems(tmp_path / "out") == []


def test_what_differs_where_samples_were_left_out(tmp_path: Path) -> None:
    """A good image of a sample that another image has failed is in the records alone."""
    members = samples(4)
    members["000000003.second.jpg"] = b"broken"
    write_tar(tmp_path / "in/a.tar", members)
    run(tmp_path / "in", tmp_path / "out", failed_images="drop-sample")
    path = tmp_path / "out/classical/a.tar"
    damaged = bytearray(path.read_bytes())
    [row] = [r for r in rows(tmp_path / "out") if r["input"] == "a.tar/000000001.jpg"]
    damaged[row["output_offset"] + 9] ^= 1
    path.write_bytes(damaged)
    [problem] = problems(tmp_path / "out")
    assert "differences in 1 image, such as a.tar/000000001.jpg" in problem.detail


def test_a_damaged_container_fails_as_a_whole(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(9))
    (tmp_path / "in/b.tar").write_bytes((tmp_path / "in/a.tar").read_bytes()[:-30_000])
    (tmp_path / "in/c.tar").write_bytes(b"")
    (tmp_path / "in/d.tar.zst").write_bytes(b"(\xb5/\xfd")
    write_tar(tmp_path / "in/e.tar", {"a.txt": b"no image"})
    summary = run(tmp_path / "in", tmp_path / "out")
    assert (summary.exit_code, summary.ok, summary.failed, summary.missing) == (3, 8, 3, 0)
    found = outcomes(tmp_path / "out")
    assert found["b.tar"].error_code == "corrupt"
    assert found["c.tar"].error_code == "empty"
    assert found["d.tar.zst"].error_code == "unsupported"
    assert found["e.tar"].status == "skipped"
    assert sorted(tree(tmp_path / "out/classical")) == ["a.tar", "e.tar"]
    assert tree(tmp_path / "out/_batchlight/tmp") == {}
    assert problems(tmp_path / "out") == []
    page = Path(batchlight.make_report(str(tmp_path / "out"), input=str(tmp_path / "in")))
    assert "d.tar.zst" in page.read_text()
    again = run(tmp_path / "in", tmp_path / "out")
    assert (again.done_now, again.failed) == (0, 3)


def test_odd_members(tmp_path: Path) -> None:
    """Names twice, hidden ones, links, names that are no text: each is dealt with, none lost."""
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("./x.jpg", "x.jpg", "._x.jpg", "mask.png", "dir/"):
            info = tarfile.TarInfo(name)
            data = b"" if name == "dir/" else jpeg(1)
            info.size, info.type = len(data), tarfile.DIRTYPE if not data else tarfile.REGTYPE
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "x.jpg"
        tar.addfile(link)
        odd = tarfile.TarInfo("bell\x07.jpg")
        odd.size = len(jpeg(2))
        tar.addfile(odd, io.BytesIO(jpeg(2)))
    (tmp_path / "in").mkdir()
    (tmp_path / "a.tar").rename(tmp_path / "in/a.tar")
    run(tmp_path / "in", tmp_path / "out", exclude=("mask.*",))
    found = {name: row.status for name, row in outcomes(tmp_path / "out").items()}
    assert found == {
        "a.tar/x.jpg": "ok",
        "a.tar/x.jpg#2": "ok",
        "a.tar/link.jpg": "failed",
        "a.tar/bell\\x07.jpg": "failed",
    }
    old, new = (headers_and_data(tmp_path / p) for p in ("in/a.tar", "out/classical/a.tar"))
    assert [told for told, _ in old] == [told for told, _ in new]
    assert [a == b for (_, a), (_, b) in zip(old, new, strict=True)] == [
        *(False, False, True, True, True, True, True),
    ]


@pytest.mark.parametrize("format", ["gnu", "posix"])
@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"failed_images": "drop-sample"}, ["a.txt", "b.jpg", "b.txt", "c.jpg", "thumb"]),
        ({"failed_images": "drop"}, ["a.txt", "b.jpg", "b.txt", "c.jpg", "d.txt", "thumb"]),
        (
            {"not_dark": "leave-out"},
            ["a.jpg", "a.txt", "b.jpg", "b.txt", "c.jpg", "d.jpg", "d.txt"],
        ),
    ],
)
def test_what_hard_links_need_stays(
    options: dict[str, Any], kept: list[str], format: str, tmp_path: Path
) -> None:
    source, long = tmp_path / "src", "x" * 150 + "/"
    top = source / long
    top.mkdir(parents=True)
    for name, data in {"a.jpg": b"broken", "a.txt": b"a room", "b.jpg": jpeg(2)}.items():
        (top / name).write_bytes(data)
    (top / "b.txt").hardlink_to(top / "a.txt")
    (top / "c.jpg").write_bytes(jpeg(3, bright=True))
    (top / "thumb").hardlink_to(top / "c.jpg")
    (top / "d.jpg").write_bytes(b"broken")
    (top / "d.txt").write_bytes(b"alone")
    (top / "e.jpg").write_bytes(jpeg(4, bright=True))
    names = [long + n for n in ("a.jpg", "a.txt", "b.jpg", "b.txt", "c.jpg", "d.jpg", "d.txt")]
    (tmp_path / "in").mkdir()
    names += [long + "e.jpg", long + "thumb"]
    if format == "posix":  # so that the image fails when a link to its caption is written
        names.append(names.pop(0))
    gnu_tar(tmp_path / "in/x.tar", source, f"--format={format}", names=names)
    run(tmp_path / "in", tmp_path / "out", batch_size=1, **options)
    back = tmp_path / "back"
    back.mkdir()
    written = tmp_path / "out/classical/x.tar"
    subprocess.run(["tar", "-xf", str(written), "-C", str(back)], check=True)
    left_out = options.get("not_dark") == "leave-out"
    found = sorted(path.name for path in (back / long).iterdir())
    assert found == sorted({*kept, "thumb"} if left_out else {*kept, "e.jpg"})
    assert (back / long / "b.txt").read_bytes() == b"a room"
    assert (back / long / "thumb").read_bytes() == (top / "c.jpg").read_bytes()
    outputs = {row["input"][-5:]: row["output"] for row in rows(tmp_path / "out")}
    assert outputs["c.jpg"] == "classical/x.tar"
    assert outputs["e.jpg"] == (None if left_out else "classical/x.tar")
    assert problems(tmp_path / "out") == []


def test_dots_in_names_of_members_hide_no_image(tmp_path: Path) -> None:
    """As GNU tar writes them for ``tar c photos/.`` or, with ``-P``, for ``tar c ../x.jpg``."""
    names = ("photos/./0.jpg", "photos/0.jpg", "../x.jpg", "/abs/./y.jpg", "./../x.jpg")
    hidden = ("photos/./.h.jpg", "../.thumbs/t.jpg", "photos/.../z.jpg")
    members = {name: jpeg(number) for number, name in enumerate((*names, *hidden))}
    write_tar(tmp_path / "in/a.tar", members)
    (tmp_path / "in/x.jpg").write_bytes(jpeg(20))
    assert run(tmp_path / "in", tmp_path / "out").exit_code == 0
    inside = ("photos/./0.jpg", "photos/0.jpg", "../x.jpg", "abs/./y.jpg", "../x.jpg#2")
    found = outcomes(tmp_path / "out")
    assert set(found) == {"x.jpg", *(f"a.tar/{name}" for name in inside)}
    assert {row.status for row in found.values()} == {"ok"}
    old, new = (headers_and_data(tmp_path / p) for p in ("in/a.tar", "out/classical/a.tar"))
    assert [told for told, _ in old] == [told for told, _ in new]
    unchanged = [a == b for (_, a), (_, b) in zip(old, new, strict=True)]
    assert unchanged == [False] * len(names) + [True] * len(hidden)
    assert problems(tmp_path / "out") == []
    damaged = tmp_path / "out/classical/a.tar"
    before = damaged.read_bytes()
    damaged.write_bytes(before[:-1] + b"\1")
    options = RepairOptions(str(tmp_path / "in"), workers=0)
    assert repair(
        str(tmp_path / "out"), options, on_problem=list[Problem]().append, say=print
    ).sound
    assert damaged.read_bytes() == before
    page = Path(batchlight.make_report(str(tmp_path / "out"), input=str(tmp_path / "in")))
    assert "a.tar/../x.jpg" in page.read_text()


def test_a_compressed_tar_is_exact_inside(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "plain")
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "00000.tar.gz").write_bytes(gzip.compress((shards / "00000.tar").read_bytes()))
    (packed / "bad.tgz").write_bytes(gzip.compress(b"x" * 9000)[:30])
    run(packed, tmp_path / "out")
    inside = gzip.decompress((tmp_path / "out/classical/00000.tar.gz").read_bytes())
    assert inside == (tmp_path / "plain/classical/00000.tar").read_bytes()
    assert outcomes(tmp_path / "out")["bad.tgz"].error_code == "corrupt"
    assert problems(tmp_path / "out") == []


@pytest.fixture
def packed(shards: Path, tmp_path: Path) -> Path:
    """A compressed shard in a folder of its own."""
    path = tmp_path / "packed/00000.tar.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress((shards / "00000.tar").read_bytes()))
    return path


def test_a_compressed_tar_that_changes_meanwhile_fails_alone(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_at, its_size = LocalReader.read_at, packed.stat().st_size

    def changed(reader: LocalReader, offset: int, size: int) -> bytes:
        if reader.size == its_size:
            raise ChangedError("the file changed while it was being processed")
        return read_at(reader, offset, size)

    monkeypatch.setattr(LocalReader, "read_at", changed)
    (packed.parent / "z.jpg").write_bytes(jpeg(1))
    run(packed.parent, tmp_path / "out")
    found = outcomes(tmp_path / "out")
    assert found["00000.tar.gz"].error_code == "unreadable"
    assert found["z.jpg"].status == "ok"


def test_a_compressed_tar_needs_a_temporary_folder(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(StorageError, match=r"cannot write to .*/none: .*set TMPDIR"):
        run(packed.parent, tmp_path / "out")


def test_lists_and_single_shards(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "all")
    (shards / "list.txt").write_text("deep/00001.tar\nz.jpg\n")
    assert run(shards / "list.txt", tmp_path / "listed").inputs == 7
    run(shards / "deep/00001.tar", tmp_path / "one")
    expected = (tmp_path / "all/classical/deep/00001.tar").read_bytes()
    assert (tmp_path / "listed/classical/deep/00001.tar").read_bytes() == expected
    assert (tmp_path / "one/classical/00001.tar").read_bytes() == expected


def test_patterns_choose_shards_and_members(shards: Path, tmp_path: Path) -> None:
    chosen = {
        "*.tar": ["00000.tar", "deep/00001.tar"],
        "deep/": ["deep/00001.tar"],
        "deep/*.tar/*5.jpg": ["deep/00001.tar"],
        "z.jpg": ["00000.tar", "deep/00001.tar", "z.jpg"],
    }
    for number, (pattern, expected) in enumerate(chosen.items()):
        out = tmp_path / str(number)
        run(shards, out, include=(pattern,))
        assert sorted(tree(out / "classical")) == expected, pattern
    assert [row["input"] for row in rows(tmp_path / "2")] == ["deep/00001.tar/000000105.jpg"]


def test_other_formats_and_names_of_members_are_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^00000\.tar is a container, whose images keep"):
        run(shards, tmp_path / "out", format="png")


def test_a_changed_shard_is_done_again_whole(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(shards, out)
    before = {row["input"]: row["run_id"] for row in rows(out)}
    assert run(shards, out).done_now == 0
    write_tar(shards / "deep/00001.tar", samples(3, 100))
    summary = run(shards, out)
    assert (summary.done_now, summary.inputs, summary.missing) == (3, 18, 0)
    after = {row["input"]: row["run_id"] for row in rows(out)}
    assert {n for n in after if after[n] != before[n]} == {n for n in after if "deep" in n}
    assert len([n for n in after if "deep" in n]) == 3
    run(shards, tmp_path / "fresh")
    assert tree(out / "classical") == tree(tmp_path / "fresh/classical")
    (shards / "00000.tar").unlink()
    gone = run(shards, out)
    assert (gone.done_now, gone.gone, gone.missing) == (0, 11, 0)


def test_a_shard_that_is_damaged_later_loses_its_output(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(shards, out)
    (shards / "00000.tar").write_bytes(b"damaged" * 1000)
    assert run(shards, out).failed == 1
    assert not (out / "classical/00000.tar").exists()
    assert [row["input"] for row in rows(out) if row["container"] == "00000.tar"] == ["00000.tar"]


def test_other_patterns_do_containers_again(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(shards, out)
    summary = run(shards, out, exclude=("*7.jpg",))
    assert summary.done_now == 16
    assert "00000.tar/000000007.jpg" not in outcomes(out)
    assert content(out / "classical/00000.tar", "000000007.jpg") == jpeg(7)


def state(out: Path) -> tuple[dict[str, bytes], list[dict[str, Any]], list[str]]:
    return tree(out / "classical"), stable_rows(out), sorted(tree(out / "metadata"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_death_at_every_single_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first run, and one that finds one shard changed and another gone; writes are small."""
    monkeypatch.setattr("batchlight.report.write_report", lambda *_: None)
    monkeypatch.setattr("batchlight.shards.sink.PIECE_BYTES", 8192)
    folder, first = tmp_path / "in", tmp_path / "first"
    for number in range(3):
        write_tar(folder / f"{number}.tar", samples(3, 10 * number))
    write_parquet(folder / "3.parquet", range(3))
    (folder / "z.jpg").write_bytes(jpeg(1))
    run(folder, first)
    calm_first = state(first)
    shutil.copytree(first, tmp_path / "second")
    write_tar(folder / "1.tar", samples(2, 50))
    (folder / "2.tar").unlink()
    run(folder, tmp_path / "second")
    calm_second = state(tmp_path / "second")
    assert len(calm_second[1]) == 12
    deaths = 0
    for start, calm in ((tmp_path / "none", None), (first, calm_second)):
        operation, came_through = 1, False
        while not came_through:
            out = tmp_path / "out"
            shutil.rmtree(out, ignore_errors=True)
            if start.exists():
                shutil.copytree(start, out)
            with monkeypatch.context() as patch:
                seen = die_at(patch, LocalStorage, operation, LocalWriter)
                with suppress(Died):
                    run(folder, out)
                came_through = seen() < operation
            deaths += not came_through
            shutil.rmtree(out / "_batchlight/locks", ignore_errors=True)  # held by this process
            run(folder, out)
            calm = calm or state(out)
            assert state(out) == calm, f"after death at operation {operation}"
            assert tree(out / "_batchlight/tmp") == tree(out / "_batchlight/parts") == {}
            operation += 1
    assert calm_first != calm_second
    assert deaths > 30
    gc.collect()  # of what has died, files are open, about which no other test is to be warned


@pytest.mark.parametrize(("pieces", "kind"), [(1, "tar"), (3, "tar"), (1, "parquet")])
def test_an_upload_that_dies_midway_is_done_again(
    pieces: int, kind: str, tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchlight.shards.sink.PIECE_BYTES", 8192)
    name = f"a.{kind}"
    if kind == "tar":
        write_tar(tmp_path / "in/a.tar", samples(6))
    else:
        write_parquet(tmp_path / "in/a.parquet", range(6))
    run(tmp_path / "in", tmp_path / "out")
    source = f"s3://data/dies/in-{kind}"
    s3.put(tree(tmp_path / "in"), f"dies/in-{kind}")
    sent = iter(range(pieces))
    write = UploadWriter.write

    def dying(self: UploadWriter, data: bytes) -> None:
        if next(sent, None) is None:
            raise Died
        write(self, data)

    prefix = f"dies/out-{kind}-{pieces}"
    with monkeypatch.context() as patch:
        patch.setattr(UploadWriter, "write", dying)
        with pytest.raises(Died):
            run(source, f"s3://data/{prefix}")
    left = s3.tree(prefix)
    assert not [path for path in left if path.startswith("classical")]
    for path in left:
        if "/locks/" in path:  # held by this process
            obstore.delete(s3.store(prefix), path)
    run(source, f"s3://data/{prefix}")
    expected = (tmp_path / "out/classical" / name).read_bytes()
    assert s3.tree(prefix)[f"classical/{name}"] == expected


def test_killers_in_a_shard_are_found(tmp_path: Path, deadly_ray: RayHead) -> None:
    members = samples(11)
    write_tar(tmp_path / "in/a.tar", members)
    deadly_ray.order({hashlib.sha256(members["000000006.jpg"]).hexdigest(): "segfault"})
    out = tmp_path / "out"
    done = command(
        *("run", "--input", tmp_path / "in", "--output", out, "--workers", 1, "--batch-size", 4),
        *("--address", deadly_ray.address, "--progress", "off"),
    )
    assert done.returncode == 3, done.stderr
    found = {name: row.error_code for name, row in outcomes(out).items() if row.error_code}
    assert found == {"a.tar/000000006.jpg": "crash"}
    assert content(out / "classical/a.tar", "000000006.jpg") == members["000000006.jpg"]
    run(tmp_path / "in", tmp_path / "whole")
    survivor = content(tmp_path / "whole/classical/a.tar", "000000010.jpg")
    assert content(out / "classical/a.tar", "000000010.jpg") == survivor


@pytest.mark.nightly
def test_each_group_of_a_shard_has_the_timeout_for_itself(
    tmp_path: Path, deadly_ray: RayHead
) -> None:
    write_tar(tmp_path / "in/a.tar", samples(12))
    out = tmp_path / "out"
    timeout_s, slow_s = 6.0, 0.6
    assert 12 * slow_s > timeout_s
    deadly_ray.order({}, slow_s)
    done = command(
        *("run", "--input", tmp_path / "in", "--output", out, "--workers", 1, "--batch-size", 3),
        *("--timeout", timeout_s, "--address", deadly_ray.address, "--progress", "off"),
    )
    assert done.returncode == 0, done.stderr
    assert [row["attempts"] for row in rows(out)] == [1] * 12


def test_verify_and_repair(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(shards, out, exclude=("*3.jpg",))
    expected = state(out)
    [row] = [r for r in rows(out) if r["input"] == "00000.tar/000000002.jpg"]
    damaged = bytearray((out / "classical/00000.tar").read_bytes())
    damaged[row["output_offset"] + 9] ^= 1
    (out / "classical/00000.tar").write_bytes(damaged)
    (out / "classical/deep/00001.tar").unlink()
    found = {problem.path: problem for problem in problems(out)}
    assert "differences in 1 image, such as 00000.tar/000000002.jpg" in (
        found["classical/00000.tar"].detail
    )
    assert found["classical/deep/00001.tar"].trouble == "missing"
    repaired: list[Problem] = []
    options = RepairOptions(input=str(shards), workers=0)
    assert repair(str(out), options, on_problem=repaired.append, say=print).sound
    assert state(out) == expected
    for file in (out / "metadata").iterdir():
        file.write_bytes(b"lost")
    assert repair(str(out), options, on_problem=repaired.append, say=print).sound
    assert state(out) == expected
    assert problems(out) == []


def test_gnu_tar_reads_what_comes_back(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "out")
    listed = subprocess.run(
        ["tar", "-tvf", str(tmp_path / "out/classical/00000.tar")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stderr == ""
    assert len(listed.stdout.splitlines()) == 44


# Of shards that webdataset reads and writes it leaves some open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_writes_what_goes_in_and_reads_what_comes_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for bright in (False, True):
        with webdataset.TarWriter(str(tmp_path / f"in/{bright:d}.tar")) as writer:
            for number in range(6):
                writer.write(
                    {"__key__": f"{number:06d}", "jpg": jpeg(number, bright), "json": {"n": number}}
                )
    run(tmp_path / "in", tmp_path / "out")

    def read(folder: Path, name: str) -> list[dict[str, Any]]:
        data_set = webdataset.WebDataset(str(folder / name), shardshuffle=False)
        skipped = ("__url__", "__local_path__")
        return [{k: v for k, v in sample.items() if k not in skipped} for sample in data_set]

    before, after = (read(tmp_path / place, "0.tar") for place in ("in", "out/classical"))
    assert len(before) == len(after) == 6
    for old, new in zip(before, after, strict=True):
        assert old.pop("jpg") != new.pop("jpg")
        assert old == new
    same = [(tmp_path / place / "1.tar").read_bytes() for place in ("in", "out/classical")]
    assert same[0] == same[1]
    gc.collect()  # so that no other test is warned of them


def test_a_plan_tells_what_is_in_containers(shards: Path, tmp_path: Path) -> None:
    (shards / "bad.tar").write_bytes(b"no tar" * 1000)
    config = batchlight.JobConfig(input=str(shards), output=str(tmp_path / "out"))
    found = dry_run(config)
    assert (found.containers, found.todo_containers) == (3, 3)
    assert (found.inputs, found.todo, found.todo_pairs) == (21, 21, 21)  # four of them are files
    inside = found.in_containers
    assert (inside.images, inside.suffixes, inside.looked_at) == (17, {".jpg": 17}, 3)
    assert inside.others == {".json": 17, ".txt": 17, ".cls": 17}
    assert inside.unreadable == {"bad.tar": "the content is not a tar archive"}
    assert not (tmp_path / "out").exists()


def test_a_plan_looks_into_some_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchlight.driver.census.LOOKED_AT_LOCAL", 2)
    for number in range(4):
        write_tar(tmp_path / f"in/{number}.tar", samples(5))
    config = batchlight.JobConfig(input=str(tmp_path / "in"), output=str(tmp_path / "out"))
    inside = dry_run(config).in_containers
    assert (inside.looked_at, inside.exact, inside.images) == (2, False, 20)


def test_failures_and_the_report(tmp_path: Path) -> None:
    members = samples(5)
    members["000000002.jpg"] = b"broken"
    write_tar(tmp_path / "in/a.tar", members)
    write_tar(tmp_path / "in/b.tar", {"only.txt": b"text"})
    out = tmp_path / "out"
    run(tmp_path / "in", out)
    told = batchlight_here("failures", out, "--json")
    assert [row["input"] for row in json.loads(told.stdout)] == ["a.tar/000000002.jpg"]
    page = (out / "report.html").read_text()
    assert page.count("data:image/webp") == 7  # three before and after, and one that is skipped
    assert "has changed since" not in page
    assert "no longer there" not in page


def test_evaluation_of_containers(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(4))
    run(tmp_path / "in", tmp_path / "out")
    found = evaluate(str(tmp_path / "out/classical"), str(tmp_path / "in"))
    assert (found.images, found.scored) == (4, 4)
    assert [score.path for score in found.scores] == [f"a.tar/{n:09d}.jpg" for n in range(4)]
    assert evaluate(str(tmp_path / "in"), str(tmp_path / "in")).identical == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full disk")
@pytest.mark.parametrize("size", [100, 3 * 2**20])
def test_a_tar_that_is_too_large_unpacked_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Or 300 kB of zeros would end every run."""
    folder, out = tmp_path / "in", tmp_path / "out"
    write_tar(folder / "a.tar", {**samples(2), "zeros": bytes(size)})
    (folder / "a.tar.gz").write_bytes(gzip.compress((folder / "a.tar").read_bytes()))
    (folder / "z.jpg").write_bytes(jpeg(1))
    with monkeypatch.context() as patch:
        patch.setattr("batchlight.shards.source.scratch_file", lambda: open("/dev/full", "wb"))  # noqa: SIM115
        assert run(folder, out).exit_code == 3
    [failed] = [row for row in rows(out) if row["status"] == "failed"]
    assert (failed["input"], failed["error_code"]) == ("a.tar.gz", "unreadable")
    assert failed["error"].startswith("unpacked, it does not fit: cannot write to ")
    assert failed["error"].endswith("free some space there, or set TMPDIR to another folder")
    assert run(folder, out).exit_code == 0


@pytest.mark.parametrize(
    ("globs", "is_told"),
    [(("*.JPG",), True), (("*.tar/none.jpg", "z.jpg"), True), (("00001.tar/*",), False)],
)
def test_a_glob_that_selects_nothing_in_any_shard_is_named(
    shards: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    globs: tuple[str, ...],
    is_told: bool,
) -> None:
    """Only a look into the shards tells; and all would seem to be well."""
    (shards / "deep/00001.tar").rename(shards / "00001.tar")
    (shards / "damaged.tar").write_bytes(b"damaged" * 1000)
    write_parquet(shards / "a.parquet", range(2))
    run(shards, tmp_path / "out", include=globs, max_failures=1)
    told = f"--include {str(globs).strip('(,)')} selects no image in any of the tar and Parquet"
    assert (told in caplog.text) == is_told
