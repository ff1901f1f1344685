"""Ray Tune: candidates searched, cut at rungs, the best few confirmed over seeds; resumed from earlier results.

With `tune.time_budget_s` the search ends in time. If no candidate has then reached the last rung, those that have come
farthest are compared, at that rung; confirmations get the time that is left.

With population based training, `chosen` are the winner's last settings: a training that follows uses these from its
first step on, and so do the confirmations, whose mean alone decides where there are any. `schedule` is what the winner
was really trained with, step by step, and the run's `perturbations.json` has every change of every candidate.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from gan_core.datasets import Dataset
from gan_core.errors import Diverged
from pipelines import config
from pipelines.config import ResolvedConfiguration, TuneSettings
from pipelines.runs.records import TuneRecord
from pipelines.runtime import autoscaler
from pipelines.search.ranking import (
    at_step,
    best_rows,
    deciding_step,
    mean_over_seeds,
    rung_correlation,
    without_diverged,
)
from pipelines.search.results_store import TrainingSegment, lineage, open_results, segments
from pipelines.search.trials import Trials
from pipelines.storage import Storage, run_layout

# What may differ when a search is started again and reuses its earlier results.
NOT_IN_A_SCORE = ("candidates", "scheduler", "keep", "confirm", "min_coverage", "time_budget_s", "max_concurrent", "max_failures")  # fmt: skip


def tune_run(
    configuration: ResolvedConfiguration, dataset: Dataset, run: Storage, log: Callable[[str], None]
) -> TuneRecord:
    """Search, confirm, keep the table of every result, and return the settings that won.

    A search that was killed, or that is given more candidates, is run again from the start with its
    earlier results: a score among them is reported without training, and training goes on from the last rung.
    So with candidates drawn up front and synchronous rungs it ends as an undisturbed search of all the
    candidates would; results that such a search would not have are left out of its table. With other
    schedulers the order of arrival decides, and the promise is that nothing known is trained again.

    Raises:
        Diverged: If no candidate stayed finite with enough coverage, or none was scored in time.
    """
    started = time.monotonic()
    settings, trials = configuration.tune, _open_trials(configuration, dataset, run, log, started)
    trials.search()
    if trials.out_of_time:
        _log_what_was_cut(trials.rows, configuration, log)
    step = deciding_step(trials.rows, settings.rungs, trials.out_of_time)
    last = trials.rows if settings.scheduler == "population_based" else without_diverged(trials.rows)
    best = best_rows(at_step(last, step, settings.min_coverage), settings.confirm.best)
    if not best:
        _nothing_usable(trials, log)
    searched = list(trials.rows)
    trials.confirm(best, step)
    winner, log_likelihood, covered = _winner(best, trials.rows, len(searched), step, settings)
    chosen = {key: winner[key] for key in settings.space}
    correlation = rung_correlation(trials.rows, settings.rungs)
    _write_table(trials.rows, correlation, run)
    schedule = _write_perturbations(trials.results, winner, run) if settings.scheduler == "population_based" else []
    for rung, rho in correlation.items():
        log(f"tune   rank correlation of scores at step {rung} with those at step {settings.rungs[-1]}: {rho:.2f}")
    number = winner["candidate"]
    log(f"tune   chosen: candidate {number}, {', '.join(f'{key} {value}' for key, value in chosen.items())}")
    return TuneRecord(
        chosen=chosen,
        candidate=number,
        log_likelihood=log_likelihood,
        coverage=covered,
        candidates=settings.candidates,
        diverged=len({row["candidate"] for row in trials.rows if row["status"] == "diverged"}),
        failed=trials.failed,
        seconds=time.monotonic() - started,
        finished=len({row["candidate"] for row in at_step(searched, settings.rungs[-1])}),
        step=step,
        rung_correlation={str(rung): rho for rung, rho in correlation.items()},
        schedule=schedule,
    )


def _open_trials(
    configuration: ResolvedConfiguration, dataset: Dataset, run: Storage, log: Callable[[str], None], started: float
) -> Trials:
    """The search's trials, with the earlier results of a search of the same."""
    import ray

    from pipelines.search.schedulers import concurrency

    settings, plain = configuration.tune, config.to_plain(configuration)
    plain["tune"] = {key: value for key, value in plain["tune"].items() if key not in NOT_IN_A_SCORE}
    inputs = [plain[key] for key in ("seed", "data", "noise", "network", "algorithm", "tune")]
    results, earlier = open_results(run, [inputs, configuration.scored_weights, dataset.digest])
    max_concurrent, limit = concurrency(settings, ray.cluster_resources(), autoscaler.present())
    of_grid = f" of the grid's {settings.grid_size}" if settings.searcher == "grid" else ""
    log(
        f"tune   {settings.candidates}{of_grid} candidates, {max_concurrent} at a time ({limit}), "
        f"rungs at {', '.join(map(str, settings.rungs))} steps"
    )
    if earlier:
        log(f"tune   reusing {earlier} earlier results")
    return Trials(configuration, dataset, run, results, max_concurrent, log, started)


def _winner(
    best: list[dict[str, Any]], rows: list[dict[str, Any]], searched: int, step: int, settings: TuneSettings
) -> tuple[dict[str, Any], float, float]:
    """The best's row with the best mean over seeds at a step, and that mean: log-likelihood (nats) and coverage.

    Of population based training, whose settings change on the way, the confirmations (the rows after the
    `searched` ones) decide alone where there are any.
    """
    if settings.scheduler == "population_based" and len(rows) > searched:
        rows = rows[searched:]
        best = [row for row in best if any(row["candidate"] == other["candidate"] for other in rows)]
    means = {row["candidate"]: mean_over_seeds(row["candidate"], rows, step) for row in best}
    winner = max(best, key=lambda row: _merit(*means[row["candidate"]], settings.min_coverage))
    return winner, *means[winner["candidate"]]


def _merit(log_likelihood: float, covered: float, min_coverage: float) -> tuple[bool, float]:
    """What the winner has most of: one whose mean coverage over seeds is too small is behind all others."""
    return covered >= min_coverage, log_likelihood


def _log_what_was_cut(
    rows: list[dict[str, Any]], configuration: ResolvedConfiguration, log: Callable[[str], None]
) -> None:
    settings = configuration.tune
    last = {row["candidate"] for row in rows if row["step"] == settings.rungs[-1]}
    scored = {row["candidate"] for row in rows} - last
    log(
        f"tune   the time budget of {settings.time_budget_s:g} s is over: {len(last)} of {settings.candidates} candidates "
        f"reached step {settings.rungs[-1]}, {len(scored)} were scored before it, "
        f"{settings.candidates - len(last) - len(scored)} were not scored"
    )


def _nothing_usable(trials: Trials, log: Callable[[str], None]) -> NoReturn:
    settings = trials.configuration.tune
    if trials.out_of_time and not any(row["status"] == "finite" for row in trials.rows):
        raise Diverged(
            "no candidate was scored in time", "tune.time_budget_s", f"{settings.time_budget_s:g} s",
            "a longer one; start a new run: --name NAME",
        )  # fmt: skip
    log("tune   no candidate reached the last rung with enough coverage")
    raise Diverged(
        "no candidate is usable", "tune", f"{settings.candidates} candidates, none finite with coverage >= {settings.min_coverage}",
        "a wider space or a lower tune.min_coverage",
    )  # fmt: skip


def _write_table(rows: list[dict[str, Any]], correlation: dict[int, float], run: Storage) -> None:
    import pandas

    table = pandas.DataFrame(rows).sort_values(["stage", "candidate", "seed", "step"])
    table["rung_correlation"] = table["step"].map(correlation).astype(float)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        table.to_parquet(path, index=False)
        run.write(run_layout.TABLE, path.read_bytes())


def _write_perturbations(results: Storage, winner: dict[str, Any], run: Storage) -> list[dict[str, Any]]:
    """Write every change of settings, by whom and from whose weights, and return the winner's own schedule."""
    abouts = [segment.about for segment in segments(results)]
    run.write_json(run_layout.PERTURBATIONS, [about for about in abouts if about["origin"] is not None])
    return lineage(TrainingSegment(results, winner["stretch"]))
