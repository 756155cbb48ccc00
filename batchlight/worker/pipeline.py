"""One batch, from listed inputs to committed records: read, decode, enhance, encode, write.

The batch's atmospheric light is the mean over its images, known only when all are analysed; an
image is enhanced with that mean or its own light, whichever is larger. So an image whose own light
the mean can no longer exceed, which most dark images reach early, goes straight through; only the
others wait. Meanwhile a worker keeps them decoded up to a budget, beyond that as encoded bytes, and
beyond that not at all: it reads them again.

Memory is bounded by three budgets, ``KEEP_BYTES`` here and two in ``overlap.py``, by what is in
flight to the network (``network_client.py``), and by the largest image.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from batchlight.classical.light import MeanLight, batch_light
from batchlight.config import Method
from batchlight.engine.base import Service
from batchlight.host.process import one_opencv_thread
from batchlight.images.image import Decoded
from batchlight.images.pixels import Pixels
from batchlight.output.inputs import Batch, Input
from batchlight.output.records import Tally
from batchlight.worker.batch_result import BatchResult
from batchlight.worker.context import BatchContext
from batchlight.worker.ending import Redone, committed, images_of_pairs, result_of
from batchlight.worker.image import Analysed, Image, Losses, Watch
from batchlight.worker.network_client import Feeder
from batchlight.worker.overlap import WriteBehind, drained, read_ahead, read_in_turn
from batchlight.worker.steps import Steps, as_record

if TYPE_CHECKING:
    from batchlight.absgn.result import Restored

KEEP_BYTES = 256 * 2**20
"""Budget for keeping images that wait for their batch's light."""
KEEP_DECODED_SHARE = 0.75
"""Share of the budget for decoded images while more are to come; the rest is for encoded bytes."""


def images_in_steps(
    context: BatchContext, service: Service | None, batch: Batch, losses: Losses, watch: Watch
) -> Generator[None, None, BatchResult]:
    """Run a batch of images and commit it; ``BatchHandler.in_steps``."""
    images = [Image.of(item, batch.methods, losses) for item in batch.inputs]
    watch(images, Tally())
    steps = Steps(context)
    shares_light = context.config.atmospheric_light == "batch"
    with Pipeline(steps, service) as pipeline:
        yield from pipeline.work(images, light=None, wait=shares_light)
    light = mean_light(images)
    records = [
        as_record(context, batch.number, image, method, light)
        for image in images
        for method in image.methods
    ]
    return committed(steps, batch.number, images, records)


def redo_images(
    context: BatchContext,
    service: Service | None,
    batch: Batch,
    pairs: Collection[tuple[str, Method]],
    lights: Mapping[str, float | None] | None,
    losses: Losses,
) -> Redone:
    """Redo some of a batch of images; commits nothing; ``BatchHandler.redo``."""
    images = images_of_pairs(batch, pairs, losses)
    shares_light = lights is None and context.config.atmospheric_light == "batch"
    known = None if lights is None else lights.get("classical")
    with Pipeline(Steps(context), service) as pipeline:
        result_of(pipeline.work(images, light=known, wait=shares_light))
    if lights is None:
        lights = dict.fromkeys(batch.methods, mean_light(images))
    records = [
        as_record(context, batch.number, image, method, lights[method])
        for image in images
        for method in image.methods
    ]
    return Redone.of(records, images)


def process_images_without_writing(
    context: BatchContext,
    service: Service | None,
    batch: Batch,
    methods: tuple[Method, ...],
    losses: Losses,
    inputs: Sequence[Input],
) -> None:
    """Process some images, each with its own light; ``BatchHandler.process_without_writing``."""
    images = [Image.of(item, methods, losses) for item in inputs]
    with Pipeline(Steps(context), service, writes=False) as pipeline:
        result_of(pipeline.work(images, light=None, wait=False))


@dataclass(frozen=True)
class _Waiting:
    """An image waiting for the batch's light, and what is kept of it in memory meanwhile."""

    image: Image
    kept: Analysed | bytes | None


@dataclass(frozen=True)
class _Given:
    """An image that was sent to the network."""

    image: Image
    decoded: Decoded
    pixels: Pixels
    """The pixels sent to the network."""


class Pipeline:
    """The processing of a batch of images."""

    def __init__(
        self,
        steps: Steps,
        service: Service | None,
        writes: bool = True,
        keep_bytes: int | None = None,
    ) -> None:
        """``keep_bytes``: budget for waiting images; ``KEEP_BYTES`` by default."""
        self._steps = steps
        self._read_ahead = read_ahead if steps.reads_ahead else read_in_turn
        self._writes = writes
        self._keep_bytes = self._free_bytes = KEEP_BYTES if keep_bytes is None else keep_bytes
        self._behind = WriteBehind()
        self._exits = ExitStack()
        at_once = steps.context.pixels_at_once
        self._feeder = Feeder[_Given](service, at_once) if service else None

    def __enter__(self) -> Self:
        self._exits.enter_context(one_opencv_thread())
        self._exits.enter_context(self._behind)
        return self

    def __exit__(self, *error: Any) -> None:
        self._exits.__exit__(*error)

    def work(
        self, images: Sequence[Image], light: float | None, wait: bool
    ) -> Generator[None, None, None]:
        """Process all images, with the batch's light or, if that is None, each with its own.

        ``wait``: until the light is known from all of them, where it could make a difference.
        Yields after each image; at the end, everything is written.
        """
        waiting: deque[_Waiting] = deque()
        mean = MeanLight(len(images))
        to_come = sum(map(_file_bytes, images))
        for image, data in self._read_ahead(images, _file_bytes, self._read):
            analysed = self._analyse(image, data)
            mean.add(image.light)
            to_come -= _file_bytes(image)
            if analysed is None or data is None:
                pass
            elif image.skipped:
                self._skip(image, analysed.decoded, data)
            elif wait and image.wants("classical") and analysed.light < mean.at_most:
                waiting.append(_Waiting(image, self._kept(data, analysed, to_come)))
            else:
                self._enhance(image, analysed, light)
            del data, analysed  # before the next one is read
            yield
        yield from self._finish(waiting, mean.so_far)
        yield from self._rest()

    def _finish(self, waiting: deque[_Waiting], light: float | None) -> Iterator[None]:
        """Process the images that have waited for the batch's light."""
        for held, kept in self._read_ahead(drained(waiting), _unread_bytes, self._read_again):
            image = held.image
            analysed = kept if isinstance(kept, Analysed) else self._analyse(image, kept)
            if analysed is not None:
                self._enhance(image, analysed, light)
            del held, kept, analysed
            yield

    def _rest(self) -> Iterator[None]:
        """Wait for the network and for all writes."""
        if self._feeder is not None:
            for given, restored in self._feeder.rest():
                self._take(given, restored)
                yield
        self._behind.flush()
        if self._writes:
            self._steps.output.sync()  # before a part says that they exist

    def _read(self, image: Image) -> bytes | None:
        return image.attempt(partial(self._steps.read, image))

    def _read_again(self, held: _Waiting) -> Analysed | bytes | None:
        return self._read(held.image) if held.kept is None else held.kept

    def _analyse(self, image: Image, data: bytes | None) -> Analysed | None:
        if data is None:
            return None
        return image.attempt(partial(self._steps.analyse, image, data))

    def _kept(
        self, data: bytes | None, analysed: Analysed, to_come: int
    ) -> Analysed | bytes | None:
        """What to keep in memory of a waiting image; ``to_come``: bytes of files not read yet."""
        reserved = min(to_come, self._keep_bytes * (1 - KEEP_DECODED_SHARE))
        if self._free_bytes - analysed.nbytes >= reserved:
            self._free_bytes -= analysed.nbytes
            return analysed
        if data is not None and len(data) <= self._free_bytes:
            self._free_bytes -= len(data)
            return data
        return None

    def _enhance(self, image: Image, analysed: Analysed, light: float | None) -> None:
        """Enhance, encode and write an image; if ``light`` is None, with its own."""
        decoded = analysed.decoded
        if image.wants("classical"):
            dehaze = partial(self._steps.dehaze, image, analysed, light)
            self._put(image, "classical", decoded, image.attempt(dehaze, "classical"))
        if image.wants("absgn"):
            assert self._feeder is not None
            pixels = image.attempt(partial(self._steps.begin, image, decoded), "absgn")
            if pixels is not None:
                given = _Given(image, decoded, pixels)
                for other, restored in self._feeder.put(given, pixels):
                    self._take(other, restored)

    def _take(self, given: _Given, restored: Restored) -> None:
        """Finish an image returned by the network."""
        image, decoded = given.image, given.decoded
        end = partial(self._steps.end, image, decoded, given.pixels, restored)
        self._put(image, "absgn", decoded, image.attempt(end, "absgn"))

    def _put(self, image: Image, method: Method, decoded: Decoded, pixels: Pixels | None) -> None:
        """Encode and write enhanced pixels, if any."""
        if pixels is not None:
            encode = partial(self._steps.encode, image, method, decoded, pixels)
            self._write(image, method, image.attempt(encode, method))

    def _skip(self, image: Image, decoded: Decoded, data: bytes) -> None:
        """Handle an image that is not dark."""
        if self._steps.config.not_dark == "leave-out":
            for result in image.results.values():
                result.columns["finished_at"] = datetime.now(UTC)
            return
        for method in image.methods:
            copy = partial(self._steps.copy, image, method, decoded, data)
            self._write(image, method, image.attempt(copy, method))

    def _write(self, image: Image, method: Method, encoded: tuple[str, bytes] | None) -> None:
        """Write an output to its path, if there is one."""
        if encoded is None or not self._writes:
            return
        path, data = encoded
        write = partial(self._steps.write, image, method, path, data)
        self._behind.put(partial(image.attempt, write, method), len(data))


def _file_bytes(image: Image) -> int:
    """File size as listed; 0 for a file whose size is unknown."""
    return image.input.size or 0


def _unread_bytes(held: _Waiting) -> int:
    """How much has to be read again."""
    return _file_bytes(held.image) if held.kept is None else 0


def mean_light(images: Iterable[Image]) -> float | None:
    """Mean light of a batch, over the images that could be analysed."""
    return batch_light(image.light for image in images)
