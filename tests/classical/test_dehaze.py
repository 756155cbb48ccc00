"""The classical method against an independent, slow implementation of its formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from batchlight.classical.dehaze import DehazeParameters, analyse, enhance
from batchlight.classical.light import MeanLight, batch_light
from batchlight.config import LIGHT_WINDOW
from batchlight.images.measures import measure
from batchlight.images.pixels import Pixels
from tests.support.helpers import dark_image, parameters


def slow_coarse(image: Pixels, window: int) -> tuple[Pixels, Pixels]:
    """Pixel by pixel: the dark channel's window minimum, and the pixel's own value there."""
    top = int(np.iinfo(image.dtype).max)
    inverted = top - image.astype(np.int64)
    inverted = inverted[..., np.newaxis] if inverted.ndim == 2 else inverted
    height, width, channels = inverted.shape
    before, after = window // 2, (window - 1) // 2
    minimum = np.zeros((height, width), np.int64)
    dark = np.zeros((height, width), np.int64)
    for y in range(height):
        for x in range(width):
            rows = slice(max(0, y - before), y + after + 1)
            columns = slice(max(0, x - before), x + after + 1)
            smallest = [int(inverted[rows, columns, c].min()) for c in range(channels)]
            minimum[y, x] = min(smallest)
            dark[y, x] = inverted[y, x, smallest.index(min(smallest))]
    return minimum, dark


def slow_light(image: Pixels, window: int) -> float:
    top = int(np.iinfo(image.dtype).max)
    inverted = (top - image.astype(np.int64)).reshape(*image.shape[:2], -1)
    minimum, _ = slow_coarse(image, window)
    count = max(1, math.floor(0.001 * minimum.size))
    threshold = sorted(minimum.ravel(), reverse=True)[count - 1]
    intensity = inverted.sum(axis=2) / inverted.shape[2]
    return float(intensity[minimum >= threshold].max()) * 255 / top


def slow_enhance(image: Pixels, light: float, parameters: DehazeParameters) -> Pixels:
    top = int(np.iinfo(image.dtype).max)
    light = light * top / 255
    _, dark = slow_coarse(image, parameters.window)
    out = np.zeros_like(image)
    assert parameters.omega is not None
    for index, value in np.ndenumerate(image):
        t = 1 - parameters.omega * float(dark[index[:2]]) / light if light > 0 else 1.0
        clear = ((top - int(value)) - light) / max(t, parameters.t0) + light
        out[index] = round(top - min(max(clear, 0.0), top))
    return out


PUBLISHED = parameters(omega=0.95, t0=0.2, window=20, denoise="none")
SHAPES = [(1, 1), (1, 37), (37, 1), (2, 2), (19, 23), (20, 20), (21, 40), (45, 61)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_equals_the_formula(height: int, width: int, channels: int, dtype: type) -> None:
    image = dark_image(height * 100 + width, height, width, channels, dtype)
    analysis = analyse(image, PUBLISHED.window)
    light = slow_light(image, PUBLISHED.window)
    top = int(np.iinfo(dtype).max)
    assert analysis.atmospheric_light == pytest.approx(light, abs=1e-9)
    assert analysis.luminance == measure(image)[0]
    assert analysis.own is not None
    assert np.array_equal(top - analysis.own.astype(np.int64), slow_coarse(image, 20)[1])
    for used in (light, 255.0, 201.5):
        actual = enhance(image, analysis, used, PUBLISHED).pixels
        assert actual.dtype == image.dtype
        assert np.array_equal(actual, slow_enhance(image, used, PUBLISHED))


@settings(max_examples=60)
@given(
    image=hnp.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        st.one_of(
            hnp.array_shapes(min_dims=2, max_dims=2, max_side=14),
            st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3)),
        ),
    ),
    window=st.integers(1, 9),
    omega=st.floats(0.05, 1.0),
    t0=st.floats(0.05, 1.0),
)
def test_equals_the_formula_for_any_image_and_window(
    image: Pixels, window: int, omega: float, t0: float
) -> None:
    chosen = parameters(omega=omega, t0=t0, window=window, denoise="none")
    analysis = analyse(image, window)
    light = slow_light(image, LIGHT_WINDOW)
    assert analysis.atmospheric_light == pytest.approx(light, abs=1e-9)
    assert analysis.luminance == measure(image)[0]
    actual = enhance(image, analysis, light, chosen).pixels
    assert np.array_equal(actual, slow_enhance(image, light, chosen))


@pytest.mark.parametrize(
    ("pixel", "winner"),
    [
        ((9, 9, 9), 0),  # all tie: blue
        ((9, 9, 3), 0),  # blue and green tie: blue
        ((9, 3, 9), 0),  # blue and red tie: blue
        ((3, 9, 9), 1),  # green and red tie: green
        ((9, 3, 3), 0),
        ((3, 9, 3), 1),
        ((3, 3, 9), 2),
    ],
)
def test_ties_go_to_blue_then_green_then_red(pixel: tuple[int, int, int], winner: int) -> None:
    # The brightest pixel decides the channel for the whole window; the rest shows which it was.
    image = np.full((4, 4, 3), (0, 1, 2), np.uint8)
    image[1, 1] = pixel
    own = analyse(image, 20).own
    assert own is not None
    assert own[3, 3] == image[3, 3, winner]


def test_window_reaches_ten_rows_up_and_nine_down() -> None:
    image = np.zeros((50, 50, 3), np.uint8)
    image[25, 25] = (0, 0, 200)
    image[..., 1] = 5
    own = analyse(image, 20).own
    assert own is not None
    red = np.argwhere(own == 0)  # where red is the dark channel, the pixel's own red is 0
    assert red.min(axis=0).tolist() == [16, 16]  # 25 - 9: this pixel's window still ends at 25
    assert red.max(axis=0).tolist() == [35, 35]  # 25 + 10


def test_16_bit_is_not_squeezed_to_8() -> None:
    image = dark_image(3, dtype=np.uint16) // 200  # all values below 256
    analysis = analyse(image, 20)
    out = enhance(image, analysis, analysis.atmospheric_light, PUBLISHED).pixels
    assert len(np.unique(out)) > 60


@pytest.mark.parametrize("chosen", [PUBLISHED, parameters()])
def test_a_white_image_has_nothing_to_remove(chosen: DehazeParameters) -> None:
    image = np.full((5, 5, 3), 255, np.uint8)
    analysis = analyse(image, chosen.window)
    assert analysis.atmospheric_light == 0
    enhanced = enhance(image, analysis, 0.0, chosen)
    assert np.array_equal(enhanced.pixels, image)
    assert enhanced.mean_transmission == 1


def test_mean_transmission_is_the_mean_of_t() -> None:
    image = dark_image(5)
    for window in (1, 20):
        analysis = analyse(image, window)
        chosen = parameters(omega=0.9, t0=0.1, window=window, denoise="none")
        dark = 255.0 - (image.max(axis=2) if analysis.own is None else analysis.own)
        enhanced = enhance(image, analysis, 250.0, chosen)
        assert enhanced.mean_transmission == pytest.approx(float((1 - 0.9 * dark / 250).mean()))


def test_batch_light_is_the_float64_mean_rounded_to_float32() -> None:
    estimates = [250.1, 255.0, 123.456]
    assert batch_light(estimates) == float(np.float32(sum(estimates) / 3))
    assert batch_light([250.1, None, 255.0, 123.456]) == batch_light(estimates)
    assert batch_light([]) is batch_light([None]) is None


estimates = st.floats(0, 255) | st.integers(0, 255).map(float)


@example([0.0, 3.4546814564455596e-42])  # float32 rounds such a mean by more than a millionth
@given(st.lists(st.none() | estimates, max_size=30))
def test_the_mean_light_never_exceeds_its_bound(lights: list[float | None]) -> None:
    mean = MeanLight(len(lights))
    bounds = []
    for light in lights:
        mean.add(light)
        bounds.append(mean.at_most)
    final = batch_light(lights)
    assert mean.so_far == final
    if final is not None:
        assert all(bound >= final for bound in bounds)
        assert bounds[-1] == pytest.approx(final, abs=2e-4)
