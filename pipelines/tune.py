"""Ray Tune: candidates drawn up front, cut at synchronous rungs, the best few confirmed over seeds."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gan_core.checkpoint import read_checkpoint, write_checkpoint
from gan_core.datasets import Dataset
from gan_core.errors import Diverged
from gan_core.noise import draw_noise
from gan_core.parzen import paper_protocol, parzen_log_density
from gan_core.quality import coverage
from gan_core.randomness import stream
from gan_core.training import TrainingSettings, initial_state, sample, train
from pipelines import config
from pipelines.candidates import draw_candidates
from pipelines.records import TuneRecord
from pipelines.settings import Configuration, TuneSettings
from pipelines.storage import Storage

TABLE = "tune/table.parquet"
DIVERGED_SCORE = -1e30  # finite, so that the table stays a table of numbers; below any model's
CHECK_EVERY = 100  # steps between looks at the losses, so that a diverged trial ends soon


@dataclass(frozen=True)
class Search:
    """What each trial is told beside its candidate: everything that they share."""

    configuration: Configuration
    rungs: tuple[int, ...]


def tune_run(configuration: Configuration, dataset: Dataset, run: Storage, say: Callable[[str], None]) -> TuneRecord:
    """Search, confirm, keep the table of every result, and return the settings that won.

    Raises:
        Diverged: If no candidate stayed finite with enough coverage.
    """
    import pandas

    started = time.monotonic()
    assert isinstance(configuration.seed, int)
    settings = configuration.tune
    candidates = draw_candidates(settings, configuration.seed)
    say(f"tune   {len(candidates)} candidates, rungs at {', '.join(map(str, settings.rungs))} steps")
    jobs = [{"candidate": index, "seed": configuration.seed, **values} for index, values in enumerate(candidates)]
    rows, failed = _run_trials("search", jobs, configuration, dataset, run, say)
    final = _at_last_rung(rows, settings)
    best = sorted(final, key=lambda row: (-row["log_likelihood"], row["candidate"]))[: settings.confirm.best]
    if not best:
        say("tune   no candidate reached the last rung with enough coverage")
        raise Diverged(
            "no candidate is usable", "tune", f"{len(candidates)} candidates, none finite with coverage >= {settings.min_coverage}",
            "a wider space or a lower tune.min_coverage",
        )  # fmt: skip
    confirmations = [
        {"candidate": row["candidate"], "seed": configuration.seed + extra, **candidates[row["candidate"]]}
        for row in best
        for extra in range(1, settings.confirm.seeds)
    ]
    if confirmations:
        say(f"tune   confirming the best {len(best)} over {settings.confirm.seeds} seeds")
        confirmed, more_failed = _run_trials("confirm", confirmations, configuration, dataset, run, say)
        rows, failed = rows + confirmed, failed + more_failed
    means = {row["candidate"]: _mean_over_seeds(row["candidate"], rows, settings) for row in best}
    winner = max(means, key=lambda candidate: means[candidate][0])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        pandas.DataFrame(rows).sort_values(["stage", "candidate", "seed", "step"]).to_parquet(path, index=False)
        run.write(TABLE, path.read_bytes())
    say(
        f"tune   chosen: candidate {winner}, {', '.join(f'{key} {value}' for key, value in candidates[winner].items())}"
    )
    return TuneRecord(
        chosen=candidates[winner],
        candidate=winner,
        log_likelihood=means[winner][0],
        coverage=means[winner][1],
        candidates=len(candidates),
        diverged=len({row["candidate"] for row in rows if row["status"] == "diverged"}),
        failed=failed,
        seconds=time.monotonic() - started,
    )


def trial(told: dict[str, Any], search: Search, dataset: Dataset) -> None:
    """One candidate, trained by the same loop as the Ray Train workers, scored at each rung."""
    from ray import tune

    values = told["job"]

    torch.set_num_threads(max(1, int(search.configuration.tune.resources_per_trial.cpu)))
    job = {key: value for key, value in values.items() if key not in ("candidate", "seed")}
    settings = replace(config.override(search.configuration, job).training(), seed=values["seed"], virtual_shards=1)
    state = initial_state(settings, dataset.train)
    device = torch.device("cuda" if search.configuration.tune.resources_per_trial.gpu else "cpu")
    state = state.to(device)
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            state.load(read_checkpoint(Path(folder))[1], "trial checkpoint")
    started, rungs = time.monotonic(), search.rungs
    try:
        for report in train(
            settings, dataset.train, state, rungs[-1], lambda step: step in rungs or step % CHECK_EVERY == 0
        ):
            if report.step not in rungs:
                continue
            averaged = search.configuration.evaluate.weights == "averaged"
            generator = state.averaged if averaged and state.averaged else state.generator
            result: dict[str, Any] = {**score(generator, settings, dataset, search.configuration.tune.samples)}
            result |= {
                "step": report.step,
                "status": "finite",
                "seconds": time.monotonic() - started,
                "value": report.metrics["value"],
            }
            with tempfile.TemporaryDirectory() as folder:
                write_checkpoint(Path(folder), report.step, state.tensors())
                tune.report(result, checkpoint=tune.Checkpoint.from_directory(folder))
    except Diverged:
        nothing = {"log_likelihood": DIVERGED_SCORE, "sigma": 0.0, "coverage": 0.0, "value": 0.0}
        tune.report({**nothing, "step": int(state.step), "status": "diverged", "seconds": time.monotonic() - started})


def score(generator: torch.nn.Module, settings: TrainingSettings, dataset: Dataset, samples: int) -> dict[str, float]:
    """A rung's score: the validation points' Parzen log-likelihood at the grid's best sigma, and coverage."""
    noise = draw_noise(stream(settings.seed, "rung samples"), samples, settings.noise)
    device = next(generator.parameters()).device
    generated = sample(generator, noise.to(device)).cpu().numpy()
    points = dataset.validation.images
    found = paper_protocol(lambda p, sigmas: parzen_log_density(p, generated, sigmas), points, points, samples)
    return {"log_likelihood": found.log_likelihood, "sigma": found.sigma, "coverage": coverage(points, generated)}


def _run_trials(
    stage: str,
    jobs: list[dict[str, Any]],
    configuration: Configuration,
    dataset: Dataset,
    run: Storage,
    say: Callable[[str], None],
) -> tuple[list[dict[str, Any]], int]:
    """Run one trial for each job; return all their results, and how many failed."""
    from ray import tune

    from pipelines.halving import SynchronousHalving

    settings = configuration.tune
    halved = stage == "search" and settings.scheduler == "synchronous_halving" and len(settings.rungs) > 1
    rungs = settings.rungs if stage == "search" else settings.rungs[-1:]
    callback = _collector(stage, say)
    folder = run.within("tune", stage)
    folder.remove()
    limits = {"cpu": settings.resources_per_trial.cpu, "gpu": settings.resources_per_trial.gpu}
    trainable = tune.with_parameters(trial, search=Search(configuration, rungs), dataset=dataset)
    tuner = tune.Tuner(
        tune.with_resources(trainable, limits),
        param_space={"job": tune.grid_search(jobs)},
        tune_config=tune.TuneConfig(
            metric="log_likelihood",
            mode="max",
            scheduler=SynchronousHalving(rungs, settings.keep) if halved else None,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=stage,
            storage_path=run.within("tune").uri,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=settings.max_failures),
            callbacks=[callback],
        ),
    )
    grid = tuner.fit()
    return callback.rows, int(grid.num_errors)


def _collector(stage: str, say: Callable[[str], None]) -> Any:
    from ray.tune import Callback

    class Collector(Callback):  # type: ignore[misc]
        """Keeps every result as a row of the table, and says it."""

        def __init__(self) -> None:
            self.rows: list[dict[str, Any]] = []

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            kept = ("step", "status", "log_likelihood", "sigma", "coverage", "value", "seconds")
            row = {"stage": stage, **result["config"]["job"], **{name: result[name] for name in kept}}
            self.rows.append(row)
            place = f"tune   {stage} candidate {row['candidate']} seed {row['seed']} step {row['step']}"
            if row["status"] == "diverged":
                say(f"{place}  diverged")
            else:
                say(f"{place}  log-likelihood {row['log_likelihood']:.1f} nats  coverage {row['coverage']:.2f}")

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            say(f"tune   {stage} candidate {trial.config['job']['candidate']} failed; see {trial.path}")

    return Collector()


def _trial_name(trial: Any) -> str:
    job = trial.config["job"]
    return f"candidate-{job['candidate']}-seed-{job['seed']}"


def _at_last_rung(rows: list[dict[str, Any]], settings: TuneSettings) -> list[dict[str, Any]]:
    return [
        row
        for row in rows
        if row["step"] == settings.rungs[-1] and row["status"] == "finite" and row["coverage"] >= settings.min_coverage
    ]


def _mean_over_seeds(candidate: int, rows: list[dict[str, Any]], settings: TuneSettings) -> tuple[float, float]:
    """Mean log-likelihood and coverage over a candidate's seeds; a seed that diverged counts as the worst."""
    mine = [
        row
        for row in rows
        if row["candidate"] == candidate and (row["step"] == settings.rungs[-1] or row["status"] == "diverged")
    ]
    return float(np.mean([row["log_likelihood"] for row in mine])), float(np.mean([row["coverage"] for row in mine]))
