"""Runs as the registry shows them: what the driver, their one writer, copies from a run's own history and records."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.registry.backend import RunStore, backend_of
from pipelines.registry.tracked_run import ChildRun, RunSource, SamplePicture
from pipelines.storage import Storage

if TYPE_CHECKING:
    from gan_core.datasets import Dataset

RUN_TAG, STAGE_TAG = "gan.run", "gan.stage"
SAMPLES = "samples"  # pictures of the same z over a training's steps


class Span(NamedTuple):
    """When something began and ended, in milliseconds since 1970."""

    started_ms: int
    ended_ms: int


class Tracking:
    """One run of the pipeline in an experiment: a parent run, and a child for each stage.

    Raises:
        RegistryError: By every method, if the registry refuses or does not answer.
    """

    def __init__(
        self, store: RunStore, experiment: str, run: str, artifacts: Storage | None,
        source: RunSource | None = None, started_ms: int | None = None,
    ) -> None:  # fmt: skip
        self.store, self.source = store, source
        self.experiment = store.experiment(experiment, artifacts)
        self.parent = store.run(self.experiment, run, {RUN_TAG: run, STAGE_TAG: "all"}, None, source, started_ms)

    def _stage_run(self, run: str, stage: str, failed: int = 0, started_ms: int | None = None) -> str:
        """The id of a stage's run: the one there is, or a new one; another after each attempt that failed."""
        stage = f"{stage}.{failed + 1}" if failed else stage
        tags = {RUN_TAG: run, STAGE_TAG: stage}
        return self.store.run(self.experiment, f"{run}/{stage}", tags, self.parent, self.source, started_ms)

    def stage(
        self,
        name: str,
        run: str,
        record: Mapping[str, Any],
        history: Sequence[Mapping[str, Any]] = (),
        files: Mapping[str, bytes] | None = None,
        failed: int = 0,
        span: Span | None = None,
    ) -> str:
        """Copy a finished stage into its own child run, which so many failed ones precede; again, it changes nothing."""
        started, ended = span or (None, None)
        for attempt in range(failed):
            self.store.end_run(self._stage_run(run, name, attempt), "FAILED")
        run_id = self._stage_run(run, name, failed, started)
        time = {} if ended is None else {"time_ms": ended}
        self.store.log_metrics(run_id, [{"step": 0, **time, **_numbers(record)}])
        self.store.log_metrics(run_id, history)
        self.store.log_metrics(self.parent, history)
        self.store.log_files(run_id, {**(files or {}), f"{name}.json": json.dumps(record, indent=1).encode()})
        self.store.end_run(run_id, ended_ms=ended)
        return run_id

    def candidates(self, stage_run: str, candidates: Sequence[ChildRun]) -> None:
        """Copy a search's candidates into child runs of its stage's run, for MLflow's own comparison of runs."""
        self.store.log_children(self.experiment, stage_run, candidates, self.source)

    def curves(
        self, run: str, rows: Sequence[Mapping[str, Any]], failed: int = 0, started_ms: int | None = None
    ) -> None:
        """Copy rows of a training that is under way since then, after so many that failed, into its stage's run."""
        self.store.log_metrics(self._stage_run(run, "train", failed, started_ms), rows)

    def pictures(self, pictures: Sequence[SamplePicture]) -> None:
        """Copy the samples over a training's steps; those that were copied before are left as they are."""
        self.store.log_pictures(self.parent, SAMPLES, pictures)

    def describe(
        self, configuration_yaml: str, parameters: Mapping[str, Any], dataset: "Dataset", description: str
    ) -> None:
        """What the run was made from: resolved configuration, parameters and the data set."""
        self.store.describe_run(self.parent, parameters, dataset, description)
        self.store.log_files(self.parent, {"configuration.yaml": configuration_yaml.encode()})

    def finish(
        self, metrics: Mapping[str, Any], files: Mapping[str, bytes], status: str = "FINISHED",
        ended_ms: int | None = None,
    ) -> None:  # fmt: skip
        """The run's headline numbers, with their `time_ms` if it is known, its pages, and its end."""
        time = {key: metrics[key] for key in ("time_ms",) if key in metrics}
        self.store.log_metrics(self.parent, [{"step": 0, **_numbers(metrics), **time}])
        self.store.log_files(self.parent, files)
        self.store.end_run(self.parent, status, ended_ms)


def check_ready(uri: str, experiment: str) -> None:
    """Open what the end of a run will need, so that what is wrong with it is found before hours of work.

    Nothing is written: a database that is not there is made by the run.

    Raises:
        RegistryError: If it cannot be reached or used, or the experiment is in the trash.
        CheckpointError: If a local folder for the experiment's files, or for the database, cannot be written.
    """
    backend_of(uri).check_ready(uri, experiment)


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in record.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
