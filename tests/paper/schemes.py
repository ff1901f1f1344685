"""Which difference between the published scheme and Algorithm 1's text matters: every combination, over seeds.

    python -m tests.paper.schemes [--seeds 5] [--steps 1500] [--data mnist --root FOLDER] [--output rows.jsonl]
                                  [--vary scheme --vary share_draws ...]

Four things differ between them, one factor each: whether G descends against D as it was before D's update
(`simultaneous`) or after it (`algorithm1`, where the D that G sees is one step fresher); whether G's update reuses
D's z and dropout masks; whether D's loss is halved; how wide D's first weights are. All 16 combinations, or those of
the factors that `--vary` names with the others as published, are trained from the same seeds, so an effect is a
paired difference: its mean over the other factors, for each seed, and the standard error over seeds. Under momentum,
which is linear in the gradient, a halved loss is a halved rate of D. On MNIST the nets are those of the publication.

With `--output`, each combination's rows are added to the file as they come, and those in it are not trained again.
"""

import argparse
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gan_core.algorithm1 import AlgorithmSettings, Batch, train_step
from gan_core.data_parallel import Shards
from gan_core.datasets import Dataset, DataSettings, load
from gan_core.draws import Draw, Draws, DrawSource
from gan_core.metrics.parzen import paper_protocol, parzen_log_density
from gan_core.metrics.sample_quality import coverage
from gan_core.networks.dense import (
    DenseDiscriminator,
    DenseDiscriminatorSettings,
    DenseGenerator,
    DenseGeneratorSettings,
    NetworkSettings,
)
from gan_core.noise import NoiseSettings, draw_noise
from gan_core.randomness import stream
from gan_core.state import State
from gan_core.training import BatchSource, TrainingSettings, initial_state

FACTORS: dict[str, tuple[Any, Any]] = {  # as published, and as in the paper's text
    "scheme": ("simultaneous", "algorithm1"),
    "share_draws": (True, False),
    "discriminator_loss_scale": (0.5, 1.0),
    "init_range": (0.005, 0.05),  # at the published widths
}
PUBLISHED = {name: levels[0] for name, levels in FACTORS.items()}
MEASURES = ("log_likelihood", "coverage", "value")
SIZES = {"digits": (64, 32, 16), "mnist": (1200, 240, 100)}  # G's hidden width, D's, and z's
SAMPLES = 1000


@dataclass(frozen=True)
class Result:
    """One training of one combination, judged on the validation points after some steps."""

    scheme: str
    share_draws: bool
    discriminator_loss_scale: float
    init_range: float
    seed: int
    step: int
    log_likelihood: float  # Parzen, at the best sigma of the paper's grid
    coverage: float
    value: float  # V(D, G) of the last minibatch, dropout on


def wider_than_published(pixels: int, units: int) -> float:
    """By how much a smaller D's first weights are to be wider for first logits as large as the published nets'.

    They are products of three layers' weights.
    """
    return float((784 * 240**2 / (pixels * units**2)) ** (1 / 6))


def settings_of(combination: dict[str, Any], seed: int, data: Dataset) -> TrainingSettings:
    """The published recipe with the combination's four settings, on digits in smaller nets."""
    hidden, units, noise = SIZES[data.name]
    wider = wider_than_published(data.train.images.shape[1], units)
    algorithm = {name: value for name, value in combination.items() if name != "init_range"}
    return TrainingSettings(
        seed=seed,
        noise=NoiseSettings(size=noise),
        network=NetworkSettings(
            generator=DenseGeneratorSettings(hidden=(hidden, hidden)),
            discriminator=DenseDiscriminatorSettings(
                units=(units, units), init_range=combination["init_range"] * wider
            ),
        ),
        algorithm=AlgorithmSettings(**algorithm),
    )


def population(members: list[TrainingSettings], data: Dataset) -> State:
    """The members' initial states as one: nets whose weights have a leading member axis."""
    alone = [initial_state(member, data.train) for member in members]
    count, noise, pixels = (len(members),), members[0].noise.size, data.train.images.shape[1]
    generator = DenseGenerator(noise, 0, pixels, members[0].network.generator, count)
    discriminator = DenseDiscriminator(pixels, 0, members[0].network.discriminator, count)
    for net, nets in ((generator, [s.generator for s in alone]), (discriminator, [s.discriminator for s in alone])):
        for parameter, theirs in zip(net.parameters(), zip(*(n.parameters() for n in nets), strict=True), strict=True):
            parameter.data = torch.stack([their.detach() for their in theirs])
    return State.initial(generator, discriminator, members[0].algorithm.optimizer)


def trained(combinations: list[dict[str, Any]], seeds: int, steps: list[int], data: Dataset) -> list[Result]:
    """Train combinations that differ in D's first weights only, over all seeds, side by side as one population."""
    whose = list(itertools.product(combinations, range(seeds)))
    members = [settings_of(combination, seed, data) for combination, seed in whose]
    algorithm, state = members[0].algorithm, population(members, data)
    rows, dropout = algorithm.batch_size, state.discriminator.dropout
    batches = [BatchSource(seed, data.train, rows) for seed in range(seeds)]
    sources = [DrawSource(seed, members[0].noise, dropout, rows, 1, algorithm.share_draws) for seed in range(seeds)]
    results = []
    for step in range(max(steps)):
        drawn, real = [source.at(step) for source in sources], [source.at(step) for source in batches]
        repeated = len(combinations)  # members of one seed have the same draws
        batch = Batch(*(torch.stack(list(parts) * repeated) for parts in zip(*real, strict=True)))
        draws = Draws((_stacked([d.discriminator[0] for d in drawn] * repeated),), _stacked([d.generator for d in drawn] * repeated))  # fmt: skip
        outcome = train_step(state, [batch], draws, algorithm, Shards(rows), batches[0].per_epoch)
        if step + 1 in steps:
            images = samples_of(state, members)
            for (combination, seed), member, loss in zip(whose, images, outcome.ascent.loss, strict=True):
                results.append(Result(**combination, seed=seed, step=step + 1, **judged(member, data), value=-float(loss)))  # fmt: skip
    return results


def samples_of(state: State, members: list[TrainingSettings]) -> np.ndarray:
    """(members, samples, pixels), from noise that depends on the seed only."""
    drawn = [draw_noise(stream(member.seed, "samples"), SAMPLES, member.noise) for member in members]
    noise = torch.stack(drawn)
    with torch.no_grad():
        return state.generator(noise, noise.new_empty(*noise.shape[:2], 0)).numpy()


def judged(images: np.ndarray, data: Dataset) -> dict[str, float]:
    """The Parzen log-likelihood and the coverage of the validation points."""
    points = data.validation.images
    score = paper_protocol(lambda p, sigmas: parzen_log_density(p, images, sigmas), points, points, len(images))
    return {"log_likelihood": score.log_likelihood, "coverage": coverage(points, images)}


def _stacked(draws: list[Draw]) -> Draw:
    return Draw(
        torch.stack([draw.noise for draw in draws]),
        tuple(torch.stack(masks) for masks in zip(*(draw.real_masks for draw in draws), strict=True)),
        tuple(torch.stack(masks) for masks in zip(*(draw.fake_masks for draw in draws), strict=True)),
    )


def levels_of(varied: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Both levels of a factor that is varied, and of another the published one."""
    return {name: levels if name in varied else levels[:1] for name, levels in FACTORS.items()}


def all_results(
    seeds: int,
    steps: list[int],
    data: Dataset,
    known: list[Result],
    keep: Callable[[list[Result]], None],
    varied: Sequence[str] = tuple(FACTORS),
) -> list[Result]:
    """Every combination's results: those that are known, and the others trained, each pair kept as it comes."""
    results = list(known)
    *first, last = levels_of(varied).values()
    side_by_side = [dict(PUBLISHED, init_range=init_range) for init_range in last]
    for levels in itertools.product(*first):
        changed = dict(zip(FACTORS, levels, strict=False))
        if not any(changed.items() <= asdict(result).items() for result in known):
            found = trained([{**one, **changed} for one in side_by_side], seeds, steps, data)
            keep(found)
            results += found
    return results


def combination_table(results: list[Result]) -> str:
    """Each combination's measures after the last step: mean and standard error over seeds."""
    lines = [f"{'scheme':<14}{'draws':<8}{'D loss':<8}{'D init':<8}" + "".join(f"{name:>20}" for name in MEASURES)]
    for levels in itertools.product(*FACTORS.values()):
        rows = [r for r in results if tuple(getattr(r, name) for name in FACTORS) == levels]
        if not rows:
            continue
        scheme, shared, scale, init_range = levels
        cells = (described([getattr(row, measure) for row in rows]) for measure in MEASURES)
        lines.append(f"{scheme:<14}{'shared' if shared else 'own':<8}{scale:<8}{init_range:<8}" + "".join(f"{cell:>20}" for cell in cells))  # fmt: skip
    return "\n".join(lines)


def effect_table(results: list[Result]) -> str:
    """What each factor changes, from its published level to the text's: paired over seeds, mean of the other factors."""
    lines = [f"{'factor':<26}{'from':<14}{'to':<14}" + "".join(f"{name:>20}" for name in MEASURES)]
    for name, (published, text) in FACTORS.items():
        if len({getattr(result, name) for result in results}) < 2:
            continue
        cells = []
        for measure in MEASURES:
            by_seed = [
                np.mean([getattr(r, measure) * (1 if getattr(r, name) == text else -1) for r in results if r.seed == seed]) * 2
                for seed in sorted({r.seed for r in results})
            ]  # fmt: skip
            cells.append(described(by_seed))
        lines.append(f"{name:<26}{published!s:<14}{text!s:<14}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines)


def described(values: list[float], digits: int = 2) -> str:
    """Mean and, of two or more, standard error."""
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1) / len(values) ** 0.5:.{digits}f}"


def main() -> None:
    """Train, and print both tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", choices=list(SIZES), default="digits")
    parser.add_argument("--root", default="", help="where MNIST's files are")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--vary", choices=list(FACTORS), action="append", help="a factor; all if none is named")
    parser.add_argument("--output", type=Path, help="a file of rows, read and added to")
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = load(DataSettings(given.data, **({"root": given.root, "download": False} if given.root else {})))
    known = (
        [Result(**json.loads(line)) for line in given.output.open()] if given.output and given.output.exists() else []
    )

    def keep(results: list[Result]) -> None:
        if given.output:
            with given.output.open("a") as file:
                file.writelines(json.dumps(asdict(result)) + "\n" for result in results)

    thirds = [given.steps // 3, 2 * given.steps // 3, given.steps]
    results = all_results(given.seeds, thirds, data, known, keep, given.vary or tuple(FACTORS))
    for step in thirds:
        at_step = [result for result in results if result.step == step]
        print(f"\n{given.data}, {given.seeds} seeds, after {step} steps\n")
        print(combination_table(at_step), effect_table(at_step), sep="\n\n")


if __name__ == "__main__":
    main()
