"""Lists of paths: one per line in a .txt, or a column ``path`` in a .csv or .parquet.

Other columns may state what a request for each object would also return. They may be named as in S3
Inventory, whose ``bucket`` and ``key`` form a path.

A list may come from anyone, and a few kilobytes of Parquet can hold the same long text a million
times. So no entry may be longer than a path can be; this is checked before entries are created.
"""

from __future__ import annotations

import csv
import io
import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeAlias
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchlight.errors import UsageError, brief
from batchlight.storage.base import escape_controls
from batchlight.storage.location import Location

LIST_SUFFIXES = (".txt", ".csv", ".parquet")
LONGEST_ENTRY = 8192
"""Bytes; local paths may have 4096, object keys 1024."""
ENTRIES_AT_MOST = 100_000_000
COLUMN_BYTES_AT_MOST = 4 * 2**30
DIGITS_OF_A_SIZE = 15
"""Less than 1 PB; so the sizes of a list add up to what 64 bits hold."""
ROWS_AT_ONCE = 65_536

_NAMES_SHOWN = 160
"""Characters of the names of columns in a message."""

_NAMES = {
    "path": ("path", "key"),
    "bucket": ("bucket",),
    "size": ("size",),
    "etag": ("etag", "e_tag"),
    "modified": ("modified", "last_modified", "last_modified_date"),
    "is_latest": ("is_latest",),
    "is_delete_marker": ("is_delete_marker",),
}
"""What a list may state about an object, and the column names accepted for it."""

Row: TypeAlias = Mapping[str, Any]
"""Keyed as in ``_NAMES``; in a .csv, all values are text."""


@dataclass(frozen=True)
class ListEntry:
    """One image that a list names."""

    path: str
    """Path below the output."""
    source: str | None
    """Location of the image, if not at ``path`` in the list's folder."""
    size: int | None = None
    etag: str | None = None
    modified: datetime | None = None
    """Facts that the list states about the object; all None unless it gives size and etag."""


def read_list(data: bytes, name: str, shown: str) -> tuple[list[ListEntry], int]:
    """The entries of a list, sorted, and how many name an image again.

    ``name``: of the file, whose suffix gives its kind; ``shown``: the list, as shown to the user.
    Raises ``UsageError``.
    """
    entries: dict[str, ListEntry] = {}
    duplicates = 0
    for number, row in enumerate(_rows(data, name, shown), 1):
        text = _text_of(row)
        if not text or not _is_there(row):
            continue
        if len(text) > LONGEST_ENTRY:
            raise _too_long(shown)
        try:
            entry = replace(_resolve(text, shown), **_facts(row))
        except (OverflowError, _NoSizeError) as error:
            raise _unreadable(shown, number, error) from error
        earlier = entries.setdefault(escape_controls(entry.path), entry)
        duplicates += earlier is not entry
        if (earlier.path, earlier.source) != (entry.path, entry.source):
            one, other = (escape_controls(e.source or e.path) for e in (earlier, entry))
            raise UsageError(
                f"the list {shown} names {one} and {other}, which would be written to the same "
                "output; split it into two lists"
            )
    return [entry for _, entry in sorted(entries.items())], duplicates


def _rows(data: bytes, name: str, shown: str) -> Iterator[Row]:
    try:
        if name.lower().endswith(".parquet"):
            yield from _of_parquet(data, shown)
            return
        lines = io.StringIO(data.decode("utf-8-sig"), newline="")
        if name.lower().endswith(".csv"):
            yield from _of_csv(lines, shown)
        else:
            yield from ({"path": line.rstrip("\r\n")} for line in lines)
    except (pa.ArrowException, UnicodeDecodeError, csv.Error, OSError) as error:
        if name.lower().endswith(".parquet"):
            raise UsageError(f"{_neither(shown)}: {brief(error)}") from error
        raise UsageError(f"cannot read the list {shown}: {brief(error)}") from error


def _neither(shown: str) -> str:
    """The error for a Parquet file that is neither a container nor a list."""
    return f"{shown} is neither a container of images, with the columns asked for, nor a list"


def _columns(there: Iterable[str], shown: str) -> dict[str, str]:
    """The columns to read, by their meaning."""
    columns = Counter(there)
    names = columns.keys()
    found = {
        what: next(name for name in called if name in names)
        for what, called in _NAMES.items()
        if not names.isdisjoint(called)
    }
    if "path" not in found:
        raise UsageError(
            f"the list {shown} has no column 'path', but {_named(names)}; rename one, or add one "
            "of that name, with commas between columns"
        )
    if found["path"] != "key":
        found.pop("bucket", None)
    if twice := [name for name in found.values() if columns[name] > 1]:
        raise UsageError(f"the list {shown} has {columns[twice[0]]} columns {twice[0]!r}; keep one")
    return found


def _named(columns: Iterable[str]) -> str:
    """Names of columns for a message; they may be of any length."""
    text = ", ".join(map(escape_controls, columns)) or "none"
    return text if len(text) <= _NAMES_SHOWN else f"{text[:_NAMES_SHOWN]}..."


def _text_of(row: Row) -> str | None:
    path, bucket = row["path"], row.get("bucket")
    return f"s3://{bucket}/{path}" if path and bucket else path


def _is_there(row: Row) -> bool:
    """Whether an inventory row describes the current object, not an earlier or deleted version."""
    latest, deleted = (str(row.get(name)).lower() for name in ("is_latest", "is_delete_marker"))
    return latest != "false" and deleted != "true"


class _NoSizeError(Exception):
    """No file has this size."""


def _facts(row: Row) -> dict[str, Any]:
    """Size, etag and age, if the row has enough of them to notice a change.

    Raises ``OverflowError`` for a time that no plan can hold, and ``_NoSizeError``.
    """
    digits, etag, modified = str(row.get("size")), row.get("etag"), row.get("modified")
    if not isinstance(etag, str) or not etag or not digits.isascii() or not digits.isdigit():
        return {}
    if len(digits.lstrip("0")) > DIGITS_OF_A_SIZE:  # as Python may refuse to make a number of
        raise _NoSizeError(f"no file has a size of {len(digits)} digits")
    if isinstance(modified, str):
        try:
            modified = datetime.fromisoformat(modified)
        except ValueError:
            modified = None
    if not isinstance(modified, datetime):
        modified = None
    elif modified.tzinfo is None:
        modified = modified.replace(tzinfo=UTC)
    else:
        modified = modified.astimezone(UTC)
    # Stores quote etags, inventories do not.
    quoted = etag if etag.endswith('"') else f'"{etag}"'
    return {"size": int(digits), "etag": quoted, "modified": modified}


def _of_csv(lines: io.StringIO, shown: str) -> Iterator[Row]:
    # Strict, since an unclosed quote would make one entry of all the rest.
    rows = csv.DictReader(lines, strict=True)
    columns = _columns(rows.fieldnames or (), shown)
    try:
        for row in rows:
            text = row[columns["path"]]
            if text and ("\n" in text or "\r" in text):
                raise UsageError(
                    f"the list {shown} has a path that spans several lines and ends in line "
                    f"{rows.line_num}, perhaps because a quote is not closed; close it"
                )
            yield {what: row[name] for what, name in columns.items()}
    except csv.Error as error:
        raise UsageError(
            f"cannot read the list {shown}: {brief(error)} (line {rows.line_num}); in a name, "
            "write a quote twice and put quotes around it"
        ) from error


def _of_parquet(data: bytes, shown: str) -> Iterator[Row]:
    file = pq.ParquetFile(pa.BufferReader(data))
    schema = file.schema_arrow
    if not set(_NAMES["path"]).intersection(schema.names):
        raise UsageError(f"{_neither(shown)}: it has no column 'path', but {_named(schema.names)}")
    columns = _columns(schema.names, shown)
    texts = [name for name in columns.values() if _is_text(schema.field(name).type)]
    file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts)
    groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
    size = sum(
        group.column(at).total_uncompressed_size
        for group in groups
        for at in range(group.num_columns)
        if group.column(at).path_in_schema in columns.values()
    )
    if file.metadata.num_rows > ENTRIES_AT_MOST or size > COLUMN_BYTES_AT_MOST:
        raise UsageError(
            f"the list {shown} holds {file.metadata.num_rows} entries in {size} bytes, which is "
            "more than a list may hold; split it"
        )
    wanted = list(columns.values())
    first = 1
    for batch in file.iter_batches(ROWS_AT_ONCE, columns=wanted, use_threads=False):
        found = [_values(batch.column(name), what, shown, first) for what, name in columns.items()]
        first += batch.num_rows
        for values in zip(*found, strict=True):
            yield dict(zip(columns, values, strict=True))


def _is_text(kind: Any) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind)
    )


def _values(column: pa.Array, what: str, shown: str, first: int) -> list[Any]:
    """The column as Python values; a path as text. ``first``: the number of its first row."""
    if what == "path" or isinstance(column, pa.DictionaryArray):
        texts = column.dictionary if isinstance(column, pa.DictionaryArray) else column
        if (pc.max(pc.binary_length(texts.cast(pa.string()))).as_py() or 0) > LONGEST_ENTRY:
            raise _too_long(shown)
        column = column.cast(pa.string())
    if pa.types.is_timestamp(column.type):
        # Stored in UTC; the zone is one to show it in, and may be unknown. Python has no ns.
        unit = "us" if column.type.unit == "ns" else column.type.unit
        column = column.cast(pa.timestamp(unit, "UTC"), safe=False)
    values: list[Any]
    try:
        values = column.to_pylist()
    except (OverflowError, ValueError):
        values = []
        try:
            values.extend(value.as_py() for value in column)
        except (OverflowError, ValueError) as error:
            raise _unreadable(shown, first + len(values), error) from error
    return values


def _unreadable(shown: str, row: int, error: Exception) -> UsageError:
    """``row``: counted from 1, below the names of the columns."""
    reason = "it is out of range" if isinstance(error, OverflowError) else brief(error)
    return UsageError(
        f"the list {shown} has a size or time in row {row} that cannot be read: {reason}; "
        "correct it or leave it empty"
    )


def _too_long(shown: str) -> UsageError:
    return UsageError(
        f"the list {shown} names a path of more than {LONGEST_ENTRY} characters, more than any "
        "path has; remove it"
    )


def _resolve(text: str, shown: str) -> ListEntry:
    source: str | None = None
    named = escape_controls(text)
    if "/" not in text.partition("://")[0] and "://" in text:
        try:
            location = _of_uri(text)
        except UsageError as error:
            raise UsageError(f"in the list {shown}: {escape_controls(str(error))}") from error
        source = str(location)
        path = f"{location.bucket}/{location.path}" if location.remote else location.path[1:]
    else:
        path = posixpath.normpath(text)
        if path.startswith("/"):
            path = path.lstrip("/")
            source = f"/{path}"
    if ".." in path.split("/"):
        raise UsageError(
            f"the list {shown} names {named}, whose output would lie outside the output folder; "
            "give its absolute path instead"
        )
    if not path:
        raise UsageError(
            f"the list {shown} names {named}, which is the root directory, not an image; remove it"
        )
    return ListEntry(path, source)


def _of_uri(text: str) -> Location:
    """Parsed literally, except a file whose URI is percent-encoded, as from ``Path.as_uri``."""
    location = Location.parse(text)
    if not location.remote and "%" in text and not os.path.lexists(location.path):
        decoded = Location.parse(f"file://{unquote(text.partition('://')[2])}")
        if os.path.lexists(decoded.path):
            return decoded
    return location
