"""The wheel: built, installed elsewhere, and run from there."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import cast

from batchlight.absgn.weights import parse_weights
from batchlight.config import ModelName
from batchlight.model import CHANNELS

ROOT = Path(__file__).parent.parent


def test_each_model_has_its_card_and_loads() -> None:
    models = ROOT / "batchlight/absgn/models"
    files = sorted(models.glob("*.safetensors"))
    assert [file.stem for file in files] == sorted(m.stem for m in models.glob("absgn*.md"))
    for file in files:
        weights = parse_weights(file.read_bytes())
        assert weights.channels == CHANNELS[cast(ModelName, file.stem)]
        assert weights.sha256 in file.with_suffix(".md").read_text()
    assert (models / "LICENSE.md").exists()


def test_the_wheel_is_complete_and_works(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT]
    subprocess.run(list(map(str, build)), check=True, capture_output=True)
    wheel = next(tmp_path.glob("batchlight-*.whl"))

    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("batchlight/")}
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "batchlight").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert shipped == sources

    target = tmp_path / "elsewhere"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", target, wheel]
    subprocess.run(list(map(str, install)), check=True, capture_output=True)
    code = "import batchlight; print(batchlight.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(target)}
    for command, expected in (
        ([sys.executable, "-c", code], str(target / "batchlight/__init__.py")),
        ([str(target / "bin/batchlight"), "--version"], "batchlight 0.1.0"),
    ):
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected
