"""The exposure at which an image enters the network, where its weights were trained for one.

A dark image is first multiplied so that its mean is a fixed one. What is left to the network is
then the same task for all cameras and exposures; as a first step before a network this is known
from the efficient low-light challenge of NTIRE 2026 (arXiv 2604.11071). Weights say in their file
whether they were trained so; the architecture knows nothing of it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Exposure:
    """What an image is multiplied with: by how much is known from its mean alone."""

    mean: float = 0.3
    """Of all samples, 0 to 1, that a dark image is brought to; a brighter one stays as it is."""
    largest_gain: float = 16.0
    ceiling: float = 3.0
    """To which the multiplied samples are cut: lamps in a dark image."""

    def gains(self, means: Tensor) -> Tensor:
        """The factor for each of some images, (N,), of which ``means`` are the means, 0 to 1."""
        return (self.mean / means.clamp(min=1e-6)).clamp(1, self.largest_gain)

    def apply(self, images: Tensor, gains: Tensor) -> Tensor:
        """Multiply (N, 3, H, W) in 0..1; the result is in 0..``ceiling``."""
        return (images * gains.view(-1, 1, 1, 1)).clamp(max=self.ceiling)

    def of(self, images: Tensor) -> Tensor:
        """Whole images, (N, 3, H, W) in 0..1, as the network wants them."""
        return self.apply(images, self.gains(images.mean((1, 2, 3))))

    def dump(self) -> str:
        """As the weights say it."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def load(cls, text: str) -> Exposure:
        """Read what ``dump`` wrote. Raises ``ValueError``."""
        try:
            return cls(**{name: float(value) for name, value in json.loads(text).items()})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"it names an unknown exposure: {text}") from error
