"""What an image is before the network sees it, where its weights were trained so.

Weights say so in their file; the architecture knows nothing of it. An exposure is a gain, which
makes images of all cameras equally bright. With the classical method as a start, they are also
without most of their noise, and what is left to the network is to correct what that method cannot
know: colours, contrast, and light that differs from place to place. How bright the result is, both
decide. Chosen with pictures and pairs of several cameras; the network's own guess is good for
scenes like those that it was trained on, and too dark for many others.
"""

from __future__ import annotations

import json
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
from batchlight.images.pixels import Pixels

EXPOSURE: Final = "exposure"
CLASSICAL: Final = "classical"
"""Under which a file of weights says what is done to its images first."""

LARGEST_GAIN = 1.5
"""Up to which the curve from black to white rises all the way."""
MOST_OF_MISSED = 2.0
"""By how many times what the classical method missed, in stops, a result is brightened at most."""
LEAST_OF_WAY = 0.75
"""Share of the way from an image to what the network was given for it, in stops, that a result goes
at least. The truths of dark photographs lie beyond; where networks fall short of it, they darken
what they take for well-lit, as people against the light."""

_OPTIONS = ("omega", "t0", "window", "denoise", "target_luminance")


@dataclass(frozen=True)
class ClassicalStart:
    """The classical method, with each image's own light."""

    parameters: DehazeParameters = field(
        default_factory=lambda: DehazeParameters.of(JobConfig(input="."))
    )
    """By default those of a job."""
    share: float = 0.5
    """How far, of the way in stops, a result is brought to the luminance that the classical method
    aims at, where that method missed it: where an image is so dark that ``t0`` bounds its gain. The
    network, which has seen few of these, leaves them too dark."""

    def before(self, image: Pixels) -> Pixels:
        """What the network gets in the place of an image, a gray one or one in blue, green, red."""
        analysis = analyse(image, self.parameters.window)
        return enhance(image, analysis, analysis.atmospheric_light, self.parameters).pixels

    def after(self, result: Pixels, given: Pixels, image: Pixels) -> Pixels:
        """The network's result, brighter where it came out too dark; black and white stay.

        ``given``: what the network was given for ``image``. With their mean luminances R, G and I,
        and T that the classical method aims at, all of which only count where they brighten:

            missed   = R min((T / R)^share, (T / G)^MOST_OF_MISSED)
            way      = I (G / I)^LEAST_OF_WAY
            result   = the larger of both, and of R
        """
        mean, begun, before = (measure(pixels)[0] for pixels in (result, given, image))
        if not (mean and begun and before):
            return result
        target = self.parameters.target
        stops = max(1.0, target / mean) ** self.share
        missed = mean * min(stops, max(1.0, target / begun) ** MOST_OF_MISSED)
        way = before * max(1.0, begun / before) ** LEAST_OF_WAY
        wanted = max(missed, way)
        return _brightened(result, mean, wanted) if wanted > mean else result

    def dump(self) -> str:
        """As the weights say it: by the names of options."""
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


def _brightened(pixels: Pixels, mean: float, wanted: float) -> Pixels:
    """Pixels of another mean luminance, by a curve g v + (1 - g) v^3; as far as that rises."""
    top = int(np.iinfo(pixels.dtype).max)
    levels = np.arange(top + 1) / top

    def mapped(values: npt.NDArray[np.float64]) -> Pixels:
        table = np.rint(values * top).astype(pixels.dtype)
        result: Pixels = cv2.LUT(pixels, table)
        return result

    cubes = levels**3
    least, _ = measure(mapped(cubes))
    if least >= mean:  # all is black or white
        return pixels
    gain = min((wanted - least) / (mean - least), LARGEST_GAIN)
    return mapped(gain * levels + (1 - gain) * cubes)


Start = Exposure | ClassicalStart


def noted(start: Start | None) -> dict[str, str]:
    """What weights say of it."""
    if start is None:
        return {}
    return {EXPOSURE if isinstance(start, Exposure) else CLASSICAL: start.dump()}


def start_of(about: Mapping[str, str]) -> Start | None:
    """What ``noted`` wrote. Raises ``ValueError``."""
    try:
        if CLASSICAL in about:
            return ClassicalStart.load(about[CLASSICAL])
        return Exposure.load(about[EXPOSURE]) if EXPOSURE in about else None
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError("its exposure settings cannot be read") from error


def begun(images: Sequence[Pixels], start: Start | None) -> Sequence[Pixels]:
    """Images, as the arrays that are computed with."""
    return [start.before(i) for i in images] if isinstance(start, ClassicalStart) else images


def ended(result: Pixels, given: Pixels, image: Pixels, start: Start | None) -> Pixels:
    """The network's result for an image, as it is to be; ``given``: what the network was given."""
    return start.after(result, given, image) if isinstance(start, ClassicalStart) else result


def exposure_of(start: Start | None) -> Exposure | None:
    """What of a start is done in tensors, along with the network."""
    return start if isinstance(start, Exposure) else None


def classical_of(start: Start | None) -> ClassicalStart | None:
    """What of a start is done in arrays, before the network and after it."""
    return start if isinstance(start, ClassicalStart) else None


def in_fingerprint(start: ClassicalStart | None) -> dict[str, int]:
    """What decides pixels beside the weights, which say all else of a start."""
    return {} if start is None else {"start-algorithm": ALGORITHM_VERSIONS[CLASSICAL]}
