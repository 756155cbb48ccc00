"""What determines the weights of a training run, apart from the pictures: plain, frozen values.

Learning rate and samples follow the completed share of the training (Li et al., "Budgeted
Training", ICLR 2020), measured in passes over the pairs or in time. Small samples come first, since
many of them are processed in little time; whole images at their own size come last, since the
network pools over everything it sees, and would otherwise meet other statistics in use than in
training (Chu et al., ECCV 2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from batchlight.absgn.network import MULTIPLE
from batchlight.absgn.start import ClassicalStart, Start
from batchlight.absgn.synthetic import Darkening

LAST_RATE = 0.01
"""Final learning rate, as a share of the peak."""


@dataclass(frozen=True)
class Phase:
    """A phase of the training."""

    until: float
    """Share of the training at which it ends."""
    side: int
    """Side of the square samples, in pixels; a multiple of 8."""
    batch: int
    whole: float = 0.5
    """Share of the square samples from pairs that show whole images; the rest show regions."""
    native: float = 0.0
    """Share of the steps that use whole images at their own size instead."""


def phases_of(size: int, batch: int, whole: float = 0.5) -> tuple[Phase, ...]:
    """Small samples, then those of ``size``, then whole images; a step always costs the same."""
    half = max(MULTIPLE, size // 2 // MULTIPLE * MULTIPLE)
    return (
        Phase(0.4, half, 4 * batch, whole),
        Phase(0.7, size, batch, whole),
        Phase(1.0, size, batch, whole=1.0, native=0.6),
    )


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the weights except the pictures and the device."""

    channels: int = 32
    learning_rate: float = 5e-4
    warm_up: float = 0.03
    """Share of the training during which the learning rate rises to its peak."""
    average: float = 0.999
    """Decay of the moving average of the weights, per step."""
    synthetic: float = 0.4
    """Share of the square samples that are synthesized from well-lit pictures."""
    smallest_region: float = 0.5
    """Minimum share of an image's sides that a region covers."""
    noisy: float = 0.5
    """Share of the steps whose pairs get extra noise."""
    phases: tuple[Phase, ...] = phases_of(256, 8)
    seed: int = 0
    start: Start | None = field(default_factory=ClassicalStart)
    """Preprocessing of images before the network; None: none."""
    darkening: Darkening = field(default_factory=Darkening)

    def rate_at(self, progress: float) -> float:
        """The learning rate when a share ``progress`` of the training, 0 to 1, is completed."""
        progress = min(1.0, progress)
        rise = min(1.0, progress / self.warm_up)
        fall = LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * progress)) / 2
        return self.learning_rate * rise * fall

    def phase_at(self, progress: float) -> Phase:
        """The phase at that point."""
        return next((phase for phase in self.phases if progress < phase.until), self.phases[-1])


@dataclass(frozen=True)
class Extent:
    """How long training takes: a number of passes over the pairs or, if given, a time."""

    epochs: int = 300
    seconds: float | None = None
    round_s: float = 60.0
    """With ``seconds``: how often the network is scored. Otherwise once per epoch."""
