"""ABSGN against an independent, slow implementation of its description; what tiles rely on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor, nn

from batchlight.absgn.network import ABSGN, MULTIPLE, REACH, double, halve

pytestmark = pytest.mark.usefixtures("one_thread")

Array = npt.NDArray[Any]


def slow_network(parameters: Iterator[Array], image: Array) -> Array:
    """The table, step by step, on one image (3, H, W) in float64; parameters in their order."""
    s0 = convp(parameters, image)
    d = len(s0)
    s1 = convp(parameters, dwt(s0))
    s2 = convp(parameters, dwt(s1))
    s3 = convp(parameters, dwt(s2))
    assert [len(s1), len(s2), len(s3)] == [2 * d, 4 * d, 8 * d]
    g = gsa(parameters, s3)
    assert g.shape == s3.shape

    up = convp(parameters, idwt(g))
    u2 = convp(parameters, np.concatenate([up, mgdb(parameters, s2)]))
    assert u2.shape == s2.shape
    up = convp(parameters, idwt(u2))
    u1 = convp(parameters, np.concatenate([up, mgdb(parameters, s1)]))
    assert u1.shape == s1.shape
    u0 = convp(parameters, idwt(u1))
    assert u0.shape == s0.shape

    a = np.concatenate([s0, u0])
    b = np.concatenate([a, mgdb(parameters, a)])
    c = np.concatenate([b, mgdb(parameters, b)])
    assert [len(a), len(b), len(c)] == [2 * d, 6 * d, 10 * d]
    out = convp(parameters, convp(parameters, c))
    assert next(parameters, None) is None
    clipped: Array = np.clip(out, 0, 1)
    return clipped


def correlate(x: Array, weight: Array, bias: Array | float = 0.0, dilation: int = 1) -> Array:
    """A convolution as networks have it, zeros around the image, tap by tap."""
    height, width = x.shape[1:]
    size = weight.shape[2]
    pad = size // 2 * dilation
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    out = np.zeros((len(weight), height, width))
    out += np.reshape(bias, (-1, 1, 1))
    for i in range(size):
        for j in range(size):
            y, z = i * dilation, j * dilation
            tap = padded[:, y : y + height, z : z + width]
            # The sum over the channels; torch can be told to do it on one thread.
            kernel, pixels = map(torch.from_numpy, (weight[:, :, i, j], tap.reshape(len(x), -1)))
            out += (kernel @ pixels).numpy().reshape(out.shape)
    return out


def convp(parameters: Iterator[Array], x: Array, dilation: int = 1) -> Array:
    x = correlate(x, next(parameters), next(parameters), dilation)
    return np.where(x < 0, next(parameters) * x, x)


def mgdb(parameters: Iterator[Array], x: Array) -> Array:
    p = convp(parameters, x, 4)
    q = convp(parameters, x, 2)
    r = convp(parameters, x, 1)
    m = convp(parameters, np.concatenate([p, q]), 2)
    l = convp(parameters, np.concatenate([x, r]), 1)  # noqa: E741 - the name in the description
    y = convp(parameters, np.concatenate([l, m]), 1)
    pooled = y.mean(axis=(1, 2), keepdims=True)
    hidden = np.maximum(correlate(pooled, next(parameters), next(parameters)), 0)
    return y * sigmoid(correlate(hidden, next(parameters), next(parameters)))


def gsa(parameters: Iterator[Array], x: Array) -> Array:
    p = (x.max(axis=(1, 2), keepdims=True) + x.mean(axis=(1, 2), keepdims=True)) / 2
    plane = correlate(np.broadcast_to(p, x.shape), next(parameters), next(parameters))
    both = np.stack([plane.max(axis=0), plane.mean(axis=0)])
    plane = plane * sigmoid(correlate(both, next(parameters)))
    return correlate(np.concatenate([x, plane]), next(parameters), next(parameters))


def sigmoid(x: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-x))
    return result


def dwt(x: Array) -> Array:
    bands: list[list[Array]] = [[], [], [], []]
    for channel in x:
        a, b = channel[0::2, 0::2], channel[0::2, 1::2]
        c, d = channel[1::2, 0::2], channel[1::2, 1::2]
        bands[0].append((a + b - c - d) / 2)
        bands[1].append((a - b + c - d) / 2)
        bands[2].append((a - b - c + d) / 2)
        bands[3].append((a + b + c + d) / 2)
    return np.stack([plane for band in bands for plane in band])


def idwt(x: Array) -> Array:
    height, width = x.shape[1:]
    out = np.zeros((len(x) // 4, 2 * height, 2 * width))
    for k, channel in enumerate(out):
        average, rows, columns, diagonal = x[4 * k : 4 * k + 4]
        channel[0::2, 0::2] = (average + rows + columns + diagonal) / 2
        channel[0::2, 1::2] = (average + rows - columns - diagonal) / 2
        channel[1::2, 0::2] = (average - rows + columns - diagonal) / 2
        channel[1::2, 1::2] = (average - rows - columns + diagonal) / 2
    return out


def random_network(seed: int) -> ABSGN:
    """Every bias and slope differs from its start; most of the output lies within 0..1."""
    torch.manual_seed(seed)
    network = ABSGN(8).requires_grad_(False)
    parameters = list(network.parameters())
    for parameter in parameters:
        if parameter.ndim == 1:
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    weight, bias, _ = parameters[-3:]
    weight.mul_(0.1)
    bias.add_(0.5)
    return network.eval()


def random_images(seed: int, height: int, width: int, count: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, height, width, generator=generator)


@pytest.mark.parametrize(
    ("height", "width", "seed"), [(16, 16, 0), (24, 40, 1), (40, 24, 2), (72, 32, 3), (8, 56, 4)]
)
def test_equals_the_description(height: int, width: int, seed: int) -> None:
    network, images = random_network(seed), random_images(seed, height, width)
    values = [p.double().numpy() for p in network.parameters()]
    expected = np.stack([slow_network(iter(values), x.double().numpy()) for x in images])
    assert 0.5 < np.mean((expected > 0) & (expected < 1)) <= 1  # there is something to compare
    assert expected.std() > 0.01
    actual = network(images)
    assert (actual.shape, actual.dtype) == (images.shape, torch.float32)
    assert np.abs(actual.numpy() - expected).max() < 1e-4
    exact = network.double()(images.double()).numpy()
    assert np.abs(exact - expected).max() < 1e-10


@pytest.mark.parametrize(("channels", "count"), [(32, 8_200_944), (8, 514_398)])
def test_number_of_parameters(channels: int, count: int) -> None:
    with torch.device("meta"):
        network = ABSGN(channels)
    assert sum(p.numel() for p in network.parameters()) == count
    assert not list(network.buffers())


def test_the_published_width_is_the_default() -> None:
    with torch.device("meta"):
        shapes = [[p.shape for p in network.parameters()] for network in (ABSGN(), ABSGN(32))]
    assert shapes[0] == shapes[1]


def test_starts_kaiming_normal_with_zero_biases() -> None:
    torch.manual_seed(5)
    convolutions = [m for m in ABSGN(16).modules() if isinstance(m, nn.Conv2d)]
    pooled = []
    for convolution in convolutions:
        weight = convolution.weight.detach()
        if convolution.bias is not None:
            assert not convolution.bias.any()
        scaled = weight / math.sqrt(2 / weight[0].numel())
        error = 6 / math.sqrt(2 * weight.numel())
        assert float(scaled.square().mean().sqrt()) == pytest.approx(1, abs=error)
        pooled.append(scaled.flatten())
    everything = torch.cat(pooled)
    assert float(everything.mean()) == pytest.approx(0, abs=0.01)
    # A uniform distribution of this deviation would have 0 beyond two of them.
    assert float((everything.abs() > 2).float().mean()) == pytest.approx(0.0455, abs=0.002)


@pytest.mark.parametrize("bias", [-3.0, 0.5, 3.0])
def test_output_is_within_0_and_1(bias: float) -> None:
    network, images = random_network(1), random_images(1, 16, 24)
    list(network.parameters())[-2].fill_(bias)
    restored, output = network.restore(images), network(images)
    assert torch.equal(output, restored.clamp(0, 1))
    assert restored.min() < 0 or restored.max() > 1 or bias == 0.5


def test_images_of_a_batch_do_not_meet() -> None:
    network, images = random_network(2), random_images(2, 24, 32, 3)
    together = network(images)
    for number in range(3):
        alone = network(images[number : number + 1])
        assert (together[number] - alone[0]).abs().max() < 1e-5


def test_layout_in_memory_does_not_matter() -> None:
    network, images = random_network(3), random_images(3, 24, 32, 2)
    plain = network(images)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last = network(images.to(memory_format=torch.channels_last))
    assert (plain - last).abs().max() < 1e-5


# Whole numbers, so that every sum is exact.
EVEN = st.tuples(
    st.integers(1, 2), st.integers(1, 5), *(st.integers(1, 5).map(lambda n: 2 * n),) * 2
)
PLANES = hnp.arrays(np.float64, EVEN, elements=st.integers(-(2**15), 2**15).map(float))


def grouped(channels: int) -> list[int]:
    """Where ``double`` looks for average, rows, columns and diagonal in what ``halve`` stacks."""
    return [band * channels + k for k in range(channels) for band in (3, 0, 1, 2)]


@settings(max_examples=50)
@given(planes=PLANES)
def test_halve_is_the_haar_transform_pixel_by_pixel(planes: Array) -> None:
    halved = halve(torch.from_numpy(planes)).numpy()
    count, channels, height, width = planes.shape
    assert halved.shape == (count, 4 * channels, height // 2, width // 2)
    for (n, k, y, x), a in np.ndenumerate(planes[:, :, ::2, ::2]):
        b, c, d = (planes[n, k, 2 * y + i, 2 * x + j] for i, j in ((0, 1), (1, 0), (1, 1)))
        rows, columns, diagonal, average = halved[n, k::channels, y, x]
        assert rows == (a + b - c - d) / 2
        assert columns == (a - b + c - d) / 2
        assert diagonal == (a - b - c + d) / 2
        assert average == (a + b + c + d) / 2


@settings(max_examples=50)
@given(planes=PLANES)
def test_halve_keeps_the_energy(planes: Array) -> None:
    assert float(halve(torch.from_numpy(planes)).square().sum()) == np.square(planes).sum()


@settings(max_examples=50)
@given(planes=PLANES)
def test_double_takes_back_what_halve_did(planes: Array) -> None:
    x = torch.from_numpy(planes)
    assert torch.equal(double(halve(x)[:, grouped(x.shape[1])]), x)


@settings(max_examples=50)
@given(planes=PLANES, times=st.integers(1, 3))
def test_halve_takes_back_what_double_did(planes: Array, times: int) -> None:
    bands = torch.from_numpy(np.tile(planes, (1, 4 * times, 1, 1)))
    doubled = double(bands)
    assert doubled.shape[1] * 4 == bands.shape[1]
    assert torch.equal(halve(doubled)[:, grouped(doubled.shape[1])], bands)
    assert np.array_equal(doubled[0].numpy(), idwt(bands[0].numpy()))


class Recorder:
    """Answers for the image at hand and remembers what was asked."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.features: list[Tensor] = []
        self.answers: list[Tensor] = []

    def __call__(self, features: Tensor, how: Literal["mean", "max"]) -> Tensor:
        pixels = features.flatten(2)
        answer = (pixels.max(2).values if how == "max" else pixels.mean(2))[:, :, None, None]
        self.kinds.append(how)
        self.features.append(features)
        self.answers.append(answer)
        return answer

    def replay(self) -> Replay:
        return Replay(iter(self.answers))


@dataclass(frozen=True)
class Replay:
    """Gives the answers of another image, whatever the image at hand."""

    answers: Iterator[Tensor]

    def __call__(self, features: Tensor, how: Literal["mean", "max"]) -> Tensor:
        return next(self.answers)


def test_pools_are_asked_in_the_order_of_the_table() -> None:
    network, images, recorder = random_network(4), random_images(4, 32, 48, 2), Recorder()
    by_default = network(images)
    assert (network(images, recorder) - by_default).abs().max() < 1e-6
    assert recorder.kinds == ["max", "mean", "mean", "mean", "mean", "mean"]
    shapes = [tuple(f.shape) for f in recorder.features]
    s3 = (2, 64, 4, 6)
    assert shapes == [s3, s3, (2, 32, 8, 12), (2, 16, 16, 24), (2, 32, 32, 48), (2, 32, 32, 48)]
    assert torch.equal(recorder.features[0], recorder.features[1])
    assert (network(images, recorder.replay()) - by_default).abs().max() < 1e-6


MARGIN = math.ceil(REACH / MULTIPLE) * MULTIPLE
SIDE = 160


def span(start: int, stop: int) -> tuple[slice, slice]:
    """The part of start..stop that no cut changes: in the image, and in the crop."""
    first = start if start == 0 else start + MARGIN
    last = stop if stop == SIDE else stop - MARGIN
    return slice(first, last), slice(first - start, last - start)


def test_a_crop_that_is_told_of_its_image_equals_it() -> None:
    network, image, recorder = random_network(5), random_images(5, SIDE, SIDE), Recorder()
    image[:, :, :, 100:] *= 0.1
    expected = network(image, recorder)
    for top, bottom, left, right in [(8, 144, 16, 152), (0, 104, 32, SIDE), (64, SIDE, 0, 72)]:
        crop = image[:, :, top:bottom, left:right]
        (rows, rows_within), (columns, columns_within) = span(top, bottom), span(left, right)
        wanted = expected[:, :, rows, columns]
        assert wanted.numel() > 0
        told = network(crop, recorder.replay())[:, :, rows_within, columns_within]
        assert (told - wanted).abs().max() < 1e-5
        alone = network(crop)[:, :, rows_within, columns_within]
        assert (alone - wanted).abs().max() > 1e-3


@cache
def reaches(lying: bool) -> list[int]:
    """How far, per position in a block of 8, one input pixel's change shows in the output."""
    network, strip, recorder = random_network(6).double(), random_images(6, 16, 168), Recorder()
    strip = strip.double() if lying else strip.double().mT
    before = network.restore(strip, recorder)
    found = []
    for position in range(80, 88):
        changed = strip.clone()
        (changed if lying else changed.mT)[:, :, 8, position] += 1000
        difference = network.restore(changed, recorder.replay()) != before
        columns = (difference if lying else difference.mT).any((0, 1, 2)).nonzero()
        found.append(int((columns - position).abs().max()))
    return found


@pytest.mark.parametrize("lying", [True, False])
def test_no_input_pixel_further_than_the_reach_matters(lying: bool) -> None:
    assert max(reaches(lying)) <= REACH


@pytest.mark.parametrize("lying", [True, False])
def test_the_reach_is_not_larger_than_need_be(lying: bool) -> None:
    assert max(reaches(lying)) > REACH - 4
