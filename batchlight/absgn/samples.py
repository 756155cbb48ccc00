"""The samples of a training step: made on the device, which also holds the pictures.

All randomness follows from the seed, the step and the process, so a training run resumed from a
checkpoint equals one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from batchlight.absgn.losses import resized
from batchlight.absgn.network import MULTIPLE
from batchlight.absgn.recipe import Phase, Recipe
from batchlight.absgn.synthetic import darken

READ_VARIANCE = 3.2
SHOT_VARIANCE = 0.25
"""Noise of a dark image at level v of 255: variance READ + SHOT x v, in levels squared. Fitted to
the finest diagonal Haar band of low-light photographs with unscaled sensor noise."""
STRONGEST_NOISE = 1.3
"""Maximum noise added to a dark picture; 1 is that of a dark image straight from the camera."""
ENLARGED_NOISE = 0.3
"""Minimum noise added to an enlarged picture, which has less than one taken at that size."""
MIRRORED, UPSIDE_DOWN = 0.5, 0.25
"""Shares of the samples."""
ENLARGED = 0.5
"""Share of the pictures beside one at its own size that show real pairs; the rest are synthetic."""
LARGEST_PICTURE, LARGEST_NATIVE = 4, 8
"""Size limits of a picture held in memory, in samples: at four, half of its sides still fill one; a
picture that is shown at its own size may be as large as a batch."""

Pair = tuple[Tensor, Tensor]
"""A dark picture and its ground truth: uint8 RGB, (3, H, W), on the device."""
Target = tuple[slice, Tensor, float]
"""Which samples of a batch, their target, and their share of the loss."""


@dataclass(frozen=True)
class Pictures:
    """The training pictures, all on one device, with sides that are multiples of 8."""

    pairs: Sequence[Pair]
    """Of equal size."""
    clean: Sequence[Tensor]
    """Well-lit pictures, including the bright halves of the pairs."""
    native: Sequence[Pair] = ()
    """Pairs shown at the size of their dark side; their ground truth may have been shrunk."""


@dataclass(frozen=True)
class Batch:
    """The samples of one step."""

    low: Tensor
    """(N, 3, H, W) in 0..1."""
    targets: Sequence[Target]
    pairs: int
    """How many samples show real pairs, over all processes."""


def fitted(
    image: npt.NDArray[np.uint8], size: int, samples: int = LARGEST_PICTURE
) -> npt.NDArray[np.uint8]:
    """A picture as held in memory: shrunk to a few samples of ``size``, cut to multiples of 8."""
    height, width = image.shape[:2]
    scale = min(1.0, size * (samples / (height * width)) ** 0.5)
    h, w = (max(MULTIPLE, round(side * scale)) for side in (height, width))
    if (h, w) != (height, width):
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, (w, h), interpolation=how), np.uint8)
    h, w = (side // MULTIPLE * MULTIPLE for side in image.shape[:2])
    return np.ascontiguousarray(image[:h, :w])


def as_picture(image: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """The image as (3, H, W) on the device, from (H, W, 3)."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).contiguous().to(device)


class Samples:
    """Batches of samples; processes that train together each get their share of the pictures."""

    def __init__(self, recipe: Recipe, pictures: Pictures, rank: int, processes: int) -> None:
        self._recipe = recipe
        self._pictures = pictures
        self._share = (rank, processes)
        self._device = pictures.pairs[0][0].device
        self._common, self._choose = torch.Generator(), torch.Generator()
        self._random = torch.Generator(self._device)
        counts = {
            "pairs": len(pictures.pairs),
            "clean": len(pictures.clean),
            "native": len(pictures.native),
        }
        self._shufflers = {
            name: _EpochShuffler(n, (recipe.seed, k)) for k, (name, n) in enumerate(counts.items())
        }
        areas = [low.shape[1] * low.shape[2] for low, _ in pictures.native]
        self._largest_native = max(areas, default=0)

    @property
    def taken(self) -> dict[str, int]:
        """How many pictures of each kind were shown, over all processes; ``resume`` takes it."""
        return {name: shuffler.taken for name, shuffler in self._shufflers.items()}

    def resume(self, taken: Mapping[str, int]) -> None:
        """Continue from where another one stopped."""
        for name, shuffler in self._shufflers.items():
            shuffler.taken = taken[name]

    def draw(self, step: int, progress: float) -> Batch:
        """The samples of a step at a given progress of the training."""
        rank, processes = self._share
        self._common.manual_seed(_mixed(self._recipe.seed, step))
        for generator in (self._choose, self._random):
            generator.manual_seed(_mixed(self._recipe.seed, step, rank))
        phase = self._recipe.phase_at(progress)
        if self._pictures.native and self._agreed() < phase.native:
            return self._native(phase)
        made = int(phase.batch * self._recipe.synthetic + self._agreed())
        parts = []
        if made < phase.batch:
            parts.append(self._pairs(phase.batch - made, phase))
        if made:
            parts.append(self._made(made, phase.side))
        low, high = (torch.cat(side) for side in zip(*parts, strict=True))
        return Batch(low, [(slice(None), high, 1.0)], (phase.batch - made) * processes)

    def largest(self) -> Batch | None:
        """A batch with the most pixels that whole images can have; None if there are none."""
        phase = self._recipe.phases[-1]
        if not self._pictures.native or not phase.native:
            return None
        sizes = [low.shape[1] * low.shape[2] for low, _ in self._pictures.native]
        low, high = self._pictures.native[sizes.index(self._largest_native)]
        count = self._native_count(phase)
        lows, highs = (x[None].float().expand(count, -1, -1, -1) / 255 for x in (low, high))
        return Batch(lows, [(slice(None), highs, 1.0)], 0)

    def _native_count(self, phase: Phase) -> int:
        return max(1, phase.batch * phase.side**2 // self._largest_native)

    def _pairs(self, count: int, phase: Phase) -> Pair:
        size = (phase.side, phase.side)
        lows, highs = [], []
        for number in self._take("pairs", count):
            both = torch.cat(self._pictures.pairs[number])[None].float() / 255
            if self._uniform() >= phase.whole:
                least = self._recipe.smallest_region
                both = self._cut(both, least + (1 - least) * self._uniform())
            low, high = resized(both, size).chunk(2, 1)
            lows.append(low)
            highs.append(high)
        low, high = torch.cat(lows), torch.cat(highs)
        if self._uniform() < self._recipe.noisy:
            low = self._noisier(low, 0.0)
        return self._turned(low, high)

    def _made(self, count: int, side: int) -> Pair:
        squares = []
        for number in self._take("clean", count):
            clean = self._pictures.clean[number][None].float() / 255
            most = min(clean.shape[2:])
            region = min(most, side + int(max(0, most - side) * self._uniform() ** 2))
            squares.append(resized(self._square(clean, region), (side, side)))
        clean = torch.cat(squares)
        return darken(self._turned(clean, clean)[0], self._recipe.darkening, self._random)

    def _native(self, phase: Phase) -> Batch:
        """One dark picture at its own size; if memory allows, others of that size or synthetic."""
        low, high = (
            x[None].float() / 255 for x in self._pictures.native[self._take("native", 1)[0]]
        )
        size = (low.shape[2], low.shape[3])
        count = self._native_count(phase)
        parts, real = [self._flipped(low, high)], 1
        for _ in range(count - 1):
            if self._agreed() < ENLARGED:
                parts.append(self._enlarged(size))
                real += 1
            else:
                clean = self._pictures.clean[self._take("clean", 1)[0]][None].float() / 255
                clean, _ = self._flipped(clean, clean)
                parts.append(darken(resized(clean, size), self._recipe.darkening, self._random))
        targets = [(slice(k, k + 1), high, 1 / count) for k, (_, high) in enumerate(parts)]
        return Batch(torch.cat([low for low, _ in parts]), targets, real * self._share[1])

    def _enlarged(self, size: tuple[int, int]) -> Pair:
        low, high = (x[None].float() / 255 for x in self._pictures.pairs[self._take("pairs", 1)[0]])
        if low.shape[2] * low.shape[3] > size[0] * size[1]:
            return self._flipped(resized(low, size), resized(high, size))
        low = interpolate(low, size, mode="bicubic", align_corners=False).clamp(0, 1)
        return self._flipped(self._noisier(low, ENLARGED_NOISE), high)

    def _noisier(self, low: Tensor, least: float) -> Tensor:
        """Add sensor noise, with a random strength of at least ``least`` for each sample."""
        levels = low * 255
        strength = torch.rand((len(low), 1, 1, 1), device=low.device, generator=self._random)
        strength = least + strength * (STRONGEST_NOISE - least)
        sigma = strength * (READ_VARIANCE + SHOT_VARIANCE * levels).sqrt()
        noise = torch.randn(low.shape, device=low.device, generator=self._random)
        return (levels + noise * sigma).round().clamp(0, 255) / 255

    def _cut(self, image: Tensor, share: float) -> Tensor:
        """A random region that covers a share of the sides."""
        h, w = (max(1, round(side * share)) for side in image.shape[2:])
        y, x = self._below(image.shape[2] - h + 1), self._below(image.shape[3] - w + 1)
        return image[:, :, y : y + h, x : x + w]

    def _square(self, image: Tensor, side: int) -> Tensor:
        y, x = self._below(image.shape[2] - side + 1), self._below(image.shape[3] - side + 1)
        return image[:, :, y : y + side, x : x + side]

    def _turned(self, low: Tensor, high: Tensor) -> Pair:
        """Randomly flipped square samples, half of them also transposed."""
        low, high = self._flipped(low, high)
        half = (len(low) + int(self._uniform() < 0.5)) // 2
        low, high = (torch.cat([x[:half].transpose(2, 3), x[half:]]) for x in (low, high))
        return low, high

    def _flipped(self, low: Tensor, high: Tensor) -> Pair:
        """Each sample as it is or mirrored; less often also upside down."""
        for axis, chance in ((3, MIRRORED), (2, UPSIDE_DOWN)):
            draw = torch.rand((len(low), 1, 1, 1), device=low.device, generator=self._random)
            low, high = (torch.where(draw < chance, x.flip(axis), x) for x in (low, high))
        return low, high

    def _take(self, kind: str, count: int) -> list[int]:
        rank, processes = self._share
        return self._shufflers[kind].take(count * processes)[rank::processes]

    def _agreed(self) -> float:
        """A random number shared by all processes, whose batches must have the same shape."""
        return float(torch.rand((), generator=self._common))

    def _uniform(self) -> float:
        return float(torch.rand((), generator=self._choose))

    def _below(self, limit: int) -> int:
        return int(torch.randint(limit, (), generator=self._choose))


class _EpochShuffler:
    """Numbers below ``count`` in random order; every one comes once before any comes twice."""

    def __init__(self, count: int, seed: tuple[int, ...]) -> None:
        self.count = count
        self.taken = 0
        self._shuffled = lru_cache(2)(self._shuffle)
        self._seed = seed

    def take(self, wanted: int) -> list[int]:
        places = range(self.taken, self.taken + wanted)
        self.taken += wanted
        return [self._shuffled(place // self.count)[place % self.count] for place in places]

    def _shuffle(self, time: int) -> list[int]:
        order = torch.Generator().manual_seed(_mixed(*self._seed, time))
        return list(torch.randperm(self.count, generator=order).tolist())


def _mixed(*numbers: int) -> int:
    """One seed derived from several numbers, each of which matters."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
