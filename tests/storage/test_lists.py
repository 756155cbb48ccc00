"""Lists of paths, also those that are made to do harm."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.csv import write_csv

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


INVENTORY = {
    "bucket": ["b"] * 5,
    "key": ["x/a b.jpg", "x/c.jpg", "x/c.jpg", "x/d.jpg", "x/e.jpg"],
    "is_latest": [True, True, False, True, True],
    "is_delete_marker": [False, False, False, True, False],
    "size": [1, 2, 3, None, 4],
    "last_modified_date": [datetime(2026, 1, day) for day in range(1, 6)],
    "e_tag": ["aa", '"bb"', "cc", None, None],
}


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_an_inventory_is_a_list(tmp_path: Path, name: str) -> None:
    table, path = pa.table(INVENTORY), tmp_path / name
    (write_csv if name == "list.csv" else pq.write_table)(table, path)
    found, duplicates = read_list(path.read_bytes(), name, name)
    assert duplicates == 0
    first, second = (datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2))
    assert found == [
        ListEntry("b/x/a b.jpg", "s3://b/x/a b.jpg", 1, '"aa"', first),
        ListEntry("b/x/c.jpg", "s3://b/x/c.jpg", 2, '"bb"', second),
        ListEntry("b/x/e.jpg", "s3://b/x/e.jpg"),  # without an etag, only a look tells
    ]


@pytest.mark.parametrize("etag", [5, 5.5, True, ["x"], {"x": "y"}, datetime(2026, 1, 1), None])
def test_an_etag_that_is_no_text_is_not_believed(etag: object) -> None:
    data = io.BytesIO()
    pq.write_table(pa.table({"path": ["a.jpg"], "size": [3], "etag": pa.array([etag])}), data)
    assert read_list(data.getvalue(), "l.parquet", "l") == ([ListEntry("a.jpg", None)], 0)


@pytest.mark.parametrize("size", ["", "640x480", "-1", "1.5"])
def test_a_size_that_is_none_is_not_believed(size: str) -> None:
    data = f"path,size,etag\na.jpg,{size},x\n".encode()
    assert read_list(data, "list.csv", "l")[0] == [ListEntry("a.jpg", None)]


ROW = "a size or time in row 2 that cannot be read:"


@pytest.mark.parametrize(
    ("column", "values", "told"),
    [
        ("modified", ["", "0001-01-01T00:00:00+01:00"], "it is out of range; correct it or"),
        ("modified", ["", "9999-12-31T23:59:59-14:00"], "it is out of range"),
        ("size", ["7", "9" * 26], "no file has a size of 26 digits; correct it or leave it empty"),
        ("size", ["7", "9" * 5000], "no file has a size of 5000 digits"),
        ("modified", pa.array([None, 10**15], pa.timestamp("ms")), "it is out of range"),
        ("modified", pa.array([None, -(10**15)], pa.timestamp("s")), "it is out of range"),
        ("last_modified", pa.array([None, 10**7], pa.date32()), "it is out of range"),
        ("size", pa.array([None, 2**64 - 1], pa.uint64()), "no file has a size of 20 digits"),
        ("size", pa.array([1, 10**18], pa.duration("s")), "it is out of range"),
    ],
)
def test_facts_that_cannot_be_true(
    tmp_path: Path, column: str, values: list[str] | pa.Array, told: str
) -> None:
    """They would end a run later, or even each one after it."""
    names = ["a.jpg", "b.jpg"]
    table = pa.table({"path": names, "size": [1, 2], "etag": ["x", "y"]})
    if column == "size":
        table = table.drop_columns(["size"])
    table = table.append_column(column, pa.array(values))
    path = tmp_path / ("list.csv" if isinstance(values, list) else "list.parquet")
    (write_csv if isinstance(values, list) else pq.write_table)(table, path)
    with pytest.raises(UsageError, match=f"the list {path.name} has {ROW} {told}"):
        read_list(path.read_bytes(), path.name, path.name)


@pytest.mark.parametrize(
    ("unit", "zone"), [("us", "Foo/Bar"), ("ms", "Europe/Berlin"), ("ns", None), ("s", "UTC")]
)
def test_times_of_any_unit_and_zone(tmp_path: Path, unit: str, zone: str | None) -> None:
    """Parquet stores them in UTC; the zone, known or not, is only for showing them."""
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    times = pa.array([when], pa.timestamp("s", "UTC")).cast(pa.timestamp(unit, zone))
    table = pa.table({"path": ["a.jpg"], "size": [1], "etag": ["x"], "modified": times})
    pq.write_table(table, tmp_path / "l", version="2.6")
    [entry], _ = read_list((tmp_path / "l").read_bytes(), "list.parquet", "l")
    assert entry.modified == when


@pytest.mark.parametrize("text", ["0001-01-01", "9999-12-31T23:59:59.999999Z", "no time"])
def test_the_first_and_the_last_time(text: str) -> None:
    data = f"path,size,etag,modified\na.jpg,1,x,{text}\n".encode()
    assert read_list(data, "list.csv", "l")[0][0].size == 1
