"""The network of Chen, Yu et al., arXiv 2112.06226.

Three halvings by wavelets, global attention, three doublings, two dense blocks at full size. All of
it is convolution except where it pools over the whole image: in the global attention at the
smallest scale, and in the channel attention that ends each guided block. These call a `Pool`, so
that a caller who runs the network on a tile can answer for the image it was cut from.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor, nn

MULTIPLE = 8
"""Height and width must be multiples of this: three halvings."""

REACH = 60
"""Apart from pooling, an output pixel depends on no input pixel further away than this. The longest
path, in pixels of full size: the output 2, block c 7, block b 7, u1 2, u2 4, the guided block of s2
7 x 4, s2 4, s1 2, s0 1; and up to 3 from the pixel to the edge of its block of 4."""


class Pool(Protocol):
    """Returns the pooled features of a whole image: (N, C, H, W) -> (N, C, 1, 1)."""

    def __call__(self, features: Tensor, how: Literal["mean", "max"]) -> Tensor: ...


def whole(features: Tensor, how: Literal["mean", "max"]) -> Tensor:
    """The `Pool` of a network that is run on whole images."""
    if how == "max":
        return features.amax((2, 3), keepdim=True)
    return features.mean((2, 3), keepdim=True)


def halve(x: Tensor) -> Tensor:
    """One level of the orthonormal Haar transform: (N, C, H, W) -> (N, 4C, H/2, W/2).

    The bands are blocks of C channels: rows, columns, diagonal, average.
    """
    a, b = x[..., 0::2, 0::2], x[..., 0::2, 1::2]
    c, d = x[..., 1::2, 0::2], x[..., 1::2, 1::2]
    ab, cd, ab_, cd_ = a + b, c + d, a - b, c - d
    return torch.cat([ab - cd, ab_ + cd_, ab_ - cd_, ab + cd], 1) / 2


def double(x: Tensor) -> Tensor:
    """The inverse Haar transform: (N, 4C, H, W) -> (N, C, 2H, 2W).

    Each output channel has four consecutive input channels: average, rows, columns, diagonal. This
    differs from the order of ``halve``; the published parameters were trained with both.
    """
    average, rows, columns, diagonal = x.unflatten(1, (-1, 4)).unbind(2)
    up, down = average + rows, average - rows
    left, right = columns + diagonal, columns - diagonal
    pixels = torch.stack([up + left, up - left, down + right, down - right], 2) / 2
    return nn.functional.pixel_shuffle(pixels.flatten(1, 2), 2)


class Convolution(nn.Sequential):
    """A size-preserving convolution, then PReLU with a single slope."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, dilation: int = 1) -> None:
        padding = kernel // 2 * dilation
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation), nn.PReLU()
        )


class GuidedBlock(nn.Module):
    """Multi-level guided dense block, from i to n channels: wide branches guide narrow ones.

    The result is weighted per channel by attention over the whole image.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        i, n = inputs, outputs
        self.p = Convolution(i, n, dilation=4)
        self.q = Convolution(i, n, dilation=2)
        self.r = Convolution(i, n)
        self.m = Convolution(2 * n, 2 * n, dilation=2)
        self.l = Convolution(i + n, n)
        self.y = Convolution(3 * n, n)
        self.weigh = nn.Sequential(
            nn.Conv2d(n, n // 8, 1), nn.ReLU(), nn.Conv2d(n // 8, n, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor, pool: Pool) -> Tensor:
        wide = self.m(torch.cat([self.p(x), self.q(x)], 1))
        narrow = self.l(torch.cat([x, self.r(x)], 1))
        y: Tensor = self.y(torch.cat([narrow, wide], 1))
        weights: Tensor = self.weigh(pool(y, "mean"))
        return y * weights


class GlobalAttention(nn.Module):
    """Global spatial attention: where the image differs from its summary; shape-preserving."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 2, 1)
        self.where = nn.Conv2d(2, 1, 5, padding=2, bias=False)
        self.merge = nn.Conv2d(channels + channels // 2, channels, 1)

    def forward(self, x: Tensor, pool: Pool) -> Tensor:
        summary = self.reduce((pool(x, "max") + pool(x, "mean")) / 2).expand(-1, -1, *x.shape[2:])
        extremes = torch.cat([summary.amax(1, keepdim=True), summary.mean(1, keepdim=True)], 1)
        attended = summary * torch.sigmoid(self.where(extremes))
        merged: Tensor = self.merge(torch.cat([x, attended], 1))
        return merged


class ABSGN(nn.Module):
    """Enhances (N, 3, H, W) RGB in 0..1; H and W multiples of `MULTIPLE`; the result is in 0..1.

    `channels` is the width d of the paper: 32 gives the published network of 8,200,944 parameters.
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        d = channels
        self.s0 = Convolution(3, d)
        self.s1 = Convolution(4 * d, 2 * d)
        self.s2 = Convolution(8 * d, 4 * d)
        self.s3 = Convolution(16 * d, 8 * d)
        self.g = GlobalAttention(8 * d)
        self.up2 = Convolution(2 * d, 4 * d, 1)
        self.guide2 = GuidedBlock(4 * d, 4 * d)
        self.u2 = Convolution(8 * d, 4 * d)
        self.up1 = Convolution(d, 2 * d, 1)
        self.guide1 = GuidedBlock(2 * d, 2 * d)
        self.u1 = Convolution(4 * d, 2 * d)
        self.u0 = Convolution(d // 2, d, 1)
        self.b = GuidedBlock(2 * d, 4 * d)
        self.c = GuidedBlock(6 * d, 4 * d)
        self.out = nn.Sequential(Convolution(10 * d, 4 * d), Convolution(4 * d, 3))
        self.apply(_initialize)

    def forward(self, x: Tensor, pool: Pool = whole) -> Tensor:
        return self.restore(x, pool).clamp(0, 1)

    def restore(self, x: Tensor, pool: Pool = whole) -> Tensor:
        """The result before clipping to 0..1, as used by training."""
        s0 = self.s0(x)
        s1 = self.s1(halve(s0))
        s2 = self.s2(halve(s1))
        s3 = self.s3(halve(s2))

        g = self.g(s3, pool)
        u2 = self.u2(torch.cat([self.up2(double(g)), self.guide2(s2, pool)], 1))
        u1 = self.u1(torch.cat([self.up1(double(u2)), self.guide1(s1, pool)], 1))
        u0 = self.u0(double(u1))

        a = torch.cat([s0, u0], 1)
        b = torch.cat([a, self.b(a, pool)], 1)
        c = torch.cat([b, self.c(b, pool)], 1)
        result: Tensor = self.out(c)
        return result


def _initialize(module: nn.Module) -> None:
    # Without data there is nothing to initialize, and PyTorch would load its compiler for that.
    if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
