"""Pairs: found by name, read alike whatever their kind, split so that no scene is on both sides."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from batchlight.errors import UsageError
from batchlight.training.pairs import (
    SAME_SCENE,
    TrainingPair,
    find_pairs,
    group_scenes,
    load_pair,
    split_by_scene,
)
from tests.support.helpers import dark_image
from tests.support.s3_server import S3Server

Image = npt.NDArray[Any]


def touch(root: Path, *names: str) -> None:
    """Finding pairs looks at names only."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def write(root: Path, name: str, image: Image) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def names(pairs: list[TrainingPair]) -> list[tuple[str, str, str]]:
    return [(pair.name, pair.low, pair.high) for pair in pairs]


# find_pairs


def test_found_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "high/b.png", "high/a.png", "low/a.png", "low/b.png")
    pairs = find_pairs(str(tmp_path))
    assert names(pairs) == [("a", "low/a.png", "high/a.png"), ("b", "low/b.png", "high/b.png")]
    assert {pair.folder for pair in pairs} == {str(tmp_path)}


def test_the_suffix_may_differ(tmp_path: Path) -> None:
    touch(tmp_path, "low/a.JPG", "high/a.png", "low/b.1.tif", "high/b.1.bmp")
    assert names(find_pairs(str(tmp_path))) == [
        ("a", "low/a.JPG", "high/a.png"),
        ("b.1", "low/b.1.tif", "high/b.1.bmp"),
    ]


def test_found_in_subfolders_of_the_same_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "low/x/y/a.png", "high/x/y/a.png", "low/a.png", "high/z/a.png")
    assert names(find_pairs(str(tmp_path))) == [("x/y/a", "low/x/y/a.png", "high/x/y/a.png")]
    assert "2 images" in caplog.text


def test_the_same_name_in_two_subfolders_is_two_pairs(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{side}/{folder}/a.png" for side in ("low", "high") for folder in "xy"))
    assert [pair.name for pair in find_pairs(str(tmp_path))] == ["x/a", "y/a"]


def test_only_images_in_low_and_high_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "low/a.png", "high/a.png", "low/a.txt", "low/readme.md", "a.png", "high.png")
    touch(tmp_path, "mid/a.png", "mid/low/b.png", "mid/high/b.png", "lower/c.png", "low/LICENSE")
    assert names(find_pairs(str(tmp_path))) == [("a", "low/a.png", "high/a.png")]
    assert not caplog.records


def test_those_without_a_counterpart_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "low/a.png", "high/a.png", "low/d.png", "high/c.png", "high/e.png")
    with caplog.at_level(logging.WARNING):
        assert [pair.name for pair in find_pairs(str(tmp_path))] == ["a"]
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"skipped in {tmp_path}, for lack of a counterpart: 3 images, such as c"
    )


@pytest.mark.parametrize("side", ["low", "high"])
def test_two_images_of_one_name_are_refused(tmp_path: Path, side: str) -> None:
    touch(tmp_path, "low/a.png", "high/a.png", f"{side}/x/b.jpg", f"{side}/x/b.png")
    with pytest.raises(UsageError) as error:
        find_pairs(str(tmp_path))
    assert f"{side}/x/b.jpg and {side}/x/b.png" in str(error.value)


@pytest.mark.parametrize(
    "present", [[], ["low/a.png"], ["high/a.png"], ["low/a.png", "high/b.png"], ["a.png"]]
)
def test_no_pairs(tmp_path: Path, present: list[str]) -> None:
    touch(tmp_path, *present)
    with pytest.raises(UsageError, match="holds no pairs; put the dark images"):
        find_pairs(str(tmp_path))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere does not exist"):
        find_pairs(str(tmp_path / "nowhere"))


NAMES = st.dictionaries(
    st.text("ab.", min_size=1, max_size=3).filter(lambda name: not name.startswith(".")),
    st.sampled_from([".png", ".jpg", ".JPEG", ".tiff"]),
    max_size=8,
)


@settings(max_examples=20)
@given(low=NAMES, high=NAMES)
def test_pairs_are_the_names_on_both_sides(
    low: dict[str, str], high: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("pairs")
    touch(folder, *(f"low/{name}{suffix}" for name, suffix in low.items()))
    touch(folder, *(f"high/{name}{suffix}" for name, suffix in high.items()))
    assume(low.keys() & high.keys())
    assert names(find_pairs(str(folder))) == [
        (name, f"low/{name}{low[name]}", f"high/{name}{high[name]}")
        for name in sorted(low.keys() & high.keys())
    ]


def test_found_and_read_in_an_object_store(s3: S3Server) -> None:
    image = dark_image(1)
    data = bytes(cv2.imencode(".png", image)[1])
    s3.put({"low/x/a.png": data, "high/x/a.png": data}, "pairs")
    [pair] = find_pairs("s3://data/pairs")
    assert (pair.name, pair.low, pair.high) == ("x/a", "low/x/a.png", "high/x/a.png")
    assert np.array_equal(load_pair(pair)[0], image[:, :, ::-1].astype(np.float32) / 255)


# load_pair


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_loaded_as_rgb_in_0_to_1(tmp_path: Path, channels: int, dtype: type) -> None:
    shape = (20, 30) if channels == 1 else (20, 30, channels)
    top = np.iinfo(dtype).max
    image = np.random.default_rng(channels).integers(0, top, shape, dtype, endpoint=True)
    write(tmp_path, "low/a.png", image)
    write(tmp_path, "high/a.tif" if channels < 4 else "high/a.png", image // 2)
    [pair] = find_pairs(str(tmp_path))
    for loaded, stored in zip(load_pair(pair), (image, image // 2), strict=True):
        assert loaded.shape == (20, 30, 3)
        assert loaded.dtype == np.float32
        bgr = stored[:, :, None].repeat(3, 2) if channels == 1 else stored[:, :, :3]
        assert np.abs(loaded - bgr[:, :, ::-1] / float(top)).max() < 1e-6
    assert 0 <= load_pair(pair)[0].min() < load_pair(pair)[0].max() <= 1


def test_both_sides_may_be_of_another_kind(tmp_path: Path) -> None:
    write(tmp_path, "low/a.png", np.full((9, 8), 51, np.uint8))
    write(tmp_path, "high/a.tif", np.full((9, 8, 3), (0, 13107, 65535), np.uint16))
    low, high = load_pair(find_pairs(str(tmp_path))[0])
    assert low[0, 0] == pytest.approx([0.2, 0.2, 0.2])
    assert high[0, 0] == pytest.approx([1, 0.2, 0])


@pytest.mark.parametrize("shape", [(20, 31), (30, 20), (21, 30)])
def test_another_size_is_refused(tmp_path: Path, shape: tuple[int, int]) -> None:
    write(tmp_path, "low/a.png", dark_image(1, 20, 30))
    write(tmp_path, "high/a.jpg", dark_image(1, *shape))
    with pytest.raises(UsageError) as error:
        load_pair(find_pairs(str(tmp_path))[0])
    assert str(error.value) == (
        f"low/a.png and high/a.jpg in {tmp_path} differ in size; remove the pair"
    )


@pytest.mark.parametrize("side", ["low", "high"])
@pytest.mark.parametrize("damage", ["empty", "noise", "cut", "missing"])
def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, side: str, damage: str) -> None:
    for folder in ("low", "high"):
        write(tmp_path, f"{folder}/x/a.png", dark_image(1))
    [pair] = find_pairs(str(tmp_path))
    path = tmp_path / side / "x/a.png"
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "noise": b"\x07" * 99, "cut": data[:-200]}[damage])
    with pytest.raises(UsageError, match=rf"^cannot use {side}/x/a\.png in .*; remove the pair$"):
        load_pair(pair)


# group_scenes and split_by_scene


def scene(seed: int, side: int = 24) -> Image:
    """Unlike any other scene."""
    return np.random.default_rng(seed).uniform(0.3, 0.7, (side, side)).astype(np.float32)


def exposures(seed: int) -> list[Image]:
    """The same scene, darker, brighter, with less contrast and with noise."""
    image = scene(seed)
    noise = np.random.default_rng(1000 + seed).normal(0, 0.01, image.shape)
    return [image, image * 0.4, image**0.7, 0.5 + 0.1 * image, (image + noise).astype(np.float32)]


def scenes_of(thumbnails: list[Image]) -> list[int]:
    """For each thumbnail the first of its scene: scenes may be numbered in any way."""
    scenes = group_scenes(thumbnails)
    return [scenes.index(scene) for scene in scenes]


def chain(count: int, degrees: float) -> list[Image]:
    """Each is like its neighbours; the ends are not alike."""
    one, other = (scene(seed).astype(np.float64) for seed in (70, 71))
    one, other = one - one.mean(), other - other.mean()
    one /= np.linalg.norm(one)
    other -= (one * other).sum() * one
    other /= np.linalg.norm(other)
    angles = np.radians(degrees) * np.arange(count)
    return [0.5 + np.cos(a) * one + np.sin(a) * other for a in angles]


def test_exposures_are_one_scene() -> None:
    thumbnails = [image for seed in range(4) for image in exposures(seed)]
    assert scenes_of(thumbnails) == [first for first in (0, 5, 10, 15) for _ in range(5)]


def test_a_single_image_is_a_scene() -> None:
    assert scenes_of([scene(1)]) == [0]


def test_unlike_images_are_scenes_of_their_own() -> None:
    assert scenes_of([scene(seed) for seed in range(30)]) == list(range(30))


def test_a_negative_is_not_the_same_scene() -> None:
    assert scenes_of([scene(1), 1 - scene(1)]) == [0, 1]


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1]])
def test_a_chain_is_one_scene_in_any_order(order: list[int]) -> None:
    a, b, c = chain(3, 20)
    assert float(np.corrcoef(a.ravel(), c.ravel())[0, 1]) < 0.8 < SAME_SCENE
    links = [a, b, c]
    assert scenes_of([scene(9), *(links[k] for k in order), scene(8)]) == [0, 1, 1, 1, 4]


@settings(max_examples=80)
@given(
    angles=st.lists(st.integers(0, 35).map(lambda n: 10 * n), min_size=1, max_size=14),
    flat=st.integers(0, 2),
)
def test_scenes_are_what_chains_connect(angles: list[int], flat: int) -> None:
    one, other = chain(2, 90)
    one, other = one - 0.5, other - 0.5
    thumbnails = [np.cos(a) * one + np.sin(a) * other for a in np.radians(angles)]
    thumbnails += [np.full_like(one, 0.1 * k) for k in range(flat)]  # like nothing, nor themselves
    degrees = np.abs(np.subtract.outer(angles, angles)) % 360
    alike = np.cos(np.radians(degrees)) >= SAME_SCENE
    for _ in angles:
        alike = alike @ alike  # what is like something that it is like
    expected = alike.argmax(axis=1).tolist()
    assert scenes_of(thumbnails) == expected + [len(angles) + k for k in range(flat)]


def data_set(folder: Path, images: list[Image]) -> list[TrainingPair]:
    """One pair per image; the dark sides are alike, since only the others tell scenes."""
    for number, image in enumerate(images):
        bright = np.rint(np.clip(image, 0, 1) * 65535).astype(np.uint16)
        write(folder, f"high/{number:03d}.png", bright)
        write(folder, f"low/{number:03d}.png", np.full_like(bright, 900))
    return find_pairs(str(folder))


def numbers(pairs: list[TrainingPair]) -> list[int]:
    return [int(pair.name) for pair in pairs]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[TrainingPair]:
    """40 scenes of one to three exposures, one after the other as in a real data set."""
    images = [image for seed in range(40) for image in exposures(seed)[: 1 + seed % 3]]
    return data_set(tmp_path_factory.mktemp("scenes"), images)


SCENE_OF = [seed for seed in range(40) for _ in range(1 + seed % 3)]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_no_scene_is_on_both_sides(scenes: list[TrainingPair], share: float, seed: int) -> None:
    training, held_out = split_by_scene(scenes, share, seed)
    assert sorted(numbers(training) + numbers(held_out)) == list(range(len(scenes)))
    both = {SCENE_OF[n] for n in numbers(training)} & {SCENE_OF[n] for n in numbers(held_out)}
    assert not both
    wanted = round(share * len(scenes))
    assert wanted <= len(held_out) < wanted + 3  # at most the rest of one scene more


def test_split_keeps_the_order(scenes: list[TrainingPair]) -> None:
    for side in split_by_scene(scenes, 0.3, 0):
        assert numbers(side) == sorted(numbers(side))


def test_split_follows_from_the_seed(scenes: list[TrainingPair]) -> None:
    splits = [split_by_scene(scenes, 0.2, seed) for seed in (3, 3, 4)]
    assert splits[0] == splits[1]
    assert splits[0] != splits[2]


def test_over_the_seeds_every_scene_is_drawn(scenes: list[TrainingPair]) -> None:
    drawn: dict[int, int] = defaultdict(int)
    for seed in range(12):
        for number in numbers(split_by_scene(scenes, 0.5, seed)[1]):
            drawn[SCENE_OF[number]] += 1
    assert set(drawn) == set(SCENE_OF)


def test_without_a_share_nothing_is_read(tmp_path: Path) -> None:
    touch(tmp_path, "low/a.png", "high/a.png")
    pairs = find_pairs(str(tmp_path))
    assert split_by_scene(pairs, 0, 0) == (pairs, [])


def test_split_takes_a_chain_as_one_scene(tmp_path: Path) -> None:
    links = [0.5 + 4 * (image - 0.5) for image in chain(5, 20)]
    images = [links[0], scene(1), links[4], scene(2), links[2], scene(3), links[1], links[3]]
    pairs = data_set(tmp_path, images)
    for seed in range(6):
        training, held_out = split_by_scene(pairs, 0.4, seed)
        sides = [{0, 2, 4, 6, 7} & set(numbers(side)) for side in (training, held_out)]
        assert set() in sides


def test_something_is_left_to_train_on(tmp_path: Path) -> None:
    pairs = data_set(tmp_path, exposures(1))
    training, _ = split_by_scene(pairs, 0.2, 0)
    assert training


def test_a_damaged_image_is_named_when_scenes_are_told_apart(tmp_path: Path) -> None:
    pairs = data_set(tmp_path, [scene(1), scene(2)])
    (tmp_path / "high/001.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"cannot use high/001\.png"):
        split_by_scene(pairs, 0.5, 0)
