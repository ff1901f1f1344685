"""The loop: minibatches, reports, resuming to the bit, the first update's rate, divergence."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_core.algorithm1 import AlgorithmSettings
from gan_core.checkpoint import commit_checkpoint, read_checkpoint, tensors_digest
from gan_core.datasets import Examples
from gan_core.datasets.digits import load_digits
from gan_core.draws import DrawSource
from gan_core.errors import DataError, Diverged
from gan_core.networks.dense import DenseDiscriminatorSettings, DenseGeneratorSettings, NetworkSettings
from gan_core.noise import NoiseSettings
from gan_core.objectives.value_function import discriminator_loss, non_saturating
from gan_core.training import BatchSource, TrainingSettings, initial_state, sample, train

DIGITS = load_digits()
SETTINGS = TrainingSettings(
    noise=NoiseSettings(size=8),
    network=NetworkSettings(
        generator=DenseGeneratorSettings(hidden=(32,)),
        discriminator=DenseDiscriminatorSettings(units=(16,), pieces=2, init_range=0.05),
    ),
    algorithm=AlgorithmSettings(batch_size=250),  # 4 minibatches an epoch, of the 1,000 training examples
)


pytestmark = pytest.mark.usefixtures("one_thread")


def never(step: int) -> bool:
    return False


def changed(**changes) -> TrainingSettings:
    return replace(SETTINGS, algorithm=replace(SETTINGS.algorithm, **changes))


def trained(settings: TrainingSettings, steps: int):
    state = initial_state(settings, DIGITS.train)
    *_, report = train(settings, DIGITS.train, state, steps, never)
    return state, report.metrics


def digest(state) -> str:
    return tensors_digest(*state.tensors().values())


def untimed(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.endswith("_per_second")}


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize(("scheme", "k"), [("simultaneous", 1), ("algorithm1", 3)])
def test_resumed_training_equals_the_undisturbed_one(tmp_path, optimizer, scheme, k):
    """A training resumed within an epoch ends with an undisturbed one's bits, with each optimizer and scheme."""
    settings = changed(
        optimizer=optimizer, scheme=scheme, discriminator_steps=k, generator_learning_rate=0.01, share_draws=k == 1
    )
    whole, metrics = trained(settings, 11)
    interrupted, _ = trained(settings, 5)  # within the second epoch, or the fourth
    folder = commit_checkpoint(tmp_path, 5, interrupted.tensors())
    state = initial_state(replace(settings, seed=99), DIGITS.train)
    state.load(read_checkpoint(folder)[1])
    *_, last = train(settings, DIGITS.train, state, 11, never)
    assert digest(state) == digest(whole)
    assert untimed(last.metrics) == untimed(metrics)
    assert int(state.step) == 11


def test_training_is_a_function_of_all_its_settings():
    """The same settings give the same weights, and a change of any one of them changes the weights."""
    variants = {
        "same": SETTINGS,
        "seed": replace(SETTINGS, seed=1),
        "prior": replace(SETTINGS, noise=NoiseSettings("normal", 8)),
        "draws": changed(share_draws=False),
        "scheme": changed(scheme="algorithm1", share_draws=False),
        "scale": changed(discriminator_loss_scale=1.0),
        "decay": changed(learning_rate_decay=1.1),
    }
    ends = {name: digest(trained(settings, 3)[0]) for name, settings in variants.items()}
    assert digest(trained(SETTINGS, 3)[0]) == ends["same"]
    assert len(set(ends.values())) == len(variants)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 3), st.integers(0, 2**32))
def test_epoch_is_a_permutation_without_repetition(count, size, epoch, seed):
    """An epoch's minibatches are a permutation of the examples, without repetition and in whole minibatches."""
    size = min(size, count)
    images = np.arange(count, dtype=np.float32)[:, None]
    source = BatchSource(seed, Examples(images, np.zeros(count, np.int64)), size)
    assert source.per_epoch == count // size
    first = epoch * source.per_epoch
    batches = [source.at(first + i).data.flatten().tolist() for i in range(source.per_epoch)]
    assert all(len(batch) == size for batch in batches)
    seen = [value for batch in batches for value in batch]
    # Whole minibatches only: the rest of the epoch's permutation is left out.
    assert len(set(seen)) == len(seen) == count // size * size
    assert set(seen) <= set(range(count))


def test_minibatches_depend_on_epoch_and_seed_alone():
    """Minibatches differ between epochs and seeds, and not with the order in which they are asked for."""

    def epoch(source, number):
        return torch.cat([source.at(4 * number + i).data for i in range(4)])

    one, other = BatchSource(0, DIGITS.train, 250), BatchSource(1, DIGITS.train, 250)
    first, second, third = (epoch(one, number) for number in (0, 1, 0))
    assert torch.equal(first, third)
    for different in (second, epoch(other, 0)):
        assert not torch.equal(first, different)
        assert torch.equal(first.sort(dim=0).values, different.sort(dim=0).values)
    rows = slice(50, 80)
    assert torch.equal(one.at(6, rows).data, one.at(6).data[rows])
    assert one.at(6).condition.shape == (250, 0)


def test_each_step_takes_the_next_k_minibatches():
    """Each step takes the next k minibatches and no others: changing any other image changes nothing."""
    settings = changed(discriminator_steps=2, batch_size=125)  # of 8 minibatches, two steps take four
    order = Examples(np.arange(1000, dtype=np.float32)[:, None], DIGITS.train.labels)

    def end(images):
        state = initial_state(settings, DIGITS.train)
        list(train(settings, Examples(images, DIGITS.train.labels), state, 2, never))
        return digest(state)

    untouched, moved = end(DIGITS.train.images), []
    for index in range(8):
        images = DIGITS.train.images.copy()
        images[BatchSource(settings.seed, order, 125).at(index).data.flatten().long()] = 0.5
        moved.append(end(images) != untouched)
    assert moved == [True] * 4 + [False] * 4


def test_examples_left_out_of_one_epoch_come_in_others():
    data = Examples(np.arange(10, dtype=np.float32)[:, None], np.zeros(10, np.int64))
    source = BatchSource(0, data, 8)
    # One minibatch of 8 of 10 an epoch: an example missing from all of 40 has a chance of 10 x 0.2^40.
    assert {value for index in range(40) for value in source.at(index).data.flatten().tolist()} == set(range(10))


def test_fewer_examples_than_a_batch_are_refused():
    """Fewer examples than one minibatch are refused with both numbers."""
    with pytest.raises(DataError, match=r"249 examples; expected algorithm.batch_size 250 or more"):
        next(train(SETTINGS, DIGITS.train[:249], initial_state(SETTINGS, DIGITS.train), 1, never))


@pytest.mark.parametrize(
    ("due", "expected"), [(never, [7]), (lambda step: step % 3 == 0, [3, 6, 7]), (lambda step: step == 7, [7])]
)
def test_reports_come_where_due_and_after_the_last_step(due, expected):
    state = initial_state(SETTINGS, DIGITS.train)
    reports = [(r.step, int(r.state.step), r.metrics) for r in train(SETTINGS, DIGITS.train, state, 7, due)]
    assert [(step, live) for step, live, _ in reports] == [(step, step) for step in expected]
    for step, _, metrics in reports:
        assert metrics["epoch"] == step / 4
        assert metrics["value"] == -metrics["discriminator_loss"]
        assert metrics["jensen_shannon_bound"] == pytest.approx((metrics["value"] + np.log(4)) / 2, abs=1e-12)
        assert metrics["images_per_second"] == 250 * metrics["steps_per_second"] > 0
        assert 0 <= metrics["real_accuracy"] <= 1
        assert 0 <= metrics["fake_accuracy"] <= 1
    assert list(train(SETTINGS, DIGITS.train, state, 7, due)) == []


@pytest.mark.parametrize("nets", [["discriminator"], ["discriminator", "generator"]])
@pytest.mark.parametrize(("due", "step"), [(lambda step: True, 2), (lambda step: step == 5, 5), (never, 9)])
def test_divergence_stops_at_the_first_report(nets, due, step):
    """A learning rate of 1e20 diverges at the first report after its first update, with exit code 6."""
    settings, finite = changed(**{f"{net}_learning_rate": 1e20 for net in nets}), []
    reports = train(settings, DIGITS.train, initial_state(settings, DIGITS.train), 9, due)
    with pytest.raises(Diverged, match=rf"diverged \(step {step}\): .*(nan|inf).*; expected finite losses") as raised:
        finite.extend(np.isfinite(list(report.metrics.values())).all() for report in reports)
    assert finite == [True] * (step == 2)
    assert raised.value.exit_code == 6


def test_first_update_is_each_rate_times_its_gradient():
    """The first update moves each net by its own rate times its gradient, and reports the gradient's norm."""
    settings = changed(generator_learning_rate=0.07, discriminator_learning_rate=0.03)
    before, after = initial_state(settings, DIGITS.train), initial_state(settings, DIGITS.train)
    (report,) = train(settings, DIGITS.train, after, 1, never)
    real = BatchSource(settings.seed, DIGITS.train, 250).at(0)
    G, D, none = before.generator, before.discriminator, real.condition
    draw = DrawSource(settings.seed, settings.noise, D.dropout, 250, 1, True).at(0).generator
    fake_logits = D(G(draw.noise, none), none, draw.fake_masks)
    losses = {
        "discriminator": discriminator_loss(D(real.data, none, draw.real_masks), fake_logits) / 2,
        "generator": non_saturating(fake_logits),
    }
    for (name, loss), rate in zip(losses.items(), (0.03, 0.07), strict=True):
        start, end = (list(getattr(state, name).parameters()) for state in (before, after))
        gradients = torch.autograd.grad(loss, start, retain_graph=True)
        for p, q, gradient in zip(start, end, gradients, strict=True):
            # A float32 parameter is stored to 2^-24 of itself (biases are up to 16); the gradient is a
            # float32 sum over 500 rows, where ours goes through D once and this one twice.
            torch.testing.assert_close(q - p, -rate * gradient, rtol=1e-3, atol=1e-6)
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
        assert report.metrics[f"{name}_gradient_norm"] == pytest.approx(norm, rel=1e-4)
    assert report.metrics["discriminator_loss"] == pytest.approx(2 * losses["discriminator"].item(), rel=1e-5)


def test_g_starts_at_the_mean_training_image():
    """The initial output bias makes G's image at zero input the mean of its training data."""
    bias = initial_state(SETTINGS, DIGITS.train).generator.biases[-1]
    mean = DIGITS.train.images.mean(axis=0, dtype=np.float64)
    # float32 logits of up to 16, where sigmoid' is at most 1/4; the clip at 1e-7.
    assert torch.sigmoid(bias.double()).detach().numpy() == pytest.approx(mean, abs=3e-7)


def test_d_alone_learns_then_g_alone_learns():
    """D alone learns to tell samples from data, and then G alone learns to pass for the data."""

    def play(state, until, **rates):
        metrics = [r.metrics for r in train(changed(**rates), DIGITS.train, state, until, lambda step: step % 50 == 1)]
        return metrics[0], metrics[-1]

    state, still = initial_state(SETTINGS, DIGITS.train), 1e-9
    first, last = play(state, 200, discriminator_learning_rate=0.2, generator_learning_rate=still)
    # D is 1/2 everywhere at first, up to its small initial weights; G, that shows little but the mean
    # image, is told from the data in most cases. Its dropout keeps D from being sure of it.
    assert first["value"] == pytest.approx(-np.log(4), abs=0.01)
    assert last["value"] > -0.7
    assert min(last["real_accuracy"], last["fake_accuracy"]) > 0.8
    before, after = play(state, 500, discriminator_learning_rate=still, generator_learning_rate=0.2)
    assert after["generator_loss"] < before["generator_loss"] / 2
    assert after["fake_accuracy"] < 0.5


def test_samples_are_g_of_z_without_gradient():
    """Samples are G of z whatever the number of blocks, and carry no gradient."""
    generator = initial_state(SETTINGS, DIGITS.train).generator
    noise = torch.randn(1001, 8)
    samples = sample(generator, noise)
    assert not samples.requires_grad
    # Blocks of other sizes may add in another order: float32 sums of at most 32 terms.
    torch.testing.assert_close(samples, generator(noise, torch.empty(1001, 0)).detach(), rtol=1e-5, atol=1e-6)


def test_ema_of_g_changes_no_training_and_resumes(tmp_path):
    """The EMA of G follows its weights, changes no training, and is resumed to the bit."""
    averaging = changed(generator_average=0.9)
    plain, _ = trained(SETTINGS, 12)
    state = initial_state(averaging, DIGITS.train)
    expected = [weight.detach().double().clone() for weight in state.generator.parameters()]
    for report in train(averaging, DIGITS.train, state, 12, lambda step: True):
        kept = min(0.9, report.step / (9 + report.step))
        for average, weight in zip(expected, report.state.generator.parameters(), strict=True):
            average.mul_(kept).add_(weight.detach().double(), alpha=1 - kept)
    assert tensors_digest(dict(state.generator.state_dict())) == tensors_digest(dict(plain.generator.state_dict()))
    for average, weight in zip(expected, state.averaged.parameters(), strict=True):
        # Twelve float32 roundings of numbers below 1.
        torch.testing.assert_close(weight.detach().double(), average, rtol=0, atol=1e-6)
    assert digest(state) != digest(plain)

    half = initial_state(averaging, DIGITS.train)
    list(train(averaging, DIGITS.train, half, 6, never))
    commit_checkpoint(tmp_path, 6, half.tensors(), {})
    resumed = initial_state(averaging, DIGITS.train)
    resumed.load(read_checkpoint(tmp_path / "step=00000006")[1])
    list(train(averaging, DIGITS.train, resumed, 12, never))
    assert digest(resumed) == digest(state)
