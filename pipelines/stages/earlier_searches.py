"""The searches that `tune.learn_from` names: read and learned from when a run is created, and never again."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from gan_core.datasets import Dataset
from gan_core.errors import ConfigurationError
from pipelines import config
from pipelines.config import Configuration
from pipelines.runs.run import Run
from pipelines.runs.run_name import checked_run_name
from pipelines.search.learning import EarlierSearch, Lessons, learn, with_points
from pipelines.search.search_table import search_rows
from pipelines.stages.table import tune_inputs
from pipelines.storage import Storage, run_layout

WHERE = "tune.learn_from"


def learned(
    configuration: Configuration, name: str | None, storage: Storage, log: Callable[[str], None]
) -> tuple[Configuration, dict[str, Any] | None]:
    """The configuration with points of the searches it names, and what its run is to keep of them: points and scores.

    A run that is in the storage, and was created with the same names, has its own points, and nothing new to keep.

    Raises:
        ConfigurationError: If one of the runs is missing, or has no finished search.
    """
    tune = configuration.tune
    if name is not None and storage.child("runs", checked_run_name(name)).read(run_layout.RUN) is not None:
        known = Run.open(name, storage).configuration.tune
        if (known.learn_from, known.learn_best) == (tune.learn_from, tune.learn_best):
            return with_points(configuration, known.points[len(tune.points) :]), None
    searches = [find(run, storage) for run in tune.learn_from]
    lessons = learn(configuration, searches)
    log(f"tune   {described(searches, lessons)}")
    runs = [{"run": search.run, "inputs": search.inputs} for search in searches]
    return with_points(configuration, lessons.points), {"runs": runs, **dataclasses.asdict(lessons)}


def find(name: str, storage: Storage) -> EarlierSearch:
    """The finished search of a run.

    Raises:
        ConfigurationError: If there is none.
        CheckpointError: If its record or table is damaged.
    """
    run = Run.open(name, storage)
    record = run.record("tune")
    rows = search_rows(run.folder)
    if record is None or not rows:
        has = "no search" if not run.configuration.tune.candidates else "a search that is not finished"
        raise ConfigurationError("nothing to learn from", WHERE, f"{name} has {has}", "runs whose search is finished")
    inputs = run.folder.read_json(run_layout.record("tune"))["inputs"]
    return EarlierSearch(name, run.configuration, record["candidate"], rows, inputs)


def described(searches: Sequence[EarlierSearch], lessons: Lessons) -> str:
    """What was learned, and what was not, in a line."""
    count = sum(len({row["candidate"] for row in search.rows}) for search in searches)
    text = f"learns from {', '.join(search.run for search in searches)}: {len(lessons.points)} of {count} candidates as points"
    if lessons.observations:
        text += f", scores of {len(lessons.observations)}"
    reasons = [f"{number} {reason}" for reason, number in lessons.left_out.items()]
    return text + (f"; left out: {', '.join(reasons)}" if reasons else "")


def check_data(run: Run, dataset: Dataset) -> None:
    """Refuse a new run that has learned from a search on other data.

    Raises:
        ConfigurationError: If it has.
    """
    for earlier in run.learned["runs"] if run.learned else ():
        theirs = Run.open(earlier["run"], run.storage).configuration
        if config.digest(tune_inputs(theirs, dataset.digest)) != earlier["inputs"]:
            raise ConfigurationError(
                "searched on other data", WHERE, f"{earlier['run']}, on {theirs.data.name}",
                f"runs that searched on {dataset.digest[:12]}, which {dataset.name} is",
            )  # fmt: skip
