"""Names from anybody stay text: markup of terminals and pages, controls, and what turns a line."""

from __future__ import annotations

import html
import json
import os
import re
from pathlib import Path

import cv2
import pytest

from batchlight import JobConfig
from batchlight.driver.preview import preview
from tests.support.helpers import batchlight_here, dark_image
from tests.support.terminal import on_a_terminal

STEERING = "\x1b[2J\x1b]0;x\x07"
MARKUP = "[red]:bomb:<b onclick=x>\\[bold]\\"
SUFFIXES = {
    "[red]": "[red]",
    "[x\\": "[x\\",
    ":bomb:": ":bomb:",
    "<b>": "<b>",
    "\u202egpj": "\\u202egpj",
    "\x1b[2j": "\\x1b[2j",
    "a\nb": "\\x0ab",
    "\u2028c": "\\u2028c",
}
"""Of files that are passed over, and what is shown of each."""
NAMES = {
    f"{MARKUP}.png": f"{MARKUP}.png",
    f"{STEERING}.png": "\\x1b[2J\\x1b]0;x\\x07.png",
    "evil\u202egnp.png": "evil\\u202egnp.png",
}
"""Of images, and how each is shown."""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An input, and what a run made of it on a terminal."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "in").mkdir()
    good = cv2.imencode(".png", dark_image(1))[1].tobytes()
    for name in NAMES:
        (folder / "in" / name).write_bytes(good)
        (folder / "in" / f"empty{name}").touch()
    for suffix in SUFFIXES:
        (folder / f"in/x.{suffix}").touch()
    shown = on_a_terminal(
        300, *("run", "--input", folder / "in", "--workers", 0, "--max-failures", 9)
    )
    (folder / "shown").write_text(shown, newline="")
    return folder


def check(text: str, *wanted: str) -> None:
    for steering in ("\x1b[2J", "\x1b[2j", "\x1b]", "\x07", "\u202e", "\u2028", "\U0001f4a3"):
        assert steering not in text, (steering, text)
    for one in wanted:
        assert one in text, (one, text)


def test_on_a_terminal(job: Path) -> None:
    shown = (job / "shown").read_bytes().decode()
    check(shown, "passed over", *SUFFIXES.values())
    check(on_a_terminal(300, "plan", "--input", job / "in"), *SUFFIXES.values())
    failed = [f"empty{name}" for name in NAMES.values()]
    check(on_a_terminal(300, "failures", job / "in-enhanced"), *failed)
    for image in (job / "in-enhanced/classical").iterdir():
        image.unlink()
    written = [name for name in NAMES.values() if "x1b" not in name]
    check(on_a_terminal(300, "verify", job / "in-enhanced"), *written)


def test_for_a_program(job: Path) -> None:
    failed = [f"empty{name}" for name in NAMES.values()]
    check(batchlight_here("failures", job / "in-enhanced").stdout, *failed)
    check(batchlight_here("plan", "--input", job / "in").stdout, *SUFFIXES.values())
    planned = batchlight_here("plan", "--input", job / "in", "--json").stdout
    check(planned)
    summary = json.loads((job / "in-enhanced/summary.json").read_text())
    assert json.loads(planned)["passed_over"] == summary["passed_over"]
    assert summary["passed_over"][".\u202egpj"] == 1


def test_on_pages(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (job / "in-enhanced/report.html").read_text()
    # What a button copies is no text of the page, and has to be the path itself.
    page, buttons = re.subn(' data-copy="[^"]*"', "", page)
    assert buttons == 3
    check(page, *map(html.escape, (*SUFFIXES.values(), *NAMES.values())))
    for name in ("preview.html", "preview.png"):
        found = preview(
            JobConfig(input=str(job / "in")), [""], page=str(job / name), png=name.endswith(".png")
        )
        assert found.shown == 2  # the third is not done, as no output could have its name
        assert len(found.failed) == 4
    page = (job / "preview.html").read_text()
    check(page, *map(html.escape, NAMES.values()))
    assert "<b" not in page.split("<script>")[0].replace("<body", "").replace("<button", "")
    monkeypatch.chdir(job)
    check(on_a_terminal(300, "preview", "--input", "in", "--setting", ""), *failed_names())


def failed_names() -> list[str]:
    return [f"empty{name}" for name in NAMES.values()]


def test_samples_in_a_folder_of_an_odd_name(tmp_path: Path) -> None:
    done = batchlight_here("samples", tmp_path / f"a {STEERING}")
    check(done.stdout, "now: batchlight run --input '")
    assert os.listdir(tmp_path) == [f"a {STEERING}"]
