"""One batch, from listed inputs to committed records: read, decode, enhance, encode, write.

The batch's atmospheric light is the mean over its images, so it takes two passes. The first
surveys: it reads, decodes and analyses every image. The second finishes: it enhances with every
method, encodes and writes; the network, which lives elsewhere, is fed ahead. In between, a worker
keeps decoded images up to a budget, beyond that their encoded bytes, beyond that nothing and reads
again; so its memory is bounded by the budget and the largest image.

Reading ahead and writing behind go on in threads while this one computes. The only ``try`` around
an image is ``attempt``: whatever happens to one becomes its row, and its neighbours never know.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from batchlight import codec, dehaze
from batchlight.codec import Decoded
from batchlight.config import JobConfig, Method
from batchlight.dehaze import Analysis, DehazeParameters
from batchlight.errors import BatchlightError, ErrorCode, ImageError, brief
from batchlight.feeding import Feeder, Service
from batchlight.header import read_header
from batchlight.inputs import Input
from batchlight.records import Record, Tally, write_part
from batchlight.storage import Location, Storage, open_storage
from batchlight.storage.base import NameRefusedError

if TYPE_CHECKING:
    from batchlight.absgn.restored import Restored

Pixels = npt.NDArray[Any]
T = TypeVar("T")

KEEP_BYTES = 256 * 2**20
"""Budget for what a worker keeps between the two passes, encoded and decoded."""
KEEP_DECODED_SHARE = 0.75
READ_THREADS = 4
READ_AHEAD = 8
WRITE_THREADS = 4
WRITES_BEHIND = 8

OPEN_STORAGES = 16
"""Places that a worker stays connected to: the input, the output, the buckets of a list."""

_LUMINANCE = {1: (1.0,), 3: (0.114, 0.587, 0.299)}
"""Weights of the channels (gray, or blue, green, red) by ITU-R BT.601."""

DARKER_BY = 0.5 / 255
"""How much darker, in mean luminance, an output must be before rounding is no excuse."""


@dataclass(frozen=True)
class Batch:
    """The unit of the average, of a task and of a commit."""

    number: int
    methods: tuple[Method, ...]
    inputs: tuple[Input, ...]


@dataclass(frozen=True)
class BatchContext:
    """What all batches of a run share."""

    config: JobConfig
    input: Location
    output: Location
    run_id: str
    fingerprints: Mapping[Method, str]
    pixels_at_once: int = 0
    """How many pixels of images of one shape go through the network together."""


@dataclass(frozen=True)
class BatchResult:
    """What the driver hears of a batch: never pixels, never rows."""

    tally: Tally


@dataclass(frozen=True)
class Failure:
    """Why an image failed."""

    code: ErrorCode
    message: str


@dataclass(frozen=True)
class Survey:
    """What the first pass found out about one image: enough for the batch's mean."""

    atmospheric_light: float | None
    failure: Failure | None


def run_batch(context: BatchContext, service: Service | None, batch: Batch) -> BatchResult:
    """Do a whole batch and commit it; ``service`` holds the network, if a method needs it.

    Raises ``StorageError`` for trouble that is no image's fault, and ``MemoryError``.
    """
    worker = _BatchWorker(context, batch.number)
    images = [_Image(item) for item in batch.inputs]
    if "classical" in batch.methods and context.config.atmospheric_light == "batch":
        worker.survey(images)
    worker.finish(images, batch.methods, _mean_light(images), service)
    light = _mean_light(images)
    records = [worker.record(image, m, light) for image in images for m in batch.methods]
    return BatchResult(write_part(worker.output, batch.number, records))


def survey_images(context: BatchContext, number: int, inputs: Sequence[Input]) -> list[Survey]:
    """Only the first pass, over some images of a batch: the isolation of one that kills."""
    images = [_Image(item) for item in inputs]
    _BatchWorker(context, number, keep_bytes=0).survey(images)
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
    worker = _BatchWorker(context, number, keep_bytes=0)
    images = [_Image(item) for item in inputs]
    worker.finish(images, (method,), light, service)
    return [worker.record(image, method, light) for image in images]


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
    image = _Image(item, failure=failure)
    return replace(_BatchWorker(context, number).record(image, method, light), attempts=attempts)


@dataclass
class _Outcome:
    """What one method made of one image."""

    failure: Failure | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    """Columns of its record that tell of the output."""


@dataclass
class _Image:
    """One image on its way through a batch."""

    input: Input
    failure: Failure | None = None
    """Of reading it: no method can do anything with it."""
    data: bytes | None = None
    decoded: Decoded | None = None
    analysis: Analysis | None = None
    light: float | None = None
    kept_bytes: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    """Columns of its record that tell of the input."""
    outcomes: dict[Method, _Outcome] = field(default_factory=dict)

    def outcome(self, method: Method) -> _Outcome:
        """Made when first asked for."""
        return self.outcomes.setdefault(method, _Outcome())


class _BatchWorker:
    def __init__(self, context: BatchContext, number: int, keep_bytes: int = KEEP_BYTES) -> None:
        self.config = context.config
        self.context = context
        self.number = number
        self.input = _storage(context.input, context.run_id)
        self.output = _storage(context.output, context.run_id)
        self.parameters = DehazeParameters(
            self.config.omega, self.config.t0, self.config.window, self.config.denoise == "guided"
        )
        self.free_bytes = keep_bytes
        self.keep_bytes = keep_bytes
        # Parallelism is between batches; threads inside one would only compete.
        cv2.setNumThreads(1)

    def survey(self, images: Sequence[_Image]) -> None:
        """Read, decode and analyse; what fits the budget stays in memory."""
        for image, reading in self._reading_ahead(images):
            self.attempt(image, partial(self._analyse, reading=reading))
            self._keep(image)

    def finish(
        self,
        images: Sequence[_Image],
        methods: Sequence[Method],
        light: float | None,
        service: Service | None,
    ) -> None:
        """Enhance, encode and write all that did not fail, surveyed before or not."""
        with ThreadPoolExecutor(WRITE_THREADS) as pool:
            write = _WriteBehind(self, pool)
            feeder = Feeder[_Image](service, self.context.pixels_at_once) if service else None
            for image, reading in self._reading_ahead(images):
                if image.analysis is None:
                    self.attempt(image, partial(self._analyse, reading=reading))
                if "classical" in methods:
                    write(image, "classical", self._dehaze(image, light))
                if "absgn" not in methods or image.decoded is None:
                    self._forget(image)
                    continue
                assert feeder is not None
                image.data = image.analysis = None
                for done, restored in feeder.put(image, image.decoded.pixels):
                    self._take(done, restored, write)
            for done, restored in feeder.rest() if feeder else ():
                self._take(done, restored, write)
            write.all()

    def record(self, image: _Image, method: Method, light: float | None) -> Record:
        """The image's row as it stands."""
        item, outcome = image.input, image.outcome(method)
        failure = image.failure or outcome.failure
        columns = image.facts | ({} if failure else outcome.columns)
        if (analysis := columns.pop("analyse_ms", None)) is not None:
            columns["enhance_ms"] = analysis + columns.get("enhance_ms", 0.0)
        return Record(
            input=item.path,
            method=method,
            status="failed" if failure else "ok",
            error_code=failure.code.value if failure else None,
            error=failure.message if failure else None,
            input_bytes=item.size,
            input_etag=item.etag,
            input_modified=item.modified,
            batch=self.number,
            batch_atmospheric_light=light,
            attempts=1,
            worker=f"{socket.gethostname()}:{os.getpid()}",
            run_id=self.context.run_id,
            fingerprint=self.context.fingerprints[method],
            finished_at=datetime.now(UTC),
            **columns,
        )

    def attempt(
        self, image: _Image, step: Callable[[_Image], T], method: Method | None = None
    ) -> T | None:
        """Run one step of one image; its failure becomes the image's, unless it is everybody's.

        With a ``method``, it is the failure of that method alone.
        """
        suffering = image if method is None else image.outcome(method)
        if image.failure is not None or suffering.failure is not None:
            return None
        try:
            return step(image)
        except (BatchlightError, MemoryError):
            raise
        except ImageError as error:
            suffering.failure = Failure(error.code, error.message)
        except FileNotFoundError:
            suffering.failure = Failure(ErrorCode.MISSING, "vanished since it was listed")
        except PermissionError:
            suffering.failure = Failure(ErrorCode.UNREADABLE, "no permission to read it")
        except NameRefusedError as error:
            suffering.failure = Failure(ErrorCode.WRITE_FAILED, str(error))
        except Exception as error:
            suffering.failure = Failure(ErrorCode.CRASH, f"{type(error).__name__}: {brief(error)}")
        return None

    def _reading_ahead(self, images: Sequence[_Image]) -> Iterator[tuple[_Image, Future[bytes]]]:
        """Each image with its bytes, some of them being read while earlier ones are worked on."""
        with ThreadPoolExecutor(READ_THREADS) as pool:
            ahead: deque[tuple[_Image, Future[bytes]]] = deque()
            for image in images:
                ahead.append((image, pool.submit(self._read, image)))
                if len(ahead) > READ_AHEAD:
                    yield ahead.popleft()
            yield from ahead

    def _read(self, image: _Image) -> bytes:
        """The image's bytes, from memory if they were kept; empty where they are not needed."""
        item = image.input
        if image.failure is not None or image.analysis is not None:
            return b""
        if image.data is not None:
            return image.data
        if item.defect is not None:
            raise ImageError(ErrorCode.UNSUPPORTED, item.defect)
        with _timed(image.facts, "read_ms"):
            if item.source is None:
                return self.input.read(item.path)
            top, below = Location.parse(item.source).split_at_top()
            return _storage(top, self.context.run_id).read(below)

    def _analyse(self, image: _Image, reading: Future[bytes]) -> None:
        data = reading.result()
        digest = hashlib.sha256(data).hexdigest()
        if image.facts.setdefault("input_sha256", digest) != digest:
            raise ImageError(ErrorCode.UNREADABLE, "the file changed while it was being worked on")
        with _timed(image.facts, "decode_ms"):
            header = read_header(data, self.config.max_pixels)
            image.facts |= {"width": header.width, "height": header.height}
            decoded = codec.decode(data, header)
        image.facts |= {"channels": decoded.channels, "bit_depth": decoded.bit_depth}
        with _timed(image.facts, "analyse_ms"):
            analysis = dehaze.analyse(decoded.pixels, self.parameters.window)
        image.light = analysis.atmospheric_light
        image.facts |= {
            "atmospheric_light": image.light,
            "luminance_before": _luminance(decoded.pixels),
        }
        image.data, image.decoded, image.analysis = data, decoded, analysis

    def _keep(self, image: _Image) -> None:
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

    def _forget(self, image: _Image) -> None:
        self.free_bytes += image.kept_bytes
        image.kept_bytes = 0
        image.data = image.decoded = image.analysis = None

    def _dehaze(self, image: _Image, batch_light: float | None) -> Pixels | None:
        """The classical method's pixels; None if they, or those they come of, cannot be had."""

        def step(image: _Image) -> Pixels:
            decoded, analysis = image.decoded, image.analysis
            assert decoded is not None
            assert analysis is not None
            columns = image.outcome("classical").columns
            with _timed(columns, "enhance_ms"):
                light = self._light_to_use(analysis.atmospheric_light, batch_light)
                enhanced = dehaze.enhance(decoded.pixels, analysis, light, self.parameters)
            columns["mean_transmission"] = enhanced.mean_transmission
            return enhanced.pixels

        return self.attempt(image, step, "classical")

    def _take(self, image: _Image, restored: Restored, write: _WriteBehind) -> None:
        """Go on with an image that comes back from the network."""
        image.outcome("absgn").columns["enhance_ms"] = restored.milliseconds
        write(image, "absgn", self.attempt(image, lambda _: restored.get(), "absgn"))
        self._forget(image)

    def encode(self, image: _Image, method: Method, pixels: Pixels) -> tuple[str, bytes]:
        """The output's path and bytes. Raises ``ImageError`` for what must not be written."""
        decoded = image.decoded
        assert decoded is not None
        columns = image.outcome(method).columns
        columns |= {
            "luminance_after": _luminance(pixels),
            "clipped_fraction": np.count_nonzero(pixels == np.iinfo(pixels.dtype).max)
            / pixels.size,
        }
        _refuse_suspicious(decoded.pixels, pixels)
        wanted = self.config.format
        format = decoded.header.format if wanted == "same" else wanted
        with _timed(columns, "encode_ms"):
            data = codec.encode(decoded, pixels, format, self.config.quality)
        path = f"{method}/{codec.output_name(image.input.path, self.config.format)}"
        columns |= {
            "format": format,
            "output": path,
            "output_bytes": len(data),
            "output_sha256": hashlib.sha256(data).hexdigest(),
        }
        return path, data

    def _light_to_use(self, own: float, batch_light: float | None) -> float:
        """The larger of the two in a batch: a pixel brighter than the light would turn black."""
        chosen = self.config.atmospheric_light
        if chosen == "batch":
            return own if batch_light is None else max(batch_light, own)
        return own if chosen == "image" else float(chosen)

    def write(self, image: _Image, method: Method, path: str, data: bytes) -> None:
        """Put an encoded image where it belongs."""
        with _timed(image.outcome(method).columns, "write_ms"):
            self.output.write(path, data)


class _WriteBehind:
    """Encodes in this thread and writes in others, a bounded number of images behind."""

    def __init__(self, worker: _BatchWorker, pool: ThreadPoolExecutor) -> None:
        self._worker = worker
        self._pool = pool
        self._behind: deque[tuple[_Image, Method, Future[None]]] = deque()

    def __call__(self, image: _Image, method: Method, pixels: Pixels | None) -> None:
        if pixels is None:
            return
        encoded = self._worker.attempt(
            image, lambda i: self._worker.encode(i, method, pixels), method
        )
        if encoded is None:
            return
        writing = self._pool.submit(self._worker.write, image, method, *encoded)
        self._behind.append((image, method, writing))
        while len(self._behind) > WRITES_BEHIND:
            self._await_oldest()

    def all(self) -> None:
        """Wait for all that is under way."""
        while self._behind:
            self._await_oldest()

    def _await_oldest(self) -> None:
        image, method, writing = self._behind.popleft()
        self._worker.attempt(image, lambda _: writing.result(), method)


def _mean_light(images: Sequence[_Image]) -> float | None:
    return dehaze.batch_light([image.light for image in images if image.light is not None])


@lru_cache(maxsize=OPEN_STORAGES)
def _storage(location: Location, run_id: str) -> Storage:
    """One connection pool for each place, process and run, not for each batch."""
    return open_storage(location)


@contextmanager
def _timed(times: dict[str, Any], name: str) -> Iterator[None]:
    """Add the milliseconds that the block takes."""
    started = time.perf_counter()
    try:
        yield
    finally:
        times[name] = times.get(name, 0.0) + (time.perf_counter() - started) * 1000


def _luminance(pixels: Pixels) -> float:
    """Mean luminance, 0..1."""
    weights = _LUMINANCE[1 if pixels.ndim == 2 else 3]
    means = cv2.mean(pixels)[: len(weights)]
    return float(np.dot(weights, means)) / float(np.iinfo(pixels.dtype).max)


def _refuse_suspicious(before: Pixels, after: Pixels) -> None:
    """Raise ``ImageError`` for a result that no enhancement should give."""
    if _luminance(after) < _luminance(before) - DARKER_BY:
        raise ImageError(ErrorCode.SUSPICIOUS_OUTPUT, "the result is darker than the input")
    if after.min() == after.max() and before.min() != before.max():
        raise ImageError(ErrorCode.SUSPICIOUS_OUTPUT, "the result is one flat colour")
