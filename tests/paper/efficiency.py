"""Section 7, efficiency: is there a better coordination of G and D, or a better prior of z during training?

    python -m tests.paper.efficiency [--seeds 5] [--images 60000] [--output rows.jsonl]

Each variant is trained on digits from the same seeds to the same number of real images that D has seen, and judged on
the validation points along the way: the Parzen log-likelihood at the best sigma of the paper's grid, in nats. The
table gives each variant's mean over seeds and, since seeds are shared, its paired difference from the constant
schedule with its standard error. With `--output`, rows are added to the file as they come and not made again.

None was better after 60,000 images of five seeds (2026-11-24): 3.3 ± 0.3 nats by the constant schedule; -1.6 ± 1.3
with k, -0.4 ± 0.7 with D's rate, -2.6 ± 1.4 and -1.5 ± 1.1 with z from half and from 1.5 times its width.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gan_core.algorithm1 import AlgorithmSettings
from gan_core.datasets import Dataset, DataSettings, load
from gan_core.metrics.parzen import paper_protocol, parzen_log_density
from gan_core.networks.dense import DenseDiscriminatorSettings, DenseGeneratorSettings, NetworkSettings
from gan_core.noise import NoiseSettings, draw_noise
from gan_core.randomness import stream
from gan_core.training import TrainingSettings, initial_state, sample
from tests.paper.coordination import Coordination, train_coordinated

VARIANTS = {
    "constant": Coordination(),
    "k 2 below 75 %": Coordination(most_steps=2),
    "D's rate by accuracy": Coordination(gain=4.0),
    "z from half its width": Coordination(first_width=0.5),
    "z from 1.5 its width": Coordination(first_width=1.5),
}
LOOKS = 4  # at which parts of the training a score is taken
SAMPLES = 1000


def settings_of(seed: int) -> TrainingSettings:
    """The quick start's recipe, in smaller nets."""
    network = NetworkSettings(
        generator=DenseGeneratorSettings(hidden=(128,)),
        discriminator=DenseDiscriminatorSettings(units=(48, 48), pieces=3, init_range=0.05),
    )
    adam = AlgorithmSettings(optimizer="adam", generator_learning_rate=2e-3, discriminator_learning_rate=2e-3)
    return TrainingSettings(seed, NoiseSettings("uniform", 16), network, adam)


def rows_of(variant: str, seed: int, data: Dataset, images: int) -> Iterator[dict[str, Any]]:
    """The scores of one training, from look to look."""
    settings = settings_of(seed)
    state, looks = initial_state(settings, data.train), [images * part // LOOKS for part in range(1, LOOKS + 1)]
    noise, points = draw_noise(stream(seed, "judged samples"), SAMPLES, settings.noise), data.validation.images
    for progress in train_coordinated(settings, data.train, state, images, VARIANTS[variant], lambda step: True):
        if progress.images >= looks[0]:
            samples = sample(state.generator, noise).numpy()
            score = paper_protocol(
                lambda rows, sigmas, s=samples: parzen_log_density(rows, s, sigmas), points, points, SAMPLES
            )
            shown = {"log_likelihood": score.log_likelihood, "accuracy": progress.pace.accuracy, "steps": progress.step}
            yield {"variant": variant, "seed": seed, "images": looks.pop(0), **shown}
    assert not looks


def table(rows: list[dict[str, Any]]) -> str:
    """Mean scores by variant and images seen; below each, the paired difference from `constant` ± its standard error."""
    scores = {(row["variant"], row["images"], row["seed"]): row["log_likelihood"] for row in rows}
    looks, seeds = sorted({row["images"] for row in rows}), sorted({row["seed"] for row in rows})
    lines = [f"{'images seen by D':<24}" + "".join(f"{look:>16,}" for look in looks)]
    for variant in VARIANTS:
        cells = []
        for look in looks:
            known = [seed for seed in seeds if {(variant, look, seed), ("constant", look, seed)} <= scores.keys()]
            values = np.array([scores[variant, look, seed] for seed in known])
            if variant == "constant":
                cells.append(f"{values.mean():.1f} ± {_standard_error(values):.1f}")
            elif known:
                paired = values - np.array([scores["constant", look, seed] for seed in known])
                cells.append(f"{paired.mean():+.1f} ± {_standard_error(paired):.1f}")
        lines.append(f"{variant:<24}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join([*lines, f"nats, {len(seeds)} seeds; below `constant`, differences from it, paired by seed"])


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def main() -> None:
    """Train what is not in the output yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    data = load(DataSettings("digits"))
    kept = asked.output.read_text().splitlines() if asked.output and asked.output.exists() else []
    rows = [json.loads(line) for line in kept]
    for seed in range(asked.seeds):
        for variant in VARIANTS:
            if not any((row["variant"], row["seed"]) == (variant, seed) for row in rows):
                made = list(rows_of(variant, seed, data, asked.images))
                rows += made
                if asked.output:
                    with asked.output.open("a") as file:
                        file.writelines(json.dumps(row) + "\n" for row in made)
    print(table(rows))


if __name__ == "__main__":
    main()
