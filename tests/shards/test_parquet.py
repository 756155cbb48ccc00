"""Parquet files written again: the same bytes if no image changes, else the same but for images."""

from __future__ import annotations

import json
import os
import tracemalloc
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from batchlight.errors import ImageError
from batchlight.shards import new_pages, parquet_contents, parquet_rewriting, spool
from batchlight.shards import pages as pages_
from batchlight.shards.footer import read_footer
from batchlight.shards.levels import deltas, packed, unpacked
from batchlight.shards.pages import pages
from batchlight.shards.thrift import (
    BINARY,
    I32,
    LIST,
    STRUCT,
    Items,
    Struct,
    parsed,
    put_varint,
    serialized,
)
from batchlight.storage import Location, open_storage
from batchlight.storage.patterns import Patterns
from tests.support.parquets import IMAGE, InMemory, contents_of, rewritten, rewritten_in_memory
from tests.support.tars import jpeg

TYPES: dict[str, pa.DataType] = {
    "binary": pa.binary(),
    "struct": IMAGE,
    "list": pa.list_(pa.field("element", pa.binary())),
    "list of structs": pa.list_(pa.field("element", IMAGE)),
    "list in a struct": pa.struct([("frames", pa.list_(pa.field("element", IMAGE))), ("n", "i4")]),
    "list of lists": pa.list_(pa.field("element", pa.list_(pa.field("element", pa.binary())))),
}
ENCODINGS = ["dictionary", "PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"]

small = st.binary(max_size=24).map(lambda data: data[:3] * (len(data) // 2))


def values_of(kind: str, leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Rows of a type, with nulls and empty lists wherever they can be."""
    image = st.fixed_dictionaries({"bytes": st.none() | leaf, "path": st.none()})
    some = {
        "binary": leaf,
        "struct": image,
        "list": st.lists(st.none() | leaf, max_size=4),
        "list of structs": st.lists(st.none() | image, max_size=3),
        "list in a struct": st.fixed_dictionaries(
            {"frames": st.none() | st.lists(st.none() | image, max_size=3), "n": st.just(1)}
        ),
        "list of lists": st.lists(st.none() | st.lists(st.none() | leaf, max_size=3), max_size=3),
    }[kind]
    return st.none() | some


@st.composite
def files(draw: st.DrawFn) -> tuple[pa.Table, dict[str, Any], str]:
    """A table, how it is written, and which of its columns is one of images."""
    kind = draw(st.sampled_from(sorted(TYPES)))
    rows = draw(st.lists(values_of(kind, small), min_size=1, max_size=40))
    table = pa.table(
        {
            "number": np.arange(len(rows)),
            "image": pa.array(rows, TYPES[kind]),
            "text": [f"text {n % 3}" for n in range(len(rows))],
        }
    )
    encoding = draw(st.sampled_from(ENCODINGS))
    how: dict[str, Any] = {
        "row_group_size": draw(st.integers(1, 50)),
        "compression": draw(st.sampled_from(["none", "snappy", "zstd", "gzip", "lz4", "brotli"])),
        "data_page_version": draw(st.sampled_from(["1.0", "2.0"])),
        "data_page_size": draw(st.sampled_from([32, 100, 2**20])),
        "write_batch_size": draw(st.sampled_from([1, 3, 1024])),
        "write_page_index": draw(st.booleans()),
        "write_page_checksum": draw(st.booleans()),
        "write_statistics": draw(st.booleans()),
        "use_content_defined_chunking": draw(st.booleans()),
    }
    if encoding != "dictionary":
        how |= {"use_dictionary": False, "column_encoding": {path_of_images(table): encoding}}
    return table, how, kind


def path_of_images(table: pa.Table) -> str:
    """Of the leaf, as Parquet names it."""
    file = pa.BufferOutputStream()
    pq.write_table(table.slice(0, 0), file)
    schema = pq.ParquetFile(pa.BufferReader(file.getvalue())).schema
    found = [schema.column(at).path for at in range(len(schema))]
    of_images = (str(path) for path in found if path.startswith("image"))
    return next(path for path in of_images if not path.endswith(".path"))


def expected(rows: list[Any], new: dict[int, list[bytes | None]]) -> list[Any]:
    """Rows in which the images of each row, one after the other, are others; None: as it was."""

    def changed(value: Any, left: list[bytes | None]) -> Any:
        match value:
            case None | int() | str():
                return value
            case bytes():
                found = left.pop(0)
                return value if found is None else found
            case dict():
                return {name: changed(part, left) for name, part in value.items()}
        return [changed(part, left) for part in value]

    return [changed(row, list(new.get(at, []))) for at, row in enumerate(rows)]


@given(files(), st.randoms(use_true_random=False))
@settings(
    max_examples=int(os.environ.get("EXAMPLES", "80")),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_file_is_the_same_but_for_its_images(
    tmp_path: Path, file: tuple[pa.Table, dict[str, Any], str], chance: Any
) -> None:
    table, how, kind = file
    column = "image.frames" if kind == "list in a struct" else "image"
    path, target = tmp_path / "a.parquet", tmp_path / "b.parquet"
    pq.write_table(table, path, **how)
    assume(is_readable(path))
    rewritten(path, target, lambda *_: None, [column])
    assert target.read_bytes() == path.read_bytes()

    new: dict[int, list[bytes | None]] = {}

    def change(name: str, data: bytes) -> bytes | None:
        made = chance.choice([None, b"", b"x" * chance.randrange(200), data + b"!"])
        new.setdefault(int(name.split("/")[1]), []).append(made)
        return made  # type: ignore[no-any-return]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_rewriting, "PAGE_BYTES", chance.choice([1, 100, 2**20]))
        rewritten(path, target, change, [column])
    found = pq.read_table(target, page_checksum_verification=how["write_page_checksum"])
    assert found.schema.equals(table.schema, check_metadata=True)
    assert found["image"].to_pylist() == expected(table["image"].to_pylist(), new)
    for other in ("number", "text"):
        assert found[other].equals(table[other])
    same_form(path, target)


def is_readable(path: Path) -> bool:
    """Not, for some pages that are tiny: pyarrow loses the nulls at their ends (as of 26.0)."""
    with suppress(pa.ArrowInvalid):
        pq.read_table(path)
        return True
    return False


def same_form(path: Path, target: Path) -> None:
    """Row groups, compression and offsets are as they should be."""
    old, new = (pq.read_metadata(p) for p in (path, target))
    assert new.num_row_groups == old.num_row_groups
    for number in range(old.num_row_groups):
        groups = old.row_group(number), new.row_group(number)
        assert groups[0].num_rows == groups[1].num_rows
        columns = [groups[1].column(at) for at in range(groups[1].num_columns)]
        assert groups[1].total_byte_size == sum(c.total_uncompressed_size for c in columns)
        for at, column in enumerate(columns):
            before = groups[0].column(at)
            assert column.compression == before.compression
            assert column.num_values == before.num_values
            assert column.has_offset_index == before.has_offset_index
            if not column.path_in_schema.startswith("image"):
                assert column.statistics == before.statistics
                assert column.encodings == before.encodings
                assert column.has_column_index == before.has_column_index
    indices_lead_to_pages(target)


def indices_lead_to_pages(path: Path) -> None:
    """What a file says of where its pages are is true."""
    data = path.read_bytes()
    storage = open_storage(Location.parse(str(path.parent)))
    with closing(storage.open_reader(path.name)) as reader:
        footer = read_footer(reader)
        groups = footer.metadata.structs(4)
        for chunk in footer.chunks():
            column = groups[chunk.group].structs(1)[chunk.leaf.number]
            found = list(pages(reader, chunk))
            of_data = [page for page in found if page.is_data]
            unpacked_bytes = sum(p.data - p.start + p.header.integer(2) for p in found)
            assert unpacked_bytes == chunk.bytes
            assert sum(page.slots for page in of_data) == chunk.values
            if not column.get(4):
                continue
            index, length = parsed(data[column.integer(4) :])
            assert length == column.integer(5)
            told = [(p.integer(1), p.integer(2)) for p in index.structs(1)]
            assert told == [(page.start, page.end - page.start) for page in of_data]
            row = 0
            for page, entry in zip(of_data, index.structs(1), strict=True):
                assert entry.integer(3) == row
                if page.rows is None:
                    break
                row += page.rows


def test_what_duckdb_writes(tmp_path: Path) -> None:
    path, target = tmp_path / "a.parquet", tmp_path / "b.parquet"
    rows = [(n, jpeg(n), {"bytes": jpeg(n + 100), "path": f"{n}.jpg"}) for n in range(60)]
    database = duckdb.connect()
    database.execute("CREATE TABLE t (n INT, raw BLOB, image STRUCT(bytes BLOB, path VARCHAR))")
    database.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
    for options in ("", ", PARQUET_VERSION v2", ", ROW_GROUP_SIZE 2048, CODEC zstd"):
        database.execute(f"COPY t TO '{path}' (FORMAT parquet{options})")
        found = rewritten(path, target, lambda *_: None)
        assert target.read_bytes() == path.read_bytes()
        assert len(found) == 2 * len(rows)
        rewritten(path, target, lambda name, data: data + name.encode())
        again = database.execute(f"SELECT * FROM '{target}' ORDER BY n").fetchall()
        for n, raw, image in again:
            assert raw == rows[n][1] + f"a.parquet/{n}/raw".encode()
            assert image["bytes"] == rows[n][2]["bytes"] + f"a.parquet/{n}/image".encode()
            assert image["path"] == f"{n}.jpg"
        assert [row[0] for row in again] == list(range(60))


def test_filters_find_rows_behind_images_that_have_grown(tmp_path: Path) -> None:
    """Bloom filters and indices of other columns have moved."""
    path, target = tmp_path / "a.parquet", tmp_path / "b.parquet"
    table = pa.table({"image": [jpeg(n) for n in range(50)], "key": [f"k{n}" for n in range(50)]})
    pq.write_table(
        table,
        path,
        row_group_size=10,
        write_page_index=True,
        bloom_filter_options={"key": True, "image": True},
    )
    rewritten(path, target, lambda _, data: data * 3)
    found = (
        duckdb.connect()
        .execute(f"SELECT key, octet_length(image) FROM '{target}' WHERE key = 'k33'")
        .fetchall()
    )
    assert found == [("k33", 3 * len(jpeg(33)))]
    filters = pq.ParquetFile(target).metadata.row_group(1)
    assert filters.column(1).has_column_index
    assert not filters.column(0).has_column_index


def test_images_are_found_by_name_wherever_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = [[jpeg(10 * n + at) for at in range(n % 4)] for n in range(30)]
    table = pa.table({"flat": [jpeg(n) for n in range(30)], "more": pa.array(rows)})
    pq.write_table(table, path, row_group_size=7, data_page_size=1, write_batch_size=2)
    storage = open_storage(Location.parse(str(tmp_path)))
    with closing(storage.open_reader(path.name)) as reader:
        contents = contents_of(reader, path)
        names = [item.path for _, item in contents.images(Patterns())]
        assert len(names) == len(set(names)) == 30 + sum(map(len, rows))
        for name in names:
            item = contents.find(name)
            assert item is not None
            _, row, column, *number = name.split("/")
            data = contents.bytes_of(item)
            assert data == (
                rows[int(row)][int(number[0])] if number else table[column][int(row)].as_py()
            )
        for name in ("a.parquet/30/flat", "a.parquet/1/more/1", "a.parquet/x/flat", "a.parquet"):
            assert contents.find(name) is None


def columns_in(path: Path) -> list[str]:
    storage = open_storage(Location.parse(str(path.parent)))
    with closing(storage.open_reader(path.name)) as reader:
        return [column.name for column in contents_of(reader, path).columns]


def test_columns_are_told_by_type_or_by_content(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table(
        {
            "jpg": [jpeg(1), None, b"damaged"],
            "pickled": [b"\x80\x04K\x01.", b"\x80\x04K\x02.", b"\x80\x04K\x03."],
            "text": ["a", "b", "c"],
            "nested": [[{"bytes": jpeg(2), "path": None}], None, []],
            "nothing": pa.nulls(3, pa.binary()),
        }
    )
    pq.write_table(table, path)
    assert columns_in(path) == ["jpg", "nested"]
    features = {"nested": [{"_type": "Image"}], "jpg": {"_type": "Value", "dtype": "binary"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    assert columns_in(path) == ["nested"]
    features = {"nested": {"_type": "List", "feature": {"_type": "Image"}}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    assert columns_in(path) == ["nested"]
    features = {"jpg": {"_type": "Value", "dtype": "binary"}, "text": {"_type": "Value"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    assert columns_in(path) == ["jpg", "nested"]


def test_no_two_columns_share_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    one, several = pa.array([jpeg(1)]), pa.array([[jpeg(2), jpeg(3)]])
    names = ["a", "a", "a#2", "b", "b/0", "b/x", "c/1", "c/2", "c", "d\x07", "d\\x07"]
    columns = [several if name in ("b", "c") else one for name in names]
    pq.write_table(pa.Table.from_arrays(columns, names), path)
    found = ["a", "a#2", "a#2#2", "b", "b/0#2", "b/x", "c/1", "c/2", "c#2", "d\\x07", "d\\x07#2"]
    assert columns_in(path) == found
    with closing(open_storage(Location.parse(str(tmp_path))).open_reader(path.name)) as reader:
        images = [item.path for _, item in contents_of(reader, path).images(Patterns())]
    assert len(set(images)) == len(images) == len(names) + 2


@pytest.mark.parametrize(
    "how", [{}, {"use_dictionary": False}, {"data_page_version": "2.0", "write_page_index": True}]
)
def test_row_groups_without_rows(how: dict[str, Any], tmp_path: Path) -> None:
    path, target = tmp_path / "a.parquet", tmp_path / "b.parquet"
    some = pa.table({"image": [jpeg(1)], "key": [1]})
    for tables in ([some[:0]], [some[:0], some], [some, some[:0], some], [some, some[:0]]):
        with pq.ParquetWriter(path, some.schema, **how) as writer:
            for table in tables:
                writer.write_table(table)
        rewritten(path, target, lambda *_: None, ["image"])
        assert target.read_bytes() == path.read_bytes()
        found = rewritten(path, target, lambda name, _: name.encode(), ["image"])
        assert pq.read_table(target)["image"].to_pylist() == [name.encode() for name in found]
        assert pq.read_table(target)["key"].to_pylist() == [1] * len(found)
        groups = [pq.read_metadata(target).row_group(at).num_rows for at in range(len(tables))]
        assert groups == [len(table) for table in tables]


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"jpg": [jpeg(1)]}), path)
    with pytest.raises(ImageError, match="no column of bytes named picture, but jpg"):
        rewritten(path, tmp_path / "b.parquet", lambda *_: None, ["picture"])


def test_images_of_which_only_the_path_is_there(tmp_path: Path) -> None:
    path, target = tmp_path / "a.parquet", tmp_path / "b.parquet"
    rows = [
        {"bytes": jpeg(1), "path": "1.jpg"},
        {"bytes": None, "path": "2.jpg"},
        {"bytes": None, "path": None},
        None,
    ]
    pq.write_table(pa.table({"image": pa.array(rows, IMAGE)}), path)
    storage = open_storage(Location.parse(str(tmp_path)))
    with closing(storage.open_reader(path.name)) as reader:
        contents = contents_of(reader, path)
        images = [item for _, item in contents.images(Patterns())]
        assert contents.bytes_of(images[0]) == jpeg(1)
        with pytest.raises(ImageError, match=r"only names 2\.jpg"):
            contents.bytes_of(images[1])
        with pytest.raises(ImageError, match="has changed"):
            contents.bytes_of(replace(images[0], slot=4))
    assert {item.path: item.defect for item in images} == {
        "a.parquet/0/image": None,
        "a.parquet/1/image": "its bytes are not in the file, which only names 2.jpg",
    }
    rewritten(path, target, lambda *_: b"new")
    assert pq.read_table(target)["image"].to_pylist() == [
        {"bytes": b"new", "path": "1.jpg"},
        *rows[1:],
    ]


def test_a_path_that_is_not_that_of_an_image(tmp_path: Path) -> None:
    """Of several images, or not a text: its column is one like any other."""
    path, target = tmp_path / "a.parquet", tmp_path / "b.parquet"
    several = [{"bytes": [jpeg(1), None, jpeg(2)], "path": "x"}, {"bytes": [jpeg(3)], "path": "y"}]
    paths = [{"bytes": jpeg(1), "path": ["x", "y"]}, {"bytes": None, "path": ["z"]}]
    numbers = [{"bytes": jpeg(1), "path": 1}, {"bytes": None, "path": 2}]
    binary, text = ("bytes", pa.binary()), ("path", pa.string())
    table = pa.table(
        {
            "several": pa.array(several, pa.struct([("bytes", pa.list_(binary[1])), text])),
            "paths": pa.array(paths, pa.struct([binary, ("path", pa.list_(text[1]))])),
            "numbers": pa.array(numbers, pa.struct([binary, ("path", pa.int64())])),
        }
    )
    pq.write_table(table, path)
    assert columns_in(path) == ["several.bytes", "paths.bytes", "numbers.bytes"]
    found = rewritten(path, target, lambda *_: b"new")
    assert list(found) == [
        "a.parquet/0/several.bytes/0",
        "a.parquet/0/several.bytes/2",
        "a.parquet/1/several.bytes/0",
        "a.parquet/0/paths.bytes",
        "a.parquet/0/numbers.bytes",
    ]
    assert pq.read_table(target)["numbers"].to_pylist() == [
        {"bytes": b"new", "path": 1},
        {"bytes": None, "path": 2},
    ]


def test_each_of_two_structs_of_one_name_has_its_paths(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = [pa.array([{"bytes": None, "path": name}], IMAGE) for name in ("1.jpg", "2.jpg")]
    pq.write_table(pa.Table.from_arrays(columns, ["image", "image"]), path)
    with closing(open_storage(Location.parse(str(tmp_path))).open_reader(path.name)) as reader:
        found = [
            i.defect for _, i in contents_of(reader, path, ["image", "image#2"]).images(Patterns())
        ]
    assert found == [
        f"its bytes are not in the file, which only names {name}" for name in ("1.jpg", "2.jpg")
    ]


def test_damaged_files_fail_with_a_reason(tmp_path: Path) -> None:
    path, target = tmp_path / "a.parquet", tmp_path / "b.parquet"
    table = pa.table({"image": [jpeg(n) for n in range(20)], "key": list(range(20))})
    pq.write_table(table, path, row_group_size=6, write_page_index=True, data_page_size=2000)
    good = path.read_bytes()
    chance = np.random.default_rng(5)
    failed = 0
    for _ in range(int(os.environ.get("EXAMPLES", "150"))):
        data = bytearray(good)
        near = len(data) if chance.random() < 0.5 else 1500  # the footer and the indices
        for _ in range(chance.integers(1, 4)):
            data[len(data) - 1 - chance.integers(near)] = chance.integers(256)
        if chance.random() < 0.2:
            del data[chance.integers(len(data)) :]
        path.write_bytes(data)
        with suppress(ImageError):
            rewritten(path, target, lambda _, image: image + b"!", ["image"])
            continue
        failed += 1
    assert failed


@pytest.mark.parametrize(
    "how",
    [
        {"data_page_version": "1.0"},
        {"data_page_version": "2.0", "compression": "zstd"},
        {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY", "write_page_index": True},
    ],
    ids=["dictionary", "version 2", "deltas"],
)
def test_no_bit_of_the_metadata_makes_more_than_a_file_fail(how: dict[str, Any]) -> None:
    """Each bit of the headers of pages, and one of each byte of the footer and what precedes it."""
    images = [jpeg(1)[:40], None, jpeg(2)[:40]]
    rows = [{"bytes": data, "path": None if data else "b.jpg"} for data in images]
    output = pa.BufferOutputStream()
    pq.write_table(pa.table({"image": pa.array(rows, IMAGE)}), output, store_schema=False, **how)
    good = output.getvalue().to_pybytes()
    source = InMemory(good)
    footer = read_footer(source)
    chunks = list(footer.chunks())
    headers = [(p.start, p.data) for chunk in chunks for p in pages(source, chunk)]  # type: ignore[arg-type]
    assert rewritten_in_memory(good) != good

    flips = [(at, bit) for header in headers for at in range(*header) for bit in range(8)]
    flips += [(at, at % 8) for at in range(max(chunk.end for chunk in chunks), len(good))]
    for at, bit in flips:
        bad = bytearray(good)
        bad[at] ^= 1 << bit
        with suppress(ImageError):
            rewritten_in_memory(bytes(bad))


def column(name: bytes, *, children: int = 0) -> Struct:
    """An element of a schema: a group, or a column of bytes."""
    found = Struct()
    found.set(4, BINARY, name)
    found.set(*((5, I32, children) if children else (1, I32, 6)))
    return found


@pytest.mark.parametrize("depth", [100, 300, 5000])
def test_columns_nested_deeply(depth: int) -> None:
    groups = [column(b"nested", children=1) for _ in range(depth)]
    metadata = Struct()
    metadata.set(2, LIST, Items(STRUCT, [*groups, column(b"image")]))
    footer = serialized(metadata)
    source = InMemory(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    if depth == 100:
        assert len(read_footer(source).leaves) == 1
    else:
        with pytest.raises(ImageError, match="nested too deeply"):
            read_footer(source)


@pytest.mark.parametrize("kind", ["lists", "maps", "structs"])
def test_metadata_nested_deeply(kind: str) -> None:
    deep = {
        "lists": b"\x19" * 5000,
        "maps": b"\x1b" + b"\x01\xbb" * 5000,
        "structs": b"\x1c" * 5000,
    }
    with pytest.raises(ValueError, match="nested too deeply"):
        parsed(deep[kind])


def test_features_of_nothing(tmp_path: Path) -> None:
    """Metadata that Hugging Face would not write is as good as none."""
    path = tmp_path / "a.parquet"
    odd: list[Any] = [{"image": []}, [], None, 5, {"image": {"feature": []}}, {}]
    for features in odd:
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        pq.write_table(pa.table({"image": [jpeg(1)]}).replace_schema_metadata(metadata), path)
        assert columns_in(path) == ["image"]


def test_lengths_that_would_only_take_memory() -> None:
    """A block of 2**40 numbers without bits."""
    data = bytearray()
    for number in (2**40, 1, 5, 0, 0):
        put_varint(data, number)
    data += b"\0"
    found, _ = deltas(memoryview(data), 0, 5)
    assert found.tolist() == [0] * 5
    with pytest.raises(ValueError, match="damaged"):
        deltas(memoryview(data), 0, 4)


def test_memory_does_not_grow_with_the_rows_of_a_dictionary(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of their new images belong into one page of the input, which is small."""
    monkeypatch.setattr(parquet_rewriting, "PAGE_BYTES", 2**17)
    monkeypatch.setattr(spool, "SPOOL_BYTES", 0)
    file = pa.BufferOutputStream()
    pq.write_table(pa.table({"image": [jpeg(1)] * 900}), file)
    contents = contents_of(InMemory(file.getvalue().to_pybytes()), Path("a.parquet"))
    output = InMemory()
    monkeypatch.setattr(output, "write", lambda _: None)
    rewriter = contents.rewriter(output)  # type: ignore[arg-type]
    for slot, _ in contents.images(Patterns()):
        rewriter.replace(slot, bytes(20_000))
    tracemalloc.start()
    rewriter.finish()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    rewriter.close()
    assert most < 4 * 2**20 < 900 * 20_000


def test_a_page_that_only_takes_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"image": [bytes(70 * 2**20)]})
    pq.write_table(table, path, compression="zstd", use_dictionary=False)
    with pytest.raises(ImageError, match=r"a page of \d+ bytes would take \d+ bytes of memory"):
        rewritten(path, tmp_path / "b.parquet", lambda *_: None, ["image"])


@given(st.lists(st.integers(0, 5), max_size=50))
def test_levels_come_back(numbers: list[int]) -> None:
    data = packed(np.array(numbers, np.int64), 3)
    found, end = unpacked(memoryview(data), 0, 3, len(numbers))
    assert found.tolist() == numbers
    assert end == len(data)


def test_a_footer_comes_back_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [1.5], "b": [{"c": [True]}], "d": [b"x"]}), path)
    data = path.read_bytes()
    footer = data[-8 - int.from_bytes(data[-8:-4], "little") : -8]
    assert serialized(parsed(footer)[0]) == footer
    assert new_pages.NULLS == 3


def test_memory_does_not_grow_with_pages_of_nulls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They hardly take bytes, but as many slots as others."""
    monkeypatch.setattr(parquet_contents, "CACHE_BYTES", 2**20)
    rows, path = 2**14, tmp_path / "a.parquet"
    table = pa.table({"image": pa.array([jpeg(1), *[None] * (rows - 1)], pa.binary())})
    with pq.ParquetWriter(path, table.schema, data_page_size=2**30) as writer:
        for _ in range(24):
            writer.write_table(table, row_group_size=rows)
    with closing(open_storage(Location.parse(str(tmp_path))).open_reader(path.name)) as reader:
        contents = contents_of(reader, path)
        tracemalloc.start()
        assert len([*contents.images(Patterns())]) == 24
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 5 * 2**20


@pytest.mark.parametrize("how", ["PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "dictionary", "nulls"])
def test_a_page_of_more_values_than_are_images(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes far more memory than a few bytes of the file."""
    values = [None] * 9 if how == "nulls" else [b"%d" % n for n in range(9)]
    table = pa.table({"image": pa.array(values, pa.binary())})
    encoding = {} if how in ("dictionary", "nulls") else {"column_encoding": {"image": how}}
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=how == "dictionary", **encoding)
    monkeypatch.setattr(pages_, "MOST_SLOTS" if how == "nulls" else "MOST_VALUES", 8)
    contents = contents_of(InMemory((tmp_path / "a.parquet").read_bytes()), Path("a.parquet"))
    with pytest.raises(ImageError, match=r"page of 9 (values|slots) is larger than one of images"):
        list(contents.images_of(contents.columns_of_bytes))
    monkeypatch.setattr(pages_, "MOST_SLOTS" if how == "nulls" else "MOST_VALUES", 9)
    found = list(contents.images_of(contents.columns_of_bytes))
    assert len(found) == (0 if how == "nulls" else 9)
