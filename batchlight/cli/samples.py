"""A few realistic low-light images, so that anyone can try the job at once.

Made from a few public-domain photographs, by the usual model of a dark exposure: linear light
scaled down, shot noise (Poisson) and read noise (Gaussian) added, and the camera's tone curve
reapplied. Seeded, so everyone gets the same files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import resources

import cv2
import numpy as np

from batchlight.errors import StorageError, UsageError
from batchlight.images.pixels import Pixels
from batchlight.storage.folders import open_file, opened_folder
from batchlight.storage.location import Location

FULL_WELL = 6000.0
"""Photons of a white pixel; fewer give more shot noise."""
READ_NOISE = 2.0
"""Standard deviation, in photons."""
GAMMA = 2.2
JPEG_QUALITY = 95
SEED = 7


@dataclass(frozen=True)
class Sample:
    """One image to make: a photograph of ``photographs/`` and how much to darken it."""

    photograph: str
    path: str
    exposure: float
    """Share of the light that remains."""
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


def photograph(name: str, *, gray: bool = False) -> Pixels:
    """A photograph that the samples are made from: uint8, BGR unless ``gray``."""
    file = resources.files("batchlight.cli") / "photographs" / f"{name}.jpg"
    flags = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR
    pixels = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), flags)
    assert pixels is not None
    return pixels


def write_samples(folder: str) -> list[str]:
    """Write the samples below ``folder``; returns their paths relative to it.

    Raises ``UsageError`` if the folder cannot be written to, or is not of this machine.
    """
    place = Location.parse(folder)
    if place.remote:
        raise UsageError(
            f"{place} is in an object store, but samples are written to this machine; give a "
            "local DIR, and copy it there"
        )
    noise = np.random.default_rng(SEED)
    for sample in SAMPLES:
        pixels = darken(photograph(sample.photograph, gray=sample.gray), sample, noise)
        parameters = (
            [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if sample.path.endswith(".jpg") else []
        )
        _, encoded = cv2.imencode(os.path.splitext(sample.path)[1], pixels, parameters)
        _write(place.path, sample.path, bytes(encoded))
    return [sample.path for sample in SAMPLES]


def _write(folder: str, path: str, data: bytes) -> None:
    """Create a file, following no link below the folder; an equal existing file is left.

    Raises ``UsageError``.
    """
    parent, _, name = path.rpartition("/")
    absolute = os.path.join(folder, path)
    try:
        with opened_folder(folder, parent, make=0o777) as place:
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


def darken(bright: Pixels, sample: Sample, noise: np.random.Generator) -> Pixels:
    """A photograph as if taken with too little light: uint8 or uint16, same shape."""
    linear = (bright.astype(np.float64) / 255) ** GAMMA * sample.exposure
    photons = noise.poisson(linear * FULL_WELL) + noise.normal(0, READ_NOISE, linear.shape)
    seen = np.clip(photons / FULL_WELL, 0, 1) ** (1 / GAMMA)
    top = 2**sample.bits - 1
    dark: Pixels = np.rint(seen * top)
    return dark.astype(np.uint16 if sample.bits == 16 else np.uint8)
