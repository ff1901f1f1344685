"""Ray Tune: candidates searched, cut at rungs, the best compared with the configuration; resumed from earlier results.

The first candidate is the configuration itself, and the search's best replaces it only if a paired test at the last
rung finds it better (`search.choice`): over further seeds, as many as decide and `tune.confirm` allows, or, with one seed,
between the trained nets themselves.

With `tune.time_budget_s` the search ends in time. If no candidate has then reached the last rung, those that have come
farthest are compared, at that rung; confirmations get the time that is left.

With population based training, `chosen` are the winner's last settings: a training that follows uses these from its
first step on, and so do the confirmations, which alone decide where there are any; the configuration is among them as
one more candidate. `schedule` is what the winner was really trained with, step by step, and the run's
`perturbations.json` has every change of every candidate.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from gan_core.datasets import Dataset
from gan_core.errors import Diverged
from pipelines import config
from pipelines.config import ResolvedConfiguration, TuneSettings
from pipelines.config.candidates import known_candidates
from pipelines.runs.records import TuneRecord
from pipelines.runtime import autoscaler
from pipelines.search.choice import Finalists, described
from pipelines.search.ranking import (
    RankCorrelation,
    at_step,
    best_rows,
    deciding_step,
    device_seconds,
    mean_over_seeds,
    rung_correlation,
    rung_of,
    without_diverged,
)
from pipelines.search.results_store import TrainingSegment, lineage, open_results, segments
from pipelines.search.search_table import write_table
from pipelines.search.trials import Trials
from pipelines.storage import Storage, run_layout

AT_ONCE = 3  # further seeds: of fewer no test says much, and each search by Ray Tune takes seconds to start

# What may differ when a search is started again and reuses its earlier results.
NOT_IN_A_SCORE = (
    "candidates", "members", "batched", "include_default", "points", "scheduler", "keep", "confirm", "min_coverage",
    "time_budget_s", "max_concurrent", "max_failures", "learn_from", "learn_best",
)  # fmt: skip


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
    step = deciding_step(trials.rows, settings.rungs, trials.out_of_time, 0 if settings.include_default else None)
    searched = list(trials.rows)
    choice = _choose(trials, step, log)
    correlation = rung_correlation(trials.rows, settings.rungs)
    write_table(trials.rows, correlation, run)
    schedule = _write_perturbations(trials, choice.row, run)
    chosen, number = {key: choice.row[key] for key in settings.space}, choice.row["candidate"]
    _log_correlation(correlation, settings, log)
    log(f"tune   chosen: candidate {number}, {', '.join(f'{key} {value}' for key, value in chosen.items())}")
    scored = any(row["candidate"] == number for row in choice.rows)  # a configuration beside a population may not be
    log_likelihood, covered = mean_over_seeds(number, choice.rows, step) if scored else (None, None)
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
        step=choice.row.get("step", step),
        rung_correlation={str(rung): found.rho for rung, found in correlation.items()},
        rung_correlation_interval={str(rung): (found.low, found.high) for rung, found in correlation.items()},
        schedule=schedule,
        against_configuration=choice.comparison,
        reason=choice.reason,
        segment=choice.segment,
        finalists=_finalists(trials, choice, step),
        device_seconds={str(candidate): seconds for candidate, seconds in device_seconds(trials.rows).items()},
    )


@dataclass(frozen=True)
class Choice:
    """The row that won, the rows that decided, how its best compares with the configuration, and why."""

    row: dict[str, Any]
    rows: Sequence[Mapping[str, Any]]
    reason: str
    comparison: dict[str, Any] | None = None
    segment: str | None = None  # of the results store, whose training the run's goes on from


def _choose(trials: Trials, step: int, log: Callable[[str], None]) -> Choice:
    """The configuration, unless the search's best is better: over further seeds, until that is clear.

    Raises:
        Diverged: If neither it nor a candidate is usable.
    """
    configuration, settings = trials.configuration, trials.configuration.tune
    population, searched = settings.scheduler == "population_based", len(trials.rows)
    usable = at_step(trials.rows if population else without_diverged(trials.rows), step, settings.min_coverage)
    default = None
    if settings.include_default and population:  # whose candidate 0 has other settings by now
        default = {"candidate": settings.candidates, **known_candidates(configuration)[0]}
    elif settings.include_default:
        default = next((row for row in usable if row["candidate"] == 0), None)
    others = [row for row in usable if default is None or row["candidate"] != default["candidate"]]
    rows = {row["candidate"]: row for row in [*filter(None, [default]), *best_rows(others, settings.confirm.best)]}
    if not others and (default is None or population):
        _nothing_usable(trials, log)

    def log_densities(row: Mapping[str, Any]) -> np.ndarray:
        return TrainingSegment(trials.results, row["stretch"]).log_densities(row["step"])

    def finalists() -> Finalists:
        scored = trials.rows[searched:] if population and len(trials.rows) > searched else trials.rows
        number = None if default is None else default["candidate"]
        return Finalists(configuration, step, number, scored, log_densities)

    going, last = list(rows), configuration.seed + settings.confirm.seeds
    further = range(configuration.seed + 1, last)
    batches = [further[:AT_ONCE], *([seed] for seed in further[AT_ONCE:])]
    for number, seeds in enumerate(batch for batch in batches if batch):
        going = finalists().undecided(going) if number else going
        if len(going) < 2:
            break
        if trials.out_of_time:
            log("tune   no time is left to confirm the best over seeds")
            break
        log(
            f"tune   confirming candidates {', '.join(map(str, going))} over {len(seeds)} more "
            f"{'seeds' if len(seeds) > 1 else 'seed'}, of at most {settings.confirm.seeds - 1}"
        )
        trials.confirm([rows[candidate] for candidate in going], seeds, step)
    return _verdict(finalists(), rows, population, log)


def _verdict(
    finalists: Finalists, rows: dict[int, dict[str, Any]], population: bool, log: Callable[[str], None]
) -> Choice:
    """Who has won of the finalists, as the scores say by now."""
    default, challengers = finalists.default, [number for number in rows if number != finalists.default]
    comparison = None
    if default is None:
        winner, reason = finalists.leader(challengers), "the best candidate"
        if finalists.configuration.tune.include_default:
            reason += "; the configuration itself failed, diverged or covered too little"
    elif not challengers:
        winner, reason = default, "no other candidate is usable: the configuration is kept"
    else:
        best = finalists.leader(challengers)
        compared, better = finalists.compare(best, default), finalists.better(best, default)
        winner = best if better else default
        if better:
            reason = "better than the configuration"
        elif finalists.better(default, best):
            reason = "worse than the configuration, which is kept"
        elif compared:
            reason = "not distinguishable from the configuration, which is kept"
        else:
            reason = "not compared with the configuration over further seeds, for want of time: it is kept"
        if compared:
            seeds = len(finalists.seeds(best, default))
            comparison = {**dataclasses.asdict(compared), "candidate": best, "seeds": seeds}
            log(f"tune   candidate {best} against the configuration: {described(compared, seeds)}: {reason}")
        else:
            log(f"tune   candidate {best}: {reason}")
    return Choice(rows[winner], finalists.rows, reason, comparison, None if population else rows[winner]["stretch"])


def _finalists(trials: Trials, choice: Choice, step: int) -> list[dict[str, Any]]:
    """The choice and, the best first, the candidates whose training could go on in its place.

    None of population based training, whose settings have changed on the way.
    """
    if choice.segment is None:
        return []
    space, seed = trials.configuration.tune.space, trials.configuration.seed
    usable = at_step(without_diverged(trials.rows), step, trials.configuration.tune.min_coverage)
    ranked = best_rows([row for row in usable if row["seed"] == seed], len(usable))
    ranked.sort(key=lambda row: row["candidate"] != choice.row["candidate"])
    kept = ("candidate", "step", "log_likelihood", "standard_error", "coverage")
    return [
        {**{key: row[key] for key in kept}, "chosen": {key: row[key] for key in space}, "segment": row["stretch"]}
        for row in ranked
    ]


def search_inputs(configuration: ResolvedConfiguration, data_digest: str) -> list[Any]:
    """All that a search's scores are a function of: earlier results of the same are reused, others removed."""
    plain = config.to_plain(configuration)
    tune = config.without_later(plain["tune"])
    plain["tune"] = {key: value for key, value in tune.items() if key not in NOT_IN_A_SCORE}
    inputs = [plain[key] for key in ("seed", "data", "noise", "network", "algorithm", "tune")]
    inputs.append(configuration.train.shards)
    if configuration.tune.trains_batched:  # whose last bits are others
        inputs.append("batched")
    return [inputs, configuration.scored_weights, data_digest]


def _open_trials(
    configuration: ResolvedConfiguration, dataset: Dataset, run: Storage, log: Callable[[str], None], started: float
) -> Trials:
    """The search's trials, with the earlier results of a search of the same."""
    import ray

    from pipelines.search.schedulers import concurrency

    settings = configuration.tune
    results, earlier = open_results(run, search_inputs(configuration, dataset.digest))
    max_concurrent, limit = concurrency(settings, ray.cluster_resources(), autoscaler.present())
    of_grid = f" of the grid's {settings.grid_size}" if settings.searcher == "grid" else ""
    log(
        f"tune   {settings.candidates}{of_grid} candidates, {max_concurrent} at a time ({limit}), "
        f"rungs at {', '.join(map(str, settings.rungs))} {settings.rung_unit}"
    )
    if earlier:
        log(f"tune   reusing {earlier} earlier results")
    return Trials(configuration, dataset, run, results, max_concurrent, log, started)


def _log_what_was_cut(
    rows: list[dict[str, Any]], configuration: ResolvedConfiguration, log: Callable[[str], None]
) -> None:
    settings = configuration.tune
    last = {row["candidate"] for row in rows if rung_of(row) == settings.rungs[-1]}
    scored = {row["candidate"] for row in rows} - last
    log(
        f"tune   the time budget of {settings.time_budget_s:g} s is over: {len(last)} of {settings.candidates} candidates "
        f"reached {settings.rung_unit.removesuffix('s')} {settings.rungs[-1]}, {len(scored)} were scored before it, "
        f"{settings.candidates - len(last) - len(scored)} were not scored"
    )


def _log_correlation(
    correlation: Mapping[int, RankCorrelation], settings: TuneSettings, log: Callable[[str], None]
) -> None:
    unit = settings.rung_unit.removesuffix("s")
    for rung, found in correlation.items():
        log(
            f"tune   rank correlation of scores at {unit} {rung} with those at {unit} {settings.rungs[-1]}: {found.rho:.2f} "
            f"(95 % interval {found.low:.2f} to {found.high:.2f}, {found.pairs} pairs)"
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


def _write_perturbations(trials: Trials, winner: dict[str, Any], run: Storage) -> list[dict[str, Any]]:
    """Of a population, write every change of settings, by whom and from whose weights, and return the winner's schedule.

    The configuration, which has no row of the search, has none.
    """
    if trials.configuration.tune.scheduler != "population_based":
        return []
    abouts = [segment.about for segment in segments(trials.results)]
    run.write_json(run_layout.PERTURBATIONS, [about for about in abouts if about["origin"] is not None])
    return lineage(TrainingSegment(trials.results, winner["stretch"])) if "stretch" in winner else []
