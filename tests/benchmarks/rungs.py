"""How well a rung predicts the end: a search's candidates over seeds, all trained to the last step and scored on the way.

    python -m tests.benchmarks.rungs configs/digits.yaml --candidates 12 --seeds 2 --rungs '[200, 400, 600, 900, 1600]'

Of each earlier rung Spearman's rank correlation with the last one, with its 95 % interval, over all pairs of candidate and
seed and over the candidates' means; with five rungs, what searches of several kinds would have ended with. `--kept FILE`
keeps each training's rows, and the same command goes on.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from gan_core import datasets
from pipelines import config
from pipelines.config.candidates import candidate_configurations, draw_candidates
from pipelines.search.ranking import rung_correlation
from tests.benchmarks.search import Training, kept_rows

MOST = 10**6
RESAMPLED = 4000  # searches of each kind
Row = dict[str, Any]
Key = tuple[int, int]  # candidate and seed
Curve = dict[int, tuple[float, float]]  # by step: score (nats) and seconds


def trained(training: Training, candidate: int, rungs: list[int]) -> Iterator[Row]:
    """A training's rows, with the seconds of a core that it had taken by then, scores apart."""
    seconds = 0.0
    for rung in rungs:
        started = time.process_time()
        training.to(rung)
        seconds += time.process_time() - started
        row = training.row(candidate, rung)
        row.pop("log_densities", None)
        yield {**row, "seconds": seconds}
        if training.diverged:
            return


def summary(rows: list[Row], rungs: list[int]) -> Iterator[str]:
    """The correlations, of pairs and of the means of candidates."""
    seeds = sorted({row["seed"] for row in rows})
    for rung, found in rung_correlation(rows, rungs).items():
        yield (
            f"step {rung:5d} with {rungs[-1]}: Spearman {found.rho:.2f} "
            f"(95 % interval {found.low:.2f} to {found.high:.2f}, {found.pairs} pairs of {len(seeds)} seeds)"
        )
    scores = {(row["candidate"], row["step"], row["seed"]): row["log_likelihood"] for row in rows}
    candidates = sorted({row["candidate"] for row in rows})
    means = [
        {"candidate": candidate, "seed": -1, "step": rung, "status": "finite",
         "log_likelihood": float(np.mean([scores[candidate, rung, seed] for seed in seeds]))}
        for candidate in candidates for rung in rungs
        if all((candidate, rung, seed) in scores for seed in seeds)
    ]  # fmt: skip
    for rung, found in rung_correlation(means, rungs).items():
        yield (
            f"  means over seeds, step {rung:5d}: {found.rho:.2f} "
            f"({found.low:.2f} to {found.high:.2f}, {found.pairs} candidates)"
        )


def halved(curves: Mapping[Key, Curve], ids: Sequence[Key], rungs: Sequence[int], keep: float) -> tuple[Key, float]:
    """Who is left of one successive halving of these trainings, and its device-seconds."""
    left, cost, before = list(ids), 0.0, 0
    for rung in rungs:
        cost += sum(curves[key][rung][1] - (curves[key][before][1] if before else 0.0) for key in left)
        left.sort(key=lambda key: -curves[key][rung][0])
        left = left[: max(1, int(len(left) * keep + 0.5))]
        before = rung
    return left[0], cost


def strategies(rows: list[Row], rungs: list[int], keep: float) -> Iterator[str]:
    """What searches by these trainings end with: one halving, brackets of Hyperband beside it, no rung, a random pick.

    Trainings are drawn without return, as many as a search has, and the best of its brackets at the last but one rung is
    trained to the last one.
    """
    curves = curves_of(rows)
    first, second, third, deciding, end = rungs
    for name, brackets in {
        "one halving, late rungs": [((third, deciding), 6)],
        "one halving, an early rung": [((first, third, deciding), 12)],
        "brackets, late": [((third, deciding), 3), ((deciding,), 2)],
        "brackets, the first early": [((first, third, deciding), 5), ((third, deciding), 2), ((deciding,), 1)],
        "brackets, the first less early": [((second, third, deciding), 4), ((third, deciding), 2), ((deciding,), 1)],
        "no rung": [((deciding,), 4)],
        "random pick": [((deciding,), 1)],
    }.items():
        random, ends, costs = np.random.default_rng(0), [], []
        for _ in range(RESAMPLED):
            drawn = iter([list(curves)[index] for index in random.permutation(len(curves))])
            found = [halved(curves, list(islice(drawn, count)), steps, keep) for steps, count in brackets]
            best = max((winner for winner, _ in found), key=lambda key: curves[key][deciding][0])
            ends.append(curves[best][end][0])
            costs.append(sum(cost for _, cost in found))
        yield ended(name, costs, ends, end)


def learning(rows: list[Row], rungs: list[int], keep: float) -> Iterator[str]:
    """What a search of six ends with alone, and after one of six with another seed: its best three among its six.

    Candidate 0, the configuration, is in all; the others are drawn without return.
    """
    curves, (*_, third, deciding, end) = curves_of(rows), rungs
    numbers, seeds = (sorted({key[part] for key in curves}) for part in (0, 1))
    random, found = np.random.default_rng(0), {"alone": ([], []), "after another": ([], [])}  # type: ignore[var-annotated]
    for _ in range(RESAMPLED):
        (before, now), drawn = random.permutation(seeds)[:2], list(random.permutation(numbers[1:]))
        known = sorted(drawn[:5], key=lambda number: -curves[number, before][third][0])
        survivors = sorted(
            known[: max(1, int(6 * keep + 0.5))], key=lambda number: -curves[number, before][deciding][0]
        )
        best = [*survivors, *known[len(survivors) :]][:3]
        for name, candidates in {"alone": drawn[-5:], "after another": [*best, *drawn[5:7]]}.items():
            ids = [(number, now) for number in (0, *candidates)]
            winner, cost = halved(curves, ids, (third, deciding), keep)
            found[name][0].append(cost)
            found[name][1].append(curves[winner][end][0])
    for name, (costs, ends) in found.items():
        yield ended(f"six candidates, {name}", costs, ends, end)


def curves_of(rows: list[Row]) -> dict[Key, Curve]:
    """Each training's scores and seconds."""
    curves: dict[Key, Curve] = {}
    for row in rows:
        curves.setdefault((row["candidate"], row["seed"]), {})[row["step"]] = row["log_likelihood"], row["seconds"]
    return curves


def ended(name: str, costs: list[float], ends: list[float], end: int) -> str:
    """What searches of a kind cost, and end with, in words."""
    return (
        f"{name:31s} {np.mean(costs):5.1f} s: {np.mean(ends):5.2f} nats at step {end}, "
        f"one in twenty below {np.quantile(ends, 0.05):.1f}"
    )


@click.command(help=__doc__)
@click.argument("path")
@click.option("--set", "overrides", multiple=True, metavar="a.b=c")
@click.option("--candidates", type=click.IntRange(min=3), default=12, show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--rungs", default="[200, 400, 600, 900, 1600]", show_default=True)
@click.option("--kept", type=click.Path(path_type=Path), help="A file of finished trainings: the same command goes on.")
@click.option("--at-once", type=click.IntRange(min=1), default=MOST, help="Trainings of one call.")
def main(
    path: str, overrides: tuple[str, ...], candidates: int, seeds: int, rungs: str, kept: Path | None, at_once: int
) -> None:
    torch.set_num_threads(1)
    more = (f"tune.candidates={candidates}", f"tune.rungs={rungs}")
    configuration = config.resolve(config.load(path, (*overrides, *more)), "benchmark")
    data, steps = datasets.load(configuration.data), list(configuration.tune.rungs)
    plain = config.to_plain(configuration)
    scoring = {key: plain["tune"][key] for key in ("space", "rungs", "samples", "sample_sets")}
    inputs = config.digest([{**plain, "tune": scoring}, data.digest])
    drawn, settings = candidate_configurations(configuration), draw_candidates(configuration)
    rows = [row for row in kept_rows(kept) if row["inputs"] == inputs]
    done = {(row["candidate"], row["seed"]) for row in rows}
    wanted = [(number, configuration.seed + extra) for number in range(candidates) for extra in range(seeds)]
    for number, seed in [one for one in wanted if one not in done][:at_once]:
        training = Training(replace(drawn[number], seed=seed), data, seed)
        found = [{"inputs": inputs, **settings[number], **row} for row in trained(training, number, steps)]
        rows += found
        if kept is not None:
            with kept.open("a") as file:
                file.write("".join(json.dumps(row) + "\n" for row in found))
        scores = ", ".join(f"{row['log_likelihood']:.1f}" for row in found)
        print(f"candidate {number} seed {seed}  {found[-1]['seconds']:.1f} s  {scores}", flush=True)
    mine = [row for row in rows if (row["candidate"], row["seed"]) in wanted]
    if len({(row["candidate"], row["seed"]) for row in mine}) == len(wanted):
        print(*summary(mine, steps), sep="\n")
        if len(steps) == 5 and len(wanted) >= 12 and all(row["status"] == "finite" for row in mine):
            print(*strategies(mine, steps, configuration.tune.keep), sep="\n")
            if seeds > 1:
                print(*learning(mine, steps, configuration.tune.keep), sep="\n")


if __name__ == "__main__":
    main()
