"""Both methods on one array in memory."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from batchlight.absgn.loading import choose_model, version_of, weights_of
from batchlight.classical.dehaze import DehazeParameters, analyse
from batchlight.classical.dehaze import enhance as dehaze
from batchlight.config import METHODS, Device, JobConfig, Method, ModelName
from batchlight.host.resources import local_gpus
from batchlight.images.mixing import mix
from batchlight.images.pixels import visible_in

if TYPE_CHECKING:
    from batchlight.absgn.inference import Enhancer

CONFIGS = 16
"""How many sets of parameters to cache; validating one takes as long as a small image."""

_loading = threading.Lock()
"""Or several threads would load the network, each its own."""


def enhance(
    image: npt.NDArray[Any],
    *,
    method: Method = "classical",
    target_luminance: float = 0.45,
    not_dark: Literal["copy", "enhance"] = "copy",
    strength: float = 1.0,
    atmospheric_light: float | Literal["image"] = "image",
    omega: float | Literal["auto"] = "auto",
    t0: float = 0.05,
    window: int = 1,
    denoise: Literal["none", "guided"] = "guided",
    model: ModelName | None = None,
    weights: str | None = None,
    device: Device = "auto",
    channel_order: Literal["rgb", "bgr"] = "rgb",
) -> npt.NDArray[Any]:
    """Brighten one low-light image, as a run on that image alone does.

    ``image``: uint8 or uint16 of shape (height, width), (height, width, 3), or (height, width, 4)
    with alpha last, which passes through. Returns a new array of the same shape and dtype.
    ``atmospheric_light``: the image's own estimate, or a number from 1 to 255 whatever the depth.
    The other parameters, and their defaults, are the options of a run. The network stays loaded for
    the next call, until a local file of weights changes.

    Raises ``TypeError`` for any other array type, ``ValueError`` for another shape or a parameter
    out of range, ``UsageError`` for an unavailable network, and ``ImageError`` for an image that
    the network cannot process.
    """
    _check(image, channel_order)
    config = _validated(
        method=method,
        target_luminance=target_luminance,
        not_dark=not_dark,
        strength=strength,
        atmospheric_light=atmospheric_light,
        omega=omega,
        t0=t0,
        window=window,
        denoise=denoise,
        model=model,
        weights=weights,
        device=device,
    )
    rgb = channel_order == "rgb" and image.ndim == 3
    pixels = np.ascontiguousarray(image[..., :3] if image.ndim == 3 else image)
    visible = visible_in(image[..., 3]) if image.ndim == 3 and image.shape[2] == 4 else None
    analysis = analyse(pixels, config.window, rgb, visible)
    if not config.is_dark(analysis.luminance):
        return image.copy()
    if method == "absgn":
        in_order = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if rgb else pixels
        with _loading:
            version = version_of(weights) if weights else ()
            enhancer = _enhancer(model, weights, device, version)
        result = enhancer.enhance([in_order])[0].get()
        result = cv2.cvtColor(result, cv2.COLOR_BGR2RGB) if rgb else result
    else:
        chosen, own = config.atmospheric_light, analysis.atmospheric_light
        light = chosen if isinstance(chosen, float) else own
        result = dehaze(pixels, analysis, light, DehazeParameters.of(config)).pixels
    result = mix(pixels, result, config.strength)
    if result.shape == image.shape:
        return result
    out = image.copy()
    out[..., :3] = result
    return out


def _check(image: object, channel_order: str) -> None:
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
    if channel_order not in ("rgb", "bgr"):
        raise ValueError("channel_order must be 'rgb' or 'bgr'")


def _validated(**options: Any) -> JobConfig:
    """The validated options; a run takes several methods, this takes one. Raises ``ValueError``."""
    for name, value in options.items():
        if not isinstance(value, Hashable):
            raise ValueError(f"{name} is {value!r}, but must be a single value")
    if options["method"] not in METHODS:
        allowed = " or ".join(map(repr, METHODS))
        raise ValueError(f"method is {options['method']!r}, but must be {allowed}")
    return _config(**options)


@lru_cache(maxsize=CONFIGS, typed=True)  # since True is equal to 1
def _config(**options: Any) -> JobConfig:
    """The validated options; accepts NumPy's numbers too. Raises ``ValueError``."""
    if options["atmospheric_light"] == "batch":
        raise ValueError("atmospheric_light must be 'image' or a number from 1 to 255")
    if options["not_dark"] == "leave-out":
        raise ValueError("not_dark must be 'copy' or 'enhance'")
    plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in options.items()}
    try:
        return JobConfig(input=".", **plain)
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{first['loc'][0]} is {first['input']!r}, but {reason}") from error


@lru_cache(maxsize=1)
def _enhancer(
    model: ModelName | None, weights: str | None, device: Device, version: tuple[int, ...]
) -> Enhancer:
    """The network; ``version``: of the file of weights, which is read again when it changes."""
    config = JobConfig(input=".", method=("absgn",), model=model, weights=weights, device=device)
    found = weights_of(config)
    assert found is not None
    return choose_model(config, found, local_gpus).enhancer()
