"""MkDocs' view of the repository: the README as the first page, and files outside ``docs/``.

Documents link to each other, and to scripts and manifests, as the repository lies, so that all
links work where it is browsed. The site takes along whatever they link to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
DOCS = "docs/"
HOME = ("README.md", "index.md")
"""The first page in the repository and on the site."""
SOURCES = "sources/"
"""Where the site has what lies outside ``docs/``; MkDocs would take a README for an index."""

_LINK = re.compile(
    r"(\[(?:[^\[\]]|\[[^\]]*\])*\]|src=\")(\(?)(?!https?://|#|mailto:|data:)([^)\"#\s]+)"
)


def on_files(files: Files, config: Any) -> Files:
    """Add the README, and what any page links to outside ``docs/``."""
    left = [HOME[0], *(DOCS + file.src_uri for file in files.documentation_pages())]
    seen = set(left)
    while left:
        page = left.pop()
        for target in _targets(page):
            if target not in seen:
                seen.add(target)
                if target.endswith(".md"):
                    left.append(target)
    for path in sorted(seen):
        if not path.startswith(DOCS):
            files.append(File.generated(config, _on_site(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links lead to where the site has what they name; folders are named without a link."""
    source = _in_repository(page.file.src_uri)

    def moved(link: re.Match[str]) -> str:
        words, bracket, _ = link.groups()
        target = _target(source, link[3])
        if target is None:
            return link[0]
        here = os.path.dirname(page.file.src_uri) or "."
        return words + bracket + os.path.relpath(_on_site(target), here)

    return _LINK.sub(moved, _without_folders(source, markdown))


def _without_folders(source: str, markdown: str) -> str:
    def named(link: re.Match[str]) -> str:
        place = ROOT / os.path.normpath(os.path.join(os.path.dirname(source), link[2]))
        return f"`{link[1]}`" if place.is_dir() else link[0]

    return re.sub(r"\[([^\[\]]+)\]\((?!https?://|#)([^)#\s]+)\)", named, markdown)


def _targets(page: str) -> Iterator[str]:
    """The files that a page links to, as the repository names them."""
    for _, _, link in _LINK.findall((ROOT / page).read_text()):
        target = _target(page, link)
        if target is not None:
            yield target


def _target(page: str, link: str) -> str | None:
    path = os.path.normpath(os.path.join(os.path.dirname(page), link))
    return path if (ROOT / path).is_file() else None


def _on_site(path: str) -> str:
    if path == HOME[0]:
        return HOME[1]
    if path.startswith(DOCS):
        return path.removeprefix(DOCS)
    return SOURCES + path.replace("README.md", "about.md")


def _in_repository(uri: str) -> str:
    if uri == HOME[1]:
        return HOME[0]
    if uri.startswith(SOURCES):
        return uri.removeprefix(SOURCES).replace("about.md", "README.md")
    return DOCS + uri
