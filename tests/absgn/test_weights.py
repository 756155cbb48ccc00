"""Files of weights: read back what was written, refuse anything else, never run what they hold."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from batchlight.absgn.network import ABSGN
from batchlight.absgn.weights import dump_weights, parse_weights

pytestmark = pytest.mark.usefixtures("one_thread")


def some_tensors(channels: int = 8) -> dict[str, Tensor]:
    torch.manual_seed(channels)
    return dict(ABSGN(channels).state_dict())


TENSORS = some_tensors()
FIRST = "s0.0.weight"
"""The tensor that tells the number of channels; looked up here so that a renaming shows."""
DATA = dump_weights(TENSORS, {"recipe": "none"})


def raw(header: dict[str, Any], payload: bytes = b"") -> bytes:
    """A safetensors file written by hand, to say what no library would."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + payload


def of_kind(kind: str, size: int) -> bytes:
    """Zeros in the right shapes, of any kind of number."""
    header, end = {}, 0
    for name, tensor in TENSORS.items():
        start, end = end, end + tensor.numel() * size
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, end]}
    return raw(header, bytes(end))


def saved(tensors: dict[str, Tensor]) -> bytes:
    return safetensors.torch.save({n: t.contiguous() for n, t in tensors.items()})


def torch_saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_what_was_written_is_read_back() -> None:
    about = {"recipe": '{"epochs": 300}', "made": "today, ä"}
    data = dump_weights(TENSORS, about)
    weights = parse_weights(data)
    assert weights.about == about
    assert weights.channels == 8
    assert weights.sha256 == hashlib.sha256(data).hexdigest()
    assert weights.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(weights.tensors[name], tensor.half()), name


def test_written_again_they_are_the_same() -> None:
    again = dump_weights(parse_weights(DATA).tensors, parse_weights(DATA).about)
    assert again == DATA


def test_written_in_half_precision() -> None:
    numbers = sum(t.numel() for t in TENSORS.values())
    assert 2 * numbers < len(DATA) < 2 * numbers + 20_000


def test_written_from_any_layout_and_with_gradients() -> None:
    network = ABSGN(8).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = parse_weights(dump_weights(dict(network.named_parameters()), {}))
    assert weights.about == {}
    for name, tensor in network.state_dict().items():
        assert torch.equal(weights.tensors[name], tensor.half()), name


def test_full_precision_is_read_too() -> None:
    assert torch.equal(parse_weights(saved(TENSORS)).tensors[FIRST], TENSORS[FIRST])


def test_the_network_is_ready_for_inference() -> None:
    network = parse_weights(DATA).network()
    assert isinstance(network, ABSGN)
    assert not any(module.training for module in network.modules())
    for name, parameter in network.named_parameters():
        assert not parameter.requires_grad
        assert (parameter.device.type, parameter.dtype) == ("cpu", torch.float32)
        assert torch.equal(parameter, TENSORS[name].half().float())
    reference = ABSGN(8)
    reference.load_state_dict(TENSORS)
    images = torch.rand(1, 3, 16, 24)
    output = network(images)
    assert not output.requires_grad
    with torch.inference_mode():
        assert (output - reference(images)).abs().max() < 0.5 / 255  # halves change nothing visible


@pytest.mark.parametrize("channels", [16, 24])
def test_the_file_tells_the_width(channels: int) -> None:
    weights = parse_weights(dump_weights(some_tensors(channels), {}))
    assert weights.channels == channels
    assert weights.network()(torch.rand(1, 3, 8, 8)).shape == (1, 3, 8, 8)


def without_one() -> bytes:
    return saved({n: t for n, t in TENSORS.items() if n != list(TENSORS)[-1]})


def with_one_more() -> bytes:
    return saved({**TENSORS, "more": torch.zeros(1)})


def with_another_shape() -> bytes:
    name = list(TENSORS)[-3]
    return saved({**TENSORS, name: TENSORS[name][:-1]})


def of_no_channels() -> bytes:
    shapes = {n: t.shape for n, t in TENSORS.items()}
    kept = {3, 1, 2, 5}
    return saved({n: torch.zeros([s if s in kept else 0 for s in shapes[n]]) for n in shapes})


def with_one(value: float) -> Callable[[], bytes]:
    def data() -> bytes:
        name = list(TENSORS)[-3]
        broken = TENSORS[name].clone()
        broken.view(-1)[-1] = value
        return dump_weights({**TENSORS, name: broken}, {})

    return data


def declaring(shape: list[int]) -> Callable[[], bytes]:
    entry = {"dtype": "F16", "shape": shape, "data_offsets": [0, 0]}
    return lambda: raw({FIRST: entry})


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda: b"", id="empty"),
        pytest.param(lambda: bytes(8), id="zeros"),
        pytest.param(lambda: b"\xff" * 100, id="ones"),
        pytest.param(lambda: b"<html>404</html>", id="html"),
        pytest.param(lambda: b"version https://git-lfs.github.com/spec/v1\n", id="git-lfs"),
        pytest.param(lambda: DATA + b"\0", id="longer"),
        pytest.param(lambda: torch_saved(TENSORS), id="torch.save"),
        pytest.param(lambda: pickle.dumps({"weights": [1.0]}), id="pickle"),
        pytest.param(lambda: saved({}), id="nothing"),
        pytest.param(lambda: saved({"weight": torch.zeros(3, 3)}), id="another network"),
        pytest.param(lambda: saved({FIRST: torch.zeros(8)}), id="another rank"),
        pytest.param(lambda: saved({FIRST: TENSORS[FIRST]}), id="the first alone"),
        pytest.param(without_one, id="one missing"),
        pytest.param(with_one_more, id="one too many"),
        pytest.param(with_another_shape, id="another shape"),
        pytest.param(lambda: saved(some_tensors(4)), id="4 channels"),
        pytest.param(lambda: saved(some_tensors(12)), id="12 channels"),
        pytest.param(with_one(float("nan")), id="nan"),
        pytest.param(with_one(float("inf")), id="inf"),
        pytest.param(with_one(1e6), id="too large for half precision"),
        pytest.param(lambda: of_kind("XX", 1), id="no such kind"),
        pytest.param(declaring([0, 3, 3, 3]), id="the first alone, without channels"),
        pytest.param(of_no_channels, id="no channels"),
        pytest.param(declaring([8 * 10**12, 0, 0, 0]), id="absurd channels"),
        pytest.param(lambda: of_kind("F8_E4M3", 1), id="8-bit floats"),
        pytest.param(lambda: of_kind("F8_E8M0", 1), id="8-bit exponents"),
    ],
)
def test_refused(data: Callable[[], bytes]) -> None:
    with pytest.raises(ValueError, match=r"^it (is|holds) ") as refusal:
        parse_weights(data())
    assert "\n" not in str(refusal.value)


HEADER = 8 + int.from_bytes(DATA[:8], "little")


@pytest.mark.parametrize(
    "length", [1, 7, 8, 9, 200, HEADER - 1, HEADER, HEADER + 1, len(DATA) // 2, len(DATA) - 1]
)
def test_a_file_that_is_cut_short_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="is truncated"):
        parse_weights(DATA[:length])


class Bomb:
    """Pickled, it makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", [pickle.dumps, torch_saved])
def test_nothing_is_unpickled(write: Callable[[object], bytes], tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    data = write({FIRST: Bomb(mark)})
    with pytest.raises(ValueError, match="not a safetensors file"):
        parse_weights(data)
    assert not mark.exists()


def test_unpickled_it_would_have_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    pickle.loads(pickle.dumps({FIRST: Bomb(mark)}))
    assert mark.exists()
