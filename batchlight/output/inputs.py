"""What an image of the data set is, and a batch of them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from batchlight.config import Method
from batchlight.storage import Location, Storage


@dataclass(frozen=True)
class Input:
    """One image of the data set."""

    path: str
    """Relative to the root, separated by ``/``; what its output is named after."""
    source: str | None = None
    """Where it really is, for absolute paths and URIs in a list."""
    size: int | None = None
    modified: datetime | None = None
    etag: str | None = None
    defect: str | None = None
    """Why its name cannot be processed."""
    container: bool = False
    """Whether it is a container of images, done and recorded as a whole."""
    offset: int | None = None
    """Of an image in a container: where its bytes begin there."""

    @property
    def key(self) -> str:
        """What a listing is in the order of: a container stands where its members would."""
        return f"{self.path}/" if self.container else self.path

    def changed_since(self, size: int | None, modified: datetime | None, etag: str | None) -> bool:
        """Whether this is another file than the one recorded: by size and etag, else by mtime."""
        if self.size != size:
            return True
        return self.etag != etag if self.etag is not None else self.modified != modified


class Keyed(Protocol):
    """Something of a listing, or of what earlier runs recorded of one."""

    @property
    def path(self) -> str: ...

    @property
    def key(self) -> str: ...


Item = TypeVar("Item", bound=Keyed)


def in_order_of_keys(items: Iterable[Item]) -> Iterator[Item]:
    """Items that come in the order of their paths, in that of their keys, which are no smaller."""
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


def read_input(item: Input, root: Storage, opened: Callable[[Location], Storage]) -> bytes:
    """An image's bytes, wherever it is. Raises what ``Storage.read`` raises."""
    storage, path = place_of(item, root, opened)
    return storage.read(path)


def place_of(
    item: Input, root: Storage, opened: Callable[[Location], Storage]
) -> tuple[Storage, str]:
    """Where an input is, and its path there.

    ``opened`` gives the storage of a place outside the root.
    """
    if item.source is None:
        return root, item.path
    top, below = Location.parse(item.source).split_at_top()
    return opened(top), below


@dataclass(frozen=True)
class Batch:
    """The unit of the average, of a task and of a commit."""

    number: int
    methods: tuple[Method, ...]
    inputs: tuple[Input, ...]

    @property
    def container(self) -> Input | None:
        """The container that it consists of; None for a batch of images."""
        return self.inputs[0] if self.inputs and self.inputs[0].container else None
