"""Inference: images as arrays in, enhanced arrays out, on whatever device there is.

On a GPU, launching is not waiting: while it computes one group, the next ones are copied up and
queued behind it and earlier ones are copied down, so that it always has something to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from batchlight.absgn import CPU_THREADS
from batchlight.absgn.copying import Computed, Copies, Uploaded
from batchlight.absgn.exposure import Exposure
from batchlight.absgn.network import ABSGN, MULTIPLE
from batchlight.absgn.restored import Restored
from batchlight.absgn.tiles import MARGIN, Tile, cut, run_in_tiles
from batchlight.absgn.weights import parse_weights
from batchlight.errors import ErrorCode, ImageError
from batchlight.host.turns import Turns, in_turns
from batchlight.images.pixels import LUMINANCE, Pixels

Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

VALUES_PER_PIXEL = 42
"""Numbers alive at once, at most, per pixel and channel of the network's width, as measured; the
most are in the second dense block."""
CPU_BYTES = 4 * 2**30
"""Memory that one image may take on a CPU; fixed, so that results do not depend on what is free."""
GPU_SHARE = 0.6
"""Share of a GPU's whole memory that one group of images may take."""
SMALLEST_TILE = 256
MEASURED_SIDE = 256
"""Side in pixels of the image that the speed is measured with."""


class Enhancer:
    """Holds the network on one device. Several threads may call it if they compute in turns."""

    def __init__(
        self,
        weights: bytes,
        device: Device,
        precision: Precision,
        tile: int | None = None,
    ) -> None:
        """``tile``: side in pixels; None: only images that need too much memory are tiled.

        Raises ``ValueError`` for weights that do not fit.
        """
        self._device = torch.device(device)
        if device == "cpu":
            torch.set_num_threads(CPU_THREADS)
        else:
            # The same bytes each time, and fp32 that is what it says.
            torch.backends.cudnn.deterministic = True
            torch.backends.cudnn.allow_tf32 = False
        parsed = parse_weights(weights)
        self._exposure = parsed.exposure
        self._exact = _placed(parsed.network(), self._device, torch.float32)
        self._network = self._exact
        if precision != "fp32":
            self._network = _placed(parsed.network(), self._device, DTYPES[precision])
        self._tile = tile
        self._copies = Copies(self._device) if device == "cuda" else None

    def enhance(self, images: Sequence[Pixels]) -> list[Restored]:
        """Enhance images of equal shape and dtype.

        (height, width) gray or (height, width, 3) in blue, green, red; uint8 or uint16, as is the
        result. 16 bits are computed in fp32 whatever the precision, since less would not fill them.
        """
        results: list[list[Restored]] = in_turns(self.enhance_groups, ([images],))
        return results[0]

    def enhance_groups(self, groups: Sequence[Sequence[Pixels]]) -> Turns[list[list[Restored]]]:
        """``enhance`` several groups, each of one shape and dtype; computes in turns."""
        if self._copies is not None:
            return (yield from self._overlapped(self._copies, groups))
        stacks = [np.stack(images) for images in groups]
        yield
        torch.set_num_threads(CPU_THREADS)  # which each thread has its own number of
        results = [self._now(images) for images in stacks]
        yield
        return results

    def _overlapped(
        self, copies: Copies, groups: Sequence[Sequence[Pixels]]
    ) -> Turns[list[list[Restored]]]:
        uploaded = [copies.upload(images) for images in groups]
        yield
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
            results.append(self._now(group.images))
            yield
        return results

    def _launch(self, copies: Copies, group: Uploaded) -> Computed | None:
        """Let the GPU compute a group; None for one that needs more care: tiles, or halves."""
        images = group.images
        network = self._exact if images.dtype == np.uint16 else self._network
        height, width = images.shape[1:3]
        if self._side(height, width, network) is not None:
            return None

        def work(raw: Tensor) -> tuple[Tensor, Tensor]:
            top = _top(images)
            x = _to_input(raw, top, network, _exposing(raw, top, self._exposure))
            return _to_levels(network.restore(x), images)

        try:
            with torch.inference_mode():
                return copies.compute(group, work)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
        self._free()
        return None

    def _now(self, images: Pixels) -> list[Restored]:
        """Enhance a group, and wait for it; for (N, ...) images of uint8 or uint16."""
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
        """How long this device takes, measured on a small image."""
        image = np.zeros((MEASURED_SIDE, MEASURED_SIDE, 3), np.uint8)
        self.enhance([image])
        return self.enhance([image])[0].milliseconds / 1000 / (MEASURED_SIDE**2 / 1e6)

    def _smaller_and_smaller(self, images: Pixels) -> list[Pixels | ImageError]:
        """A group; out of memory, its halves; a single image, in tiles that become smaller."""
        count, height, width = images.shape[:3]
        network = self._exact if images.dtype == np.uint16 else self._network
        side = self._side(height, width, network)
        while True:
            try:
                return list(self._run(network, images, side))
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise  # else go on below, where what the failed attempt held is free
            except _NotFiniteError:
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
            return restore(network, images, self._exposure)
        out = np.empty_like(images)
        top = _top(images)
        expose = _exposing(images, top, self._exposure)

        def load(tile: Tile) -> Tensor:
            rows = slice(tile.rows.wide_start, tile.rows.wide_stop)
            columns = slice(tile.columns.wide_start, tile.columns.wide_stop)
            return _to_input(_as_tensor(images[:, rows, columns]), top, network, expose)

        def store(tile: Tile, result: Tensor) -> None:
            rows, columns = tile.rows, tile.columns
            above, before = rows.start - rows.wide_start, columns.start - columns.wide_start
            target = out[:, rows.start : rows.stop, columns.start : columns.stop]
            target[...] = _to_pixels(result[:, :, above:, before:], target)

        run_in_tiles(network, list(cut(height, width, side)), load, store)
        return out

    def _side(self, height: int, width: int, network: ABSGN) -> int | None:
        """The side of the tiles to begin with; None for no tiles."""
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


def restore(network: ABSGN, images: Pixels, exposure: Exposure | None = None) -> Pixels:
    """Run a network on whole images of one shape, wherever it is: arrays in, the same out."""
    with torch.inference_mode():
        pixels, top = _as_tensor(images), _top(images)
        x = _to_input(pixels, top, network, _exposing(pixels, top, exposure))
        return _to_pixels(network.restore(x), images)


def _top(images: Pixels) -> float:
    """The highest level."""
    return float(np.iinfo(images.dtype).max)


class _NotFiniteError(Exception):
    """The result of a group holds something that is no number."""


def _exposing(
    images: Pixels | Tensor, top: float, exposure: Exposure | None
) -> Callable[[Tensor], Tensor]:
    """What brings whole images, or tiles of them, in 0..1, to what the network wants.

    ``images``: as integers up to ``top``, (N, ...), on any device.
    """
    if exposure is None:
        return lambda x: x
    pixels = images if isinstance(images, Tensor) else _as_tensor(images)
    # Summed as integers, so that the gain is the same to the last bit wherever it is computed.
    means = pixels.flatten(1).sum(1, dtype=torch.int64).double() / (pixels[0].numel() * top)
    gains = exposure.gains(means).float()
    return lambda x: exposure.apply(x, gains.to(x.device, non_blocking=True))


def _as_tensor(images: Pixels) -> Tensor:
    """16 bits as int32, since PyTorch computes with no other."""
    signed = images.astype(np.int32) if images.dtype == np.uint16 else images
    return torch.from_numpy(np.ascontiguousarray(signed))


def _to_input(
    images: Tensor, top: float, network: nn.Module, expose: Callable[[Tensor], Tensor]
) -> Tensor:
    """(N, 3, H, W), RGB, exposed, H and W padded at the end to what the network takes."""
    weight = next(network.parameters())
    x = images.to(weight.device)
    x = x.unsqueeze(1).expand(-1, 3, -1, -1) if x.ndim == 3 else x.permute(0, 3, 1, 2).flip(1)
    x = expose(x.float() / top).to(weight.dtype)
    down, right = (-x.shape[2] % MULTIPLE, -x.shape[3] % MULTIPLE)
    x = pad(x, (0, 0, 0, down), "reflect" if down < x.shape[2] else "replicate")
    x = pad(x, (0, right, 0, 0), "reflect" if right < x.shape[3] else "replicate")
    return x.contiguous(memory_format=torch.channels_last)


def _to_pixels(result: Tensor, like: Pixels) -> Pixels:
    """The result as arrays like the images that it was made of; raises ``_NotFiniteError``."""
    levels, finite = _to_levels(result, like)
    if not bool(finite.all()):
        raise _NotFiniteError
    return levels.cpu().numpy().astype(like.dtype, copy=False)


def _to_levels(result: Tensor, like: Pixels) -> tuple[Tensor, Tensor]:
    """The result, cut to the size of the images it was made of, in their range and channels.

    Beside it, (N,), whether all of an image is numbers, which clipping would hide.
    """
    height, width = like.shape[1:3]
    y = result[:, :, :height, :width].float()
    finite = torch.isfinite(y).flatten(1).all(1)
    y = y.clamp(0, 1)
    if like.ndim == 3:
        # Not made on the device, which would wait until it has done all before.
        weights = torch.tensor(LUMINANCE[::-1]).to(y.device, non_blocking=True)
        y = (y * weights.view(1, 3, 1, 1)).sum(1)
    else:
        y = y.flip(1).permute(0, 2, 3, 1)
    top = _top(like)
    levels = (y * top).round_().to(torch.uint8 if top == 255 else torch.int32)
    return levels.contiguous(), finite


@cache
def _memory_of(device: torch.device) -> int:
    """Bytes of a GPU; asked once, since asking takes long while it works."""
    _, total = torch.cuda.mem_get_info(device)
    return total


def _is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """PyTorch has a type for this on GPUs only."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    signs = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    return any(sign in str(error) for sign in signs)


def _placed(network: ABSGN, device: torch.device, dtype: torch.dtype) -> ABSGN:
    for parameter in network.parameters():
        four = parameter.ndim == 4
        layout = torch.channels_last if four else torch.preserve_format
        parameter.data = parameter.data.to(device, dtype, memory_format=layout)
    return network
