"""The images of a container in groups: those of one share a light, a deadline and memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic

from batchlight.config import JobConfig
from batchlight.output.inputs import Input
from batchlight.shards.contents import Contents, PlaceT
from batchlight.storage.patterns import Patterns


@dataclass(frozen=True)
class Group(Generic[PlaceT]):
    """Consecutive images that share a light, and what is between them."""

    members: list[tuple[PlaceT, Input | None]]
    """What may be left out: all members, or only images."""

    @property
    def images(self) -> list[tuple[PlaceT, Input]]:
        """The members that are images."""
        return [(place, item) for place, item in self.members if item is not None]


def groups_in(contents: Contents[PlaceT], config: JobConfig) -> Iterator[Group[PlaceT]]:
    """The images of a container, ``--batch-size`` at a time; the last group may be empty.

    Raises ``ImageError`` for a damaged container.
    """
    patterns = Patterns(config.include, config.exclude)
    takes_all = config.failed_images != "keep" or config.not_dark == "leave-out"
    group = Group[PlaceT]([])
    count = 0
    for place, item in contents.images(patterns):
        if item is not None or takes_all:
            group.members.append((place, item))
        count += item is not None
        if count == config.images_per_group:
            yield group
            group, count = Group[PlaceT]([]), 0
    yield group
