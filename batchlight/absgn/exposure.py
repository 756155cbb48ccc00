"""The exposure at which an image enters the network, if its weights were trained for one.

A dark image is first multiplied so that its mean has a fixed value. The network's task is then the
same for all cameras and exposures; this first step is known from the efficient low-light challenge
of NTIRE 2026 (arXiv 2604.11071). The weights' file records whether they were trained so; the
architecture does not depend on it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Exposure:
    """The gain of an image, which depends only on its mean."""

    mean: float = 0.3
    """Mean of all samples, 0 to 1, that a dark image is brought to; a brighter one is unchanged."""
    largest_gain: float = 16.0
    ceiling: float = 3.0
    """Where the multiplied samples are clipped: lamps in a dark image."""

    def gains(self, means: Tensor) -> Tensor:
        """The gain of each image, (N,), given the ``means`` of their samples, 0 to 1."""
        return (self.mean / means.clamp(min=1e-6)).clamp(1, self.largest_gain)

    def apply(self, images: Tensor, gains: Tensor) -> Tensor:
        """Multiply (N, 3, H, W) in 0..1; the result is in 0..``ceiling``."""
        return (images * gains.view(-1, 1, 1, 1)).clamp(max=self.ceiling)

    def of(self, images: Tensor) -> Tensor:
        """Whole images, (N, 3, H, W) in 0..1, exposed for the network."""
        return self.apply(images, self.gains(images.mean((1, 2, 3))))

    def dump(self) -> str:
        """As stored in the weights' metadata."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def load(cls, text: str) -> Exposure:
        """Read what ``dump`` wrote. Raises ``ValueError``."""
        try:
            return cls(**{name: float(value) for name, value in json.loads(text).items()})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"it names an unknown exposure: {text}") from error
