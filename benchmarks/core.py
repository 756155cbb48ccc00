"""What the enhancement costs on top of the codec, on one core; and what slow implementations cost.

    python -m benchmarks.core [FOLDER]

Compared in each round, on the same JPEGs of 1920x1080: decoding and encoding alone (the encoder
gets the enhanced pixels, since bright noise takes it longer than a dark image), and with the
classical method in between. Both once with the process as OpenCV finds it, and once set up like
batchlight's workers, which saves both the kernel's work of mapping fresh memory for each image.
Then the published method written with NumPy alone, and pixel by pixel in Python, like the script
that it comes from.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

import batchlight
from batchlight.classical.dehaze import DehazeParameters, analyse, enhance
from batchlight.config import JobConfig
from batchlight.host.process import keep_freed_memory
from batchlight.images.pixels import Pixels
from benchmarks.measuring import (
    Table,
    milliseconds,
    photographs,
    ratio,
    rounds,
    show,
    write_photographs,
)

IMAGES, WIDTH, HEIGHT = 16, 1920, 1080
SCRIPT_WIDTH, SCRIPT_HEIGHT = 600, 400
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 95]
TITLE = "One core, JPEGs of 1920x1080"
CODEC_ALONE, ALL_DEFAULTS, KEPT = "the codec alone", "all defaults", "kept, as in workers"
OPTIONS: dict[str, dict[str, Any]] = {ALL_DEFAULTS: {}, "--denoise none": {"denoise": "none"}}
PUBLISHED: dict[str, Any] = {"omega": 0.95, "t0": 0.2, "window": 20, "denoise": "none"}
WINDOW, OMEGA, T0 = PUBLISHED["window"], PUBLISHED["omega"], PUBLISHED["t0"]
ROUNDS = 9


def tables(folder: str | None) -> Iterator[Table]:
    """Compared with the codec, and with slow implementations."""
    with tempfile.TemporaryDirectory() as work:
        images = photographs(folder, Path(work))
        source = write_photographs(images, Path(work) / "in", IMAGES, WIDTH, HEIGHT)
        yield Table(
            TITLE,
            ("memory", "options", "ms per image", "to the codec alone"),
            [line for prepared in (False, True) for line in apart(source, prepared)],
        )
        yield Table(
            "On an array in memory, 1920x1080, all defaults",
            ("what", "ms", "to the method"),
            in_memory(images[0]),
        )
        yield Table(
            "The classical method written otherwise",
            ("image", "method", "ms", "times batchlight's"),
            slow_ways(images[0]),
        )


def apart(source: Path, prepared: bool) -> list[tuple[object, ...]]:
    """Lines for the codec alone and with the method.

    Measured in a separate process, since memory once kept stays kept.
    """
    with get_context("spawn").Pool(1) as pool:
        seconds = pool.apply(compare, (source, prepared, ROUNDS))
    memory = KEPT if prepared else "mapped anew each time"
    count = len(list(source.iterdir()))
    codecs = {name: f"codec of {name}" for name in OPTIONS}
    alone = seconds[codecs[ALL_DEFAULTS]]
    lines: list[tuple[object, ...]] = [(memory, CODEC_ALONE, milliseconds(alone, count), "1")]
    for name in OPTIONS:
        share = f"{ratio(seconds[name], seconds[codecs[name]]):.3f}"
        lines.append((memory, name, milliseconds(seconds[name], count), share))
    return lines


def compare(source: Path, prepared: bool, count: int) -> dict[str, list[float]]:
    """Seconds per round, for the codec alone and with the method."""
    cv2.setNumThreads(1)
    if prepared:
        keep_freed_memory()
    files = [np.frombuffer(path.read_bytes(), np.uint8) for path in sorted(source.iterdir())]
    contestants: dict[str, Callable[[], object]] = {}
    for name, options in OPTIONS.items():
        enhanced = [brightened(decode(file), options) for file in files]
        contestants[f"codec of {name}"] = partial(codec, files, enhanced)
        contestants[name] = partial(whole, files, options)
    return rounds(contestants, count)


def codec(files: list[Pixels], enhanced: list[Pixels]) -> None:
    """Decode and encode."""
    for file, pixels in zip(files, enhanced, strict=True):
        decode(file)
        cv2.imencode(".jpg", pixels, QUALITY)


def whole(files: list[Pixels], options: dict[str, Any]) -> None:
    """Decode, enhance and encode."""
    for file in files:
        cv2.imencode(".jpg", brightened(decode(file), options), QUALITY)


def in_memory(image: Pixels) -> list[tuple[object, ...]]:
    """Lines for the method itself, and for the public function, in both channel orders."""
    pixels = cv2.resize(image, (WIDTH, HEIGHT))
    seconds = rounds(
        {
            "the method": partial(method_alone, pixels),
            "batchlight.enhance, blue, green, red": partial(enhance_array, pixels, "bgr"),
            "batchlight.enhance, red, green, blue": partial(enhance_array, pixels, "rgb"),
        },
        ROUNDS,
    )
    alone = seconds["the method"]
    return [
        (name, milliseconds(taken), f"{ratio(taken, alone):.2f}") for name, taken in seconds.items()
    ]


def method_alone(pixels: Pixels) -> None:
    """Discards its result, as the others do: to keep one would save the next its page faults."""
    brightened(pixels, {})


def enhance_array(pixels: Pixels, order: Literal["rgb", "bgr"]) -> None:
    """The public function; enhances images that are not dark, too, to compare like with like."""
    batchlight.enhance(pixels, channel_order=order, not_dark="enhance")


def slow_ways(image: Pixels) -> list[tuple[object, ...]]:
    """Lines for NumPy at full size, and for plain Python at its script's size."""
    large = cv2.resize(image, (WIDTH, HEIGHT))
    small = cv2.resize(image, (SCRIPT_WIDTH, SCRIPT_HEIGHT))
    lines: list[tuple[object, ...]] = []
    contestants = (
        ("1920x1080", "NumPy", large, with_numpy),
        ("600x400", "pixel by pixel", small, pixel_by_pixel),
    )
    for size, name, pixels, slow in contestants:
        expected = brightened(pixels, PUBLISHED)
        started = time.perf_counter()
        assert np.array_equal(slow(pixels), expected)
        seconds = time.perf_counter() - started
        [ours] = rounds({"ours": partial(brightened, pixels, PUBLISHED)}, ROUNDS).values()
        lines += [
            (size, "batchlight", milliseconds(ours), "1"),
            (size, name, f"{seconds * 1000:.0f}", f"{seconds / float(np.median(ours)):.0f}"),
        ]
    return lines


def decode(file: Pixels) -> Pixels:
    """One JPEG."""
    pixels = cv2.imdecode(file, cv2.IMREAD_COLOR)
    assert pixels is not None
    return pixels


def brightened(pixels: Pixels, options: dict[str, Any]) -> Pixels:
    """Enhanced by the classical method, with the image's own light."""
    parameters = parameters_of(tuple(options.items()))
    analysis = analyse(pixels, parameters.window)
    return enhance(pixels, analysis, analysis.atmospheric_light, parameters).pixels


@lru_cache
def parameters_of(options: tuple[tuple[str, Any], ...]) -> DehazeParameters:
    """Created once, as in a worker."""
    return DehazeParameters.of(JobConfig(input=".", **dict(options)))


def with_numpy(pixels: Pixels) -> Pixels:
    """The formulas, written naively."""
    inverted = 255 - pixels
    window = WINDOW
    before, after = window // 2, (window - 1) // 2
    padding = ((before, after), (before, after), (0, 0))
    padded = np.pad(inverted, padding, constant_values=255)
    for axis in (0, 1):
        padded = minimum_along(padded, window, axis)
    channel = padded.argmin(axis=2)[..., np.newaxis]
    coarse = np.take_along_axis(padded, channel, axis=2)[..., 0]
    dark = np.take_along_axis(inverted, channel, axis=2)[..., 0]
    count = max(1, coarse.size // 1000)
    threshold = np.partition(coarse.ravel(), -count)[-count]
    light = inverted[coarse >= threshold].sum(axis=1).max() / 3
    transmission = np.maximum(1 - OMEGA * dark / light, T0)
    clear = (inverted - light) / transmission[..., np.newaxis] + light
    result: Pixels = np.rint(255 - np.clip(clear, 0, 255)).astype(np.uint8)
    return result


def minimum_along(pixels: Pixels, window: int, axis: int) -> Pixels:
    """Minimum over each window, by doubling its span."""
    span = 1
    while span < window:
        step = min(span, window - span)
        length = pixels.shape[axis] - step
        first, second = ([slice(None)] * axis + [slice(at, at + length)] for at in (0, step))
        pixels = np.minimum(pixels[tuple(first)], pixels[tuple(second)])
        span += step
    return pixels


def pixel_by_pixel(pixels: Pixels) -> Pixels:
    """The formulas in loops; yet the window's minimum is separable, by rows and columns."""
    height, width, _ = pixels.shape
    inverted = [[[255 - int(v) for v in pixel] for pixel in row] for row in pixels]
    before, after = WINDOW // 2, (WINDOW - 1) // 2
    minima = []
    for channel in range(3):
        plane = [[pixel[channel] for pixel in row] for row in inverted]
        rows = [
            [min(row[max(0, x - before) : x + after + 1]) for x in range(width)] for row in plane
        ]
        columns = list(zip(*rows, strict=True))
        turned = [
            [min(column[max(0, y - before) : y + after + 1]) for y in range(height)]
            for column in columns
        ]
        minima.append(list(zip(*turned, strict=True)))
    coarse = [min(minima[c][y][x] for c in range(3)) for y in range(height) for x in range(width)]
    threshold = sorted(coarse, reverse=True)[max(1, len(coarse) // 1000) - 1]
    hazy = (divmod(at, width) for at, value in enumerate(coarse) if value >= threshold)
    light = max(sum(inverted[y][x]) for y, x in hazy) / 3
    result = np.empty_like(pixels)
    for y in range(height):
        for x in range(width):
            values = [minima[c][y][x] for c in range(3)]
            dark = inverted[y][x][values.index(min(values))]
            transmission = max(1 - OMEGA * dark / light, T0)
            for c in range(3):
                clear = (inverted[y][x][c] - light) / transmission + light
                result[y, x, c] = round(255 - min(max(clear, 0), 255))
    return result


if __name__ == "__main__":
    show(tables, __doc__)
