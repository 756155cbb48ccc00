"""``batchlight train``: pairs of images in, weights out, resuming where a killed run stopped.

    FILE.safetensors               the weights, when training is done
    FILE.checkpoint.safetensors    the state for resuming a killed run; deleted when done
    FILE.log.jsonl                 loss, PSNR and SSIM of each round: an epoch, or some minutes

The training processes get all they need as arguments and return what has to be stored, so that only
this process, the driver, writes files; the others read pictures.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from batchlight._version import __version__
from batchlight.absgn.loading import (
    CHANNELS,
    needing_pytorch,
    read_weights,
    refuse_cuda_without_gpu,
)
from batchlight.engine import ray_address, train_together
from batchlight.errors import BatchlightError, StorageError, UsageError, brief
from batchlight.host.resources import local_gpus
from batchlight.storage.publishing import require_replaceable, write_file
from batchlight.training.config import TrainConfig
from batchlight.training.pairs import (
    TrainingPair,
    find_images,
    find_pairs,
    load_pair,
    split_by_scene,
)
from batchlight.training.quality import Quality, quality

if TYPE_CHECKING:
    from batchlight.absgn.network import ABSGN
    from batchlight.absgn.recipe import Extent, Recipe
    from batchlight.absgn.start import Start
    from batchlight.absgn.training import Stop, Trainer

SHORTEST_ROUND_S, LONGEST_ROUND_S = 20.0, 600.0
ROUNDS = 10
"""Rounds of a training run of limited time, unless they would be too short or too long."""


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of a training run when it pauses."""

    stop: Stop
    elapsed_s: float
    """Training time, including earlier parts."""
    steps: int
    scores: Mapping[str, Quality]
    """Quality with the averaged weights at the end of a round, by what was scored."""
    checkpoint: bytes = field(repr=False)
    weights: bytes = field(repr=False)


@dataclass(frozen=True)
class Training:
    """Everything that a process needs to train; the same for all that train together."""

    recipe: Recipe
    extent: Extent
    size: int
    pairs: tuple[TrainingPair, ...]
    clean: tuple[tuple[str, str], ...]
    """Folder and path."""
    checks: Mapping[str, tuple[TrainingPair, ...]]
    """Pairs that are scored, never trained on."""
    device: str
    about: Mapping[str, str]
    start: bytes | None = field(repr=False, default=None)
    checkpoint: bytes | None = field(repr=False, default=None)

    def snapshots(self, rank: int = 0, processes: int = 1) -> Iterator[Snapshot | None]:
        """Train; the first process yields a ``Snapshot`` at each stop, the others None."""
        import torch

        from batchlight.absgn.training import Trainer
        from batchlight.absgn.weights import load_tensors
        from batchlight.training.pictures import fitting_into, load_pictures

        device = torch.device(self.device)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True
        elif processes > 1:
            torch.set_num_threads(max(1, torch.get_num_threads() // processes))
        with fitting_into(self.device):
            pictures = load_pictures(self.pairs, self.clean, self.size, device)
            start = load_tensors(self.start)[0] if self.start else None
            trainer = Trainer(self.recipe, pictures, start, rank, processes)
            if self.checkpoint:
                trainer.resume(load_tensors(self.checkpoint)[0])
            for stop in trainer.train(self.extent):
                yield self._snapshot(trainer, stop) if rank == 0 else None

    def _snapshot(self, trainer: Trainer, stop: Stop) -> Snapshot:
        from batchlight.absgn.weights import dump_tensors, dump_weights

        scores = {}
        if stop.ended and math.isfinite(stop.loss):
            for name, pairs in self.checks.items():
                scores[name] = validate(trainer.averaged, pairs, self.recipe.start)
        about = dict(self.about) | {"round": str(stop.round), "steps": str(trainer.steps)}
        about |= {f"{name} PSNR": f"{score.psnr:.3f}" for name, score in scores.items()}
        about |= {f"{name} SSIM": f"{score.ssim:.4f}" for name, score in scores.items()}
        checkpoint = dump_tensors(trainer.state(), about)
        weights = dump_weights(trainer.weights, about)
        return Snapshot(stop, trainer.elapsed, trainer.steps, scores, checkpoint, weights)


def train(config: TrainConfig, say: Callable[[str], None]) -> None:
    """Train and write the weights; the same as ``batchlight train``.

    ``say`` gets a line for each round. Raises ``BatchlightError``.
    """
    with needing_pytorch("batchlight train"):
        import batchlight.absgn.training  # noqa: F401
    if os.path.isdir(config.out):
        raise UsageError(f"--out {config.out} is a folder; name a file")
    stem = config.out.removesuffix(".safetensors")
    checkpoint_file, log_file = f"{stem}.checkpoint.safetensors", f"{stem}.log.jsonl"
    for path in (config.out, checkpoint_file, log_file):  # before hours of work
        require_replaceable(path)
    training = _going_on(_prepare(config), checkpoint_file, say)
    if training.checkpoint is None:
        if os.path.lexists(config.out):  # hours of an earlier training run
            raise UsageError(f"--out {config.out} already exists; name another file, or remove it")
        try:
            write_file(log_file, b"")
        except StorageError as error:
            raise UsageError(f"{error.message}; check --out") from error
    on_gpus = training.device == "cuda"
    processes = config.gpu_workers or (max(1, local_gpus()) if on_gpus else 1)
    checked = sum(map(len, training.checks.values()))
    say(
        f"{len(training.pairs)} pairs to train on, {checked} to validate with; "
        f"{config.model} on {training.device}" + (f" x {processes}" if processes > 1 else "")
    )
    began = time.monotonic()
    share_before: float | None = None
    for snapshot in _snapshots(training, processes, config.address):
        _store(snapshot, config, checkpoint_file)
        if snapshot.stop.ended:
            _append(log_file, _log_line(snapshot, config))
            left = _left(snapshot, config, began, share_before)
            say(f"{_sentence(snapshot, config)}, {timedelta(seconds=round(left))} left")
        if share_before is None:  # the time before that includes loading
            began, share_before = time.monotonic(), snapshot.stop.progress
    with suppress(FileNotFoundError):
        os.unlink(checkpoint_file)
    run = f"batchlight run --input FOLDER --method absgn --weights {shlex.quote(config.out)}"
    say(f"the weights are in {config.out}; try them with: {run}")


def _store(snapshot: Snapshot, config: TrainConfig, checkpoint_file: str) -> None:
    if math.isnan(snapshot.stop.loss):
        raise BatchlightError(
            f"the training diverged in {_round(snapshot.stop, config)}; start over with a smaller "
            f"--learning-rate, after removing {checkpoint_file}"
        )
    # A checkpoint of the end would not be resumed.
    if snapshot.stop.over:
        write_file(config.out, snapshot.weights)
    else:
        write_file(checkpoint_file, snapshot.checkpoint)


def validate(network: ABSGN, pairs: tuple[TrainingPair, ...], start: Start | None) -> Quality:
    """Mean quality of a network on whole 8-bit images."""
    from batchlight.absgn.inference import restore

    scores = []
    for pair in pairs:
        # Pairs are RGB; inference takes and returns BGR, as decoded.
        low, high = (np.rint(image * 255).astype(np.uint8)[..., ::-1] for image in load_pair(pair))
        scores.append(quality(restore(network, low[None], start)[0], high))
    return Quality(fmean(s.psnr for s in scores), fmean(s.ssim for s in scores))


def _snapshots(training: Training, processes: int, address: str | None) -> Iterator[Snapshot]:
    if processes == 1 and ray_address(address) == "local":
        found = training.snapshots()
    else:
        found = train_together(training.snapshots, processes, training.device == "cuda", address)
    return (snapshot for snapshot in found if snapshot is not None)


def _going_on(training: Training, checkpoint_file: str, say: Callable[[str], None]) -> Training:
    """Resume what an earlier training run with the same options has left, if anything."""
    from batchlight.absgn.weights import load_tensors

    stored = _read(checkpoint_file)
    if stored is None:
        return training
    try:
        about = load_tensors(stored)[1]
    except ValueError as error:
        raise UsageError(f"{checkpoint_file} is damaged; remove it to start over") from error
    changes = [name for name, value in training.about.items() if about.get(name) != value]
    if changes:
        raise UsageError(
            f"{checkpoint_file} is from a training run with another {' and '.join(changes)}; "
            "give the same options to resume it, or remove it to start over"
        )
    say(f"resuming after step {about['steps']}")
    return replace(training, checkpoint=stored)


def _prepare(config: TrainConfig) -> Training:
    from batchlight.absgn.recipe import Recipe, phases_of
    from batchlight.absgn.start import to_metadata

    if config.time_limit is not None and "epochs" in config.model_fields_set:
        raise UsageError("--time-limit and --epochs cannot be combined; give one of them")
    weights, start = _start(config)
    recipe = Recipe(
        channels=CHANNELS[config.model],
        learning_rate=config.learning_rate,
        phases=phases_of(config.size, config.batch_size, config.whole),
        seed=config.seed,
        start=start,
    )
    pairs, held_out = split_by_scene(find_pairs(config.data), config.validation, config.seed)
    checks = {"held out": tuple(held_out)} if held_out else {}
    if config.validation_data is not None:
        checks["validation data"] = tuple(find_pairs(config.validation_data))
    clean = tuple(image for folder in config.clean for image in find_images(folder))
    names = json.dumps([[pair.name for pair in side] for side in (pairs, held_out)])
    extent = _extent(config)
    about = {
        "batchlight": __version__,
        "model": config.model,
        "recipe": json.dumps(asdict(recipe) | {"extent": asdict(extent)}, sort_keys=True),
        "pairs": hashlib.sha256(names.encode()).hexdigest(),
        "started from": hashlib.sha256(weights).hexdigest() if weights else "random weights",
        **to_metadata(start),
    }
    if clean:
        about["clean"] = hashlib.sha256(json.dumps(clean).encode()).hexdigest()
    return Training(
        recipe, extent, config.size, tuple(pairs), clean, checks, _device(config), about, weights
    )


def _start(config: TrainConfig) -> tuple[bytes | None, Start | None]:
    """The weights to start from, if any, and the preprocessing of images."""
    from batchlight.absgn.start import ClassicalStart

    if config.weights is None:
        return None, ClassicalStart()
    weights = read_weights(config.weights)
    if weights.channels != CHANNELS[config.model]:
        raise UsageError(
            f"the weights {config.weights} are {weights.channels} channels wide and "
            f"--model {config.model} is {CHANNELS[config.model]}; "
            "give the matching --model"
        )
    # Keep the weights' own preprocessing: they have only learnt from such images.
    return weights.data, weights.start


def _extent(config: TrainConfig) -> Extent:
    from batchlight.absgn.recipe import Extent

    if config.time_limit is None:
        return Extent(config.epochs)
    longest = min(LONGEST_ROUND_S, config.time_limit / ROUNDS)
    return Extent(seconds=config.time_limit, round_s=max(SHORTEST_ROUND_S, longest))


def _device(config: TrainConfig) -> str:
    device = config.device
    if device == "auto":
        device = "cuda" if local_gpus() or config.gpu_workers else "cpu"
    if ray_address(config.address) == "local":
        refuse_cuda_without_gpu(device)
    return device


def _left(now: Snapshot, config: TrainConfig, began: float, share_before: float | None) -> float:
    """Estimated seconds until the training is over."""
    if config.time_limit is not None:
        return max(0.0, config.time_limit - now.elapsed_s)
    done = now.stop.progress - (share_before or 0.0)
    if done <= 0:
        return 0.0
    return (time.monotonic() - began) / done * (1 - now.stop.progress)


def _round(stop: Stop, config: TrainConfig) -> str:
    if config.time_limit is None:
        return f"epoch {stop.round} of {config.epochs}"
    return f"round {stop.round}"


def _sentence(snapshot: Snapshot, config: TrainConfig) -> str:
    text = f"{_round(snapshot.stop, config)}: loss {snapshot.stop.loss:.4f}"
    for name, score in snapshot.scores.items():
        text += f", {name} PSNR {score.psnr:.2f} dB, SSIM {score.ssim:.4f}"
    return text


def _log_line(snapshot: Snapshot, config: TrainConfig) -> str:
    kind = "round" if config.time_limit is not None else "epoch"
    facts: dict[str, Any] = {kind: snapshot.stop.round, "steps": snapshot.steps}
    facts["loss"] = round(snapshot.stop.loss, 5)
    facts["elapsed_s"] = round(snapshot.elapsed_s, 1)
    for name, score in snapshot.scores.items():
        facts[name] = {"psnr": round(score.psnr, 3), "ssim": round(score.ssim, 4)}
    return json.dumps(facts)


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {brief(error)}") from error


def _append(path: str, line: str) -> None:
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
