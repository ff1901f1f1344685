"""Completions keep what is observed, masks are what they are called, errors are what they are of known guesses."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gan_core.conditions.masks import EVERY_MASK, MASK_NAMES, drawn_masks, named_mask
from gan_core.conditions.observed import Completing, Observed, condition_of
from gan_core.conditions.settings import ExtensionSettings, conditions_from, conditions_of, described
from gan_core.data_parallel import Shards
from gan_core.datasets.digits import load_digits
from gan_core.errors import ConfigurationError
from gan_core.extensions.imputation import completion_error, completions, nearest_mean
from gan_core.extensions.measures import described_measures, extension_measures, headline
from gan_core.networks.dense import DenseGenerator, DenseGeneratorSettings
from gan_core.noise import NoiseSettings
from gan_core.portable import PortableGenerator, load_generator, save_generator
from gan_core.randomness import stream
from gan_core.training import BatchSource, initial_state, train
from tests.gan_core.test_training import SETTINGS, never

DIGITS = load_digits()
OBSERVED = Observed((8, 8), EVERY_MASK)


def model(output: float | None = None) -> PortableGenerator:
    """G of random weights; or one whose own pixels are all `output`."""
    settings = DenseGeneratorSettings(hidden=(16,), output="linear", marginal_bias=False)
    net = DenseGenerator(4, OBSERVED.size, 64, settings)
    random = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random) * (0.1 if output is None else 0)
    if output is not None:
        net.biases[-1].data.fill_(output)
    return PortableGenerator(OBSERVED.wrap(net).eval(), NoiseSettings("normal", 4), settings, (8, 8), "unit", OBSERVED)


def test_completions_keep_observed_pixels_to_the_bit():
    """Observed pixels are kept to the bit; elsewhere completions differ and depend on the seed."""
    images, mask = DIGITS.test.images[:5], named_mask("left", (8, 8))
    filled = completions(model(), images, mask[None], 6, seed=0).reshape(5, 6, 64)
    observed = mask.reshape(-1) == 1
    assert np.array_equal(filled[:, :, observed], np.repeat(images[:, None, observed], 6, axis=1))
    assert filled[:, :, ~observed].var(axis=1).min() > 1e-6
    assert np.array_equal(filled, completions(model(), images, mask[None], 6, seed=0).reshape(5, 6, 64))
    assert not np.array_equal(filled, completions(model(), images, mask[None], 6, seed=1).reshape(5, 6, 64))


def test_g_sees_of_an_image_only_what_is_observed():
    images, mask = DIGITS.test.images[:3], named_mask("square", (8, 8))
    changed = np.where(mask.reshape(-1) == 1, images, 0.7).astype(np.float32)
    assert np.array_equal(
        completions(model(), images, mask[None], 2, 0), completions(model(), changed, mask[None], 2, 0)
    )
    given = condition_of(images, mask[None])
    assert given.shape == (3, 128)
    assert torch.equal(given[:, 64:], torch.from_numpy(mask.reshape(1, -1)).expand(3, -1))


def test_no_gradient_reaches_g_through_an_observed_pixel():
    filling = DenseGenerator(2, 128, 64, DenseGeneratorSettings(hidden=(16,), output="linear"))
    for parameter in filling.parameters():
        nn.init.ones_(parameter)
    net, weights = Completing(filling), filling.weights[-1]
    mask = named_mask("right", (8, 8))
    image = net(torch.randn(1, 2), condition_of(DIGITS.test.images[:1], mask[None]))
    (of_observed,) = torch.autograd.grad(image[:, mask.reshape(-1) == 1].sum(), [weights], retain_graph=True)
    (of_missing,) = torch.autograd.grad(image[:, mask.reshape(-1) == 0].sum(), [weights])
    assert not of_observed.any()
    assert of_missing.any()


@given(st.integers(0, 2**32), st.integers(2, 9), st.integers(2, 9), st.sampled_from(EVERY_MASK))
def test_masks_are_binary_and_shared_by_colours(seed, height, width, kind):
    """Masks are of zeros and ones, the same for all colours, and of the shape their kind names."""
    masks = drawn_masks(stream(seed, "x"), 30, (height, width, 3), [kind])
    assert masks.shape == (30, height, width, 3)
    assert set(np.unique(masks)) <= {0, 1}
    assert (masks == masks[..., :1]).all()
    missing = 1 - masks[..., 0]
    if kind == "all":
        assert missing.all()
    if kind == "halves":
        halves = {named_mask(name, (height, width)).tobytes() for name in ("left", "right", "top", "bottom")}
        assert {mask[..., 0].tobytes() for mask in masks} <= halves
    if kind == "squares":
        for one in missing:
            rows, columns = np.flatnonzero(one.any(axis=1)), np.flatnonzero(one.any(axis=0))
            assert len(rows) == len(columns) == rows[-1] - rows[0] + 1 == columns[-1] - columns[0] + 1
            assert one.sum() == len(rows) ** 2
            assert max(1, min(height, width) // 4) <= len(rows) <= max(1, 3 * min(height, width) // 4)


def test_mask_kinds_are_equally_frequent():
    """Each kind is as frequent as the next, and the share of missing pixels is uniform."""
    masks = drawn_masks(stream(0, "x"), 4000, (8, 8), EVERY_MASK)
    # Only `all` leaves nothing, but for a pixel mask in a hundred: a standard error of 0.007; four of them.
    assert (masks.reshape(4000, -1).sum(axis=1) == 0).mean() == pytest.approx(0.25 + 0.25 / 65, abs=0.028)
    shares = 1 - drawn_masks(stream(0, "x"), 4000, (8, 8), ["pixels"]).reshape(4000, -1).mean(axis=1)
    assert np.abs(np.quantile(shares, [0.1, 0.5, 0.9]) - [0.1, 0.5, 0.9]).max() < 0.04


def test_named_masks_miss_what_they_name():
    for name, missing in {"left": np.s_[:, :4], "right": np.s_[:, 4:], "top": np.s_[:4], "bottom": np.s_[4:],
                          "square": np.s_[2:6, 2:6]}.items():  # fmt: skip
        expected = np.ones((8, 8))
        expected[missing] = 0
        assert np.array_equal(named_mask(name, (8, 8)), expected)
    assert named_mask("pixels", (8, 8), 1).sum() == 32
    assert not np.array_equal(named_mask("pixels", (8, 8), 1), named_mask("pixels", (8, 8), 2))


def test_errors_are_those_of_known_guesses():
    error = completion_error(model(output=0.5), DIGITS, "bottom", 0)
    truth = DIGITS.test.images[:500].reshape(-1, 8, 8)[:, 4:]
    assert error.error == error.one_completion == pytest.approx(((truth - 0.5) ** 2).mean(), rel=1e-6)
    mean = DIGITS.train.images.mean(axis=0).reshape(8, 8)[4:]
    assert error.mean_image == pytest.approx(((truth - mean) ** 2).mean(), rel=1e-5)
    assert error.nearest < error.mean_image  # the other half says something
    assert (error.spread, error.missing) == (0, 0.5)


def test_neighbours_are_those_at_observed_pixels():
    training = np.array([[0, 0, 1], [0, 1, 3], [5, 5, 7], [9, 9, 9]], np.float32)
    found = nearest_mean(np.array([[0, 0, 100], [9, 8, 0]], np.float32), training, np.array([True, True, False]), 2)
    assert found.tolist() == [[0, 0.5, 2], [7, 7, 8]]


def test_saved_model_keeps_observed_and_samples_p_x(tmp_path):
    """A saved imputing model keeps its condition and samples; with nothing observed it samples p(x)."""
    save_generator(tmp_path, model())
    loaded = load_generator(tmp_path)
    assert loaded.conditions == OBSERVED == conditions_from(json.loads(json.dumps(described(OBSERVED))))
    assert np.array_equal(loaded.draw(7, 2), model().draw(7, 2))
    nothing = completions(loaded, np.ones((1, 64), np.float32), np.zeros((1, 8, 8)), 3, 0)
    assert nothing.shape == (1, 3, 8, 8)
    assert not (nothing == 1).any()


def test_measures_cover_every_mask():
    """Measures have the error of each named mask; a model of p(x) alone completes nothing."""
    measures = extension_measures(model(), DIGITS, 10, 0)
    assert list(measures["completion"]) == list(MASK_NAMES)
    errors = [measures["completion"][name]["error"] for name in MASK_NAMES]
    assert headline(measures) == {"completion_error": pytest.approx(np.mean(errors), rel=1e-12)}
    assert len(described_measures(json.loads(json.dumps(measures)))) == len(MASK_NAMES)
    settings = DenseGeneratorSettings(hidden=(3,))
    alone = PortableGenerator(DenseGenerator(2, 0, 64, settings), NoiseSettings(size=2), settings, (8, 8))
    with pytest.raises(ConfigurationError, match="not a model that completes images"):
        completions(alone, DIGITS.test.images[:1], np.ones((1, 8, 8)), 1, 0)


def test_training_masks_are_explicit_draws_of_the_global_batch():
    conditions = conditions_of(ExtensionSettings("imputation"), DIGITS)
    assert conditions == OBSERVED
    source = BatchSource(0, DIGITS.train, 100, conditions=conditions)
    whole = source.at(3)
    parts = [source.at(3, Shards(100, 4, 4, rank).rows).condition for rank in range(4)]
    assert torch.equal(torch.cat(parts), whole.condition)
    assert torch.equal(whole.condition[:, :64], whole.data * whole.condition[:, 64:])
    assert not torch.equal(whole.condition[:, 64:], source.at(4).condition[:, 64:])
    ends = []
    for stops in ([6], [2, 6]):
        state = initial_state(SETTINGS, DIGITS.train, conditions=conditions)
        for stop in stops:
            for _ in train(SETTINGS, DIGITS.train, state, stop, never, conditions=conditions):
                pass
        ends.append(torch.cat([parameter.flatten() for parameter in state.generator.parameters()]))
    assert torch.equal(*ends)
