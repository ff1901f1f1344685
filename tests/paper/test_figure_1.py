"""Fig. 1: played by Algorithm 1 in one dimension, the game ends where Theorem 1 says, and D alone ends at Eq. 2."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import integrate, stats

from gan_core.mixture import Mixture
from gan_core.one_dimension import GameSettings, divergence, even_noise, play
from gan_core.training import initial_state
from pipelines.reporting.figures import one_dimensional_game


@pytest.fixture(scope="module")
def game():
    return play(seed=0)


def shortened(**changes):
    """A game of a few iterations."""
    settings = GameSettings(early=2, ascents=3, descents=2, **changes)
    algorithm = replace(settings.training.algorithm, steps=4)
    return replace(settings, training=replace(settings.training, algorithm=algorithm))


def test_final_d_is_one_half_on_the_data(game):
    """At the end D is within 0.05 of 1/2 on the support of the data."""
    assert game.agreement.discriminator_from_half <= 0.05


def test_at_the_end_p_g_is_p_data(game):
    assert game.agreement.jensen_shannon <= 0.02
    assert game.agreement.jensen_shannon < game_divergence(game.panels[0])


def test_d_trained_against_fixed_g_is_equation_2(game):
    """D trained to its optimum against a held G is that of Eq. 2, where 1/2 would be further off."""
    assert game.agreement.discriminator_from_optimum <= 0.03
    # Against that G, D = 1/2 would be further off: it has something to find.
    optimal = game.panels[1]
    exact = optimal.p_data / (optimal.p_data + optimal.p_g)
    assert np.abs(exact - 0.5).mean() > 2 * game.agreement.discriminator_from_optimum


def test_panels_b_and_c_move_one_net_each(game):
    """Panel (b) moves D and holds G; panel (c) moves G, whose samples then look more real to D."""
    begun, optimal, followed, _ = game.panels
    assert np.array_equal(begun.p_g, optimal.p_g)
    assert not np.array_equal(begun.discriminator, optimal.discriminator)
    assert np.array_equal(optimal.discriminator, followed.discriminator)
    # G went where that D sees data: its samples look more real to it than before.
    before, after = (np.interp(panel.samples, panel.x, panel.discriminator).mean() for panel in (optimal, followed))
    assert after > before


def test_densities_are_densities(game):
    for panel in game.panels:
        width = panel.x[1] - panel.x[0]
        assert panel.p_data.sum() * width == pytest.approx(1, abs=0.01)  # all but a percent of it is drawn
        assert panel.p_g.sum() * width <= 1 + 1e-9
        assert ((panel.discriminator >= 0) & (panel.discriminator <= 1)).all()


def test_mixture_density_matches_cumulative_and_draws():
    """The mixture's density integrates to its cumulative, and its draws pass Kolmogorov-Smirnov."""
    data = Mixture()
    for x in (-1.0, 0.2, 1.5):
        total, _ = integrate.quad(lambda at: data.density(np.array([at]))[0], -9, x, points=[-0.6, 0.8])
        assert data.cumulative(np.array([x]))[0] == pytest.approx(total, abs=1e-9)
    assert data.cumulative(np.array(data.support)) == pytest.approx(
        [0.005, 0.995], abs=1e-4
    )  # 10,000 points a deviation
    drawn = data.draw(2000, seed=1).images[:, 0]
    # Kolmogorov-Smirnov: the 1e-6 quantile of its statistic at n = 2,000 is 0.06.
    assert stats.kstest(drawn, data.cumulative).statistic < 0.06
    assert np.array_equal(drawn, data.draw(2000, seed=1).images[:, 0])
    assert not np.array_equal(drawn, data.draw(2000, seed=2).images[:, 0])


def test_divergence_of_identity_g_is_the_integral():
    """For a G that is z itself the divergence from the data is that of numerical integration."""
    settings, data = GameSettings(), Mixture((1.0,), (0.3,), (1.5,))
    state = initial_state(settings.training, data.draw(1000, 0))
    with torch.no_grad():  # x = relu(z) - relu(-z)
        for parameter in state.generator.parameters():
            parameter.zero_()
        state.generator.weights[0][0, :2] = torch.tensor([1.0, -1.0])
        state.generator.weights[1][:2, 0] = torch.tensor([1.0, -1.0])

    def integrand(x):
        p, q = stats.norm.pdf(x, 0.3, 1.5), stats.norm.pdf(x)
        return sum(part * math.log(2 * part / (p + q)) for part in (p, q)) / 2

    exact, _ = integrate.quad(integrand, -9, 9)
    found = divergence(state, data)
    # Merging points never adds to a divergence; 200,000 quantiles err by one in a bin. What is lost is
    # within the last percent, of which all is one bin on each side.
    assert found <= exact + 1e-4
    assert found == pytest.approx(exact, rel=0.03)


def test_noise_divides_the_prior_into_equal_parts():
    noise = even_noise(1000).numpy()[:, 0]
    np.testing.assert_allclose(np.diff(stats.norm.cdf(noise)), 1e-3, atol=1e-6)
    assert noise.mean() == pytest.approx(0, abs=1e-6)


def test_a_game_is_a_function_of_the_seed():
    first, again, other = (play(seed, shortened()) for seed in (3, 3, 4))
    for panel, same, different in zip(first.panels, again.panels, other.panels, strict=True):
        assert np.array_equal(panel.p_g, same.p_g)
        assert np.array_equal(panel.discriminator, same.discriminator)
        assert not np.array_equal(panel.discriminator, different.discriminator)


def test_figure_has_four_panels_in_paper_colours():
    """The picture has four panels with the densities in the paper's colours."""
    game = play(0, shortened())
    picture = np.asarray(Image.open(io.BytesIO(one_dimensional_game(game.panels))).convert("RGB")).astype(int)
    quarters = np.array_split(picture, 4, axis=1)
    for quarter in quarters:
        red, green, blue = quarter[..., 0], quarter[..., 1], quarter[..., 2]
        assert ((green > 100) & (red < 60) & (blue < 60)).sum() > 100
        assert ((blue > 200) & (red < 60) & (green < 60)).sum() > 100
        assert (quarter.max(axis=-1) < 60).sum() > 500  # p_data's dots, the two lines and the arrows


def game_divergence(panel):
    """JSD between a panel's two densities, by its bins."""
    p, q = panel.p_data / panel.p_data.sum(), panel.p_g / panel.p_g.sum()
    mean = (p + q) / 2
    return sum(np.sum(np.where(part > 0, part * np.log(np.maximum(part, 1e-300) / np.maximum(mean, 1e-300)), 0)) for part in (p, q)) / 2  # fmt: skip
