"""The models that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from batchlight.absgn.loading import CHANNELS
from batchlight.absgn.weights import parse_weights
from batchlight.config import ModelName

ROOT = Path(__file__).parents[2]


def test_each_model_has_its_card_and_loads() -> None:
    models = ROOT / "batchlight/absgn/models"
    files = sorted(models.glob("*.safetensors"))
    assert {file.stem for file in files} == {m.stem for m in models.glob("absgn*.md")}
    assert {file.stem for file in files} == set(CHANNELS)
    for file in files:
        weights = parse_weights(file.read_bytes())
        assert weights.channels == CHANNELS[cast(ModelName, file.stem)]
        assert weights.sha256 in file.with_suffix(".md").read_text()
    assert (models / "LICENSE.md").exists()
