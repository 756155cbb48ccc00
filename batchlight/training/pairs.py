"""Pairs of a dark image and its ground truth, matched by name and separated by scene."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from batchlight.config import LARGEST_IMAGE
from batchlight.errors import ImageError, UsageError, counted
from batchlight.images import codec
from batchlight.images.header import read_header
from batchlight.images.names import is_image_name
from batchlight.images.pixels import Rgb, in_colour
from batchlight.storage import Location, open_source

logger = logging.getLogger(__name__)

Gray = npt.NDArray[Any]
"""Like ``Rgb``, but (height, width)."""

LOW, HIGH, NATIVE = "low", "high", "native"
THUMBNAIL = 24
SAME_SCENE = 0.9
"""Correlation of two thumbnails above which they show the same scene. In LOL-v1, nearly all pairs
of images are below 0.7 or above 0.94."""


@dataclass(frozen=True)
class TrainingPair:
    """An image in ``low/`` and one in ``high/`` of the same name, apart from the suffix."""

    folder: str
    name: str
    low: str
    high: str
    native: str | None = None
    """Paths relative to the folder; ``native`` is the dark image before it was shrunk, if any."""


def find_pairs(folder: str) -> list[TrainingPair]:
    """The pairs below a folder or prefix, by name. Raises ``UsageError`` if there are none."""
    root = Location.parse(folder)
    storage = open_source(root)
    storage.check(writable=False)
    sides: dict[str, dict[str, str]] = {LOW: {}, HIGH: {}, NATIVE: {}}
    for info in storage.walk():
        side, _, path = info.path.partition("/")
        if side in sides and is_image_name(path):
            name = path.rpartition(".")[0]
            if name in sides[side]:
                raise UsageError(
                    f"{root} holds both {sides[side][name]} and {info.path}; keep one of them"
                )
            sides[side][name] = info.path
    low, high = sides[LOW], sides[HIGH]
    if alone := sorted(low.keys() ^ high.keys()):
        logger.warning(
            "skipped in %s, for lack of a counterpart: %s, such as %s",
            root, counted(len(alone), "image"), alone[0],
        )  # fmt: skip
    native = sides[NATIVE]
    pairs = [
        TrainingPair(str(root), n, low[n], high[n], native.get(n))
        for n in sorted(low.keys() & high.keys())
    ]
    if not pairs:
        raise UsageError(
            f"{root} holds no pairs; put the dark images into its folder low/ and the "
            "well-lit ones, under the same names, into high/"
        )
    return pairs


def find_images(folder: str) -> list[tuple[str, str]]:
    """The images below a folder or prefix, as (folder, path). Raises ``UsageError`` if none."""
    root = Location.parse(folder)
    storage = open_source(root)
    storage.check(writable=False)
    found = [(str(root), info.path) for info in storage.walk() if is_image_name(info.path)]
    if not found:
        raise UsageError(f"{root} contains no images; check --clean")
    return found


def load_pair(pair: TrainingPair) -> tuple[Rgb, Rgb]:
    """Both images, at the same size. Raises ``UsageError``."""
    low, high = (load_image(pair.folder, path, "the pair") for path in (pair.low, pair.high))
    if low.shape != high.shape:
        raise UsageError(
            f"{pair.low} and {pair.high} in {pair.folder} differ in size; remove the pair"
        )
    return low, high


def split_by_scene(
    pairs: Sequence[TrainingPair], share: float, seed: int
) -> tuple[list[TrainingPair], list[TrainingPair]]:
    """Pairs to train on and pairs to validate with, about ``share`` of all.

    The same scene at another exposure never ends up on both sides, and at least one scene is left
    to train on.
    """
    if not share or not pairs:
        return list(pairs), []
    scenes = group_scenes([_thumbnail(load_pair(pair)[1]) for pair in pairs])
    members: dict[int, list[TrainingPair]] = {}
    for pair, scene in zip(pairs, scenes, strict=True):
        members.setdefault(scene, []).append(pair)
    drawn = sorted(
        members.values(),
        key=lambda group: hashlib.sha256(f"{seed}/{group[0].name}".encode()).digest(),
    )
    held_out: list[TrainingPair] = []
    while len(drawn) > 1 and len(held_out) < round(share * len(pairs)):
        held_out += drawn.pop()
    apart = set(held_out)
    return [pair for pair in pairs if pair not in apart], sorted(held_out, key=lambda p: p.name)


def group_scenes(thumbnails: Sequence[Gray]) -> list[int]:
    """For each thumbnail, the number of the first one of its scene.

    Images that are alike, directly or through a chain of others, show the same scene.
    """
    vectors = np.stack([t.ravel() - t.mean() for t in thumbnails]).astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(lengths > 0, lengths, 1)  # a flat image is like no other
    alike = vectors @ vectors.T >= SAME_SCENE
    scenes = np.full(len(alike), -1)
    for first in range(len(alike)):
        if scenes[first] < 0:
            scenes[_linked_with(first, alike)] = first
    return [int(scene) for scene in scenes]


def _linked_with(first: int, alike: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Thumbnails reached from one through a chain of alike ones, including itself."""
    reached: npt.NDArray[np.bool_] = np.arange(len(alike)) == first
    while np.any(further := alike[reached].any(axis=0) & ~reached):
        reached |= further
    return reached


def _thumbnail(image: Rgb) -> Gray:
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small: Gray = cv2.resize(gray, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return small


def load_image(folder: str, path: str, to_remove: str) -> Rgb:
    """In 0..1, at full size. Raises ``UsageError``."""
    storage = open_source(Location.parse(folder))
    try:
        data = storage.read(path)
        pixels = codec.decode(data, read_header(data, LARGEST_IMAGE)).pixels
    except (ImageError, OSError) as error:
        raise UsageError(f"cannot use {path} in {folder}: {error}; remove {to_remove}") from error
    top = np.float32(np.iinfo(pixels.dtype).max)
    rgb: Rgb = in_colour(pixels)[:, :, ::-1].astype(np.float32) / top
    return rgb
