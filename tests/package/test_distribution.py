"""What users install: the wheel and the sdist, and the package in an environment of its own.

That environment holds what the wheel declares that it depends on, and nothing else: links to what
is installed here, as a download of it all takes minutes; each night, pip really installs it.
"""

from __future__ import annotations

import ast
import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from tests.support.helpers import outcomes

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "batchlight"
LOCKS = {name: ROOT / "jobs" / name for name in ("requirements.txt", "requirements-gpu.txt")}
"""All that pip installs for the wheel, without and with the network, each file with its hash."""
PIP_TIMEOUT_S = 1800


def python(*arguments: object) -> str:
    """Run a module; returns what it printed."""
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files_below(folder: Path) -> set[str]:
    """Relative to the root, without what Python leaves behind."""
    return {
        str(path.relative_to(ROOT))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


# The files that are published


@dataclass(frozen=True)
class Distribution:
    """A wheel that was built from the sdist that lies beside it."""

    wheel: Path
    sdist: Path

    def metadata(self) -> email.message.Message:
        with zipfile.ZipFile(self.wheel) as archive:
            [name] = [name for name in archive.namelist() if name.endswith("/METADATA")]
            return email.message_from_string(archive.read(name).decode())

    def requirements(self, *extras: str) -> Iterator[Requirement]:
        """What it depends on, or what one of its extras adds to that."""
        for text in self.metadata().get_all("Requires-Dist", []):
            requirement = Requirement(text)
            if applies(requirement, extras) and not (extras and applies(requirement, ())):
                yield requirement


def applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    folder = tmp_path_factory.mktemp("dist")
    python("build", "--no-isolation", "--outdir", folder, ROOT)
    [wheel], [sdist] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Distribution(wheel, sdist)


@pytest.mark.nightly
def test_a_wheel_is_the_same_from_the_sdist_and_from_here(
    built: Distribution, tmp_path: Path
) -> None:
    python("build", "--no-isolation", "--wheel", "--outdir", tmp_path, ROOT)
    assert (tmp_path / built.wheel.name).read_bytes() == built.wheel.read_bytes()


def test_the_wheel_holds_the_package_and_nothing_else(built: Distribution) -> None:
    names = zipfile.ZipFile(built.wheel).namelist()
    shipped = {name for name in names if ".dist-info/" not in name}
    assert shipped == files_below(PACKAGE)
    models = "batchlight/absgn/models"
    assert {"batchlight/py.typed", f"{models}/absgn-small.safetensors"} <= shipped
    licences = {name.partition("/licenses/")[2] for name in names if "/licenses/" in name}
    of_others = ("cli/photographs/LICENSE.md", "report/fonts/LICENSE_DEJAVU")
    assert licences == {"LICENSE", f"{models}/LICENSE.md"} | {f"batchlight/{n}" for n in of_others}


def test_the_sdist_holds_all_it_takes_to_test_it(built: Distribution) -> None:
    with tarfile.open(built.sdist) as archive:
        shipped = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"LICENSE", "Makefile", "README.md", "constraints.txt", "pyproject.toml"}
    for folder in ("batchlight", "tests", "benchmarks", "docs", "jobs"):
        wanted |= files_below(ROOT / folder)
    assert not wanted - shipped
    assert not [name for name in shipped if "__pycache__" in name]


def test_an_index_would_take_them(built: Distribution) -> None:
    assert python("twine", "check", "--strict", built.wheel, built.sdist).count("PASSED") == 2


def test_the_description_has_no_links_that_an_index_cannot_follow(built: Distribution) -> None:
    description = built.metadata().get_payload()
    assert isinstance(description, str)
    assert "## What you get" in description
    assert not re.findall(r"\]\((?!https://|#)([^)]*)\)", description)


# What it depends on


def imported() -> set[NormalizedName]:
    """The distributions that any module of the package imports, wherever in it."""
    distributions = metadata.packages_distributions()
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                found.update(distributions.get(name.partition(".")[0], []))
    return {canonicalize_name(name) for name in found} - {"batchlight"}


def test_it_depends_on_what_it_imports_and_on_nothing_else(built: Distribution) -> None:
    declared = {canonicalize_name(requirement.name) for requirement in built.requirements()}
    network = {canonicalize_name(requirement.name) for requirement in built.requirements("absgn")}
    assert network == {"torch", "safetensors"}
    heif = {canonicalize_name(requirement.name) for requirement in built.requirements("heif")}
    assert heif == {"pillow-heif"}
    assert declared | network | heif == imported()


def locked(text: str) -> dict[NormalizedName, str]:
    """The versions of a file of requirements, all of which must have hashes."""
    found = {}
    for entry in re.split(r"\n(?=\S)", text.strip()):
        if not entry.startswith("#"):
            pinned, *hashes = entry.split(" \\\n")
            assert hashes
            assert all(re.fullmatch(r"\s+--hash=sha256:[0-9a-f]{64}", each) for each in hashes)
            requirement = Requirement(pinned)
            [version] = requirement.specifier
            assert version.operator == "=="
            found[canonicalize_name(requirement.name)] = version.version
    return found


@pytest.mark.parametrize(
    ("name", "extras"), [("requirements.txt", ()), ("requirements-gpu.txt", ("absgn",))]
)
def test_all_that_jobs_install_has_hashes_and_the_versions_of_the_tests(
    built: Distribution, name: str, extras: tuple[str, ...]
) -> None:
    versions = locked(LOCKS[name].read_text())
    needed = [*built.requirements(), *(built.requirements(*extras) if extras else ())]
    assert with_all_they_need(needed) <= versions.keys()
    lines = (ROOT / "constraints.txt").read_text().split("\n")[1:]
    tested = {
        canonicalize_name(n): v for n, _, v in (line.partition("==") for line in lines if line)
    }
    # PyTorch for GPUs needs more than the one for CPUs, which is what is tested.
    assert [name for name in versions if tested.get(name, versions[name]) != versions[name]] == []


# Installed


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the wheel in it."""

    folder: Path

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        """Run one of its commands, in its folder, as if nothing else were installed."""
        cleared = {"PYTHONPATH", "RAY_ADDRESS", "VIRTUAL_ENV"}
        kept = {name: value for name, value in os.environ.items() if name not in cleared}
        program, *arguments = map(str, command)
        return subprocess.run(
            [self.folder / "bin" / program, *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**kept, "PATH": f"{self.folder}/bin:/usr/bin:/bin"},
            check=False,
        )

    def pip(self, *arguments: object) -> str:
        return python("pip", "--python", self.folder / "bin/python", *arguments)


def with_all_they_need(requirements: Iterable[Requirement]) -> set[NormalizedName]:
    """The distributions that pip would install for these."""
    found: set[tuple[NormalizedName, frozenset[str]]] = set()
    left = list(requirements)
    while left:
        requirement = left.pop()
        one = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if one not in found:
            found.add(one)
            needed = map(Requirement, metadata.requires(requirement.name) or [])
            left += [each for each in needed if applies(each, requirement.extras)]
    return {name for name, _ in found}


by_pip = pytest.param("pip", marks=[pytest.mark.nightly, pytest.mark.timeout(PIP_TIMEOUT_S)])


@pytest.fixture(scope="module", params=["links", by_pip])
def installed(
    request: pytest.FixtureRequest, built: Distribution, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("env"))
    venv.create(environment.folder)
    if request.param == "pip":
        environment.pip("install", "--require-hashes", "--requirement", LOCKS["requirements.txt"])
        environment.pip("install", "--no-deps", "--no-index", built.wheel)
        return environment
    there = next(environment.folder.glob("lib/python*/site-packages"))
    link(with_all_they_need(built.requirements()), there)
    environment.pip("install", "--no-deps", "--no-index", built.wheel)
    share_compiled_kernels(there)
    return environment


def link(distributions: Iterable[str], there: Path) -> None:
    """Put links to distributions that are installed here into another environment."""
    here = Path(sysconfig.get_path("purelib"))
    for name in distributions:
        files = metadata.files(name)
        assert files is not None
        for entry in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            if not (there / entry).exists():
                (there / entry).symlink_to(here / entry)


def share_compiled_kernels(there: Path) -> None:
    """Give a copy of the package what numba has compiled here, which takes it many seconds.

    Numba looks at the time and the size of a source to tell whether it is the same.
    """
    for compiled in PACKAGE.rglob("__pycache__/*.nb?"):
        copy = there / compiled.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(compiled, copy)
    for source in PACKAGE.rglob("*.py"):
        shutil.copystat(source, there / source.relative_to(ROOT))


def test_nothing_is_missing_and_the_network_is_extra(installed: Environment) -> None:
    assert installed.pip("check") == "No broken requirements found.\n"
    code = (
        "import batchlight, importlib.util as u; print(batchlight.__file__, u.find_spec('torch'))"
    )
    file, torch = installed.run("python", "-c", code).stdout.split()
    assert Path(file).is_relative_to(installed.folder)
    assert torch == "None"


def test_it_makes_samples_and_enhances_them(installed: Environment) -> None:
    """With a Ray of its own, as the README says."""
    samples = installed.run("batchlight", "samples", "dark")
    assert samples.returncode == 0, samples.stderr
    done = installed.run("batchlight", "run", "--input", "dark", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    found = outcomes(installed.folder / "dark-enhanced")
    assert len(found) == 8
    assert {row.status for row in found.values()} == {"ok"}


def test_the_network_says_what_to_install(installed: Environment, tmp_path: Path) -> None:
    done = installed.run("batchlight", "run", "--input", tmp_path, "--method", "absgn")
    assert done.returncode == 2
    words = r"error: --method absgn needs \w+; install batchlight again, with its extra 'absgn'\n"
    assert re.fullmatch(words, done.stderr)
