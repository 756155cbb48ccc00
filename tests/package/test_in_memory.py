"""``import batchlight``: what it gives, and what it does not load."""

from __future__ import annotations

import inspect
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import batchlight
from batchlight import in_memory
from batchlight.absgn.loading import choose_model
from batchlight.errors import UsageError
from tests.support.helpers import bright_image, dark_image, read_image
from tests.support.weights import weights_without_start


@pytest.mark.parametrize("statement", ["import batchlight", "import batchlight.cli.main"])
def test_importing_is_light(statement: str) -> None:
    code = (
        f"import sys; {statement}; print([m for m in ('ray', 'torch', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_that_programs_may_use_is_there() -> None:
    assert all(getattr(batchlight, name) for name in batchlight.__all__)
    errors = {name for name, value in vars(batchlight.errors).items() if is_error(value)}
    assert errors <= set(batchlight.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'dry_run'"):
        _ = batchlight.dry_run


def is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)


@pytest.mark.nightly
def test_help_answers_at_once() -> None:
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "batchlight", "--help"], check=True, capture_output=True
        )
        times.append(time.perf_counter() - started)
    assert min(times) < 1.0  # 0.4 s there


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "options", [{}, {"denoise": "none"}, {"window": 5}, {"window": 20, "denoise": "none"}], ids=str
)
def test_rgb_is_bgr_turned_round(options: dict[str, Any], dtype: type) -> None:
    bgr = dark_image(1, dtype=dtype)
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    turned = batchlight.enhance(bgr, channel_order="bgr", **options)[..., ::-1]
    assert np.array_equal(batchlight.enhance(rgb, **options), turned)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_shape_dtype_and_alpha_are_kept(channels: int, dtype: type) -> None:
    image = dark_image(2, channels=channels, dtype=dtype)
    before = image.copy()
    out = batchlight.enhance(image, denoise="guided")
    assert (out.shape, out.dtype) == (image.shape, image.dtype)
    assert np.array_equal(image, before)
    assert out[..., :3].mean() > image[..., :3].mean()
    if channels == 4:
        assert np.array_equal(out[..., 3], image[..., 3])


@pytest.mark.parametrize(
    "options", [{"denoise": "none"}, {"window": 5, "denoise": "none"}, {}], ids=str
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_transparency_hides_does_not_matter(dtype: type, options: dict[str, Any]) -> None:
    """Neither for whether an image is dark, nor for how visible pixels come out."""
    image = dark_image(3, 60, 80, 4, dtype)
    visible = np.hypot(*(np.indices((60, 80)) - 30)) < 25
    image[..., 3] = np.where(visible, np.iinfo(dtype).max, 0)
    inside = np.hypot(*(np.indices((60, 80)) - 30)) < 9  # noise is told by neighbours
    outs = []
    for hidden in (0, np.iinfo(dtype).max // 2, np.iinfo(dtype).max):
        image[~visible, :3] = hidden
        outs.append(batchlight.enhance(image, **options)[inside, :3])
    assert outs[0].mean() > 1.5 * image[inside, :3].mean()
    assert all(np.array_equal(out, outs[0]) for out in outs)


def test_an_image_that_is_wholly_transparent_is_enhanced_as_if_it_were_not() -> None:
    image = dark_image(4, channels=4)
    image[..., 3] = 255
    opaque = batchlight.enhance(image)
    image[..., 3] = 0
    assert np.array_equal(batchlight.enhance(image)[..., :3], opaque[..., :3])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_absgn_keeps_shape_dtype_and_alpha(channels: int, dtype: type) -> None:
    image = dark_image(2, channels=channels, dtype=dtype)
    out = batchlight.enhance(image, method="absgn")
    assert (out.shape, out.dtype) == (image.shape, image.dtype)
    assert out[..., :3].mean() > image[..., :3].mean()
    if channels == 4:
        assert np.array_equal(out[..., 3], image[..., 3])
    if channels == 3:
        turned = batchlight.enhance(image[..., ::-1], method="absgn", channel_order="bgr")
        assert np.array_equal(out, turned[..., ::-1])


@pytest.mark.parametrize("method", ["classical", "absgn"])
@pytest.mark.parametrize("options", [{}, {"not_dark": "enhance"}, {"strength": 0.5}], ids=str)
@pytest.mark.parametrize("make", [dark_image, bright_image])
def test_it_gives_what_a_run_gives(
    tmp_path: Path, make: Callable[[int], Any], options: dict[str, Any], method: Any
) -> None:
    image = make(3)
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/a.png"), image)
    where = {"input": str(tmp_path / "in"), "output": str(tmp_path / "out")}
    batchlight.run(
        batchlight.JobConfig(
            **{**where, **options}, method=(method,), device="cpu", workers=0, progress="off"
        )
    )
    out = batchlight.enhance(image, method=method, channel_order="bgr", device="cpu", **options)
    assert np.array_equal(out, read_image(tmp_path / f"out/{method}/a.png"))
    changed = make is dark_image or (method == "absgn" and "not_dark" in options)
    assert (out != image).any() == changed


def test_its_defaults_are_those_of_a_run() -> None:
    ours = inspect.signature(batchlight.enhance).parameters
    fields = batchlight.JobConfig.model_fields
    apart = {"image", "channel_order", "method", "atmospheric_light"}
    assert {name: ours[name].default for name in ours if name not in apart} == {
        name: fields[name].default for name in ours if name not in apart
    }


def test_it_takes_numbers_of_numpy() -> None:
    image = dark_image(4)
    expected = batchlight.enhance(image, atmospheric_light=200, omega=0.5)
    kinds: list[Any] = [np.float32, np.int64, np.uint8]
    omega: Any = np.float32(0.5)
    for kind in kinds:
        out = batchlight.enhance(image, atmospheric_light=kind(200), omega=omega)
        assert np.array_equal(out, expected)


@pytest.mark.parametrize(
    ("image", "options", "error", "message"),
    [
        (np.zeros((4, 4)), {}, TypeError, "float64, but must be uint8 or uint16"),
        ([[1, 2], [3, 4]], {}, TypeError, "list, but must be a NumPy array"),
        (None, {}, TypeError, "NoneType, but must be a NumPy array"),
        (np.zeros((4, 4, 2), np.uint8), {}, ValueError, "shape"),
        (np.zeros((0, 4), np.uint8), {}, ValueError, "no pixels"),
        (np.zeros((4, 4), np.uint8), {"omega": 7}, ValueError, "omega"),
        (np.zeros((4, 4), np.uint8), {"atmospheric_light": 0}, ValueError, "atmospheric_light"),
        (np.zeros((4, 4), np.uint8), {"atmospheric_light": 1e-300}, ValueError, "1 to 255"),
        (np.zeros((4, 4), np.uint8), {"atmospheric_light": "batch"}, ValueError, "atmospheric_l"),
        (np.zeros((4, 4), np.uint8), {"denoise": "gided"}, ValueError, "denoise"),
        (np.zeros((4, 4), np.uint8), {"strength": 1.1}, ValueError, "strength"),
        (np.zeros((4, 4), np.uint8), {"target_luminance": 1}, ValueError, "target_luminance"),
        (np.zeros((4, 4), np.uint8), {"not_dark": "leave-out"}, ValueError, "not_dark"),
        (np.zeros((4, 4), np.uint8), {"method": ("absgn",)}, ValueError, "method"),
        (np.zeros((4, 4), np.uint8), {"method": ["classical"]}, ValueError, "method"),
        (np.zeros((4, 4), np.uint8), {"omega": np.array([0.3])}, ValueError, "omega is array"),
        (
            np.zeros((4, 4), np.uint8),
            {"target_luminance": {}},
            ValueError,
            "target_luminance is {}",
        ),
        (np.zeros((4, 4), np.uint8), {"channel_order": "hsv"}, ValueError, "channel_order"),
    ],
)
def test_what_cannot_be_enhanced(
    image: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        batchlight.enhance(image, **options)


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        batchlight.nothing  # noqa: B018


def test_true_is_no_number_after_one_was_given() -> None:
    image = dark_image(1)
    batchlight.enhance(image, strength=1)
    with pytest.raises(ValueError, match="strength is True, but must be a number"):
        batchlight.enhance(image, strength=True)


def test_threads_load_the_network_once(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = list[str]()

    def slowly(*arguments: Any) -> Any:
        chosen.append("once more")
        time.sleep(0.2)
        return choose_model(*arguments)

    monkeypatch.setattr(in_memory, "choose_model", slowly)
    in_memory._enhancer.cache_clear()
    image = dark_image(1, 32, 32)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(batchlight.enhance, image, method="absgn") for _ in range(2)]
        one, other = (call.result() for call in calls)
    assert np.array_equal(one, other)
    assert len(chosen) == 1


def test_weights_that_were_written_anew_are_read_anew(tmp_path: Path) -> None:
    """As by a training in the same process."""
    file, image = tmp_path / "own.safetensors", dark_image(1, 32, 32)
    packaged = resources.files("batchlight.absgn") / "models/absgn-small.safetensors"
    file.write_bytes(packaged.read_bytes())
    before = batchlight.enhance(image, method="absgn", weights=str(file))
    file.write_bytes(weights_without_start())
    after = batchlight.enhance(image, method="absgn", weights=str(file))
    assert not np.array_equal(before, after)
    file.unlink()
    with pytest.raises(UsageError, match="cannot read the weights"):
        batchlight.enhance(image, method="absgn", weights=str(file))
