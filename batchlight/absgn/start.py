"""What an image is before the network sees it, where its weights were trained so.

Weights say so in their file; the architecture knows nothing of it. An exposure is a gain, which
makes images of all cameras equally bright. With the classical method as a start, they are also
without most of their noise, and what is left to the network is to correct what that method cannot
know: colours, contrast, and light that differs from place to place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from batchlight.absgn.exposure import Exposure
from batchlight.classical.dehaze import DehazeParameters, analyse, enhance
from batchlight.config import ALGORITHM_VERSIONS, JobConfig
from batchlight.images.pixels import Pixels

EXPOSURE: Final = "exposure"
CLASSICAL: Final = "classical"
"""Under which a file of weights says what is done to its images first."""

_OPTIONS = ("omega", "t0", "window", "denoise", "target_luminance")


@dataclass(frozen=True)
class ClassicalStart:
    """The classical method, with each image's own light."""

    parameters: DehazeParameters = field(
        default_factory=lambda: DehazeParameters.of(JobConfig(input="."))
    )
    """By default those of a job."""

    def before(self, image: Pixels) -> Pixels:
        """What the network gets in the place of an image, a gray one or one in blue, green, red."""
        analysis = analyse(image, self.parameters.window)
        return enhance(image, analysis, analysis.atmospheric_light, self.parameters).pixels

    def of(self, images: Tensor) -> Tensor:
        """The same for whole images as a training has them: (N, 3, H, W), RGB in 0..1."""
        levels = (images.permute(0, 2, 3, 1).flip(3) * 255).round().clamp(0, 255)
        arrays = map(np.ascontiguousarray, levels.to("cpu", torch.uint8).numpy())
        stack = torch.from_numpy(np.stack([self.before(image) for image in arrays]))
        return stack.to(images.device).flip(3).permute(0, 3, 1, 2).float() / 255

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
        return json.dumps(options, sort_keys=True)

    @classmethod
    def load(cls, text: str) -> ClassicalStart:
        """Read what ``dump`` wrote. Raises ``ValueError``."""
        try:
            options = {name: json.loads(text)[name] for name in _OPTIONS}
            config = JobConfig(input=".", **options)
        except (KeyError, TypeError, ValidationError) as error:
            raise ValueError(f"it names a start that is not known: {text}") from error
        return cls(DehazeParameters.of(config))


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


def exposure_of(start: Start | None) -> Exposure | None:
    """What of a start is done in tensors."""
    return start if isinstance(start, Exposure) else None


def in_fingerprint(start: Start | None) -> dict[str, int]:
    """What decides pixels beside the weights, which say all else of a start."""
    if isinstance(start, ClassicalStart):
        return {"start-algorithm": ALGORITHM_VERSIONS[CLASSICAL]}
    return {}
