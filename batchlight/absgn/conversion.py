"""Images as arrays to tensors of the network, and back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from batchlight.absgn.exposure import Exposure
from batchlight.absgn.network import MULTIPLE
from batchlight.absgn.start import ClassicalStart, Start
from batchlight.images.pixels import LUMINANCE, Pixels


def each(work: Callable[..., Pixels], *images: Tensor) -> Tensor:
    """Apply ``work`` to each of (N, 3, H, W) images, RGB in 0..1, as 8 bits in blue, green, red.

    With several such tensors, ``work`` gets an image of each.
    """
    levels = [(x.permute(0, 2, 3, 1).flip(3) * 255).round().clamp(0, 255) for x in images]
    arrays = [np.ascontiguousarray(x.to("cpu", torch.uint8).numpy()) for x in levels]
    stack = torch.from_numpy(np.stack([work(*of_one) for of_one in zip(*arrays, strict=True)]))
    return stack.to(images[0].device).flip(3).permute(0, 3, 1, 2).float() / 255


def given_for(images: Tensor, start: Start | None) -> Tensor:
    """The network's input for whole images in training, in the form that ``each`` takes."""
    if isinstance(start, ClassicalStart):
        return each(start.before, images)
    return images if start is None else start.of(images)


def top_of(images: Pixels) -> float:
    """The highest level of the images' dtype."""
    return float(np.iinfo(images.dtype).max)


class NotFiniteError(Exception):
    """The result of a group contains a value that is not a finite number."""


def exposing(
    images: Pixels | Tensor, top: float, exposure: Exposure | None
) -> Callable[[Tensor], Tensor]:
    """A function that exposes whole images, or tiles of them, in 0..1, as the network expects.

    ``images``: as integers up to ``top``, (N, ...), on any device.
    """
    if exposure is None:
        return lambda x: x
    pixels = images if isinstance(images, Tensor) else as_tensor(images)
    # Summed as integers, so that the gain is the same to the last bit on every device.
    means = pixels.flatten(1).sum(1, dtype=torch.int64).double() / (pixels[0].numel() * top)
    gains = exposure.gains(means).float()
    return lambda x: exposure.apply(x, gains.to(x.device, non_blocking=True))


def as_tensor(images: Pixels) -> Tensor:
    """The images as a tensor; 16 bits as int32, since PyTorch has no arithmetic for uint16."""
    signed = images.astype(np.int32) if images.dtype == np.uint16 else images
    return torch.from_numpy(np.ascontiguousarray(signed))


def to_input(
    images: Tensor, top: float, network: nn.Module, expose: Callable[[Tensor], Tensor]
) -> Tensor:
    """(N, 3, H, W), RGB, exposed, H and W padded at the end to multiples of ``MULTIPLE``."""
    weight = next(network.parameters())
    x = images.to(weight.device)
    x = x.unsqueeze(1).expand(-1, 3, -1, -1) if x.ndim == 3 else x.permute(0, 3, 1, 2).flip(1)
    x = expose(x.float() / top).to(weight.dtype)
    down, right = (-x.shape[2] % MULTIPLE, -x.shape[3] % MULTIPLE)
    x = pad(x, (0, 0, 0, down), "reflect" if down < x.shape[2] else "replicate")
    x = pad(x, (0, right, 0, 0), "reflect" if right < x.shape[3] else "replicate")
    return x.contiguous(memory_format=torch.channels_last)


def to_pixels(result: Tensor, like: Pixels) -> Pixels:
    """The result as arrays like the images it comes from; raises ``NotFiniteError``."""
    levels, finite = to_levels(result, like)
    if not bool(finite.all()):
        raise NotFiniteError
    return levels.cpu().numpy().astype(like.dtype, copy=False)


def to_levels(result: Tensor, like: Pixels) -> tuple[Tensor, Tensor]:
    """The result, cropped to the size of its images, in their range and channels.

    Also, (N,), whether all values of an image are finite, which clipping would hide.
    """
    height, width = like.shape[1:3]
    y = result[:, :, :height, :width].float()
    finite = torch.isfinite(y).flatten(1).all(1)
    y = y.clamp(0, 1)
    if like.ndim == 3:
        # Not created on the device, which would wait until all earlier work is done.
        weights = torch.tensor(LUMINANCE[::-1]).to(y.device, non_blocking=True)
        y = (y * weights.view(1, 3, 1, 1)).sum(1)
    else:
        y = y.flip(1).permute(0, 2, 3, 1)
    top = top_of(like)
    levels = (y * top).round_().to(torch.uint8 if top == 255 else torch.int32)
    return levels.contiguous(), finite
