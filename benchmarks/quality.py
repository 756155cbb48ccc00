"""How close the classical method comes to well-lit photographs: PSNR and SSIM over pairs.

    python benchmarks/quality.py PAIRS        (a folder with low/ and high/, same names in both)

Runs the job itself, so what is measured is what users get; metrics are scikit-image's, on colour.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import cv2
import numpy as np
from skimage import metrics

import batchlight

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "all defaults": {},
    "--denoise none": {"denoise": "none"},
    "--atmospheric-light image": {"atmospheric_light": "image"},
    "--atmospheric-light 255": {"atmospheric_light": 255.0},
    "as published: --omega 0.95 --t0 0.2 --window 20 --denoise none --atmospheric-light 255": {
        "omega": 0.95,
        "t0": 0.2,
        "window": 20,
        "denoise": "none",
        "atmospheric_light": 255.0,
    },
}


def main(pairs: str) -> None:
    """Print a Markdown table."""
    print("| options | PSNR | SSIM | images |")
    print("|---|---|---|---|")
    low, high = os.path.join(pairs, "low"), os.path.join(pairs, "high")
    for name, options in SETTINGS.items():
        with tempfile.TemporaryDirectory() as output:
            config = batchlight.JobConfig(
                input=low, output=output, workers=0, progress="off", **options
            )
            batchlight.run(config)
            psnr, ssim, count = score(os.path.join(output, "classical"), high)
        print(f"| {name} | {psnr:.2f} | {ssim:.3f} | {count} |", flush=True)


def score(enhanced: str, reference: str) -> tuple[float, float, int]:
    """Mean PSNR and SSIM of the images below two folders, paired by relative path."""
    pairs = [
        (os.path.join(enhanced, path), os.path.join(reference, path)) for path in files(enhanced)
    ]
    with ProcessPoolExecutor() as pool:
        scores = np.array(list(pool.map(score_pair, pairs, chunksize=8)))
    psnr, ssim = scores.mean(axis=0)
    return float(psnr), float(ssim), len(pairs)


def score_pair(pair: tuple[str, str]) -> tuple[float, float]:
    """PSNR and SSIM of one image against its reference."""
    image, reference = (cv2.imread(path, cv2.IMREAD_COLOR) for path in pair)
    psnr: float = metrics.peak_signal_noise_ratio(reference, image)
    ssim: float = metrics.structural_similarity(reference, image, channel_axis=2)
    return psnr, ssim


def files(folder: str) -> Iterator[str]:
    """Relative paths of all files below a folder."""
    for parent, _, names in os.walk(folder):
        yield from (os.path.relpath(os.path.join(parent, name), folder) for name in names)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
