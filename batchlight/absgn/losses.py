"""How far a result is from its ground truth, for training."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, l1_loss

L1_SHARE, ALIGNED_SHARE, SSIM_SHARE = 0.5, 0.2, 0.2
COLOUR_SHARE, GRADIENT_SHARE = 0.15, 0.15
"""Errors of hue and of contrast are counted again: otherwise results come out pale, as the mean of
all plausible ones (after the colour and structure losses of FLW-Net, Zhang et al. 2023)."""
MOST_ALIGNED = 2.0
"""Maximum factor for correcting the result's brightness before the second comparison."""
SSIM_WINDOW = 7
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


def loss_of(restored: Tensor, high: Tensor) -> Tensor:
    """L1, L1 at the mean brightness of the target, SSIM, and L1 of colours and of gradients.

    The second is the GT-mean loss of Liao et al. (ICCV 2025). ``restored`` is not clipped, which
    would zero the gradient of every pixel that is out of range. A smaller target shows the same
    picture, shrunk; the result is then shrunk as well.
    """
    restored = resized(restored, (high.shape[2], high.shape[3]))
    factor = _brightness(high) / _brightness(restored.detach())
    aligned = restored * factor.clamp(1 / MOST_ALIGNED, MOST_ALIGNED)
    error = restored - high
    return (
        L1_SHARE * error.abs().mean()
        + ALIGNED_SHARE * l1_loss(aligned, high)
        + SSIM_SHARE * (1 - ssim(restored, high))
        + COLOUR_SHARE * (error - error.mean(1, keepdim=True)).abs().mean()
        + GRADIENT_SHARE * sum(error.diff(dim=axis).abs().mean() for axis in (2, 3))
    )


def ssim(one: Tensor, other: Tensor) -> Tensor:
    """Structural similarity of (N, C, H, W) images in 0..1, mean over all; Wang et al. 2004.

    Uniform windows of 7x7, the default of scikit-image.
    """

    def mean(x: Tensor) -> Tensor:
        return avg_pool2d(x, SSIM_WINDOW, stride=1)

    a, b = mean(one), mean(other)
    variances = mean(one * one) - a * a + mean(other * other) - b * b
    covariance = mean(one * other) - a * b
    likeness = (2 * a * b + SSIM_C1) * (2 * covariance + SSIM_C2)
    return (likeness / ((a * a + b * b + SSIM_C1) * (variances + SSIM_C2))).mean()


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, H, W) at another height and width, as with Pillow's bilinear filter."""
    if images.shape[2:] == size:
        return images
    return interpolate(images, size, mode="bilinear", antialias=True)


def _brightness(images: Tensor) -> Tensor:
    return images.mean((1, 2, 3), keepdim=True).clamp(min=1e-3)
