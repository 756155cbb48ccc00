"""The way of groups over a GPU: copied up, computed, copied down. What can be, without a GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from batchlight.absgn import inference
from batchlight.absgn.inference import Enhancer
from batchlight.absgn.network import ABSGN
from batchlight.absgn.result import Restored
from batchlight.absgn.transfers import Computed, Copies, Uploaded
from batchlight.errors import ErrorCode
from batchlight.host.turns import in_turns
from batchlight.images.pixels import Pixels
from tests.support.helpers import dark_image
from tests.support.weights import weights_without_start

WEIGHTS = weights_without_start()
BLACK = 0.0
"""The level of the image that is too much for the half-precise network."""


class Event:
    def elapsed_time(self, other: Event) -> float:
        return 12.0


@dataclass
class Ways(Copies):
    """Stands for the ways to a GPU: everything is here already. Notes what is done."""

    notes: list[str] = field(default_factory=list)

    def upload(self, images: Sequence[Pixels]) -> Uploaded:
        self.notes.append("up")
        stack = np.stack(images)
        raw = torch.from_numpy(stack if stack.dtype == np.uint8 else stack.astype(np.int32))
        return Uploaded(stack, raw, cast(Any, Event()))

    def compute(
        self, uploaded: Uploaded, work: Callable[[Tensor], tuple[Tensor, Tensor]]
    ) -> Computed:
        self.notes.append("compute")
        levels, finite = work(uploaded.raw)
        return Computed(levels, finite, cast(Any, Event()), cast(Any, Event()))

    def download(self, computed: Computed, dtype: np.dtype[np.generic]) -> tuple[Pixels, bool]:
        self.notes.append("down")
        return computed.levels.numpy().astype(dtype), bool(computed.finite.all())

    @contextmanager
    def turn(self) -> Iterator[None]:
        self.notes.append("(")
        yield
        self.notes.append(")")


def overlapped(
    groups: list[list[Pixels]], **options: Any
) -> tuple[list[list[Restored]], list[str]]:
    """What comes of groups, and in which steps."""
    ways = Ways()
    enhancer = Enhancer(WEIGHTS, "cpu", **{"precision": "fp32", **options})
    enhancer._copies = ways
    return in_turns(enhancer.restore_groups, (groups,), ways.turn), ways.notes


def groups_of_every_kind() -> list[list[Pixels]]:
    kinds = [(channels, dtype) for channels in (1, 3) for dtype in (np.uint8, np.uint16)]
    groups = []
    for number, (channels, dtype) in enumerate(kinds):
        shape = (21 + number, 30) if channels == 1 else (21 + number, 30, 3)
        images = [dark_image(seed, *shape[:2], channels, dtype) for seed in range(number + 1)]
        groups.append([image.reshape(shape) for image in images])
    return groups


def assert_as_alone(groups: list[list[Pixels]], results: list[list[Restored]]) -> None:
    """Each group as ``enhance`` makes it."""
    enhancer = Enhancer(WEIGHTS, "cpu", "fp32")
    assert [len(group) for group in results] == [len(group) for group in groups]
    for images, found in zip(groups, results, strict=True):
        for restored, expected in zip(found, enhancer.enhance(images), strict=True):
            assert restored.get().dtype == expected.get().dtype
            assert np.array_equal(restored.get(), expected.get())
            assert restored.milliseconds > 0


def test_groups_are_what_each_is_alone() -> None:
    groups = groups_of_every_kind()
    results, notes = overlapped(groups)
    assert_as_alone(groups, results)
    assert [group[0].milliseconds for group in results] == [12.0 / len(group) for group in groups]
    assert notes == ["up"] * 4 + ["(", *["compute"] * 4, ")"] + ["down"] * 4


def test_in_one_go_too() -> None:
    """As without a GPU, several groups of a call."""
    groups = groups_of_every_kind()
    assert_as_alone(groups, in_turns(Enhancer(WEIGHTS, "cpu", "fp32").restore_groups, (groups,)))


def test_what_does_not_fit_is_done_in_a_turn_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    restore = ABSGN.restore

    def small(self: ABSGN, x: Tensor, *pool: Any) -> Tensor:
        if len(x) > 2:
            raise torch.OutOfMemoryError
        return restore(self, x, *pool)

    monkeypatch.setattr(ABSGN, "restore", small)
    groups = [[dark_image(seed, 16, 24) for seed in range(count)] for count in (2, 4, 1)]
    results, notes = overlapped(groups)
    monkeypatch.undo()
    for images, found in zip(groups, results, strict=True):
        for image, restored in zip(images, found, strict=True):
            alone = Enhancer(WEIGHTS, "cpu", "fp32").enhance([image])[0]
            assert np.abs(restored.get().astype(int) - alone.get()).max() <= 1
    assert notes == ["up"] * 3 + ["(", *["compute"] * 3, ")"] + ["down", "(", ")", "down"]


def test_tiles_are_done_in_a_turn_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [[dark_image(1, 16, 24)], [dark_image(2, 16, 80)]]
    results, notes = overlapped(groups, tile=48)
    assert notes == ["up"] * 2 + ["(", "compute", ")", "down", "(", ")"]
    tiled = Enhancer(WEIGHTS, "cpu", "fp32", 48)
    for images, found in zip(groups, results, strict=True):
        assert np.array_equal(found[0].get(), tiled.enhance(images)[0].get())


def test_what_is_no_number_is_done_again_in_a_turn_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    restore = ABSGN.restore

    def fragile(self: ABSGN, x: Tensor, *pool: Any) -> Tensor:
        result = restore(self, x, *pool)
        if x.dtype != torch.float32:
            result[x.float().amax((1, 2, 3)) == BLACK] = float("inf")
        return result

    monkeypatch.setattr(ABSGN, "restore", fragile)
    bad = np.zeros((16, 24, 3), np.uint8)
    groups = [[dark_image(1, 16, 24)], [dark_image(2, 16, 24), bad]]
    results, notes = overlapped(groups, precision="bf16")
    assert notes == ["up"] * 2 + ["(", *["compute"] * 2, ")"] + ["down", "down", "(", ")"]
    exact = Enhancer(WEIGHTS, "cpu", "fp32").enhance([bad])[0]
    assert np.array_equal(results[1][1].get(), exact.get())
    assert all(restored.error is None for group in results for restored in group)


def test_what_is_no_number_in_fp32_either_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    restore = ABSGN.restore

    def fragile(self: ABSGN, x: Tensor, *pool: Any) -> Tensor:
        result = restore(self, x, *pool)
        result[x.float().amax((1, 2, 3)) == BLACK] = float("nan")
        return result

    monkeypatch.setattr(ABSGN, "restore", fragile)
    groups = [[dark_image(2, 16, 24), np.zeros((16, 24, 3), np.uint8)]]
    [[good, bad]], _ = overlapped(groups)
    assert good.error is None
    assert bad.error is not None
    assert bad.error.code == ErrorCode.SUSPICIOUS_OUTPUT


def test_any_other_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: ABSGN, x: Tensor, *pool: Any) -> Tensor:
        raise RuntimeError("a bug")

    monkeypatch.setattr(ABSGN, "restore", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        overlapped([[dark_image(1, 16, 24)]])


# On a GPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_calls_of_several_threads_are_what_each_group_is_alone(precision: Any) -> None:
    """Memory that is used again too early would show in some of them."""
    enhancer = Enhancer(WEIGHTS, "cuda", precision)
    sizes = [(400, 600), (401, 300), (256, 256), (64, 1000), (123, 457)]
    calls = [
        [
            [dark_image(seed, *size, 3, np.uint16 if call % 5 == 0 else np.uint8)
             for seed in range(1 + call % 3)]
            for size in sizes[call % 2 :]
        ]
        for call in range(24)
    ]  # fmt: skip
    with inference._deterministic(torch.device("cuda")):
        alone = [[enhancer._now(np.stack(group)) for group in groups] for groups in calls]
    lock = threading.Lock()

    @contextmanager
    def turn() -> Iterator[None]:
        with lock:
            yield

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda c: in_turns(enhancer.restore_groups, (c,), turn), calls))
    for groups, expected in zip(found, alone, strict=True):
        for group, other in zip(groups, expected, strict=True):
            for one, another in zip(group, other, strict=True):
                assert np.array_equal(one.get(), another.get())
                assert one.milliseconds > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_computing_waits_for_nothing() -> None:
    """A turn only launches: any wait for the GPU in it is an error here."""
    enhancer = Enhancer(WEIGHTS, "cuda", "fp16")
    gray = dark_image(1, 100, 150)[..., 0]
    groups = [[dark_image(1, 100, 150)] * 2, [gray], [gray.astype(np.uint16)]]
    in_turns(enhancer.restore_groups, (groups,))  # what is set up once may wait

    @contextmanager
    def strict() -> Iterator[None]:
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    results = in_turns(enhancer.restore_groups, (groups,), strict)
    assert [len(group) for group in results] == [2, 1, 1]
    assert inference._memory_of.cache_info().currsize == 1
