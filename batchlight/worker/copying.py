"""A batch of files that are not images: each is copied unchanged, read once for all methods.

Small files go through memory, several at once; large ones in pieces, one after another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial

from batchlight.config import Method
from batchlight.engine.base import Service
from batchlight.errors import ErrorCode, ImageError
from batchlight.host.abandoned import Pool
from batchlight.images.names import output_path
from batchlight.output.inputs import Batch, Input, place_of
from batchlight.output.records import Record, Tally
from batchlight.storage.base import Writer
from batchlight.worker.batch_result import BatchResult
from batchlight.worker.context import BatchContext
from batchlight.worker.ending import Redone, committed, images_of_pairs, result_of
from batchlight.worker.image import Image, Losses, Watch, of_one_input, of_one_output, of_one_size
from batchlight.worker.steps import Steps, as_record

COPIES_AT_ONCE = 8
"""For small files."""
SMALL_BYTES = 4 * 2**20
PIECE_BYTES = 8 * 2**20
"""For large files, read in pieces."""


def copies_in_steps(
    context: BatchContext, service: Service | None, batch: Batch, losses: Losses, watch: Watch
) -> Generator[None, None, BatchResult]:
    """Copy all files of a batch and commit it; ``BatchHandler.in_steps``."""
    images = [Image.of(item, batch.methods, losses) for item in batch.inputs]
    watch(images, Tally())
    steps = Steps(context)
    yield from _copied(steps, images)
    return committed(steps, batch.number, images, _records(context, batch.number, images))


def copy_again(
    context: BatchContext,
    service: Service | None,
    batch: Batch,
    pairs: Collection[tuple[str, Method]],
    lights: Mapping[str, float | None] | None,
    losses: Losses,
) -> Redone:
    """Copy some files of a batch again; commits nothing; ``BatchHandler.redo``."""
    images = images_of_pairs(batch, pairs, losses)
    result_of(_copied(Steps(context), images))
    return Redone.of(_records(context, batch.number, images), images)


def process_copies_without_writing(
    context: BatchContext,
    service: Service | None,
    batch: Batch,
    methods: tuple[Method, ...],
    losses: Losses,
    inputs: Sequence[Input],
) -> None:
    """Read some files; ``BatchHandler.process_without_writing``."""
    result_of(_copied(Steps(context), [Image.of(item, (), losses) for item in inputs]))


def _records(context: BatchContext, number: int, images: Sequence[Image]) -> list[Record]:
    return [as_record(context, number, i, method, None) for i in images for method in i.methods]


def _copied(steps: Steps, images: Sequence[Image]) -> Generator[None, None, None]:
    for image in images:
        image.is_other = True
    small = [image for image in images if (image.input.size or 0) <= SMALL_BYTES]
    with Pool(COPIES_AT_ONCE) as pool:
        for _ in pool.map(partial(_copy, steps), small):
            yield
    for image in images:
        if (image.input.size or 0) > SMALL_BYTES:
            image.attempt(partial(_copy_in_pieces, steps, image))
            yield
    steps.output.sync()  # before a part says that they exist


def _copy(steps: Steps, image: Image) -> None:
    data = image.attempt(partial(steps.read, image))
    if data is None:
        return
    for method in image.methods:
        path = output_path(method, image.input.path, "same")
        image.results[method].columns |= {"output": path, "output_bytes": len(data)}
        image.attempt(partial(steps.write, image, method, path, data), method)


def _copy_in_pieces(steps: Steps, image: Image) -> None:
    """Raises ``ImageError``, which then applies to all methods: they share the reading."""
    digest, size = hashlib.sha256(), 0
    storage, below = place_of(image.input, steps.input, steps.opened)
    if image.input.defect is not None:
        raise ImageError.unsupported(image.input.defect)
    image.permissions = steps.permissions_of(image.input)
    with of_one_size(), ExitStack() as exits:
        with of_one_input():
            reader = storage.open_reader(below)
        exits.callback(reader.close)
        writers = [_opened(steps, image, method, exits) for method in image.methods]
        while size < reader.size:
            steps.require_wanted()
            with of_one_input():
                piece = reader.read_at(size, PIECE_BYTES)
            if not piece:
                raise ImageError(ErrorCode.UNREADABLE, "the file changed while it was copied")
            size += len(piece)
            image.read_bytes += len(piece)
            digest.update(piece)
            for writer in writers:
                writer.write(piece)
        with of_one_input():
            reader.require_unchanged()
        image.facts["input_sha256"] = digest.hexdigest()
        for method, writer in zip(image.methods, writers, strict=True):
            with of_one_output():
                writer.commit()
            image.results[method].columns |= {
                "output": output_path(method, image.input.path, "same"),
                "output_bytes": size,
                "output_sha256": digest.hexdigest(),
                "finished_at": datetime.now(UTC),
            }


def _opened(steps: Steps, image: Image, method: Method, exits: ExitStack) -> Writer:
    path = output_path(method, image.input.path, "same")
    with of_one_output():
        writer = steps.output.open_writer(path, image.permissions, image.input.modified)
    exits.callback(writer.abort)
    return writer
