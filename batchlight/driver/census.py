"""What containers hold, according to their headers, before a run reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from batchlight.config import JobConfig
from batchlight.errors import ImageError
from batchlight.images.container_names import container_kind
from batchlight.images.names import is_image_name
from batchlight.output.inputs import Input
from batchlight.planning.listing import InputSet
from batchlight.shards.parquet_contents import ParquetContents
from batchlight.shards.source import opened_container
from batchlight.storage.base import escape_controls
from batchlight.storage.patterns import Patterns

LOOKED_AT_LOCAL, LOOKED_AT_REMOTE = 64, 8
"""How many containers to look into, evenly spaced over all of them."""
HEAD_BYTES = 64 * 2**20
"""How far to read the headers in an object; a local file's are all read."""
FIRST_IMAGES = 8
"""How many images of a Parquet file to look at."""
SUFFIX_LENGTH = 8
"""Anything longer counts as part of the name."""


@dataclass(frozen=True)
class Census:
    """What the containers to be processed hold."""

    looked_at: int = 0
    """Number of containers looked into."""
    images: int = 0
    """Number of images in all containers; an estimate by size unless ``exact``."""
    image_bytes: int = 0
    """Encoded size of these images."""
    exact: bool = True
    suffixes: dict[str, int] = field(default_factory=dict)
    """Number of images seen, by suffix or column."""
    others: dict[str, int] = field(default_factory=dict)
    """Number of other members, by suffix."""
    named_twice: int = 0
    """Images whose name occurs earlier in their container."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Containers that would fail, and why."""


def census(
    containers: Sequence[Input],
    inputs: InputSet,
    config: JobConfig,
    on_image: Callable[[Input], object],
) -> Census:
    """Look into some of the containers. Raises ``StorageError``.

    ``on_image`` receives the images seen, except those in compressed containers.
    """
    most = LOOKED_AT_REMOTE if inputs.root.remote else LOOKED_AT_LOCAL
    step = max(1, -(-len(containers) // most))
    counter = _Counter(inputs, config, on_image)
    for container in containers[::step]:
        counter.look_into(container)
    total = sum(container.size or 0 for container in containers)
    exact = step == 1 and counter.all_seen
    more = 1 if exact else total / max(1, counter.bytes)
    return Census(
        looked_at=len(containers[::step]),
        images=round(more * counter.images),
        image_bytes=round(more * counter.image_bytes),
        exact=exact,
        suffixes=dict(counter.suffixes.most_common()),
        others=dict(counter.others.most_common()),
        named_twice=counter.named_twice,
        unreadable=counter.unreadable,
    )


def _suffix(name: bytes) -> str:
    """The suffix of a name, safe to print; empty if there is none."""
    _, dot, suffix = name.rpartition(b"/")[2].rpartition(b".")
    is_one = dot and len(suffix) <= SUFFIX_LENGTH
    return escape_controls(f".{suffix.decode(errors='replace').lower()}") if is_one else ""


class _Counter:
    def __init__(
        self, inputs: InputSet, config: JobConfig, on_image: Callable[[Input], object]
    ) -> None:
        self._on_image = on_image
        self._opened = inputs.opened
        self._root = inputs.opened(inputs.root)
        self._head = HEAD_BYTES if inputs.root.remote else None
        self._patterns = Patterns(config.include, config.exclude)
        self._columns = config.image_column
        self.images = self.image_bytes = self.bytes = self.named_twice = 0
        self.all_seen = True
        self.suffixes: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.unreadable: dict[str, str] = {}

    def look_into(self, container: Input) -> None:
        try:
            self._count(container)
        except ImageError as error:
            self.unreadable[container.path] = error.message
        except OSError as error:
            self.unreadable[container.path] = error.strerror or str(error)

    def _count(self, container: Input) -> None:
        columns = self._columns
        with opened_container(container, self._root, self._opened, columns) as contents:
            if isinstance(contents, ParquetContents):
                self._count_columns(container, contents)
                return
            for member, item in contents.images(self._patterns):
                shown = _suffix(member.name)
                if item is None:
                    self.others[shown] += member.is_file
                else:
                    self.images += 1
                    self.image_bytes += member.size
                    if container_kind(container.path) == "tar":
                        self._on_image(item)
                    self.suffixes[shown] += 1
                    # Such a path has a number appended.
                    self.named_twice += not is_image_name(item.path)
                if self._head is not None and member.end > self._head:
                    self.all_seen = False
                    self.bytes += member.end
                    return
        self.bytes += container.size or 0

    def _count_columns(self, container: Input, contents: ParquetContents) -> None:
        """Count the images from the footer alone, apart from the first few."""
        for chunk, column in contents.chunks_of(contents.columns):
            if self._patterns.match(f"{container.path}/{chunk.first_row}/{column.name}"):
                # Writers differ in how they count an empty list.
                self.all_seen &= chunk.nulls is not None and not column.leaf.max_repetition
                count = chunk.values - (chunk.nulls or 0)
                self.images += count
                self.image_bytes += chunk.end - chunk.start
                self.suffixes[column.name] += count
        found = (item for _, item in contents.images(self._patterns))
        for item in islice(found, FIRST_IMAGES):
            self._on_image(item)
        self.bytes += container.size or 0
