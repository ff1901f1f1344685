"""Priors, dropout masks and the draws of a step: their distributions, and what they depend on."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gan_core.draws import Draw, DrawSource, dropout_mask
from gan_core.noise import NoiseSettings, draw_noise
from gan_core.randomness import stream

BATCH, DROPOUT = 12, [(6, 0.8), (5, 0.5), (4, 0.5)]
steps = st.integers(0, 1000)


def source(seed: int = 0, k: int = 2, shared: bool = False, dropout: list[tuple[int, float]] = DROPOUT) -> DrawSource:
    return DrawSource(seed, NoiseSettings(size=3), dropout, BATCH, k, shared)


def tensors(draw: Draw) -> list[torch.Tensor]:
    return [draw.noise, *draw.real_masks, *draw.fake_masks]


def equal(one: Draw, other: Draw) -> bool:
    pairs = itertools.zip_longest(tensors(one), tensors(other))
    return all(a is not None and b is not None and torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("prior", "law", "fourth_moment"),
    [("uniform", stats.uniform(-math.sqrt(3), 2 * math.sqrt(3)), 9 / 5), ("normal", stats.norm(), 3)],
)
def test_priors_have_their_law_mean_and_variance(prior, law, fourth_moment):
    """Both priors have their law, with mean 0 and variance 1, so that their scales can be compared."""
    z = draw_noise(stream(0, "test"), 2000, NoiseSettings(prior, 100)).double().numpy().ravel()
    # n = 200,000 draws of unit variance: the mean's standard error is n^-1/2 = 0.0022, the variance's
    # ((E z^4 - 1) / n)^1/2. Five of each.
    assert z.mean() == pytest.approx(0, abs=5 / math.sqrt(z.size))
    assert z.var() == pytest.approx(1, abs=5 * math.sqrt((fourth_moment - 1) / z.size))
    # Kolmogorov-Smirnov on a fixed seed: the wrong law has a p-value of 0 at this size.
    assert stats.kstest(z, law.cdf).pvalue > 1e-3
    assert np.abs(z).max() <= (np.float32(math.sqrt(3)) if prior == "uniform" else np.inf)


def test_rows_of_z_are_independent_of_each_other():
    z = draw_noise(stream(1, "test"), 1000, NoiseSettings("normal", 50)).double()
    correlations = (z @ z.T / 50)[~torch.eye(1000, dtype=torch.bool)]
    # Each is a mean of 50 products of unit variance, so has variance 1 / 50. The estimate's main error
    # is twice that of the mean of z^2 over 50,000 draws, 2 (2 / 50,000)^1/2 = 0.0126; five of them.
    assert correlations.var().item() * 50 == pytest.approx(1, abs=0.063)


@pytest.mark.parametrize("keep", [0.25, 0.5, 0.8, 1.0])
def test_dropout_masks_keep_at_rate_and_rescale(keep):
    """Masks keep at their rate, independently, and scale what they keep by its inverse."""
    mask = dropout_mask(stream(0, "test"), (1000, 200), keep)
    assert set(mask.unique().tolist()) == {np.float32(1 / keep).item()} | ({0.0} if keep < 1 else set())
    # 200,000 Bernoulli draws: five standard errors, and half of the rate's resolution of 2^-16.
    margin = 5 * math.sqrt(keep * (1 - keep) / mask.numel()) + 2**-17
    assert (mask > 0).double().mean().item() == pytest.approx(keep, abs=margin)
    assert (mask > 0).double().mean(dim=0).std().item() == pytest.approx(
        math.sqrt(keep * (1 - keep) / 1000),
        rel=5 / math.sqrt(2 * 200),  # of 200 columns' rates, as independent draws have it
    )


@given(steps, st.integers(0, BATCH), st.integers(0, BATCH), st.booleans())
def test_draws_of_rows_are_rows_of_the_global_draw(step, first, last, shared):
    """Draws restricted to rows are those rows of the global draw, which is what a shard needs."""
    rows = slice(min(first, last), max(first, last))
    here, everywhere = source(shared=shared).at(step, rows), source(shared=shared).at(step)
    assert all(equal(a, b.rows(rows)) for a, b in zip(here.discriminator, everywhere.discriminator, strict=True))
    assert equal(here.generator, everywhere.generator.rows(rows))


@given(st.permutations(list(range(4))))
def test_draws_do_not_depend_on_step_order(order):
    """A step's draws do not depend on the order in which steps are asked for."""
    draws = source()
    asked = {step: draws.at(step) for step in order}
    for step in order:
        fresh = source().at(step)
        assert all(equal(a, b) for a, b in zip(asked[step].discriminator, fresh.discriminator, strict=True))
        assert equal(asked[step].generator, fresh.generator)


def test_every_update_and_seed_draws_anew():
    """Every update of every step draws anew, and so does every seed: no two tensors are equal."""
    drawn = [source(seed).at(step) for seed in (0, 1) for step in range(3)]
    seen = [tensor for draws in drawn for draw in (*draws.discriminator, draws.generator) for tensor in tensors(draw)]
    # 2 seeds x 3 steps x (2 updates of D with z and 6 masks, one of G with z and 3 masks).
    assert len({(tensor.shape, tensor.numpy().tobytes()) for tensor in seen}) == len(seen) == 2 * 3 * (2 * 7 + 4)


@given(steps)
def test_nth_d_update_draws_the_same_for_any_k(step):
    """The n-th update of D draws the same whatever the number k of updates in a step."""
    three = source(k=3).at(step).discriminator
    assert all(equal(source(k=1).at(3 * step + i).discriminator[0], draw) for i, draw in enumerate(three))


def test_g_reuses_d_draw_only_if_draws_are_shared():
    """G has D's last draw if and only if draws are shared."""
    shared, own = source(shared=True).at(7), source(shared=False).at(7)
    assert equal(shared.generator, shared.discriminator[-1])
    assert not torch.equal(own.generator.noise, own.discriminator[-1].noise)
    assert not torch.equal(own.generator.fake_masks[0], own.discriminator[-1].fake_masks[0])
    assert own.generator.real_masks == ()


def test_masks_fit_batch_and_layer_or_are_absent():
    """Masks have the batch's rows and their layer's width, and none are drawn without dropout."""
    draw = source().at(0).discriminator[0]
    for masks in (draw.real_masks, draw.fake_masks):
        assert [tuple(mask.shape) for mask in masks] == [(BATCH, width) for width, _ in DROPOUT]
    without = source(dropout=[(6, 1.0), (5, 1.0)]).at(0).discriminator[0]
    assert without.real_masks == without.fake_masks == ()
    one = source(dropout=[(6, 1.0), (5, 0.5)]).at(0).discriminator[0]
    assert torch.equal(one.fake_masks[0], torch.ones(BATCH, 6))
    assert not torch.equal(one.fake_masks[1], torch.full((BATCH, 5), 2.0))


@pytest.mark.parametrize("size", [0, -1])
def test_a_width_of_z_below_one_is_refused(size):
    with pytest.raises(ValueError, match=f"noise.size {size} is not a width"):
        NoiseSettings(size=size)
