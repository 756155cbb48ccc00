"""Training for a given time on one device, where the pictures, too, live.

The learning rate and the size of the samples follow the share of the time that is gone (Li et al.,
"Budgeted Training", ICLR 2020), so that the end of the time is the end of the schedule, however
fast the device. Small samples come first, of which many go through in little time; whole images at
their own size come last, since the network pools over all that it sees.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, l1_loss

from batchlight.absgn.augment import READ_VARIANCE, SHOT_VARIANCE
from batchlight.absgn.exposure import Exposure
from batchlight.absgn.network import ABSGN
from batchlight.absgn.synthetic import Darkening, darken
from batchlight.absgn.training import LARGEST_GRADIENT, cosine_rate, decay_at, ssim

L1_SHARE, ALIGNED_SHARE, SSIM_SHARE = 0.5, 0.2, 0.2
COLOUR_SHARE, GRADIENT_SHARE = 0.15, 0.15
"""Errors of hue and of contrast are counted twice: else results come out pale, as the mean of what
they might be (after the colour and structure losses of FLW-Net, Zhang et al. 2023)."""
MOST_ALIGNED = 2.0
"""Factor by which the result's brightness is corrected at most before it is compared once more."""
STEPS_AHEAD = 8
"""How far a GPU's queue may run ahead of the clock that the schedule follows."""
LOSSES_KEPT = 200
STRONGEST_NOISE = 1.3
"""Added to a dark picture; 1 is the noise of a dark image as it comes from the camera."""
ENLARGED_NOISE = 0.3
"""Added at least to a picture that was enlarged, which has less than one of that size."""
MIRRORED, UPSIDE_DOWN = 0.5, 0.25
"""Shares of the samples."""


@dataclass(frozen=True)
class Phase:
    """A part of the training."""

    until: float
    """Share of the time at which it ends."""
    side: int
    """Of the square samples, in pixels."""
    batch: int
    native: float = 0.0
    """Share of the steps that take whole images at the camera's own size instead."""


@dataclass(frozen=True)
class Budget:
    """All that decides the weights but for the pictures and the device."""

    seconds: float
    channels: int = 32
    learning_rate: float = 5e-4
    warm_up: float = 0.03
    """Share of the time in which it rises to its peak."""
    average: float = 0.999
    """Decay of the moving average of the weights, per step."""
    synthetic: float = 0.4
    """Share of the square samples that are made of well-lit pictures."""
    whole: float = 0.5
    """Share of the steps whose pairs are whole images, shrunk to the sample's size."""
    smallest_region: float = 0.5
    noisy: float = 0.5
    """Share of the steps whose pairs get more noise."""
    phases: tuple[Phase, ...] = (
        Phase(0.4, side=128, batch=32),
        Phase(0.7, side=256, batch=8),
        Phase(1.0, side=256, batch=8, native=0.6),
    )
    seed: int = 0
    exposure: Exposure = field(default_factory=Exposure)
    darkening: Darkening = field(default_factory=Darkening)

    def rate_at(self, progress: float) -> float:
        """The learning rate when a share of the time, 0 to 1, is gone."""
        return cosine_rate(self.learning_rate, min(1.0, progress), self.warm_up)

    def phase_at(self, progress: float) -> Phase:
        """What is trained on then."""
        return next((phase for phase in self.phases if progress < phase.until), self.phases[-1])


@dataclass(frozen=True)
class Pictures:
    """What is trained on: uint8 RGB, (N, 3, H, W), on the device."""

    low: Tensor
    high: Tensor
    """Pairs of one square size."""
    clean: tuple[Tensor, ...]
    """Well-lit pictures, one tensor for each size."""
    native_low: Tensor | None = None
    """Dark pictures at the camera's own size, whose ``native_high`` are shrunk, as ``high`` is."""
    native_high: Tensor | None = None


def train_for(
    budget: Budget,
    pictures: Pictures,
    say: Callable[[Mapping[str, float]], None],
    start: Mapping[str, Tensor] | None = None,
    score_every_s: float = 60.0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[ABSGN]:
    """Train until the time is over; yields the averaged network from time to time, and at the end.

    ``say`` gets elapsed seconds, steps, learning rate and mean loss before each of them. ``clock``
    gives seconds, and is asked before each step; what the caller does with the network counts, too.
    """
    began = clock()
    device = pictures.low.device
    torch.manual_seed(budget.seed)
    network = ABSGN(budget.channels).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if start is not None:
        network.load_state_dict(start)
    average = ABSGN(budget.channels).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average.load_state_dict(network.state_dict())
    average.requires_grad_(False)
    optimizer = torch.optim.Adam(
        network.parameters(), lr=budget.learning_rate, fused=device.type == "cuda"
    )
    samples = Samples(budget, pictures)
    losses: list[Tensor] = []
    step, scored = 0, 0.0
    while (elapsed := clock() - began) < budget.seconds:
        progress = elapsed / budget.seconds
        for group in optimizer.param_groups:
            group["lr"] = budget.rate_at(progress)
        losses.append(_step(network, optimizer, samples, progress))
        step += 1
        _follow(average, network, decay_at(step, budget.average))
        if step % STEPS_AHEAD == 0:
            losses = losses[-LOSSES_KEPT:]
            float(losses[-1])  # waits for the device
            # Not just before the end, where it would be done again.
            if min(elapsed - scored, 2 * (budget.seconds - elapsed)) >= score_every_s:
                scored = elapsed
                say(_state(elapsed, step, budget.rate_at(progress), losses))
                yield average
    say(_state(elapsed, step, 0.0, losses))
    yield average


def _state(elapsed: float, step: int, rate: float, losses: Sequence[Tensor]) -> Mapping[str, float]:
    mean = float(torch.stack(list(losses)).mean()) if losses else math.nan
    return {"elapsed_s": elapsed, "step": step, "rate": rate, "loss": mean}


def _step(
    network: ABSGN, optimizer: torch.optim.Optimizer, samples: Samples, progress: float
) -> Tensor:
    low, targets = samples.draw(progress)
    x = samples.budget.exposure.of(low).contiguous(memory_format=torch.channels_last)
    with torch.autocast(low.device.type, torch.bfloat16, enabled=low.device.type == "cuda"):
        restored = network.restore(x)
    restored = restored.float()
    loss = torch.stack([_loss(restored[part], high) * share for part, high, share in targets]).sum()
    optimizer.zero_grad()
    loss.backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    for gradient in gradients:
        gradient.nan_to_num_(0.0, 0.0, 0.0)  # one step that overflows is no reason to start anew
    nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT, foreach=True)
    optimizer.step()
    return loss.detach()


def _loss(restored: Tensor, high: Tensor) -> Tensor:
    """L1, L1 at the mean brightness of the target, SSIM, and L1 of colours and of gradients.

    The second is the GT-mean loss of Liao et al. (ICCV 2025). A smaller target is of the same
    picture, shrunk: so is the result, then.
    """
    size = (high.shape[2], high.shape[3])
    restored = resized(restored, size)
    factor = _brightness(high) / _brightness(restored.detach())
    aligned = restored * factor.clamp(1 / MOST_ALIGNED, MOST_ALIGNED)
    error = restored - high
    return (
        L1_SHARE * error.abs().mean()
        + ALIGNED_SHARE * l1_loss(aligned, high)
        + SSIM_SHARE * (1 - ssim(restored, high))
        + COLOUR_SHARE * (error - error.mean(1, keepdim=True)).abs().mean()
        + GRADIENT_SHARE * sum(error.diff(dim=axis).abs().mean() for axis in (2, 3))
    )


def _brightness(images: Tensor) -> Tensor:
    return images.mean((1, 2, 3), keepdim=True).clamp(min=1e-3)


@torch.no_grad()
def _follow(average: ABSGN, network: ABSGN, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)


Target = tuple[slice, Tensor, float]
"""Which samples of a batch, what they should become, and their share of the loss."""


class Samples:
    """Batches of samples, drawn and made on the device."""

    def __init__(self, budget: Budget, pictures: Pictures) -> None:
        self.budget = budget
        self.pictures = pictures
        device = pictures.low.device
        self.choose = torch.Generator().manual_seed(budget.seed)
        self.random = torch.Generator(device).manual_seed(budget.seed)
        self._decks: dict[int, list[int]] = {}

    def draw(self, progress: float) -> tuple[Tensor, list[Target]]:
        """Dark samples, (N, 3, H, W) in 0..1, and what they should become."""
        phase = self.budget.phase_at(progress)
        if self.pictures.native_low is not None and self._chance(phase.native):
            return self._native()
        synthetic = round(phase.batch * self.budget.synthetic)
        low, high = self._pairs(phase.batch - synthetic, phase.side)
        if synthetic:
            made_low, made_high = self._synthetic(synthetic, phase.side)
            low, high = torch.cat([low, made_low]), torch.cat([high, made_high])
        return low, [(slice(None), high, 1.0)]

    def _pairs(self, count: int, side: int) -> tuple[Tensor, Tensor]:
        which = self._deal(self.pictures.low, count)
        low, high = (x[which].float() / 255 for x in (self.pictures.low, self.pictures.high))
        if not self._chance(self.budget.whole):
            least = self.budget.smallest_region
            region = round(low.shape[2] * (least + (1 - least) * self._uniform()))
            low, high = self._cut(torch.cat([low, high], 1), region).chunk(2, 1)
        low, high = resized(low, (side, side)), resized(high, (side, side))
        if self._chance(self.budget.noisy):
            low = self._noisier(low, 0.0)
        return self._turned(low, high)

    def _synthetic(self, count: int, side: int) -> tuple[Tensor, Tensor]:
        sizes = [clean for clean in self.pictures.clean if min(clean.shape[2:]) >= side]
        weights = torch.tensor([float(len(clean)) for clean in sizes])
        pictures = sizes[int(torch.multinomial(weights, 1, generator=self.choose))]
        clean = pictures[self._deal(pictures, count)].float() / 255
        most = min(clean.shape[2:])
        region = self._cut(clean, side + int((most - side) * self._uniform() ** 2))
        clean, _ = self._turned(resized(region, (side, side)), region)
        return darken(clean, self.budget.darkening, self.random)

    def _native(self) -> tuple[Tensor, list[Target]]:
        """One dark picture as its camera made it, one that is enlarged to that, one made up."""
        native_low, native_high = self.pictures.native_low, self.pictures.native_high
        assert native_low is not None
        assert native_high is not None
        size = (native_low.shape[2], native_low.shape[3])
        one = self._deal(native_low, 1)
        other = self._deal(self.pictures.low, 1)
        enlarged = interpolate(
            self.pictures.low[other].float() / 255, size, mode="bicubic", align_corners=False
        )
        enlarged = self._noisier(enlarged.clamp(0, 1), ENLARGED_NOISE)
        low = torch.cat([native_low[one].float() / 255, enlarged])
        high = torch.cat([native_high[one], self.pictures.high[other]]).float() / 255
        low, high = self._flipped(low, high)
        targets: list[Target] = [(slice(0, 2), high, 2 / 3)]
        large = [clean for clean in self.pictures.clean if clean.shape[2:] == size]
        if large:
            clean = large[0][self._deal(large[0], 1)].float() / 255
            made_low, made_high = darken(
                self._flipped(clean, clean)[0], self.budget.darkening, self.random
            )
            low = torch.cat([low, made_low])
            targets.append((slice(2, 3), made_high, 1 / 3))
        return low, targets

    def _noisier(self, low: Tensor, least: float) -> Tensor:
        """As ``augment.add_noise``, each sample by a strength of its own from ``least`` on."""
        levels = low * 255
        noise, strength = (
            torch.randn(low.shape, device=low.device, generator=self.random),
            torch.rand((len(low), 1, 1, 1), device=low.device, generator=self.random),
        )
        strength = least + strength * (STRONGEST_NOISE - least)
        sigma = strength * (READ_VARIANCE + SHOT_VARIANCE * levels).sqrt()
        return (levels + noise * sigma).round().clamp(0, 255) / 255

    def _cut(self, images: Tensor, side: int) -> Tensor:
        """A square region of each image."""
        height, width = images.shape[2:]
        regions = []
        for image in images:
            y, x = self._below(height - side + 1), self._below(width - side + 1)
            regions.append(image[:, y : y + side, x : x + side])
        return torch.stack(regions)

    def _turned(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Square samples, half of them on their side."""
        low, high = self._flipped(low, high)
        half = len(low) // 2
        low, high = (torch.cat([x[:half].transpose(2, 3), x[half:]]) for x in (low, high))
        return low, high

    def _flipped(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Each sample upright or as in a mirror; seldom upside down."""
        for axis, chance in ((3, MIRRORED), (2, UPSIDE_DOWN)):
            draw = torch.rand((len(low), 1, 1, 1), device=low.device, generator=self.random)
            low, high = (torch.where(draw < chance, x.flip(axis), x) for x in (low, high))
        return low, high

    def _deal(self, pictures: Tensor, count: int) -> Tensor:
        """Indices of some pictures; all come once before any comes twice."""
        deck = self._decks.setdefault(id(pictures), [])
        while len(deck) < count:
            deck += torch.randperm(len(pictures), generator=self.choose).tolist()
        dealt, deck[:count] = torch.tensor(deck[:count]), []
        if pictures.is_cuda:  # or the host would wait until the device has done all before it
            dealt = dealt.pin_memory()
        return dealt.to(pictures.device, non_blocking=True)

    def _chance(self, share: float) -> bool:
        return self._uniform() < share

    def _uniform(self) -> float:
        return float(torch.rand((), generator=self.choose))

    def _below(self, limit: int) -> int:
        return int(torch.randint(limit, (), generator=self.choose))


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, H, W) at another height and width, as Pillow's bilinear filter does it."""
    if images.shape[2:] == size:
        return images
    return interpolate(images, size, mode="bilinear", antialias=True)
