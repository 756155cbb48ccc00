"""Both methods on one array in memory."""

from __future__ import annotations

from functools import lru_cache
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from batchlight.absgn.loading import choose_model, weights_of
from batchlight.classical.dehaze import DehazeParameters, analyse
from batchlight.classical.dehaze import enhance as dehaze
from batchlight.config import METHODS, Device, JobConfig, Method, ModelName
from batchlight.host.resources import local_gpus

if TYPE_CHECKING:
    from batchlight.absgn.inference import Enhancer


def enhance(
    image: npt.NDArray[Any],
    *,
    atmospheric_light: float | Literal["image"] = "image",
    omega: float = 0.93,
    t0: float = 0.1,
    window: int = 20,
    denoise: Literal["none", "guided"] = "none",
    method: Method = "classical",
    model: ModelName | None = None,
    weights: str | None = None,
    device: Device = "auto",
    channel_order: Literal["rgb", "bgr"] = "rgb",
) -> npt.NDArray[Any]:
    """Brighten one low-light image.

    ``image``: uint8 or uint16 of shape (height, width), (height, width, 3), or (height, width, 4)
    with alpha last, which passes through. Returns a new array of the same shape and dtype.
    ``atmospheric_light``: the image's own estimate, or a number in (0, 255] whatever the depth;
    it, ``omega``, ``t0``, ``window`` and ``denoise`` are of the classical method. ``model``,
    ``weights`` and ``device`` are of ``absgn``, which stays loaded for the next call.

    Raises ``TypeError`` for another dtype, ``ValueError`` for another shape or a parameter out of
    range, ``UsageError`` for a network that cannot be had, and ``ImageError`` for an image that
    the network cannot do.
    """
    if not isinstance(image, np.ndarray):
        raise TypeError(f"image is a {type(image).__name__}, but must be a NumPy array")
    if image.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"image is {image.dtype}, but must be uint8 or uint16")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)):
        raise ValueError(
            f"image has shape {image.shape}, but must be (h, w), (h, w, 3) or (h, w, 4)"
        )
    if not image.size:
        raise ValueError("image has no pixels")
    if not (0 < omega <= 1 and 0 < t0 <= 1 and window >= 1):
        raise ValueError("omega and t0 must be in (0, 1] and window at least 1")
    if denoise not in ("none", "guided"):
        raise ValueError("denoise must be 'none' or 'guided'")
    if atmospheric_light != "image" and not (
        isinstance(atmospheric_light, Real) and 0 < atmospheric_light <= 255
    ):
        raise ValueError("atmospheric_light must be 'image' or a number in (0, 255]")
    if method not in METHODS:
        raise ValueError("method must be 'classical' or 'absgn'")
    if channel_order not in ("rgb", "bgr"):
        raise ValueError("channel_order must be 'rgb' or 'bgr'")

    colour = image[..., :3] if image.ndim == 3 else image
    # Ties between channels go to blue first, so the order of channels matters.
    reversed = image.ndim == 3 and channel_order == "rgb"
    pixels = np.ascontiguousarray(colour[..., ::-1] if reversed else colour)
    if method == "absgn":
        result = _enhancer(model, weights, device).enhance([pixels])[0].get()
    else:
        analysis = analyse(pixels, window)
        own = analysis.atmospheric_light
        light = own if atmospheric_light == "image" else float(atmospheric_light)
        parameters = DehazeParameters(omega, t0, window, denoise == "guided")
        result = dehaze(pixels, analysis, light, parameters).pixels
    out = image.copy()
    out[..., : colour.shape[-1]] = result[..., ::-1] if reversed else result
    return out


@lru_cache(maxsize=1)
def _enhancer(model: ModelName | None, weights: str | None, device: Device) -> Enhancer:
    config = JobConfig(input=".", method=("absgn",), model=model, weights=weights, device=device)
    found = weights_of(config)
    assert found is not None
    return choose_model(config, found, local_gpus).enhancer()
