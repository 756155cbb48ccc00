"""What a batch is of: images, files that are copied, or one container. No other place asks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass

from batchlight.config import Method
from batchlight.engine.base import Service
from batchlight.output.inputs import Batch, Input
from batchlight.worker import copying, pipeline, shard
from batchlight.worker.batch_result import BatchResult
from batchlight.worker.ending import Redone, result_of
from batchlight.worker.image import Losses, Watch, unwatched
from batchlight.worker.steps import BatchContext

InSteps = Callable[
    [BatchContext, Service | None, Batch, Losses, Watch], Generator[None, None, BatchResult]
]
Redo = Callable[
    [
        BatchContext,
        Service | None,
        Batch,
        Collection[tuple[str, Method]],
        Mapping[str, float | None] | None,
        Losses,
    ],
    Redone,
]
Rehearse = Callable[
    [BatchContext, Service | None, Batch, tuple[Method, ...], Losses, Sequence[Input]], None
]


@dataclass(frozen=True)
class _Kind:
    in_steps: InSteps
    redo: Redo
    rehearse: Rehearse


_IMAGES = _Kind(pipeline.images_in_steps, pipeline.redo_images, pipeline.rehearse_images)
_COPIES = _Kind(copying.copies_in_steps, copying.copy_again, copying.rehearse_copies)
_CONTAINER = _Kind(shard.shard_in_steps, shard.redo_shard, shard.rehearse_shard)


def _kind_of(batch: Batch) -> _Kind:
    if batch.container is not None:
        return _CONTAINER
    return _COPIES if batch.copies else _IMAGES


def run_batch(
    context: BatchContext, service: Service | None, batch: Batch, losses: Losses
) -> BatchResult:
    """Do a whole batch and commit it; ``service`` holds the network, if a method needs it.

    Raises ``StorageError`` for trouble that is no image's fault, ``BrokenBatchError``, and
    ``MemoryError``.
    """
    return result_of(in_steps(context, service, batch, losses, unwatched))


def in_steps(
    context: BatchContext, service: Service | None, batch: Batch, losses: Losses, watch: Watch
) -> Generator[None, None, BatchResult]:
    """As ``run_batch``, step by step; ``watch`` hears what is being worked on."""
    return _kind_of(batch).in_steps(context, service, batch, losses, watch)


def redo(
    context: BatchContext,
    service: Service | None,
    batch: Batch,
    pairs: Collection[tuple[str, Method]],
    lights: Mapping[str, float | None] | None,
    losses: Losses,
) -> Redone:
    """Do some (input path, method) pairs of a batch again, and commit nothing.

    ``lights``: the batch's recorded light by method; None to find it out from all its images.
    Raises as ``run_batch``.
    """
    return _kind_of(batch).redo(context, service, batch, pairs, lights, losses)


def rehearse(
    context: BatchContext,
    service: Service | None,
    batch: Batch,
    methods: tuple[Method, ...],
    losses: Losses,
    inputs: Sequence[Input],
) -> None:
    """Do all that could kill a worker with some images of a batch, and write nothing.

    With no methods, only read, decode and analyse them. Raises as ``run_batch``.
    """
    _kind_of(batch).rehearse(context, service, batch, methods, losses, inputs)
