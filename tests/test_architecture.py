"""The layout is as the architecture page says: imports go one way, Ray is known in one place."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "batchlight"
ANYWHERE = {"__init__", "__main__"}
FOLDERS = {"absgn", "engine", "report", "storage"}


def floor_plan() -> list[str]:
    """The modules in the order of the page's table."""
    text = (ROOT / "docs/architecture.md").read_text()
    cells = re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`(\w+)(?:\.py|/)`", cell)]


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "batchlight":
                yield from (f"batchlight.{alias.name}" for alias in node.names)


def test_every_file_has_its_place() -> None:
    files = {path.stem for path in PACKAGE.glob("*.py")} - ANYWHERE
    assert sorted(floor_plan()) == sorted(files | FOLDERS)


def test_imports_go_one_way() -> None:
    order = floor_plan()
    for path in PACKAGE.rglob("*.py"):
        module = path.parent.name if path.parent.name in FOLDERS else path.stem
        if module in ANYWHERE and path.parent == PACKAGE:
            continue
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "batchlight" and len(parts) > 1 and parts[1] in order:
                assert order.index(parts[1]) <= order.index(module), f"{path} imports {name}"


def test_only_the_engine_knows_ray() -> None:
    users = {
        path.parent.name
        for path in PACKAGE.rglob("*.py")
        if any(name.split(".")[0] == "ray" for name in imports(path))
    }
    assert users == {"engine"}
