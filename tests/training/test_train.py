"""``batchlight train`` as it is used: killed and begun again, refused, alone and together."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from batchlight.absgn.start import ClassicalStart
from batchlight.absgn.weights import Weights, parse_weights
from batchlight.errors import BatchlightError, UsageError
from batchlight.training.config import TrainConfig
from batchlight.training.train import train
from tests.support.helpers import COMMAND, batchlight, dark_image, outcomes, write_images
from tests.support.weights import weights_without_start

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = Path(str(resources.files("batchlight.absgn") / "models")) / "absgn-small.safetensors"
ENDS_WITHIN_S = 60.0
"""After it was asked to stop."""


def write_pairs(folder: Path, count: int = 6) -> Path:
    for number in range(count):
        low = dark_image(number, 24, 32)
        high = np.minimum(low.astype(np.int32) * 3, 255).astype(np.uint8)
        for side, image in (("low", low), ("high", high)):
            (folder / side).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(folder / side / f"{number}.png"), image)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"))


def options(data: Path, out: Path, **changes: Any) -> dict[str, Any]:
    tiny = {"model": "absgn-small", "epochs": 2, "size": 16, "batch_size": 2, "device": "cpu"}
    return {"data": str(data), "out": str(out), **tiny, "validation": 0.34, **changes}


def words(data: Path, out: Path, **changes: Any) -> list[str]:
    """The same as ``options``, for the command."""
    given = options(data, out, **changes)
    return [
        "train",
        *(
            word
            for name, value in given.items()
            if value is not None
            for word in ("--" + name.replace("_", "-"), str(value))
        ),
    ]


def in_process(data: Path, out: Path, **changes: Any) -> list[str]:
    """Train right here; what was said."""
    said: list[str] = []
    train(TrainConfig(**options(data, out, **changes)), said.append)
    return said


class Stopped(Exception):
    """Stands for whatever ends a training between two of its steps."""


def stop_after(epoch: int, data: Path, out: Path, **changes: Any) -> None:
    """Train right here until an epoch is told."""

    def say(line: str) -> None:
        if line.startswith(f"epoch {epoch} "):
            raise Stopped

    with pytest.raises(Stopped):
        train(TrainConfig(**options(data, out, **changes)), say)


def checkpoint_of(out: Path) -> Path:
    return out.with_name(f"{out.stem}.checkpoint.safetensors")


def log_of(out: Path) -> list[dict[str, Any]]:
    lines = out.with_name(f"{out.stem}.log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def losses_of(out: Path) -> dict[int, float]:
    """By epoch, of which none was told twice."""
    log = log_of(out)
    losses = {line["epoch"]: line["loss"] for line in log}
    assert len(losses) == len(log)
    return losses


def loaded(out: Path) -> Weights:
    return parse_weights(out.read_bytes())


def assert_refused(result: subprocess.CompletedProcess[str], *named: str) -> None:
    """One sentence that names what matters, and exit 2."""
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    for name in named:
        assert name in line


@pytest.fixture(scope="module")
def trained(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Weights as the real command makes them, and what it printed."""
    out = tmp_path_factory.mktemp("trained") / "mine.safetensors"
    result = batchlight(*words(pairs, out))
    assert (result.returncode, result.stderr) == (0, "")
    return out, result.stdout


def test_a_training_from_end_to_end(trained: tuple[Path, str]) -> None:
    out, printed = trained
    assert sorted(p.name for p in out.parent.iterdir()) == ["mine.log.jsonl", "mine.safetensors"]
    weights = loaded(out)
    assert weights.channels == 8
    about = dict(weights.about)
    assert (about["model"], about["round"]) == ("absgn-small", "2")
    assert about["started from"] == "random weights"
    assert json.loads(about["recipe"])["phases"][-1]["side"] == 16
    assert weights.start == ClassicalStart()

    log = log_of(out)
    assert [line["epoch"] for line in log] == [1, 2]
    for line in log:
        assert 0 < line["loss"] < 2
        assert 0 < line["held out"]["psnr"] < 60
        assert -1 <= line["held out"]["ssim"] <= 1
        assert line["elapsed_s"] > 0
    assert float(about["held out PSNR"]) == log[-1]["held out"]["psnr"]

    lines = printed.splitlines()
    assert lines[0] == "4 pairs to train on, 2 to validate with; absgn-small on cpu"
    assert lines[1].startswith("epoch 1 of 2: loss ")
    assert lines[2].startswith("epoch 2 of 2: loss ")
    assert lines[2].endswith(", 0:00:00 left")
    assert lines[3].endswith(f"batchlight run --input FOLDER --method absgn --weights {out}")
    assert len(lines) == 4


def test_trained_weights_enhance_a_data_set(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    # From random weights, so short a training makes images darker, which is refused.
    in_process(pairs, out, weights=str(SMALL), learning_rate=1e-6)
    write_images(tmp_path / "in", 1)
    result = batchlight(
        *("run", "--input", tmp_path / "in", "--output", tmp_path / "out", "--workers", 0),
        *("--method", "absgn", "--weights", out),
    )
    assert result.returncode == 0, result.stderr
    assert [row.status for row in outcomes(tmp_path / "out").values()] == ["ok"]


def test_the_same_in_this_process(trained: tuple[Path, str], pairs: Path, tmp_path: Path) -> None:
    said = in_process(pairs, tmp_path / "here.safetensors")
    assert said[0] == trained[1].splitlines()[0]
    assert (tmp_path / "here.safetensors").read_bytes() == trained[0].read_bytes()


def test_without_validation(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    said = in_process(pairs, out, validation=0, epochs=1)
    assert said[0].startswith("6 pairs to train on, 0 to validate with")
    assert log_of(out)[0].keys() == {"epoch", "steps", "loss", "elapsed_s"}


# More to train on, and for a given time


def test_well_lit_pictures_native_ones_and_pairs_to_validate_on(
    pairs: Path, tmp_path: Path
) -> None:
    data = write_pairs(tmp_path / "pairs")
    (data / "native").mkdir()
    for number in range(3):  # the dark side before it was shrunk
        dark = dark_image(number, 48, 72)
        assert cv2.imwrite(str(data / "native" / f"{number}.png"), dark)
    write_images(tmp_path / "clean", 2)
    (tmp_path / "more").mkdir()
    assert cv2.imwrite(str(tmp_path / "more" / "x.jpg"), dark_image(9, 50, 60) * 3)
    out = tmp_path / "x.safetensors"
    result = batchlight(
        *words(data, out, clean=tmp_path / "clean", epochs=3),
        *("--clean", tmp_path / "more", "--validation-data", pairs),
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("4 pairs to train on, 8 to validate with; ")
    log = log_of(out)
    assert set(log[-1]) >= {"held out", "validation data"}
    assert "validation data PSNR" in loaded(out).about
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match=r"no images in .*--clean"):
        in_process(data, out, clean=[str(tmp_path / "none")])


def test_a_training_of_limited_time(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    result = batchlight(*words(pairs, out, time_limit="2s", epochs=None))
    assert (result.returncode, result.stderr) == (0, "")
    [line] = log_of(out)
    assert line["round"] == 1
    assert line["steps"] > 1
    assert 2 <= line["elapsed_s"] < 20
    assert result.stdout.splitlines()[1].startswith("round 1: loss ")
    assert loaded(out).start == ClassicalStart()


@pytest.mark.parametrize("wrong", ["soon", "0", "-3m", "5d", "infh"])
def test_a_time_that_is_none(pairs: Path, tmp_path: Path, wrong: str) -> None:
    result = batchlight(*words(pairs, tmp_path / "x.safetensors", time_limit=wrong, epochs=None))
    assert_refused(result, "--time-limit", "9m")


def test_time_and_epochs_exclude_each_other(pairs: Path, tmp_path: Path) -> None:
    result = batchlight(*words(pairs, tmp_path / "x.safetensors", time_limit="9m"))
    assert_refused(result, "--time-limit", "--epochs")


# Going on


def test_a_killed_training_goes_on_as_if_it_never_was(pairs: Path, tmp_path: Path) -> None:
    killed, through = tmp_path / "killed.safetensors", tmp_path / "through.safetensors"
    in_process(pairs, through, epochs=12)

    process = subprocess.Popen(
        [*COMMAND, *words(pairs, killed, epochs=12)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            if line.startswith("epoch 1 "):
                process.kill()
                break
    assert process.wait(60) == -signal.SIGKILL
    assert not killed.exists()
    assert checkpoint_of(killed).exists()

    result = batchlight(*words(pairs, killed, epochs=12))
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("resuming after step ")
    assert killed.read_bytes() == through.read_bytes()
    assert not checkpoint_of(killed).exists()
    assert losses_of(killed).items() <= losses_of(through).items()
    assert len(losses_of(killed)) >= 11  # the kill may come just before a line


def test_a_training_stopped_at_its_very_end(pairs: Path, tmp_path: Path) -> None:
    """All is done but the tidying up: nothing is lost, and the weights are the same again."""
    out, through = tmp_path / "out.safetensors", tmp_path / "through.safetensors"
    in_process(pairs, through)
    stop_after(2, pairs, out)
    in_process(pairs, out)
    assert out.read_bytes() == through.read_bytes()
    assert not checkpoint_of(out).exists()


@pytest.fixture
def stopped(pairs: Path, tmp_path: Path) -> Path:
    """A training of two epochs of which one is done."""
    out = tmp_path / "out.safetensors"
    stop_after(1, pairs, out)
    return out


def test_other_options_than_those_of_the_checkpoint(pairs: Path, stopped: Path) -> None:
    before = checkpoint_of(stopped).read_bytes()
    assert_refused(
        batchlight(*words(pairs, stopped, learning_rate=1e-3)),
        str(checkpoint_of(stopped)),
        "recipe",
    )
    assert checkpoint_of(stopped).read_bytes() == before
    assert not stopped.exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "recipe and pairs"),
        ({"epochs": 3}, "recipe"),
        ({"size": 24}, "recipe"),
        ({"whole": 0.1}, "recipe"),
        ({"validation": 0}, "pairs"),
        ({"weights": str(SMALL)}, "started from"),
    ],
)
def test_each_option_counts(pairs: Path, stopped: Path, change: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=f"from a training run with another .*{named}"):
        in_process(pairs, stopped, **change)


def test_other_pairs_than_those_of_the_checkpoint(stopped: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="another pairs"):
        in_process(write_pairs(tmp_path / "more", 7), stopped)


@pytest.mark.parametrize("share", [0.0, 1e-3, 0.5, 0.999])
def test_a_checkpoint_that_is_cut_short(pairs: Path, stopped: Path, share: float) -> None:
    file = checkpoint_of(stopped)
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UsageError, match="checkpoint"):
        in_process(pairs, stopped)
    assert file.exists()


def test_a_second_training_writes_its_own_log(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    for _ in range(2):
        in_process(pairs, out)
        assert [line["epoch"] for line in log_of(out)] == [1, 2]
        out.unlink()


def test_weights_that_are_there_are_not_replaced(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    out.write_bytes(b"hours of work")
    with pytest.raises(UsageError, match="already exists; name another file, or remove it"):
        in_process(pairs, out)
    assert out.read_bytes() == b"hours of work"
    assert not (tmp_path / "x.log.jsonl").exists()


# Where it starts from


def test_weights_to_start_from(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "on.safetensors"
    in_process(pairs, out, weights=str(SMALL), epochs=1, learning_rate=1e-9)
    after, before = loaded(out), parse_weights(SMALL.read_bytes())
    assert after.about["started from"] == hashlib.sha256(SMALL.read_bytes()).hexdigest()
    for name, tensor in before.tensors.items():
        assert torch.allclose(after.tensors[name].float(), tensor.float(), atol=1e-4), name


def test_weights_go_on_from_the_start_that_they_were_trained_at(
    pairs: Path, trained: tuple[Path, str], tmp_path: Path
) -> None:
    plain = tmp_path / "plain.safetensors"
    plain.write_bytes(weights_without_start())
    for weights, start in ((plain, None), (trained[0], ClassicalStart())):
        assert loaded(weights).start == start
        out = tmp_path / f"on {type(start).__name__}.safetensors"
        in_process(pairs, out, weights=str(weights), epochs=1)
        assert loaded(out).start == start


def test_weights_of_another_width(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    result = batchlight(*words(pairs, out, model="absgn", weights=SMALL))
    assert_refused(result, str(SMALL), "8 channels", "32", "--model")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_none(pairs: Path, tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    for content in (None, b"", b"x" * 100):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(UsageError, match=r"w\.safetensors"):
            in_process(pairs, tmp_path / "x.safetensors", weights=str(file))


# What is refused


def test_data_that_is_not_there(tmp_path: Path) -> None:
    result = batchlight(*words(tmp_path / "nowhere", tmp_path / "x.safetensors"))
    assert_refused(result, "nowhere")


def test_data_without_pairs(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(UsageError, match="holds no pairs"):
        in_process(tmp_path / "in", tmp_path / "x.safetensors")


def test_no_training_that_could_not_be_stored(pairs: Path, tmp_path: Path) -> None:
    """Hours of training must not come before the news that there is no such folder."""
    result = batchlight(*words(pairs, tmp_path / "nowhere" / "x.safetensors"))
    assert_refused(result, "nowhere", "--out")
    assert result.stdout == ""


def test_weights_that_would_replace_a_folder(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(UsageError, match="--out"):
        in_process(pairs, tmp_path / "x.safetensors", epochs=1)


@pytest.mark.parametrize("name", ["x.safetensors", "x.checkpoint.safetensors", "x.log.jsonl"])
def test_a_pipe_in_the_place_of_what_is_written(pairs: Path, tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UsageError, match=f"{name} exists and is not a regular file"):
        in_process(pairs, tmp_path / "x.safetensors", epochs=1)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_log_that_cannot_be_written(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "x.log.jsonl").mkdir()
    with pytest.raises(UsageError, match=r"x\.log\.jsonl"):
        in_process(pairs, tmp_path / "x.safetensors", epochs=1)


def corrupt(folder: Path) -> Path:
    file = write_pairs(folder) / "low" / "3.png"
    file.write_bytes(file.read_bytes()[:300])
    return folder


def test_a_pair_that_cannot_be_read(tmp_path: Path) -> None:
    data = corrupt(tmp_path / "pairs")
    result = batchlight(*words(data, tmp_path / "x.safetensors", validation=0))
    assert_refused(result, "low/3.png", str(data), "remove the pair")


def test_a_pair_of_two_sizes(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs")
    assert cv2.imwrite(str(data / "high" / "2.png"), dark_image(2, 24, 33))
    with pytest.raises(UsageError, match=r"low/2\.png and high/2\.png .* differ in size"):
        in_process(data, tmp_path / "x.safetensors", validation=0)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 6 bytes."),
    ],
)
def test_a_training_that_does_not_fit(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr("batchlight.absgn.training.Trainer.step", full)
    with pytest.raises(BatchlightError, match=r"memory of cpu; give a smaller --size"):
        in_process(pairs, tmp_path / "x.safetensors")


def test_options_out_of_range(pairs: Path, tmp_path: Path) -> None:
    assert_refused(batchlight(*words(pairs, tmp_path / "x.safetensors", size=20)), "--size", "20")


# Together, on a real Ray


TOGETHER = {"gpu_workers": 2, "batch_size": 1}
WITH_PANDAS = {"PYTHONPATH": ""}
"""Ray Train needs it, and our other tests do without (support/startup)."""


@pytest.mark.nightly
def test_two_processes_train_together(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    result = batchlight(*words(pairs, out, **TOGETHER), **WITH_PANDAS)
    assert (result.returncode, result.stderr) == (0, "")
    assert "absgn-small on cpu x 2" in result.stdout
    assert loaded(out).channels == 8
    assert [line["epoch"] for line in log_of(out)] == [1, 2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.log.jsonl", "x.safetensors"]

    # Batches of 1 and 1 are one of 2, samples and all, but for what rounding makes of it.
    alone = tmp_path / "alone.safetensors"
    in_process(pairs, alone)
    for ours, theirs in zip(log_of(out), log_of(alone), strict=True):
        assert ours["held out"]["psnr"] == pytest.approx(theirs["held out"]["psnr"], abs=0.5)


@pytest.mark.nightly
def test_two_processes_end_at_the_same_time(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    result = batchlight(*words(pairs, out, **TOGETHER, time_limit="3s", epochs=None), **WITH_PANDAS)
    assert (result.returncode, result.stderr) == (0, "")
    assert log_of(out)[-1]["steps"] > 0
    assert loaded(out).channels == 8


def interrupt(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Send SIGINT after the first epoch of a training that would take days."""
    process = subprocess.Popen(
        [*COMMAND, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What runs in the background of a shell ignores it, and so do its children.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("epoch 1 "):
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=ENDS_WITHIN_S)
    finally:
        process.kill()
        process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, "", errors)


def test_a_training_stops_when_asked(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    result = interrupt(words(pairs, out, epochs=100_000))
    assert (result.returncode, result.stderr) == (130, "error: interrupted\n")
    assert checkpoint_of(out).exists()
