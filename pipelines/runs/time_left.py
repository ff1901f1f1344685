"""How long a run still takes: the work that is left, at the rates that this run has measured."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

# What does not depend on the nets, in seconds on a quiet machine.
RAY_START, TRIALS_START, WORKERS_START = 6.0, 12.0, 12.0
ENDING = {"evaluate": 7.0, "register": 5.0, "report": 3.0}
FINISH = sum(ENDING.values())
AT_ONCE = 3  # further seeds that the first confirmation takes, as in `stages.tune`; later ones are rarely needed

Rows = Sequence[Mapping[str, Any]]


def step_seconds(rows: Rows) -> float | None:
    """Seconds of a candidate's step, its scores included: the mean over those trained from the beginning; None before."""
    first: dict[str, Mapping[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["step"]):
        first.setdefault(row["segment"], row)
    timed = [row["seconds"] / row["step"] for row in first.values() if row["fresh"] and row["step"] and row["seconds"]]
    return sum(timed) / len(timed) if timed else None


def jobs_of_rungs(tune: Mapping[str, Any]) -> list[int]:
    """How many candidates each rung has, as a halving cuts them."""
    left, jobs = tune["candidates"], []
    cuts = tune["scheduler"] in ("synchronous_halving", "asha")
    for _ in tune["rungs"]:
        jobs.append(left)
        if cuts:
            left = min(left, max(1, int(left * tune["keep"] + 0.5)) + int(tune.get("include_default", False)))
    return jobs


def search_left(settings: Mapping[str, Any], rows: Rows, elapsed: float, cores: int, slowness: float) -> float | None:
    """Seconds until a search that has these rows, after `elapsed` seconds, has chosen; None before its first score."""
    tune, each = settings["tune"], step_seconds(rows)
    if each is None:
        return None
    most = min(tune["candidates"], tune["max_concurrent"] or tune["candidates"])
    busy = sum(row["seconds"] for row in rows) / max(elapsed, 1.0)  # on a cluster there are more CPUs than the driver's
    at_once = max(1, min(most, max(int(cores / (tune["resources_per_trial"]["cpu"] or 1) + 1e-9), round(busy))))
    searched = [row for row in rows if row["seed"] == settings["seed"]]
    seconds, before = 0.0, 0
    for rung, jobs in zip(tune["rungs"], jobs_of_rungs(tune), strict=True):
        reached = {row["candidate"] for row in searched if row["step"] >= rung or row["status"] == "diverged"}
        seconds += math.ceil(max(0, jobs - len(reached)) / at_once) * (rung - before) * each
        before = rung
    finalists = min(tune["candidates"], tune["confirm"]["best"] + int(tune.get("include_default", False)))
    jobs = finalists * min(AT_ONCE, tune["confirm"]["seeds"] - 1) if finalists > 1 else 0
    confirmed = {(row["candidate"], row["seed"]) for row in rows if row["seed"] != settings["seed"]}
    if jobs > len(confirmed):
        start = 0.0 if confirmed else slowness * TRIALS_START / 2
        seconds += start + math.ceil((jobs - len(confirmed)) / at_once) * before * each
    budget = tune["time_budget_s"]
    return seconds if budget is None else min(seconds, max(0.0, budget - elapsed))


def seconds_left(
    settings: Mapping[str, Any],
    waiting: Sequence[str],
    rows: Rows,
    training: Mapping[str, Any],
    elapsed: float,
    cores: int,
    slowness: float = 1.0,
) -> float | None:
    """Seconds to the end of the stages that are `waiting`, the first of them for `elapsed` seconds; None if unknown yet.

    `settings` are the configuration as plain data, `rows` the search's scores and `training` the row that a training
    shows while it goes on; `slowness` is how much longer than on a quiet machine Ray has taken to start.
    """
    total, each, goes_on = 0.0, step_seconds(rows), bool(rows) and settings["tune"]["scheduler"] != "population_based"
    for number, stage in enumerate(waiting):
        spent = elapsed if number == 0 else 0.0
        if stage == "tune":
            left = search_left(settings, rows, spent, cores, slowness)
        elif stage in ("train", "infer"):
            steps = settings["algorithm"]["steps"] if stage == "train" else settings["extension"]["inference"]["steps"]
            speed = training.get("steps_per_second") if number == 0 else None
            begun = settings["tune"]["rungs"][-1] if stage == "train" and goes_on else 0
            if speed:
                left = max(0, steps - training["step"]) / speed
            else:
                start = max(0.0, slowness * WORKERS_START - spent)
                left = None if each is None else start + max(0, steps - begun) * each
        else:
            left = max(0.0, slowness * ENDING[stage] - spent)
        if left is None:
            return None
        total += left
    return total
