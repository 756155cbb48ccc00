"""Which network a run uses: resolves ``--model``, ``--weights``, ``--device`` and ``--precision``.

The weights are read once, here, and sent to the workers as bytes, so that no other node needs the
file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Final

from batchlight.config import JobConfig, ModelName
from batchlight.errors import UsageError
from batchlight.host.resources import local_gpus
from batchlight.storage import Location, open_source

if TYPE_CHECKING:
    from batchlight.absgn.inference import Enhancer, Precision, ResolvedDevice
    from batchlight.absgn.start import ClassicalStart
    from batchlight.absgn.weights import Weights

CHANNELS: Mapping[ModelName, int] = {"absgn": 32, "absgn-small": 8}

DEFAULT_MODELS: Mapping[ResolvedDevice, ModelName] = {"cuda": "absgn", "cpu": "absgn-small"}
"""By device: on CPUs the full network takes minutes for a photograph."""

GPU_PRECISION: Final = "fp16"
"""More accurate than bf16 (62 dB against 52 dB to fp32); overflows are redone in fp32."""

PIXELS_AT_ONCE = {"cuda": 4_000_000, "cpu": 0}
"""Images of one shape go through a GPU together up to this many; on a CPU, one by one."""


@dataclass(frozen=True)
class Model:
    """Everything that a worker needs to create the network."""

    name: str
    """For use in a sentence: ``absgn-small``, or where the weights were read from."""
    weights: bytes = field(repr=False)
    sha256: str
    device: ResolvedDevice
    precision: Precision
    tile: int | None
    start: ClassicalStart | None = None
    """Processing of images before and after the network, if the weights require it."""

    @property
    def pixels_at_once(self) -> int:
        """How many pixels of images of one shape go through together; always at least one image."""
        return PIXELS_AT_ONCE[self.device]

    def described(self) -> dict[str, str]:
        """Fields for the summary."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "device": self.device,
            "precision": self.precision,
        }

    def enhancer(self) -> Enhancer:
        """The network. Raises ``UsageError`` if it needs a GPU that is missing."""
        from batchlight.absgn.inference import Enhancer

        refuse_cuda_without_gpu(self.device, "a worker")
        return Enhancer(self.weights, self.device, self.precision, self.tile)


WeightsFor = Callable[["ResolvedDevice"], "Weights"]
"""The weights that a run uses on a device."""


def weights_of(config: JobConfig) -> WeightsFor | None:
    """The weights of a run's network; None if no method needs one.

    Weights that a config names are read at once. Raises ``UsageError`` if PyTorch is missing, and
    for weights that cannot be read or do not fit.
    """
    if "absgn" not in config.method:
        return None
    with needing_pytorch("--method absgn"):
        if config.weights is None and config.model is None:
            import batchlight.absgn.weights  # noqa: F401

            return lambda device: _packaged(DEFAULT_MODELS[device])
        named = read_weights(config.weights) if config.weights else _packaged(str(config.model))
    return lambda _: named


def choose_model(config: JobConfig, weights: WeightsFor, count_gpus: Callable[[], int]) -> Model:
    """Resolve a config's model, device and precision.

    ``count_gpus`` is called only if it matters.
    """
    from batchlight.absgn.start import classical_of

    device = config.device
    if device == "auto":
        device = "cuda" if count_gpus() else "cpu"
    precision = config.precision
    if precision == "auto":
        precision = GPU_PRECISION if device == "cuda" else "fp32"
    name = config.weights or config.model or DEFAULT_MODELS[device]
    found = weights(device)
    start = classical_of(found.start)
    return Model(name, found.data, found.sha256, device, precision, config.tile, start)


def refuse_cuda_without_gpu(device: ResolvedDevice, where: str = "this machine") -> None:
    """Raise ``UsageError`` if a GPU is required but missing."""
    if device == "cuda" and not local_gpus():
        raise UsageError(
            f"--device cuda needs an NVIDIA GPU and a PyTorch that can use it, and {where} has "
            "none; give --device cpu, or install the CUDA build of PyTorch"
        )


@contextmanager
def needing_pytorch(what: str) -> Iterator[None]:
    """Turn a failed import in the block into a ``UsageError`` that says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{what} needs {error.name}; install batchlight again, with its extra 'absgn'"
        ) from error


def read_weights(path: str) -> Weights:
    """Weights from a file or URI. Raises ``UsageError`` if they cannot be read or do not fit."""
    location = Location.parse(path)
    try:
        data = open_source(location.parent).read(location.name)
    except OSError as error:
        raise UsageError(f"cannot read the weights {path}; check --weights") from error
    return _parse(data, path)


def version_of(path: str) -> tuple[int, ...]:
    """What changes when a local file is written anew; empty for any other."""
    location = Location.parse(path)
    if location.remote:
        return ()
    try:
        found = os.stat(location.path)
    except OSError:
        return ()  # reading it will say why
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def packaged_model(sha256: str) -> ModelName | None:
    """The packaged model with these weights, if any."""
    for name in CHANNELS:
        file = _package_file(name)
        if file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256:
            return name
    return None


def _package_file(name: str) -> Traversable:
    return resources.files("batchlight.absgn") / "models" / f"{name}.safetensors"


def _packaged(name: str) -> Weights:
    file = _package_file(name)
    if not file.is_file():
        raise UsageError(
            f"this version comes without weights for --model {name}; give --weights FILE"
        )
    return _parse(file.read_bytes(), name)


def _parse(data: bytes, name: str) -> Weights:
    from batchlight.absgn.weights import parse_weights

    try:
        return parse_weights(data)
    except ValueError as error:
        raise UsageError(f"the weights {name} cannot be used: {error}; check --weights") from error
