"""Tars of real writers are read member by member, and written again to the same bytes."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchlight.errors import ImageError
from batchlight.shards.headers import BLOCK, has_checksum, number, rewritten, with_size
from batchlight.shards.sink import Sink
from batchlight.shards.tar import Member, members
from batchlight.shards.tar_contents import TarRewriter
from batchlight.storage import Location, open_storage
from tests.support.tars import gnu_tar, samples, write_tar

FORMATS = {"v7": "v7", "ustar": "ustar", "gnu": "gnu", "posix": "posix", "oldgnu": "oldgnu"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All kinds of members that GNU tar can make of files."""
    top = tmp_path / "data"
    (top / "deep").mkdir(parents=True)
    for name, data in samples(3).items():
        (top / "deep" / name).write_bytes(data)
    (top / "deep/empty.txt").touch()
    (top / "deep/link.jpg").symlink_to("000000000.jpg")
    (top / "deep/same.jpg").hardlink_to(top / "deep/000000000.jpg")
    os.mkfifo(top / "pipe")
    os.utime(top / "deep/000000001.jpg", (1.5, 1_234_567_890.123))
    return top


def rewritten_as(path: Path, target: Path, changes: dict[str, bytes]) -> list[Member]:
    """Give some members other data; returns all of them."""
    source, output = (open_storage(Location.parse(str(p.parent))) for p in (path, target))
    with closing(source.open_reader(path.name)) as reader, ExitStack() as exits:
        writer = output.open_writer(target.name)
        exits.callback(writer.abort)
        rewriter = TarRewriter(reader, Sink(writer))
        found = list(members(reader))
        for member in found:
            if (data := changes.get(member.name.decode())) is not None:
                rewriter.replace(member, data)
                assert member.obstacle is None
        rewriter.finish()
        rewriter.sink.commit()
    return found


def same_members(path: Path) -> None:
    """The members are those that Python's own reader finds, and a copy of them is the same."""
    found = rewritten_as(path, path.with_name("copy.tar"), {})
    assert path.with_name("copy.tar").read_bytes() == path.read_bytes()
    with tarfile.open(path, ignore_zeros=True) as tar:
        expected = tar.getmembers()
        for member, info in zip(found, expected, strict=True):
            assert member.name.decode("utf-8", "surrogateescape").rstrip("/") == info.name
            assert (member.data, member.is_file) == (
                info.offset_data,
                not info.isdir() and not info.isfifo(),
            )


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("blocking", [1, 20])
def test_formats_of_gnu_tar(format: str, blocking: int, folder: Path, tmp_path: Path) -> None:
    if format == "v7":  # which knows no pipes
        (folder / "pipe").unlink()
    gnu_tar(tmp_path / "a.tar", folder, f"--format={format}", f"-b{blocking}")
    same_members(tmp_path / "a.tar")


@pytest.mark.parametrize("format", ["gnu", "posix"])
def test_names_that_do_not_fit(format: str, folder: Path, tmp_path: Path) -> None:
    long = folder / ("x" * 80) / ("y" * 80)
    long.mkdir(parents=True)
    (long / ("é" * 60 + ".jpg")).write_bytes(b"data")
    gnu_tar(tmp_path / "a.tar", folder, f"--format={format}")
    same_members(tmp_path / "a.tar")


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_formats_of_python(format: int, tmp_path: Path) -> None:
    names = samples(2) | {f"{'d' * 90}/{'e' * 60}.jpg": b"long"}
    write_tar(tmp_path / "a.tar", names, format)
    same_members(tmp_path / "a.tar")


@pytest.mark.parametrize("format", ["gnu", "oldgnu", "posix"])
@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_sparse_members_are_stepped_over(format: str, version: str, tmp_path: Path) -> None:
    top = tmp_path / "data"
    top.mkdir()
    with (top / "a.jpg").open("wb") as file:
        for hole in range(40):  # more than a header has room for
            file.seek(hole * 100_000)
            file.write(b"data")
    (top / "b.jpg").write_bytes(b"after it")
    kind = [f"--sparse-version={version}"] if format == "posix" else []
    gnu_tar(tmp_path / "a.tar", top, f"--format={format}", "-S", *kind, names=["a.jpg", "b.jpg"])
    found = rewritten_as(tmp_path / "a.tar", tmp_path / "b.tar", {"b.jpg": b"other"})
    assert [(m.name, "sparse" in (m.obstacle or "")) for m in found] == [
        (b"a.jpg", True),
        (b"b.jpg", False),
    ]
    listed = subprocess.run(
        ["tar", "-xOf", str(tmp_path / "b.tar"), "b.jpg"], capture_output=True, check=True
    )
    assert listed.stdout == b"other"


def test_links_to_images_cannot_be_replaced(folder: Path, tmp_path: Path) -> None:
    gnu_tar(tmp_path / "a.tar", folder)
    found = rewritten_as(tmp_path / "a.tar", tmp_path / "b.tar", {})
    links = {member.name for member in found if member.obstacle}
    assert b"./deep/link.jpg" in links
    assert len(links) == 2  # of the two names of one file, the later one


def test_what_follows_the_end_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, samples(1))
    path.write_bytes(path.read_bytes() + b"signed by somebody" * 100)
    found = rewritten_as(path, tmp_path / "b.tar", {"000000000.jpg": b"new"})
    assert len(found) == 4
    assert (tmp_path / "b.tar").read_bytes().endswith(bytes(BLOCK) + b"signed by somebody" * 100)


def test_archives_one_after_the_other(tmp_path: Path) -> None:
    for which in range(2):
        write_tar(tmp_path / f"{which}.tar", samples(1, which))
    both = b"".join((tmp_path / f"{which}.tar").read_bytes() for which in range(2))
    (tmp_path / "a.tar").write_bytes(both)
    same_members(tmp_path / "a.tar")
    assert len(rewritten_as(tmp_path / "a.tar", tmp_path / "b.tar", {})) == 8


def test_a_missing_end_stays_missing(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"a.txt": b"text", "b.jpg": b"image"}, tarfile.USTAR_FORMAT)
    data = (tmp_path / "a.tar").read_bytes().rstrip(b"\0")
    data += bytes(-len(data) % BLOCK)
    (tmp_path / "a.tar").write_bytes(data)
    rewritten_as(tmp_path / "a.tar", tmp_path / "same.tar", {})
    assert (tmp_path / "same.tar").read_bytes() == data
    rewritten_as(tmp_path / "a.tar", tmp_path / "b.tar", {"b.jpg": b"another image"})
    assert (tmp_path / "b.tar").read_bytes().rstrip(b"\0").endswith(b"another image")


@pytest.mark.parametrize("left", [0, 5, BLOCK - 4 - 1])
def test_a_file_that_ends_within_padding_is_cut_short(left: int, tmp_path: Path) -> None:
    """Nobody knows which members were to follow; GNU tar says so, too."""
    write_tar(tmp_path / "a.tar", {"a.txt": b"text", "b.jpg": b"y"}, tarfile.USTAR_FORMAT)
    os.truncate(tmp_path / "a.tar", BLOCK + 4 + left)
    with pytest.raises(ImageError, match="ends within a member"):
        rewritten_as(tmp_path / "a.tar", tmp_path / "b.tar", {})


def test_a_file_that_ends_within_the_padding_of_global_records_is_cut_short(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", pax_headers={"comment": "text"}) as tar:
        tar.addfile(tarfile.TarInfo("a.txt"))
    os.truncate(tmp_path / "a.tar", BLOCK + 100)
    with pytest.raises(ImageError, match="ends within a header"):
        rewritten_as(tmp_path / "a.tar", tmp_path / "b.tar", {})


def test_only_size_and_checksum_of_a_header_change(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, samples(1))
    rewritten_as(path, tmp_path / "b.tar", {"000000000.jpg": b"n" * 700})
    old, new = path.read_bytes(), (tmp_path / "b.tar").read_bytes()
    with tarfile.open(path) as tar:
        at = tar.getmembers()[0].offset_data - BLOCK
    differ = {i - at for i in range(at + BLOCK) if old[i] != new[i]}
    assert differ <= {*range(124, 136), *range(148, 156)}
    assert new[at + BLOCK :].startswith(b"n" * 700 + bytes(324))


DAMAGES = [
    ("empty", "the file is empty"),
    ("text", "not a tar archive"),
    ("cut in data", "ends within a member"),
    ("cut in a header", "ends within a header"),
    ("header", "there is no header"),
    ("size", "is not a number"),
    ("pax", "PAX records are damaged"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_damage_is_found(damage: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, {"a.txt": b"x" * 2000, "b.jpg": b"y" * 100})
    data = bytearray(path.read_bytes())
    second = 5 * BLOCK + 2 * BLOCK if data[156:157] == b"x" else 5 * BLOCK
    match damage:
        case "empty":
            data.clear()
        case "text":
            data[:] = b"no tar " * 1000
        case "cut in data":
            del data[2500:]
        case "cut in a header":
            del data[second + 100 :]
        case "header":
            data[second + 3] ^= 0xFF
        case "size":
            header = data[2 * BLOCK : 3 * BLOCK]
            header[124:136] = b"99999999999\0"
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
            data[2 * BLOCK : 3 * BLOCK] = header
        case "pax":
            data[BLOCK : BLOCK + 2] = b"zz"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=words):
        rewritten_as(path, tmp_path / "b.tar", {})
    assert not (tmp_path / "b.tar").exists()


def test_a_size_in_a_pax_record_is_honoured_and_not_changed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("a.jpg", "b.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 700
            if name == "a.jpg":
                info.pax_headers = {"size": "700"}
            tar.addfile(info, io.BytesIO(b"z" * 700))
    found = rewritten_as(tmp_path / "a.tar", tmp_path / "b.tar", {})
    assert [bool(member.obstacle) for member in found] == [True, False]


@given(
    st.integers(0, 8**11 - 1), st.sampled_from([b"%011o\0", b"%011o ", b"%11o ", b"%o", b"%12o"])
)
def test_numbers_keep_their_notation(value: int, notation: bytes) -> None:
    field = (notation % 1234).ljust(12, b"\0")
    changed = rewritten(field, value)
    assert (len(changed), number(changed)) == (12, value)
    if notation != b"%o":
        assert changed == notation % value


@given(st.integers(0, 2**80))
def test_binary_numbers(value: int) -> None:
    field = bytes([0x80, *bytes(10), 7])
    assert number(field) == 7
    assert number(rewritten(field, value)) == value


def test_numbers_that_do_not_fit() -> None:
    for field in (b"00000000017\0", b"%011o " % 15):
        with pytest.raises(ValueError, match="does not fit"):
            rewritten(field, 8**11)


def test_signed_checksums() -> None:
    header = bytearray(tarfile.TarInfo("\xe9.jpg").tobuf(tarfile.GNU_FORMAT, "latin-1"))
    header[148:156] = b" " * 8
    signed = sum(byte - 256 if byte > 127 else byte for byte in header)
    header[148:156] = b"%06o\0 " % signed
    assert has_checksum(bytes(header))
    assert has_checksum(with_size(bytes(header), 99))
    assert number(with_size(bytes(header), 99)[124:136]) == 99
