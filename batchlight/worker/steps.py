"""The steps of one image: read, decode, analyse, enhance, encode, write, record."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from batchlight.classical import dehaze
from batchlight.classical.dehaze import DehazeParameters
from batchlight.config import Format, JobConfig, Method
from batchlight.errors import ErrorCode, ImageError
from batchlight.host.abandoned import this_call
from batchlight.images import codec, names
from batchlight.images.header import read_header
from batchlight.images.image import Decoded
from batchlight.images.measures import is_flat, measure
from batchlight.images.mixing import mix
from batchlight.images.pixels import Pixels, only
from batchlight.output.inputs import Input, place_of, read_input
from batchlight.output.records import Record
from batchlight.shards.inventory import bytes_in
from batchlight.storage import EVERYONE, Location, Storage
from batchlight.worker.context import BatchContext
from batchlight.worker.image import Analysed, Image, of_one_input, of_one_output
from batchlight.worker.places import output_of, refuse_unshared, source_of

if TYPE_CHECKING:
    from batchlight.absgn.result import Restored

DARKER_BY = 0.02
"""How much darker, in mean luminance from 0 to 1, an output may be: a bright image that the network
leaves unchanged comes back slightly darker or brighter, which nobody sees."""

_OF_FAILED = ("luminance_after", "clipped_fraction")
"""Columns on the output that the row of a failed image contains, as far as known."""


class ImageSteps:
    """All steps except writing. Run those that can fail through ``Image.attempt``."""

    def __init__(
        self, config: JobConfig, root: Location, opened: Callable[[Location], Storage]
    ) -> None:
        """``opened`` returns the storage of the root, and of images of a list outside it."""
        self.config = config
        self.opened = opened
        self.input = opened(root)
        self.require_wanted = this_call()
        """Raises ``AbandonedError`` once nobody waits for this batch."""
        self.parameters = DehazeParameters.of(config)

    def read(self, image: Image) -> bytes:
        """The image's bytes. Raises ``ImageError``."""
        self.require_wanted()
        item = image.input
        if item.defect is not None:
            raise ImageError.unsupported(item.defect)
        with of_one_input(), timed(image.facts, "read_ms"):
            data = self.bytes_of(item)
        image.read_bytes += len(data)
        # Here and in ``write``, since both run in threads, beside the computation on other images.
        digest = hashlib.sha256(data).hexdigest()
        if image.facts.setdefault("input_sha256", digest) != digest:
            raise ImageError(ErrorCode.UNREADABLE, "the file changed while it was being processed")
        return data

    def bytes_of(self, item: Input) -> bytes:
        """The file of an image, or its bytes in a container. Raises as ``Storage.read``."""
        if item.inside is None:
            return read_input(item, self.input, self.opened)
        return bytes_in(item, self.input, self.opened)

    def path_of(self, method: Method, item: Input) -> str:
        """The output path of an image."""
        return names.output_path(method, item.path, self.config.format)

    def analyse(self, image: Image, data: bytes) -> Analysed:
        """Decode an image and estimate its light."""
        with timed(image.facts, "decode_ms"):
            header = read_header(data, self.config.max_pixels)
            image.facts |= {"width": header.width, "height": header.height}
            decoded = codec.decode(data, header)
        image.facts |= {"channels": decoded.channels, "bit_depth": decoded.bit_depth}
        with timed(image.facts, "enhance_ms"):
            analysis = dehaze.analyse(
                decoded.pixels, self.parameters.window, visible=decoded.visible
            )
        image.facts |= {
            "atmospheric_light": analysis.atmospheric_light,
            "luminance_before": analysis.luminance,
        }
        image.skipped = not self.config.is_dark(analysis.luminance)
        return Analysed(decoded, analysis)

    def dehaze(self, image: Image, analysed: Analysed, batch_light: float | None) -> Pixels:
        """The pixels that the classical method makes."""
        columns = image.results["classical"].columns
        with timed(columns, "enhance_ms"):
            light = self._light_to_use(analysed.light, batch_light)
            enhanced = dehaze.enhance(
                analysed.decoded.pixels, analysed.analysis, light, self.parameters
            )
        columns |= {"omega": enhanced.omega, "mean_transmission": enhanced.mean_transmission}
        return enhanced.pixels

    def encode(
        self, image: Image, method: Method, decoded: Decoded, pixels: Pixels
    ) -> tuple[str, bytes]:
        """The output's path and bytes. Raises ``ImageError`` if it must not be written.

        ``pixels``: those of the method; mixed with the image's own according to ``--strength``.
        """
        columns = image.results[method].columns
        with timed(columns, "enhance_ms"):
            pixels = mix(decoded.pixels, pixels, self.config.strength)
        brightness, clipped = measure(only(pixels, decoded.visible))
        columns |= {"luminance_after": brightness, "clipped_fraction": clipped}
        if brightness < image.facts["luminance_before"] - DARKER_BY:
            raise ImageError(ErrorCode.SUSPICIOUS_OUTPUT, "the result is darker than the input")
        if is_flat(pixels) and not is_flat(decoded.pixels):
            raise ImageError(ErrorCode.SUSPICIOUS_OUTPUT, "the result is one flat colour")
        return self._encoded(image, method, decoded, pixels)

    def copy(
        self, image: Image, method: Method, decoded: Decoded, data: bytes
    ) -> tuple[str, bytes]:
        """The output's path and bytes for an image that is not dark.

        ``data``: the file, which is the output unless that has another format. Raises
        ``ImageError`` for what that format cannot hold.
        """
        brightness, clipped = measure(only(decoded.pixels, decoded.visible))
        image.results[method].columns |= {
            "luminance_after": brightness,
            "clipped_fraction": clipped,
        }
        if self._format_of(decoded) == decoded.header.format:
            return self._named(image, method, decoded, data)
        return self._encoded(image, method, decoded, decoded.pixels)

    def _encoded(
        self, image: Image, method: Method, decoded: Decoded, pixels: Pixels
    ) -> tuple[str, bytes]:
        columns = image.results[method].columns
        with timed(columns, "encode_ms"):
            encoded = codec.encode(decoded, pixels, self._format_of(decoded), self.config.quality)
        if encoded.lost and self.config.metadata == "strict":
            named = ", ".join(encoded.lost)
            reason = f"would be lost, which --metadata strict does not allow: {named}"
            raise ImageError.unsupported(reason)
        columns["lost"] = encoded.lost or None
        return self._named(image, method, decoded, encoded.data)

    def _named(
        self, image: Image, method: Method, decoded: Decoded, data: bytes
    ) -> tuple[str, bytes]:
        """The output with its path."""
        path = self.path_of(method, image.input)
        image.results[method].columns |= {
            "format": self._format_of(decoded),
            "output": path,
            "output_bytes": len(data),
        }
        return path, data

    def _format_of(self, decoded: Decoded) -> Format:
        """The format of an image's output."""
        return decoded.header.format if self.config.format == "same" else self.config.format

    def _light_to_use(self, own: float, batch_light: float | None) -> float:
        """In a batch, the larger of the two: a pixel brighter than the light would turn black."""
        chosen = self.config.atmospheric_light
        if chosen == "batch":
            return own if batch_light is None else max(batch_light, own)
        return own if chosen == "image" else float(chosen)


class Steps(ImageSteps):
    """The steps of a batch's images."""

    def __init__(self, context: BatchContext) -> None:
        refuse_unshared(context.input, context.output, context.run_id)
        opened = partial(source_of, follow_links=context.follow_links, run_id=context.run_id)
        super().__init__(context.config, context.input, opened)
        self.context = context
        self.output = output_of(context.output, context.run_id, context.lock)

    def read(self, image: Image) -> bytes:
        """The image's bytes; also notes who may read them. Raises ``ImageError``."""
        data = super().read(image)
        image.permissions = self.permissions_of(image.input)
        return data

    @property
    def reads_ahead(self) -> bool:
        """Whether it is worth reading images in threads before their turn."""
        return True

    def permissions_of(self, item: Input) -> int:
        """Who may read the file of an image, as permission bits for its output."""
        if self.context.output.remote:
            return EVERYONE
        storage, path = place_of(item, self.input, self.opened)
        return storage.permissions(path, self.context.output.path)

    def begin(self, image: Image, decoded: Decoded) -> Pixels:
        """The network's input for an image."""
        if self.context.start is None:
            return decoded.pixels
        with timed(image.results["absgn"].columns, "enhance_ms"):
            return self.context.start.before(decoded.pixels)

    def end(self, image: Image, decoded: Decoded, given: Pixels, restored: Restored) -> Pixels:
        """The final pixels of an image that was sent to the network.

        Raises ``ImageError`` for an image that the network could not process.
        """
        columns = image.results["absgn"].columns
        columns["network_ms"] = restored.milliseconds
        columns["enhance_ms"] = columns.get("enhance_ms", 0.0) + restored.milliseconds
        pixels = restored.get()
        if self.context.start is None:
            return pixels
        with timed(columns, "enhance_ms"):
            return self.context.start.after(pixels, given, decoded.pixels)

    def write(self, image: Image, method: Method, path: str, data: bytes) -> None:
        """Write an encoded image to its path. Raises ``ImageError``."""
        columns = image.results[method].columns
        self.require_wanted()
        columns["output_sha256"] = hashlib.sha256(data).hexdigest()
        with of_one_output(), timed(columns, "write_ms"):
            self.put(image, method, path, data)
        columns["finished_at"] = datetime.now(UTC)

    def put(self, image: Image, method: Method, path: str, data: bytes) -> None:
        """Store an output; a copy keeps its input's time. Raises as ``Storage.write``."""
        is_copy = image.results[method].columns["output_sha256"] == image.facts["input_sha256"]
        modified = image.input.modified if is_copy else None
        self.output.write(path, data, image.permissions, modified)


def as_record(
    context: BatchContext, number: int, image: Image, method: Method, light: float | None
) -> Record:
    """The row of an image of batch ``number`` in its current state; ``light`` is the batch's."""
    item, result = image.input, image.results[method]
    failure = image.failure or result.failure
    of_output = {
        name: value
        for name, value in result.columns.items()
        if failure is None or name in _OF_FAILED
    }
    columns = image.facts | of_output
    if "enhance_ms" in image.facts:  # it includes the analysis
        columns["enhance_ms"] = image.facts["enhance_ms"] + of_output.get("enhance_ms", 0.0)
    columns.setdefault("finished_at", datetime.now(UTC))
    return Record(
        input=item.path,
        method=method,
        status=image.status(failure),
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


def compile_kernels(config: JobConfig) -> None:
    """Compile the code that 8-bit images go through: takes seconds on a new installation.

    Later processes find the result in numba's cache.
    """
    black = np.zeros((1, 1, 3), np.uint8)
    analysis = dehaze.analyse(black, config.window)
    # Needed for the network too, whose images go through the classical method first.
    dehaze.enhance(black, analysis, analysis.atmospheric_light, DehazeParameters.of(config))
    measure(black)


@contextmanager
def timed(times: dict[str, Any], name: str) -> Iterator[None]:
    """Add the milliseconds that the block takes."""
    started = time.perf_counter()
    try:
        yield
    finally:
        times[name] = times.get(name, 0.0) + (time.perf_counter() - started) * 1000
