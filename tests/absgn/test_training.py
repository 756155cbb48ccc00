"""Training: the loss, the order, the samples, and a run that goes on as if never interrupted."""

from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity
from torch import Tensor

from batchlight.absgn.augment import (
    READ_VARIANCE,
    SHOT_VARIANCE,
    Augmentation,
    add_noise,
    augment,
)
from batchlight.absgn.network import ABSGN
from batchlight.absgn.training import Objective, Order, Recipe, Samples, Trainer, ssim
from tests.support.helpers import dark_image

pytestmark = pytest.mark.usefixtures("one_thread")

Image = npt.NDArray[Any]
CPU = torch.device("cpu")
AS_IT_IS = Augmentation(size=16, smallest_region=1, noisy=0, relit=0, already_bright=0)
"""Nothing but turns and flips, for a pair of 16x16."""


def pair_of(seed: int, height: int = 16, width: int = 16) -> tuple[Image, Image]:
    """Both sides RGB in 0..1; the dark one is a tenth of the other."""
    high = 0.1 + 2 * dark_image(seed, height, width).astype(np.float32)[:, :, ::-1] / 255
    high = np.clip(high, 0.1, 0.9)
    return high / 10, high


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


def seeded_network(bias: float = 0.0) -> ABSGN:
    """``bias`` is that of the last convolution."""
    torch.manual_seed(1)
    network = ABSGN(8)
    with torch.no_grad():
        list(network.parameters())[-2].fill_(bias)
    return network


def batch(count: int = 1) -> tuple[Tensor, Tensor]:
    pairs = [pair_of(seed) for seed in range(count)]
    low, high = (torch.from_numpy(np.stack(side)) for side in zip(*pairs, strict=True))
    return low.permute(0, 3, 1, 2), high.permute(0, 3, 1, 2)


def test_objective_is_the_published_loss() -> None:
    network, (low, high) = seeded_network(0.3), batch(2)
    with torch.inference_mode():
        restored = network.restore(low)
        loss = float(Objective(network)(low, high))
    absolute = float((restored - high).abs().mean())
    sides = [x.permute(0, 2, 3, 1).numpy() for x in (restored, high)]
    likeness = np.mean([reference_ssim(*images) for images in zip(*sides, strict=True)])
    assert loss == pytest.approx(0.85 * absolute + 0.15 * (1 - likeness), abs=1e-4)


@pytest.mark.parametrize("bias", [-20.0, 20.0])
def test_outputs_out_of_range_are_led_back(bias: float) -> None:
    network, (low, high) = seeded_network(bias), batch()
    with torch.inference_mode():
        restored = network.restore(low)
        assert bool((restored > 1).all() if bias > 0 else (restored < 0).all())
    Objective(network)(low, high).backward()
    gradient = list(network.parameters())[-2].grad
    assert gradient is not None
    assert bool((gradient * bias > 0).all())  # down where it is too bright, up where too dark
    earlier = next(network.parameters()).grad
    assert earlier is not None
    assert earlier.abs().max() > 0


# The recipe


def test_learning_rate_rises_then_falls() -> None:
    recipe = Recipe(learning_rate=3e-4)
    rates = [recipe.rate_at(progress) for progress in np.linspace(0, 1, 1001)]
    peak = int(np.argmax(rates))
    assert 0.005 < peak / 1000 < 0.05
    assert rates[peak] == pytest.approx(3e-4, rel=0.01)
    assert rates[peak] <= 3e-4
    assert all(a < b for a, b in pairwise(rates[: peak + 1]))
    assert all(a > b for a, b in pairwise(rates[peak:]))
    assert rates[500] == pytest.approx(1.5e-4, rel=0.02)
    assert rates[-1] == pytest.approx(3e-6)
    assert min(rates) >= 0


@pytest.mark.parametrize("learning_rate", [1e-5, 1e-2])
def test_learning_rate_scales(learning_rate: float) -> None:
    scaled = [Recipe(learning_rate=learning_rate).rate_at(p) / learning_rate for p in (0.01, 0.7)]
    assert scaled == pytest.approx([Recipe(learning_rate=1).rate_at(p) for p in (0.01, 0.7)])


def test_the_last_epochs_show_whole_images() -> None:
    recipe = Recipe(epochs=8, whole=0.3, whole_from=0.75)
    assert [recipe.share_of_whole(epoch) for epoch in range(8)] == [0.3] * 6 + [1, 1]
    assert {Recipe(whole_from=0).share_of_whole(epoch) for epoch in range(300)} == {1}
    assert {Recipe(whole=0.2, whole_from=1).share_of_whole(e) for e in range(300)} == {0.2}


# The order


@settings(max_examples=100, deadline=None)
@given(
    pairs=st.integers(1, 50),
    batch_size=st.integers(1, 6),
    processes=st.integers(1, 4),
    seed=st.integers(0, 5),
)
def test_each_epoch_sees_each_pair_about_once(
    pairs: int, batch_size: int, processes: int, seed: int
) -> None:
    recipe = Recipe(epochs=2, batch_size=batch_size, seed=seed)
    shares = [list(Order(pairs, recipe, 0, rank, processes)) for rank in range(processes)]
    assert len({len(share) for share in shares}) == 1  # or one process would wait for ever
    assert all(len(batch) == batch_size for share in shares for batch in share)
    for epoch in (0, 1):
        seen = [
            [number for batch in share for e, number in batch if e == epoch] for share in shares
        ]
        count = Counter(number for share in seen for number in share)
        assert count.keys() <= set(range(pairs))
        if pairs >= batch_size * processes:
            assert max(count.values()) == 1  # so no two processes share one either
            assert pairs - len(count) < batch_size * processes
        else:
            assert len(count) == pairs
            assert max(count.values()) - min(count.values()) <= 1


def test_epochs_come_one_after_the_other() -> None:
    order = list(Order(11, Recipe(epochs=4, batch_size=2), 0, 0, 1))
    assert [{epoch for epoch, _ in batch} for batch in order] == [
        {epoch} for epoch in range(4) for _ in range(5)
    ]


def test_order_follows_from_the_seed() -> None:
    def order(seed: int) -> list[list[tuple[int, int]]]:
        return list(Order(30, Recipe(epochs=3, batch_size=5, seed=seed), 0, 0, 1))

    assert order(7) == order(7)
    assert order(7) != order(8)


def test_each_epoch_has_another_order() -> None:
    order = list(Order(30, Recipe(epochs=3, batch_size=30), 0, 0, 1))
    assert len({tuple(number for _, number in batch) for batch in order}) == 3


def test_what_one_epoch_leaves_out_another_shows() -> None:
    order = Order(9, Recipe(epochs=20, batch_size=5), 0, 0, 1)
    assert {number for batch in order for _, number in batch} == set(range(9))


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_order_goes_on_as_if_never_interrupted(epoch: int, processes: int) -> None:
    recipe = Recipe(epochs=4, batch_size=2)
    for rank in range(processes):
        full = list(Order(13, recipe, 0, rank, processes))
        rest = list(Order(13, recipe, epoch, rank, processes))
        assert rest == [batch for batch in full if batch[0][0] >= epoch]


# The samples


def test_a_sample_follows_from_seed_epoch_and_number() -> None:
    def sample(seed: int, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        recipe = Recipe(
            seed=seed, epochs=50, augmentation=Augmentation(16, noisy=1, relit=1, already_bright=0)
        )
        # The same image for each number, so that only the augmentation can tell them apart.
        return Samples([1, 1, 1], lambda pair: pair_of(pair, 40, 48), recipe)[epoch, number]

    low, high = sample(0, 0, 0)
    assert all(torch.equal(a, b) for a, b in zip(sample(0, 0, 0), (low, high), strict=True))
    for other in (sample(1, 0, 0), sample(0, 1, 0), sample(0, 0, 1)):
        assert not torch.equal(other[0], low)
    for side in (low, high):
        assert (side.shape, side.dtype) == ((3, 16, 16), torch.float32)


def test_a_sample_is_of_its_pair_in_the_order_of_networks() -> None:
    samples = Samples([4, 5], pair_of, Recipe(whole=1, augmentation=AS_IT_IS))
    for number, seed in enumerate((4, 5)):
        for mine, image in zip(samples[0, number], pair_of(seed), strict=True):
            assert mine.flatten(1).mean(1).numpy() == pytest.approx(image.mean((0, 1)), rel=1e-5)


def is_turned(sample: Image, image: Image) -> bool:
    """One of the eight orientations, exactly."""
    turned = [np.rot90(image, turns) for turns in range(4)]
    return any(np.array_equal(sample, t) or np.array_equal(sample, t[:, ::-1]) for t in turned)


def test_the_last_samples_are_whole() -> None:
    how = Augmentation(size=16, smallest_region=0.5, noisy=0, relit=0, already_bright=0)
    recipe = Recipe(epochs=4, whole=0, whole_from=0.5, augmentation=how)
    samples = Samples(list(range(10)), pair_of, recipe)
    for epoch in range(4):
        whole = [
            is_turned(samples[epoch, number][1].permute(1, 2, 0).numpy(), pair_of(number)[1])
            for number in range(10)
        ]
        assert all(whole) if epoch >= 2 else sum(whole) <= 2


# The augmentation


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    size=st.integers(1, 40),
    whole=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)
def test_any_pair_gives_a_sample(
    height: int, width: int, size: int, whole: float, seed: int
) -> None:
    high = np.random.default_rng(height).random((height, width, 3), np.float32)
    low = high**2 * 0.3
    before = low.copy(), high.copy()
    sample = augment(low, high, Augmentation(size), whole, np.random.default_rng(seed))
    for image in sample:
        assert image.shape == (size, size, 3)
        assert image.dtype == np.float32
        assert image.flags.c_contiguous
        assert 0 <= image.min() <= image.max() <= 1
    assert np.array_equal(low, before[0])
    assert np.array_equal(high, before[1])
    again = augment(low, high, Augmentation(size), whole, np.random.default_rng(seed))
    assert all(np.array_equal(one, other) for one, other in zip(sample, again, strict=True))


@pytest.mark.parametrize(("height", "width"), [(16, 16), (20, 48), (60, 33), (9, 12), (256, 30)])
@pytest.mark.parametrize("whole", [0.0, 1.0])
def test_pairs_stay_aligned(height: int, width: int, whole: float) -> None:
    low, high = pair_of(height, height, width)
    how = Augmentation(size=24, noisy=0, relit=0, already_bright=0)
    for seed in range(12):
        dark, bright = augment(low, high, how, whole, np.random.default_rng(seed))
        assert bright.std() > 0.01
        assert np.abs(bright - 10 * dark).max() < 1e-5


def test_another_exposure_changes_the_dark_side_by_one_factor() -> None:
    low, high = pair_of(1)
    how = Augmentation(size=16, noisy=0, relit=1, already_bright=0)
    stops = []
    for seed in range(60):
        dark, bright = augment(low, high, how, 1, np.random.default_rng(seed))
        factors = 10 * dark / bright
        assert np.ptp(factors) < 1e-4
        assert is_turned(bright, high)
        stops.append(float(np.log2(factors.mean())))
    assert -0.5 <= min(stops) < -0.3
    assert 1.3 < max(stops) <= 1.5


def test_what_is_bright_is_brought_back_or_stays() -> None:
    low, high = pair_of(1)
    how = Augmentation(size=16, noisy=0, relit=1, already_bright=1)
    stops = []
    for seed in range(100):
        dark, bright = augment(low, high, how, 1, np.random.default_rng(seed))
        if not is_turned(bright, high):
            assert np.array_equal(dark, bright)
            factors = bright[bright < 1].sum() / np.sort(high, None)[: (bright < 1).sum()].sum()
            stops.append(float(np.log2(factors)))
        else:
            assert np.ptp(dark / bright) < 1e-5
            stops.append(float(np.log2((dark / bright).mean())))
    assert -2 <= min(stops) < -1.7
    assert 0.8 < max(stops) <= 1.001


def test_noise_is_on_the_dark_side_only() -> None:
    low, high = pair_of(1)
    how = Augmentation(size=16, noisy=1, relit=0, already_bright=0)
    for seed in range(10):
        dark, bright = augment(low, high, how, 1, np.random.default_rng(seed))
        assert is_turned(bright, high)
        assert not is_turned(dark, low)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_shares_of_samples(share: float) -> None:
    low, high = pair_of(1)
    how = Augmentation(size=16, smallest_region=0.5, noisy=share, relit=0, already_bright=0)
    samples = [augment(low, high, how, 1, np.random.default_rng(seed)) for seed in range(300)]
    noisy = sum(not is_turned(dark, low) for dark, _ in samples)
    assert noisy / 300 == pytest.approx(share, abs=0.1)


def test_all_orientations_occur_about_equally() -> None:
    low, high = pair_of(1)
    random = np.random.default_rng(0)
    count = Counter(augment(low, high, AS_IT_IS, 1, random)[1].tobytes() for _ in range(800))
    assert len(count) == 8
    assert min(count.values()) > 60


def test_regions_are_large_enough_and_lie_anywhere() -> None:
    position = np.linspace(0, 1, 64, dtype=np.float32)
    high = np.stack([*np.meshgrid(position, position), np.zeros((64, 64), np.float32)], axis=2)
    how = Augmentation(size=32, smallest_region=0.5, noisy=0, relit=0, already_bright=0)
    random = np.random.default_rng(0)
    spans, firsts, lasts = [], [], []
    for _ in range(200):
        region = augment(high, high, how, 0, random)[1][:, :, :2].reshape(-1, 2)
        first, last = region.min(0), region.max(0)
        spans.append(last - first)
        firsts.append(first)
        lasts.append(last)
    shares = np.array(spans)
    assert np.abs(shares[:, 0] - shares[:, 1]).max() < 0.05  # its sides are of one share
    assert 0.45 < shares.min() < 0.55
    assert shares.max() > 0.9
    assert np.min(firsts) < 0.03
    assert np.max(firsts) > 0.35
    assert np.max(lasts) > 0.97


@pytest.mark.parametrize("strength", [0.5, 1.0, 1.3])
@pytest.mark.parametrize("level", [40, 90, 180])
def test_noise_is_as_strong_as_measured(level: int, strength: float) -> None:
    image = np.full((160, 160, 3), level / 255, np.float32)
    noisy = add_noise(image, strength, np.random.default_rng(level)) * 255
    assert np.abs(noisy - np.rint(noisy)).max() < 1e-3  # on the camera's levels
    rounding = 1 / 12
    expected = strength**2 * (READ_VARIANCE + SHOT_VARIANCE * level) + rounding
    assert float(noisy.var()) == pytest.approx(expected, rel=0.04)
    assert float(noisy.mean()) == pytest.approx(level, abs=0.2)


def test_noise_of_a_black_image() -> None:
    noisy = add_noise(np.zeros((160, 160, 3), np.float32), 1, np.random.default_rng(0)) * 255
    assert noisy.min() == 0
    half = float(np.square(noisy).mean())  # the other half is cut off at 0
    assert half == pytest.approx((READ_VARIANCE + 1 / 12) / 2, rel=0.1)


def test_noise_grows_within_an_image() -> None:
    image = np.zeros((128, 256, 3), np.float32)
    image[:, :128], image[:, 128:] = 30 / 255, 200 / 255
    noisy = add_noise(image, 1, np.random.default_rng(0)) * 255
    ratio = float(noisy[:, 128:].var() / noisy[:, :128].var())
    expected = (READ_VARIANCE + SHOT_VARIANCE * 200) / (READ_VARIANCE + SHOT_VARIANCE * 30)
    assert ratio == pytest.approx(expected, rel=0.08)


def test_neighbouring_noise_is_a_little_alike_but_colours_are_not() -> None:
    image = np.full((96, 96, 3), 0.5, np.float32)
    grains = []
    for seed in range(20):
        noise = add_noise(image, 1, np.random.default_rng(seed)) - 0.5
        beside = np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]
        colours = np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]
        assert abs(colours) < 0.05
        grains.append(float(beside))
    assert -0.02 < min(grains) < 0.1
    assert 0.2 < max(grains) < 0.6


# The trainer


SMALL = Augmentation(size=16)


def trainer_for(recipe: Recipe, start: dict[str, Tensor] | None = None) -> Trainer[int]:
    return Trainer(recipe, list(range(5)), lambda n: pair_of(n, 20, 24), CPU, 0, start)


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


def test_training_is_the_plain_loop() -> None:
    recipe = Recipe(
        channels=8, epochs=4, batch_size=2, learning_rate=1e-2, average=0.15, augmentation=SMALL
    )
    trainer = trainer_for(recipe)
    start = stored(trainer.weights)
    losses = list(trainer.epochs())

    network = ABSGN(8).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.load_state_dict(start)
    parameters = list(network.parameters())
    optimizer = torch.optim.Adam(parameters)
    samples = Samples(list(range(5)), lambda n: pair_of(n, 20, 24), recipe)
    averages: list[dict[str, Tensor]] = []
    own_losses: list[float] = []
    norms: list[float] = []
    for step, keys in enumerate(Order(5, recipe, 0, 0, 1)):
        low, high = (torch.stack(side) for side in zip(*(samples[k] for k in keys), strict=True))
        loss = Objective(network)(low, high)
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, 1.0)))
        optimizer.param_groups[0]["lr"] = recipe.rate_at((step + 1) / 8)
        optimizer.step()
        own_losses.append(loss.item())
        now = stored(network.state_dict())
        # From the second step on, 0.15 is the smaller of the two; the first is taken as it is.
        last = averages[-1] if averages else now
        averages.append({n: 0.15 * t + 0.85 * now[n] for n, t in last.items()})

    assert max(norms) > 1 > min(norms)  # some were cut, some not
    assert losses == pytest.approx(np.reshape(own_losses, (4, 2)).mean(1), rel=1e-3)
    assert distance(network_in(trainer), now) < 1e-3 * distance(now, start)
    assert distance(trainer.weights, averages[-1]) < 0.01 * distance(averages[-1], now)


def network_in(trainer: Trainer[int]) -> dict[str, Tensor]:
    """The weights themselves, not their average."""
    state = trainer.state()
    return {n.removeprefix("network."): t for n, t in state.items() if n.startswith("network.")}


def test_a_resumed_run_is_the_run_that_was_never_interrupted() -> None:
    recipe = Recipe(channels=8, epochs=3, batch_size=2, augmentation=SMALL)
    through = trainer_for(recipe)
    losses = list(through.epochs())
    assert (len(losses), through.epoch) == (3, 3)

    first = trainer_for(recipe)
    begun = list(islice(first.epochs(), 1))
    state = stored(first.state())
    torch.manual_seed(99)
    torch.rand(7)  # whatever else happened to the process
    second = trainer_for(recipe, start=dict(ABSGN(8).state_dict()))
    second.resume(state, 1)
    assert second.epoch == 1
    assert_equal(stored(second.state()), state)
    assert begun + list(second.epochs()) == losses
    assert_equal(stored(second.state()), stored(through.state()))
    assert_equal(second.weights, through.weights)


def test_a_finished_run_has_nothing_left_to_do() -> None:
    trainer = trainer_for(Recipe(channels=8, epochs=1, batch_size=5, augmentation=SMALL))
    list(trainer.epochs())
    before = stored(trainer.state())
    assert list(trainer.epochs()) == []
    assert_equal(stored(trainer.state()), before)


def test_the_seed_decides_the_start() -> None:
    def weights(seed: int) -> dict[str, Tensor]:
        return trainer_for(Recipe(channels=8, seed=seed)).weights

    assert_equal(weights(1), weights(1))
    assert not torch.equal(next(iter(weights(1).values())), next(iter(weights(2).values())))


def test_training_may_start_from_weights() -> None:
    torch.manual_seed(3)
    start = dict(ABSGN(8).state_dict())
    trainer = trainer_for(Recipe(channels=8, epochs=1, batch_size=5), start)
    assert_equal(trainer.weights, start)


Overfitted = tuple[Trainer[int], list[float], dict[str, Tensor]]


@pytest.fixture(scope="module")
def overfitted() -> Overfitted:
    """One pair, seen again and again; the losses; the weights before."""
    recipe = Recipe(
        channels=8, epochs=60, batch_size=1, learning_rate=2e-3, whole=1, augmentation=AS_IT_IS
    )
    trainer = Trainer(recipe, [1], pair_of, CPU, 0)
    before = stored(trainer.weights)
    return trainer, list(trainer.epochs()), before


def test_the_loss_falls(overfitted: Overfitted) -> None:
    _, losses, _ = overfitted
    assert len(losses) == 60
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < 0.4 * np.mean(losses[:3])


def test_the_moving_average_has_learned_too(overfitted: Overfitted) -> None:
    trainer, _, before = overfitted
    low, high = batch()
    scores = []
    for weights in (before, trainer.weights):
        network = ABSGN(8)
        network.load_state_dict(weights)
        with torch.inference_mode():
            scores.append(float(Objective(network)(low, high)))
    assert scores[1] < 0.5 * scores[0]


def test_the_moving_average_forgets_the_start_quickly() -> None:
    recipe = Recipe(channels=8, epochs=20, batch_size=1, average=0.999, augmentation=AS_IT_IS)
    trainer = Trainer(recipe, [1], pair_of, CPU, 0)
    start = stored(trainer.weights)
    for _ in trainer.epochs():
        pass

    current = network_in(trainer)
    assert current.keys() == trainer.weights.keys()
    moved = distance(current, start)
    assert moved > 0
    assert 0 < distance(trainer.weights, current) < 0.5 * moved  # 0.98 with 0.999 from the start
