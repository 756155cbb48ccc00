"""The pictures of the documents: ``make pictures`` makes all of them again, from the samples.

Needs tmux and Chromium.
"""

from __future__ import annotations

import io
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from batchlight import JobConfig, preview, run
from batchlight.classical.dehaze import DehazeParameters, analyse, enhance
from batchlight.cli.samples import photograph, write_samples
from batchlight.config import METHODS

WORK = Path("/tmp/night")
PROMPT_S = 0.5
"""Until a shell that says it is about to prompt has done so."""
PICTURES = Path(__file__).parent / "pictures"
SCRIPTS = str(Path(sys.executable).parent)
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 80]

COLUMNS = 92
NARROW = 46
PAGE = {"width": 1200, "height": 900}
PHONE = {"width": 390, "height": 900}
REPORT = {"width": 1200, "height": 1900}
"""What tells most of it; all of it would be long."""
KIND = (330, 220)
BACKLIT = 1 / 40
GAMMA = 2.2
GAP = 6
"""Pixels between two pictures."""

Image = npt.NDArray[np.uint8]


def main() -> None:
    """Make them all, in a folder of its own."""
    with _folder() as folder:
        write_samples(str(folder / "dark"))
        (folder / "dark/broken").mkdir()
        (folder / "dark/broken/empty.jpg").touch()
        cut = (folder / "dark/things/coffee.jpg").read_bytes()[:4000]
        (folder / "dark/broken/cut short.jpg").write_bytes(cut)
        config = JobConfig(
            input=str(folder / "dark"), method=METHODS, workers=0, progress="off", batch_size=4
        )
        run(config)
        _before_and_after(folder)
        _how_classical_works(folder)
        _kinds(folder)
        with sync_playwright() as playwright:
            path = next(filter(None, map(shutil.which, CHROMIUM)))
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            _report(browser, folder)
            _preview(browser, folder)
            _terminal(browser, folder)
            browser.close()


@contextmanager
def _folder() -> Iterator[Path]:
    """With a name that is short, as it is seen on the pictures."""
    WORK.mkdir()
    try:
        yield WORK
    finally:
        shutil.rmtree(WORK)


def _before_and_after(folder: Path) -> None:
    places = ("dark", "dark-enhanced/classical", "dark-enhanced/absgn")
    images = [_read(folder / place / "people/astronaut.jpg") for place in places]
    _write("before-after.jpg", _beside(*(_cut(image, 0, 360, 0, 360) for image in images)))


def _how_classical_works(folder: Path) -> None:
    """Dark, inverted, the transmission of that, the result; and that without noise calmed."""
    dark = _read(folder / "dark/animals/cat.jpg")
    plain, calm = (
        DehazeParameters.of(JobConfig(input=".", denoise=denoise)) for denoise in ("none", "guided")
    )
    analysis = analyse(dark, calm.window)
    light = analysis.atmospheric_light
    results = [enhance(dark, analysis, light, some) for some in (plain, calm)]
    haze = results[0].omega * (255.0 - dark.max(axis=2)) / light
    transmission = np.rint(np.clip(1 - haze, calm.t0, 1) * 255).astype(np.uint8)
    grey = cv2.cvtColor(transmission, cv2.COLOR_GRAY2BGR)
    steps = [dark, 255 - dark, grey, results[1].pixels]
    small = [cv2.resize(step, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for step in steps]
    _write("classical.jpg", _beside(*map(np.asarray, small)))
    close = [_cut(result.pixels, 60, 160, 150, 350) for result in results]
    _write("denoise.jpg", _beside(*(cv2.resize(i, None, fx=2, fy=2) for i in close)))


def _kinds(folder: Path) -> None:
    """What both methods make of a picture in the dark, two with both, and one in the light."""
    photographs = {
        "dark": _read(folder / "dark/things/coffee.jpg"),
        "night": photograph("rocket"),
        "backlit": _backlit(photograph("astronaut")),
        "bright": photograph("chelsea"),
    }
    (folder / "kinds").mkdir()
    for name, picture in photographs.items():
        cv2.imwrite(str(folder / f"kinds/{name}.png"), picture)
    run(
        JobConfig(
            input=str(folder / "kinds"), method=METHODS, model="absgn", workers=0, progress="off"
        )
    )
    places = ("kinds", "kinds-enhanced/classical", "kinds-enhanced/absgn")
    rows = [
        _beside(*(_fitted(_read(folder / f"{place}/{name}.png")) for place in places))
        for name in photographs
    ]
    _write("kinds.jpg", _below(*rows))


def _backlit(photograph: Image) -> Image:
    """The light of a window behind somebody: at the left a fortieth of that at the right."""
    across = np.linspace(0, 1, photograph.shape[1])[np.newaxis, :, np.newaxis]
    light = BACKLIT ** (1 - np.clip(2 * across - 0.5, 0, 1))
    linear = (photograph / 255) ** GAMMA * light
    return np.rint(linear ** (1 / GAMMA) * 255).astype(np.uint8)


def _fitted(image: Image) -> Image:
    """The middle, of the shape and size of a row of the picture of kinds."""
    height, width = image.shape[:2]
    size = min(height, width * 2 // 3)
    top, left = (height - size) // 2, (width - size * 3 // 2) // 2
    part = image[top : top + size, left : left + size * 3 // 2]
    return np.asarray(cv2.resize(part, KIND, interpolation=cv2.INTER_AREA))


def _report(browser: Browser, folder: Path) -> None:
    for name, size, scheme in (("light", REPORT, "light"), ("dark", PHONE, "dark")):
        context = browser.new_context(
            viewport={"width": size["width"], "height": size["height"]},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        page = context.new_page()
        page.goto((folder / "dark-enhanced/report.html").as_uri())
        page.screenshot(path=str(folder / f"{name}.png"))
        context.close()
    light, dark = (_read(folder / f"{name}.png") for name in ("light", "dark"))
    _write("report.jpg", light)
    _write("report-phone.jpg", dark)


def _preview(browser: Browser, folder: Path) -> None:
    page = str(folder / "preview.html")
    preview(JobConfig(input=str(folder / "dark"), exclude=("broken/",)), page=page, images=3)
    context = browser.new_context(viewport={"width": PAGE["width"], "height": PAGE["height"]})
    tab = context.new_page()
    tab.goto(Path(page).as_uri())
    tab.screenshot(path=str(folder / "preview.png"), full_page=True)
    context.close()
    _write("preview.jpg", _read(folder / "preview.png"))


def _terminal(browser: Browser, folder: Path) -> None:
    """What a person sees, taken from a real terminal."""
    shutil.rmtree(folder / "dark-enhanced")
    commands = [
        "batchlight plan --input dark",
        "batchlight run --input dark --workers 2",
        "batchlight failures dark-enhanced",
        "batchlight status dark-enhanced",
    ]
    for name, columns in (("terminal", COLUMNS), ("terminal-narrow", NARROW)):
        shown = _in_tmux(folder, commands, columns)
        console = Console(record=True, width=columns, file=io.StringIO())
        console.print(Text.from_ansi(shown))
        svg = console.export_svg(title="batchlight", theme=MONOKAI)
        (folder / f"{name}.html").write_text(f"<body style='margin:0'>{svg}")
        page = browser.new_page(viewport={"width": columns * 12, "height": 600})
        page.goto((folder / f"{name}.html").as_uri())
        page.locator("svg").screenshot(path=str(PICTURES / f"{name}.png"))
        page.close()


def _in_tmux(folder: Path, commands: list[str], columns: int) -> str:
    """Type commands into a terminal of this width; all that is on it then, with its colours."""
    session = f"pictures-{columns}"
    shell = (
        f"PATH={shlex.quote(SCRIPTS)}:$PATH PS1='$ ' PROMPT_COMMAND='tmux wait-for -S {session}'"
    )
    size = ["-x", str(columns), "-y", "200", "-c", str(folder)]
    _tmux("new-session", "-d", "-s", session, *size, f"{shell} exec bash --norc --noprofile")
    for command in commands:
        _tmux("wait-for", session)
        time.sleep(PROMPT_S)
        _tmux("send-keys", "-t", session, command, "Enter")
    _tmux("wait-for", session)
    time.sleep(PROMPT_S)
    shown = _tmux("capture-pane", "-p", "-e", "-t", session)
    _tmux("kill-session", "-t", session)
    return shown.rstrip().removesuffix("$").rstrip()


def _tmux(*arguments: str) -> str:
    return subprocess.run(["tmux", *arguments], capture_output=True, text=True, check=True).stdout


def _beside(*images: Any) -> Any:
    gap = np.full((images[0].shape[0], GAP, 3), 255, np.uint8)
    joined = [part for image in images for part in (gap, image)]
    return np.hstack(joined[1:])


def _below(*images: Any) -> Any:
    gap = np.full((GAP, images[0].shape[1], 3), 255, np.uint8)
    joined = [part for image in images for part in (gap, image)]
    return np.vstack(joined[1:])


def _cut(image: Image, top: int, bottom: int, left: int, right: int) -> Image:
    return image[top:bottom, left:right]


def _read(path: Path) -> Image:
    image = cv2.imread(str(path))
    assert image is not None, path
    return np.asarray(image, np.uint8)


def _write(name: str, image: Any) -> None:
    PICTURES.mkdir(exist_ok=True)
    cv2.imwrite(str(PICTURES / name), image, JPEG)


if __name__ == "__main__":
    main()
