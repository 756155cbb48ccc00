"""The steps of one image: read, decode, analyse, enhance, encode, write, record."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any

import numpy as np

from batchlight.classical import dehaze
from batchlight.classical.dehaze import DehazeParameters
from batchlight.config import JobConfig, Method
from batchlight.errors import ClusterError, ErrorCode, ImageError, UsageError
from batchlight.images import codec, names
from batchlight.images.header import read_header
from batchlight.images.image import Decoded
from batchlight.images.measures import is_flat, measure
from batchlight.images.pixels import Pixels
from batchlight.output.fence import fenced_for_worker
from batchlight.output.inputs import read_input
from batchlight.output.records import Record
from batchlight.storage import Location, Storage, open_source, open_storage
from batchlight.storage.base import INTERNAL, NameRefusedError
from batchlight.worker.image import Analysed, Image

OPEN_STORAGES = 16
"""Places that a worker stays connected to: the input, the output, the buckets of a list."""

DARKER_BY = 0.02
"""How much darker, in mean luminance from 0 to 1, an output may be: a bright image that the network
leaves as it is comes back a little darker or brighter, and nobody sees it."""


@dataclass(frozen=True)
class BatchContext:
    """What all batches of a run share."""

    config: JobConfig
    input: Location
    output: Location
    run_id: str
    fingerprints: Mapping[Method, str]
    lock: int
    """The number of the lock under which all is written."""
    pixels_at_once: int = 0
    """How many pixels of images of one shape go through the network together."""


class Steps:
    """The steps of a batch's images. Those that can fail are to be run by ``Image.attempt``."""

    def __init__(self, context: BatchContext) -> None:
        self.context = context
        self.config = context.config
        _refuse_unshared(context.input, context.output, context.run_id)
        self.input = _source(context.input, context.run_id)
        self.output = _output(context.output, context.run_id, context.lock)
        self.parameters = DehazeParameters(
            self.config.omega, self.config.t0, self.config.window, self.config.denoise == "guided"
        )

    def read(self, image: Image) -> bytes:
        """The image's bytes. Raises ``ImageError``."""
        item = image.input
        if item.defect is not None:
            raise ImageError(ErrorCode.UNSUPPORTED, item.defect)
        try:
            with _timed(image.facts, "read_ms"):
                data = read_input(item, self.input, partial(_source, run_id=self.context.run_id))
        except FileNotFoundError as error:
            raise ImageError(ErrorCode.MISSING, "vanished since it was listed") from error
        except PermissionError as error:
            raise ImageError(ErrorCode.UNREADABLE, "no permission to read it") from error
        except NameRefusedError as error:
            raise ImageError(ErrorCode.UNREADABLE, str(error)) from error
        # Here and in ``write``, as both go on in threads, beside the pixels of other images.
        digest = hashlib.sha256(data).hexdigest()
        if image.facts.setdefault("input_sha256", digest) != digest:
            raise ImageError(ErrorCode.UNREADABLE, "the file changed while it was being worked on")
        return data

    def analyse(self, image: Image, data: bytes) -> Analysed:
        """Decode an image and estimate its light."""
        with _timed(image.facts, "decode_ms"):
            header = read_header(data, self.config.max_pixels)
            image.facts |= {"width": header.width, "height": header.height}
            decoded = codec.decode(data, header)
        image.facts |= {"channels": decoded.channels, "bit_depth": decoded.bit_depth}
        with _timed(image.facts, "enhance_ms"):
            analysis = dehaze.analyse(decoded.pixels, self.parameters.window)
        image.facts |= {
            "atmospheric_light": analysis.atmospheric_light,
            "luminance_before": analysis.luminance,
        }
        return Analysed(decoded, analysis)

    def dehaze(self, image: Image, analysed: Analysed, batch_light: float | None) -> Pixels:
        """The classical method's pixels."""
        columns = image.results["classical"].columns
        with _timed(columns, "enhance_ms"):
            light = self._light_to_use(analysed.light, batch_light)
            enhanced = dehaze.enhance(
                analysed.decoded.pixels, analysed.analysis, light, self.parameters
            )
        columns["mean_transmission"] = enhanced.mean_transmission
        return enhanced.pixels

    def encode(
        self, image: Image, method: Method, decoded: Decoded, pixels: Pixels
    ) -> tuple[str, bytes]:
        """The output's path and bytes. Raises ``ImageError`` for what must not be written."""
        columns = image.results[method].columns
        brightness, clipped = measure(pixels)
        if brightness < image.facts["luminance_before"] - DARKER_BY:
            raise ImageError(ErrorCode.SUSPICIOUS_OUTPUT, "the result is darker than the input")
        if is_flat(pixels) and not is_flat(decoded.pixels):
            raise ImageError(ErrorCode.SUSPICIOUS_OUTPUT, "the result is one flat colour")
        columns |= {"luminance_after": brightness, "clipped_fraction": clipped}
        wanted = self.config.format
        format = decoded.header.format if wanted == "same" else wanted
        with _timed(columns, "encode_ms"):
            encoded = codec.encode(decoded, pixels, format, self.config.quality)
        if encoded.lost and self.config.metadata == "strict":
            named = ", ".join(encoded.lost)
            reason = f"would be lost, which --metadata strict does not allow: {named}"
            raise ImageError(ErrorCode.UNSUPPORTED, reason)
        data = encoded.data
        path = names.output_path(method, image.input.path, self.config.format)
        columns |= {"format": format, "output": path, "output_bytes": len(data)}
        columns["lost"] = encoded.lost or None
        return path, data

    def write(self, image: Image, method: Method, path: str, data: bytes) -> None:
        """Put an encoded image where it belongs. Raises ``ImageError``."""
        columns = image.results[method].columns
        columns["output_sha256"] = hashlib.sha256(data).hexdigest()
        try:
            with _timed(columns, "write_ms"):
                self.output.write(path, data)
        except NameRefusedError as error:
            raise ImageError(ErrorCode.WRITE_FAILED, str(error)) from error
        columns["finished_at"] = datetime.now(UTC)

    def _light_to_use(self, own: float, batch_light: float | None) -> float:
        """The larger of the two in a batch: a pixel brighter than the light would turn black."""
        chosen = self.config.atmospheric_light
        if chosen == "batch":
            return own if batch_light is None else max(batch_light, own)
        return own if chosen == "image" else float(chosen)


def as_record(
    context: BatchContext, number: int, image: Image, method: Method, light: float | None
) -> Record:
    """The row of an image of batch ``number``, as it stands; ``light`` is that of the batch."""
    item, result = image.input, image.results[method]
    failure = image.failure or result.failure
    of_output = {} if failure else result.columns
    columns = image.facts | of_output
    if "enhance_ms" in image.facts:  # the analysis is part of it
        columns["enhance_ms"] = image.facts["enhance_ms"] + of_output.get("enhance_ms", 0.0)
    columns.setdefault("finished_at", datetime.now(UTC))
    return Record(
        input=item.path,
        method=method,
        status="failed" if failure else "ok",
        error_code=failure.code.value if failure else None,
        error=failure.message if failure else None,
        input_bytes=item.size,
        input_etag=item.etag,
        input_modified=item.modified,
        batch=number,
        batch_atmospheric_light=light,
        attempts=image.deaths + (0 if failure and failure.deadly else 1),
        worker=f"{socket.gethostname()}:{os.getpid()}",
        run_id=context.run_id,
        fingerprint=context.fingerprints[method],
        **columns,
    )


def compile_kernels() -> None:
    """Compile what the pixels of 8-bit images go through: seconds on a new installation.

    Later processes find the result in numba's cache.
    """
    black = np.zeros((1, 1, 3), np.uint8)
    analysis = dehaze.analyse(black, window=1)
    enhanced = dehaze.enhance(black, analysis, analysis.atmospheric_light, DehazeParameters())
    measure(enhanced.pixels)


@lru_cache(maxsize=OPEN_STORAGES)
def _source(location: Location, run_id: str) -> Storage:
    """One connection pool for each place, process and run, not for each batch."""
    return open_source(location)


@lru_cache(maxsize=OPEN_STORAGES)
def _output(location: Location, run_id: str, lock: int) -> Storage:
    """The same for what is written; it remembers when it looked at the locks last."""
    return fenced_for_worker(open_storage(location), lock, str(location))


@lru_cache(maxsize=OPEN_STORAGES)
def _refuse_unshared(source: Location, output: Location, run_id: str) -> None:
    """Raise ``ClusterError`` in a process that does not see the folders of the driver.

    On a node with folders of its own, every image would be missing, or written where nobody looks.
    """
    for place in (source, output.joined(INTERNAL)):
        try:
            if not place.remote:
                open_storage(place).check(writable=False)
        except UsageError as error:
            raise ClusterError(
                f"the worker on {socket.gethostname()} does not see {place}; a cluster needs an "
                "object store, or folders that all its nodes share"
            ) from error


@contextmanager
def _timed(times: dict[str, Any], name: str) -> Iterator[None]:
    """Add the milliseconds that the block takes."""
    started = time.perf_counter()
    try:
        yield
    finally:
        times[name] = times.get(name, 0.0) + (time.perf_counter() - started) * 1000
