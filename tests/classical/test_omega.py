"""The omega that brings an image to a target."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchlight.classical.dehaze import analyse, enhance
from batchlight.classical.omega import (
    BRIGHTEST,
    BURNT,
    BURNT_AT_MOST,
    COULD_BURN,
    OMEGA_AT_MOST,
    omega_for,
)
from batchlight.images.measures import measure
from batchlight.images.pixels import Pixels
from tests.support.helpers import dark_image, parameters

T0 = 0.05


def enhanced_with(image: Pixels, omega: float) -> Pixels:
    exact = parameters(omega=omega, t0=T0, denoise="none")
    return enhance(image, analyse(image, 1), 255.0, exact).pixels


def pale(image: Pixels) -> Pixels:
    """With an eighth of its colour, so that the brightest channel sets no limit."""
    if image.ndim == 2:
        return image
    grey = image.mean(axis=2, keepdims=True)
    result: Pixels = np.rint(grey + (image - grey) / 8).astype(image.dtype)
    return result


def brightness(image: Pixels, omega: float) -> float:
    return measure(enhanced_with(image, omega))[0]


def of_brightest(image: Pixels, omega: float) -> float:
    """The mean of the brightest channel of the result."""
    return float(enhanced_with(image, omega).max(axis=2).mean()) / 255


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("target", [0.3, 0.45])
def test_the_result_has_the_brightness_that_was_asked_for(
    target: float, channels: int, dtype: type
) -> None:
    image = pale(dark_image(1, 300, 400, channels, dtype))
    top = float(np.iinfo(dtype).max)
    omega = omega_for(image, None, target, top, T0)
    assert 0 < omega < OMEGA_AT_MOST
    assert brightness(image, omega) == pytest.approx(target, abs=0.01)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    scale=st.floats(0.02, 3),
    target=st.floats(0.1, 0.8),
)
def test_no_larger_omega_would_do(seed: int, scale: float, target: float) -> None:
    image = np.clip(dark_image(seed, 40, 50) * scale, 0, 255).astype(np.uint8)
    omega = omega_for(image, None, target, 255.0, T0)
    assert 0 <= omega <= np.float32(OMEGA_AT_MOST)
    assert omega == np.float32(omega)
    if omega:
        assert brightness(image, omega) <= target + 0.02
        assert of_brightest(image, omega) <= BRIGHTEST * target + 0.02
    if omega < np.float32(OMEGA_AT_MOST) and omega > 0:
        more = min(1.0, omega + 0.02)
        assert (
            brightness(image, more) > target - 0.02
            or of_brightest(image, more) > BRIGHTEST * target - 0.02
            or burnt(image, more) > 0
        )


def burnt(image: Pixels, omega: float) -> float:
    """Share of the pixels that become white without having been bright, as it counts."""
    levels = [pixels.max(axis=2) / 255 for pixels in (image, enhanced_with(image, omega))]
    shares = [
        np.clip((level - start) / (end - start), 0, 1)
        for level, (start, end) in zip(levels, (COULD_BURN, BURNT), strict=True)
    ]
    return float((shares[0] * shares[1]).mean())


def test_lamps_in_the_night_do_not_burn_for_the_sake_of_the_sky() -> None:
    image = np.full((200, 200, 3), 3, np.uint8)
    image[80:120, 80:120] = np.linspace(40, 180, 40)[:, np.newaxis, np.newaxis]
    omega = omega_for(image, None, 0.45, 255.0, T0)
    assert omega < OMEGA_AT_MOST
    assert brightness(image, omega) < 0.45
    assert burnt(image, omega) <= 1.3 * BURNT_AT_MOST  # levels are rounded
    assert burnt(image, omega + 0.01) > 1.3 * BURNT_AT_MOST


@pytest.mark.parametrize("colour", [(1, 0.08, 0.02), (0.02, 0.03, 1), (0.9, 0.02, 1)])
def test_a_scene_in_light_of_one_colour_is_not_blown_out(colour: tuple[float, ...]) -> None:
    """Its luminance stays low however bright it becomes."""
    image = np.rint(dark_image(3, 200, 200).max(axis=2)[..., np.newaxis] * colour).astype(np.uint8)
    result = enhanced_with(image, omega_for(image, None, 0.45, 255.0, T0))
    assert 2 * image.mean() < result.mean()
    assert result.max(axis=2).mean() < 255 * (BRIGHTEST * 0.45 + 0.01)


def test_a_lamp_that_becomes_a_little_brighter_does_not_darken_the_scene() -> None:
    omegas = []
    for lamp in range(40, 256):
        image = np.full((128, 128, 3), 4, np.uint8)
        image[40:60, 40:60] = lamp
        omegas.append(omega_for(image, None, 0.45, 255.0, T0))
    gains = 1 / (1 - np.array(omegas))
    assert gains.max() > 2 * gains.min()  # it does matter
    assert np.abs(np.diff(gains)).max() < 0.15 * gains.mean()


@pytest.mark.parametrize("pitch", [2, 4, 8])
def test_a_screen_of_dots_has_one_brightness_wherever_it_begins(pitch: int) -> None:
    side = 256 * pitch
    omegas = []
    for first in range(0, pitch, max(1, pitch // 4)):
        image = np.full((side, side, 3), 12, np.uint8)
        image[first::pitch, first::pitch] = (200, 180, 160)
        omegas.append(omega_for(image, None, 0.45, 255.0, T0))
    assert max(omegas) - min(omegas) < 0.02


def test_an_image_that_is_black_gets_the_largest() -> None:
    black = np.zeros((30, 30, 3), np.uint8)
    assert omega_for(black, None, 0.45, 255.0, T0) == np.float32(OMEGA_AT_MOST)


def test_an_image_that_is_bright_stays_as_it_is() -> None:
    image = np.full((30, 30, 3), 200, np.uint8)
    assert omega_for(image, None, 0.45, 255.0, T0) == 0
    enhanced = enhance(image, analyse(image, 1), 255.0, parameters())
    assert np.array_equal(enhanced.pixels, image)
    assert (enhanced.omega, enhanced.mean_transmission) == (0, 1)


def test_windows_too() -> None:
    image = pale(dark_image(5, 300, 400))
    wide = parameters(t0=0.1, window=20, denoise="none")
    enhanced = enhance(image, analyse(image, 20), 255.0, wide)
    assert measure(enhanced.pixels)[0] == pytest.approx(0.45, abs=0.03)


def test_an_omega_is_the_same_for_8_and_16_bit() -> None:
    image = dark_image(9, 120, 150)
    wide = image.astype(np.uint16) * 257
    pair = [omega_for(image, None, 0.45, 250.0, T0), omega_for(wide, None, 0.45, 250.0 * 257, T0)]
    assert pair[0] == pytest.approx(pair[1], abs=1e-5)
