"""Inference: images as arrays in, enhanced arrays out, on whatever device there is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from batchlight.absgn import CPU_THREADS
from batchlight.absgn.exposure import Exposure
from batchlight.absgn.network import ABSGN, MULTIPLE
from batchlight.absgn.restored import Restored
from batchlight.absgn.tiles import MARGIN, Tile, cut, run_in_tiles
from batchlight.absgn.weights import parse_weights
from batchlight.errors import ErrorCode, ImageError
from batchlight.pixels import LUMINANCE, Pixels

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
    """Holds the network on one device. ``enhance`` takes images of one shape and dtype at once."""

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

    def enhance(self, images: Sequence[Pixels]) -> list[Restored]:
        """Enhance images of equal shape and dtype.

        (height, width) gray or (height, width, 3) in blue, green, red; uint8 or uint16, as is the
        result. 16 bits are computed in fp32 whatever the precision, since less would not fill them.
        """
        started = time.perf_counter()
        with torch.inference_mode():
            results = self._smaller_and_smaller(np.stack(images))
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
        expose = _exposing(images, self._exposure)

        def load(tile: Tile) -> Tensor:
            rows = slice(tile.rows.wide_start, tile.rows.wide_stop)
            columns = slice(tile.columns.wide_start, tile.columns.wide_stop)
            return _to_tensor(images[:, rows, columns], network, expose)

        def store(tile: Tile, result: Tensor) -> None:
            rows, columns = tile.rows, tile.columns
            top, left = rows.start - rows.wide_start, columns.start - columns.wide_start
            target = out[:, rows.start : rows.stop, columns.start : columns.stop]
            target[...] = _to_pixels(result[:, :, top:, left:], target)

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
            _, total = torch.cuda.mem_get_info(self._device)
            allowed = int(total * GPU_SHARE)
        fits = allowed // per_pixel
        side = int(fits**0.5) // MULTIPLE * MULTIPLE - 2 * MARGIN
        return None if height * width <= fits else max(MULTIPLE, side)

    def _free(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def restore(network: ABSGN, images: Pixels, exposure: Exposure | None = None) -> Pixels:
    """Run a network on whole images of one shape, wherever it is: arrays in, the same out."""
    with torch.inference_mode():
        x = _to_tensor(images, network, _exposing(images, exposure))
        return _to_pixels(network.restore(x), images)


class _NotFiniteError(Exception):
    """The result of a group holds something that is no number."""


def _exposing(images: Pixels, exposure: Exposure | None) -> Callable[[Tensor], Tensor]:
    """What brings whole images, or tiles of them, in 0..1, to what the network wants."""
    if exposure is None:
        return lambda x: x
    samples = images[0].size * int(np.iinfo(images.dtype).max)
    # Summed as integers, so that the gain is the same to the last bit wherever it is computed.
    sums = images.reshape(len(images), -1).sum(1, dtype=np.uint64)
    gains = exposure.gains(torch.from_numpy(sums.astype(np.float64) / samples)).float()
    return lambda x: exposure.apply(x, gains.to(x))


def _to_tensor(images: Pixels, network: nn.Module, expose: Callable[[Tensor], Tensor]) -> Tensor:
    """(N, 3, H, W), RGB, exposed, H and W padded at the end to what the network takes."""
    weight = next(network.parameters())
    top = float(np.iinfo(images.dtype).max)
    signed = images.astype(np.int32) if images.dtype == np.uint16 else images
    x = torch.from_numpy(np.ascontiguousarray(signed)).to(weight.device)
    x = x.unsqueeze(1).expand(-1, 3, -1, -1) if x.ndim == 3 else x.permute(0, 3, 1, 2).flip(1)
    x = expose(x.float() / top).to(weight.dtype)
    down, right = (-x.shape[2] % MULTIPLE, -x.shape[3] % MULTIPLE)
    x = pad(x, (0, 0, 0, down), "reflect" if down < x.shape[2] else "replicate")
    x = pad(x, (0, right, 0, 0), "reflect" if right < x.shape[3] else "replicate")
    return x.contiguous(memory_format=torch.channels_last)


def _to_pixels(result: Tensor, like: Pixels) -> Pixels:
    """The result, cut to the size of the images it was made of, in their dtype and channels."""
    height, width = like.shape[1:3]
    y = result[:, :, :height, :width].float()
    if not bool(torch.isfinite(y).all()):  # which clipping would hide
        raise _NotFiniteError
    y = y.clamp(0, 1)
    if like.ndim == 3:
        y = (y * torch.tensor(LUMINANCE[::-1], device=y.device).view(1, 3, 1, 1)).sum(1)
    else:
        y = y.flip(1).permute(0, 2, 3, 1)
    top = np.iinfo(like.dtype).max
    levels = (y * top).round_().to(torch.uint8 if top == 255 else torch.int32)
    return levels.contiguous().cpu().numpy().astype(like.dtype, copy=False)


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
