"""Is a search worth its time: its winner, the published recipe and a random pick, at equal device-seconds, over seeds.

    python -m tests.benchmarks.search configs/digits.yaml --seeds 8

The search is synchronous halving as the configuration says, its best confirmed over seeds, and its winner then
trained anew; the others train for as many seconds of one core as all of that took. Trials run in this process, so
that a second is a second of training and scoring and of nothing else.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import click
import numpy as np
import torch
from scipy.stats import ttest_rel, wilcoxon

from gan_core import datasets
from gan_core.algorithm1 import AlgorithmSettings
from gan_core.conditions.base import UNCONDITIONAL
from gan_core.datasets import Dataset
from gan_core.errors import Diverged
from gan_core.metrics.parzen import paper_protocol, parzen_log_density
from gan_core.metrics.sample_quality import coverage
from gan_core.networks.dense import DenseDiscriminatorSettings
from gan_core.noise import draw_noise
from gan_core.randomness import stream
from gan_core.state import State
from gan_core.training import TrainingSettings, initial_state, sample, train
from pipelines import config
from pipelines.config import Configuration
from pipelines.config.candidates import draw_candidates
from pipelines.search.scores import rung_score
from pipelines.search.trial import DIVERGED_SCORE
from tests.paper.schemes import PUBLISHED, wider_than_published

LOOK_EVERY = 50  # steps between looks at the clock
ENDLESS = 10**9


@dataclass
class Training:
    """A training under way, and what its G of the configuration's choice (last or averaged) is worth."""

    configuration: Configuration
    data: Dataset
    seed: int

    def __post_init__(self) -> None:
        self.settings: TrainingSettings = replace(self.configuration.training(), seed=self.seed, virtual_shards=1)
        self.state: State = initial_state(self.settings, self.data.train)
        self.diverged = False

    def to(self, steps: int) -> "Training":
        """Train on to a step."""
        for _ in self._looks(steps):
            pass
        return self

    def for_seconds(self, seconds: float) -> "Training":
        """Train on until that many seconds of the core are over."""
        end = time.process_time() + seconds
        for _ in self._looks(ENDLESS):
            if time.process_time() >= end:
                break
        return self

    def rung_score(self) -> float:
        """The score that decides a rung."""
        if self.diverged:
            return DIVERGED_SCORE
        found, _ = rung_score(
            self.generator, self.settings, self.data.validation, UNCONDITIONAL, self.configuration.tune.samples
        )
        return found["log_likelihood"] if found["coverage"] >= self.configuration.tune.min_coverage else DIVERGED_SCORE

    def test_score(self) -> tuple[float, float]:
        """Log-likelihood of the test set by the paper's protocol, in nats, and coverage."""
        count = self.configuration.evaluate.samples
        noise = draw_noise(stream(self.seed, "test samples"), count, self.settings.noise)
        drawn = sample(self.generator, noise).numpy()
        validation, test = self.data.validation.images, self.data.test.images
        found = paper_protocol(
            lambda points, sigmas: parzen_log_density(points, drawn, sigmas), validation, test, count
        )
        return found.log_likelihood, coverage(test, drawn)

    @property
    def generator(self) -> torch.nn.Module:
        averaged = self.state.averaged if self.configuration.scored_weights == "averaged" else None
        return averaged or self.state.generator

    def _looks(self, steps: int) -> Iterator[None]:
        try:
            for _ in train(self.settings, self.data.train, self.state, steps, lambda step: step % LOOK_EVERY == 0):
                yield
        except Diverged:
            self.diverged = True


def searched(configuration: Configuration, data: Dataset, seed: int) -> Training:
    """The winner of a search of the configuration's, trained anew to the configuration's last step."""
    tune = configuration.tune
    candidates = [
        config.override(configuration, values) for values in draw_candidates(replace(configuration, seed=seed))
    ]
    alive = {number: Training(candidate, data, seed) for number, candidate in enumerate(candidates)}
    for rung in tune.rungs:
        scores = {number: training.to(rung).rung_score() for number, training in alive.items()}
        ranked = sorted(scores, key=lambda number: -scores[number])
        if rung != tune.rungs[-1]:
            alive = {number: alive[number] for number in ranked[: max(1, int(len(ranked) * tune.keep + 0.5))]}
    best = {number: [scores[number]] for number in ranked[: tune.confirm.best]}
    for number, found in best.items():
        for extra in range(1, tune.confirm.seeds):
            found.append(Training(candidates[number], data, seed + extra).to(tune.rungs[-1]).rung_score())
    winner = max(best, key=lambda number: np.mean(best[number]))
    return Training(candidates[winner], data, seed).to(configuration.algorithm.steps)


def published(configuration: Configuration, pixels: int) -> Configuration:
    """The published algorithm, rates, dropout and first weights, on the configuration's networks, noise and average of G."""
    average, discriminator = configuration.algorithm.generator_average, configuration.network.discriminator
    assert isinstance(discriminator, DenseDiscriminatorSettings)
    init_range = PUBLISHED["init_range"] * wider_than_published(pixels, discriminator.units[0])
    recipe = replace(configuration, algorithm=AlgorithmSettings(generator_average=average))
    dropout = DenseDiscriminatorSettings()
    return config.override(
        recipe,
        {
            "network.discriminator.init_range": init_range,
            "network.discriminator.input_keep": dropout.input_keep,
            "network.discriminator.hidden_keep": dropout.hidden_keep,
        },
    )


@click.command(help=__doc__)
@click.argument("path")
@click.option("--set", "overrides", multiple=True, metavar="a.b=c")
@click.option("--seeds", type=click.IntRange(min=3), default=8, show_default=True)
@click.option("--first-seed", type=click.IntRange(min=0), default=0, show_default=True)
def main(path: str, overrides: tuple[str, ...], seeds: int, first_seed: int) -> None:
    torch.set_num_threads(1)
    configuration = config.load(path, overrides)
    data = datasets.load(configuration.data)
    arms: dict[str, list[tuple[float, float]]] = {"search": [], "random pick": [], "published recipe": []}
    for seed in range(first_seed, first_seed + seeds):
        started = time.process_time()
        trained = {"search": searched(configuration, data, seed)}
        seconds = time.process_time() - started
        pick = config.override(configuration, draw_candidates(replace(configuration, seed=seed))[1])
        trained["random pick"] = Training(pick, data, seed).for_seconds(seconds)
        trained["published recipe"] = Training(
            published(configuration, data.train.images.shape[1]), data, seed
        ).for_seconds(seconds)
        for name, training in trained.items():
            arms[name].append(training.test_score())
        print(f"seed {seed}  {seconds:.0f} s each  ", end="")
        print("  ".join(f"{n} {arms[n][-1][0]:.1f} (step {int(t.state.step)})" for n, t in trained.items()), flush=True)
    for name, found in arms.items():
        scores, covered = np.array(found).T
        error = scores.std(ddof=1) / np.sqrt(seeds)
        print(
            f"{name:17s} {scores.mean():7.2f} ± {error:.2f} nats (standard error over seeds), coverage {covered.mean():.2f}"
        )
        if name != "search":
            ours = [score for score, _ in arms["search"]]
            print(
                f"  search - {name}: {np.mean(ours - scores):+.2f} nats, one-sided paired t test p = "
                f"{ttest_rel(ours, scores, alternative='greater').pvalue:.3g}, "
                f"Wilcoxon p = {wilcoxon(ours, scores, alternative='greater').pvalue:.3g}"
            )


if __name__ == "__main__":
    main()
