"""Inference: images as arrays in, enhanced arrays out, on any device.

On a GPU, launches do not wait: while it computes one group, the next ones are uploaded and queued
behind it and earlier ones are downloaded, so that it always has something to do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from batchlight.absgn import CPU_THREADS
from batchlight.absgn.conversion import (
    NotFiniteError,
    as_tensor,
    exposing,
    to_input,
    to_levels,
    to_pixels,
    top_of,
)
from batchlight.absgn.exposure import Exposure
from batchlight.absgn.network import ABSGN, MULTIPLE, Convolution
from batchlight.absgn.result import Restored
from batchlight.absgn.start import Start, exposure_of, finished, prepared
from batchlight.absgn.tiles import MARGIN, Tile, cut, run_in_tiles
from batchlight.absgn.transfers import Computed, Copies, Uploaded
from batchlight.absgn.weights import parse_weights
from batchlight.errors import ErrorCode, ImageError
from batchlight.host.turns import Turns, in_turns
from batchlight.images.pixels import Pixels

ResolvedDevice = Literal["cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

VALUES_PER_PIXEL = 42
"""Maximum number of values alive at once, per pixel and channel of the network's width, as
measured; the peak is in the second dense block."""
CPU_BYTES = 4 * 2**30
"""Memory that one image may take on a CPU; fixed, so that results do not depend on free memory."""
GPU_SHARE = 0.6
"""Share of a GPU's total memory that one group of images may take."""
SMALLEST_TILE = 256
MEASURED_SIDE = 256
"""Side in pixels of the image for measuring the speed."""

_settings = threading.Lock()
"""Of PyTorch, while they are ours."""


class Enhancer:
    """Holds the network on one device. Several threads may call it if they take turns computing."""

    def __init__(
        self,
        weights: bytes,
        device: ResolvedDevice,
        precision: Precision,
        tile: int | None = None,
    ) -> None:
        """``tile``: side in pixels; None: tile only images that would need too much memory.

        Raises ``ValueError`` for weights that do not fit.
        """
        self._device = torch.device(device)
        parsed = parse_weights(weights)
        self._start, self._exposure = parsed.start, exposure_of(parsed.start)
        self._exact = _placed(parsed.network(), self._device, torch.float32)
        self._network = self._exact
        if precision != "fp32":
            self._network = _placed(parsed.network(), self._device, DTYPES[precision])
        self._tile = tile
        self._copies = Copies(self._device) if device == "cuda" else None

    def enhance(self, images: Sequence[Pixels]) -> list[Restored]:
        """Enhance images of equal shape and dtype.

        (height, width) gray or (height, width, 3) in blue, green, red; uint8 or uint16, as is the
        result. 16 bits are computed in fp32 whatever the precision, since less would lose levels.
        """
        ready = prepared(images, self._start)
        results: list[list[Restored]] = in_turns(self.restore_groups, ([ready],))
        return [self._finished(*of_one) for of_one in zip(results[0], ready, images, strict=True)]

    def restore_groups(self, groups: Sequence[Sequence[Pixels]]) -> Turns[list[list[Restored]]]:
        """Run the network on several groups, each of one shape and dtype; computes in turns.

        The classical method's steps before and after it are left to the caller, who may run them
        elsewhere while the network works.
        """
        if self._copies is not None:
            return (yield from self._overlapped(self._copies, groups))
        return (yield from self._one_by_one(groups))

    def _finished(self, restored: Restored, given: Pixels, image: Pixels) -> Restored:
        if restored.pixels is None:
            return restored
        return replace(restored, pixels=finished(restored.pixels, given, image, self._start))

    def _one_by_one(self, groups: Sequence[Sequence[Pixels]]) -> Turns[list[list[Restored]]]:
        stacks = [np.stack(images) for images in groups]
        yield
        with _deterministic(self._device):
            results = [self._now(images) for images in stacks]
        yield
        return results

    def _overlapped(
        self, copies: Copies, groups: Sequence[Sequence[Pixels]]
    ) -> Turns[list[list[Restored]]]:
        uploaded = [copies.upload(images) for images in groups]
        yield
        with _deterministic(self._device):
            computed = [self._launch(copies, group) for group in uploaded]
        yield
        results = []
        for group, ahead in zip(uploaded, computed, strict=True):
            if ahead is not None:
                pixels, finite = copies.download(ahead, group.images.dtype)
                if finite:
                    share = ahead.milliseconds / len(pixels)
                    results.append([Restored(image, None, share) for image in pixels])
                    continue
            yield
            with _deterministic(self._device):
                results.append(self._now(group.images))
            yield
        return results

    def _launch(self, copies: Copies, group: Uploaded) -> Computed | None:
        """Launch a group on the GPU; None if it needs special handling: tiles, or halves."""
        images = group.images
        network = self._exact if images.dtype == np.uint16 else self._network
        height, width = images.shape[1:3]
        if self._side(height, width, network) is not None:
            return None

        def work(raw: Tensor) -> tuple[Tensor, Tensor]:
            top = top_of(images)
            x = to_input(raw, top, network, exposing(raw, top, self._exposure))
            return to_levels(network.restore(x), images)

        try:
            with torch.inference_mode():
                return copies.compute(group, work)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        self._free()
        return None

    def _now(self, images: Pixels) -> list[Restored]:
        """Enhance a group, and wait for it; takes (N, ...) images of uint8 or uint16."""
        started = time.perf_counter()
        with torch.inference_mode():
            results = self._smaller_and_smaller(images)
        share = (time.perf_counter() - started) * 1000 / len(images)
        return [
            Restored(None, result, share)
            if isinstance(result, ImageError)
            else Restored(result, None, share)
            for result in results
        ]

    def seconds_per_megapixel(self) -> float:
        """Time that this device takes, measured on a small image."""
        image = np.zeros((MEASURED_SIDE, MEASURED_SIDE, 3), np.uint8)
        self.enhance([image])
        return self.enhance([image])[0].milliseconds / 1000 / (MEASURED_SIDE**2 / 1e6)

    def _smaller_and_smaller(self, images: Pixels) -> list[Pixels | ImageError]:
        """Enhance a group; out of memory, its halves; a single image, in ever smaller tiles."""
        count, height, width = images.shape[:3]
        network = self._exact if images.dtype == np.uint16 else self._network
        side = self._side(height, width, network)
        while True:
            try:
                return list(self._run(network, images, side))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise  # go on below, where the memory of the failed attempt is free again
            except NotFiniteError:
                if count == 1 and network is self._exact:
                    reason = "the network's result is not a number"
                    return [ImageError(ErrorCode.SUSPICIOUS_OUTPUT, reason)]
                if count == 1:  # out of the range of half precision
                    network, side = self._exact, self._side(height, width, self._exact)
                    continue
            self._free()
            if count > 1:
                middle = count // 2
                return [
                    *self._smaller_and_smaller(images[:middle]),
                    *self._smaller_and_smaller(images[middle:]),
                ]
            side = (side or max(height, width)) // 2
            if side < SMALLEST_TILE:
                reason = f"{width} x {height} pixels need more memory than the network has"
                return [ImageError(ErrorCode.OUT_OF_MEMORY, reason)]

    def _run(self, network: ABSGN, images: Pixels, side: int | None) -> Pixels:
        height, width = images.shape[1:3]
        if side is None:
            return _restored(network, images, self._exposure)
        out = np.empty_like(images)
        top = top_of(images)
        expose = exposing(images, top, self._exposure)

        def load(tile: Tile) -> Tensor:
            rows = slice(tile.rows.wide_start, tile.rows.wide_stop)
            columns = slice(tile.columns.wide_start, tile.columns.wide_stop)
            return to_input(as_tensor(images[:, rows, columns]), top, network, expose)

        def store(tile: Tile, result: Tensor) -> None:
            rows, columns = tile.rows, tile.columns
            above, before = rows.start - rows.wide_start, columns.start - columns.wide_start
            target = out[:, rows.start : rows.stop, columns.start : columns.stop]
            target[...] = to_pixels(result[:, :, above:, before:], target)

        run_in_tiles(network, list(cut(height, width, side)), load, store)
        return out

    def _side(self, height: int, width: int, network: ABSGN) -> int | None:
        """The initial side of the tiles; None for no tiles."""
        if self._tile is not None:
            return self._tile if self._tile < max(height, width) else None
        weight = next(network.parameters())
        per_pixel = VALUES_PER_PIXEL * len(weight) * weight.element_size()
        if self._device.type == "cpu":
            allowed = CPU_BYTES
        else:
            allowed = int(_memory_of(self._device) * GPU_SHARE)
        fits = allowed // per_pixel
        side = int(fits**0.5) // MULTIPLE * MULTIPLE - 2 * MARGIN
        return None if height * width <= fits else max(MULTIPLE, side)

    def _free(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """Make PyTorch compute the same bytes each time; its settings are restored afterwards.

    They apply to the whole process (some to the calling thread), where others may use PyTorch too.
    One thread at a time, or the second would restore what the first has set.
    """
    with _settings, _set_for(device):
        yield


@contextmanager
def _set_for(device: torch.device) -> Iterator[None]:
    if device.type == "cpu":
        threads = torch.get_num_threads()
        torch.set_num_threads(CPU_THREADS)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
        return
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.allow_tf32, cudnn.benchmark
    # TF32 would reduce the precision of fp32.
    cudnn.deterministic, cudnn.allow_tf32, cudnn.benchmark = True, False, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.allow_tf32, cudnn.benchmark = before


def restore(network: ABSGN, images: Pixels, start: Start | None = None) -> Pixels:
    """Run a network, on any device, on whole images of one shape: arrays in, the same out."""
    ready = np.stack(prepared(list(images), start))
    results = _restored(network, ready, exposure_of(start))
    return np.stack(
        [finished(*of_one, start) for of_one in zip(results, ready, images, strict=True)]
    )


def _restored(network: ABSGN, images: Pixels, exposure: Exposure | None) -> Pixels:
    with torch.inference_mode():
        pixels, top = as_tensor(images), top_of(images)
        x = to_input(pixels, top, network, exposing(pixels, top, exposure))
        return to_pixels(network.restore(x), images)


@cache
def _memory_of(device: torch.device) -> int:
    """Memory of a GPU in bytes; cached, since the query is slow while the GPU works."""
    _, total = torch.cuda.mem_get_info(device)
    return total


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether memory ran out; PyTorch has an exception type for this on GPUs only."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    signs = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    return any(sign in str(error) for sign in signs)


def _placed(network: ABSGN, device: torch.device, dtype: torch.dtype) -> ABSGN:
    """A network for inference, on its device, with in-place activations.

    A PReLU with a single slope is a leaky ReLU, which needs no second array: this saves a tenth of
    the time on a CPU and changes no bit.
    """
    for module in network.modules():
        if isinstance(module, Convolution):
            slope = module[1].get_parameter("weight")
            module[1] = nn.LeakyReLU(slope.item(), inplace=True)
    for parameter in network.parameters():
        four = parameter.ndim == 4
        layout = torch.channels_last if four else torch.preserve_format
        parameter.data = parameter.data.to(device, dtype, memory_format=layout)
    return network
