"""Lists of paths: one a line in a .txt, or a column ``path`` in a .csv or .parquet.

A list may come from anybody, and a few kilobytes of Parquet can hold the same long text a million
times. So no entry may be longer than a path can be, and that is looked at before entries are made.
"""

from __future__ import annotations

import csv
import io
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchlight.errors import UsageError, brief
from batchlight.storage.base import escape_controls
from batchlight.storage.location import Location

LIST_SUFFIXES = (".txt", ".csv", ".parquet")
LONGEST_ENTRY = 8192
"""Bytes; local paths may have 4096, keys 1024."""
ENTRIES_AT_MOST = 100_000_000
COLUMN_BYTES_AT_MOST = 4 * 2**30
ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class ListEntry:
    """One image that a list names."""

    path: str
    """Below the output."""
    source: str | None
    """Where it is, if not at ``path`` in the list's folder."""


def read_list(data: bytes, name: str, shown: str) -> tuple[list[ListEntry], int]:
    """The entries of a list, sorted, and how many name an image again.

    ``name``: of the file, whose suffix tells its kind; ``shown``: the list, for a person. Raises
    ``UsageError``.
    """
    entries: dict[str, ListEntry] = {}
    duplicates = 0
    for text in _texts(data, name, shown):
        if len(text) > LONGEST_ENTRY:
            raise _too_long(shown)
        entry = _resolve(text, shown)
        earlier = entries.setdefault(escape_controls(entry.path), entry)
        duplicates += earlier is not entry
        if earlier != entry:
            one, other = (escape_controls(e.source or e.path) for e in (earlier, entry))
            raise UsageError(
                f"the list {shown} names {one} and {other}, which would be written to the same "
                "output; make two lists of it"
            )
    return [entry for _, entry in sorted(entries.items())], duplicates


def _texts(data: bytes, name: str, shown: str) -> Iterator[str]:
    try:
        if name.lower().endswith(".parquet"):
            yield from _of_parquet(data, shown)
            return
        lines = io.StringIO(data.decode("utf-8-sig"), newline="")
        if name.lower().endswith(".csv"):
            yield from _of_csv(lines, shown)
        else:
            yield from (text for line in lines if (text := line.rstrip("\r\n")))
    except (pa.ArrowException, UnicodeDecodeError, csv.Error, OSError) as error:
        raise UsageError(f"cannot read the list {shown}: {brief(error)}") from error


def _of_csv(lines: io.StringIO, shown: str) -> Iterator[str]:
    # Strict, for a quote that nothing closes would make one entry of all that follow.
    rows = csv.DictReader(lines, strict=True)
    if "path" not in (rows.fieldnames or ()):
        raise UsageError(f"the list {shown} has no column 'path'; add one with that header")
    try:
        for row in rows:
            text = row["path"]
            if text and ("\n" in text or "\r" in text):
                raise UsageError(
                    f"the list {shown} has a path of several lines that ends in line "
                    f"{rows.line_num}, as where a quote is not closed; correct it"
                )
            if text:
                yield text
    except csv.Error as error:
        raise UsageError(
            f"cannot read the list {shown}: {brief(error)} (line {rows.line_num}); in a name, "
            "write a quote twice and put quotes around it"
        ) from error


def _of_parquet(data: bytes, shown: str) -> Iterator[str]:
    file = pq.ParquetFile(pa.BufferReader(data))
    if "path" not in file.schema_arrow.names:
        raise UsageError(f"the list {shown} has no column 'path'; add one of that name")
    if not pa.types.is_nested(file.schema_arrow.field("path").type):
        file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=["path"])
    groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
    at = file.schema_arrow.get_field_index("path")
    size = sum(g.column(at).total_uncompressed_size for g in groups if at < g.num_columns)
    if file.metadata.num_rows > ENTRIES_AT_MOST or size > COLUMN_BYTES_AT_MOST:
        raise UsageError(
            f"the list {shown} holds {file.metadata.num_rows} entries in {size} bytes, which is "
            "more than a list may hold; make several of it"
        )
    for batch in file.iter_batches(ROWS_AT_ONCE, columns=["path"], use_threads=False):
        column = batch.column(0)
        texts = column.dictionary if isinstance(column, pa.DictionaryArray) else column
        texts = texts.cast(pa.string())
        if (pc.max(pc.binary_length(texts)).as_py() or 0) > LONGEST_ENTRY:
            raise _too_long(shown)
        yield from (text for text in column.cast(pa.string()).to_pylist() if text)


def _too_long(shown: str) -> UsageError:
    return UsageError(
        f"the list {shown} names a path of more than {LONGEST_ENTRY} characters, which none has; "
        "correct it"
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
    return ListEntry(path, source)


def _of_uri(text: str) -> Location:
    """Literally, but for a file whose URI was percent-encoded, as ``Path.as_uri`` does."""
    location = Location.parse(text)
    if not location.remote and "%" in text and not os.path.lexists(location.path):
        decoded = Location.parse(f"file://{unquote(text.partition('://')[2])}")
        if os.path.lexists(decoded.path):
            return decoded
    return location
