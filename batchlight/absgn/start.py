"""Preprocessing of an image for the network, if its weights were trained with it.

The weights' file records it; the architecture does not depend on it. An exposure is a gain, which
makes images of all cameras equally bright. With the classical method as a start, they are also free
of most of their noise, and the network only has to correct what that method cannot know: colours,
contrast, and light that differs from place to place. Both determine how bright the result is. This
was chosen with pictures and pairs of several cameras; the network's own estimate is good for scenes
like those it was trained on, and too dark for many others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from batchlight.absgn.exposure import Exposure
from batchlight.classical.dehaze import DehazeParameters, analyse, enhance
from batchlight.config import ALGORITHM_VERSIONS, JobConfig
from batchlight.images.measures import measure
from batchlight.images.mixing import mix
from batchlight.images.pixels import Pixels

EXPOSURE: Final = "exposure"
CLASSICAL: Final = "classical"
"""Key under which a file of weights records what is first done to its images."""

LARGEST_GAIN = 1.5
"""Maximum gain at which the curve from black to white is still monotonic."""
MOST_OF_MISSED = 2.0
"""Maximum brightening of a result, as a multiple of the classical method's miss in stops."""
LEAST_OF_WAY = 0.75
"""Minimum share of the way from an image to the network's input for it, in stops, that a result
goes. The ground truths of dark photographs lie beyond; if networks fall short of it, they darken
what they take for well-lit, such as backlit people."""

FADE = 1.0
"""Stops below the target over which the network's share of a result grows from nothing to all. The
networks know dark images, and make those that are nearly bright enough pale; without a fade, one
image would come out so and the next, which is not dark, as it was."""
BLACK = 1 / 255
"""Share of the range up to which rows and columns at the border are black, as letterboxes are."""

_OPTIONS = ("omega", "t0", "window", "denoise", "target_luminance")


@dataclass(frozen=True)
class ClassicalStart:
    """The classical method, with each image's own light."""

    parameters: DehazeParameters = field(
        default_factory=lambda: DehazeParameters.of(JobConfig(input="."))
    )
    """By default a job's."""
    share: float = 0.5
    """Share of the way, in stops, by which a result is brought to the luminance that the classical
    method aims at, if that method missed it: images so dark that ``t0`` limits their gain. The
    network, which has seen few of these, leaves them too dark."""

    def before(self, image: Pixels) -> Pixels:
        """The network's input for an image, gray or in blue, green, red."""
        analysis = analyse(image, self.parameters.window)
        return enhance(image, analysis, analysis.atmospheric_light, self.parameters).pixels

    def after(self, result: Pixels, given: Pixels, image: Pixels) -> Pixels:
        """The network's result, faded out near the target and brightened if it is too dark.

        ``given``: the network's input for ``image``; black borders of ``image`` stay. The network's
        share is log2(T / I) / FADE, from 0 to 1. With the mean luminances R, G and I of that
        result, ``given`` and ``image``, and the target T of the classical method, where each term
        counts only if it brightens:

            missed   = R min((T / R)^share, (T / G)^MOST_OF_MISSED)
            way      = I (G / I)^LEAST_OF_WAY
            result   = max(missed, way, R)
        """
        target, before = self.parameters.target, measure(image)[0]
        if before:
            result = mix(given, result, min(1.0, max(0.0, math.log2(target / before) / FADE)))
        return _with_black_borders_of(image, self._bright_enough(result, given, before))

    def _bright_enough(self, result: Pixels, given: Pixels, before: float) -> Pixels:
        mean, begun = measure(result)[0], measure(given)[0]
        if not (mean and begun and before):
            return result
        target = self.parameters.target
        stops = max(1.0, target / mean) ** self.share
        missed = mean * min(stops, max(1.0, target / begun) ** MOST_OF_MISSED)
        way = before * max(1.0, begun / before) ** LEAST_OF_WAY
        wanted = max(missed, way)
        return _brightened(result, mean, wanted) if wanted > mean else result

    def dump(self) -> str:
        """As stored in the weights' metadata: by option name."""
        its = self.parameters
        options = {
            "omega": "auto" if its.omega is None else its.omega,
            "t0": its.t0,
            "window": its.window,
            "denoise": "guided" if its.denoise else "none",
            "target_luminance": its.target,
        }
        return json.dumps(options | {"share": self.share}, sort_keys=True)

    @classmethod
    def load(cls, text: str) -> ClassicalStart:
        """Read what ``dump`` wrote. Raises ``ValueError``."""
        try:
            found = json.loads(text)
            config = JobConfig(input=".", **{name: found[name] for name in _OPTIONS})
            share = min(1.0, max(0.0, float(found["share"])))
        except (KeyError, TypeError, ValidationError) as error:
            raise ValueError(f"it names an unknown start: {text}") from error
        return cls(DehazeParameters.of(config), share)


def _with_black_borders_of(image: Pixels, result: Pixels) -> Pixels:
    limit = int(BLACK * np.iinfo(image.dtype).max)
    height, width = image.shape[:2]
    black_rows = [_leading_black(rows, limit) for rows in (image, image[::-1])]
    columns = image.swapaxes(0, 1)
    black_columns = [_leading_black(rows, limit) for rows in (columns, columns[::-1])]
    if not any(black_rows + black_columns):
        return result
    inside = (
        slice(black_rows[0], height - black_rows[1]),
        slice(black_columns[0], width - black_columns[1]),
    )
    framed = image.copy()
    framed[inside] = result[inside]
    return framed


def _leading_black(rows: Pixels, limit: int) -> int:
    """How many of the first rows have no sample above ``limit``."""
    return next((y for y, row in enumerate(rows) if row.max() > limit), len(rows))


def _brightened(pixels: Pixels, mean: float, wanted: float) -> Pixels:
    """Pixels of another mean luminance, by a monotonic curve g v + (1 - g) v^3."""
    top = int(np.iinfo(pixels.dtype).max)
    levels = np.arange(top + 1) / top

    def mapped(values: npt.NDArray[np.float64]) -> Pixels:
        table = np.rint(values * top).astype(pixels.dtype)
        result: Pixels = cv2.LUT(pixels, table)
        return result

    cubes = levels**3
    least, _ = measure(mapped(cubes))
    if least >= mean:  # everything is black or white
        return pixels
    gain = min((wanted - least) / (mean - least), LARGEST_GAIN)
    return mapped(gain * levels + (1 - gain) * cubes)


Start = Exposure | ClassicalStart


def to_metadata(start: Start | None) -> dict[str, str]:
    """The start's entry in the weights' metadata."""
    if start is None:
        return {}
    return {EXPOSURE if isinstance(start, Exposure) else CLASSICAL: start.dump()}


def start_of(about: Mapping[str, str]) -> Start | None:
    """Read what ``to_metadata`` wrote. Raises ``ValueError``."""
    try:
        if CLASSICAL in about:
            return ClassicalStart.load(about[CLASSICAL])
        return Exposure.load(about[EXPOSURE]) if EXPOSURE in about else None
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError("its exposure settings cannot be read") from error


def prepared(images: Sequence[Pixels], start: Start | None) -> Sequence[Pixels]:
    """The arrays to compute with, made from images."""
    return [start.before(i) for i in images] if isinstance(start, ClassicalStart) else images


def finished(result: Pixels, given: Pixels, image: Pixels, start: Start | None) -> Pixels:
    """The final result for an image; ``given``: the network's input."""
    return start.after(result, given, image) if isinstance(start, ClassicalStart) else result


def exposure_of(start: Start | None) -> Exposure | None:
    """The part of a start that is done on tensors, along with the network."""
    return start if isinstance(start, Exposure) else None


def classical_of(start: Start | None) -> ClassicalStart | None:
    """The part of a start that is done on arrays, before and after the network."""
    return start if isinstance(start, ClassicalStart) else None


def in_fingerprint(start: ClassicalStart | None) -> dict[str, int]:
    """What determines pixels besides the weights, which record everything else of a start."""
    return {} if start is None else {"start-algorithm": ALGORITHM_VERSIONS[CLASSICAL]}
