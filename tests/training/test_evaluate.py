"""Which images are compared, what the numbers are, and what happens to those that have none."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import threading
import time
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import metrics

from batchlight import JobConfig, run
from batchlight.errors import StorageError, UsageError
from batchlight.images.pixels import Pixels
from batchlight.storage.base import FileRefusedError
from batchlight.storage.local import LocalStorage
from batchlight.training.evaluate import Evaluation, Score, evaluate
from batchlight.training.folders import Unmatched
from batchlight.training.quality import Quality, at_mean_of, shrunk
from tests.support.helpers import dark_image, read_image, write_images
from tests.support.image_files import ORIENTATION, UNSUPPORTED, png, png_start, saved, tiff
from tests.support.s3_server import BUCKET, S3Server

MODULE = "batchlight.training.evaluate"
FOLDERS = "batchlight.training.folders"
ANY_BYTES = sys.platform == "linux"  # macOS takes only names in UTF-8
FLAT = np.full((8, 9, 3), 100, np.uint8)


class Folders:
    """A folder of enhanced images and one of references, to be filled and compared."""

    def __init__(self, root: Path) -> None:
        self.enhanced, self.reference = root / "enhanced", root / "reference"
        for folder in (self.enhanced, self.reference):
            folder.mkdir()

    def put(self, path: str, enhanced: Pixels | bytes | None, reference: Pixels | bytes) -> None:
        """One file in each, encoded as its name says."""
        self.put_alone(self.reference, path, reference)
        if enhanced is not None:
            self.put_alone(self.enhanced, path, enhanced)

    def put_alone(self, folder: Path, path: str, content: Pixels | bytes = FLAT) -> None:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, bytes):
            content = bytes(cv2.imencode(file.suffix, content)[1])
        file.write_bytes(content)

    def evaluate(self) -> Evaluation:
        return evaluate(str(self.enhanced), str(self.reference))

    def score(self) -> Score:
        """That of the only pair."""
        (score,) = self.evaluate().scores
        return score


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def brighter(image: Pixels, by: int = 10) -> Pixels:
    return np.add(image, by, dtype=image.dtype)


def test_a_difference_worked_out_by_hand(folders: Folders) -> None:
    folders.put("all.png", brighter(FLAT), FLAT)
    some = FLAT.copy()
    some[0, 0] = (100 + 6, 100 - 3, 100)  # 45 / 216 samples
    folders.put("some.png", some, FLAT)
    first, second = folders.evaluate().scores
    assert first.psnr == pytest.approx(20 * math.log10(255 / 10))
    assert second.psnr == pytest.approx(10 * math.log10(255**2 * 216 / 45))
    luminance = (2 * 110 * 100 + 2.55**2) / (110**2 + 100**2 + 2.55**2)
    assert first.ssim == pytest.approx(luminance)  # contrast and structure of flat images are equal


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp", ".avif"])
def test_the_numbers_are_those_of_scikit_image(folders: Folders, suffix: str) -> None:
    folders.put(f"a{suffix}", dark_image(1), dark_image(2))
    image, reference = (read_image(f / f"a{suffix}") for f in (folders.enhanced, folders.reference))
    score = folders.score()
    assert score.psnr == pytest.approx(metrics.peak_signal_noise_ratio(reference, image))
    ssim = metrics.structural_similarity(reference, image, channel_axis=2)
    assert score.ssim == pytest.approx(ssim)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_depth_in_gray_and_colour(folders: Folders, channels: int, dtype: type) -> None:
    image, reference = (dark_image(n, channels=channels, dtype=dtype) for n in (1, 2))
    folders.put("a.png", image, reference)
    score, top = folders.score(), np.iinfo(dtype).max
    psnr = metrics.peak_signal_noise_ratio(reference, image, data_range=top)
    axis = None if channels == 1 else 2
    ssim = metrics.structural_similarity(reference, image, data_range=top, channel_axis=axis)
    assert score.psnr == pytest.approx(psnr)
    assert score.ssim == pytest.approx(ssim)


@pytest.mark.parametrize("gray_first", [True, False])
def test_gray_against_colour_is_three_equal_channels(folders: Folders, gray_first: bool) -> None:
    gray, colour = dark_image(1, channels=1), dark_image(2)
    folders.put("a.png", *((gray, colour) if gray_first else (colour, gray)))
    score, wide = folders.score(), np.stack([gray] * 3, axis=2)
    assert score.psnr == pytest.approx(metrics.peak_signal_noise_ratio(colour, wide))
    ssim = metrics.structural_similarity(colour, wide, channel_axis=2)
    assert score.ssim == pytest.approx(ssim)


@pytest.mark.parametrize("deep_first", [True, False])
def test_8_bit_against_16_is_scaled_to_the_same_range(folders: Folders, deep_first: bool) -> None:
    shallow, deep = dark_image(1), dark_image(2, dtype=np.uint16)
    wide = shallow.astype(np.uint16) * 257
    folders.put("a.png", *((deep, shallow) if deep_first else (shallow, deep)))
    folders.put("same.png", *((wide, shallow) if deep_first else (shallow, wide)))
    score, same = folders.evaluate().scores
    expected = metrics.peak_signal_noise_ratio(wide, deep, data_range=65535)
    assert score.psnr == pytest.approx(expected)
    assert same.psnr == math.inf
    assert same.ssim == pytest.approx(1)


def test_alpha_is_left_out(folders: Folders) -> None:
    with_alpha = dark_image(1, channels=4)
    opaque = np.ascontiguousarray(with_alpha[..., :3])
    folders.put("a.png", with_alpha, opaque)
    folders.put("gray.png", png(with_alpha[..., :2]), png(with_alpha[..., 0]))
    assert [score.psnr for score in folders.evaluate().scores] == [math.inf, math.inf]


def test_pixels_are_compared_as_stored(folders: Folders) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    folders.put("a.png", saved(Image.fromarray(FLAT), "PNG", exif=exif), FLAT)
    assert folders.score() == Score("a.png", math.inf, 1.0, math.inf, 1.0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_image_at_the_mean_of_its_reference(folders: Folders, dtype: type) -> None:
    reference: Pixels = dark_image(1, 32, 40).astype(dtype) * 2
    folders.put("a.png", (reference // 2).astype(dtype), reference)
    score = folders.score()
    assert score.psnr is not None
    assert score.psnr_at_mean is not None
    assert score.ssim_at_mean is not None
    assert score.psnr_at_mean > score.psnr + 10
    assert score.ssim_at_mean > 0.99
    black = np.zeros((8, 9), np.uint8)
    assert (at_mean_of(black, black + 5) == black).all()
    assert at_mean_of(black + 200, black + 255).max() == 255


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("gray", [True, False])
def test_images_of_two_sizes_compared_at_a_third(folders: Folders, dtype: type, gray: bool) -> None:
    large: Pixels = dark_image(1, 48, 72).astype(dtype)
    if gray:
        large = large[..., 0].copy()
    folders.put("a.png", large, shrunk(large, 24))
    assert folders.score().problem is not None
    found = evaluate(str(folders.enhanced), str(folders.reference), size=24)
    assert (found.psnr, found.size) == (math.inf, 24)
    if dtype is np.uint8:
        whole = Image.fromarray(large).resize((24, 24), Image.Resampling.BILINEAR)
        assert (shrunk(large, 24) == np.asarray(whole)).all()


@pytest.mark.parametrize("size", [6, 4097, 100_000])
def test_a_size_that_is_too_small_or_fills_the_memory(folders: Folders, size: int) -> None:
    folders.put("a.png", dark_image(0), dark_image(1))
    with pytest.raises(UsageError, match=f"--size is {size}, but must be from 7 to 4096"):
        evaluate(str(folders.enhanced), str(folders.reference), size=size)


def test_means(folders: Folders) -> None:
    for number in range(5):
        folders.put(f"{number}.png", dark_image(number), dark_image(number + 1))
    found = folders.evaluate()
    assert (found.images, found.scored, found.identical) == (5, 5, 0)
    assert found.psnr == pytest.approx(np.mean([score.psnr for score in found.scores]))
    assert found.ssim == pytest.approx(np.mean([score.ssim for score in found.scores]))
    assert found.enhanced == str(folders.enhanced)
    assert found.reference == str(folders.reference)


def test_an_identical_image_does_not_hide_the_others(folders: Folders) -> None:
    folders.put("a.png", FLAT, FLAT)
    folders.put("b.png", brighter(FLAT), FLAT)
    found = folders.evaluate()
    same, other = found.scores
    assert (found.images, found.scored, found.identical) == (2, 2, 1)
    assert (same.psnr, found.psnr) == (math.inf, other.psnr)
    assert same.ssim is not None
    assert other.ssim is not None
    assert found.ssim == pytest.approx((same.ssim + other.ssim) / 2)
    shown = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert shown["identical"] == 1
    assert shown["psnr"] == found.psnr
    assert shown["scores"][0] == {
        "path": "a.png",
        "psnr": None,
        "ssim": 1.0,
        "psnr_at_mean": None,
        "ssim_at_mean": 1.0,
        "problem": None,
    }
    assert shown["scores"][1]["psnr"] == other.psnr


def test_all_identical(folders: Folders) -> None:
    folders.put("a.png", FLAT, FLAT)
    found = folders.evaluate()
    assert (found.psnr, found.ssim, found.identical) == (math.inf, 1.0, 1)
    assert found.to_dict()["psnr"] is None


def test_the_json_object(folders: Folders) -> None:
    folders.put("a.png", b"", FLAT)
    folders.put_alone(folders.enhanced, "mine.png")
    assert json.loads(json.dumps(folders.evaluate().to_dict(), allow_nan=False)) == {
        "enhanced": str(folders.enhanced),
        "reference": str(folders.reference),
        "images": 1,
        "scored": 0,
        "identical": 0,
        **dict.fromkeys(("psnr", "ssim", "psnr_at_mean", "ssim_at_mean", "size")),
        "scores": [
            {
                "path": "a.png",
                **dict.fromkeys(("psnr", "ssim", "psnr_at_mean", "ssim_at_mean")),
                "problem": "enhanced image: the file is empty",
            }
        ],
        "without_reference": {"count": 1, "first": ["mine.png"]},
        "without_enhanced": {"count": 0, "first": []},
    }


def test_paths_pair_up_never_positions(folders: Folders) -> None:
    folders.put("a/1.png", FLAT, FLAT)
    folders.put("b/1.png", brighter(FLAT), FLAT)
    folders.put_alone(folders.reference, "0.png")
    folders.put_alone(folders.enhanced, "c/1.png")
    found = folders.evaluate()
    assert [score.path for score in found.scores] == ["a/1.png", "b/1.png"]
    assert [score.psnr == math.inf for score in found.scores] == [True, False]
    assert found.without_reference == Unmatched(1, ("c/1.png",))
    assert found.without_enhanced == Unmatched(1, ("0.png",))


def test_another_suffix_is_the_same_path(folders: Folders) -> None:
    folders.put_alone(folders.enhanced, "x/a.b.JPG")
    folders.put_alone(folders.reference, "x/a.b.png")
    found = folders.evaluate()
    assert [(score.path, score.psnr) for score in found.scores] == [("x/a.b.JPG", math.inf)]
    assert found.without_enhanced == Unmatched(0, ())


@pytest.mark.parametrize(
    ("enhanced", "references", "expected"),
    [
        (["a.jpg"], ["a.jpg", "a.png"], {"a.jpg": "a.jpg"}),
        (["a.jpg", "a.png"], ["a.jpg"], {"a.jpg": "a.jpg"}),
        (["a.jpg", "a.png"], ["a.png", "a.webp"], {"a.png": "a.png"}),
        (["a.jpg"], ["a.png", "a.webp"], {}),
        (["a.jpg", "a.png"], ["a.webp"], {}),
        (["a.jpg"], ["a.JPG"], {"a.jpg": "a.JPG"}),
        (["x/a.jpg"], ["y/a.jpg"], {}),
        (["a.jpg"], ["A.jpg"], {}),
        (["a/b.jpg"], ["a.b.jpg"], {}),
    ],
)
def test_an_equal_path_comes_first_and_nothing_is_guessed(
    folders: Folders, enhanced: list[str], references: list[str], expected: dict[str, str]
) -> None:
    folders.put("zz.png", FLAT, FLAT)
    for folder, paths in ((folders.enhanced, enhanced), (folders.reference, references)):
        for path in paths:
            folders.put_alone(folder, path)
    found = folders.evaluate()
    assert [score.path for score in found.scores] == [*expected, "zz.png"]
    assert found.without_reference.first == tuple(sorted({*enhanced} - expected.keys()))
    assert found.without_enhanced.first == tuple(sorted({*references} - {*expected.values()}))


def test_the_first_few_without_a_counterpart_are_named(folders: Folders) -> None:
    folders.put("z.png", FLAT, FLAT)
    for number in range(7):
        folders.put_alone(folders.enhanced, f"{number}.png")
    found = folders.evaluate()
    assert found.without_reference == Unmatched(7, tuple(f"{n}.png" for n in range(5)))
    assert found.images == 1


def test_hidden_files_and_files_that_are_no_images_do_not_count(folders: Folders) -> None:
    folders.put("a.png", FLAT, FLAT)
    for folder in (folders.enhanced, folders.reference):
        folders.put_alone(folder, ".b.png")
        folders.put_alone(folder, ".c/d.png")
        folders.put_alone(folder, "notes.txt", b"dark")
    folders.put_alone(folders.enhanced, ".e.png")
    found = folders.evaluate()
    assert (found.images, found.without_reference.count) == (1, 0)


LARGE = png_start(20_000, 20_000) + png(FLAT)[33:]
PROBLEMS: dict[str, tuple[Pixels | bytes, Pixels | bytes, str]] = {
    "size": (dark_image(1, 20, 30), dark_image(1, 30, 20), "it has 30x20 pixels, but .* 20x30"),
    "small": (FLAT[:6], FLAT[:6], "9x6 pixels are too few, since SSIM takes at least 7x7"),
    "narrow": (FLAT[:, :6], FLAT[:, :6], "6x8 pixels are too few, since SSIM takes at least 7x7"),
    "empty": (b"", FLAT, "enhanced image: the file is empty"),
    "no-reference": (FLAT, b"", "reference: the file is empty"),
    "text": (b"dark", FLAT, "enhanced image: the content is not an image"),
    "cut": (png(dark_image(1))[:-30], FLAT, "enhanced image: the file is cut short"),
    "cmyk": (FLAT, UNSUPPORTED["cmyk.jpg"], "reference: CMYK"),
    "animated": (UNSUPPORTED["animated.webp"], FLAT, "enhanced image: an animation cannot be kept"),
    "large": (FLAT, LARGE, "reference: more than 200,000,000 pixels"),
}


def test_an_image_without_a_score_does_not_end_the_evaluation(folders: Folders) -> None:
    for name, (enhanced, reference, _) in PROBLEMS.items():
        folders.put(f"{name}.png", enhanced, reference)
    folders.put("zz.png", brighter(FLAT), FLAT)
    found = folders.evaluate()
    assert (found.images, found.scored) == (len(PROBLEMS) + 1, 1)
    *bad, good = found.scores
    for score in bad:
        assert (score.psnr, score.ssim) == (None, None)
        assert score.problem is not None
        assert re.search(PROBLEMS[score.path.removesuffix(".png")][2], score.problem)
    assert (found.psnr, found.ssim, good.problem) == (good.psnr, good.ssim, None)


def test_every_problem_is_one_line_that_names_the_side(folders: Folders) -> None:
    for name, data in UNSUPPORTED.items():
        folders.put_alone(folders.enhanced, name)
        folders.put_alone(folders.reference, name, data)
    found = folders.evaluate()
    assert (found.images, found.scored, found.psnr, found.ssim) == (len(UNSUPPORTED), 0, None, None)
    problems = [score.problem or "" for score in found.scores]
    assert all(re.fullmatch("reference: .*", problem) for problem in problems)


def test_files_that_cannot_be_read(folders: Folders) -> None:
    names = ["gone.png", "loop.png"]
    for name in names:
        folders.put_alone(folders.reference, name)
    (folders.enhanced / "gone.png").symlink_to("nowhere")
    (folders.enhanced / "loop.png").symlink_to("loop.png")
    assert [(score.path, score.problem) for score in folders.evaluate().scores] == [
        ("gone.png", "enhanced image: there is no such file, or it vanished after the listing"),
        ("loop.png", "enhanced image: cannot be accessed: too many levels of symbolic links"),
    ]


@pytest.mark.skipif(not ANY_BYTES, reason="the file system takes only UTF-8")
def test_a_name_that_cannot_be_used(folders: Folders) -> None:
    data = png(FLAT)
    for folder in (folders.enhanced, folders.reference):
        with open(os.fsencode(folder) + b"/n\xff.png", "wb") as file:
            file.write(data)
    score = folders.score()
    assert score.path == "n\\xff.png"
    assert (score.problem or "").startswith("enhanced image: the name is not UTF-8")


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (PermissionError(13, "permission denied"), "enhanced image: no permission to read it"),
        (
            FileRefusedError("the store does\nnot"),
            "enhanced image: cannot be read: the store does not",
        ),
        (MemoryError(), "there is not enough memory to compare it"),
    ],
)
def test_trouble_of_one_file(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, error: BaseException, problem: str
) -> None:
    for name in ("a.png", "b.png"):
        folders.put(name, FLAT, FLAT)
    fail_at(monkeypatch, "a.png", error)
    bad, good = folders.evaluate().scores
    assert bad == Score("a.png", problem=problem)
    assert good.problem is None


def test_trouble_of_the_storage_ends_it(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    folders.put("a.png", FLAT, FLAT)
    fail_at(monkeypatch, "a.png", StorageError("the disk is on fire"))
    with pytest.raises(StorageError, match="the disk is on fire"):
        folders.evaluate()


def fail_at(monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException) -> None:
    """Let reading one file fail."""
    read = LocalStorage.read

    def failing(self: LocalStorage, path: str) -> bytes:
        if path == name:
            raise error
        return read(self, path)

    monkeypatch.setattr(LocalStorage, "read", failing)


def test_many_pairs_come_in_the_order_of_their_paths(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{FOLDERS}.AHEAD", 7)
    write_images(folders.reference, 30, height=8, width=8)
    write_images(folders.enhanced, 30, height=8, width=8)
    told: list[tuple[Score, int]] = []
    found = evaluate(
        str(folders.enhanced),
        str(folders.reference),
        on_score=lambda score, total: told.append((score, total)),
    )
    assert [score.path for score in found.scores] == sorted(
        f"{'abc'[n % 3]}/{n:04d}.jpg" for n in range(30)
    )
    assert told == [(score, 30) for score in found.scores]
    assert found.identical == 30


class Comparisons:
    """Stands in for the comparison of two images: slow, and watching how many go on at once."""

    def __init__(self) -> None:
        self.count = self.most = self._running = 0
        self._lock = threading.Lock()

    def __call__(self, image: Pixels, reference: Pixels) -> Quality:
        with self._lock:
            self.count += 1
            self._running += 1
            self.most = max(self.most, self._running)
        time.sleep(0.01)
        with self._lock:
            self._running -= 1
        return Quality(20.0, 0.5)


@pytest.fixture
def comparisons(monkeypatch: pytest.MonkeyPatch) -> Comparisons:
    watched = Comparisons()
    monkeypatch.setattr(f"{MODULE}.quality", watched)
    monkeypatch.setattr(f"{FOLDERS}.usable_cpus", lambda: 4)
    return watched


@pytest.mark.parametrize(("room", "most"), [(1, 1), (128, 2)])
def test_memory_is_bounded_by_the_pixels_at_one_time(
    folders: Folders,
    monkeypatch: pytest.MonkeyPatch,
    comparisons: Comparisons,
    room: int,
    most: int,
) -> None:
    monkeypatch.setattr(f"{FOLDERS}.PIXELS_AT_ONCE", room)
    for folder in (folders.enhanced, folders.reference):
        write_images(folder, 20, height=8, width=8)
    assert folders.evaluate().psnr == 20.0
    assert (comparisons.count, comparisons.most) == (2 * 20, most)  # each as it is and at the mean


def test_whoever_listens_can_stop_it(folders: Folders, comparisons: Comparisons) -> None:
    for folder in (folders.enhanced, folders.reference):
        write_images(folder, 300, height=8, width=8)

    def stop(score: Score, total: int) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        evaluate(str(folders.enhanced), str(folders.reference), stop)
    assert comparisons.count < 300
    assert threading.active_count() <= before


def test_tiffs_that_pillow_decodes(folders: Folders) -> None:
    """Several at once, since that decoder's settings are those of the process."""
    image = dark_image(1, channels=4)
    for number in range(20):
        folders.put(f"{number:02d}.tif", tiff(image, "unassalpha"), tiff(image[..., :3]))
    with warnings.catch_warnings():
        before = (Image.MAX_IMAGE_PIXELS, list(warnings.filters))
        assert folders.evaluate().identical == 20
        assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before


def test_the_output_of_a_run(tmp_path: Path) -> None:
    photos, bright = tmp_path / "photos", tmp_path / "bright"
    write_images(photos, 3)
    run(JobConfig(input=str(photos), output=str(bright), workers=0, progress="off"))
    with pytest.raises(UsageError, match=r"bright is the output .*/bright/classical, as --enh"):
        evaluate(str(bright), str(photos))
    with pytest.raises(UsageError, match=r"bright is the output .*/bright/classical, as --ref"):
        evaluate(str(photos), str(bright))
    found = evaluate(str(bright / "classical"), str(photos))
    assert (found.images, found.scored, found.identical) == (3, 3, 0)


def test_nothing_to_compare(folders: Folders) -> None:
    enhanced, reference = str(folders.enhanced), str(folders.reference)
    with pytest.raises(UsageError, match=r" contains no images; check --enhanced"):
        evaluate(enhanced, reference)
    folders.put_alone(folders.enhanced, "a.png")
    with pytest.raises(UsageError, match=r" contains no images; check --reference"):
        evaluate(enhanced, reference)
    folders.put_alone(folders.reference, "b.png")
    with pytest.raises(UsageError, match=r"none of the images in .*, such as a\.png, has one"):
        evaluate(enhanced, reference)
    with pytest.raises(UsageError, match=r"/gone does not exist; check the path"):
        evaluate(enhanced, f"{reference}/gone")
    with pytest.raises(UsageError, match=r"a\.png is a file; give the folder .* as --enhanced"):
        evaluate(f"{enhanced}/a.png", reference)
    with pytest.raises(UsageError, match="ftp"):
        evaluate("ftp://host/photos", reference)


def test_object_stores(s3: S3Server, folders: Folders) -> None:
    image, reference = dark_image(1), dark_image(2)
    name = "a b/x #%20+?.png"
    s3.put({name: png(image[..., ::-1]), "a.png": b"", "alone.png": b""}, "evaluate/enhanced")
    folders.put(name, image, reference)
    folders.put("a.png", b"", reference)
    local = folders.evaluate()
    place = f"s3://{BUCKET}/evaluate/enhanced"
    mixed = evaluate(f"{place}/", str(folders.reference))
    assert (mixed.enhanced, mixed.reference) == (place, str(folders.reference))
    assert mixed.scores == local.scores
    assert mixed.without_reference == Unmatched(1, ("alone.png",))
    with pytest.raises(UsageError, match=r"^s3://.* contains no images; check --reference"):
        evaluate(place, f"s3://{BUCKET}/evaluate/gone")
    s3.put({"_batchlight/locks/0": b"", "classical/a.png": b""}, "evaluate/run")
    with pytest.raises(UsageError, match="is the output of a run"):
        evaluate(f"s3://{BUCKET}/evaluate/run", place)
