"""A few realistic low-light images, so that anyone can try the job at once.

Made from public-domain photographs that scikit-image brings along, by the usual model of a dark
exposure: linear light scaled down, shot noise (Poisson) and read noise (Gaussian) added, and the
camera's tone curve applied again. Seeded, so everyone gets the same files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from skimage import data

from batchlight.errors import StorageError, UsageError
from batchlight.storage.folders import open_file, opened_folder

FULL_WELL = 6000.0
"""Photons of a white pixel; fewer mean more shot noise."""
READ_NOISE = 2.0
"""Standard deviation, in photons."""
GAMMA = 2.2
JPEG_QUALITY = 95
SEED = 7


@dataclass(frozen=True)
class Sample:
    """One image to make: a photograph of scikit-image and how dark it becomes."""

    photograph: str
    path: str
    exposure: float
    """Share of the light that is left."""
    bits: int = 8
    gray: bool = False


SAMPLES = (
    Sample("astronaut", "people/astronaut.jpg", 0.03),
    Sample("chelsea", "animals/cat.jpg", 0.02),
    Sample("coffee", "things/coffee.jpg", 0.025),
    Sample("rocket", "things/rocket.jpg", 0.05),
    Sample("coffee", "things/coffee-16-bit.png", 0.01, bits=16),
    Sample("camera", "people/camera.png", 0.03, gray=True),
    Sample("chelsea", "animals/whiskers.webp", 0.05),
    Sample("hubble_deep_field", "sky/hubble.jpg", 0.3),
)


def write_samples(folder: str) -> list[str]:
    """Write the samples below ``folder``; returns their paths relative to it.

    Raises ``UsageError`` if the folder cannot be written to.
    """
    noise = np.random.default_rng(SEED)
    for sample in SAMPLES:
        path = os.path.join(folder, sample.path)
        dark = darken(getattr(data, sample.photograph)(), sample, noise)
        pixels = dark if sample.gray else cv2.cvtColor(dark, cv2.COLOR_RGB2BGR)
        parameters = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.endswith(".jpg") else []
        _, encoded = cv2.imencode(os.path.splitext(path)[1], pixels, parameters)
        _write(folder, sample.path, bytes(encoded))
    return [sample.path for sample in SAMPLES]


def _write(folder: str, path: str, data: bytes) -> None:
    """Write a file that is not there yet, through no link below the folder; or leave an equal one.

    Raises ``UsageError``.
    """
    parent, _, name = path.rpartition("/")
    absolute = os.path.join(folder, path)
    try:
        with opened_folder(os.path.abspath(folder), parent, make=0o777) as place:
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                descriptor = open_file(place, name, flags, absolute)
            except FileExistsError:
                with open(open_file(place, name, os.O_RDONLY, absolute), "rb") as file:
                    if file.read() == data:
                        return
                raise
            with open(descriptor, "wb") as file:
                file.write(data)
    except OSError as error:
        raise UsageError(f"cannot write {absolute}: {error.strerror}; choose another DIR") from (
            error
        )
    except StorageError as error:
        raise UsageError(f"{absolute} would be written through a link; choose another DIR") from (
            error
        )


def darken(
    photograph: npt.NDArray[Any], sample: Sample, noise: np.random.Generator
) -> npt.NDArray[Any]:
    """A photograph as if taken with too little light: uint8 or uint16, same shape."""
    linear = (photograph.astype(np.float64) / 255) ** GAMMA * sample.exposure
    photons = noise.poisson(linear * FULL_WELL) + noise.normal(0, READ_NOISE, linear.shape)
    seen = np.clip(photons / FULL_WELL, 0, 1) ** (1 / GAMMA)
    top = 2**sample.bits - 1
    dark: npt.NDArray[Any] = np.rint(seen * top)
    return dark.astype(np.uint16 if sample.bits == 16 else np.uint8)
