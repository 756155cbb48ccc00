"""Noise calmed: against a slow implementation of the formulas, and what it is for."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from batchlight.classical.cells import CELL, COLOUR_NOISE, LUMINANCE_NOISE, SIMILAR
from batchlight.classical.denoise import SHADOW, Curve, enhance_denoised
from batchlight.classical.exact import enhance_exactly
from batchlight.images.pixels import LUMINANCE, Pixels
from tests.support.helpers import dark_image

Float = npt.NDArray[np.float64]


def of_cells(values: Float, grey: Float, top: float) -> Float:
    """Means over the cells and their neighbours, by similar ``grey``: (down, across, ...)."""
    greys, means = neighbours(grey), neighbours(values)
    limit = (SIMILAR * top) ** 2
    weights = (limit / (limit + (greys - greys[CENTRE]) ** 2)) ** 2
    weights /= weights.sum(axis=0)
    return np.einsum("nyx,nyx...->yx...", weights, means)  # type: ignore[no-any-return]


CENTRE = 4
"""Index of a cell itself among its neighbours."""


def neighbours(values: Float) -> Float:
    """Means over cells, (9, down, across, ...): of the one above left, above, ... of each."""
    height, width = values.shape[:2]
    rest = [(0, -height % CELL), (0, -width % CELL), *[(0, 0)] * (values.ndim - 2)]
    padded = np.pad(values, rest, mode="edge")
    down, across = padded.shape[0] // CELL, padded.shape[1] // CELL
    means = padded.reshape(down, CELL, across, CELL, *values.shape[2:]).mean(axis=(1, 3))
    wide = np.pad(means, [(1, 1), (1, 1), *[(0, 0)] * (values.ndim - 2)], mode="edge")
    windows = [wide[y : y + down, x : x + across] for y in range(3) for x in range(3)]
    return np.stack(windows)


def interpolated(cells: Float, height: int, width: int) -> Float:
    """Linear between the centres of the cells, level beyond the outermost."""
    for axis, size in enumerate((height, width)):
        at = (np.arange(size) + 0.5) / CELL - 0.5
        left = np.floor(at).astype(int)
        share = (at - left).reshape([-1 if i == axis else 1 for i in range(cells.ndim)])
        last = cells.shape[axis] - 1
        one = cells.take(np.clip(left, 0, last), axis)
        two = cells.take(np.clip(left + 1, 0, last), axis)
        cells = one * (1 - share) + two * share
    return cells


def slow_estimate(image: Pixels, off: float = 0.0) -> Float:
    """The clean image, (height, width, 3); ``off``: an error of variances, in squares of means."""
    top = float(np.iinfo(image.dtype).max)
    pixels = (image if image.ndim == 3 else np.dstack([image] * 3)).astype(np.float64)
    grey = pixels @ LUMINANCE
    colour = pixels - grey[..., np.newaxis]
    of = partial(of_cells, grey=grey, top=top)
    mean = of(pixels)
    mean_grey = mean @ LUMINANCE
    mean_colour = mean - mean_grey[..., np.newaxis]
    square = mean_grey**2
    variance = np.maximum(of(grey**2) - square + off * square, 0)
    square = (mean_colour**2).sum(axis=2)
    colours = np.maximum(of((colour**2).sum(axis=2)) - square + off * square, 0)
    keep = variance / (variance + (LUMINANCE_NOISE * top) ** 2)
    keep_colour = (colours / (colours + (COLOUR_NOISE * top) ** 2))[..., np.newaxis]
    offset = ((1 - keep) * mean_grey)[..., np.newaxis] + (1 - keep_colour) * mean_colour
    size = image.shape[:2]
    calm = interpolated(keep, *size) * grey
    return (
        calm[..., np.newaxis]
        + interpolated(keep_colour, *size) * colour
        + interpolated(offset, *size)
    )


def slow_enhance(image: Pixels, own: Pixels | None, curve: Curve, off: float = 0.0) -> Float:
    top = float(np.iinfo(image.dtype).max)
    estimate = slow_estimate(image, off)
    brightest = np.clip(estimate.max(axis=2), 0, top) if own is None else own.astype(np.float64)
    t = np.maximum(1 - curve.omega * (top - brightest) / curve.light, curve.t0)[..., np.newaxis]
    k = (brightest**2 / (brightest**2 + (SHADOW * top) ** 2))[..., np.newaxis]
    grey = (estimate @ LUMINANCE)[..., np.newaxis]
    added = (1 / t - 1) * (grey - (top - curve.light) + k * (estimate - grey))
    result = np.clip((image if image.ndim == 3 else image[..., np.newaxis]) + added, 0, top)
    return result if image.ndim == 3 else result[..., 0]


VARIANCE_IS_OFF_BY = 2 * float(np.finfo(np.float32).eps)
"""Of the square of the mean."""

SHAPES = [(1, 1), (1, 9), (4, 4), (7, 3), (30, 41)]


@pytest.mark.parametrize("with_own", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_equals_the_formula(
    height: int, width: int, channels: int, dtype: type, with_own: bool
) -> None:
    image = dark_image(height + width, height, width, channels, dtype)
    top = int(np.iinfo(dtype).max)
    own = image.reshape(height, width, -1)[:, :, 0].copy() if with_own else None
    curve = Curve(omega=0.95, t0=0.05, light=0.99 * top)
    actual, mean = enhance_denoised(image, own, curve)
    expected = slow_enhance(image, own, curve)
    assert (actual.shape, actual.dtype) == (image.shape, image.dtype)
    assert np.abs(actual - expected).max() <= 0.5 + 2e-4 * top  # float32
    brightest = slow_estimate(image).max(axis=2) if own is None else own
    assert mean == pytest.approx(float(brightest.mean()), rel=1e-4)


@settings(max_examples=40)
@example(
    image=np.where(np.arange(27).reshape(3, 3, 3) // 3 == 4, 0, 65535).astype(np.uint16),
    omega=1.0, t0=0.5, light=1.0,
)  # fmt: skip
@given(
    image=hnp.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        st.tuples(st.integers(1, 14), st.integers(1, 14), st.just(3)),
    ),
    omega=st.floats(0, 1),
    t0=st.floats(0.02, 1),
    light=st.floats(0.3, 1),
)
def test_equals_the_formula_for_any_image(
    image: Pixels, omega: float, t0: float, light: float
) -> None:
    top = int(np.iinfo(image.dtype).max)
    curve = Curve(omega, t0, light * top)
    actual, _ = enhance_denoised(image, None, curve)
    expected = slow_enhance(image, None, curve)
    # A variance is a small difference of two means, each of which float32 rounds: where it is none,
    # in flat and bright surroundings, as much of what differs from them is kept as it is off.
    rounded = np.abs(slow_enhance(image, None, curve, VARIANCE_IS_OFF_BY) - expected)
    assert (np.abs(actual - expected) <= 0.5 + 5e-4 * top + rounded).all()


@pytest.mark.parametrize("value", [0, 3, 40, 255])
def test_a_flat_image_gets_what_the_formula_gives(value: int) -> None:
    image = np.full((9, 13), value, np.uint8)
    calm, _ = enhance_denoised(image, None, Curve(0.9, 0.05, 255.0))
    exact, _ = enhance_exactly(image, None, 255.0, 0.9, 0.05)
    assert np.array_equal(calm, exact)


def test_highlights_keep_their_pixels() -> None:
    image = dark_image(7, 80, 80)
    image[20:60, 20:60] = (180, 40, 255)
    image[30:50:2, 30:50] = (90, 255, 20)
    calm, _ = enhance_denoised(image, None, Curve(0.95, 0.05, 255.0))
    inside = (slice(28, 52), slice(28, 52))
    assert np.abs(calm[inside].astype(int) - image[inside]).max() <= 1


def test_noise_is_calmed_and_edges_are_kept() -> None:
    clean = np.zeros((64, 64, 3), np.uint8)
    clean[:, 32:] = 60
    noise = np.random.default_rng(0).normal(0, 1.5, clean.shape)
    noisy = np.clip(np.rint(clean + 12 + noise), 0, 255).astype(np.uint8)
    plain, _ = enhance_exactly(noisy, None, 255.0, 0.95, 0.05)
    calm, _ = enhance_denoised(noisy, None, Curve(0.95, 0.05, 255.0))
    dark = (slice(4, 60), slice(4, 28))
    grey = [p[dark] @ np.array(LUMINANCE) for p in (plain, calm)]
    assert grey[1].std() < 0.6 * grey[0].std()
    colour = [
        (p[dark] - g[..., np.newaxis]).std() for p, g in zip((plain, calm), grey, strict=True)
    ]
    assert colour[1] < 0.3 * colour[0]
    steps = [float(p[:, 40:].mean()) - float(p[:, :24].mean()) for p in (plain, calm)]
    assert steps[1] == pytest.approx(steps[0], rel=0.1)
    across = np.abs(np.diff(calm @ np.array(LUMINANCE), axis=1)).mean(axis=0)
    assert across[31] > 10 * across[45:60].mean()


def test_shadows_lose_the_colour_of_their_noise() -> None:
    shadow = np.full((16, 16, 3), (6, 2, 6), np.uint8)  # as cameras have them, purple
    lit = np.full((16, 16, 3), (90, 30, 90), np.uint8)
    ratios = []
    for image in (shadow, lit):
        calm, _ = enhance_denoised(image, None, Curve(0.9, 0.05, 255.0))
        ratios.append(float(calm[8, 8, 1]) / float(calm[8, 8, 0]))
    assert ratios[0] > 0.75  # the input's is a third
    assert ratios[1] == pytest.approx(1 / 3, abs=0.03)


def test_a_picture_has_no_steps_where_the_image_has_none() -> None:
    ramp = np.repeat(np.linspace(0, 60, 400)[np.newaxis, :], 40, axis=0)
    image = np.rint(ramp[..., np.newaxis] * (1, 0.8, 0.6)).astype(np.uint8)
    calm, _ = enhance_denoised(image, None, Curve(0.97, 0.05, 255.0))
    assert np.abs(np.diff(calm.astype(int), axis=1)).max() < 25


@pytest.mark.parametrize("transposed", [False, True])
def test_a_thin_line_looks_the_same_wherever_it_runs(transposed: bool) -> None:
    contrasts = []
    for at in range(40, 44):
        image = np.full((96, 96, 3), 6, np.uint8)
        image[at] = 16
        image = np.ascontiguousarray(image.transpose(1, 0, 2)) if transposed else image
        calm, _ = enhance_denoised(image, None, Curve(0.95, 0.05, 255.0))
        rows = (calm.transpose(1, 0, 2) if transposed else calm).mean(axis=(1, 2))
        contrasts.append(rows[at] - (rows[at - 8] + rows[at + 8]) / 2)
    assert min(contrasts) > 0.9 * max(contrasts)


def test_the_sky_around_a_star_is_as_calm_as_elsewhere() -> None:
    noise = np.random.default_rng(0).normal(0, 1.5, (64, 64, 3))
    noisy = np.clip(np.rint(8 + noise), 0, 255).astype(np.uint8)
    starry = noisy.copy()
    starry[32:34, 32:34] = 200
    around = np.hypot(*(np.indices((64, 64)) - 32.5))
    ring = (around > 5) & (around < 8)
    found = []
    for image in (noisy, starry):
        calm, _ = enhance_denoised(image, None, Curve(0.95, 0.05, 255.0))
        found.append((calm @ np.array(LUMINANCE))[ring].std())
    assert found[1] < 1.3 * found[0]
