"""Arrays through the network: any size and depth, in groups, in tiles, out of memory or range."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from batchlight.absgn import CPU_THREADS, inference
from batchlight.absgn.exposure import Exposure
from batchlight.absgn.inference import VALUES_PER_PIXEL, Enhancer
from batchlight.absgn.network import ABSGN
from batchlight.absgn.result import Restored
from batchlight.absgn.weights import dump_tensors, parse_weights
from batchlight.errors import ErrorCode
from batchlight.images.pixels import LUMINANCE, Pixels
from tests.support.helpers import dark_image
from tests.support.weights import weights_without_start

Floats = npt.NDArray[np.float64]

WEIGHTS = weights_without_start()
CHANNELS = 8
SIZES = [(1, 1), (3, 5), (7, 9), (8, 8), (61, 45), (64, 96)]


@pytest.fixture(scope="module")
def enhancer() -> Enhancer:
    return Enhancer(WEIGHTS, "cpu", "fp32")


def one(enhancer: Enhancer, image: Pixels) -> Pixels:
    """What becomes of an image by itself."""
    (restored,) = enhancer.enhance([image])
    assert restored.milliseconds > 0
    return restored.get()


def by_hand(image: Pixels) -> Floats:
    """(height, width, 3) BGR in 0..1: the network called with no more than NumPy around it."""
    height, width = image.shape[:2]
    x = image[:, :, ::-1].astype(np.float32) / np.iinfo(image.dtype).max
    for axis, length in enumerate((height, width)):
        missing = -length % 8
        margins = [(0, 0)] * 3
        margins[axis] = (0, missing)
        x = np.pad(x, margins, "reflect") if missing < length else np.pad(x, margins, "edge")
    with torch.inference_mode():
        y = parse_weights(WEIGHTS).network()(torch.from_numpy(x).permute(2, 0, 1)[None])[0]
    bgr: Floats = y.permute(1, 2, 0).numpy()[:height, :width, ::-1].astype(np.float64)
    return bgr


def psnr(image: Pixels, other: Pixels) -> float:
    error = np.square(image.astype(np.float64) - other).mean() / np.iinfo(image.dtype).max ** 2
    return float(-10 * np.log10(max(error, 1e-12)))


def largest_difference(image: Pixels, other: Pixels) -> int:
    assert (image.shape, image.dtype) == (other.shape, other.dtype)
    return int(np.abs(image.astype(np.int64) - other).max())


def half_bright(height: int, width: int, dtype: type = np.uint8) -> Pixels:
    """Nearly black on the left, bright on the right; a tile by itself would be another picture."""
    values = dark_image(5, height, width).astype(np.float64) / 255
    values[:, width // 2 :] = 0.5 + 1.2 * values[:, width // 2 :]
    values[:, : width // 2] *= 0.3
    image: Pixels = np.rint(values.clip(0, 1) * np.iinfo(dtype).max).astype(dtype)
    return image


class Calls:
    """The sizes of what the network was given, (images, height, width)."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int, int]] = []

    @property
    def most_pixels(self) -> int:
        return max(count * height * width for count, height, width in self.sizes)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Calls]:
    """Record the network's calls; with ``refuse``, raise its error for what is larger than it."""

    def begin(largest: float = float("inf"), error: Callable[[], Exception] = MemoryError) -> Calls:
        calls = Calls()
        restore = ABSGN.restore

        def watched(self: ABSGN, x: Tensor, *pool: Any) -> Tensor:
            count, _, height, width = x.shape
            calls.sizes.append((count, height, width))
            if count * height * width > largest:
                raise error()
            return restore(self, x, *pool)

        monkeypatch.setattr(ABSGN, "restore", watched)
        return calls

    return begin


# Any image


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_colour_image_is_what_the_network_makes_of_it(
    enhancer: Enhancer, height: int, width: int, dtype: type
) -> None:
    image = dark_image(1, height, width, 3, dtype)
    result = one(enhancer, image)
    assert (result.shape, result.dtype) == (image.shape, image.dtype)
    expected = by_hand(image)
    top = np.iinfo(dtype).max
    # Half a level is rounding.
    assert np.abs(result - expected * top).max() <= 0.5 + 2e-5 * top


def test_the_channels_are_blue_green_red(enhancer: Enhancer) -> None:
    image = dark_image(2, 24, 24)
    image[..., 2] = np.minimum(image[..., 2].astype(int) * 3 + 20, 255)
    swapped = np.ascontiguousarray(image[:, :, ::-1])
    results = [one(enhancer, i) for i in (image, swapped)]
    for given, result in zip((image, swapped), results, strict=True):
        assert np.abs(result - by_hand(given) * 255).max() < 0.51
    # The network tells red from blue, so that the other order would show.
    assert largest_difference(results[0], np.ascontiguousarray(results[1][:, :, ::-1])) > 1


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_gray_image_is_the_luminance_of_three_equal_channels(
    enhancer: Enhancer, height: int, width: int, dtype: type
) -> None:
    image = dark_image(3, height, width, 1, dtype).reshape(height, width)
    result = one(enhancer, image)
    assert (result.shape, result.dtype) == (image.shape, image.dtype)
    colour = by_hand(np.dstack([image] * 3))
    top = np.iinfo(dtype).max
    assert np.abs(result - colour @ LUMINANCE * top).max() <= 0.5 + 2e-5 * top


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_eight_and_more(enhancer: Enhancer, channels: int) -> None:
    image = dark_image(4, 61, 45, channels)
    fine = one(enhancer, image.astype(np.uint16) * 257)
    assert np.abs(fine / 257 - one(enhancer, image)).max() <= 1
    assert len(np.unique(fine)) > 256  # not eight bits, scaled


@pytest.mark.parametrize("level", [0, 255])
def test_flat_images(enhancer: Enhancer, level: int) -> None:
    image = np.full((16, 16, 3), level, np.uint8)
    assert np.abs(one(enhancer, image) - by_hand(image) * 255).max() < 0.51


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_images_of_a_group_do_not_see_each_other(
    enhancer: Enhancer, channels: int, dtype: type
) -> None:
    images = [dark_image(seed, 37, 50, channels, dtype) for seed in range(4)]
    together = [restored.get() for restored in enhancer.enhance(images)]
    allowed = 1 if dtype is np.uint8 else 3
    for image, result in zip(images, together, strict=True):
        assert largest_difference(one(enhancer, image), result) <= allowed
    assert all(psnr(a, b) < 40 for a, b in pairwise(together))  # they are not all one image


def test_arrays_are_only_read(enhancer: Enhancer) -> None:
    whole = dark_image(1, 61, 45)
    before = whole.copy()
    whole.flags.writeable = False
    expected = one(enhancer, whole)
    assert np.array_equal(whole, before)
    for image in (whole[::-1, ::-1][::-1, ::-1], np.asfortranarray(whole)):
        assert np.array_equal(one(enhancer, image), expected)
    gray = np.broadcast_to(np.uint8(9), (12, 10))
    assert one(enhancer, gray).shape == (12, 10)


def test_equal_bytes_each_time(enhancer: Enhancer) -> None:
    images = [dark_image(1, 61, 45), dark_image(2, 61, 45)]
    once, again = ([one(enhancer, image).tobytes() for image in images] for _ in range(2))
    assert once == again


@pytest.mark.parametrize(("height", "width"), [(96, 128), (101, 333)])
def test_the_number_of_cpus_decides_nothing(height: int, width: int) -> None:
    """Nor that of the actors that share them; 16 bits show what 8 would hide."""
    image = dark_image(3, height, width, 3, np.uint16)
    cpus = os.sched_getaffinity(0)
    results = []
    try:
        for usable in (cpus, {min(cpus)}):
            os.sched_setaffinity(0, usable)
            results.append(one(Enhancer(WEIGHTS, "cpu", "fp32"), image))
    finally:
        os.sched_setaffinity(0, cpus)
    assert np.array_equal(results[0], results[1])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_close(enhancer: Enhancer, precision: Literal["bf16", "fp16"]) -> None:
    half = Enhancer(WEIGHTS, "cpu", precision)
    image = dark_image(6, 64, 64)
    result = one(half, image)
    assert psnr(result, one(enhancer, image)) > 35
    fine = dark_image(6, 16, 24, 3, np.uint16)
    assert np.array_equal(one(half, fine), one(enhancer, fine))


def test_the_speed_is_measured(enhancer: Enhancer) -> None:
    assert 0 < enhancer.seconds_per_megapixel() < 1000


def test_weights_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="safetensors"):
        Enhancer(WEIGHTS[:1000], "cpu", "fp32")


# Tiles


@pytest.mark.parametrize(
    ("height", "width", "tile"),
    [
        (200, 264, 96),
        (77, 203, 64),
        (9, 140, 64),
        *(
            pytest.param(*sizes, marks=pytest.mark.nightly)
            for sizes in ((200, 264, 128), (131, 66, 96), (70, 5, 64))
        ),
    ],
)
def test_tiles_make_the_whole(enhancer: Enhancer, height: int, width: int, tile: int) -> None:
    image = half_bright(height, width)
    whole = one(enhancer, image)
    tiled = one(Enhancer(WEIGHTS, "cpu", "fp32", tile), image)
    assert largest_difference(tiled, whole) <= 1
    assert psnr(tiled, whole) > 50


def test_tiles_by_themselves_would_be_another_picture(enhancer: Enhancer) -> None:
    image = half_bright(96, 144)
    whole = one(enhancer, image)
    halves = np.hstack([one(enhancer, half) for half in (image[:, :72], image[:, 72:])])
    # Further from the cut than convolutions reach.
    away = np.r_[0:8, 136:144]
    assert largest_difference(halves[:, away], whole[:, away]) > 5
    assert psnr(halves[:, away], whole[:, away]) < 45


@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, np.uint8), (1, np.uint16), (3, np.uint16), (3, np.uint8)]
)
def test_groups_of_any_kind_in_tiles(enhancer: Enhancer, channels: int, dtype: type) -> None:
    images = [half_bright(41, 150, dtype), half_bright(41, 150, dtype)[:, ::-1] // 2]
    if channels == 1:
        images = [image[..., 1] for image in images]
    tiled = [r.get() for r in Enhancer(WEIGHTS, "cpu", "fp32", 64).enhance(images)]
    for image, result in zip(images, tiled, strict=True):
        whole = one(enhancer, image)
        assert psnr(result, whole) > 50
        assert largest_difference(result, whole) <= (1 if dtype is np.uint8 else 20)


def test_tiles_only_where_the_image_is_larger(watch: Callable[..., Calls]) -> None:
    tiled = Enhancer(WEIGHTS, "cpu", "fp32", 64)
    calls = watch()
    one(tiled, dark_image(1, 64, 57))
    assert calls.sizes == [(1, 64, 64)]
    one(tiled, dark_image(1, 8, 65))
    assert len(calls.sizes) > 2


def test_what_needs_too_much_memory_is_tiled(
    enhancer: Enhancer, monkeypatch: pytest.MonkeyPatch, watch: Callable[..., Calls]
) -> None:
    image = half_bright(120, 264)
    whole = one(enhancer, image)
    per_pixel = VALUES_PER_PIXEL * CHANNELS * 4
    calls = watch()
    monkeypatch.setattr(inference, "CPU_BYTES", 120 * 264 * per_pixel)
    assert np.array_equal(one(enhancer, image), whole)
    assert len(calls.sizes) == 1
    monkeypatch.setattr(inference, "CPU_BYTES", 120 * 264 * per_pixel - 1)
    tiled = one(enhancer, image)
    assert len(calls.sizes) > 3
    assert largest_difference(tiled, whole) <= 1


@pytest.mark.parametrize(("height", "width"), [(1700, 1900), (2500, 2000)])
def test_tiles_with_their_margins_need_no_more_memory_than_allowed(
    enhancer: Enhancer, monkeypatch: pytest.MonkeyPatch, height: int, width: int
) -> None:
    seen = []

    def copy(self: ABSGN, x: Tensor, *pool: Any) -> Tensor:
        seen.append(x.shape[2] * x.shape[3])
        return x

    monkeypatch.setattr(ABSGN, "restore", copy)
    image = np.tile(dark_image(1, height, 50), (1, width // 50, 1))
    assert np.array_equal(one(enhancer, image), image)
    assert max(seen) <= inference.CPU_BYTES // (VALUES_PER_PIXEL * CHANNELS * 4)


# Out of memory


ERRORS: list[Callable[[], Exception]] = [
    lambda: torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError,
    lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
]


@pytest.mark.parametrize("error", ERRORS)
def test_a_group_that_is_too_large_is_halved(
    enhancer: Enhancer, watch: Callable[..., Calls], error: Callable[[], Exception]
) -> None:
    images = [dark_image(seed, 24, 40) for seed in range(5)]
    alone = [one(enhancer, image) for image in images]
    calls = watch(2 * 24 * 40, error)
    results = [restored.get() for restored in enhancer.enhance(images)]
    assert [count for count, _, _ in calls.sizes] == [5, 2, 3, 1, 2]
    for result, expected in zip(results, alone, strict=True):
        assert largest_difference(result, expected) <= 1


@pytest.mark.parametrize("error", ERRORS)
def test_an_image_that_is_too_large_is_cut_into_smaller_and_smaller_tiles(
    enhancer: Enhancer,
    monkeypatch: pytest.MonkeyPatch,
    watch: Callable[..., Calls],
    error: Callable[[], Exception],
) -> None:
    monkeypatch.setattr(inference, "SMALLEST_TILE", 32)
    images = [half_bright(48, 400), half_bright(48, 400)[:, ::-1]]
    whole = [one(enhancer, image) for image in images]
    largest = 48 * 240
    calls = watch(largest, error)
    results = [restored.get() for restored in enhancer.enhance(images)]
    tried = [size for size in calls.sizes if np.prod(size) > largest]
    assert tried[:2] == [(2, 48, 400), (1, 48, 400)]
    assert len(tried) == 5  # and for each image, the first tile of 200
    for result, expected in zip(results, whole, strict=True):
        assert largest_difference(result, expected) <= 1


def test_an_image_that_fits_in_no_tile_fails_alone(
    enhancer: Enhancer, watch: Callable[..., Calls]
) -> None:
    images = [dark_image(seed, 16, 600) for seed in range(2)]
    calls = watch(0)
    results = enhancer.enhance(images)
    for restored in results:
        assert restored.pixels is None
        assert restored.error is not None
        assert restored.error.code == ErrorCode.OUT_OF_MEMORY
        assert str(restored.error).startswith("600 x 16 pixels")
        assert restored.milliseconds > 0
    assert len(calls.sizes) == 5  # together, and each as a whole and in tiles of 300


def test_any_other_error_is_not_hidden(enhancer: Enhancer, watch: Callable[..., Calls]) -> None:
    watch(0, lambda: RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        enhancer.enhance([dark_image(1)])


# Out of range


def beyond_half_precision() -> bytes:
    """The same network, but for its first features: too large for fp16, and taken back later."""
    tensors = {name: t.float() for name, t in parse_weights(WEIGHTS).tensors.items()}
    factor, d = 2.0**24, CHANNELS
    for name in ("s0.0.weight", "s0.0.bias"):
        tensors[name] = tensors[name] * factor
    tensors["s1.0.weight"] = tensors["s1.0.weight"] / factor
    users = [f"{block}.{part}.0" for block in "bc" for part in "pqrl"]
    for name in (*users, "out.0.0"):
        weight = tensors[f"{name}.weight"].clone()
        weight[:, :d] /= factor
        tensors[f"{name}.weight"] = weight
    return dump_tensors(tensors, {})


def zeros() -> dict[str, Tensor]:
    return {name: torch.zeros_like(t) for name, t in ABSGN(CHANNELS).state_dict().items()}


def test_what_half_precision_cannot_hold_is_done_again(enhancer: Enhancer) -> None:
    large = beyond_half_precision()
    images = [dark_image(seed, 24, 40) for seed in range(3)]
    expected = [one(enhancer, image) for image in images]
    results = Enhancer(large, "cpu", "fp16").enhance(images)
    assert all(psnr(r.get(), e) > 60 for r, e in zip(results, expected, strict=True))


def test_in_tiles_too() -> None:
    large = beyond_half_precision()
    image = half_bright(24, 100)
    expected = one(Enhancer(large, "cpu", "fp32"), image)
    assert largest_difference(one(Enhancer(large, "cpu", "fp16", 64), image), expected) <= 1


def test_infinity_at_the_very_end_is_not_white() -> None:
    tensors = zeros()
    # The last hidden layer holds 71,680, too much for fp16, and 64,000; the result is 70 - 69.5.
    tensors["s0.0.bias"][0] = 256
    tensors["out.0.0.weight"][0, 0, 1, 1] = 280
    tensors["out.0.0.weight"][1, 0, 1, 1] = 250
    tensors["out.1.0.weight"][:, 0] = 1 / 1024 / 9
    tensors["out.1.0.weight"][:, 1] = -(70 - 0.5) / 64000 / 9
    weights = dump_tensors(tensors, {})
    image = dark_image(1, 16, 16)
    expected = one(Enhancer(weights, "cpu", "fp32"), image)
    assert np.abs(expected[2:-2, 2:-2].astype(int) - 127).max() <= 2
    assert largest_difference(one(Enhancer(weights, "cpu", "fp16"), image), expected) <= 1


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("tile", [None, 16])
def test_what_is_no_number_fails_alone(
    precision: Literal["fp32", "fp16"], tile: int | None
) -> None:
    tensors = zeros()
    tensors["s0.0.weight"][0, :, 1, 1] = 1e38  # white is beyond fp32, black is nothing
    broken = Enhancer(dump_tensors(tensors, {}), "cpu", precision, tile)
    # Eight bits in the network's own precision, and sixteen, always in fp32.
    dtype = np.uint8 if precision == "fp32" else np.uint16
    black = np.zeros((16, 24, 3), dtype)
    white = np.full((16, 24, 3), np.iinfo(dtype).max, dtype)
    results = broken.enhance([black, white, black, white, white])
    codes = [restored.error.code if restored.error else None for restored in results]
    bad = ErrorCode.SUSPICIOUS_OUTPUT
    assert codes == [None, bad, None, bad, bad]
    assert all(np.array_equal(results[number].get(), black) for number in (0, 2))


EXPOSURE = Exposure(mean=0.3, largest_gain=16, ceiling=3)


def exposed_weights() -> bytes:
    parsed = parse_weights(WEIGHTS)
    return dump_tensors(parsed.tensors, {**parsed.about, "exposure": EXPOSURE.dump()})


@pytest.mark.parametrize("tile", [None, 64])
@pytest.mark.parametrize("gray", [False, True])
def test_an_exposure_that_the_weights_ask_for_is_that_of_the_whole_image(
    tile: int | None, gray: bool
) -> None:
    image = half_bright(96, 200) // 4
    image = image[..., 1] if gray else image
    gain = min(16.0, max(1.0, 0.3 / (image.mean() / 255)))
    assert gain > 1.5
    rgb = np.repeat(image[..., None], 3, 2) if gray else image[..., ::-1]
    x = torch.from_numpy(rgb.astype(np.float32) / 255 * np.float32(gain)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        y = parse_weights(WEIGHTS).network()(x)[0].permute(1, 2, 0).numpy()
    expected = y @ np.array(LUMINANCE[::-1], np.float32) if gray else y[..., ::-1]
    result = one(Enhancer(exposed_weights(), "cpu", "fp32", tile), image)
    assert largest_difference(result, np.rint(expected * 255).astype(np.uint8)) <= 1


def test_each_image_of_a_group_has_its_own_exposure() -> None:
    images = [dark_image(seed, 40, 48) // (1 + seed) for seed in range(3)]
    enhancer = Enhancer(exposed_weights(), "cpu", "fp32")
    together = [restored.get() for restored in enhancer.enhance(images)]
    for image, result in zip(images, together, strict=True):
        assert largest_difference(result, one(enhancer, image)) <= 1


@pytest.mark.parametrize("level", [0, 255])
def test_an_exposure_of_the_extremes(level: int) -> None:
    image = np.full((16, 16, 3), level, np.uint8)
    assert one(Enhancer(exposed_weights(), "cpu", "fp32"), image).shape == image.shape


@pytest.mark.parametrize("text", ['{"mean": 0.3, "shutter": 1}', "[]", "bright"])
def test_an_exposure_that_is_not_known_is_refused(text: str) -> None:
    parsed = parse_weights(WEIGHTS)
    with pytest.raises(ValueError):
        parse_weights(dump_tensors(parsed.tensors, {"exposure": text}))


def test_threads_share_the_settings_of_pytorch_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process has its own again afterwards, whichever thread ends first."""
    now, inside, together = Enhancer._now, threading.Semaphore(), []

    def slowly(self: Enhancer, images: Pixels) -> list[Restored]:
        together.append(not inside.acquire(blocking=False))
        time.sleep(0.05)
        inside.release()
        return now(self, images)

    monkeypatch.setattr(Enhancer, "_now", slowly)
    image = dark_image(1, 32, 32)
    before = torch.get_num_threads()
    torch.set_num_threads(CPU_THREADS + 1)
    try:
        with ThreadPoolExecutor(2) as pool:
            enhancers = [Enhancer(WEIGHTS, "cpu", "fp32") for _ in range(2)]
            first, second = pool.map(lambda enhancer: one(enhancer, image), enhancers)
        assert together == [False, False]
        assert torch.get_num_threads() == CPU_THREADS + 1
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(first, second)
