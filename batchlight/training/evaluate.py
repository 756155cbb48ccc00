"""How close the images of one folder are to those of another: PSNR and SSIM, pair by pair.

Pixels are compared as stored, without turning them, and alpha is ignored. Gray is compared with
colour as three equal channels, 8 with 16 bit as 16 bit (times 257).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from batchlight.errors import UsageError
from batchlight.images.pixels import Pixels, in_colour
from batchlight.training.folders import (
    NoScoreError,
    PixelBudget,
    Side,
    Unmatched,
    in_order,
    pairs_of,
    unmatched_of,
)
from batchlight.training.quality import Quality, at_mean_of, quality, shrunk

SMALLEST_SIDE = 7
"""Minimum side of an image for SSIM, which is computed in windows of this size."""
TO_16_BIT = np.uint16(257)
"""Factor from the range of 8 bits to that of 16."""

LARGEST_SIDE = 4096
"""To which images are resized; a pair then takes some gigabytes."""


@dataclass(frozen=True)
class Score:
    """How close one enhanced image is to its reference."""

    path: str
    """Path of the enhanced image, relative to its folder."""
    psnr: float | None = None
    """Decibels; infinite for an image whose pixels equal its reference's; None without a score."""
    ssim: float | None = None
    """At most 1; None without a score."""
    psnr_at_mean: float | None = None
    """PSNR once the image is scaled to the mean luminance of its reference."""
    ssim_at_mean: float | None = None
    problem: str | None = None
    """Why there is no score; None if there is one."""


@dataclass(frozen=True)
class Evaluation:
    """How close a folder of enhanced images is to its references."""

    enhanced: str
    reference: str
    images: int
    """Pairs: the length of ``scores``."""
    scored: int
    """Number of pairs with a score; the others have a problem."""
    identical: int
    """Scored pairs with equal pixels, and so with an infinite PSNR."""
    psnr: float | None
    """Mean over the scored pairs that are not identical, since a single infinite value would hide
    all others; infinite if all are identical, None if none is scored."""
    ssim: float | None
    """Mean over all scored pairs; None if there are none."""
    psnr_at_mean: float | None
    ssim_at_mean: float | None
    """The same once each image is scaled to the mean luminance of its reference."""
    size: int | None
    """Side that all images were first resized to; None: they were compared as they are."""
    scores: tuple[Score, ...]
    """One per pair, in the order of the UTF-8 bytes of their paths."""
    without_reference: Unmatched
    """Enhanced images without a reference to compare with."""
    without_enhanced: Unmatched
    """References without an enhanced image."""

    def to_dict(self) -> dict[str, Any]:
        """The evaluation as a JSON object, with the names of the fields.

        JSON has no infinity, so an infinite PSNR becomes null. It cannot be mistaken for a missing
        one: a pair without a score has a ``problem``, and ``identical`` counts the infinite ones.
        """
        scores = [_with_finite(asdict(score)) for score in self.scores]
        return {**_with_finite(asdict(replace(self, scores=()))), "scores": scores}


def evaluate(
    enhanced: str | os.PathLike[str],
    reference: str | os.PathLike[str],
    on_score: Callable[[Score, int], object] | None = None,
    size: int | None = None,
) -> Evaluation:
    """Compare each image below ``enhanced`` with its counterpart below ``reference``.

    Both are local folders or prefixes of object stores. ``on_score`` is called with each score, in
    path order, and the total number of pairs. ``size``: both are first resized to squares of that
    side. An image that cannot be compared has a score that says why. Raises ``UsageError`` if
    nothing can be compared, or for a folder that is the whole output of a run; ``StorageError`` for
    an unreachable place.
    """
    if size is not None and not SMALLEST_SIDE <= size <= LARGEST_SIDE:
        raise UsageError(f"--size is {size}, but must be from {SMALLEST_SIDE} to {LARGEST_SIDE}")
    ours = Side.open("enhanced image", "--enhanced", enhanced)
    theirs = Side.open("reference", "--reference", reference)
    pairs = pairs_of(ours.files, theirs.files)
    if not pairs:
        raise UsageError(
            f"none of the images in {ours.location}, such as {next(iter(ours.files))}, has one "
            f"with the same relative path in {theirs.location}; check --enhanced or --reference"
        )
    scores = []
    with closing(_scores(ours, theirs, list(pairs.items()), size)) as found:
        for score in found:
            scores.append(score)
            if on_score is not None:
                on_score(score, len(pairs))
    scored = [score for score in scores if score.problem is None]
    return Evaluation(
        enhanced=str(ours.location),
        reference=str(theirs.location),
        images=len(scores),
        scored=len(scored),
        identical=sum(score.psnr == math.inf for score in scored),
        psnr=_mean(score.psnr for score in scored),
        ssim=_mean(score.ssim for score in scored),
        psnr_at_mean=_mean(score.psnr_at_mean for score in scored),
        ssim_at_mean=_mean(score.ssim_at_mean for score in scored),
        size=size,
        scores=tuple(scores),
        without_reference=unmatched_of(ours.files, pairs.keys()),
        without_enhanced=unmatched_of(theirs.files, pairs.values()),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of the finite values; infinite if none is finite, None if there are no values."""
    known = [value for value in values if value is not None]
    finite = [value for value in known if math.isfinite(value)]
    return fmean(finite or known) if known else None


def _with_finite(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: None if value == math.inf else value for name, value in facts.items()}


def _scores(
    ours: Side, theirs: Side, pairs: Sequence[tuple[str, str]], size: int | None
) -> Generator[Score, None, None]:
    """The score of each pair, in order, computed by several threads."""

    def score(pair: tuple[str, str], budget: PixelBudget) -> Score:
        try:
            plain, at_mean = _compare(ours, theirs, pair, size, budget)
        except NoScoreError as reason:
            return Score(pair[0], problem=str(reason))
        except MemoryError:
            return Score(pair[0], problem="there is not enough memory to compare it")
        return Score(pair[0], plain.psnr, plain.ssim, at_mean.psnr, at_mean.ssim)

    return in_order(pairs, score)


def _compare(
    ours: Side, theirs: Side, pair: tuple[str, str], size: int | None, budget: PixelBudget
) -> tuple[Quality, Quality]:
    """Compare as is, and scaled to the brightness of the reference."""
    image_file, reference_file = ours.read(pair[0]), theirs.read(pair[1])
    pixels = max(file[1].width * file[1].height for file in (image_file, reference_file))
    with budget.taken(max(pixels, (size or 0) ** 2)):
        image, reference = ours.decode(*image_file), theirs.decode(*reference_file)
        if size is not None:
            image, reference = shrunk(image, size), shrunk(reference, size)
        if image.shape[:2] != reference.shape[:2]:
            raise NoScoreError(
                f"it has {_size(image)} pixels, but its reference has {_size(reference)}"
            )
        if min(image.shape[:2]) < SMALLEST_SIDE:
            raise NoScoreError(
                f"{_size(image)} pixels are too few, since SSIM takes at least "
                f"{SMALLEST_SIDE}x{SMALLEST_SIDE}"
            )
        image, reference = _alike(image, reference)
        return quality(image, reference), quality(at_mean_of(image, reference), reference)


def _size(pixels: Pixels) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def _alike(one: Pixels, other: Pixels) -> tuple[Pixels, Pixels]:
    """Both in colour if one is, and both with 16 bits if one has 16."""
    if one.ndim != other.ndim:
        one, other = in_colour(one), in_colour(other)
    if one.dtype != other.dtype:
        one, other = _in_16_bit(one), _in_16_bit(other)
    return one, other


def _in_16_bit(pixels: Pixels) -> Pixels:
    return pixels if pixels.dtype == np.uint16 else pixels * TO_16_BIT
