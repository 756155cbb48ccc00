"""Opening a container for reading, wherever it is, compressed or not."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, suppress
from typing import IO

from batchlight.errors import ErrorCode, ImageError, brief
from batchlight.images.container_names import container_kind
from batchlight.output.inputs import Input, place_of
from batchlight.shards.contents import AnyContents
from batchlight.shards.parquet_contents import ParquetContents
from batchlight.shards.scratch import ScratchFullError, scratch_file, scratch_trouble
from batchlight.shards.tar_contents import TarContents
from batchlight.storage import Location, Storage
from batchlight.storage.base import Reader
from batchlight.storage.streams import LocalReader

COPY_BYTES = 2**20


@contextmanager
def opened_container(
    item: Input,
    root: Storage,
    opened: Callable[[Location], Storage],
    columns: Collection[str] = (),
) -> Iterator[AnyContents]:
    """The contents of a container; a compressed tar is first unpacked to a temporary file.

    ``columns``: the image columns, for Parquet that does not declare them. Raises what
    ``Storage.read`` raises; ``ImageError`` with ``unsupported`` for one refused by its name, with
    ``corrupt`` for one that cannot be unpacked, with ``unreadable`` if it does not fit on the disk.
    """
    if item.defect is not None:
        raise ImageError.unsupported(item.defect)
    storage, path = place_of(item, root, opened)
    kind = container_kind(item.path)
    with closing(storage.open_reader(path)) as reader:
        if kind == "parquet":
            yield ParquetContents(reader, item, columns)
        elif kind == "tar":
            yield TarContents(reader, item, compress=False)
        else:
            with _unpacked(reader) as tar:
                yield TarContents(tar, item, compress=True)


@contextmanager
def _unpacked(reader: Reader) -> Iterator[Reader]:
    file = scratch_file()
    try:
        _unpack(reader, file)
        reader.require_unchanged()
        with closing(LocalReader(os.dup(file.fileno()))) as tar:
            yield tar
    finally:
        with suppress(OSError):  # the disk is full
            file.close()


def _unpack(reader: Reader, file: IO[bytes]) -> None:
    try:
        with gzip.GzipFile(fileobj=io.BufferedReader(_Raw(reader), COPY_BYTES)) as unpacked:
            while block := unpacked.read(COPY_BYTES):
                with scratch_trouble():
                    file.write(block)
        with scratch_trouble():
            file.flush()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        reason = f"it cannot be unpacked: {brief(error)}"
        raise ImageError.corrupt(reason) from error
    except ScratchFullError as error:  # the fault of this one: a few bytes may become terabytes
        reason = f"unpacked, it does not fit: {error}"
        raise ImageError(ErrorCode.UNREADABLE, reason) from error


class _Raw(io.RawIOBase):
    """A reader as a file for sequential reading."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._reader.read_at(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
