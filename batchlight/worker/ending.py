"""How a batch ends, whatever was done to its files: committed, or returned as redone rows."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, TypeVar

from batchlight.config import Method
from batchlight.errors import ErrorCode
from batchlight.output.inputs import Batch
from batchlight.output.recordfiles import write_part
from batchlight.output.records import Record
from batchlight.storage import EVERYONE
from batchlight.worker.batch_result import BatchResult, one_of_each_kind
from batchlight.worker.image import BrokenBatchError, Image, Losses, Unexpected

if TYPE_CHECKING:  # the driver needs no codec
    from batchlight.worker.steps import Steps

T = TypeVar("T")


@dataclass(frozen=True)
class Redone:
    """Rows that were redone."""

    records: list[Record]
    unexpected: tuple[Unexpected, ...]
    """As in ``BatchResult``."""
    permissions: int
    """Who may read all of the images, as permission bits."""

    @classmethod
    def of(cls, records: list[Record], images: Sequence[Image]) -> Redone:
        """``records``: the rows of ``images``."""
        return cls(records, kinds_of(images), _permissions_of(images))


def images_of_pairs(
    batch: Batch, pairs: Collection[tuple[str, Method]], losses: Losses
) -> list[Image]:
    """All images of a batch, reduced to some (input path, method) pairs."""
    return [
        Image.of(item, tuple(m for m in batch.methods if (item.path, m) in pairs), losses)
        for item in batch.inputs
    ]


def committed(
    steps: Steps, number: int, images: Sequence[Image], records: list[Record]
) -> BatchResult:
    """Create the part of a batch, which commits it.

    ``records``: the rows of ``images``. Raises ``BrokenBatchError`` if every row of the batch
    failed for reasons that no image should cause.
    """
    unexpected = kinds_of(images)
    if unexpected and all(record.error_code == ErrorCode.ERROR for record in records):
        raise BrokenBatchError(number, unexpected)
    steps.require_wanted()
    rows = write_part(steps.output, number, records, _permissions_of(images))
    return BatchResult.of(rows, unexpected, sum(image.read_bytes for image in images))


def result_of(work: Generator[None, None, T]) -> T:
    """Run a generator to its end and return its result."""
    try:
        while True:
            next(work)
    except StopIteration as end:
        result: T = end.value
        return result


def kinds_of(images: Iterable[Image]) -> tuple[Unexpected, ...]:
    """The unexpected exceptions of some images, one of each kind."""
    return one_of_each_kind(found for image in images for found in image.unexpected)


def _permissions_of(images: Iterable[Image]) -> int:
    """Who may read all of them, as permission bits."""
    return reduce(and_, (image.permissions for image in images), EVERYONE)
