"""The training pictures, in memory: decoded once, shrunk to what samples can show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch

from batchlight.absgn.inference import is_out_of_memory
from batchlight.absgn.samples import LARGEST_NATIVE, Pair, Pictures, as_picture, fitted
from batchlight.errors import BatchlightError
from batchlight.host.resources import usable_cpus
from batchlight.images.pixels import Rgb
from batchlight.training.pairs import TrainingPair, load_image, load_pair

T = TypeVar("T")
U = TypeVar("U")

JPEG_SHRINK = 0.8
"""Well-lit JPEG pictures are shrunk by this factor, which removes most JPEG artefacts."""
JPEG_SUFFIXES = (".jpg", ".jpeg")


@contextmanager
def fitting_into(device: str) -> Iterator[None]:
    """Raise ``BatchlightError`` if the block takes more memory than there is."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise BatchlightError(
            f"the training does not fit into the memory of {device}; "
            "give a smaller --size or --batch-size, or fewer pictures"
        ) from error


def load_pictures(
    pairs: Sequence[TrainingPair],
    clean: Sequence[tuple[str, str]],
    size: int,
    device: torch.device,
) -> Pictures:
    """All pictures of a training run with samples of ``size``. Raises ``UsageError``.

    ``clean``: folder and path of each well-lit picture. Each picture takes at most 12 size^2 bytes.
    """

    def both(pair: TrainingPair) -> tuple[Pair, Pair | None]:
        low, high = (as_picture(fitted(_levels(x), size), device) for x in load_pair(pair))
        if pair.native is None:
            return (low, high), None
        dark = load_image(pair.folder, pair.native, "it")
        dark_levels = fitted(_levels(dark), size, LARGEST_NATIVE)
        return (low, high), (as_picture(dark_levels, device), high)

    def well_lit(image: tuple[str, str]) -> torch.Tensor:
        levels = _levels(load_image(*image, "it"))
        if image[1].lower().endswith(JPEG_SUFFIXES):
            levels = np.asarray(
                cv2.resize(
                    levels, None, fx=JPEG_SHRINK, fy=JPEG_SHRINK, interpolation=cv2.INTER_AREA
                ),
                np.uint8,
            )
        return as_picture(fitted(levels, size), device)

    loaded = _in_threads(both, pairs)
    square = [pair for pair, _ in loaded]
    native = [native for _, native in loaded if native is not None]
    if not native:
        native = [pair for pair in square if pair[0].shape[1] * pair[0].shape[2] > size * size]
    return Pictures(square, [*_in_threads(well_lit, clean), *(h for _, h in square)], native)


def _levels(image: Rgb) -> npt.NDArray[np.uint8]:
    levels: npt.NDArray[np.uint8] = np.rint(image * 255).astype(np.uint8)
    return levels


def _in_threads(work: Callable[[T], U], items: Iterable[T]) -> list[U]:
    with ThreadPoolExecutor(usable_cpus()) as pool:
        return list(pool.map(work, items))
