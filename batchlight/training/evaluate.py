"""How near the images of one folder are to those of another: PSNR and SSIM, pair by pair.

Images are paired by relative path. The same path with another suffix (``a.jpg`` and ``a.png``) is
a pair too, where each folder holds just one image of that name; an equal path comes first.

Pixels are compared as stored, without turning them, and alpha is left out. Gray against colour is
compared as three equal channels, 8 against 16 bit as 16 bit (times 257).
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from batchlight.config import LARGEST_IMAGE
from batchlight.errors import ErrorCode, ImageError, UsageError, brief
from batchlight.host.resources import usable_cpus
from batchlight.images.codec import decode
from batchlight.images.header import read_header
from batchlight.images.image import Header
from batchlight.images.names import is_image_name
from batchlight.images.pixels import Pixels, in_colour
from batchlight.output.layout import is_output
from batchlight.shards.inventory import images_in
from batchlight.shards.names import is_container_name
from batchlight.shards.source import read_member
from batchlight.storage import Location, Storage, open_source
from batchlight.training.quality import Quality, quality

SMALLEST_SIDE = 7
"""Of an image that has an SSIM, which is computed in windows of this size."""
TO_16_BIT = np.uint16(257)
"""Times this, the range of 8 bits becomes that of 16."""
NAMED_AT_MOST = 5
"""Images without a counterpart that are named; all are counted."""

THREADS_PER_CPU = 2
"""Some wait for files while others compute, for which they hold no lock of the interpreter."""
AHEAD = 1024
"""Pairs given to the threads at once."""
PIXELS_AT_ONCE = 32_000_000
"""Of the pairs being compared at one time, since each pixel takes about 150 bytes. A larger pair
is compared alone."""


@dataclass(frozen=True)
class Score:
    """How near one enhanced image is to its reference."""

    path: str
    """Of the enhanced image, relative to its folder."""
    psnr: float | None
    """Decibels; infinite for an image whose pixels equal its reference's; None without a score."""
    ssim: float | None
    """At most 1; None without a score."""
    problem: str | None
    """Why there is no score; None where there is one."""


@dataclass(frozen=True)
class Unmatched:
    """Images of one folder that have no counterpart in the other."""

    count: int
    first: tuple[str, ...]
    """The paths of the first few."""


@dataclass(frozen=True)
class Evaluation:
    """How near a folder of enhanced images is to its references."""

    enhanced: str
    reference: str
    images: int
    """Pairs: the length of ``scores``."""
    scored: int
    """Pairs that have a score; the others have a problem."""
    identical: int
    """Scored pairs whose pixels are equal, so that their PSNR is infinite."""
    psnr: float | None
    """Mean over the scored pairs that are not identical, since a single infinite value would hide
    all others; infinite if every one is identical, None if none is scored."""
    ssim: float | None
    """Mean over all scored pairs; None if there are none."""
    scores: tuple[Score, ...]
    """One for each pair, in the order of the UTF-8 bytes of their paths."""
    without_reference: Unmatched
    """Enhanced images that were compared with nothing."""
    without_enhanced: Unmatched
    """References that nothing was compared with."""

    def to_dict(self) -> dict[str, Any]:
        """The evaluation as a JSON object, with the names of the fields.

        JSON has no infinity, so an infinite PSNR becomes null. It cannot be mistaken for a missing
        one: a pair without a score has a ``problem``, and ``identical`` counts the infinite ones.
        """
        scores = [{**asdict(score), "psnr": _finite(score.psnr)} for score in self.scores]
        others = asdict(replace(self, scores=()))
        return {**others, "psnr": _finite(self.psnr), "scores": scores}


def evaluate(
    enhanced: str, reference: str, on_score: Callable[[Score, int], object] | None = None
) -> Evaluation:
    """Compare each image below ``enhanced`` with its counterpart below ``reference``.

    Both are local folders or prefixes of object stores. ``on_score`` is called with each score, in
    the order of the paths, and the number of all pairs. An image that cannot be compared has a
    score that says why. Raises ``UsageError`` if nothing can be compared, or for a folder that is
    the output of a run as a whole; ``StorageError`` for a place out of reach.
    """
    ours = _Side.open("enhanced image", "--enhanced", enhanced)
    theirs = _Side.open("reference", "--reference", reference)
    pairs = _pairs(ours.files, theirs.files)
    if not pairs:
        raise UsageError(
            f"none of the images in {ours.location}, such as {next(iter(ours.files))}, has one of "
            f"the same relative path in {theirs.location}; correct --enhanced or --reference"
        )
    scores = []
    with closing(_scores(ours, theirs, list(pairs.items()))) as found:
        for score in found:
            scores.append(score)
            if on_score is not None:
                on_score(score, len(pairs))
    psnr = [score.psnr for score in scores if score.psnr is not None]
    ssim = [score.ssim for score in scores if score.ssim is not None]
    finite = [value for value in psnr if math.isfinite(value)]
    return Evaluation(
        enhanced=str(ours.location),
        reference=str(theirs.location),
        images=len(scores),
        scored=len(psnr),
        identical=len(psnr) - len(finite),
        psnr=fmean(finite or psnr) if psnr else None,
        ssim=fmean(ssim) if ssim else None,
        scores=tuple(scores),
        without_reference=_unmatched(ours.files, pairs.keys()),
        without_enhanced=_unmatched(theirs.files, pairs.values()),
    )


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else value


class _NoScoreError(Exception):
    """Why two images are not compared."""


@dataclass(frozen=True)
class _Side:
    """One of the two folders."""

    noun: str
    location: Location
    storage: Storage
    files: Mapping[str, str | None]
    """The images in order: relative path, and why its name cannot be used, if so."""
    members: Mapping[str, tuple[str, int, int]]
    """Of those in containers: the container, and where in it they begin, and their size."""

    @classmethod
    def open(cls, noun: str, option: str, text: str) -> _Side:
        location = Location.parse(text)
        if not location.remote and os.path.isfile(location.path):
            raise UsageError(f"{location} is a file; give the folder that holds it as {option}")
        storage = open_source(location)
        storage.check(writable=False)
        if is_output(storage):
            raise UsageError(
                f"{location} is the output of a run; give one of its folders, "
                f"such as {location}/classical, as {option}"
            )
        files: dict[str, str | None] = {}
        members: dict[str, tuple[str, int, int]] = {}
        for info in storage.walk():
            if is_image_name(info.path):
                files[info.path] = info.defect
            elif is_container_name(info.path):
                for item in images_in(storage, info):
                    files[item.path] = item.defect
                    if item.offset is not None:
                        members[item.path] = info.path, item.offset, item.size or 0
        if not files:
            raise UsageError(f"there are no images in {location}; correct {option}")
        return cls(noun, location, storage, files, members)

    def read(self, path: str) -> tuple[bytes, Header]:
        """An image before a pixel is decoded. Raises ``_NoScoreError``."""
        if (defect := self.files[path]) is not None:
            raise self.refusal(defect)
        try:
            data = self._bytes_of(path)
            return data, read_header(data, LARGEST_IMAGE)
        except FileNotFoundError:
            raise self.refusal("vanished since it was listed") from None
        except PermissionError:
            raise self.refusal("no permission to read it") from None
        except OSError as error:
            raise self.refusal(f"cannot be read: {brief(error)}") from error
        except ImageError as error:
            if error.code == ErrorCode.TOO_LARGE:  # its text names an option that we do not have
                raise self.refusal(f"more than {LARGEST_IMAGE:,} pixels") from error
            raise self.refusal(error.message) from error

    def _bytes_of(self, path: str) -> bytes:
        if path in self.members:
            return read_member(self.storage, *self.members[path])
        return self.storage.read(path)

    def decode(self, data: bytes, header: Header) -> Pixels:
        """Its pixels. Raises ``_NoScoreError``."""
        try:
            return decode(data, header).pixels
        except ImageError as error:
            raise self.refusal(error.message) from error

    def refusal(self, reason: str) -> _NoScoreError:
        return _NoScoreError(f"{self.noun}: {reason}")


class _Room:
    """Lets a limited number of pixels in at one time."""

    def __init__(self, pixels: int) -> None:
        self._size = self._left = pixels
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Wait until there is room for so many; more than there can be wait for all of it."""
        share = min(pixels, self._size)
        with self._changed:
            self._changed.wait_for(lambda: share <= self._left)
            self._left -= share
        try:
            yield
        finally:
            with self._changed:
                self._left += share
                self._changed.notify_all()


def _pairs(enhanced: Iterable[str], references: Iterable[str]) -> dict[str, str]:
    """Each enhanced image that has a reference, in order, and that reference."""
    ours, theirs = _by_stem(enhanced), _by_stem(references)
    found = {}
    for path in enhanced:
        stem = _stem(path)
        candidates = theirs.get(stem, [])
        if path in candidates:
            found[path] = path
        elif len(candidates) == len(ours[stem]) == 1:
            found[path] = candidates[0]
    return found


def _by_stem(paths: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(_stem(path), []).append(path)
    return found


def _stem(path: str) -> str:
    return path.rpartition(".")[0]


def _unmatched(paths: Iterable[str], matched: Iterable[str]) -> Unmatched:
    done = set(matched)
    alone = [path for path in paths if path not in done]
    return Unmatched(len(alone), tuple(alone[:NAMED_AT_MOST]))


def _scores(
    ours: _Side, theirs: _Side, pairs: list[tuple[str, str]]
) -> Generator[Score, None, None]:
    """The score of each pair, in order, computed by several threads."""
    room = _Room(PIXELS_AT_ONCE)

    def score(pair: tuple[str, str]) -> Score:
        try:
            found = _compare(ours, theirs, pair, room)
        except _NoScoreError as reason:
            return Score(pair[0], None, None, str(reason))
        except MemoryError:
            return Score(pair[0], None, None, "there is not enough memory to compare it")
        return Score(pair[0], found.psnr, found.ssim, None)

    with ThreadPoolExecutor(THREADS_PER_CPU * usable_cpus()) as pool:
        for start in range(0, len(pairs), AHEAD):
            yield from pool.map(score, pairs[start : start + AHEAD])


def _compare(ours: _Side, theirs: _Side, pair: tuple[str, str], room: _Room) -> Quality:
    image_file, reference_file = ours.read(pair[0]), theirs.read(pair[1])
    with room.taken(max(file[1].width * file[1].height for file in (image_file, reference_file))):
        image, reference = ours.decode(*image_file), theirs.decode(*reference_file)
        if image.shape[:2] != reference.shape[:2]:
            raise _NoScoreError(
                f"it has {_size(image)} pixels, but its reference has {_size(reference)}"
            )
        if min(image.shape[:2]) < SMALLEST_SIDE:
            raise _NoScoreError(
                f"{_size(image)} pixels are too few, since SSIM takes at least "
                f"{SMALLEST_SIDE}x{SMALLEST_SIDE}"
            )
        return quality(*_alike(image, reference))


def _size(pixels: Pixels) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def _alike(one: Pixels, other: Pixels) -> tuple[Pixels, Pixels]:
    """Both in colour if one is, and both with 16 bits if one has them."""
    if one.ndim != other.ndim:
        one, other = in_colour(one), in_colour(other)
    if one.dtype != other.dtype:
        one, other = _in_16_bit(one), _in_16_bit(other)
    return one, other


def _in_16_bit(pixels: Pixels) -> Pixels:
    return pixels if pixels.dtype == np.uint16 else pixels * TO_16_BIT
