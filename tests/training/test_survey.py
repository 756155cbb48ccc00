"""What is told of enhanced images without references, and by the command for several folders."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from batchlight.images.pixels import Pixels
from batchlight.training.survey import Measurement, noise_of, survey
from tests.support.helpers import batchlight_here, dark_image


def put(folder: Path, name: str, image: Pixels) -> Path:
    folder.mkdir(exist_ok=True)
    assert cv2.imwrite(str(folder / name), image)
    return folder


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Images before, after one method that is fine, and after one that is not."""
    for number in range(3):
        image = dark_image(number, 40, 48)
        put(tmp_path / "in", f"{number}.jpg", image)
        put(tmp_path / "good", f"{number}.png", image * 2)
        put(tmp_path / "bad", f"{number}.png", image if number else image // 4)
    burnt = dark_image(2, 40, 48)
    burnt[:10] = 255
    put(tmp_path / "bad", "2.png", burnt)
    (tmp_path / "bad" / "3.png").write_bytes(b"")
    return tmp_path


def test_what_is_seen_of_each_image_and_of_all(places: Path) -> None:
    told: list[tuple[object, int]] = []
    found = survey(
        str(places / "bad"), str(places / "in"), lambda sight, total: told.append((sight, total))
    )
    assert told == [(sight, 4) for sight in found.sights]
    darker, same, burnt, broken = found.sights
    assert [sight.is_darker for sight in found.sights] == [True, False, False, False]
    assert same.luminance == pytest.approx(same.luminance_before, abs=0.01)
    assert burnt.clipped == pytest.approx(0.25)
    assert broken == Measurement("3.png", problem="enhanced image: the file is empty")
    assert (found.images, found.seen, found.darker, found.much_clipped) == (4, 3, 1, 1)
    assert found.clipped == pytest.approx(0.25 / 3)
    assert darker.luminance is not None
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["darker"] == 1


def test_without_inputs_nothing_is_said_of_them(places: Path) -> None:
    found = survey(str(places / "good"))
    assert (found.inputs, found.darker, found.luminance_before) == (None, None, None)
    assert found.noise is not None


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint8, 1), (np.uint16, 257)])
@pytest.mark.parametrize("sigma", [2.0, 10.0])
def test_noise_is_estimated_in_levels_of_255(dtype: type, scale: int, sigma: float) -> None:
    random = np.random.default_rng(1)
    slope = np.linspace(60, 180, 120)[None] + np.zeros((99, 1))
    noisy = (slope + random.normal(0, sigma, slope.shape)) * scale
    assert noise_of(noisy.astype(dtype)) == pytest.approx(sigma, rel=0.15)
    assert noise_of((slope * scale).astype(dtype)) < 1
    assert noise_of(np.zeros((1, 5, 3), np.uint8)) == 0


def test_the_command_looks_at_several_folders(places: Path) -> None:
    folders = ("--enhanced", places / "good", "--enhanced", places / "bad")
    shown = batchlight_here("evaluate", *folders, "--input", places / "in").stdout
    assert shown.count("became darker") == 2
    found = json.loads(
        batchlight_here("evaluate", *folders, "--input", places / "in", "--json").stdout
    )
    assert [each["darker"] for each in found] == [0, 1]
    [one] = [
        batchlight_here("evaluate", "--enhanced", places / "bad").stdout,
    ]
    assert "became darker" not in one
    assert "2.png" in one


def test_the_command_compares_several_folders_at_one_size(places: Path) -> None:
    folders = ("--enhanced", places / "good", "--enhanced", places / "bad")
    arguments = ("evaluate", *folders, "--reference", places / "good", "--size", 32)
    shown = batchlight_here(*arguments).stdout
    assert shown.count("at the reference's mean") == 2
    found = json.loads(batchlight_here(*arguments, "--json").stdout)
    assert [each["size"] for each in found] == [32, 32]
    assert found[0]["identical"] == 3


@pytest.mark.parametrize("options", [("--reference",), ("--input",), ()])
def test_the_command_fails_if_nothing_of_a_folder_could_be_measured(
    places: Path, options: tuple[str, ...]
) -> None:
    (places / "broken").mkdir()
    (places / "broken" / "0.png").write_bytes(b"")
    against = (word for option in options for word in (option, places / "in"))
    folders = [word for name in ("good", "broken") for word in ("--enhanced", places / name)]
    arguments = ["evaluate", *folders, *against]
    assert batchlight_here(*arguments).returncode == 3
    done = batchlight_here(*arguments, "--json")
    assert (done.returncode, len(json.loads(done.stdout))) == (3, 2)
    assert batchlight_here("evaluate", "--enhanced", places / "bad").returncode == 0


@pytest.mark.parametrize("wrong", [("--reference", "x", "--input", "y"), ("--size", 32)])
def test_options_that_do_not_go_together(places: Path, wrong: tuple[str | int, ...]) -> None:
    done = batchlight_here("evaluate", "--enhanced", places / "good", *wrong)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --")
