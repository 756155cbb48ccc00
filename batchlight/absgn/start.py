"""What an image is before the network sees it, where its weights were trained so.

Weights say so in their file; the architecture knows nothing of it. An exposure is a gain, which
makes images of all cameras equally bright. With the classical method as a start, they are also
without most of their noise, and what is left to the network is to correct what that method cannot
know: colours, contrast, and light that differs from place to place. How bright the result is, both
decide.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
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
"""Up to which the curve from black to white rises all the way, and down to its inverse."""

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
    aims at. Of one dark image nobody can tell how bright it should be: whatever the network has
    learnt of that is of the pictures that it was trained on."""

    def before(self, image: Pixels) -> Pixels:
        """What the network gets in the place of an image, a gray one or one in blue, green, red."""
        analysis = analyse(image, self.parameters.window)
        return enhance(image, analysis, analysis.atmospheric_light, self.parameters).pixels

    def after(self, result: Pixels) -> Pixels:
        """The network's result, nearer to the target; white stays white."""
        mean, _ = measure(result)
        if not mean:
            return result
        wanted = (self.parameters.target / mean) ** self.share
        gain = min(max(wanted, 1 / LARGEST_GAIN), LARGEST_GAIN)
        top = int(np.iinfo(result.dtype).max)
        levels = np.arange(top + 1) / top
        curve: Pixels = np.rint((gain * levels + (1 - gain) * levels**3) * top)
        brought: Pixels = curve.astype(result.dtype)[result]
        return brought

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
            raise ValueError(f"it names a start that is not known: {text}") from error
        return cls(DehazeParameters.of(config), share)


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
        raise ValueError("what it says of its exposure cannot be read") from error


def begun(images: Sequence[Pixels], start: Start | None) -> Sequence[Pixels]:
    """Images, as the arrays that are computed with."""
    return [start.before(i) for i in images] if isinstance(start, ClassicalStart) else images


def ended(result: Pixels, start: Start | None) -> Pixels:
    """The network's result for one image, as it is to be."""
    return start.after(result) if isinstance(start, ClassicalStart) else result


def exposure_of(start: Start | None) -> Exposure | None:
    """What of a start is done in tensors, along with the network."""
    return start if isinstance(start, Exposure) else None


def classical_of(start: Start | None) -> ClassicalStart | None:
    """What of a start is done in arrays, before the network and after it."""
    return start if isinstance(start, ClassicalStart) else None


def in_fingerprint(start: ClassicalStart | None) -> dict[str, int]:
    """What decides pixels beside the weights, which say all else of a start."""
    return {} if start is None else {"start-algorithm": ALGORITHM_VERSIONS[CLASSICAL]}
