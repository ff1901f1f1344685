"""Is a search worth its time: it, its configuration without it and for as long, and a random pick, over seeds.

    python -m tests.benchmarks.search configs/digits.yaml --seeds 10
    python -m tests.benchmarks.search configs/digits.yaml --seeds 10 --kept FILE --at-once 2

The search is synchronous halving as the configuration says, its choice is a run's (`pipelines.search.choice`), and the
choice's training goes on to the end. The configuration is trained as it is, and, as a random pick of the same space, for
as many seconds of one core as all of the search took. Trials run in this process, so that a second is a second of
training and scoring and of nothing else.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from scipy.stats import t, wilcoxon

from gan_core import datasets
from gan_core.conditions.base import UNCONDITIONAL
from gan_core.datasets import Dataset
from gan_core.errors import Diverged
from gan_core.metrics.parzen import paper_protocol, parzen_log_density
from gan_core.metrics.sample_quality import coverage
from gan_core.networks.base import GeneratorNet
from gan_core.noise import draw_noise
from gan_core.randomness import stream
from gan_core.state import State
from gan_core.training import TrainingSettings, initial_state, sample, train
from pipelines import config
from pipelines.config import ResolvedConfiguration
from pipelines.config.candidates import candidate_configurations, draw_candidates
from pipelines.search.candidate_training import DIVERGED_SCORE
from pipelines.search.choice import Finalists
from pipelines.search.ranking import at_step
from pipelines.search.scores import rung_score, scored_generator
from pipelines.stages.tune import AT_ONCE

LOOK_EVERY = 50  # steps between looks at the clock
ENDLESS = 10**9
MOST_SEEDS = 10**6


@dataclass
class Training:
    """A training under way, and what its G of the configuration's choice (last or averaged) is worth."""

    configuration: ResolvedConfiguration
    data: Dataset
    seed: int

    def __post_init__(self) -> None:
        self.settings: TrainingSettings = replace(self.configuration.training(), seed=self.seed)
        self.state: State = initial_state(self.settings, self.data.train, self.data.shape)
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

    def row(self, candidate: int, step: int) -> dict[str, Any]:
        """The row of the score at a rung, with its log-densities."""
        row = {"candidate": candidate, "seed": self.seed, "step": step}
        if self.diverged:
            return {**row, "status": "diverged", "log_likelihood": DIVERGED_SCORE, "coverage": 0.0}
        tune = self.configuration.tune
        scores, log_densities = rung_score(
            self.generator, self.settings, self.data.validation, UNCONDITIONAL, tune.samples, tune.sample_sets
        )
        return {**row, "status": "finite", **scores, "log_densities": log_densities}

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
    def generator(self) -> GeneratorNet:
        return scored_generator(self.state, self.configuration.scored_weights)

    def _looks(self, steps: int) -> Iterator[None]:
        try:
            for _ in train(self.settings, self.data.train, self.state, steps, lambda step: step % LOOK_EVERY == 0):
                yield
        except Diverged:
            self.diverged = True


def searched(configuration: ResolvedConfiguration, data: Dataset) -> tuple[Training, int]:
    """A search's choice, trained on to the configuration's last step, and its number."""
    tune, seed = configuration.tune, configuration.seed
    candidates = candidate_configurations(configuration)
    alive = {number: Training(candidate, data, seed) for number, candidate in enumerate(candidates)}
    for rung in tune.rungs:
        rows = [training.to(rung).row(number, rung) for number, training in alive.items()]
        finite = [row for row in rows if row["status"] == "finite"]
        finite.sort(key=lambda row: (row["coverage"] < tune.min_coverage, -row["log_likelihood"]))
        kept = finite if rung == tune.rungs[-1] else finite[: max(1, int(len(finite) * tune.keep + 0.5))]
        alive = {row["candidate"]: alive[row["candidate"]] for row in finite if row in kept or row["candidate"] == 0}
    usable = [row["candidate"] for row in at_step(finite, rung, tune.min_coverage)]
    default = 0 if 0 in usable else None
    challengers = [number for number in usable if number != default][: tune.confirm.best]
    finalists = Finalists(configuration, rung, default, rows, lambda row: row["log_densities"])
    going = [*([] if default is None else [default]), *challengers]
    for extra in range(1, tune.confirm.seeds):
        going = finalists.undecided(going) if extra > AT_ONCE else going
        if len(going) < 2:
            break
        rows += [Training(candidates[number], data, seed + extra).to(rung).row(number, rung) for number in going]
    best = finalists.leader(challengers) if challengers else default
    choice = best if default is None or (challengers and finalists.better(best, default)) else default
    return alive[choice].to(configuration.algorithm.steps), choice


def measured(configuration: ResolvedConfiguration, data: Dataset) -> dict[str, Any]:
    """One seed: what each arm's G is worth by the test set, the seconds that each had, and what the search chose."""
    seed, started = configuration.seed, time.process_time()
    training, choice = searched(configuration, data)
    seconds = time.process_time() - started
    pick = config.override(configuration, draw_candidates(configuration)[1])
    trained = {
        "search": training,
        "configuration": Training(configuration, data, seed).to(configuration.algorithm.steps),
        "for as long": Training(configuration, data, seed).for_seconds(seconds),
        "random pick": Training(pick, data, seed).for_seconds(seconds),
    }
    arms = {name: [*of.test_score(), int(of.state.step)] for name, of in trained.items()}
    return {"seed": seed, "seconds": seconds, "choice": choice, "arms": arms}


def line(row: dict[str, Any]) -> str:
    """A seed in words."""
    arms = "  ".join(f"{name} {score:.1f} (step {step})" for name, (score, _, step) in row["arms"].items())
    return f"seed {row['seed']}  {row['seconds']:.0f} s each, chose candidate {row['choice']}  {arms}"


def summary(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Each arm's mean, and the search's paired difference from it."""
    ours = np.array([row["arms"]["search"][0] for row in rows])
    for name in rows[0]["arms"]:
        scores, covered, _ = np.array([row["arms"][name] for row in rows]).T
        error = scores.std(ddof=1) / np.sqrt(len(rows))
        yield f"{name:17s} {scores.mean():7.2f} ± {error:.2f} nats (standard error over seeds), coverage {covered.mean():.2f}"
        if name != "search":
            differences = ours - scores
            half = t.ppf(0.975, len(rows) - 1) * differences.std(ddof=1) / np.sqrt(len(rows))
            yield (
                f"  search - {name}: {differences.mean():+.2f} ± {half:.2f} nats (95 %, paired), "
                f"worst seed {differences.min():+.2f}, Wilcoxon p (one-sided) {_wilcoxon(differences):.3g}"
            )


@click.command(help=__doc__)
@click.argument("path")
@click.option("--set", "overrides", multiple=True, metavar="a.b=c")
@click.option("--seeds", type=click.IntRange(min=3), default=8, show_default=True)
@click.option("--first-seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--kept", type=click.Path(path_type=Path), help="A file of finished seeds: the same command goes on.")
@click.option("--at-once", type=click.IntRange(min=1), default=MOST_SEEDS, help="Seeds that one call measures.")
def main(path: str, overrides: tuple[str, ...], seeds: int, first_seed: int, kept: Path | None, at_once: int) -> None:
    torch.set_num_threads(1)
    loaded = config.resolve(config.load(path, overrides), "benchmark")
    data = datasets.load(loaded.data)
    plain = config.to_plain(loaded)
    inputs = config.digest([{**plain, "seed": None, "tune": config.without_later(plain["tune"])}, data.digest])
    known = {row["seed"]: row for row in kept_rows(kept) if row["inputs"] == inputs}
    wanted = range(first_seed, first_seed + seeds)
    for seed in [seed for seed in wanted if seed not in known][:at_once]:
        known[seed] = {"inputs": inputs, **measured(replace(loaded, seed=seed), data)}
        if kept is not None:
            with kept.open("a") as file:
                file.write(json.dumps(known[seed]) + "\n")
        print(line(known[seed]), flush=True)
    rows = [known[seed] for seed in wanted if seed in known]
    if len(rows) == seeds:
        print(*map(line, rows), *summary(rows), sep="\n")
    else:
        print(f"{len(rows)} of {seeds} seeds")


def kept_rows(path: Path | None) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; none, if there is no such file."""
    return [json.loads(text) for text in path.read_text().splitlines()] if path is not None and path.exists() else []


def _wilcoxon(differences: np.ndarray) -> float:
    """1 where no difference is not 0: the search chose the configuration itself in every seed."""
    return float(wilcoxon(differences, alternative="greater").pvalue) if np.any(differences) else 1.0


if __name__ == "__main__":
    main()
