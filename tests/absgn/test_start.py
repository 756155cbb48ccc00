"""What images are before the network sees them, where the weights ask for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import batchlight
from batchlight.absgn import start as starts
from batchlight.absgn.conversion import each
from batchlight.absgn.exposure import Exposure
from batchlight.absgn.inference import Enhancer, restore
from batchlight.absgn.network import ABSGN
from batchlight.absgn.start import ClassicalStart, Start, start_of, to_metadata
from batchlight.absgn.weights import dump_weights, parse_weights
from batchlight.classical.dehaze import DehazeParameters
from batchlight.images.measures import measure
from batchlight.images.pixels import Pixels
from tests.support.helpers import dark_image, stable_rows, tree, write_images

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN = DehazeParameters(omega=0.9, t0=0.1, window=20, denoise=False, target=0.45)


def weights(start: Start | None) -> bytes:
    torch.manual_seed(1)
    return dump_weights(dict(ABSGN(8).state_dict()), to_metadata(start))


def classical(image: Pixels) -> Pixels:
    """As users get it."""
    return batchlight.enhance(image, channel_order="bgr", not_dark="enhance")


def times(image: Pixels, factor: float) -> Pixels:
    """So many times as bright."""
    brighter: Pixels = np.rint((image * factor).clip(0, 255)).astype(np.uint8)
    return brighter


def as_kind(image: Pixels, kind: str) -> Pixels:
    return {"gray": image[..., 1].copy(), "16 bit": image.astype(np.uint16) * 257}.get(kind, image)


@pytest.mark.parametrize("kind", ["colour", "gray", "16 bit"])
@pytest.mark.parametrize("tile", [None, 32])
def test_the_network_sees_what_the_classical_method_makes(kind: str, tile: int | None) -> None:
    images = [as_kind(dark_image(seed, 40, 56), kind) for seed in range(2)]
    enhancer = Enhancer(weights(ClassicalStart()), "cpu", "fp32", tile)
    plain = Enhancer(weights(None), "cpu", "fp32", tile)
    start = ClassicalStart()
    found = [result.get() for result in enhancer.enhance(images)]
    ready = [classical(image) for image in images]
    results = [result.get() for result in plain.enhance(ready)]
    expected = list(map(start.after, results, ready, images))
    assert all(np.array_equal(*both) for both in zip(found, expected, strict=True))
    assert not np.array_equal(found[0], plain.enhance(images)[0].get())


def test_a_training_sees_the_same() -> None:
    """RGB in 0..1 in place of BGR in levels."""
    images = np.stack([dark_image(seed, 40, 56) for seed in range(2)])
    tensor = torch.from_numpy(images[..., ::-1].copy()).permute(0, 3, 1, 2).float() / 255
    seen = (each(ClassicalStart().before, tensor) * 255).round().to(torch.uint8)
    expected = np.stack([classical(image) for image in images])
    assert np.array_equal(seen.permute(0, 2, 3, 1).flip(3).numpy(), expected)


def test_whatever_runs_the_network_begins_with_it() -> None:
    image = dark_image(3, 40, 56)
    parsed = parse_weights(weights(ClassicalStart()))
    network = parsed.network()
    ready = classical(image)
    expected = ClassicalStart().after(restore(network, ready[None])[0], ready, image)
    assert np.array_equal(restore(network, image[None], parsed.start)[0], expected)


@pytest.mark.parametrize("kind", ["colour", "gray", "16 bit"])
def test_a_dark_result_comes_half_the_way_to_the_target(kind: str) -> None:
    dark = as_kind(times(dark_image(5, 60, 80), 2), kind)
    before = measure(dark)[0]
    assert 0.2 < before < 0.3
    after = measure(ClassicalStart().after(dark, dark, dark))[0]
    assert after == pytest.approx((before * 0.45) ** 0.5, rel=0.01)


def test_a_result_stays_as_it_is_where_the_start_has_reached_its_target() -> None:
    dark = as_kind(dark_image(5, 60, 80), "gray")  # in colour, its light is limited first
    for result in (times(classical(dark), 0.9), 255 - dark):
        assert np.array_equal(ClassicalStart().after(result, classical(dark), dark), result)
    assert np.array_equal(ClassicalStart(share=0.0).after(dark, dark, dark), dark)


def test_a_result_goes_most_of_the_way_to_what_the_network_was_given() -> None:
    image = as_kind(dark_image(5, 60, 80), "gray")
    given = classical(image)
    stops = np.log2([measure(image)[0], measure(given)[0]])
    least = 2 ** (stops[0] + 0.75 * (stops[1] - stops[0]))
    after = measure(ClassicalStart().after(times(given, 0.6), given, image))[0]
    assert after == pytest.approx(least, rel=0.01)


def test_no_result_is_darker_than_its_image() -> None:
    image = times(dark_image(5, 60, 80), 2)
    after = measure(ClassicalStart().after(times(image, 0.8), image, image))[0]
    assert after >= measure(image)[0] - 0.003


def test_a_result_is_brightened_as_much_as_the_start_missed() -> None:
    dark = dark_image(5, 60, 80)
    nearly = np.full_like(dark, round(0.43 * 255))
    missed = (0.45 / measure(nearly)[0]) ** 2
    result = times(dark, 2)
    brighter = measure(ClassicalStart().after(result, nearly, dark // 8))[0]
    assert brighter == pytest.approx(missed * measure(result)[0], rel=0.01)


def test_the_network_has_no_share_in_an_image_that_is_nearly_bright_enough() -> None:
    """An image a little brighter is not dark, and stays as it is."""
    network = np.full((60, 80, 3), 128, np.uint8)
    shares = []
    for brightness in (0.15, 0.225, 0.3, 0.4, 0.449):
        image = dark_image(5, 60, 80)
        image = times(image, brightness / measure(image)[0])
        given = classical(image)
        result = ClassicalStart(share=0.0).after(network, given, image)
        apart = network.astype(float) - given
        far = np.abs(apart) > 60
        shares.append(((result.astype(float) - given)[far] / apart[far]).mean())
    assert shares == pytest.approx([1, 1, 0.58, 0.17, 0], abs=0.06)


@pytest.mark.parametrize("kind", ["colour", "gray", "16 bit"])
def test_a_letterbox_stays_black(kind: str) -> None:
    image = dark_image(5, 60, 80)
    image[:8], image[-4:], image[:, :12] = 0, 1, 0
    image = as_kind(image, kind)
    result = np.full_like(image, np.iinfo(image.dtype).max // 2)
    framed = ClassicalStart().after(result, classical(image), image)
    assert np.array_equal(framed[:8], image[:8])
    assert np.array_equal(framed[-4:], image[-4:])
    assert np.array_equal(framed[:, :12], image[:, :12])
    assert framed[8:-4, 12:].min() > image[8:-4, 12:].max()
    black = np.zeros_like(image)
    assert np.array_equal(ClassicalStart().after(result, black, black), black)


@given(st.integers(0, 255), st.integers(0, 255), st.floats(0, 1))
def test_the_curve_keeps_black_white_and_the_order(low: int, high: int, share: float) -> None:
    ramp = np.tile(np.linspace(low, high, 64).astype(np.uint8), (8, 1))
    ramp[0, 0], ramp[0, -1] = 0, 255
    result = ClassicalStart(share=share).after(ramp, ramp, ramp)
    assert (result[0, 0], result[0, -1]) == (0, 255)
    steps = np.diff(result[1].astype(int))
    assert (steps >= 0).all() if low <= high else (steps <= 0).all()


@pytest.mark.parametrize(
    "start", [None, Exposure(mean=0.2), ClassicalStart(), ClassicalStart(PLAIN, 0.25)]
)
def test_weights_say_what_they_start_with(start: Start | None) -> None:
    assert parse_weights(weights(start)).start == start


@pytest.mark.parametrize(
    "text", ["[]", "{}", "dark", '{"omega": 7, "t0": 0.1, "window": 1, "denoise": "none"}']
)
def test_a_start_that_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        start_of({"classical": text})


def test_a_new_classical_method_is_another_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it makes decides the pixels, too."""
    write_images(tmp_path / "in", 2)
    file = tmp_path / "own.safetensors"
    file.write_bytes(weights(ClassicalStart()))
    config = batchlight.JobConfig(
        input=str(tmp_path / "in"),
        output=str(tmp_path / "out"),
        method=("absgn",),
        weights=str(file),
        device="cpu",
        workers=0,
        progress="off",
    )
    batchlight.run(config)
    before = tree(tmp_path / "out/absgn"), stable_rows(tmp_path / "out")
    assert batchlight.run(config).done_now == 0
    monkeypatch.setattr(starts, "ALGORITHM_VERSIONS", {"classical": 99, "absgn": 2})
    with pytest.raises(batchlight.UsageError, match="start-algorithm 3 -> 99"):
        batchlight.run(config)
    assert (tree(tmp_path / "out/absgn"), stable_rows(tmp_path / "out")) == before
