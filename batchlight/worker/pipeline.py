"""One batch, from listed inputs to committed records: read, decode, enhance, encode, write.

The batch's atmospheric light is the mean over its images, known only when all are analysed, and an
image is enhanced with that mean or its own light, whichever is larger. So an image whose own light
the mean can no longer exceed, as most of the dark ones are, goes straight through; only the others
wait. While they wait, a worker keeps them decoded up to a budget, beyond that their encoded bytes,
beyond that nothing and reads again; so its memory is bounded by the budget and the largest image.
The network, which lives elsewhere and knows no light, is fed ahead.

Reading ahead and writing behind go on in threads while this one computes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

import pyarrow as pa
import pyarrow.compute as pc

from batchlight.classical.light import MeanLight, batch_light
from batchlight.config import Method
from batchlight.engine.base import Service
from batchlight.host.process import one_opencv_thread
from batchlight.images.pixels import Pixels
from batchlight.output.inputs import Batch, Input
from batchlight.output.recordfiles import write_part
from batchlight.output.records import STAGES, Record, Tally
from batchlight.worker.network_client import Feeder
from batchlight.worker.steps import BatchContext, Failure, Image, Steps, as_record

if TYPE_CHECKING:
    from batchlight.absgn.result import Restored

KEEP_BYTES = 256 * 2**20
"""Budget for what a worker keeps of images that wait for their batch's light."""
KEEP_DECODED_SHARE = 0.75
"""Of the budget, while more images are to come; the rest is for encoded bytes."""
READ_THREADS = 4
READ_AHEAD = 8
WRITE_THREADS = 4
WRITES_BEHIND = 8
GROUP_BYTES = 2**20
GROUP_FILES = 16
"""Small files go to a thread together, since waking it takes as long as reading one of them."""


@dataclass(frozen=True)
class BatchResult:
    """What the driver hears of a batch: never pixels, never rows."""

    tallies: Mapping[str, Tally]
    """By method."""
    stages_s: Mapping[str, float]
    """What the time of all images went into: read, decode, enhance, encode, write."""
    network_s: float
    """How long the network computed."""

    @property
    def tally(self) -> Tally:
        """Of all methods."""
        return sum(self.tallies.values(), Tally())

    @classmethod
    def of(cls, rows: pa.Table) -> BatchResult:
        """Count the rows of a batch."""
        names = pc.unique(rows["method"]).to_pylist()
        methods = {name: rows.filter(pc.equal(rows["method"], name)) for name in names}
        return cls(
            {name: Tally.of(its) for name, its in methods.items()},
            {stage.removesuffix("_ms"): _seconds(rows, stage) for stage in STAGES},
            _seconds(methods["absgn"], "enhance_ms") if "absgn" in methods else 0.0,
        )


@dataclass(frozen=True)
class Survey:
    """What was found out about one image: enough for the batch's mean."""

    atmospheric_light: float | None
    failure: Failure | None


def run_batch(context: BatchContext, service: Service | None, batch: Batch) -> BatchResult:
    """Do a whole batch and commit it; ``service`` holds the network, if a method needs it.

    Raises ``StorageError`` for trouble that is no image's fault, and ``MemoryError``.
    """
    steps = Steps(context)
    images = [Image(item) for item in batch.inputs]
    shares_light = context.config.atmospheric_light == "batch" and "classical" in batch.methods
    with _Pipeline(steps, batch.methods, service) as pipeline:
        pipeline.work(images, shares_light)
    light = _mean_light(images)
    records = [
        as_record(context, batch.number, image, method, light)
        for image in images
        for method in batch.methods
    ]
    return BatchResult.of(write_part(steps.output, batch.number, records))


def survey_images(context: BatchContext, inputs: Sequence[Input]) -> list[Survey]:
    """Only read, decode and analyse some images of a batch: the isolation of one that kills."""
    images = [Image(item) for item in inputs]
    with _Pipeline(Steps(context), (), None) as pipeline:
        pipeline.work(images, shares_light=False)
    return [Survey(image.light, image.failure) for image in images]


def finish_images(
    context: BatchContext,
    number: int,
    method: Method,
    light: float | None,
    service: Service | None,
    inputs: Sequence[Input],
) -> list[Record]:
    """Do some images of a batch whose light is known, with one method."""
    images = [Image(item) for item in inputs]
    with _Pipeline(Steps(context), (method,), service) as pipeline:
        pipeline.finish(images, light)
    return [as_record(context, number, image, method, light) for image in images]


class _Pipeline:
    """What a batch's images go through, and what of them is kept in memory on the way."""

    def __init__(self, steps: Steps, methods: Sequence[Method], service: Service | None) -> None:
        self.steps = steps
        self.methods = methods
        self.free_bytes = KEEP_BYTES
        self._exits = ExitStack()
        self._writers = ThreadPoolExecutor(WRITE_THREADS)
        self._write = _WriteBehind(steps, self._writers)
        at_once = steps.context.pixels_at_once
        self._feeder = Feeder[Image](service, at_once) if service else None

    def __enter__(self) -> Self:
        self._exits.enter_context(one_opencv_thread())
        self._exits.callback(self._writers.shutdown)
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def work(self, images: Sequence[Image], shares_light: bool) -> None:
        """Do all images, each as soon as the light that it is enhanced with is known."""
        waiting, mean = [], MeanLight(len(images))
        to_come = sum(image.input.size or 0 for image in images)
        for image, data in self._reading_ahead(images):
            self._analyse(image, data)
            mean.add(image.light)
            to_come -= image.input.size or 0
            if shares_light and image.light is not None and image.light < mean.at_most:
                self._keep(image, to_come)
                waiting.append(image)
            else:
                self._enhance(image, None)
        self.finish(waiting, mean.so_far)

    def finish(self, images: Sequence[Image], light: float | None) -> None:
        """Do images with the batch's light, analysed before or not, and wait for all writing."""
        for image, data in self._reading_ahead(images):
            self._analyse(image, data)
            self._enhance(image, light)
        if self._feeder is not None:
            for done, restored in self._feeder.rest():
                self._take(done, restored)
        self._write.flush()
        self.steps.output.sync()  # before a part tells that they are there

    def _enhance(self, image: Image, light: float | None) -> None:
        """Enhance, encode and write an image that is analysed; without ``light``, with its own."""
        if "classical" in self.methods:
            dehaze = partial(self.steps.dehaze, image, light)
            self._write(image, "classical", image.attempt(dehaze, "classical"))
        if "absgn" in self.methods and image.decoded is not None:
            assert self._feeder is not None
            image.data = image.analysis = None
            for done, restored in self._feeder.put(image, image.decoded.pixels):
                self._take(done, restored)
        else:
            self._forget(image)

    def _take(self, image: Image, restored: Restored) -> None:
        """Go on with an image that comes back from the network."""
        image.outcome("absgn").columns["enhance_ms"] = restored.milliseconds
        self._write(image, "absgn", image.attempt(restored.get, "absgn"))
        self._forget(image)

    def _analyse(self, image: Image, data: bytes | None) -> None:
        """Unless it has been analysed before, and was kept."""
        if image.analysis is None and data is not None:
            image.attempt(partial(self.steps.analyse, image, data))

    def _reading_ahead(self, images: Sequence[Image]) -> Iterator[tuple[Image, bytes | None]]:
        """Each image with its bytes, some of them being read while earlier ones are worked on."""
        with ThreadPoolExecutor(READ_THREADS) as pool:
            ahead: deque[Future[list[tuple[Image, bytes | None]]]] = deque()
            try:
                for group in _groups(images):
                    ahead.append(pool.submit(self._read, group))
                    if len(ahead) > READ_AHEAD:
                        yield from ahead.popleft().result()
                while ahead:
                    yield from ahead.popleft().result()
            finally:
                for reading in ahead:
                    reading.cancel()  # if nobody waits for it any more

    def _read(self, group: Sequence[Image]) -> list[tuple[Image, bytes | None]]:
        return [(image, image.attempt(partial(self.steps.read, image))) for image in group]

    def _keep(self, image: Image, to_come: int) -> None:
        """Decide what of an image that waits stays in memory; ``to_come``: bytes of the others."""
        if image.decoded is None or image.analysis is None or image.data is None:
            return
        size = image.decoded.pixels.nbytes + image.analysis.own.nbytes
        size += 0 if image.decoded.alpha is None else image.decoded.alpha.nbytes
        reserved = min(to_come, KEEP_BYTES * (1 - KEEP_DECODED_SHARE))
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
    """Encodes in this thread and writes in others, a bounded number of groups behind."""

    def __init__(self, steps: Steps, pool: ThreadPoolExecutor) -> None:
        self._steps = steps
        self._pool = pool
        self._group: list[Callable[[], None]] = []
        self._group_bytes = 0
        self._behind: deque[Future[None]] = deque()

    def __call__(self, image: Image, method: Method, pixels: Pixels | None) -> None:
        """Go on with an enhanced image; None is one that failed."""
        if pixels is None:
            return
        encoded = image.attempt(partial(self._steps.encode, image, method, pixels), method)
        if encoded is None:
            return
        write = partial(self._steps.write, image, method, *encoded)
        self._group.append(partial(image.attempt, write, method))
        self._group_bytes += len(encoded[1])
        if _is_full(self._group, self._group_bytes):
            self._send()

    def flush(self) -> None:
        """Wait for all that is under way."""
        self._send()
        while self._behind:
            self._behind.popleft().result()

    def _send(self) -> None:
        self._behind.append(self._pool.submit(_do_all, self._group))
        self._group, self._group_bytes = [], 0
        while len(self._behind) > WRITES_BEHIND:
            self._behind.popleft().result()


def _groups(images: Iterable[Image]) -> Iterator[list[Image]]:
    """Images to read at once, by their sizes as listed."""
    group, size = [], 0
    for image in images:
        group.append(image)
        size += image.input.size or 0
        if _is_full(group, size):
            yield group
            group, size = [], 0
    if group:
        yield group


def _seconds(rows: pa.Table, stage: str) -> float:
    return (pc.sum(rows[stage]).as_py() or 0.0) / 1000


def _is_full(group: Sequence[object], size: int) -> bool:
    return size >= GROUP_BYTES or len(group) >= GROUP_FILES


def _do_all(group: Iterable[Callable[[], None]]) -> None:
    for do in group:
        do()


def _mean_light(images: Sequence[Image]) -> float | None:
    return batch_light([image.light for image in images if image.light is not None])
