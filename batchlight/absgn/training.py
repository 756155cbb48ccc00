"""Training: arrays in, weights out; on one device or, where torch.distributed runs, on several.

The published recipe (LOL-v1, 256x256, batches of 5, 0.85 L1 + 0.15 (1 - SSIM), 300 epochs) with
what proved better: the learning rate follows a cosine, the result is a moving average of the
weights, and the last part of the training sees whole images only, since the network pools over
all that it sees and would otherwise meet other statistics in use than in training (Chu et al.,
ECCV 2022).

All that is random follows from the seed, the epoch and the sample's number, so a run that goes on
from a checkpoint is the run that was never interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, l1_loss
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset, Sampler

from batchlight.absgn.augment import Augmentation, augment
from batchlight.absgn.network import ABSGN
from batchlight.images.pixels import Rgb

P = TypeVar("P")

SSIM_SHARE = 0.15
SSIM_WINDOW = 7
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
WARM_UP = 0.02
"""Share of the steps in which the learning rate rises to its peak."""
LAST_RATE = 0.01
"""The learning rate at the end, as a share of its peak."""
LARGEST_GRADIENT = 1.0
"""Norm to which gradients are cut."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, but for the pairs and the device."""

    channels: int = 32
    epochs: int = 300
    batch_size: int = 5
    learning_rate: float = 4e-4
    average: float = 0.999
    """Decay of the moving average of the weights, per step."""
    whole: float = 0.5
    """Share of the samples that show a whole image, in the first part of the training."""
    whole_from: float = 0.75
    """From this share of the epochs on, all samples show whole images."""
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def share_of_whole(self, epoch: int) -> float:
        """How likely a sample of an epoch, counted from 0, shows a whole image."""
        return 1.0 if epoch >= self.epochs * self.whole_from else self.whole

    def rate_at(self, progress: float) -> float:
        """The learning rate after a share (0..1) of all steps."""
        return cosine_rate(self.learning_rate, progress, WARM_UP)


def ssim(one: Tensor, other: Tensor) -> Tensor:
    """Structural similarity of (N, C, H, W) images in 0..1, mean over all; Wang et al. 2004.

    Uniform windows of 7x7, as scikit-image has them by default.
    """

    def mean(x: Tensor) -> Tensor:
        return avg_pool2d(x, SSIM_WINDOW, stride=1)

    a, b = mean(one), mean(other)
    variances = mean(one * one) - a * a + mean(other * other) - b * b
    covariance = mean(one * other) - a * b
    likeness = (2 * a * b + SSIM_C1) * (2 * covariance + SSIM_C2)
    return (likeness / ((a * a + b * b + SSIM_C1) * (variances + SSIM_C2))).mean()


class Objective(nn.Module):
    """The loss of a network on a batch of pairs: 0.85 L1 + 0.15 (1 - SSIM)."""

    def __init__(self, network: ABSGN) -> None:
        super().__init__()
        self.network = network

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        # Clipping would take the gradient from every pixel that is out of range.
        restored = self.network.restore(low).float()
        return (1 - SSIM_SHARE) * l1_loss(restored, high) + SSIM_SHARE * (1 - ssim(restored, high))


class Samples(Dataset[tuple[Tensor, Tensor]], Generic[P]):
    """Augmented pairs as (3, size, size) tensors, made when asked for by (epoch, number)."""

    def __init__(
        self, pairs: Sequence[P], load: Callable[[P], tuple[Rgb, Rgb]], recipe: Recipe
    ) -> None:
        self.pairs = pairs
        self.load = load
        self.recipe = recipe

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, number = key
        random = np.random.default_rng((self.recipe.seed, epoch, number))
        low, high = augment(
            *self.load(self.pairs[number]),
            self.recipe.augmentation,
            self.recipe.share_of_whole(epoch),
            random,
        )
        return torch.from_numpy(low).permute(2, 0, 1), torch.from_numpy(high).permute(2, 0, 1)


class Order(Sampler[list[tuple[int, int]]]):
    """The batches of all epochs to come, as (epoch, number); each process gets its own share."""

    def __init__(self, pairs: int, recipe: Recipe, epoch: int, rank: int, processes: int) -> None:
        self.pairs = pairs
        self.recipe = recipe
        self.epoch = epoch
        self.rank = rank
        self.processes = processes

    @property
    def steps(self) -> int:
        """Steps in an epoch, at least one."""
        return max(1, self.pairs // (self.recipe.batch_size * self.processes))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for epoch in range(self.epoch, self.recipe.epochs):
            random = np.random.default_rng((self.recipe.seed, epoch))
            shuffled = random.permutation(self.pairs)
            wanted = self.steps * self.recipe.batch_size * self.processes
            mine = np.resize(shuffled, wanted)[self.rank :: self.processes]
            for batch in np.split(mine, self.steps):
                yield [(epoch, int(number)) for number in batch]


class Trainer(Generic[P]):
    """Trains a network epoch by epoch. Its whole state is tensors, to be saved between epochs."""

    def __init__(
        self,
        recipe: Recipe,
        pairs: Sequence[P],
        load: Callable[[P], tuple[Rgb, Rgb]],
        device: torch.device,
        loaders: int,
        start: Mapping[str, Tensor] | None = None,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        torch.manual_seed(recipe.seed)
        network = ABSGN(recipe.channels).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if start is not None:
            network.load_state_dict(start)
        self.recipe = recipe
        self.device = device
        self.epoch = 0
        self.average = AveragedModel(network, multi_avg_fn=_moving_average(recipe.average))
        self._network = network
        self._objective: nn.Module = Objective(network)
        if processes > 1:
            self._objective = nn.parallel.DistributedDataParallel(self._objective)
        self._optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
        self._samples = Samples(pairs, load, recipe)
        self._loaders = loaders
        self._share = (rank, processes)

    @property
    def averaged(self) -> ABSGN:
        """The network with the moving average of the weights: what the training is for."""
        return cast(ABSGN, self.average.module)

    @property
    def weights(self) -> dict[str, Tensor]:
        """Its weights."""
        return dict(self.averaged.state_dict())

    def epochs(self) -> Iterator[float]:
        """Train from ``epoch`` on; yields the mean loss after each epoch."""
        order = Order(len(self._samples.pairs), self.recipe, self.epoch, *self._share)
        loader = DataLoader(
            self._samples,
            batch_sampler=order,
            num_workers=self._loaders,
            pin_memory=self.device.type == "cuda",
            # A fork would inherit connections to stores, which then hang.
            multiprocessing_context="forkserver" if self._loaders else None,
        )
        losses: list[Tensor] = []
        for step, (low, high) in enumerate(loader, self.epoch * order.steps):
            rate = self.recipe.rate_at((step + 1) / (order.steps * self.recipe.epochs))
            losses.append(self._step(low, high, rate))
            if len(losses) == order.steps:
                self.epoch += 1
                yield float(torch.stack(losses).mean())
                losses = []

    def state(self) -> dict[str, Tensor]:
        """All that changes in training, flat; ``resume`` takes it back."""
        moments = {
            f"optimizer.{number}.{name}": value
            for number, values in self._optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }
        network = {f"network.{n}": v for n, v in self._network.state_dict().items()}
        # All are floats, the number of averaged steps too, so that a file of floats holds them.
        average = {f"average.{n}": v.float() for n, v in self.average.state_dict().items()}
        return {**network, **average, **moments}

    def resume(self, state: Mapping[str, Tensor], epoch: int) -> None:
        """Go on from a saved state, whose last finished epoch was number ``epoch`` from 1."""
        self._network.load_state_dict(_below("network.", state))
        self.average.load_state_dict(_below("average.", state))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _below("optimizer.", state).items():
            number, _, moment = name.partition(".")
            moments.setdefault(int(number), {})[moment] = value
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.epoch = epoch

    def _step(self, low: Tensor, high: Tensor, rate: float) -> Tensor:
        low, high = (
            x.to(self.device, memory_format=torch.channels_last, non_blocking=True)
            for x in (low, high)
        )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss: Tensor = self._objective(low, high)
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._network.parameters(), LARGEST_GRADIENT)
        self._optimizer.step()
        self.average.update_parameters(self._network)
        return loss.detach()


def cosine_rate(peak: float, progress: float, warm_up: float) -> float:
    """A learning rate after a share (0..1) of the training, of which it rises for ``warm_up``."""
    rise = min(1.0, progress / warm_up)
    fall = LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * progress)) / 2
    return peak * rise * fall


def decay_at(steps: int, decay: float) -> float:
    """The decay of a moving average that is short at first, to forget where it started.

    As TensorFlow's ExponentialMovingAverage warms up: of n steps, about the last tenth count.
    """
    return min(decay, (1 + steps) / (10 + steps))


def _moving_average(decay: float) -> Callable[..., None]:
    """An exponential moving average that is short at first, to forget the random start."""

    def update(average: list[Tensor], current: list[Tensor], steps: Tensor) -> None:
        weight = 1 - decay_at(int(steps), decay)
        for a, c in zip(average, current, strict=True):
            a.lerp_(c, weight)

    return update


def _below(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    return {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
