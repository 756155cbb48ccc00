"""Images on their way to the network and back: in groups of one shape, some always under way.

Groups depend on the images and their order alone, never on timing, so that what the network
computes does not either.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from batchlight.absgn.restored import Restored
    from batchlight.pixels import Pixels

T = TypeVar("T")

GROUPS_UNDER_WAY = 2
"""One that the network works on, and one that is there when it has done so."""
PIXELS_WAITING = 16_000_000
"""Of groups that are not full; beyond that the oldest is sent as it is."""


class Answer(Protocol):
    """A call that is under way."""

    def result(self) -> Any:
        """Wait for it. Raises what it raised."""


class Service(Protocol):
    """Something that lives elsewhere, and whose methods are called by name."""

    def submit(self, method: str, *arguments: object) -> Answer:
        """Begin a call."""


@dataclass
class _Group(Generic[T]):
    members: list[T] = field(default_factory=list)
    images: list[Pixels] = field(default_factory=list)
    pixels: int = 0


class Feeder(Generic[T]):
    """Takes items with their pixels; gives each back with what the network made of it."""

    def __init__(self, service: Service, pixels_at_once: int) -> None:
        self._service = service
        self._pixels_at_once = pixels_at_once
        self._waiting: dict[object, _Group[T]] = {}
        self._under_way: deque[tuple[list[T], Answer]] = deque()

    def put(self, item: T, pixels: Pixels) -> Iterator[tuple[T, Restored]]:
        """Take one item; gives back others that are done by now."""
        key = (pixels.shape, pixels.dtype)
        group = self._waiting.setdefault(key, _Group())
        group.members.append(item)
        group.images.append(pixels)
        size = pixels.shape[0] * pixels.shape[1]
        group.pixels += size
        if group.pixels + size > self._pixels_at_once:
            yield from self._send(key)
        while sum(group.pixels for group in self._waiting.values()) > PIXELS_WAITING:
            yield from self._send(next(iter(self._waiting)))

    def rest(self) -> Iterator[tuple[T, Restored]]:
        """All that were taken and not given back."""
        for key in list(self._waiting):
            yield from self._send(key)
        while self._under_way:
            yield from self._receive()

    def _send(self, key: object) -> Iterator[tuple[T, Restored]]:
        group = self._waiting.pop(key)
        while len(self._under_way) >= GROUPS_UNDER_WAY:
            yield from self._receive()
        answer = self._service.submit("enhance", group.images)
        self._under_way.append((group.members, answer))

    def _receive(self) -> Iterator[tuple[T, Restored]]:
        members, answer = self._under_way.popleft()
        yield from zip(members, answer.result(), strict=True)
