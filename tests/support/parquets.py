"""Parquet files with images, as their writers make them, and what is in them."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from batchlight.output.inputs import Input
from batchlight.shards.parquet_contents import ParquetContents
from batchlight.storage import Location, open_storage
from batchlight.storage.patterns import Patterns

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""What Hugging Face's data sets store an image as."""


def jpeg(number: int, side: int = 32, most: int = 60) -> bytes:
    """A dark photograph; other pixels for each number."""
    chance = np.random.default_rng(number)
    ramp = np.linspace(0, most, side)[:, None, None] * np.linspace(0.5, 1, side)[None, :, None]
    pixels = (ramp * chance.uniform(0.6, 1, 3) + chance.uniform(0, 4, (side, side, 3))).astype("u1")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def bright(number: int) -> bytes:
    """One that is not dark."""
    pixels = np.full((32, 32, 3), 200 + number % 40, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def contents_of(reader: object, path: Path, columns: Collection[str] = ()) -> ParquetContents:
    """What an open file holds."""
    return ParquetContents(reader, Input(path.name, container=True), columns)  # type: ignore[arg-type]


def rewritten(
    path: Path,
    target: Path,
    change: Callable[[str, bytes], bytes | None],
    columns: Collection[str] = (),
) -> dict[str, bytes]:
    """Write a file again with what ``change`` makes of images; returns these as they were."""
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
