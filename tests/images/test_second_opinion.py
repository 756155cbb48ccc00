"""A corpus of all kinds through the job, compared by readers that are not the project's own.

With ``--strength 0`` what comes out shows what went in: by Pillow and tifffile, pixel by pixel
where the format is lossless; and all that they and ExifTool, where it is installed, find in a file
is found in its output, unless its row names it.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pillow_heif
import pytest
import tifffile
from PIL import Image

from batchlight import JobConfig, run
from tests.support.helpers import rows
from tests.support.image_corpus import corpus

SHARE_IN_EVERY_RUN = 10
LOSSY = {"jpeg": 3.0, "avif": 3.0, "heif": 3.0, "webp": 4.0}
"""Mean difference of samples that encoding once more may make."""
OF_PILLOW = ("icc_profile", "xmp", "dpi", "comment", "gamma", "srgb", "jfif_density", "text")
OF_PIXELS = {*range(254, 260), 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320}
OF_PIXELS |= {*range(322, 326), 338, 339, 347, 529, 530, 531, 532, 34377, 330}
OF_FILES = ("SourceFile", "System:", "ExifTool:", "Composite:", "File:")
OF_CODING = [
    "Thumbnail",
    "Strip",
    "Tile",
    "Rows",
    "Compression",
    "Photometric",
    "BitsPerSample",
    "Planar",
    "SampleFormat",
    "Predictor",
    "Palette",
    "ColorMap",
    "ColorType",
    "BitDepth",
    "MediaData",
    "BitsPerPixel",
    "ImageLength",
    "NumColors",
    "ImageSize",
    "ChromaFormat",
    "GenProfile",
    "ColorMatrix",
    "PrimaryItem",
    "MetaImageSize",
    "Interlace",
    "MatrixCoeff",
    "VideoFullRange",
    "PreviewImage",
    "MPF",
    "NumberOfImages",
    "CurrentIPTCDigest",
    "Lossless",
    "AlphaPre",
]


@pytest.fixture(scope="module", autouse=True)
def heif() -> None:
    pillow_heif.register_heif_opener()


def job(names: list[str], folder: Path, output: Path) -> dict[str, dict[str, Any]]:
    """The rows of a run over these files, by input."""
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(corpus()[name])
    options = {"strength": 0.0, "not_dark": "enhance", "workers": 0, "progress": "off"}
    run(JobConfig(input=str(folder), output=str(output), **options))  # type: ignore[arg-type]
    return {row["input"]: row for row in rows(output)}


def pixels(data: bytes) -> npt.NDArray[Any]:
    """By Pillow in red, green, blue, alpha; by tifffile what Pillow reads in fewer bits, or not."""
    if data[:2] in (b"II", b"MM"):
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[0]
            assert isinstance(page, tifffile.TiffPage)
            if page.dtype == np.uint16 or file.is_bigtiff:
                return page.asarray()
    with Image.open(io.BytesIO(data)) as image:
        if image.mode.startswith("I;16"):
            return np.asarray(image).astype(np.uint16)
        return np.asarray(image.convert("RGBA"))


def facts(data: bytes) -> dict[str, Any]:
    """What Pillow and tifffile tell of a file beside its pixels."""
    if data[:2] in (b"II", b"MM"):
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            tags = file.pages[0].tags  # type: ignore[union-attr]
            return {str(t.code): str(t.value) for t in tags if t.code not in OF_PIXELS}
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        found = {name: image.info[name] for name in OF_PILLOW if name in image.info}
        found["exif"] = dict(image.getexif())
        found["maker"] = image.getexif().get_ifd(0x8769)
        found["size"] = image.size
        found["layers"] = [layer[1:3] for layer in getattr(image, "layer", [])]
        return found


def by_exiftool(path: Path) -> dict[str, Any]:
    """What ExifTool tells, but for what is of the file or of the coded image."""
    command = ["exiftool", "-j", "-G1", "-a", "-u", "-b", str(path)]
    [found] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {
        name: value
        for name, value in found.items()
        if not name.startswith(OF_FILES) and not any(word in name for word in OF_CODING)
    }


def compare(names: list[str], folder: Path, output: Path) -> None:
    told = job(names, folder, output)
    assert sorted(told) == sorted(names)
    troubles = []
    for name, row in told.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trouble = differences(corpus()[name], row, folder / name, output)
        troubles += [f"{name}: {each}" for each in trouble]
    assert troubles == []


def differences(before: bytes, row: dict[str, Any], source: Path, output: Path) -> list[str]:
    """What is wrong with an output."""
    expected = {"refused": "unsupported"}.get(row["input"].partition("-")[0])
    if row["input"] == "tiff-mask.tif":
        expected = "unsupported"
    if row["error_code"] != expected:
        return [f"{row['error_code']}: {row['error']}"]
    if expected:
        return []
    after = (output / row["output"]).read_bytes()
    found = []
    old, new = pixels(before), pixels(after)
    if old.shape != new.shape and old.size and new.ndim == 3:
        old = old if old.ndim == 3 else np.stack([old] * 3, axis=2)
    lossless = row["format"] not in LOSSY or "lossless" in row["input"]
    if old.shape != new.shape:
        found.append(f"{old.shape} became {new.shape}")
    elif np.abs(old.astype(int) - new).mean() > (0 if lossless else LOSSY[row["format"]]):
        found.append(f"other pixels, by {np.abs(old.astype(int) - new).mean():.2f}")
    if row["lost"]:
        return found
    for one, other in [(facts(before), facts(after)), *by_others(source, output / row["output"])]:
        wrong = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
        found += [f"{key}: {one.get(key)} became {other.get(key)}" for key in sorted(wrong)]
    return found


def by_others(source: Path, output: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    if shutil.which("exiftool") is None:
        return []
    return [(by_exiftool(source), by_exiftool(output))]


def test_a_tenth_of_the_corpus(tmp_path: Path) -> None:
    names = list(corpus())[::SHARE_IN_EVERY_RUN]
    compare(names, tmp_path / "in", tmp_path / "out")


@pytest.mark.nightly
def test_the_whole_corpus(tmp_path: Path) -> None:
    compare(list(corpus()), tmp_path / "in", tmp_path / "out")
