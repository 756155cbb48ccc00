"""An image of the data set, and a batch of them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from batchlight.config import Method
from batchlight.errors import UsageError
from batchlight.images.container_names import is_container_name, may_be_container
from batchlight.images.names import is_image_name
from batchlight.storage import Location, Storage, open_source
from batchlight.storage.base import INTERNAL
from batchlight.storage.lists import LIST_SUFFIXES, ListEntry, read_list

NOT_NAMED = "the input no longer names it"
NOT_COPIED = "it is not an image, and --copy-others is not given"
NOT_AN_IMAGE = "the name does not end in an image suffix"
"""The defect of an entry of a list, which names only images."""


def is_other_name(path: str) -> bool:
    """Whether a path is neither an image, nor a container, nor an unlisted folder."""
    return not (is_image_name(path) or is_container_name(path) or path.endswith("/"))


@dataclass(frozen=True)
class Input:
    """One image of the data set, or another file that is copied."""

    path: str
    """Relative to the root, separated by ``/``; its output is named after it."""
    source: str | None = None
    """Its real location, for absolute paths and URIs in a list."""
    size: int | None = None
    modified: datetime | None = None
    etag: str | None = None
    defect: str | None = None
    """Why its name cannot be processed."""
    container: bool = False
    """Whether it is a container of images, processed and recorded as a whole."""
    offset: int | None = None
    """For an image in a container: where its bytes, or the page that holds them, begin there."""
    slot: int | None = None
    """In Parquet: its index among the values of the page that begins at ``offset``."""
    inside: Input | None = None
    """The container that it is in."""
    beside: bool = False
    """Whether it goes along with the containers of its folder, unless it already has records."""

    @property
    def key(self) -> str:
        """The sort key of a listing: a container sorts where its members would."""
        return f"{self.path}/" if self.container else self.path

    @property
    def is_other(self) -> bool:
        """Whether it is not an image and is copied as it is, unless its name cannot be used."""
        is_image = self.container or self.inside is not None or self.defect == NOT_AN_IMAGE
        return not is_image and is_other_name(self.path)

    def changed_since(self, size: int | None, modified: datetime | None, etag: str | None) -> bool:
        """Whether the file differs from the recorded one: by size and etag, otherwise by mtime."""
        if self.size != size:
            return True
        return self.etag != etag if self.etag is not None else self.modified != modified


class Keyed(Protocol):
    """An item of a listing, or of what earlier runs recorded of one."""

    @property
    def path(self) -> str: ...

    @property
    def key(self) -> str: ...


Item = TypeVar("Item", bound=Keyed)


def in_order_of_keys(items: Iterable[Item]) -> Iterator[Item]:
    """Reorder items from path order to key order; keys are never smaller than paths."""
    held: list[tuple[str, int, Item]] = []
    for number, item in enumerate(items):
        while held and held[0][0] <= item.path:
            yield heapq.heappop(held)[2]
        if item.key == item.path and not held:
            yield item
        else:
            heapq.heappush(held, (item.key, number, item))
    while held:
        yield heapq.heappop(held)[2]


@dataclass(frozen=True)
class Batch:
    """The unit that shares a mean light, runs as one task and is committed together."""

    number: int
    methods: tuple[Method, ...]
    inputs: tuple[Input, ...]

    @property
    def container(self) -> Input | None:
        """The container that it consists of; None for a batch of images."""
        return self.inputs[0] if self.inputs and self.inputs[0].container else None

    @property
    def copies(self) -> bool:
        """Whether it consists of files that are not images.

        No batch mixes both kinds, except that earlier versions put files with names that cannot be
        used among images, where they fail as well.
        """
        return bool(self.inputs) and all(item.is_other for item in self.inputs)


@dataclass(frozen=True)
class DataSet:
    """What ``--input`` names, and so everything that may be read.

    Plans are stored in the output, which may come from anyone: what they name is read only if the
    data set names it too.
    """

    root: Location
    """The base of all relative paths."""
    given: Location
    """What the user passed: the root itself, an image in it, or a list in it."""
    follow_links: bool = False
    """Whether to follow links that leave the root as well."""
    copies_others: bool = False
    """Whether files that are not images are included, to be copied."""
    is_container: bool = False
    """Whether the given file holds images, although it is named like a list."""

    @property
    def is_folder(self) -> bool:
        """Whether everything in the root is included."""
        return self.given == self.root

    @property
    def is_list(self) -> bool:
        """Whether a list names the images."""
        named_so = self.given.name.lower().endswith(LIST_SUFFIXES)
        return named_so and not self.is_folder and not self.is_container

    @property
    def follows_links(self) -> bool:
        """Whether links may leave the root; that of a single image, which the user named, may."""
        return self.follow_links or not (self.is_folder or self.is_list)

    def names(self, item: Input) -> bool:
        """Whether an image of a plan belongs to the data set."""
        if self.is_list:
            return item.path in self._listed and self._listed[item.path] == item.source
        if not self.is_folder:
            return item.source is None and item.path == self.given.name
        parts = item.path.split("/")
        if item.container:
            wanted = may_be_container(item.path)
        elif is_container_name(item.path):
            wanted = False
        else:
            wanted = self.copies_others or not is_other_name(item.path)
        return (
            wanted
            and item.source is None
            and not any(part.startswith(".") or part == INTERNAL for part in parts)
        )

    def unnamed_in(self, rows: pa.Table) -> frozenset[str] | None:
        """Paths in a chunk of a plan that a list does not name; only the driver has the whole list.

        None if there is no list: then a path alone shows whether it belongs to the data set.
        """
        if not self.is_list:
            return None
        pairs = zip(rows["input"].to_pylist(), rows["source"].to_pylist(), strict=True)
        return frozenset(path for path, source in pairs if not self.names(Input(path, source)))

    def vetted(self, batch: Batch, unnamed: Container[str] | None = None) -> Batch:
        """A batch of a plan in which inputs that this data set does not name fail unread.

        They lose size and age, so that they count as changed once they are named again.
        ``unnamed``: the paths of such inputs, if already determined elsewhere.
        """

        def is_named(item: Input) -> bool:
            return self.names(item) if unnamed is None else item.path not in unnamed

        inputs = tuple(
            item
            if item.defect is not None or is_named(item)
            else Input(item.path, defect=self._why_unnamed(item), container=item.container)
            for item in batch.inputs
        )
        return batch if inputs == batch.inputs else replace(batch, inputs=inputs)

    def _why_unnamed(self, item: Input) -> str:
        if self.is_folder and replace(self, copies_others=True).names(item):
            return NOT_COPIED
        return NOT_NAMED

    def entries(self) -> tuple[list[ListEntry], int]:
        """The list's entries, and how many of them name an image again. Raises ``UsageError``."""
        try:
            data = open_source(self.root, follow_links=True).read(self.given.name)
        except OSError as error:
            raise UsageError(
                f"cannot read the list {self.given}; check that it exists and is readable"
            ) from error
        return read_list(data, self.given.name, str(self.given))

    @cached_property
    def _listed(self) -> dict[str, str | None]:
        return {entry.path: entry.source for entry in self.entries()[0]}

    def __getstate__(self) -> dict[str, Any]:
        """Without the entries of the list, of which there may be millions."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


def place_of(
    item: Input, root: Storage, opened: Callable[[Location], Storage]
) -> tuple[Storage, str]:
    """The storage of an image, and its path there; ``opened`` opens that of another place."""
    if item.source is None:
        return root, item.path
    top, below = Location.parse(item.source).split()
    return opened(top), below


def read_input(item: Input, root: Storage, opened: Callable[[Location], Storage]) -> bytes:
    """An image's bytes, wherever it is. Raises what ``Storage.read`` raises."""
    storage, path = place_of(item, root, opened)
    return storage.read(path)
