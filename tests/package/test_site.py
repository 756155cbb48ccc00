"""``make docs``: the site is built without a warning, and all that it links to is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

import batchlight

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder


def test_every_document_is_a_page(site: Path) -> None:
    pages = {path.stem for path in site.glob("*.html")}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} | {"index"} <= pages


def test_all_links_lead_somewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        for link in re.findall(r'(?:href|src)="?([^"\s>]+)', page.read_text()):
            place, _, anchor = link.partition("#")
            path = unquote(place.partition("?")[0])
            if re.match(r"https?:|data:|mailto:|/", path):
                continue
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name}: {link}"
            if anchor and target.suffix == ".html":
                assert unquote(anchor) in ids_in(target), f"{page.name}: {link}"


@cache
def ids_in(page: Path) -> set[str]:
    return set(re.findall(r'\bid="?([^"\s>]+)', page.read_text()))


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link rel="stylesheet")[^>]*https?://', page.read_text()
        )
        assert not loaded, page.name


def test_all_that_programs_may_use_is_described(site: Path) -> None:
    described = (site / "api.html").read_text()
    for name in batchlight.__all__:
        if name != "__version__":
            assert re.search(rf"<h3 id=\"?batchlight\.{name}\"?", described), name
