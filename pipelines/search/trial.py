"""One candidate of a search, as a Ray Tune trial: earlier results are reported at once, the rest is trained."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from gan_core.datasets import Dataset
from gan_core.errors import Diverged
from gan_core.training import train
from pipelines.search.candidate_training import CandidateTraining, Search
from pipelines.search.results_store import TrainingSegment, open_segment

POINTER = "pointer.json"


def trial(config: dict[str, Any], search: Search, dataset: Dataset) -> None:
    """Report a candidate's score at each rung, from the results store or trained now, each exactly once.

    `config["job"]` is the candidate: its number, its seed and its settings by dotted name.

    Ray Tune's checkpoint is a pointer to a segment and a step. With the same job it says how far this
    trial has come; with another, population based training has put this trial there, and a new
    segment begins.
    """
    from ray import tune

    torch.set_num_threads(max(1, int(search.configuration.tune.resources_per_trial.cpu)))
    # Others may go on from an older one than the newest where weights are copied between candidates.
    kept = 4 if search.configuration.tune.scheduler == "population_based" else 2
    job, pointer = config["job"], pointer_in(tune.get_checkpoint())
    if pointer and pointer["job"] == job:
        segment = TrainingSegment(search.results, pointer["stretch"], kept)
    else:
        origin = pointer and {"stretch": pointer["stretch"], "step": pointer["step"]}
        segment = open_segment(search.results, job, origin, kept)
    reported = pointer["step"] if pointer else 0
    rungs = search.rungs_of(job)
    for row in rows_of(segment, job, search, dataset):
        if row["step"] <= reported:
            continue
        rung = sum(step < row["step"] for step in rungs) + 1  # the one it stands for, if it has diverged
        result = {**search.result(job, row, rung), "rung": rung, "stretch": segment.name}
        if row["status"] == "diverged":
            tune.report(result)
            return
        if row["step"] in rungs:
            with tempfile.TemporaryDirectory() as folder:
                pointer = {"stretch": segment.name, "step": row["step"], "job": job}
                (Path(folder) / POINTER).write_text(json.dumps(pointer))
                tune.report(result, checkpoint=tune.Checkpoint.from_directory(folder))


def rows_of(
    segment: TrainingSegment, job: dict[str, Any], search: Search, dataset: Dataset
) -> Iterator[dict[str, Any]]:
    """The segment's rows: those in the results store, then those of training on from the last of them.

    A row's `seconds` are since the trial began, or went on; `device_seconds` are all, from step 0, and of each CPU or,
    where a trial has them, each GPU.
    """
    earlier = segment.rows()
    yield from earlier
    last, end = earlier[-1]["step"] if earlier else 0, search.rungs_of(job)[-1]
    if last >= end or (earlier and earlier[-1]["status"] == "diverged") or search.out_of_time:
        return
    training = CandidateTraining.after(earlier, segment, job, search, dataset)
    settings, state, conditions = training.settings, training.state, training.conditions
    try:
        for report in train(settings, dataset.train, state, end, training.report_due, conditions=conditions):
            if (row := training.keep(report)) is not None:
                yield row
                training.spent.go_on()  # whom it reports to may have taken a while
            if search.out_of_time:
                return
    except Diverged:
        yield training.diverged()


def pointer_in(checkpoint: Any) -> dict[str, Any] | None:
    """What a trial's checkpoint says of how far it has come; None of none."""
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        return dict(json.loads((Path(folder) / POINTER).read_text()))
