"""TFD's recipe of two stages on MNIST, which stands in for its faces: does the second train, and what is it worth?

    python -m tests.paper.two_stages [--seeds 7 8 9 10 11] [--steps 1000] [--data mnist --root FOLDER] [--output rows.jsonl]

The settings are those of `configs/tfd_pretrain.yaml` and `configs/tfd.yaml` but for `settings_of`: narrower nets, and
Adam. Of each seed there are two trainings, judged on the validation points:

    first stage    for the given steps, and then on for as many again, as if there were no second
    second stage   two new layers under the first stage's G and a new D; also before its first step

The score is the Parzen log-likelihood of held-out validation points, in nats, at sigmas chosen by five-fold
cross-validation, of the moving average of G's weights. With `--output`, a seed's rows are added to the file as they
are made, and those in it are not made again. The settings were chosen on seeds 0 to 6.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gan_core.datasets import Dataset, DataSettings, load
from gan_core.metrics.parzen import cross_validated_protocol, parzen_log_density
from gan_core.metrics.sample_quality import coverage
from gan_core.noise import draw_noise
from gan_core.randomness import stream
from gan_core.state import State, load_tensors
from gan_core.training import TrainingSettings, initial_state, sample, train
from pipelines import config
from pipelines.runs.resume import LAYERS, replaced
from tests.paper.schemes import described

CONFIGS = Path(__file__).parents[2] / "configs"
FIRST, SECOND = "first stage", "second stage"
SIZES = {"digits": (128, 16), "mnist": (400, 50)}  # G's wide layers, z
SAMPLES, FOLDS = 2000, 5


@dataclass(frozen=True)
class Row:
    """One training, judged after some of its own steps, before which others may have trained a part of it."""

    training: str
    seed: int
    steps: int
    pretrained: int  # steps of the first stage that its last layers come with
    log_likelihood: float
    standard_error: float  # over points
    sigma: float  # mean over folds
    coverage: float
    seconds: float  # of its own steps


def reduced(data: str) -> dict[str, Any]:
    """What is not the recipe's: sizes, and what makes nets of such sizes learn within minutes.

    With narrower layers of equally small weights all hidden units of G would be constant: the first
    weights are wider by as much as gives the sigmoids the spread that they have at 8,000 units and
    100 noise units. D is small, since a wider one was right about every sample from the start.
    """
    width, noise = SIZES[data]
    return {
        "noise.size": noise,
        "network.generator.init_range": 0.05 * (8000 * 100 / (width * noise)) ** 0.25,
        "network.discriminator.units": [48, 48],
        "network.discriminator.init_range": 0.05,
        "algorithm.optimizer": "adam",
        "algorithm.generator_learning_rate": 2.0e-3,
        "algorithm.discriminator_learning_rate": 1.0e-3,
        "algorithm.generator_average": 0.99,
    }


def settings_of(training: str, seed: int, data: Dataset) -> TrainingSettings:
    """The recipe's stage, reduced.

    The new layers' sigmoids stand where the first stage had z. With its range of weights they vary so little that
    Adam at its rates took G to a single point, where it stayed: weights three times as wide, and rates that begin
    lower and fall to a hundredth within 1,000 steps: longer at such rates, D wins.
    """
    width, noise = SIZES[data.name]
    changed = reduced(data.name)
    if training == FIRST:
        changed |= {"network.generator.hidden": [width, width], "network.generator.output_nonzeros": width // 8}
    else:
        changed |= {
            "network.generator.hidden": [width, noise, width, width],
            "network.generator.init_range": 3 * changed["network.generator.init_range"],
            "algorithm.generator_learning_rate": 1.0e-4,
            "algorithm.discriminator_learning_rate": 2.0e-4,
            "algorithm.learning_rate_decay": 1.005,
        }
    recipe = config.load(CONFIGS / ("tfd_pretrain.yaml" if training == FIRST else "tfd.yaml"))
    return replace(config.override(recipe, changed).training(), seed=seed)


def under(first: State, settings: TrainingSettings, data: Dataset) -> State:
    """The second stage before its first step, as a run with `--continue-from` begins."""
    state = initial_state(settings, data.train)
    assert first.averaged
    assert state.averaged
    for generator in (state.generator, state.averaged):
        load_tensors(replaced(generator, LAYERS), dict(first.averaged.state_dict()), FIRST)
    return state


def rows_of(seed: int, steps: int, data: Dataset) -> Iterator[Row]:
    """Both trainings of one seed."""
    settings = {training: settings_of(training, seed, data) for training in (FIRST, SECOND)}
    first = initial_state(settings[FIRST], data.train)
    yield from looks(FIRST, settings[FIRST], first, [steps], data)
    second = under(first, settings[SECOND], data)
    yield from looks(SECOND, settings[SECOND], second, [0, steps], data, steps)
    yield from looks(FIRST, settings[FIRST], first, [2 * steps], data)


def looks(
    training: str, settings: TrainingSettings, state: State, at: list[int], data: Dataset, pretrained: int = 0
) -> Iterator[Row]:
    """Train on to each of the steps, and judge there."""
    seconds = 0.0
    for step in at:
        started = time.perf_counter()
        for _ in train(settings, data.train, state, step, lambda step: step % 100 == 0):
            pass  # a report checks that losses are finite
        seconds += time.perf_counter() - started
        yield Row(training, settings.seed, step, pretrained, **judged(state, settings, data), seconds=seconds)


def judged(state: State, settings: TrainingSettings, data: Dataset) -> dict[str, float]:
    """The score and the coverage of the validation points, by samples of noise that depends on the seed alone."""
    assert state.averaged
    points, noise = data.validation.images, draw_noise(stream(settings.seed, "samples"), SAMPLES, settings.noise)
    samples = sample(state.averaged, noise).numpy()
    score = cross_validated_protocol(
        lambda rows, sigmas: parzen_log_density(rows, samples, sigmas), points, None, SAMPLES, FOLDS
    )
    return {
        "log_likelihood": score.log_likelihood,
        "standard_error": score.standard_error,
        "sigma": score.sigma,
        "coverage": coverage(points, samples),
    }


def table(rows: list[Row]) -> str:
    """Means over seeds, and what the second stage is beyond each of the others, paired by seed; ± standard errors."""
    ends = {(row.training, row.steps) for row in rows if row.training == SECOND}
    after = {row.seed: row.log_likelihood for row in rows if (row.training, row.steps) == max(ends)}
    lines = [f"{'training':<24}{'its steps':>10}{'score':>18}{'second beyond it':>18}{'coverage':>16}{'sigma':>8}"]
    for training, steps in dict.fromkeys((row.training, row.steps) for row in rows):
        there = [row for row in rows if (row.training, row.steps) == (training, steps)]
        scores, beyond = [row.log_likelihood for row in there], [after[row.seed] - row.log_likelihood for row in there]
        cells = (
            described(scores, 1),
            described(beyond, 1) if any(beyond) else "",
            described([r.coverage for r in there]),
        )
        name = f"{training}, {there[0].pretrained} before" if there[0].pretrained else training
        lines.append(
            f"{name:<24}{steps:>10}{cells[0]:>18}{cells[1]:>18}{cells[2]:>16}{np.mean([r.sigma for r in there]):>8.3f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Train what is not in the output yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=list(SIZES), default="mnist")
    parser.add_argument("--root", default="", help="where MNIST's files are")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9, 10, 11])
    parser.add_argument("--steps", type=int, default=1000, help="of each stage")
    parser.add_argument("--output", type=Path, help="a file of rows, read and added to")
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = load(DataSettings(given.data, **({"root": given.root, "download": False} if given.root else {})))
    kept = given.output.read_text().splitlines() if given.output and given.output.exists() else []
    rows = [Row(**json.loads(line)) for line in kept]
    for seed in given.seeds:
        if not any(row.seed == seed for row in rows):
            made = []
            for row in rows_of(seed, given.steps, data):
                print(row, file=sys.stderr, flush=True)
                made.append(row)
            rows += made
            if given.output:
                with given.output.open("a") as file:
                    file.writelines(json.dumps(asdict(row)) + "\n" for row in made)
    print(f"{given.data}, {given.steps} steps a stage, {len({row.seed for row in rows})} seeds\n")
    print(table(rows))


if __name__ == "__main__":
    main()
