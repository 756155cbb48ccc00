"""Training: pictures in, weights out; on one device or, if torch.distributed runs, on several.

The published recipe (LOL-v1, 256x256, batches of 5, 0.85 L1 + 0.15 (1 - SSIM), 300 epochs) with
proven improvements: more kinds of light (synthetic.py), more kinds of error (losses.py), a schedule
that follows the remaining budget (recipe.py), and a moving average of the weights as the result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from batchlight.absgn.conversion import given_for
from batchlight.absgn.losses import loss_of
from batchlight.absgn.network import ABSGN
from batchlight.absgn.recipe import Extent, Recipe
from batchlight.absgn.samples import Batch, Pictures, Samples

LARGEST_GRADIENT = 1.0
"""Norm to which gradients are clipped."""
STEPS_AHEAD = 8
"""How many steps a GPU's queue may be ahead of the clock that the schedule follows."""
SAVE_EVERY_S = 240.0
"""Upper limit of what is lost when training is killed in the middle of a round."""


@dataclass(frozen=True)
class _Drawn:
    """The samples of a step."""

    batch: Batch
    given: Tensor
    """The network's input for it."""
    taken: Mapping[str, int]
    """How many pictures of each kind have been shown, including this step."""


@dataclass(frozen=True)
class Stop:
    """A point at which training pauses: the end of a round, or a chance to save its state."""

    round: int
    """From 1."""
    ended: bool
    """Whether the round has ended, or is in progress."""
    over: bool
    """Whether the whole training has ended."""
    progress: float
    """Completed share of the training."""
    loss: float
    """Mean over the steps of the round; NaN if most of them had no finite loss."""


class Trainer:
    """Trains a network. Its whole state is float tensors, which can be saved at every stop."""

    def __init__(
        self,
        recipe: Recipe,
        pictures: Pictures,
        start: Mapping[str, Tensor] | None = None,
        rank: int = 0,
        processes: int = 1,
        ahead: bool | None = None,
    ) -> None:
        """``ahead``: draw the next step's samples while this one is computed; by default on a GPU.

        They then match the progress of the training one step earlier.
        """
        self.device = pictures.pairs[0][0].device
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.steps = 0
        self.shown = 0
        """Real pairs shown, over all processes."""
        self.elapsed = 0.0
        """Seconds."""
        self.round = 0
        """Number of rounds that have ended."""
        self._network = self._placed(start)
        self.averaged = self._placed(self._network.state_dict()).requires_grad_(False)
        self._run: nn.Module = _Unclipped(self._network)
        if processes > 1:
            self._run = nn.parallel.DistributedDataParallel(self._run)
        on_gpu = self.device.type == "cuda"
        self._optimizer = torch.optim.Adam(
            self._network.parameters(), lr=recipe.learning_rate, fused=on_gpu
        )
        self._samples = Samples(recipe, pictures, rank, processes)
        self._taken: Mapping[str, int] = self._samples.taken
        ahead = on_gpu if ahead is None else ahead
        self._drawer = ThreadPoolExecutor(1, "draws-samples") if ahead else None
        self._next: Future[_Drawn] | None = None
        self._pairs = len(pictures.pairs)
        self._processes = processes
        self._losses = torch.zeros(2, device=self.device)
        """Sum over the steps of this round that had a finite loss, and their number."""
        self._round_steps = 0

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights of the averaged network, which are the result of the training."""
        return dict(self.averaged.state_dict())

    def train(self, extent: Extent, clock: Callable[[], float] = time.monotonic) -> Iterator[Stop]:
        """Continue the training; stops after each round, and every few minutes within one.

        ``clock`` returns seconds. The caller's time at a stop counts as well.
        """
        if self.device.type == "cuda":
            self._try_largest_batch()
        before, began = self.elapsed, clock()
        saved = scored = before
        while (progress := self._progress(extent)) < 1:
            self.step(progress)
            waits = self.steps % STEPS_AHEAD == 0
            if waits:
                float(self._losses[1])  # waits for the device
            self.elapsed = self._agreed(before + clock() - began, extent)
            if self._ends_round(extent, scored, waits):
                scored = saved = self.elapsed
                yield self._stop(extent, ended=True)
            elif waits and self.elapsed - saved >= SAVE_EVERY_S:
                saved = self.elapsed
                yield self._stop(extent, ended=False)

    def step(self, progress: float) -> None:
        """Run one step, at a given progress of the training."""
        drawn = self._drawn(progress)
        batch, self._taken = drawn.batch, drawn.taken
        for group in self._optimizer.param_groups:
            group["lr"] = self.recipe.rate_at(progress)
        loss = self._loss(drawn.given, batch)
        self._optimizer.zero_grad()
        loss.backward()
        for parameter in self._network.parameters():
            if parameter.grad is not None:  # a step that overflows is no reason to start over
                parameter.grad.nan_to_num_(0.0, 0.0, 0.0)
        nn.utils.clip_grad_norm_(self._network.parameters(), LARGEST_GRADIENT, foreach=True)
        self._optimizer.step()
        self.steps += 1
        self.shown += batch.pairs
        self._follow(decay_at(self.steps, self.recipe.average))
        finite = torch.isfinite(loss.detach())
        self._losses += torch.stack([torch.where(finite, loss.detach(), 0.0), finite.float()])
        self._round_steps += 1

    def state(self) -> dict[str, Tensor]:
        """All that changes in training, as a flat mapping; ``resume`` takes it back."""
        moments = {
            f"optimizer.{number}.{name}": value
            for number, values in self._optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }
        numbers = {"steps": self.steps, "shown": self.shown, "elapsed": self.elapsed}
        numbers |= {"round": self.round, "round_steps": self._round_steps}
        numbers |= {f"dealt.{kind}": count for kind, count in self._taken.items()}
        return {
            **{f"network.{n}": v for n, v in self._network.state_dict().items()},
            **{f"average.{n}": v for n, v in self.averaged.state_dict().items()},
            **moments,
            "losses": self._losses,
            # 32-bit floats are exact up to 16 million, and a file of floats can hold them.
            **{f"number.{n}": torch.tensor(float(v)) for n, v in numbers.items()},
        }

    def resume(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a saved state."""
        self._network.load_state_dict(_below("network.", state))
        self.averaged.load_state_dict(_below("average.", state))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _below("optimizer.", state).items():
            number, _, moment = name.partition(".")
            moments.setdefault(int(number), {})[moment] = value
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        numbers = {name: float(value) for name, value in _below("number.", state).items()}
        self._losses.copy_(state["losses"])
        self.elapsed = numbers["elapsed"]
        self.steps, self.shown, self.round, self._round_steps = (
            int(numbers[name]) for name in ("steps", "shown", "round", "round_steps")
        )
        self._taken = {n: int(v) for n, v in _below("dealt.", numbers).items()}
        self._samples.resume(self._taken)

    def _try_largest_batch(self) -> None:
        """Run what needs the most memory, so that a failure comes now rather than near the end."""
        largest = self._samples.largest()
        if largest is not None:
            self._loss(given_for(largest.low, self.recipe.start), largest).backward()
            self._optimizer.zero_grad()

    def _drawn(self, progress: float) -> _Drawn:
        """The samples of the current step."""
        ahead, self._next = self._next, None
        drawn = self._draw(self.steps, progress) if ahead is None else ahead.result()
        if self._drawer is not None:
            self._next = self._drawer.submit(self._draw, self.steps + 1, progress)
        return drawn

    def _draw(self, step: int, progress: float) -> _Drawn:
        batch = self._samples.draw(step, progress)
        return _Drawn(batch, given_for(batch.low, self.recipe.start), self._samples.taken)

    def _loss(self, given: Tensor, batch: Batch) -> Tensor:
        x = given.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            restored = self._run(x)
        restored = restored.float()
        losses = [loss_of(restored[part], high) * share for part, high, share in batch.targets]
        return torch.stack(losses).sum()

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        mean: list[Tensor] = list(self.averaged.parameters())
        now: list[Tensor] = list(self._network.parameters())
        torch._foreach_lerp_(mean, now, 1 - decay)

    def _progress(self, extent: Extent) -> float:
        if extent.seconds is not None:
            return self.elapsed / extent.seconds if extent.seconds else 1.0
        return self.shown / (extent.epochs * self._pairs)

    def _ends_round(self, extent: Extent, scored: float, waits: bool) -> bool:
        if self._progress(extent) >= 1:
            return True
        if extent.seconds is None:
            return self.shown >= (self.round + 1) * self._pairs
        left = extent.seconds - self.elapsed
        # Not shortly before the end, where it would be repeated.
        return waits and min(self.elapsed - scored, 2 * left) >= extent.round_s

    def _stop(self, extent: Extent, ended: bool) -> Stop:
        if extent.seconds is None and ended:
            self.round = min(extent.epochs, self.shown // self._pairs)
        else:
            self.round += ended
        total, count = self._losses.tolist()
        loss = total / count if 2 * count > self._round_steps else float("nan")
        if ended:
            self._losses.zero_()
            self._round_steps = 0
        progress = min(1.0, self._progress(extent))
        return Stop(self.round + (not ended), ended, progress >= 1, progress, loss)

    def _agreed(self, elapsed: float, extent: Extent) -> float:
        """The first process's clock, if time matters, so that all take the same branch."""
        if self._processes == 1 or extent.seconds is None:
            return elapsed
        said = torch.tensor(elapsed, dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(said, 0)
        return float(said)

    def _placed(self, weights: Mapping[str, Tensor] | None) -> ABSGN:
        network = ABSGN(self.recipe.channels)
        if weights is not None:
            network.load_state_dict(weights)
        return network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class _Unclipped(nn.Module):
    """The network as called in training: its output is not clipped."""

    def __init__(self, network: ABSGN) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network.restore(x)


def decay_at(steps: int, decay: float) -> float:
    """The decay of a moving average, short at first, so as to forget where it started.

    Like TensorFlow's ExponentialMovingAverage in warm-up: of n steps, the last tenth or so counts.
    """
    return min(decay, (1 + steps) / (10 + steps))


def _below(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    return {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
