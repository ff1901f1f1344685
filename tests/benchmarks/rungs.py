"""How well a rung predicts the end: a search's candidates over seeds, all trained to the last step and scored on the way.

    python -m tests.benchmarks.rungs configs/digits.yaml --candidates 12 --seeds 2 --rungs '[200, 400, 600, 900, 1600]'

Of each earlier rung Spearman's rank correlation with the last one, with its 95 % interval, over all pairs of candidate and
seed and over the candidates' means. `--kept FILE` keeps each training's rows, and the same command goes on.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
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
Row = dict[str, Any]


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


if __name__ == "__main__":
    main()
