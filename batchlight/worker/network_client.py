"""Images to the network and back: in groups of one shape, with some always in flight.

A call costs some milliseconds whatever its size, so each carries several groups; with images of
many sizes, most groups are single images. Groups and calls depend only on the images and their
order, never on timing, and so do the network's results.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from batchlight.engine.base import Answer, Service

if TYPE_CHECKING:
    from batchlight.absgn.result import Restored
    from batchlight.images.pixels import Pixels

T = TypeVar("T")

CALLS_UNDER_WAY = 4
"""One being computed, one on its way there, one on its way back, and one waiting."""
PIXELS_UNDER_WAY = 16_000_000
"""Above this, fewer calls are in flight, but never fewer than ``CALLS_AT_LEAST``."""
CALLS_AT_LEAST = 2
"""Otherwise the network would wait for each large image."""
PIXELS_WAITING = 16_000_000
"""In incomplete groups; above this, the oldest groups are sent as they are."""


@dataclass
class _Group(Generic[T]):
    """Images of one shape and dtype."""

    members: list[T] = field(default_factory=list)
    images: list[Pixels] = field(default_factory=list)
    pixels: int = 0


@dataclass(frozen=True)
class _Call(Generic[T]):
    """Some groups that are in flight together."""

    groups: list[_Group[T]]
    pixels: int
    answer: Answer


class Feeder(Generic[T]):
    """Takes items with their pixels; returns each with the network's result."""

    def __init__(self, service: Service, pixels_at_once: int) -> None:
        """``pixels_at_once``: how many a call carries; a larger image is sent by itself."""
        self._service = service
        self._pixels_at_once = pixels_at_once
        self._waiting: dict[object, _Group[T]] = {}
        self._under_way: deque[_Call[T]] = deque()

    def put(self, item: T, pixels: Pixels) -> Iterator[tuple[T, Restored]]:
        """Take one item; yields others that are done by now."""
        key = (pixels.shape, pixels.dtype)
        group = self._waiting.setdefault(key, _Group())
        group.members.append(item)
        group.images.append(pixels)
        size = pixels.shape[0] * pixels.shape[1]
        group.pixels += size
        if group.pixels + size > self._pixels_at_once:
            yield from self._send([self._waiting.pop(key)])
        while sum(group.pixels for group in self._waiting.values()) > PIXELS_WAITING:
            yield from self._send(self._oldest())
        while self._under_way and self._under_way[0].answer.done():
            yield from self._receive()

    def rest(self) -> Iterator[tuple[T, Restored]]:
        """All items taken and not yet returned."""
        while self._waiting:
            yield from self._send(self._oldest())
        while self._under_way:
            yield from self._receive()

    def _oldest(self) -> list[_Group[T]]:
        """Remove the oldest groups from the queue: as many as fit into a call, at least one."""
        chosen: list[_Group[T]] = []
        pixels = 0
        for key, group in list(self._waiting.items()):
            pixels += group.pixels
            if chosen and pixels > self._pixels_at_once:
                break
            chosen.append(self._waiting.pop(key))
        return chosen

    def _send(self, groups: list[_Group[T]]) -> Iterator[tuple[T, Restored]]:
        pixels = sum(group.pixels for group in groups)
        while self._is_full(pixels):
            yield from self._receive()
        answer = self._service.submit("restore_groups", [group.images for group in groups])
        self._under_way.append(_Call(groups, pixels, answer))

    def _is_full(self, more: int) -> bool:
        """Whether a call with ``more`` pixels has to wait until another one is answered."""
        calls = len(self._under_way)
        pixels = sum(call.pixels for call in self._under_way) + more
        return calls >= CALLS_UNDER_WAY or (calls >= CALLS_AT_LEAST and pixels > PIXELS_UNDER_WAY)

    def _receive(self) -> Iterator[tuple[T, Restored]]:
        call = self._under_way.popleft()
        for group, results in zip(call.groups, call.answer.result(), strict=True):
            yield from zip(group.members, results, strict=True)
