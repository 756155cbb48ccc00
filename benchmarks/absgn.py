"""How much of the network's speed is left in a job that also reads, decodes, encodes and records.

    python -m benchmarks.absgn FOLDER [--rounds N] [--weights FILE]

FOLDER contains images. In each round the same images go through the bare network, which gets them
decoded in memory, and through `batchlight run`; only the ratio within each round counts, since
machines are noisy. On a machine with a GPU, each precision is measured too, along with the rate at
which the same GPU multiplies matrices.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
import typer
from torch import Tensor

import batchlight
from batchlight.absgn.inference import DTYPES, Enhancer, Precision
from batchlight.absgn.loading import Model, choose_model, weights_of
from batchlight.absgn.network import ABSGN, MULTIPLE
from batchlight.absgn.result import Restored
from batchlight.absgn.start import prepared
from batchlight.absgn.weights import parse_weights
from batchlight.config import JobConfig
from batchlight.engine import InProcessEngine
from batchlight.host.resources import local_gpus
from batchlight.host.turns import in_turns
from batchlight.images.pixels import Pixels
from batchlight.worker.network_client import Feeder
from benchmarks.measuring import Table

OPERATIONS_PER_PIXEL = {32: 2.03e12 / 240_000, 8: 2.03e12 / 240_000 / 16}
"""For the convolutions, which dominate; they grow with the square of the width."""
MATRIX = 8192
"""Side of the matrices whose product measures the GPU's peak rate."""
GROUP = 16
"""Images of one shape that are timed together."""
REPEATS = 5


def main(folder: str, rounds: int = 3, weights: str | None = None) -> None:
    """Print Markdown tables."""
    images = read_images(folder)
    config = JobConfig(input=folder, method=("absgn",), weights=weights)
    model = model_of(config)
    print(f"{len(images)} images of {images[0].shape[1]}x{images[0].shape[0]}, {model.name} on "
          f"{model.device} in {model.precision}\n")  # fmt: skip
    print(against_bare(config, images, rounds))
    nbytes = sum(image.nbytes for image in images) / len(images)
    print(f"\nThrough the object store: {2 * nbytes / 1e6:.2f} MB per image (there and back).")
    if model.device == "cuda":
        print(f"\n{torch.cuda.get_device_name()}\n\n{precisions(model, images)}")


def read_images(folder: str) -> list[Pixels]:
    """All images of a folder, decoded."""
    paths = sorted(path for path in Path(folder).iterdir() if path.is_file())
    return [pixels for path in paths if (pixels := cv2.imread(str(path))) is not None]


def model_of(config: JobConfig) -> Model:
    """The network that a run of this config uses."""
    weights = weights_of(config)
    assert weights is not None
    return choose_model(config, weights, local_gpus)


def against_bare(config: JobConfig, images: list[Pixels], rounds: int) -> Table:
    """The job compared with the bare network; the last line has the medians.

    On a GPU, the last column is the share of the job's time in which the GPU works: the time of its
    kernels and copies for the same images, divided by that of the job.
    """
    model = model_of(config)
    figures = []
    for number in range(rounds):
        alone = len(images) / bare(model, images)
        inside = job(config)
        figures.append((alone, inside, inside / alone))
        print(f"round {number + 1}: bare {alone:.2f}, job {inside:.2f} images/s", flush=True)
    figures.append(tuple(statistics.median(column) for column in zip(*figures, strict=True)))
    names = [*range(1, rounds + 1), "median"]
    lines: list[list[object]] = [
        [name, f"{alone:.2f}", f"{inside:.2f}", f"{ratio:.3f}"]
        for name, (alone, inside, ratio) in zip(names, figures, strict=True)
    ]
    header = ["round", "bare network, images/s", "job, images/s", "job / bare"]
    if model.device == "cuda":
        working = kernel_seconds(partial(bare, model, images)) / len(images)
        header.append("the GPU works")
        for line, (_, inside, _) in zip(lines, figures, strict=True):
            line.append(f"{working * inside:.0%}")
    return Table("The job beside the bare network", header, lines)


def bare(model: Model, images: list[Pixels]) -> float:
    """Time in seconds that the network takes for images in memory, after a warm-up."""
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


def job(config: JobConfig) -> float:
    """Images per second of a whole run, from the first batch submitted to the last committed."""
    with tempfile.TemporaryDirectory() as output:
        settings = {"output": output, "batch_size": 16, "progress": "off", "max_failures": "100%"}
        summary = batchlight.run(config.model_copy(update=settings))
        assert summary.exit_code == 0, summary.reason  # bright ones may fail: they count as done
        return summary.images_per_s


def precisions(model: Model, images: list[Pixels]) -> Table:
    """Speed and accuracy of each precision on a GPU."""
    group = [image for image in images if image.shape == images[0].shape][:GROUP]
    group = list(prepared(group, model.start))
    pixels = group[0].shape[0] * group[0].shape[1]
    operations = OPERATIONS_PER_PIXEL[parse_weights(model.weights).channels] * pixels
    exact: list[Pixels] = []
    names: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
    lines: list[list[object]] = []
    for name in names:
        enhancer = Enhancer(model.weights, model.device, name)
        results = [restored.get() for restored in _restored(enhancer, group)]
        exact = exact or results
        differences = [a.astype(float) - b for a, b in zip(results, exact, strict=True)]
        error = float(np.mean(np.square(differences)))
        psnr = 10 * np.log10(255**2 / error) if error else float("inf")
        times = sorted(_seconds(enhancer, group) for _ in range(REPEATS))
        kernels = kernel_seconds(partial(_restored, enhancer, group))
        milliseconds = times[REPEATS // 2] / len(group) * 1000
        limit = operations / matrix_rate(DTYPES[name]) * 1000
        in_kernels = kernels / len(group) * 1000
        lines.append(
            [name, f"{milliseconds:.2f}", f"{in_kernels:.2f}", f"{limit:.2f}",
             f"{milliseconds / limit:.1f}", f"{psnr:.1f} dB"]
        )  # fmt: skip
    header = ["precision", "ms per image", "of these in kernels", "limit, ms", "to the limit",
              "PSNR to fp32"]  # fmt: skip
    return Table("Precisions", header, lines)


def executions(model: Model, image: Pixels) -> Table:
    """Ways to run the same network on the GPU, with pixels already there, in half precision."""
    height, width = (side // MULTIPLE * MULTIPLE for side in image.shape[:2])
    pixels = torch.from_numpy(image[:height, :width, ::-1].copy()).permute(2, 0, 1).cuda()
    x = (pixels.half() / 255).repeat(GROUP, 1, 1, 1).contiguous(memory_format=torch.channels_last)
    network = parse_weights(model.weights).network().cuda().half()
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    lines: list[list[object]] = []
    with torch.inference_mode():
        expected = network.restore(x)

        def measure(name: str, run: Callable[[Tensor], Tensor]) -> None:
            started = time.perf_counter()
            difference = float((run(x) - expected).abs().max())
            first = time.perf_counter() - started
            run(x)
            seconds = statistics.median(_device_seconds(partial(run, x)) for _ in range(REPEATS))
            each = f"{seconds / GROUP * 1000:.2f}"
            lines.append([name, each, f"{first:.1f}", f"{difference * 255:.2f}"])
            print(lines[-1], flush=True)

        torch.backends.cudnn.deterministic = True
        measure("as it is", network.restore)
        torch.backends.cudnn.benchmark = True
        measure("cuDNN measures what is fastest", network.restore)
        torch.backends.cudnn.benchmark = False
        graph, result = _captured(network, x)

        def replayed(_: Tensor) -> Tensor:
            graph.replay()
            return result

        measure("a CUDA graph", replayed)
        measure("torch.compile", torch.compile(network.restore, dynamic=False))
        measure("torch.compile, any shape", torch.compile(network.restore, dynamic=True))
    header = ["how", "ms per image", "s for the first", "levels of difference, at most"]
    return Table("Ways to run the network", header, lines)


def _captured(network: ABSGN, x: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = network.restore(x)
    return graph, result


def _device_seconds(work: Callable[[], object]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1000


def matrix_rate(dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product on random numbers."""
    one, other = (torch.randn(MATRIX, MATRIX, device="cuda").to(dtype) for _ in range(2))
    for _ in range(REPEATS):
        one @ other
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(REPEATS):
        one @ other
    torch.cuda.synchronize()
    return 2 * MATRIX**3 * REPEATS / (time.perf_counter() - started)


def kernel_seconds(work: Callable[[], object]) -> float:
    """Total time of the GPU's kernels and copies for work that has already been run once."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        work()
        torch.cuda.synchronize()
    return float(sum(event.self_device_time_total for event in profile.key_averages())) / 1e6


def _restored(enhancer: Enhancer, group: list[Pixels]) -> list[Restored]:
    """Results of the network alone, requested as from a job's actor."""
    results: list[list[Restored]] = in_turns(enhancer.restore_groups, ([group],))
    return results[0]


def _seconds(enhancer: Enhancer, group: list[Pixels]) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    _restored(enhancer, group)
    torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    typer.run(main)
