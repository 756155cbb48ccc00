"""The kinds of batches: images, files to copy, or a container. Nothing else tells them apart."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass

from batchlight.config import Method
from batchlight.engine.base import Service
from batchlight.output.inputs import Batch, Input
from batchlight.worker.batch_result import BatchResult
from batchlight.worker.context import BatchContext
from batchlight.worker.ending import Redone, result_of
from batchlight.worker.image import Losses, Watch, unwatched


@dataclass(frozen=True)
class BatchHandler:
    """The functions for batches of one kind. All raise as ``run_batch``."""

    in_steps: Callable[
        [BatchContext, Service | None, Batch, Losses, Watch], Generator[None, None, BatchResult]
    ]
    """Run a batch and commit it, step by step."""
    redo: Callable[
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
    """Redo some (input path, method) pairs; commits nothing. Uses the recorded light by method, or
    None to recompute it from all images."""
    process_without_writing: Callable[
        [BatchContext, Service | None, Batch, tuple[Method, ...], Losses, Sequence[Input]], None
    ]
    """Do all that could kill a worker with some images; writes nothing. Without methods, only
    reads, decodes and analyses them."""
    groups: Callable[[BatchContext, Batch], list[list[Input]]] | None = None
    """The images in their groups; empty if they cannot be read. None: they are one group."""


def handler_of(batch: Batch) -> BatchHandler:
    """What handles a batch of this kind."""
    # Not at the top: a driver has no images to process, and needs no codecs or kernels.
    from batchlight.worker import copying, pipeline, shard

    if batch.container is not None:
        functions = shard.shard_in_steps, shard.redo_shard, shard.process_shard_without_writing
        return BatchHandler(*functions, groups=shard.groups_of)
    if batch.copies:
        return BatchHandler(
            copying.copies_in_steps, copying.copy_again, copying.process_copies_without_writing
        )
    return BatchHandler(
        pipeline.images_in_steps, pipeline.redo_images, pipeline.process_images_without_writing
    )


def run_batch(
    context: BatchContext, service: Service | None, batch: Batch, losses: Losses
) -> BatchResult:
    """Run a whole batch and commit it; ``service`` holds the network, if a method needs it.

    Raises ``StorageError`` for trouble that is not the fault of an image, ``BrokenBatchError``, and
    ``MemoryError``.
    """
    return result_of(handler_of(batch).in_steps(context, service, batch, losses, unwatched))
