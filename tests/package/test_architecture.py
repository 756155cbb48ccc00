"""The layout is as the architecture page says: imports go one way, Ray is known in one place."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "batchlight"
MODULES_AT_THE_TOP = 8
LINES_OF_A_FILE = 350
LINES_OF_A_FUNCTION = 40
LONG_FUNCTIONS = {
    "absgn/training.py: __init__",
    "classical/darkchannel.py: _scan",
    "cli/job_commands.py: preview",
    "cli/output_commands.py: verify",
    "driver/drafting.py: draft_plans",
    "driver/dry_run.py: dry_run",
    "in_memory.py: enhance",
    "training/evaluate.py: evaluate",
    "training/train.py: train",
}
"""Those that are longer, by name: a new one is cut into several instead."""


def order() -> list[str]:
    """The packages and modules at the top, as the page lists them, the lowest first."""
    text = (ROOT / "docs/architecture.md").read_text()
    cells = re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`(\w+)(?:\.py|/)`", cell)]


def place(path: Path) -> str:
    """The package of a file, or its own name if it stands at the top."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "batchlight":
                yield from (f"batchlight.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> Iterator[str]:
    for name in imports(path):
        if name.startswith("batchlight."):
            yield name.removeprefix("batchlight.")


def test_every_package_has_its_place() -> None:
    anywhere = {"__init__", "__main__"}
    assert sorted(order()) == sorted({place(path) for path in sources()} - anywhere)
    assert len(list(PACKAGE.glob("*.py"))) <= MODULES_AT_THE_TOP
    assert all(len(path.relative_to(PACKAGE).parts) <= 2 for path in sources())


def test_packages_are_imported_one_way() -> None:
    floors = order()
    for path in sources():
        if place(path) in floors:
            for name in own_imports(path):
                used = name.split(".")[0]
                assert floors.index(used) <= floors.index(place(path)), f"{path} imports {name}"


def test_no_modules_import_each_other() -> None:
    """Not even within a package."""
    graph = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): set(own_imports(path))
        for path in sources()
        if path.name != "__init__.py"
    }
    finished: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, f"a circle: {' -> '.join((*above, module))}"
        if module in graph and module not in finished:
            for used in graph[module]:
                visit(used, (*above, module))
            finished.add(module)

    for module in graph:
        visit(module, ())


def test_every_package_says_what_is_in_it() -> None:
    for folder in {path.parent for path in sources()} - {PACKAGE}:
        described = (folder / "__init__.py").read_text()
        for path in folder.glob("[a-z]*.py"):
            assert path.name in described, f"{folder.name}/__init__.py does not name {path.name}"


def test_only_the_engine_knows_ray() -> None:
    users = {
        place(path)
        for path in sources()
        if any(name.split(".")[0] == "ray" for name in imports(path))
    }
    assert users == {"engine"}


@pytest.mark.parametrize("command", ["status", "failures", "plan"])
def test_commands_that_only_look_load_no_codec_and_no_compiler(
    command: str, tmp_path: Path
) -> None:
    program = (
        "import sys, contextlib\n"
        "from batchlight.cli.main import main\n"
        "with contextlib.suppress(SystemExit): main()\n"
        "print(sorted({'cv2', 'numba', 'ray', 'torch'} & set(sys.modules)))"
    )
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_bytes(b"none")
    out = tmp_path / "out"
    run = [sys.executable, "-m", "batchlight", "run", "--workers", "0", "--progress", "off"]
    subprocess.run([*run, "--input", tmp_path / "in", "--output", out], check=False)
    options = ["--input", tmp_path / "in", "--output", out] if command == "plan" else [out]
    done = subprocess.run(
        [sys.executable, "-c", program, command, *map(str, options)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stdout


def test_a_driver_loads_no_codec_and_no_compiler() -> None:
    """Its memory is for plans, and the first message should come soon."""
    program = (
        "import sys, batchlight.driver.run\n"
        "print(sorted({'cv2', 'numba', 'PIL', 'ray', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_files_and_functions_fit_a_reader() -> None:
    long = set()
    for path in sources():
        text = path.read_text()
        assert len(text.splitlines()) <= LINES_OF_A_FILE, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > LINES_OF_A_FUNCTION:
                    long.add(f"{path.relative_to(PACKAGE)}: {node.name}")
    assert long == LONG_FUNCTIONS
