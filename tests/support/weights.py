"""Weights of the network for tests."""

from __future__ import annotations

from importlib import resources

from batchlight.absgn.weights import dump_weights, parse_weights


def weights_without_start() -> bytes:
    """The packaged small weights, as if images entered the network unprocessed."""
    file = resources.files("batchlight.absgn") / "models/absgn-small.safetensors"
    return dump_weights(parse_weights(file.read_bytes()).tensors, {})
