"""Training: the loss, the schedule, the samples, and a run that goes on as if never interrupted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count, islice, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.torch
import torch
from skimage.metrics import structural_similarity
from torch import Tensor
from torch.nn.functional import interpolate

from batchlight.absgn.conversion import each
from batchlight.absgn.exposure import Exposure
from batchlight.absgn.losses import loss_of, ssim
from batchlight.absgn.network import ABSGN
from batchlight.absgn.recipe import LAST_RATE, Extent, Phase, Recipe, phases_of
from batchlight.absgn.samples import (
    READ_VARIANCE,
    SHOT_VARIANCE,
    Pictures,
    Samples,
    as_picture,
    fitted,
)
from batchlight.absgn.start import ClassicalStart
from batchlight.absgn.training import SAVE_EVERY_S, Stop, Trainer, decay_at
from tests.support.helpers import dark_image

pytestmark = pytest.mark.usefixtures("one_thread")

Image = npt.NDArray[Any]
CPU = torch.device("cpu")
RECIPE = Recipe(channels=8, phases=(Phase(0.5, 16, 4), Phase(1.0, 32, 2, native=1.0)))
SQUARE = replace(RECIPE, phases=(Phase(1.0, 16, 2),), synthetic=0.0, noisy=0.0)


def pictures(native: bool = True, pairs: int = 6) -> Pictures:
    """Smooth scenes; the dark side is an eighth of the other."""
    random = torch.Generator().manual_seed(1)

    def some(count: int, height: int, width: int) -> list[Tensor]:
        smooth = torch.rand((count, 3, 3, 3), generator=random)
        return list((interpolate(smooth, (height, width), mode="bilinear") * 255).byte())

    high = some(pairs, 32, 32)
    own = [dark // 8 for dark in some(3, 40, 56)]
    return Pictures(
        pairs=[(h // 8, h) for h in high],
        clean=[*some(4, 40, 56), *some(3, 32, 48), *high],
        native=list(zip(own, high, strict=False)) if native else [],
    )


# The loss


def reference_ssim(one: Image, other: Image) -> float:
    value = structural_similarity(
        one, other, win_size=7, data_range=1, use_sample_covariance=False, channel_axis=2
    )
    return float(value)


@pytest.mark.parametrize(("height", "width"), [(7, 7), (16, 24), (40, 33)])
def test_ssim_is_that_of_scikit_image(height: int, width: int) -> None:
    random = np.random.default_rng(height)
    one = dark_image(1, height, width).astype(np.float32) / 255
    for other in (
        one,
        1 - one,
        np.clip(one * 2, 0, 1),
        np.clip(one + random.normal(0, 0.05, one.shape), 0, 1).astype(np.float32),
        random.random(one.shape, np.float32),
    ):
        expected = reference_ssim(one, other)
        tensors = [torch.from_numpy(image.copy()).permute(2, 0, 1)[None] for image in (one, other)]
        assert float(ssim(*tensors)) == pytest.approx(expected, abs=1e-4)
        assert float(ssim(*reversed(tensors))) == pytest.approx(expected, abs=1e-4)


def test_ssim_of_a_batch_is_the_mean() -> None:
    torch.manual_seed(0)
    one, other = torch.rand(2, 3, 3, 16, 16)
    alone = [float(ssim(one[k : k + 1], other[k : k + 1])) for k in range(3)]
    assert float(ssim(one, other)) == pytest.approx(sum(alone) / 3, abs=1e-6)
    assert float(ssim(one, one)) == pytest.approx(1, abs=1e-6)


def test_the_loss_is_none_for_equal_images_and_counts_each_kind_of_error() -> None:
    high = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(2)) * 0.5 + 0.2
    assert float(loss_of(high, high)) == pytest.approx(0, abs=1e-5)
    brighter = float(loss_of(high + 0.05, high))
    tinted = float(loss_of(high + torch.tensor([0.05, -0.05, 0.05]).view(1, 3, 1, 1), high))
    checked = torch.ones(16, 16)
    checked[::2, ::2] = checked[1::2, 1::2] = -1
    rough = float(loss_of(high + 0.05 * checked, high))
    assert 0 < brighter < tinted < rough


def test_a_larger_result_is_shrunk_as_its_truth_was() -> None:
    high = torch.rand((1, 3, 32, 48), generator=torch.Generator().manual_seed(3))
    small = interpolate(high, (16, 16), mode="bilinear", antialias=True)
    assert float(loss_of(high, small)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("level", [-20.0, 20.0])
def test_outputs_out_of_range_are_led_back(level: float) -> None:
    restored = torch.full((1, 3, 16, 16), level, requires_grad=True)
    loss_of(restored, torch.full((1, 3, 16, 16), 0.5)).backward()
    assert restored.grad is not None
    assert float(restored.grad.sum()) * level > 0


# The schedule


def test_the_learning_rate_rises_then_falls() -> None:
    recipe = Recipe(learning_rate=3e-4)
    rates = [recipe.rate_at(progress) for progress in np.linspace(0, 1, 1001)]
    peak = int(np.argmax(rates))
    assert 0.01 < peak / 1000 < 0.05
    assert 0.99 * 3e-4 < rates[peak] <= 3e-4
    assert rates[0] == 0
    assert all(a < b for a, b in pairwise(rates[: peak + 1]))
    assert all(a > b for a, b in pairwise(rates[peak:]))
    assert rates[-1] == recipe.rate_at(1.1) == pytest.approx(3e-4 * LAST_RATE)


def test_small_samples_first_whole_images_last_at_the_same_cost() -> None:
    phases = phases_of(256, 5, whole=0.3)
    assert [phase.side for phase in phases] == [128, 256, 256]
    assert {phase.side**2 * phase.batch for phase in phases} == {256**2 * 5}
    assert [phase.whole for phase in phases] == [0.3, 0.3, 1.0]
    recipe = Recipe(phases=phases)
    assert [recipe.phase_at(share) for share in (0, 0.5, 0.7, 1, 1.2)] == [
        *phases[:2], *[phases[2]] * 3
    ]  # fmt: skip
    assert phases_of(16, 1)[0].side == 8


# The samples


def samples(recipe: Recipe = RECIPE, of: Pictures | None = None) -> Samples:
    return Samples(recipe, of or pictures(), 0, 1)


def test_samples_are_of_the_phase_and_follow_seed_and_step() -> None:
    batch = samples().draw(3, 0.0)
    [(part, high, share)] = batch.targets
    assert batch.low.shape == high.shape == (4, 3, 16, 16)
    assert share == 1
    assert batch.low[part].mean() < high.mean()
    assert torch.equal(samples().draw(3, 0.0).low, batch.low)
    assert not torch.equal(samples().draw(4, 0.0).low, batch.low)
    assert not torch.equal(samples(replace(RECIPE, seed=1)).draw(3, 0.0).low, batch.low)


def test_the_share_of_made_samples_holds_for_small_batches_too() -> None:
    for batch in (1, 4):
        drawn = samples(replace(RECIPE, phases=(Phase(1.0, 8, batch),)))
        real = sum(drawn.draw(step, 0.0).pairs for step in range(200))
        assert real / 200 / batch == pytest.approx(1 - RECIPE.synthetic, abs=0.1)


def test_native_samples_are_compared_at_the_size_of_their_truth() -> None:
    recipe = replace(RECIPE, phases=(Phase(1.0, 32, 8, native=1.0),))
    drawn = samples(recipe)
    kinds = set()
    for step in range(8):
        batch = drawn.draw(step, 0.9)
        assert batch.low.shape == (3, 3, 40, 56)  # as many as a square batch has pixels
        assert [part for part, _, _ in batch.targets] == [slice(0, 1), slice(1, 2), slice(2, 3)]
        assert sum(share for _, _, share in batch.targets) == pytest.approx(1)
        assert batch.targets[0][1].shape == (1, 3, 32, 32)
        kinds |= {tuple(high.shape[2:]) for _, high, _ in batch.targets[1:]}
    assert kinds == {(32, 32), (40, 56)}  # enlarged, and made of well-lit ones


def test_without_native_pictures_all_samples_are_square() -> None:
    assert samples(of=pictures(native=False)).draw(0, 0.9).low.shape == (2, 3, 32, 32)


def test_every_picture_comes_once_before_any_comes_twice_by_all_processes() -> None:
    both = [Samples(SQUARE, pictures(), rank, 2) for rank in range(2)]
    taken = [n for _ in range(6) for one in both for n in one._take("pairs", 1)]
    assert sorted(taken[:6]) == sorted(taken[6:]) == list(range(6))
    assert taken[:6] != taken[6:]


def test_processes_see_other_samples_of_the_same_kind() -> None:
    ours, theirs = (Samples(RECIPE, pictures(), rank, 2) for rank in range(2))
    for step in range(8):
        one, other = ours.draw(step, 0.6), theirs.draw(step, 0.6)
        assert one.low.shape == other.low.shape
        assert one.pairs == other.pairs
        assert not torch.equal(one.low, other.low)
    assert ours.taken == theirs.taken


def test_pairs_stay_pairs_however_they_are_turned() -> None:
    of = pictures()
    same = replace(of, pairs=[(high, high) for _, high in of.pairs])
    drawn = samples(SQUARE, same)
    for step in range(8):
        batch = drawn.draw(step, 0.0)
        assert torch.equal(batch.low, batch.targets[0][1])


@pytest.mark.parametrize("level", [0, 30])
def test_noise_is_as_strong_as_measured(level: int) -> None:
    drawn = samples()
    drawn.draw(0, 0.0)
    flat = torch.full((64, 3, 32, 32), level / 255 + 0.2)
    noise = (drawn._noisier(flat, 1.3) - flat) * 255
    wanted = 1.3 * (READ_VARIANCE + SHOT_VARIANCE * (level + 51)) ** 0.5
    assert float(noise.std()) == pytest.approx(wanted, rel=0.03)


def test_pictures_are_held_no_larger_than_samples_can_show() -> None:
    assert fitted(dark_image(1, 99, 131), 256).shape == (96, 128, 3)
    assert fitted(dark_image(1, 800, 1200), 64).shape == (104, 152, 3)
    assert fitted(dark_image(1, 5, 40), 64).shape == (8, 40, 3)
    picture = as_picture(dark_image(1, 16, 24), CPU)
    assert (picture.shape, picture.dtype) == ((3, 16, 24), torch.uint8)


# The trainer


def stored(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As it comes back from a file."""
    return safetensors.torch.load(
        safetensors.torch.save(
            {n: t.clone(memory_format=torch.contiguous_format) for n, t in state.items()}
        )
    )


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    squares = [float((t - other[n]).square().sum()) for n, t in one.items()]
    return float(np.sqrt(sum(squares)))


def network_in(trainer: Trainer) -> dict[str, Tensor]:
    """The weights themselves, not their average."""
    state = trainer.state()
    return {n.removeprefix("network."): t for n, t in state.items() if n.startswith("network.")}


def without_time(trainer: Trainer) -> dict[str, Tensor]:
    state = stored(trainer.state())
    del state["number.elapsed"]
    return state


def ticking(seconds: float = 1.0) -> Callable[[], float]:
    """A clock that goes on whenever it is asked, which is before the first step and after each."""
    ticks = count()
    return lambda: seconds * next(ticks)


def test_training_is_the_plain_loop() -> None:
    recipe = replace(SQUARE, learning_rate=1e-2, average=0.15)
    trainer = Trainer(recipe, pictures())
    start = stored(trainer.weights)
    losses = [stop.loss for stop in trainer.train(Extent(epochs=3))]

    network = ABSGN(8).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.load_state_dict(start)
    parameters = list(network.parameters())
    optimizer = torch.optim.Adam(parameters)
    drawn = samples(recipe)
    averages = [start]
    own_losses: list[float] = []
    for step in range(9):  # of two pairs
        batch = drawn.draw(step, step / 9)
        loss = loss_of(
            network.restore(each(ClassicalStart().before, batch.low)), batch.targets[0][1]
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.param_groups[0]["lr"] = recipe.rate_at(step / 9)
        optimizer.step()
        own_losses.append(loss.item())
        now = stored(network.state_dict())
        averages.append({n: 0.15 * t + 0.85 * now[n] for n, t in averages[-1].items()})

    assert losses == pytest.approx(np.reshape(own_losses, (3, 3)).mean(1), rel=1e-3)
    assert distance(network_in(trainer), now) < 1e-3 * distance(now, start)
    assert distance(trainer.weights, averages[-1]) < 0.01 * distance(averages[-1], now)


@pytest.mark.parametrize("steps", [1, 4, 5])
def test_a_resumed_run_is_the_run_that_was_never_interrupted(steps: int) -> None:
    """Wherever it was interrupted, between two rounds or within one."""
    extent = Extent(epochs=4)
    through = Trainer(RECIPE, pictures())
    losses = [stop.loss for stop in through.train(extent)]

    first = Trainer(RECIPE, pictures())
    seen = []
    for stop in first.train(extent):
        seen.append(stop.loss)
        if first.steps >= steps:
            break
    state = stored(first.state())
    torch.manual_seed(99)
    torch.rand(7)  # whatever else happened to the process
    second = Trainer(RECIPE, pictures(), start=dict(ABSGN(8).state_dict()))
    second.resume(state)
    assert_equal(stored(second.state()), state)
    assert seen + [stop.loss for stop in second.train(extent)] == losses
    assert_equal(without_time(second), without_time(through))


def test_samples_drawn_ahead_are_the_same() -> None:
    one_phase = replace(RECIPE, phases=RECIPE.phases[-1:])
    trained = []
    for ahead in (False, True):
        first = Trainer(one_phase, pictures(), ahead=ahead)
        next(first.train(Extent(epochs=4)))
        second = Trainer(one_phase, pictures(), ahead=ahead)
        second.resume(stored(first.state()))
        losses = [stop.loss for stop in second.train(Extent(epochs=4))]
        trained.append((losses, without_time(second)))
    assert trained[0][0] == trained[1][0]
    assert_equal(trained[0][1], trained[1][1])


def test_a_round_that_takes_long_is_saved_on_the_way() -> None:
    recipe = replace(SQUARE, phases=(Phase(1.0, 8, 1),), synthetic=0.0)
    extent = Extent(epochs=1)
    through = Trainer(recipe, pictures(pairs=24))
    [whole] = through.train(extent, ticking(0.1))

    first = Trainer(recipe, pictures(pairs=24))
    stop = next(first.train(extent, ticking(SAVE_EVERY_S / 8)))
    assert (stop.ended, stop.over, stop.round, first.steps) == (False, False, 1, 8)
    second = Trainer(recipe, pictures(pairs=24))
    second.resume(stored(first.state()))
    [ended] = second.train(extent, ticking(0.1))
    assert (ended.ended, ended.over) == (True, True)
    assert ended.loss == pytest.approx(whole.loss, rel=1e-6)
    assert_equal(without_time(second), without_time(through))


def test_a_finished_run_has_nothing_left_to_do() -> None:
    trainer = Trainer(SQUARE, pictures())
    stops = list(trainer.train(Extent(epochs=1)))
    assert [(stop.round, stop.over, stop.progress) for stop in stops] == [(1, True, 1.0)]
    before = stored(trainer.state())
    assert list(trainer.train(Extent(epochs=1))) == []
    assert_equal(stored(trainer.state()), before)


def test_a_training_of_limited_time_ends_with_it_and_has_learned() -> None:
    trainer = Trainer(replace(SQUARE, learning_rate=2e-3), pictures(native=False))
    extent = Extent(seconds=96, round_s=16)
    stops, steps = [], []
    for stop in trainer.train(extent, ticking()):
        stops.append(stop)
        steps.append(trainer.steps)
    assert steps == [16, 32, 48, 64, 80, 96]
    assert [stop.round for stop in stops] == [1, 2, 3, 4, 5, 6]
    assert [stop.over for stop in stops] == [False] * 5 + [True]
    assert stops[-1].loss < 0.8 * stops[0].loss


def test_limited_time_goes_on_where_it_was_interrupted() -> None:
    extent = Extent(seconds=96, round_s=16)
    first = Trainer(SQUARE, pictures())
    [_, stop] = islice(first.train(extent, ticking()), 2)
    assert stop.progress == pytest.approx(1 / 3)
    second = Trainer(SQUARE, pictures())
    second.resume(stored(first.state()))
    stops: list[Stop] = list(second.train(extent, ticking()))
    assert (stops[0].round, stops[-1].progress, second.steps) == (3, 1.0, 96)


def test_the_seed_decides_the_start() -> None:
    def weights(seed: int) -> dict[str, Tensor]:
        return Trainer(replace(RECIPE, seed=seed), pictures()).weights

    assert_equal(weights(1), weights(1))
    assert not torch.equal(next(iter(weights(1).values())), next(iter(weights(2).values())))


def test_training_may_start_from_weights() -> None:
    torch.manual_seed(3)
    start = dict(ABSGN(8).state_dict())
    assert_equal(Trainer(RECIPE, pictures(), start).weights, start)


def test_images_enter_as_the_recipe_says() -> None:
    starts = {"plain": None, "exposed": Exposure(), "classical": ClassicalStart()}
    seen: dict[str, float] = {}
    for name, start in starts.items():
        trainer = Trainer(replace(SQUARE, start=start), pictures())

        def note(_: object, inputs: tuple[Tensor], name: str = name) -> None:
            seen[name] = float(inputs[0].mean())

        trainer._run.register_forward_pre_hook(note)
        trainer.step(0.1)
    assert seen["plain"] < 0.15
    assert seen["exposed"] == pytest.approx(0.3, abs=0.02)
    assert seen["classical"] == pytest.approx(0.45, abs=0.05)


def test_what_takes_the_most_memory_is_tried_first_and_changes_nothing() -> None:
    recipe = replace(RECIPE, phases=(Phase(1.0, 32, 8, native=1.0),))
    batch = samples(recipe).largest()
    assert batch is not None
    assert batch.low.shape == samples(recipe).draw(0, 0.0).low.shape == (3, 3, 40, 56)
    assert samples(SQUARE).largest() is None
    tried, other = (Trainer(recipe, pictures()) for _ in range(2))
    tried._try_largest_batch()
    assert_equal(stored(tried.state()), stored(other.state()))
    for trainer in (tried, other):
        trainer.step(0.5)
    assert_equal(stored(tried.state()), stored(other.state()))


def test_a_round_without_a_loss_has_diverged() -> None:
    trainer = Trainer(replace(SQUARE, learning_rate=1.0), pictures())
    with torch.no_grad():
        next(iter(trainer._network.parameters())).fill_(float("nan"))
    [stop] = trainer.train(Extent(epochs=1))
    assert np.isnan(stop.loss)


def test_the_moving_average_forgets_the_start_quickly() -> None:
    assert [decay_at(steps, 0.999) for steps in (1, 90)] == pytest.approx([2 / 11, 0.91])
    assert decay_at(10**6, 0.999) == 0.999
    trainer = Trainer(SQUARE, pictures())
    start = stored(trainer.weights)
    for _ in trainer.train(Extent(epochs=6)):
        pass
    current = network_in(trainer)
    moved = distance(current, start)
    assert moved > 0
    assert 0 < distance(trainer.weights, current) < 0.5 * moved  # 0.98 with 0.999 from the start
