"""``--strength``: how much of the method there is in an output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import batchlight
from batchlight.config import JobConfig
from tests.support.helpers import dark_image, read_image, rows, tree

KINDS: dict[str, dict[str, Any]] = {
    "colour": {},
    "gray": {"channels": 1},
    "alpha": {"channels": 4},
    "deep": {"dtype": np.uint16},
    "deep gray": {"channels": 1, "dtype": np.uint16},
}


@pytest.fixture(autouse=True)
def quick_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchlight.absgn.inference.MEASURED_SIDE", 16)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for number, (name, kind) in enumerate(KINDS.items()):
        assert cv2.imwrite(str(tmp_path / f"in/{name}.png"), dark_image(number, 24, 32, **kind))
    return tmp_path / "in"


def run(folder: Path, out: str, **options: Any) -> Path:
    where = {"input": str(folder), "output": str(folder.parent / out), "device": "cpu"}
    config = JobConfig(**{**where, "workers": 0, "progress": "off", **options})
    assert batchlight.run(config).exit_code == 0
    return folder.parent / out


@pytest.mark.parametrize("method", ["classical", "absgn"])
def test_outputs_are_mixed_with_their_images(photos: Path, method: str) -> None:
    full, none, half = (
        run(photos, f"out{strength}", method=method, strength=strength) for strength in (1, 0, 0.5)
    )
    assert tree(run(photos, "plain", method=method) / method) == tree(full / method)
    for name in tree(photos):
        before = read_image(photos / name)
        after, same, mixed = (read_image(out / method / name) for out in (full, none, half))
        assert not np.array_equal(before, after)
        assert np.array_equal(before, same)
        assert np.array_equal(mixed, np.rint(before + 0.5 * (after.astype(float) - before)))
    for row, other in zip(rows(half), rows(full), strict=True):
        assert row["luminance_before"] < row["luminance_after"] < other["luminance_after"]
    for row in rows(none):
        assert row["luminance_after"] == pytest.approx(row["luminance_before"])


def test_another_strength_is_another_result(photos: Path) -> None:
    run(photos, "out", strength=0.5)
    with pytest.raises(batchlight.errors.UsageError, match=r"strength 0\.5 -> 1"):
        run(photos, "out")
    run(photos, "out", strength=0.5)
