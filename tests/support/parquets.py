"""Parquet files with images, as their writers make them, and their contents."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchlight.output.inputs import Input
from batchlight.shards.parquet_contents import ParquetContents
from batchlight.storage import Location, open_storage
from batchlight.storage.patterns import Patterns
from tests.support.tars import BRIGHT_EVERY, jpeg

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""The type in which Hugging Face's data sets store an image."""


def write_parquet(path: Path, numbers: Iterable[int]) -> None:
    """By pyarrow: dark photographs, two to a row group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": [jpeg(number) for number in numbers]})
    pq.write_table(table, path, row_group_size=2)


def hugging_face(path: Path, count: int, first: int = 0) -> None:
    """As ``Dataset.to_parquet`` writes it; one in five images is not dark."""
    import datasets  # takes seconds, and few tests need it

    features = datasets.Features(
        {
            "image": datasets.Image(),
            "frames": datasets.List(datasets.Image()),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "caption": datasets.Value("string"),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)

    def image(number: int) -> dict[str, Any]:
        bright = number % BRIGHT_EVERY == BRIGHT_EVERY - 1
        return {"bytes": jpeg(number, bright), "path": f"{number}.jpg"}

    numbers = range(first, first + count)
    columns = {
        "image": [image(n) for n in numbers],
        "frames": [[image(1000 + 3 * n + at) for at in range(n % 3)] for n in numbers],
        "label": [n % 2 for n in numbers],
        "caption": [f"caption {n}" for n in numbers],
    }
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(columns, features).to_parquet(path)


def contents_of(reader: object, path: Path, columns: Collection[str] = ()) -> ParquetContents:
    """The contents of an open file."""
    return ParquetContents(reader, Input(path.name, container=True), columns)  # type: ignore[arg-type]


class InMemory:
    """A file that is only its bytes; ``Reader`` and ``Writer`` for tests with thousands of them."""

    remote = False

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data)

    def read_at(self, offset: int, size: int) -> bytes:
        """``Reader.read_at``, which nothing may call with a negative number."""
        assert offset >= 0
        assert size >= 0
        return bytes(self.data[offset : offset + size])

    def write(self, data: bytes) -> None:
        """Append."""
        self.data += data


def rewritten_in_memory(data: bytes, columns: Collection[str] = ()) -> bytes:
    """Rewrite a file; every other image becomes longer."""
    contents, output = contents_of(InMemory(data), Path("a.parquet"), columns), InMemory()
    rewriter = contents.rewriter(output)  # type: ignore[arg-type]
    try:
        for number, (slot, item) in enumerate(contents.images(Patterns())):
            if item.defect is not None or number % 2:
                rewriter.kept(slot)
            else:
                rewriter.replace(slot, contents.bytes_of(item) + b"!")
        rewriter.finish()
    finally:
        rewriter.close()
    return bytes(output.data)


def rewritten(
    path: Path,
    target: Path,
    change: Callable[[str, bytes], bytes | None],
    columns: Collection[str] = (),
) -> dict[str, bytes]:
    """Rewrite a file with the images changed by ``change``; returns the original images."""
    source, output = (open_storage(Location.parse(str(p.parent))) for p in (path, target))
    found = {}
    with closing(source.open_reader(path.name)) as reader, ExitStack() as exits:
        contents = contents_of(reader, path, columns)
        writer = output.open_writer(target.name)
        exits.callback(writer.abort)
        rewriter = contents.rewriter(writer)
        exits.callback(rewriter.close)
        for slot, item in contents.images(Patterns()):
            if item.defect is not None:
                rewriter.kept(slot)
                continue
            found[item.path] = contents.bytes_of(item)
            new = change(item.path, found[item.path])
            if new is None:
                rewriter.kept(slot)
            else:
                rewriter.replace(slot, new)
        rewriter.finish()
        rewriter.sink.commit()
    return found
