"""A candidate's score by the validation points: what decides at a rung, and whether a training fails."""

import numpy as np
from jaxtyping import Float

from gan_core.conditions.base import Conditions
from gan_core.datasets import Examples
from gan_core.metrics.paired_test import standard_error
from gan_core.metrics.parzen import paper_protocol, parzen_log_density
from gan_core.metrics.sample_quality import coverage
from gan_core.networks.base import GeneratorNet
from gan_core.noise import draw_noise
from gan_core.randomness import stream
from gan_core.state import State
from gan_core.training import TrainingSettings, sample
from pipelines.config import Weights


def scored_generator(state: State, weights: Weights) -> GeneratorNet:
    """The G of a state whose weights are scored: the average where it is asked for and kept, else the last."""
    return state.averaged if weights == "averaged" and state.averaged else state.generator


def rung_score(
    generator: GeneratorNet,
    training: TrainingSettings,
    validation: Examples,
    conditions: Conditions,
    samples: int,
    sample_sets: int = 1,
) -> tuple[dict[str, float], Float[np.ndarray, "sets points"]]:
    """A generator's score, and the log-densities behind it.

    The log-likelihood is the Parzen window's at the grid's best sigma of the first set of `samples`, the mean over all
    sets; its standard error, of points and sets, is in nats too. Coverage is the first set's.
    """
    device, points = next(generator.parameters()).device, validation.images

    def drawn(number: int) -> np.ndarray:
        noise = draw_noise(stream(training.seed, "rung samples", number), samples, training.noise)
        given = conditions.sample_prior(samples, stream(training.seed, "rung samples' conditions", number))
        return np.asarray(sample(generator, noise.to(device), given.to(device)).cpu())

    first = drawn(0)
    parzen = paper_protocol(lambda p, sigmas: parzen_log_density(p, first, sigmas), points, points, samples)
    sets = [first, *(drawn(number) for number in range(1, sample_sets))]
    log_densities = np.stack([parzen_log_density(points, generated, [parzen.sigma])[:, 0] for generated in sets])
    return {
        "log_likelihood": float(log_densities.mean()),
        "standard_error": standard_error(log_densities),
        "sigma": parzen.sigma,
        "coverage": coverage(points, first),
    }, log_densities
