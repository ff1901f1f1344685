"""TFD's two stages, reduced: their settings are the recipe's, each is judged where its line says."""

import pytest
import torch

from gan_core.datasets import DataSettings, load
from gan_core.training import initial_state, train
from pipelines import config
from tests.paper.two_stages import CONFIGS, FIRST, SECOND, Row, judged, reduced, rows_of, settings_of, table

pytestmark = pytest.mark.usefixtures("one_thread")

DIGITS = load(DataSettings("digits"))


@pytest.mark.parametrize(
    ("training", "recipe", "also"),
    [
        (FIRST, "tfd_pretrain", {"network.generator.hidden", "network.generator.output_nonzeros"}),
        (SECOND, "tfd", {"network.generator.hidden", "algorithm.learning_rate_decay"}),
    ],
)  # fmt: skip
def test_settings_differ_from_recipe_only_as_stated(training, recipe, also):
    """Settings are the recipe's but for those that the module says it reduces."""
    published = config.flat(config.to_plain(config.load(CONFIGS / f"{recipe}.yaml").training()))
    ours = config.flat(config.to_plain(settings_of(training, 0, DIGITS)))
    assert {name for name in ours if ours[name] != published[name]} == {*reduced("digits"), *also}


def test_narrow_g_has_the_recipes_hidden_spread():
    """The narrow G's hidden sigmoids have inputs as spread as those of the recipe's G."""
    settings = settings_of(FIRST, 0, DIGITS)
    g = initial_state(settings, DIGITS.train).generator
    z = torch.randn(4000, settings.noise.size, generator=torch.Generator().manual_seed(0))
    inputs = torch.relu(z @ g.weights[0]) @ g.weights[1]
    # A rectified normal value has half its variance as its mean square, and weights uniform on +-r have r^2 / 3.
    published = 0.05**2 / 3 * (100 * 8000 / 2) ** 0.5
    # 128 rectifiers of 16 values each, whose weights' mean squares differ by some percent.
    assert inputs.std().item() == pytest.approx(published, rel=0.1)


def test_scores_are_taken_at_the_rows_steps():
    """Each training is scored after the steps its row names, and the second stage does not touch the first."""
    rows = list(rows_of(0, 2, DIGITS))
    assert [(row.training, row.steps, row.pretrained) for row in rows] == [
        (FIRST, 2, 0), (SECOND, 0, 2), (SECOND, 2, 2), (FIRST, 4, 0)
    ]  # fmt: skip
    settings = settings_of(FIRST, 0, DIGITS)
    state = initial_state(settings, DIGITS.train)
    for _ in train(settings, DIGITS.train, state, 4, lambda step: False):
        pass
    # A second stage in between leaves no trace in the first's: the same bits.
    assert rows[3].log_likelihood == judged(state, settings, DIGITS)["log_likelihood"]


def row(training, steps, seed, score, pretrained=0):
    return Row(training, seed, steps, pretrained, score, 0.5, 0.2, 0.75, 1.0)


def test_table_has_means_and_paired_differences():
    """The table has means over seeds, and differences that are paired by seed."""
    rows = []
    for seed in range(3):
        begun, ended = row(SECOND, 0, seed, -30.0, 9), row(SECOND, 9, seed, 11.0 * seed, 9)
        rows += [row(FIRST, 9, seed, 10.0 * seed), begun, ended]
    lines = [" ".join(line.split()) for line in table(rows).splitlines()]
    assert lines == [
        "training its steps score second beyond it coverage sigma",
        # 0, 10, 20: a deviation of 10, over the root of 3; and 0, 1, 2.
        "first stage 9 10.0 ± 5.8 1.0 ± 0.6 0.75 ± 0.00 0.200",
        "second stage, 9 before 0 -30.0 ± 0.0 41.0 ± 6.4 0.75 ± 0.00 0.200",
        "second stage, 9 before 9 11.0 ± 6.4 0.75 ± 0.00 0.200",
    ]
