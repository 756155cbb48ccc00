"""Dark photographs made of well-lit ones: what they have in common with real ones."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from batchlight.absgn.synthetic import Darkening, Range, _compressed, darken

ALL_DARK = replace(Darkening(), bright=0.0, uneven=0.0)
CALM = replace(
    ALL_DARK,
    stops=Range(-3, -3),
    cast=0.0,
    contrast=Range(1, 1),
    corner=0.0,
    read_noise=Range(-30, -30),
    shot_noise=Range(-30, -30),
    black=0.0,
    smoothing=0.0,
    jpeg=0.0,
)
"""Nothing but three stops less light."""


def photographs(count: int = 8, side: int = 64) -> Tensor:
    """Smooth scenes in colour, (N, 3, side, side)."""
    random = torch.Generator().manual_seed(5)
    small = torch.rand((count, 3, 6, 6), generator=random)
    return torch.nn.functional.interpolate(small, (side, side), mode="bicubic").clamp(0, 1)


def made(how: Darkening, clean: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    return darken(clean, how, torch.Generator().manual_seed(seed))


def test_samples_are_images_of_256_levels_and_follow_the_seed() -> None:
    clean = photographs()
    low, high = made(Darkening(), clean)
    assert low.shape == high.shape == clean.shape
    for image in (low, high):
        assert 0 <= float(image.min()) <= float(image.max()) <= 1
    assert torch.equal(low * 255, (low * 255).round())
    assert torch.equal(made(Darkening(), clean)[0], low)
    assert not torch.equal(made(Darkening(), clean, seed=1)[0], low)


def test_light_is_dimmed_in_stops() -> None:
    clean = torch.full((1, 3, 16, 16), 0.8)
    low, high = made(CALM, clean)
    light = (((0.8 + 0.055) / 1.055) ** 2.4) / 8
    expected = 1.055 * light ** (1 / 2.4) - 0.055
    assert low.mean().item() == pytest.approx(expected, abs=1 / 255)
    assert torch.equal(high, clean)


def test_what_is_bright_already_stays_as_it_is() -> None:
    clean = photographs()
    how = replace(CALM, bright=1.0, bright_stops=Range(0.5, 0.5))
    low, high = made(how, clean)
    assert torch.all(high >= clean - 1e-6)
    assert (low - high).abs().max().item() <= 0.51 / 255


def test_uneven_light_leaves_some_of_the_scene_lit() -> None:
    clean = torch.full((16, 3, 64, 64), 0.6)
    how = replace(CALM, uneven=1.0, stops=Range(-6, -6), lit_stops=Range(0, 0))
    low, _ = made(how, clean)
    brightest, darkest = low.amax((1, 2, 3)), low.amin((1, 2, 3))
    assert (brightest - darkest).max().item() > 0.3
    evenly, _ = made(replace(how, uneven=0.0), clean)
    assert (evenly.amax() - evenly.amin()).item() == 0


def test_noise_that_is_cut_off_at_black_is_purple() -> None:
    clean = torch.full((8, 3, 64, 64), 0.02)
    low, _ = made(replace(CALM, read_noise=Range(-6, -6)), clean)
    red, green, blue = low.mean((0, 2, 3)).tolist()
    assert red > green
    assert blue > green


def test_compression_is_that_of_jpeg() -> None:
    clean = photographs(1, 64)[:, :1]
    levels = (clean * 255).round()
    for quality in (60, 90):
        own = (_compressed(levels / 255, torch.full((1, 1, 1, 1), float(quality))) * 255).round()
        pixels = levels[0, 0].numpy().astype(np.uint8)
        done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert done
        theirs = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
        assert theirs is not None
        # A coefficient between two levels may be rounded either way.
        assert np.abs(own[0, 0].numpy() - theirs).mean() < 0.3
