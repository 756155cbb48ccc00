"""``batchlight train``: pairs of images in, weights out, going on where a killed training stopped.

    FILE.safetensors               the weights, when the training is done
    FILE.checkpoint.safetensors    all that a killed training needs to go on; gone when it is done
    FILE.log.jsonl                 loss, PSNR and SSIM of each epoch

The processes that train are given all they need and give back what is to be stored, so that only
this one, the driver, knows files of its own; the others read pairs.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
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
from batchlight.config import TrainConfig
from batchlight.engine import ray_address, train_together
from batchlight.errors import BatchlightError, StorageError, UsageError, brief
from batchlight.host.resources import local_gpus
from batchlight.storage.publishing import write_file
from batchlight.training.pairs import TrainingPair, find_pairs, load_pair, split_by_scene
from batchlight.training.quality import Quality, quality

if TYPE_CHECKING:
    from batchlight.absgn.network import ABSGN
    from batchlight.absgn.training import Recipe

LOADERS_ON_GPU = 6
"""Processes that read and augment pairs for one GPU; a CPU is busy enough with the training."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch brought."""

    number: int
    """From 1."""
    loss: float
    quality: Quality | None
    """Of the averaged weights, over the pairs held out."""
    checkpoint: bytes = field(repr=False)
    weights: bytes = field(repr=False)


@dataclass(frozen=True)
class Training:
    """All that a process needs to train; the same for all that train together."""

    recipe: Recipe
    pairs: tuple[TrainingPair, ...]
    held_out: tuple[TrainingPair, ...]
    device: str
    about: Mapping[str, str]
    start: bytes | None = field(repr=False, default=None)
    checkpoint: bytes | None = field(repr=False, default=None)

    def epochs(self, rank: int = 0, processes: int = 1) -> Iterator[Epoch | None]:
        """Train; the first process gives an ``Epoch`` each time, the others None."""
        import torch

        from batchlight.absgn.training import Trainer
        from batchlight.absgn.weights import dump_tensors, dump_weights, load_tensors

        on_gpu = self.device == "cuda"
        if processes > 1 and not on_gpu:
            torch.set_num_threads(max(1, torch.get_num_threads() // processes))
        trainer = Trainer(
            self.recipe,
            self.pairs,
            load_pair,
            torch.device(self.device),
            loaders=LOADERS_ON_GPU if on_gpu else 0,
            start=load_tensors(self.start)[0] if self.start else None,
            rank=rank,
            processes=processes,
        )
        if self.checkpoint:
            state, about = load_tensors(self.checkpoint)
            trainer.resume(state, int(about["epoch"]))
        for loss in trainer.epochs():
            if rank > 0:
                yield None
                continue
            score = validate(trainer.averaged, self.held_out) if math.isfinite(loss) else None
            about = dict(self.about) | {"epoch": str(trainer.epoch)}
            if score is not None:
                about |= {"psnr": f"{score.psnr:.3f}", "ssim": f"{score.ssim:.4f}"}
            yield Epoch(
                trainer.epoch,
                loss,
                score,
                dump_tensors(trainer.state(), about),
                dump_weights(trainer.weights, about),
            )


def train(config: TrainConfig, say: Callable[[str], None]) -> None:
    """Train and write the weights; the same as ``batchlight train``.

    ``say`` gets a line for each epoch. Raises ``BatchlightError``.
    """
    with needing_pytorch("batchlight train"):
        from batchlight.absgn.weights import load_tensors
    if os.path.isdir(config.out):
        raise UsageError(f"--out {config.out} is a folder; name a file")
    stem = config.out.removesuffix(".safetensors")
    checkpoint_file, log_file = f"{stem}.checkpoint.safetensors", f"{stem}.log.jsonl"
    training = _prepare(config)
    stored = _read(checkpoint_file)
    done = 0
    if stored is not None:
        try:
            about = load_tensors(stored)[1]
        except ValueError as error:
            raise UsageError(f"{checkpoint_file} is damaged; remove it to start anew") from error
        changes = [name for name, value in training.about.items() if about.get(name) != value]
        if changes:
            raise UsageError(
                f"{checkpoint_file} is of a training with another {' and '.join(changes)}; "
                "give the same options to go on with it, or remove it to start anew"
            )
        done = int(about["epoch"])
        say(f"going on after epoch {done}")
        training = replace(training, checkpoint=stored)
    else:
        try:  # before hours of work
            write_file(log_file, b"")
        except StorageError as error:
            raise UsageError(f"{error.message}; check --out") from error
    on_gpus = training.device == "cuda"
    processes = config.gpu_workers or (max(1, local_gpus()) if on_gpus else 1)
    say(
        f"{len(training.pairs)} pairs to train on, {len(training.held_out)} to validate with; "
        f"{config.model} on {training.device}" + (f" x {processes}" if processes > 1 else "")
    )
    started = time.monotonic()
    epochs = (
        training.epochs()
        if processes == 1 and ray_address(config.address) == "local"
        else train_together(training.epochs, processes, on_gpus, config.address)
    )
    for epoch in epochs:
        if epoch is None:
            continue
        if not math.isfinite(epoch.loss):
            raise BatchlightError(
                f"the training diverged in epoch {epoch.number}; start anew with a smaller "
                f"--learning-rate, after removing {checkpoint_file}"
            )
        # A checkpoint of the last epoch would not be gone on from.
        if epoch.number < config.epochs:
            write_file(checkpoint_file, epoch.checkpoint)
        else:
            write_file(config.out, epoch.weights)
        elapsed = time.monotonic() - started
        left = elapsed / (epoch.number - done) * (config.epochs - epoch.number)
        _append(log_file, _log_line(epoch, elapsed))
        say(f"{_sentence(epoch, config.epochs)}, {timedelta(seconds=round(left))} left")
    with suppress(FileNotFoundError):
        os.unlink(checkpoint_file)
    say(f"the weights are in {config.out}; try them with: batchlight run --weights {config.out}")


def validate(network: ABSGN, pairs: tuple[TrainingPair, ...]) -> Quality | None:
    """Mean quality of a network on whole images, as 8 bits; None without pairs."""
    from batchlight.absgn.inference import restore

    if not pairs:
        return None
    scores = []
    for pair in pairs:
        # Pairs are RGB; inference takes and gives BGR, as it is decoded.
        low, high = (np.rint(image * 255).astype(np.uint8)[..., ::-1] for image in load_pair(pair))
        scores.append(quality(restore(network, low[None])[0], high))
    return Quality(fmean(s.psnr for s in scores), fmean(s.ssim for s in scores))


def _prepare(config: TrainConfig) -> Training:
    from batchlight.absgn.augment import Augmentation
    from batchlight.absgn.training import Recipe

    recipe = Recipe(
        channels=CHANNELS[config.model],
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        whole=config.whole,
        seed=config.seed,
        augmentation=Augmentation(size=config.size),
    )
    start = None
    if config.weights:
        weights = read_weights(config.weights)
        if weights.channels != recipe.channels:
            raise UsageError(
                f"the weights {config.weights} are {weights.channels} channels wide and "
                f"--model {config.model} is {recipe.channels}; give the --model that they are of"
            )
        start = weights.data
    pairs, held_out = split_by_scene(find_pairs(config.data), config.validation, config.seed)
    names = json.dumps([[pair.name for pair in side] for side in (pairs, held_out)])
    device = config.device
    if device == "auto":
        device = "cuda" if local_gpus() or config.gpu_workers else "cpu"
    if ray_address(config.address) == "local":
        refuse_cuda_without_gpu(device)
    about = {
        "batchlight": __version__,
        "model": config.model,
        "recipe": json.dumps(asdict(recipe), sort_keys=True),
        "pairs": hashlib.sha256(names.encode()).hexdigest(),
        "started from": hashlib.sha256(start).hexdigest() if start else "random weights",
    }
    return Training(recipe, tuple(pairs), tuple(held_out), device, about, start)


def _sentence(epoch: Epoch, epochs: int) -> str:
    text = f"epoch {epoch.number} of {epochs}: loss {epoch.loss:.4f}"
    if epoch.quality is not None:
        text += f", PSNR {epoch.quality.psnr:.2f} dB, SSIM {epoch.quality.ssim:.4f}"
    return text


def _log_line(epoch: Epoch, elapsed: float) -> str:
    facts: dict[str, Any] = {"epoch": epoch.number, "loss": round(epoch.loss, 5)}
    if epoch.quality is not None:
        facts |= {"psnr": round(epoch.quality.psnr, 3), "ssim": round(epoch.quality.ssim, 4)}
    return json.dumps({**facts, "elapsed_s": round(elapsed, 1)})


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
