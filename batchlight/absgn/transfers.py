"""Pixels to a GPU and back while it computes: through pinned memory, on separate streams.

Calls of several threads may run at once. PyTorch keeps freed pinned memory and reuses it once no
copy needs it, so it is allocated from the system only a few times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from batchlight.images.pixels import Pixels


@dataclass(frozen=True)
class Uploaded:
    """A group of images on its way to the GPU."""

    images: Pixels
    """(N, ...), uint8 or uint16, in host memory."""
    raw: Tensor
    """The same on the GPU; 16 bits as int32, since PyTorch has no arithmetic for uint16."""
    there: torch.cuda.Event


@dataclass(frozen=True)
class Computed:
    """The GPU's result for a group, once it gets there."""

    levels: Tensor
    """(N, ...) like the images, uint8 or int32."""
    finite: Tensor
    """(N,) bool."""
    begun: torch.cuda.Event
    ended: torch.cuda.Event

    @property
    def milliseconds(self) -> float:
        """GPU time of the group, available when it has ended."""
        return float(self.begun.elapsed_time(self.ended))


class Copies:
    """Transfers to and from one GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._up = torch.cuda.Stream(device)
        self._down = torch.cuda.Stream(device)

    def upload(self, images: Sequence[Pixels]) -> Uploaded:
        """Start copying images of one shape and dtype; returns before the copy is done."""
        pinned = torch.empty(
            (len(images), *images[0].shape), dtype=_kind(images[0].dtype), pin_memory=True
        )
        target = pinned.numpy()
        for number, image in enumerate(images):
            target[number] = image
        there = torch.cuda.Event()
        with torch.cuda.stream(self._up):
            raw = pinned.to(self._device, non_blocking=True)
            there.record(self._up)
        return Uploaded(target.astype(images[0].dtype, copy=False), raw, there)

    def compute(
        self, uploaded: Uploaded, work: Callable[[Tensor], tuple[Tensor, Tensor]]
    ) -> Computed:
        """Launch ``work`` on a group as soon as it has arrived; returns before the work is done.

        ``work`` turns raw pixels into levels and ``finite``. Raises what it raises.
        """
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(uploaded.there)
        uploaded.raw.record_stream(stream)  # keeps its memory from being reused before
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record(stream)
        levels, finite = work(uploaded.raw)
        ended.record(stream)
        return Computed(levels, finite, begun, ended)

    def download(self, computed: Computed, dtype: np.dtype[np.generic]) -> tuple[Pixels, bool]:
        """Wait for a group: its pixels, and whether all of them are finite."""
        arrived = torch.cuda.Event(blocking=True)  # blocks without using the CPU
        with torch.cuda.stream(self._down):
            self._down.wait_event(computed.ended)
            levels, finite = (self._fetch(t) for t in (computed.levels, computed.finite))
            arrived.record(self._down)
        arrived.synchronize()
        pixels: Pixels = levels.numpy().astype(dtype, copy=False)
        return pixels, bool(finite.all())

    def _fetch(self, tensor: Tensor) -> Tensor:
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        pinned.copy_(tensor, non_blocking=True)
        tensor.record_stream(self._down)
        return pinned


def _kind(dtype: np.dtype[np.generic]) -> torch.dtype:
    return torch.uint8 if dtype == np.uint8 else torch.int32
