"""The commands for a rented GPU, rehearsed on a CPU with a few small pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner

from batchlight.absgn.inference import Enhancer
from batchlight.absgn.start import ClassicalStart
from batchlight.absgn.weights import parse_weights
from benchmarks.gpu import pack, train
from tests.support.helpers import dark_image

pytestmark = pytest.mark.usefixtures("one_thread")


def write(folder: Path, count: int, height: int, width: int, bright: bool, kind: str) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        image = dark_image(number, height, width)
        cv2.imwrite(str(folder / f"{number}.{kind}"), image * 4 if bright else image)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    write(data / "pairs/low", 8, 256, 256, bright=False, kind="png")
    write(data / "pairs/high", 8, 256, 256, bright=True, kind="png")
    write(data / "native/low", 3, 264, 320, bright=False, kind="png")
    write(data / "clean", 3, 264, 320, bright=True, kind="webp")
    write(data / "check/low", 2, 99, 131, bright=False, kind="png")
    write(data / "check/high", 2, 99, 131, bright=True, kind="png")
    folder = data / "pack"
    options = ["--native", data / "native", "--clean", data / "clean", "--check", data / "check"]
    arguments = [folder, "--pairs", data / "pairs", *options, "--hold-out", "0,7"]
    app = pack.app
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return folder


def test_a_pack_holds_what_is_trained_on_and_what_is_held_out(packed: Path) -> None:
    scenes, alone = (
        set((packed / f"{name}.txt").read_text().split()) for name in ("held_out", "known_scenes")
    )
    assert {"0", "7"} <= scenes | alone
    assert not scenes & alone
    assert len(list((packed / "pairs/low").iterdir())) == 5  # the others are shrunk there
    assert len(list((packed / "pairs/high").iterdir())) == 8
    before = cv2.imread(str(packed.parent / "native/low/1.png"))
    after = cv2.imread(str(packed / "native/low/1.webp"))
    assert before is not None
    assert after is not None
    assert (before == after).all()


def test_a_pack_that_lost_files_on_the_way_is_refused(packed: Path, tmp_path: Path) -> None:
    shutil.copytree(packed, tmp_path / "pack")
    shutil.rmtree(tmp_path / "pack/clean")
    done = CliRunner().invoke(train.app, [str(tmp_path / "pack"), str(tmp_path / "out")])
    assert done.exit_code == 1
    assert str(done.exception or done.output).startswith(f"{tmp_path}/pack/clean/0 holds 0 of 3")


@pytest.mark.nightly
def test_training_leaves_weights_scores_and_pictures(packed: Path, tmp_path: Path) -> None:
    small = ["--channels", "8", "--side", "32", "--batch", "2"]
    arguments = [packed, tmp_path, "--seconds", "1", "--score-every", "0.4", *small]
    done = CliRunner().invoke(train.app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] > 0
    assert set(lines[-1]) >= {"loss", "known scenes", "native", "check"}
    assert set(lines[-1]["check"]) == {"psnr", "ssim", "aligned"}
    montage = cv2.imread(str(tmp_path / "looked_at.webp"))
    assert montage is not None
    weights = (tmp_path / "absgn.safetensors").read_bytes()
    image = dark_image(3, 24, 40)
    [restored] = Enhancer(weights, "cpu", "fp32").enhance([image])
    assert restored.get().shape == image.shape

    assert json.loads(parse_weights(weights).about["scores"]) == {
        name: lines[-1][name] for name in ("known scenes", "native", "check")
    }
    assert parse_weights(weights).start == ClassicalStart()

    again = [*arguments, "--start", tmp_path / "absgn.safetensors"]
    done = CliRunner().invoke(train.app, [str(argument) for argument in again])
    assert done.exit_code == 0, done.output
