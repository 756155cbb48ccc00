"""The members of a container in groups: those of one share a light, a deadline and memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from batchlight.config import JobConfig
from batchlight.output.inputs import Input
from batchlight.shards.selection import images
from batchlight.shards.tar import Member, Source, members
from batchlight.storage.patterns import Patterns


@dataclass(frozen=True)
class Group:
    """Consecutive images that share a light, and the members around them."""

    members: list[tuple[Member, Input | None]]
    """Those that may be left out: all, or images alone."""

    @property
    def images(self) -> list[tuple[Member, Input]]:
        """Those that are images."""
        return [(member, item) for member, item in self.members if item is not None]


def groups_in(source: Source, container: Input, config: JobConfig) -> Iterator[Group]:
    """The images of a tar, ``--batch-size`` at a time; the last group may be empty.

    Raises ``ImageError`` for a container that is damaged.
    """
    patterns = Patterns(config.include, config.exclude)
    takes_all = config.failed_images == "drop-sample"
    group = Group([])
    count = 0
    for member, item in images(container, members(source), patterns):
        if item is not None or takes_all:
            group.members.append((member, item))
        count += item is not None
        if count == config.images_per_group:
            yield group
            group, count = Group([]), 0
    yield group
