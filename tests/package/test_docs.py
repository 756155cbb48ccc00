"""The documents and the program say the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from batchlight.cli.options import GROUPS, PREVIEW_GROUPS, TRAIN_GROUPS, option_default
from batchlight.config import JobConfig
from batchlight.errors import ErrorCode, is_permanent
from batchlight.options import Options
from batchlight.training.config import TrainConfig
from tests.support.helpers import batchlight_here

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
REFERENCE = (ROOT / "docs/reference.md").read_text()
ERRORS = (ROOT / "docs/errors.md").read_text()
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    ("kind", "groups", "heading"),
    [(JobConfig, GROUPS, "run"), (TrainConfig, TRAIN_GROUPS, "train")],
)
def test_every_option_is_documented_with_its_default_and_no_other(
    kind: type[Options], groups: Mapping[str, Sequence[str]], heading: str
) -> None:
    section = REFERENCE.split(f"## Options of `{heading}`")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `--([a-z0-9-]+)` \| (.*) \| (.*) \|$", section, re.MULTILINE)
    documented = {name.replace("-", "_"): (meaning, default) for name, meaning, default in rows}
    assert list(documented) == [name for names in groups.values() for name in names]
    assert set(documented) == set(kind.model_fields)
    for name, (meaning, default) in documented.items():
        assert meaning == str(kind.model_fields[name].description)
        assert default == (option_default(kind, name) or "")


def test_every_command_is_documented_and_no_other() -> None:
    commands = set(re.findall(r"^│ ([a-z]+) {2,}", batchlight_here("--help").stdout, re.MULTILINE))
    assert commands == set(re.findall(r"^\| `batchlight ([a-z]+)", REFERENCE, re.MULTILINE))
    assert len(commands) >= 5


@pytest.mark.parametrize(
    ("command", "kind"), [("run", JobConfig), ("plan", JobConfig), ("train", TrainConfig)]
)
def test_help_lists_every_option(command: str, kind: type[Options]) -> None:
    text = batchlight_here(command, "--help", COLUMNS="200").stdout
    for name in kind.model_fields:
        assert f"--{name.replace('_', '-')} " in text


def test_help_of_preview_lists_what_it_takes() -> None:
    text = batchlight_here("preview", "--help", COLUMNS="200").stdout
    names = [name for names in PREVIEW_GROUPS.values() for name in names]
    for name in (*names, "setting", "images", "output", "png"):
        assert f"--{name.replace('_', '-')} " in text


def test_readme_names_every_code() -> None:
    assert all(f"`{code.value}`" in README for code in ErrorCode)


def test_every_code_has_its_section_with_what_to_do() -> None:
    sections = dict(re.findall(r"^## `(\w+)`\n((?:(?!## ).*\n?)*)", ERRORS, re.MULTILINE))
    assert list(sections) == [code.value for code in ErrorCode]
    for code, text in sections.items():
        means, do = text.removeprefix("\n**Means.** ").split("\n\n**Do.** ")
        redone = "Permanent." if is_permanent(code) else "Every run tries it again."
        assert means.endswith(redone), code
        assert len(do.split()) > 8, code


@pytest.mark.parametrize("document", ["README.md", *(f"docs/{p.name}" for p in DOCS)])
def test_documents_name_only_tests_and_files_that_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    for path, _, name in re.findall(r"`(tests/[\w/]+\.py)(::(\w+))?`", text):
        assert f"def {name}" in (ROOT / path).read_text()
    for path in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / document).parent.joinpath(path).exists(), path


WITH_LINKS = sorted(
    path.relative_to(ROOT)
    for folder in (".", "docs", "benchmarks", "batchlight/absgn/models")
    for path in (ROOT / folder).glob("*.md")
)


def anchors_in(path: Path) -> set[str]:
    """Those of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    texts = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.lower()) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-") for text in texts}


@pytest.mark.parametrize("document", WITH_LINKS, ids=str)
def test_links_lead_to_a_heading_that_exists(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / document).read_text()):
        path, _, anchor = link.partition("#")
        if ":" not in path and anchor:
            target = (ROOT / document).parent / path if path else ROOT / document
            assert anchor in anchors_in(target), link
