"""Lists of paths, also those that are made to do harm."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchlight.errors import UsageError
from batchlight.storage.lists import LONGEST_ENTRY, ListEntry, read_list


def entries(data: bytes, name: str = "list.csv") -> list[str]:
    return [entry.path for entry in read_list(data, name, name)[0]]


@pytest.mark.parametrize(
    "text",
    [
        'path\na.jpg\n"b.jpg\nc.jpg\nd.jpg\n',
        'path,n\n"b.jpg,1\nc.jpg,2\n',
        'path\n"b.jpg\nc.jpg\nd.jpg"\n',
        'path\n"b".jpg\nc.jpg\n',
        'n,path\n"1,a.jpg\n2,b.jpg\n',
    ],
)
def test_a_stray_quote_swallows_nothing(text: str) -> None:
    with pytest.raises(UsageError, match=r"list\.csv.* (a quote|in a name, write a quote twice)"):
        entries(text.encode())


def test_quotes_as_they_should_be() -> None:
    data = b'path,n\n"a, b.jpg",1\n"say ""hi"".jpg",2\nplain"quote.jpg,3\n'
    assert entries(data) == ["a, b.jpg", 'plain"quote.jpg', 'say "hi".jpg']


def test_uris_of_files_may_be_percent_encoded(tmp_path: Path) -> None:
    names = ["a b.jpg", "ü#?.jpg", "100%.jpg", "really%20so.jpg"]
    for name in names:
        (tmp_path / name).write_bytes(b"1")
    uris = [(tmp_path / name).as_uri() for name in names[:3]]
    uris += [f"file://{tmp_path}/really%20so.jpg", f"file://{tmp_path}/gone%20.jpg"]
    found, _ = read_list("\n".join(uris).encode(), "list.txt", "list.txt")
    assert {entry.source for entry in found} == {
        *(str(tmp_path / name) for name in names),
        f"{tmp_path}/gone%20.jpg",
    }


def repeated(path: Path, text: str, rows: int, groups: int, **options: object) -> bytes:
    table = pa.table({"path": pa.array([text] * rows)})
    with pq.ParquetWriter(path, table.schema, compression="zstd", **options) as writer:
        for _ in range(groups):
            writer.write_table(table)
    return path.read_bytes()


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_few_bytes_do_not_become_gigabytes(tmp_path: Path, dictionary: bool) -> None:
    data = repeated(tmp_path / "l", "x" * 100_000, 300, 20, use_dictionary=dictionary)
    before = pa.total_allocated_bytes()
    with pytest.raises(UsageError, match="path of more than 8192"):
        entries(data, "list.parquet")
    assert pa.total_allocated_bytes() - before < 50_000_000


def test_more_entries_than_a_list_may_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = repeated(tmp_path / "l", "a.jpg", 1000, 2)
    assert read_list(data, "list.parquet", "l") == ([ListEntry("a.jpg", None)], 1999)
    monkeypatch.setattr("batchlight.storage.lists.ENTRIES_AT_MOST", 1999)
    with pytest.raises(UsageError, match="holds 2000 entries"):
        entries(data, "list.parquet")


@pytest.mark.parametrize("name", ["list.txt", "list.csv"])
def test_an_entry_that_is_no_path(name: str) -> None:
    with pytest.raises(UsageError, match="path of more than"):
        entries(b"path\n" + b"x" * (LONGEST_ENTRY + 1) + b"\n", name)


@pytest.mark.parametrize("text", ["../\x1b]0;x\x07\x1b[2Jx.jpg", "a\x1b[2Jb://x/y.jpg"])
def test_no_control_character_leaves_in_a_message(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        entries(text.encode(), "list.txt")
    assert str(caught.value).isprintable()
