"""One setting tried on images, through the steps of a batch; writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np

from batchlight.config import JobConfig
from batchlight.errors import ErrorCode
from batchlight.images.pixels import Pixels
from batchlight.output.inputs import Input
from batchlight.storage import Location, Storage
from batchlight.worker.image import Analysed, Failure, Image, Losses
from batchlight.worker.steps import ImageSteps, timed

if TYPE_CHECKING:
    from batchlight.absgn.inference import Enhancer

TOO_LITTLE_MEMORY = Failure(ErrorCode.OUT_OF_MEMORY, "it needs more memory than there is")


@dataclass(frozen=True)
class Measured:
    """Measurements of an enhanced image."""

    luminance: float
    """Mean, 0..1."""
    clipped: float
    """Share of samples at the maximum value."""
    ms_per_megapixel: float
    """For analysing and enhancing, without decoding and encoding."""


@dataclass(frozen=True)
class Tried:
    """The result of a setting for an image."""

    encoded: bytes
    """The file that a run would write."""
    measured: Measured


class Trial:
    """One setting, with one method."""

    def __init__(
        self,
        config: JobConfig,
        root: Location,
        opened: Callable[[Location], Storage],
        enhancer: Enhancer | None = None,
    ) -> None:
        """``enhancer``: the network, if the method is ``absgn``."""
        [self._method] = config.method
        self._steps = ImageSteps(config, root, opened)
        self._enhancer = enhancer

    def read(self, image: Image) -> bytes | None:
        """The image's bytes; None if it has failed."""
        return image.attempt(partial(self._steps.read, image))

    def look(self, image: Image, data: bytes) -> None:
        """Determine its size, its luminance and its light, or why it fails."""
        try:
            image.attempt(partial(self._steps.analyse, image, data))
        except MemoryError:
            image.failure = TOO_LITTLE_MEMORY

    def enhance(self, item: Input, data: bytes, batch_light: float | None) -> Tried | Failure:
        """Process an image as a run does, up to the bytes that it would write."""
        image = Image.of(item, (self._method,), Losses())
        try:
            encoded = self._encoded(image, data, batch_light)
        except MemoryError:
            return TOO_LITTLE_MEMORY
        result = image.results[self._method]
        if encoded is None:
            failure = image.failure or result.failure
            assert failure is not None
            return failure
        milliseconds = image.facts["enhance_ms"] + result.columns.get("enhance_ms", 0.0)
        measured = Measured(
            result.columns["luminance_after"],
            result.columns["clipped_fraction"],
            milliseconds / (image.facts["width"] * image.facts["height"] / 1e6),
        )
        _, data = encoded
        return Tried(data, measured)

    def warm_up(self) -> None:
        """Compile and allocate what first use needs, so as not to count it for the first image."""
        dark = np.arange(3 * 64 * 64).reshape(64, 64, 3) % 16
        _, data = cv2.imencode(".png", dark.astype(np.uint8))
        self.enhance(Input("warm-up.png"), data.tobytes(), None)

    def _encoded(
        self, image: Image, data: bytes, batch_light: float | None
    ) -> tuple[str, bytes] | None:
        analysed = image.attempt(partial(self._steps.analyse, image, data))
        if analysed is None:
            return None
        if image.skipped:
            copy = partial(self._steps.copy, image, self._method, analysed.decoded, data)
            return image.attempt(copy, self._method)
        pixels = image.attempt(partial(self._pixels, image, analysed, batch_light), self._method)
        if pixels is None:
            return None
        encode = partial(self._steps.encode, image, self._method, analysed.decoded, pixels)
        return image.attempt(encode, self._method)

    def _pixels(self, image: Image, analysed: Analysed, batch_light: float | None) -> Pixels:
        if self._method == "classical":
            return self._steps.dehaze(image, analysed, batch_light)
        assert self._enhancer is not None
        with timed(image.results[self._method].columns, "enhance_ms"):
            [restored] = self._enhancer.enhance([analysed.decoded.pixels])
        return restored.get()
