"""The images of a container, for use outside of a run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import islice

from batchlight.errors import ImageError, brief
from batchlight.images.container_names import (
    PARQUET,
    SUFFIXES,
    container_kind,
    is_parquet_name,
    stem_of,
    why_refused,
)
from batchlight.output.inputs import Input, place_of
from batchlight.shards.columns import may_hold_images
from batchlight.shards.footer import read_footer
from batchlight.shards.parquet_contents import ParquetContents
from batchlight.shards.source import opened_container
from batchlight.storage import FileInfo, Location, Storage, open_source
from batchlight.storage.base import Reader
from batchlight.storage.patterns import Patterns

Opened = Callable[[Location], Storage]

OPEN_AT_MOST = 4
"""Parquet files that stay open, each with up to ``CACHE_BYTES`` of its pages: in a report, the
original and the results of some methods take turns."""


def first_images(
    container: Input,
    root: Storage,
    opened: Opened,
    patterns: Patterns,
    at_most: int,
    columns: Collection[str] = (),
) -> list[Input]:
    """A container's first images. Raises as ``opened_container``, also for a compressed one."""
    if container.defect is None and container_kind(container.path) == "tar.gz":
        raise ImageError.unsupported("images in a compressed container are not shown")
    with opened_container(container, root, opened, columns) as contents:
        found = (item for _, item in contents.images(patterns) if item)
        return list(islice(found, at_most))


def images_in(storage: Storage, info: FileInfo) -> list[Input]:
    """All its images; or the container itself, with the reason, if they cannot be read."""
    defect = info.defect or why_refused(info.path)
    if defect is None and container_kind(info.path) == "tar.gz":
        defect = "images in a compressed container are not compared"
    container = Input(info.path, defect=defect, container=True)
    if defect is not None:
        return [container]
    try:
        with opened_container(container, storage, open_source) as contents:
            return [item for _, item in contents.images(Patterns()) if item is not None]
    except (ImageError, OSError) as error:
        return [replace(container, defect=brief(error))]


def bytes_in(item: Input, root: Storage, opened: Opened) -> bytes:
    """An image of a container that is not open. Raises as ``opened_container``."""
    assert item.inside is not None
    assert item.offset is not None
    if not is_parquet_name(item.inside.path):
        storage, path = place_of(item.inside, root, opened)
        return storage.read_part(path, item.offset, item.size or 0)
    with opened_container(item.inside, root, opened) as contents:
        return contents.bytes_of(item)


@dataclass(frozen=True)
class _OpenFile:
    storage: Storage
    """Kept, so that no other one can take its identity."""
    reader: Reader
    contents: ParquetContents


class OpenParquet:
    """Images of Parquet files by the names in their records; the last few files stay open."""

    def __init__(self) -> None:
        self._open: OrderedDict[tuple[int, str], _OpenFile] = OrderedDict()
        """By the identity of their storage, since not each can be hashed, and their path."""

    def bytes_of_row(self, storage: Storage, path: str, container: str, image: str) -> bytes:
        """An image of the container at ``path``.

        Raises ``FileNotFoundError`` if it does not exist, and as ``Storage.read`` and
        ``opened_container``.
        """
        contents = self._contents(storage, path, container)
        item = contents.find(image)
        if item is None:
            raise FileNotFoundError(image)
        return contents.bytes_of(item)

    def close(self) -> None:
        """Close the files."""
        while self._open:
            self._close_oldest()

    def _contents(self, storage: Storage, path: str, container: str) -> ParquetContents:
        key = id(storage), path
        if key in self._open:
            self._open.move_to_end(key)
            return self._open[key].contents
        while len(self._open) >= OPEN_AT_MOST:
            self._close_oldest()
        with ExitStack() as exits:
            reader = exits.enter_context(closing(storage.open_reader(path)))
            contents = ParquetContents(reader, Input(container, container=True))
            exits.pop_all()
        self._open[key] = _OpenFile(storage, reader, contents)
        return contents

    def _close_oldest(self) -> None:
        _, oldest = self._open.popitem(last=False)
        oldest.reader.close()


@dataclass(frozen=True)
class _Tail:
    """A file of known size of which little is read: one request per read."""

    storage: Storage
    path: str
    size: int

    def read_at(self, offset: int, size: int) -> bytes:
        return self.storage.read_part(self.path, offset, min(size, self.size - offset))


def may_be_of_images(info: FileInfo, storage: Storage, columns: Collection[str]) -> bool:
    """Whether a Parquet file may hold images, by its footer alone; true if that cannot be read.

    False if there is a tar of the same name, which it describes.
    """
    try:
        if not may_hold_images(read_footer(_Tail(storage, info.path, info.size or 0)), columns):
            return False
    except (ImageError, OSError):
        pass  # the worker reports what is wrong with it
    stem = stem_of(info.path)
    return not any(storage.is_file(stem + suffix) for suffix in SUFFIXES if suffix != PARQUET)


def holds_images(path: str, storage: Storage, columns: Collection[str]) -> bool:
    """The same, also judged by its first values; false if it cannot be read."""
    try:
        with closing(storage.open_reader(path)) as reader:
            return bool(ParquetContents(reader, Input(path, container=True), columns).columns)
    except (ImageError, OSError):
        return False
