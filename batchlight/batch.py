"""One batch, from listed inputs to committed records: read, decode, enhance, encode, write.

The batch's atmospheric light is the mean over its images, so it takes two passes. The first
surveys: it reads, decodes and analyses every image. The second finishes: it enhances with every
method, encodes and writes; the network, which lives elsewhere, is fed ahead. In between, a worker
keeps decoded images up to a budget, beyond that their encoded bytes, beyond that nothing and reads
again; so its memory is bounded by the budget and the largest image.

Reading ahead and writing behind go on in threads while this one computes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import cv2

from batchlight.config import Method
from batchlight.dehaze import batch_light
from batchlight.feeding import Feeder, Service
from batchlight.inputs import Input
from batchlight.records import Record, Tally, write_part
from batchlight.steps import BatchContext, Failure, Image, Pixels, Steps

if TYPE_CHECKING:
    from batchlight.absgn.restored import Restored

KEEP_BYTES = 256 * 2**20
"""Budget for what a worker keeps between the two passes, encoded and decoded."""
KEEP_DECODED_SHARE = 0.75
READ_THREADS = 4
READ_AHEAD = 8
WRITE_THREADS = 4
WRITES_BEHIND = 8


@dataclass(frozen=True)
class Batch:
    """The unit of the average, of a task and of a commit."""

    number: int
    methods: tuple[Method, ...]
    inputs: tuple[Input, ...]


@dataclass(frozen=True)
class BatchResult:
    """What the driver hears of a batch: never pixels, never rows."""

    tally: Tally


@dataclass(frozen=True)
class Survey:
    """What the first pass found out about one image: enough for the batch's mean."""

    atmospheric_light: float | None
    failure: Failure | None


def run_batch(context: BatchContext, service: Service | None, batch: Batch) -> BatchResult:
    """Do a whole batch and commit it; ``service`` holds the network, if a method needs it.

    Raises ``StorageError`` for trouble that is no image's fault, and ``MemoryError``.
    """
    steps = Steps(context, batch.number)
    passes = _Passes(steps)
    images = [Image(item) for item in batch.inputs]
    if "classical" in batch.methods and context.config.atmospheric_light == "batch":
        passes.survey(images)
    passes.finish(images, batch.methods, _mean_light(images), service)
    light = _mean_light(images)
    records = [steps.record(image, m, light) for image in images for m in batch.methods]
    return BatchResult(write_part(steps.output, batch.number, records))


def survey_images(context: BatchContext, number: int, inputs: Sequence[Input]) -> list[Survey]:
    """Only the first pass, over some images of a batch: the isolation of one that kills."""
    images = [Image(item) for item in inputs]
    _Passes(Steps(context, number), keep_bytes=0).survey(images)
    return [Survey(image.light, image.failure) for image in images]


def finish_images(
    context: BatchContext,
    number: int,
    method: Method,
    light: float | None,
    service: Service | None,
    inputs: Sequence[Input],
) -> list[Record]:
    """Only the second pass, with one method, over some images of a batch whose light is known."""
    steps = Steps(context, number)
    images = [Image(item) for item in inputs]
    _Passes(steps, keep_bytes=0).finish(images, (method,), light, service)
    return [steps.record(image, method, light) for image in images]


def failed_record(
    context: BatchContext,
    number: int,
    item: Input,
    method: Method,
    failure: Failure,
    light: float | None,
    attempts: int,
) -> Record:
    """The row of an image that no worker survived."""
    image = Image(item, failure=failure)
    return replace(Steps(context, number).record(image, method, light), attempts=attempts)


class _Passes:
    """The two passes over a batch's images, with what is kept in memory between them."""

    def __init__(self, steps: Steps, keep_bytes: int = KEEP_BYTES) -> None:
        self.steps = steps
        self.free_bytes = keep_bytes
        self.keep_bytes = keep_bytes
        # Parallelism is between batches; threads inside one would only compete.
        cv2.setNumThreads(1)

    def survey(self, images: Sequence[Image]) -> None:
        """Read, decode and analyse; what fits the budget stays in memory."""
        for image, reading in self._reading_ahead(images):
            self._analyse(image, reading)
            self._keep(image)

    def finish(
        self,
        images: Sequence[Image],
        methods: Sequence[Method],
        light: float | None,
        service: Service | None,
    ) -> None:
        """Enhance, encode and write all that did not fail, surveyed before or not."""
        with ThreadPoolExecutor(WRITE_THREADS) as pool:
            write = _WriteBehind(self.steps, pool)
            feeder = Feeder[Image](service, self.steps.context.pixels_at_once) if service else None
            for image, reading in self._reading_ahead(images):
                self._analyse(image, reading)
                if "classical" in methods:
                    dehaze = partial(self.steps.dehaze, image, light)
                    write(image, "classical", image.attempt(dehaze, "classical"))
                if "absgn" in methods and image.decoded is not None:
                    assert feeder is not None
                    image.data = image.analysis = None
                    for done, restored in feeder.put(image, image.decoded.pixels):
                        self._take(done, restored, write)
                else:
                    self._forget(image)
            for done, restored in feeder.rest() if feeder else ():
                self._take(done, restored, write)
            write.all()

    def _take(self, image: Image, restored: Restored, write: _WriteBehind) -> None:
        """Go on with an image that comes back from the network."""
        image.outcome("absgn").columns["enhance_ms"] = restored.milliseconds
        write(image, "absgn", image.attempt(restored.get, "absgn"))
        self._forget(image)

    def _analyse(self, image: Image, reading: Future[bytes]) -> None:
        """Unless the first pass has done it, and it was kept."""
        if image.analysis is None:
            image.attempt(lambda: self.steps.analyse(image, reading.result()))

    def _reading_ahead(self, images: Sequence[Image]) -> Iterator[tuple[Image, Future[bytes]]]:
        """Each image with its bytes, some of them being read while earlier ones are worked on."""
        with ThreadPoolExecutor(READ_THREADS) as pool:
            ahead: deque[tuple[Image, Future[bytes]]] = deque()
            try:
                for image in images:
                    ahead.append((image, pool.submit(self.steps.read, image)))
                    if len(ahead) > READ_AHEAD:
                        yield ahead.popleft()
                yield from ahead
            finally:
                for _, reading in ahead:
                    reading.cancel()  # if nobody waits for it any more

    def _keep(self, image: Image) -> None:
        """Decide what of a surveyed image stays in memory until it is finished."""
        if image.decoded is None or image.analysis is None or image.data is None:
            return
        size = image.decoded.pixels.nbytes + image.analysis.own.nbytes
        size += 0 if image.decoded.alpha is None else image.decoded.alpha.nbytes
        reserved = self.keep_bytes * (1 - KEEP_DECODED_SHARE)
        if self.free_bytes - size >= reserved:
            image.data = None
            image.kept_bytes = size
        else:
            image.decoded = image.analysis = None
            image.kept_bytes = len(image.data) if len(image.data) <= self.free_bytes else 0
            image.data = image.data if image.kept_bytes else None
        self.free_bytes -= image.kept_bytes

    def _forget(self, image: Image) -> None:
        self.free_bytes += image.kept_bytes
        image.kept_bytes = 0
        image.data = image.decoded = image.analysis = None


class _WriteBehind:
    """Encodes in this thread and writes in others, a bounded number of images behind."""

    def __init__(self, steps: Steps, pool: ThreadPoolExecutor) -> None:
        self._steps = steps
        self._pool = pool
        self._behind: deque[tuple[Image, Method, Future[None]]] = deque()

    def __call__(self, image: Image, method: Method, pixels: Pixels | None) -> None:
        """Go on with an enhanced image; None is one that failed."""
        if pixels is None:
            return
        encoded = image.attempt(lambda: self._steps.encode(image, method, pixels), method)
        if encoded is None:
            return
        writing = self._pool.submit(self._steps.write, image, method, *encoded)
        self._behind.append((image, method, writing))
        while len(self._behind) > WRITES_BEHIND:
            self._await_oldest()

    def all(self) -> None:
        """Wait for all that is under way."""
        while self._behind:
            self._await_oldest()

    def _await_oldest(self) -> None:
        image, method, writing = self._behind.popleft()
        image.attempt(writing.result, method)


def _mean_light(images: Sequence[Image]) -> float | None:
    return batch_light([image.light for image in images if image.light is not None])
