"""Several candidates as one Ray Tune trial, a population: its members are trained to a rung and scored together."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import torch

from gan_core.datasets import Dataset
from gan_core.errors import Diverged
from gan_core.population import Member, program_of, train_population
from pipelines.search.candidate_training import DIVERGED_SCORE, CandidateTraining, Search
from pipelines.search.population_shares import Job, Shares
from pipelines.search.results_store import open_segment
from pipelines.search.trial import POINTER, pointer_in, rows_of


def population(config: dict[str, Any], search: Search, dataset: Dataset, shares: Shares) -> None:
    """Report the rows of all members at each rung, from the results store or trained now, each exactly once.

    `config["population"]["members"]` are the members' jobs at first, `shares` those after each rung. A member has its own segment of the results store, as a trial
    of its own would: so another population may go on with it, and one that is started again trains nothing twice.

    On a CPU members are trained in turn, to the bit as alone: batched they would be no faster, their products being what
    takes the time there. On a GPU those of one program are trained as one (`tune.batched`).
    """
    from ray import tune

    torch.set_num_threads(max(1, int(search.configuration.tune.resources_per_trial.cpu)))
    trial, pointer = tune.get_context().get_trial_id(), pointer_in(tune.get_checkpoint())
    done = pointer["rung"] if pointer else 0
    for number in range(done + 1, len(search.rungs) + 1):
        members = config["population"]["members"] if not done else shares.wait(done, trial, search.deadline)
        while members is None and not search.out_of_time:
            _report([], done, search)  # where another needs its place, it pauses
            members = shares.wait(done, trial, search.deadline)
        if not members:
            return
        if search.configuration.tune.trains_batched:
            _train_together(number, members, search, dataset)
        rows = [row for job in members for row in _rows_to(number, job, search, dataset)]
        if not rows:  # time is over
            return
        _report(rows, number, search)
        done = number


def _report(rows: list[dict[str, Any]], rung: int, search: Search) -> None:
    from ray import tune

    best = max((row["log_likelihood"] for row in rows), default=DIVERGED_SCORE)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / POINTER).write_text(json.dumps({"rung": rung}))
        result = {"rows": rows, "rung": rung, "step": search.rungs[rung - 1], "log_likelihood": best}
        tune.report(result, checkpoint=tune.Checkpoint.from_directory(folder))


def _rows_to(rung: int, job: Job, search: Search, dataset: Dataset) -> list[dict[str, Any]]:
    """A member's row at a rung (counted from 1), or where it diverged before; none, if time is over."""
    segment, rungs = open_segment(search.results, job, None), (0, *search.rungs_of(job))
    for row in rows_of(segment, job, search, dataset):
        if row["step"] > rungs[rung - 1] and (row["step"] == rungs[rung] or row["status"] == "diverged"):
            return [{**job, **search.result(job, row, rung), "stretch": segment.name}]
    return []


def _train_together(rung: int, jobs: list[Job], search: Search, dataset: Dataset) -> None:
    """Train to a rung, as batched programs, the members whose row there is not in the results store."""
    programs: dict[Hashable, list[CandidateTraining]] = defaultdict(list)
    for job in jobs:
        segment, step = open_segment(search.results, job, None), search.rungs_of(job)[rung - 1]
        rows = segment.rows()
        if not rows or (rows[-1]["step"] < step and rows[-1]["status"] != "diverged"):
            training = CandidateTraining.after(rows, segment, job, search, dataset)
            program = program_of(training.settings)
            if program is not None:  # else it is trained alone
                programs[program, int(training.state.step)].append(training)
    for trainings in programs.values():
        if search.out_of_time:
            return
        _train_program(rung, trainings, search, dataset)


def _train_program(rung: int, trainings: list[CandidateTraining], search: Search, dataset: Dataset) -> None:
    members, first = [Member(training.settings, training.state) for training in trainings], trainings[0]
    end = first.rungs[rung - 1]  # of all: they have k in common
    for training in trainings:
        training.begin(sharing=len(trainings))
    for reports in train_population(members, dataset.train, end, first.report_due, first.conditions):
        for training, report in zip(trainings, reports, strict=True):
            if isinstance(report, Diverged):
                training.diverged()
            elif report is not None:
                training.keep(report)
        if search.out_of_time:
            return
