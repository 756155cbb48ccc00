"""A preview shows the very pixels of a run, of few images of any input, and writes one page."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import batchlight
from batchlight import JobConfig, run
from batchlight.driver import preview as preview_module
from batchlight.driver.preview import LOOKED_AT, make_sheet, preview
from batchlight.errors import UsageError
from batchlight.planning.listing import open_inputs
from batchlight.report.contact_sheet import Sheet
from batchlight.worker.trial import Measured
from tests.support.helpers import (
    batchlight_here,
    dark_image,
    read_image,
    rows,
    tree,
    write_images,
)
from tests.support.s3_server import BUCKET, S3Server

SETTINGS = (
    "",
    "omega=0.5 t0=0.3",
    "window=5",
    "denoise=none",
    "not-dark=enhance strength=0.5",
    "atmospheric-light=image",
    "atmospheric-light=255",
)


def sheet_of(folder: Path, *settings: str, images: int = 8) -> Sheet:
    config = JobConfig(input=str(folder))
    return make_sheet(config, open_inputs(config), settings, images)


def write_mixed(folder: Path) -> None:
    """Images of several kinds, small enough that their details are all of them."""
    write_images(folder, 3, ".png")
    cv2.imwrite(str(folder / "deep.png"), dark_image(7, dtype=np.uint16))
    cv2.imwrite(str(folder / "gray.png"), dark_image(8, channels=1))
    cv2.imwrite(str(folder / "lossy.jpg"), dark_image(9))
    cv2.imwrite(str(folder / "lighter.png"), 120 + dark_image(10))


@pytest.mark.parametrize("number", range(len(SETTINGS)))
def test_its_pictures_are_those_of_a_run_with_the_options_it_names(
    tmp_path: Path, number: int
) -> None:
    write_mixed(tmp_path / "in")
    sheet = sheet_of(tmp_path / "in", *SETTINGS)
    options = shlex.split(sheet.settings[number].label)
    output = tmp_path / "out"
    one_batch = ("--batch-size", 64)
    words = ("--input", tmp_path / "in", "--output", output, "--workers", 0, *one_batch)
    done = batchlight_here("run", *words, *options)
    assert done.returncode == 0, done.stderr
    recorded = {row["input"]: row for row in rows(output)}
    assert {row.name for row in sheet.rows} == set(recorded)
    for row in sheet.rows:
        cell, record = row.cells[number], recorded[row.name]
        written = read_image(output / record["output"])
        wanted = written if written.dtype == np.uint8 else (written >> 8).astype(np.uint8)
        assert cell.shot is not None
        np.testing.assert_array_equal(cell.shot.detail, wanted)
        assert isinstance(cell.outcome, Measured)
        assert cell.outcome.luminance == pytest.approx(record["luminance_after"], abs=1e-6)
        assert cell.outcome.clipped == pytest.approx(record["clipped_fraction"], abs=1e-6)
        assert row.luminance == pytest.approx(record["luminance_before"], abs=1e-6)


def test_the_network_can_be_compared_too(tmp_path: Path, one_thread: None) -> None:
    write_images(tmp_path / "in", 2, ".png")
    sheet = sheet_of(tmp_path / "in", "", "method=absgn model=absgn-small")
    assert [setting.method for setting in sheet.settings] == ["classical", "absgn"]
    config = JobConfig(input=str(tmp_path / "in"), method=("absgn",), model="absgn-small")
    run(config.model_copy(update={"workers": 0, "progress": "off"}))
    for row in sheet.rows:
        shot = row.cells[1].shot
        assert shot is not None
        wanted = read_image(tmp_path / "in-enhanced/absgn" / row.name)
        np.testing.assert_array_equal(shot.detail, wanted)


def test_images_are_shown_from_the_darkest_to_the_brightest_and_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    (tmp_path / "in").mkdir()
    for number in (4, 1, 3, 2):
        picture = Image.new("RGB", (90, 60), (40 * number,) * 3)
        picture.save(tmp_path / f"in/{number}.jpg", exif=exif)
    sheet = sheet_of(tmp_path / "in", "", images=3)
    assert [row.name[0] for row in sheet.rows] == ["1", "3", "4"]
    assert sheet.rows[0].original.whole.shape[:2] == (90, 60)
    cell = sheet.rows[0].cells[0]
    assert cell.shot is None or cell.shot.whole.shape[:2] == (90, 60)


def test_a_large_input_is_sampled_and_always_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview_module, "FILES_AT_MOST", 30)
    (tmp_path / "in").mkdir()
    for number in range(40):
        cv2.imwrite(str(tmp_path / f"in/{number:02d}.png"), dark_image(number, 8, 8))
    (tmp_path / "in/00.txt").touch()
    steps: list[str] = []
    config = JobConfig(input=str(tmp_path / "in"))
    sheet = make_sheet(config, open_inputs(config), [""], 2, steps.append)
    assert f"looking at image {2 * LOOKED_AT} of {2 * LOOKED_AT}" in steps
    assert [s for s in steps if s.startswith("enhancing")][-1] == "enhancing image 2 of 2"
    assert all(int(row.name[:2]) < 29 for row in sheet.rows)
    assert f"a random {2 * LOOKED_AT} of 29 images (of the first 30 files)" in sheet.notes[0]
    again = make_sheet(config, open_inputs(config), [""], 2)
    assert [row.name for row in again.rows] == [row.name for row in sheet.rows]


def test_all_of_a_small_input_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview_module, "FILES_AT_MOST", 3)
    write_images(tmp_path / "in", 2)
    (tmp_path / "in/notes.txt").touch()
    assert sheet_of(tmp_path / "in", "").notes[0].endswith("of all 2 images.")
    (tmp_path / "list.csv").write_text("path\nin/a/0000.jpg\nin/b/0001.jpg\nin/c\nin/d\n")
    [note, *_] = sheet_of(tmp_path / "list.csv", "").notes
    assert note.endswith("of all 3 images (of the first 3 files).")


def test_an_image_that_fails_is_told_with_its_code(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 2)
    (tmp_path / "in/<b>empty.jpg").touch()
    (tmp_path / "in/broken.png").write_bytes(b"no image")
    cv2.imwrite(str(tmp_path / "in/alpha.png"), dark_image(1, channels=4))
    page = tmp_path / "page.html"
    done = batchlight_here(
        *("preview", "--input", tmp_path / "in", "--output", page),
        *("--setting", "", "--setting", "format=jpeg"),
    )
    assert done.returncode == 0
    assert "<b>empty.jpg\tempty\tthe file is empty" in done.stdout
    assert "broken.png\tcorrupt\t" in done.stdout
    assert "--format jpeg (1 of 3 failed)" in done.stdout
    text = page.read_text()
    assert "<b>empty" not in text
    assert "&lt;b&gt;empty.jpg" in text
    assert "<code>corrupt</code>" in text
    assert "unsupported: JPEG cannot hold its transparency" in text


def test_if_all_fail_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/empty.jpg").touch()
    done = batchlight_here("preview", "--input", tmp_path / "in", "--output", tmp_path / "p.html")
    assert done.returncode == 3
    assert "<code>empty</code>" in (tmp_path / "p.html").read_text()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--output", "in/page.html"], "would be inside the input"),
        (["--output", "nowhere/page.html"], "there is no folder"),
        (["--output", "in"], "is a folder; name a file in it"),
        (["--png", "--output", "page.html"], "--output must end in .png"),
        (["--output", "photos.csv"], "--output must end in .html or .png"),
        (["--include", "nothing"], "leave none of "),
        (["--images", "0"], "--images is 0, but must be from 1 to 24"),
        (["--setting", "omega=2"], "--omega is '2'"),
        (["--setting", "method=absgn weights=none"], "cannot read the weights none"),
    ],
)
def test_a_wrong_command_ends_in_one_sentence_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], sentence: str
) -> None:
    write_images(tmp_path / "in", 1)
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    done = batchlight_here("preview", "--input", "in", *options)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert tree(tmp_path) == before


@pytest.mark.parametrize("images", [0, 25])
def test_a_program_gets_the_same_sentence(tmp_path: Path, images: int) -> None:
    write_images(tmp_path / "in", 1)
    with pytest.raises(UsageError, match="--images is"):
        batchlight.preview(
            JobConfig(input=str(tmp_path / "in")), page=str(tmp_path / "p.html"), images=images
        )


def test_no_pipe_device_or_link_is_replaced(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 1)
    page = tmp_path / "page.html"
    os.mkfifo(page)
    with pytest.raises(UsageError, match="exists and is not a regular file"):
        batchlight.preview(JobConfig(input=str(tmp_path / "in")), page=str(page))
    assert page.is_fifo()


def test_it_writes_the_page_and_nothing_else_and_replaces_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "in", 2)
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    for _ in range(2):
        done = batchlight_here("preview", "--input", "in")
        assert done.returncode == 0
        assert done.stdout.splitlines()[-1] == f"2 images on the page {tmp_path}/preview.html"
    assert tree(tmp_path).keys() - before.keys() == {"preview.html"}
    assert [line.split()[0] for line in done.stdout.splitlines()[:2]] == ["setting", "defaults"]


def test_lists_and_single_images_are_inputs(tmp_path: Path) -> None:
    [image] = write_images(tmp_path / "elsewhere", 1)
    (tmp_path / "list.txt").write_text(f"{image}\n")
    for given in (tmp_path / "list.txt", image):
        found = preview(JobConfig(input=str(given)), [""], page=str(tmp_path / "page.html"))
        assert (found.shown, found.failed) == (1, [])


def test_from_and_to_an_object_store(s3: S3Server, tmp_path: Path) -> None:
    [image] = write_images(tmp_path / "in", 1)
    s3.put({"preview/in/a.jpg": image.read_bytes()})
    config = JobConfig(input=f"s3://{BUCKET}/preview/in")
    local = preview(config, [""], page=str(tmp_path / "page.html"))
    assert local.shown == 1
    remote = preview(config, [""], page=f"s3://{BUCKET}/preview/page.html")
    assert remote.page == f"s3://{BUCKET}/preview/page.html"
    assert set(s3.tree("preview")) == {"in/a.jpg", "page.html"}
    with pytest.raises(UsageError, match="would be inside the input"):
        preview(config, page=f"s3://{BUCKET}/preview/in/page.html")


def test_it_starts_no_ray(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 1)
    program = (
        "import sys, batchlight\n"
        f"config = batchlight.JobConfig(input={str(tmp_path / 'in')!r})\n"
        f"batchlight.preview(config, page={str(tmp_path / 'page.html')!r})\n"
        "print(sorted({'ray', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout == "[]\n"
