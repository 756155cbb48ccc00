"""One folder with every kind of good and bad file, run for real: each fails or succeeds alone."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from batchlight import JobConfig, run
from batchlight.images.pixels import Pixels
from tests.support.helpers import (
    ALL_DARK,
    Row,
    batchlight,
    dark_image,
    outcomes,
    rows,
    stable_rows,
    tree,
)
from tests.support.image_files import (
    ORIENTATION,
    UNSUPPORTED,
    opened,
    patches,
    png,
    png_start,
    read,
    samples,
    saved,
    tiff,
)

ANY_BYTES = sys.platform == "linux"  # macOS takes only names in UTF-8
LIGHT = 255.0


def encoded(suffix: str, image: Pixels) -> bytes:
    return bytes(cv2.imencode(suffix, image)[1])


def turned(format: str) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return saved(patches(), format, exif=exif)


PLAIN = {
    f"plain/{n}{suffix}": encoded(suffix, dark_image(n))
    for n, suffix in enumerate([".jpg", ".png", ".webp", ".tif", ".bmp", ".avif"])
}
KINDS = {
    "gray.jpg": encoded(".jpg", dark_image(1, channels=1)),
    "gray8.png": png(samples(1)),
    "gray16.png": png(samples(1, np.uint16)),
    "rgb16.png": png(samples(3, np.uint16)),
    "rgb16-all-below-256.png": png(samples(3, np.uint16) % 256),
    "rgb16.tif": tiff(samples(3, np.uint16)),
    "lossless.webp": saved(Image.fromarray(samples(3)), "WEBP", lossless=True),
    "turned.jpg": turned("JPEG"),
    "turned_too.png": turned("PNG"),
    "turned_as_well.webp": turned("WEBP"),
    "one-pixel.png": png(samples(3, height=1, width=1)),
    "one-pixel-jpeg.jpg": encoded(".jpg", dark_image(2, 1, 1)),
    "one-row.png": png(samples(3, height=1, width=50)),
    "one-column.png": png(samples(3, height=50, width=1)),
}
WITH_ALPHA = {
    "alpha.png": png(samples(4)),
    "alpha16.png": png(samples(4, np.uint16)),
    "gray-with-alpha.png": png(samples(2)),
    "gray-with-alpha16.png": png(samples(2, np.uint16)),
    "alpha.tif": tiff(samples(4), "unassalpha"),
    "alpha.webp": saved(Image.fromarray(samples(4)), "WEBP", lossless=True, exact=True),
}
ODD_NAMES = {
    "with some spaces.jpg": encoded(".jpg", dark_image(10)),
    "hash#mark?.jpg": encoded(".jpg", dark_image(11)),
    "per%20cent.jpg": encoded(".jpg", dark_image(12)),
    "nächtlich 夜.jpg": encoded(".jpg", dark_image(13)),
    "UPPER.JPG": encoded(".jpg", dark_image(14)),
    "png inside.jpg": encoded(".png", dark_image(15)),
    "folder.jpg/inside.png": encoded(".png", dark_image(16)),
}
GOOD = PLAIN | KINDS | WITH_ALPHA | ODD_NAMES
WHOLE = {
    format: saved(patches(), format) for format in ("jpeg", "png", "webp", "tiff", "bmp", "avif")
}
TRUNCATED = {
    f"cut-{format}-{length}.{format}": data[:length]
    for format, data in WHOLE.items()
    for length in (10, len(data) // 2, len(data) - 1)
}
CORRUPT = TRUNCATED | {"text.jpg": b"no image, only text\n" * 9, "zeros.png": bytes(999)}
BAD: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "empty"),
    "huge.png": (png_start(40_000, 40_000) + png(samples(3))[33:], "too_large"),
    **{name: (data, "corrupt") for name, data in CORRUPT.items()},
    **{name: (data, "unsupported") for name, data in UNSUPPORTED.items()},
    "premultiplied.tif": (tiff(samples(4), "assocalpha"), "unsupported"),
}
UNLISTED = [".hidden.jpg", ".hidden/a.jpg", "notes.txt", "finished/_batchlight/x", "finished/y.jpg"]

EXPECTED: dict[str, str | None] = {
    **dict.fromkeys(GOOD),
    **{name: code for name, (_, code) in BAD.items()},
    r"new\x0aline.jpg": "unsupported",
    **({r"not-utf8-\xff.jpg": "unsupported"} if ANY_BYTES else {}),
    "dangling.jpg": "missing",
    "loop.jpg": "unsupported",
    "linked.jpg": None,
}
"""The whole listing: what each input ends with, None being success."""


@dataclass(frozen=True)
class Zoo:
    """The folder, the output of the run, and what the run left."""

    folder: Path
    output: Path
    result: CompletedProcess[str]
    before: dict[str, tuple[int, int]]

    def good_output(self, name: str) -> bytes:
        return (self.output / "classical" / name).read_bytes()


def make_zoo(folder: Path) -> None:
    plain = PLAIN["plain/0.jpg"]
    contents = (
        GOOD | {name: data for name, (data, _) in BAD.items()} | dict.fromkeys(UNLISTED, plain)
    )
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "new\nline.jpg").write_bytes(plain)
    if ANY_BYTES:
        Path(os.fsdecode(os.fsencode(folder) + b"/not-utf8-\xff.jpg")).write_bytes(plain)
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "linked.jpg").symlink_to("plain/0.jpg")
    (folder / "linked-folder").symlink_to("plain")
    (folder / "linked-folder.jpg").symlink_to("plain")
    os.mkfifo(folder / "pipe.jpg")


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every name below a folder with the size and age of what is there."""
    found = ((str(path), path.lstat()) for path in folder.rglob("*"))
    return {name: (facts.st_size, facts.st_mtime_ns) for name, facts in found}


def run_zoo(
    folder: Path, output: Path, *options: object, not_dark: str = "enhance"
) -> CompletedProcess[str]:
    """Whatever is bright goes through the encoders too, unless told otherwise."""
    where = ("--input", folder, "--output", output, "--atmospheric-light", LIGHT)
    how = ("--not-dark", not_dark, "--workers", 0, "--progress", "off")
    return batchlight("run", *where, *how, *options)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    folder, output = tmp_path_factory.mktemp("zoo") / "in", tmp_path_factory.mktemp("out")
    make_zoo(folder)
    before = snapshot(folder.parent)
    result = run_zoo(folder, output)
    return Zoo(folder, output, result, before)


def test_the_run_ends_and_says_that_images_failed(zoo: Zoo) -> None:
    assert zoo.result.returncode == 3, zoo.result.stderr
    failed = sum(code is not None for code in EXPECTED.values())
    assert f"{failed} of {len(EXPECTED)} images failed" in zoo.result.stdout
    summary = json.loads((zoo.output / "summary.json").read_text())
    assert (summary["exit_code"], summary["failed"]) == (3, failed)


def test_every_listed_file_has_exactly_one_row(zoo: Zoo) -> None:
    assert sorted(row["input"] for row in rows(zoo.output)) == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_status_and_code(zoo: Zoo, name: str) -> None:
    code = EXPECTED[name]
    assert outcomes(zoo.output)[name] == Row("failed" if code else "ok", code)


def test_failed_images_have_a_reason_and_no_output(zoo: Zoo) -> None:
    for row in rows(zoo.output):
        assert (row["error"] is None) == (row["status"] == "ok")
        assert (row["output"] is None) == (row["status"] == "failed")
    written = {name for name in tree(zoo.output) if name.startswith("classical/")}
    assert written == {f"classical/{name}" for name, code in EXPECTED.items() if code is None}


@pytest.mark.parametrize("name", GOOD)
def test_neighbours_change_nothing(zoo: Zoo, name: str, tmp_path: Path) -> None:
    config = JobConfig(
        input=str(zoo.folder / name),
        output=str(tmp_path),
        atmospheric_light=LIGHT,
        workers=0,
        progress="off",
        **ALL_DARK,
    )
    assert run(config).exit_code == 0
    assert (tmp_path / "classical" / Path(name).name).read_bytes() == zoo.good_output(name)


@pytest.mark.parametrize("name", GOOD)
def test_the_kind_of_image_is_kept(zoo: Zoo, name: str) -> None:
    assert kind(zoo.good_output(name)) == kind(GOOD[name])
    [row] = [row for row in rows(zoo.output) if row["input"] == name]
    header = read(GOOD[name]).header
    assert (row["width"], row["height"]) == (header.width, header.height)
    assert row["format"] == header.format


def kind(data: bytes) -> tuple[Any, ...]:
    """Format, mode, size, orientation, depth, number of channels and alpha itself."""
    image, decoded = opened(data), read(data)
    alpha = None if decoded.alpha is None else decoded.alpha.tobytes()
    # An AVIF output is turned, but none of these is.
    orientation = image.getexif().get(ORIENTATION, 1)
    facts = (image.format, image.mode, image.size, orientation, decoded.bit_depth)
    return (*facts, decoded.channels, alpha)


def test_failures_lists_exactly_the_failed(zoo: Zoo) -> None:
    result = batchlight("failures", zoo.output, "--json")
    assert result.returncode == 0
    listed = {row["input"]: row["error_code"] for row in json.loads(result.stdout)}
    assert listed == {name: code for name, code in EXPECTED.items() if code is not None}


def test_nothing_outside_the_output_is_touched(zoo: Zoo) -> None:
    assert snapshot(zoo.folder.parent) == zoo.before


def test_a_second_run_reads_no_finished_file(zoo: Zoo) -> None:
    name = "plain/1.png"
    path = zoo.folder / name
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    outputs, records = tree(zoo.output / "classical"), stable_rows(zoo.output)
    # Of the same size and age, so that only reading it could tell: then it would be corrupt.
    path.write_bytes(bytes(len(GOOD[name])))
    os.utime(path, ns=times)
    try:
        result = run_zoo(zoo.folder, zoo.output)
    finally:
        path.write_bytes(GOOD[name])
        os.utime(path, ns=times)
    assert result.returncode == 3, result.stderr
    assert tree(zoo.output / "classical") == outputs
    # Only what was missing is tried again, in a batch of its own; its one row is replaced.
    now = stable_rows(zoo.output)
    assert [without_batch(row) for row in now] == [without_batch(row) for row in records]
    changed = [row["input"] for row, old in zip(now, records, strict=True) if row != old]
    assert changed == ["dangling.jpg"]


def without_batch(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k not in ("batch", "batch_atmospheric_light")}


def test_of_any_kind_what_is_not_dark_is_copied(tmp_path: Path) -> None:
    for name, data in GOOD.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    options = ("--target-luminance", "0.001")
    result = run_zoo(tmp_path / "in", tmp_path / "out", *options, not_dark="copy")
    assert result.returncode == 0, result.stderr
    assert set(outcomes(tmp_path / "out").values()) == {Row("skipped", None)}
    assert tree(tmp_path / "out/classical") == GOOD


def test_another_format_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    expected = {}
    for name, data in GOOD.items():
        path = Path(name)
        unique = f"{path.stem} {path.suffix[1:]}{path.suffix}"  # as outputs lose their suffixes
        (folder / unique).write_bytes(data)
        refused = name in WITH_ALPHA or "16" in name
        expected[unique] = Row("failed", "unsupported") if refused else Row("ok", None)
    result = run_zoo(folder, output, "--format", "jpeg")
    assert result.returncode == 3, result.stderr
    assert outcomes(output) == expected
    written = tree(output / "classical")
    assert {opened(data).format for data in written.values()} == {"JPEG"}
    assert all(name.lower().endswith(".jpg") for name in written)
    assert len(written) == sum(row.status == "ok" for row in expected.values())
