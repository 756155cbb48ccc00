"""Training for a given time: the schedule, the samples, and that it learns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from batchlight.absgn.network import ABSGN
from batchlight.absgn.timed_training import Budget, Phase, Pictures, Samples, _loss, train_for
from batchlight.absgn.training import LAST_RATE

BUDGET = Budget(seconds=10, channels=8, phases=(Phase(0.5, 16, 4), Phase(1.0, 32, 2, native=1.0)))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """For networks so small, more only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pictures(native: bool = True) -> Pictures:
    random = torch.Generator().manual_seed(1)

    def some(count: int, channels: int, height: int, width: int) -> Tensor:
        smooth = torch.rand((count, channels, 3, 3), generator=random)
        return (interpolate(smooth, (height, width), mode="bilinear") * 255).byte()

    high = some(6, 3, 32, 32)
    return Pictures(
        low=high // 8,
        high=high,
        clean=(some(4, 3, 40, 56), some(3, 3, 32, 48)),
        native_low=some(3, 3, 40, 56) // 8 if native else None,
        native_high=high[:3] if native else None,
    )


def test_the_schedule_follows_the_share_of_the_time_that_is_gone() -> None:
    rates = [BUDGET.rate_at(share) for share in (0.0, BUDGET.warm_up, 0.5, 1.0, 1.1)]
    assert rates[0] == 0
    assert rates[1] == pytest.approx(BUDGET.learning_rate, rel=0.01)
    assert rates[1] > rates[2] > rates[3]
    assert rates[3] == rates[4] == pytest.approx(BUDGET.learning_rate * LAST_RATE)
    sides = [BUDGET.phase_at(share).side for share in (0.0, 0.49, 0.5, 1.0, 1.2)]
    assert sides == [16, 16, 32, 32, 32]


def test_samples_are_of_the_phase_and_follow_the_seed() -> None:
    samples = Samples(BUDGET, pictures())
    low, [(part, high, share)] = samples.draw(0.0)
    assert low.shape == high.shape == (4, 3, 16, 16)
    assert share == 1
    assert low[part].mean() < high.mean()
    assert torch.equal(Samples(BUDGET, pictures()).draw(0.0)[0], low)
    assert not torch.equal(Samples(replace(BUDGET, seed=1), pictures()).draw(0.0)[0], low)


def test_native_samples_are_compared_at_the_size_of_their_truth() -> None:
    low, targets = Samples(BUDGET, pictures()).draw(0.9)
    assert low.shape == (3, 3, 40, 56)
    (real, shrunk, _), (made, full, _) = targets
    assert (low[real].shape[0], shrunk.shape) == (2, (2, 3, 32, 32))
    assert low[made].shape == full.shape == (1, 3, 40, 56)
    assert sum(share for _, _, share in targets) == pytest.approx(1)


def test_without_native_pictures_all_samples_are_square() -> None:
    low, _ = Samples(BUDGET, pictures(native=False)).draw(0.9)
    assert low.shape == (2, 3, 32, 32)


def test_every_pair_is_dealt_once_before_any_is_dealt_twice() -> None:
    samples = Samples(BUDGET, pictures())
    dealt = [int(i) for _ in range(4) for i in samples._deal(samples.pictures.low, 3)]
    assert sorted(dealt[:6]) == sorted(dealt[6:]) == list(range(6))


def test_pairs_stay_pairs_however_they_are_turned() -> None:
    calm = replace(BUDGET, noisy=0.0, synthetic=0.0, whole=0.5)
    high = pictures().high
    same = Samples(calm, replace(pictures(), low=high))
    for _ in range(8):
        low, [(_, truth, _)] = same.draw(0.0)
        assert torch.equal(low, truth)


def test_the_loss_is_none_for_equal_images_and_counts_each_kind_of_error() -> None:
    high = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(2)) * 0.5 + 0.2
    assert float(_loss(high, high)) == pytest.approx(0, abs=1e-5)
    brighter = float(_loss(high + 0.05, high))
    tinted = float(_loss(high + torch.tensor([0.05, -0.05, 0.05]).view(1, 3, 1, 1), high))
    checked = torch.ones(16, 16)
    checked[::2, ::2] = checked[1::2, 1::2] = -1
    rough = float(_loss(high + 0.05 * checked, high))
    assert 0 < brighter < tinted < rough


def test_training_ends_in_time_and_has_learned() -> None:
    calm = replace(BUDGET, synthetic=0.0, noisy=0.0, learning_rate=2e-3)
    said: list[dict[str, float]] = []
    ticks = count()
    networks = list(
        train_for(
            replace(calm, seconds=96.0),
            pictures(native=False),
            lambda state: said.append(dict(state)),
            score_every_s=16,
            clock=lambda: float(next(ticks)),  # a second for each step
        )
    )
    assert [state["step"] for state in said] == [16, 32, 48, 64, 80, 95]
    assert len(networks) == len(said)
    assert said[-1]["loss"] < 0.8 * said[0]["loss"]
    assert isinstance(networks[-1], ABSGN)


def test_training_goes_on_from_weights() -> None:
    torch.manual_seed(7)
    start = ABSGN(8).state_dict()
    [network] = train_for(replace(BUDGET, seconds=0.0), pictures(), lambda _: None, start)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, start[name])
