"""The lowest versions that the package declares, as constraints for pip; with the extra for HEIC.

``make lowest`` runs part of the suite with them: ``python -m tests.support.lowest > FILE``.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def lowest() -> Iterator[str]:
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["heif"]]
    for requirement in map(Requirement, wanted):
        [bound] = requirement.specifier
        assert bound.operator == ">=", requirement
        yield f"{requirement.name}=={bound.version}"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in lowest())
