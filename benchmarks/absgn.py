"""How much of the network's speed is left in a job that also reads, decodes, encodes and records.

    python benchmarks/absgn.py FOLDER [ROUNDS]

FOLDER holds images (of one size, best 600x400). In each round the same images go through the bare
network, which gets them decoded in memory, and through `batchlight run`; the ratio of each round is
what counts, since machines are noisy. On a machine with a GPU, each precision is measured too:
milliseconds per image, share of the GPU's peak, and the difference to fp32 in dB.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

import batchlight
from batchlight.absgn.inference import Enhancer, Precision
from batchlight.absgn.weights import parse_weights
from batchlight.config import JobConfig
from batchlight.engine import InProcessEngine
from batchlight.feeding import Feeder
from batchlight.machine import local_gpus
from batchlight.model import Model, choose_model, weights_of
from batchlight.pixels import Pixels

MULTIPLY_ADDS_PER_PIXEL = {32: 2.03e12 / 2 / 240_000, 8: 2.03e12 / 2 / 240_000 / 16}
"""Of the convolutions, which make up nearly all; they grow with the square of the width."""
H200_PEAK = {"fp32": 67e12, "bf16": 989e12, "fp16": 989e12}
"""Operations per second, dense; NVIDIA's data sheet."""


def main(folder: str, rounds: int) -> None:
    """Print Markdown tables."""
    paths = sorted(path for path in Path(folder).iterdir() if path.is_file())
    images = [pixels for path in paths if (pixels := cv2.imread(str(path))) is not None]
    config = JobConfig(input=folder, method=("absgn",))
    weights = weights_of(config)
    assert weights is not None
    model = choose_model(config, weights, local_gpus)
    print(f"{len(images)} images of {images[0].shape[1]}x{images[0].shape[0]}, {model.name} on "
          f"{model.device} in {model.precision}\n")  # fmt: skip
    print("| round | bare network, images/s | job, images/s | job / bare |")
    print("|---|---|---|---|")
    ratios = []
    for number in range(rounds):
        alone = len(images) / bare(model, images)
        inside = job(folder)
        ratios.append(inside / alone)
        print(f"| {number + 1} | {alone:.2f} | {inside:.2f} | {ratios[-1]:.3f} |", flush=True)
    print(f"| median | | | {statistics.median(ratios):.3f} |")
    nbytes = sum(image.nbytes for image in images) / len(images)
    print(f"\nThrough the object store: {2 * nbytes / 1e6:.2f} MB per image (there and back).")
    if model.device == "cuda":
        precisions(model, images)


def bare(model: Model, images: list[Pixels]) -> float:
    """Seconds that the network takes for images that are in memory, warmed up."""
    with InProcessEngine() as engine:
        service = asyncio.run(engine.host(model.enhancer, 1, on_gpus=model.device == "cuda"))
        service.submit("enhance", images[:1]).result()
        feeder = Feeder[int](service, model.pixels_at_once)
        started = time.perf_counter()
        done = 0
        for number, image in enumerate(images):
            done += sum(1 for _ in feeder.put(number, image))
        done += sum(1 for _ in feeder.rest())
        assert done == len(images)
        return time.perf_counter() - started


def job(folder: str) -> float:
    """Images per second of a whole run, from the first batch submitted to the last committed."""
    with tempfile.TemporaryDirectory() as output:
        config = JobConfig(
            input=folder, output=output, method=("absgn",), batch_size=16, progress="off"
        )
        summary = batchlight.run(config)
        assert summary.failed == 0, summary.reason
        return summary.images_per_s


def precisions(model: Model, images: list[Pixels]) -> None:
    """How fast and how exact each arithmetic is."""
    print("\n| precision | ms per image | of the H200's peak | PSNR to fp32 |")
    print("|---|---|---|---|")
    group = [image for image in images if image.shape == images[0].shape][:16]
    pixels = group[0].shape[0] * group[0].shape[1]
    channels = parse_weights(model.weights).channels
    exact: list[Pixels] = []
    names: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
    for name in names:
        enhancer = Enhancer(model.weights, model.device, name)
        enhancer.enhance(group)
        torch.cuda.synchronize()
        started = time.perf_counter()
        results = [restored.get() for restored in enhancer.enhance(group)]
        seconds = (time.perf_counter() - started) / len(group)
        exact = exact or results
        differences = [a.astype(float) - b for a, b in zip(results, exact, strict=True)]
        error = float(np.mean(np.square(differences)))
        psnr = 10 * np.log10(255**2 / error) if error else float("inf")
        least = 2 * MULTIPLY_ADDS_PER_PIXEL[channels] * pixels / H200_PEAK[name]
        print(f"| {name} | {seconds * 1000:.2f} | {least / seconds:.0%} | {psnr:.1f} |")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 3)
