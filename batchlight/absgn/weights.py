"""Weights as safetensors: never pickled, hashed, rejected with a sentence if they do not fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from batchlight.absgn.network import ABSGN
from batchlight.absgn.start import Start, start_of

CHANNELS = range(8, 257, 8)
"""The widths that a network can have."""

FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32})


@dataclass(frozen=True)
class Weights:
    """The contents of a weights file."""

    data: bytes = field(repr=False)
    """The whole file."""
    tensors: Mapping[str, Tensor] = field(repr=False)
    channels: int
    about: Mapping[str, str]
    """What the training recorded."""
    start: Start | None = None
    """The preprocessing that the network expects; None: none."""

    @property
    def sha256(self) -> str:
        """Of the file, in hex; part of the fingerprint of everything made with it."""
        return hashlib.sha256(self.data).hexdigest()

    def network(self) -> ABSGN:
        """The network with these weights, ready for inference, on the CPU in float32."""
        network = _skeleton(self.channels)
        network.load_state_dict({n: t.float() for n, t in self.tensors.items()}, assign=True)
        return network.eval().requires_grad_(False)


def parse_weights(data: bytes) -> Weights:
    """Read the content of a weights file. Raises ``ValueError`` saying what is wrong with it."""
    tensors, about = load_tensors(data)
    bias = tensors.get("s0.0.bias")
    channels = len(bias) if bias is not None and bias.ndim else 0
    if channels not in CHANNELS or _shapes(tensors) != _shapes(_skeleton(channels).state_dict()):
        raise ValueError("it holds the weights of another network")
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise ValueError("it holds numbers that are not finite")
    return Weights(data, tensors, channels, about, start_of(about))


def dump_weights(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> bytes:
    """The content of a weights file: half precision, which changes no output visibly."""
    return dump_tensors({name: t.to(torch.float16) for name, t in tensors.items()}, about)


def load_tensors(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Any safetensors file of floats: its tensors, and its metadata.

    Raises ``ValueError``.
    """
    try:
        tensors = safetensors.torch.load(data)
        about = tensors_about(data)
    # The last two if its metadata have another form.
    except (
        SafetensorError,
        ValueError,
        KeyError,
        RuntimeError,
        TypeError,
        AttributeError,
    ) as error:
        raise ValueError("it is not a safetensors file, or is truncated") from error
    if not all(tensor.dtype in FLOATS for tensor in tensors.values()):
        raise ValueError("it holds numbers other than 16- or 32-bit floats")
    return tensors, about


def dump_tensors(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> bytes:
    """The content of a safetensors file; equal for equal tensors."""
    own = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    # A single entry, since safetensors writes several in random order.
    return safetensors.torch.save(own, {"about": json.dumps(dict(about), sort_keys=True)})


def tensors_about(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file of ours."""
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return {str(k): str(v) for k, v in json.loads(metadata.get("about", "{}")).items()}


def _skeleton(channels: int) -> ABSGN:
    """The network without data."""
    with torch.device("meta"):
        return ABSGN(channels)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
