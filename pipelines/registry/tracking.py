"""Runs as the registry shows them: what the driver, their one writer, copies from a run's own history and records."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.registry.backend import RunStore, backend_of
from pipelines.storage import Storage

if TYPE_CHECKING:
    from gan_core.datasets import Dataset

RUN_TAG, STAGE_TAG = "gan.run", "gan.stage"


class Tracking:
    """One run of the pipeline in an experiment: a parent run, and a child for each stage.

    Raises:
        RegistryError: By every method, if the registry refuses or does not answer.
    """

    def __init__(self, store: RunStore, experiment: str, run: str, artifacts: Storage | None) -> None:
        self.store = store
        self.experiment = store.experiment(experiment, artifacts)
        self.parent = store.run(self.experiment, run, {RUN_TAG: run, STAGE_TAG: "all"})

    def _stage_run(self, run: str, stage: str, failed: int = 0) -> str:
        """The id of a stage's run: the one there is, or a new one; another after each attempt that failed."""
        stage = f"{stage}.{failed + 1}" if failed else stage
        return self.store.run(self.experiment, f"{run}/{stage}", {RUN_TAG: run, STAGE_TAG: stage}, self.parent)

    def stage(
        self,
        name: str,
        run: str,
        record: Mapping[str, Any],
        history: Sequence[Mapping[str, Any]] = (),
        files: Mapping[str, bytes] | None = None,
        failed: int = 0,
    ) -> str:
        """Copy a finished stage into its own child run, which so many failed ones precede; again, it changes nothing."""
        for attempt in range(failed):
            self.store.end_run(self._stage_run(run, name, attempt), "FAILED")
        run_id = self._stage_run(run, name, failed)
        self.store.log_metrics(run_id, [{"step": 0, **_numbers(record)}])
        self.store.log_metrics(run_id, history)
        self.store.log_metrics(self.parent, history)
        self.store.log_files(run_id, {**(files or {}), f"{name}.json": json.dumps(record, indent=1).encode()})
        self.store.end_run(run_id)
        return run_id

    def curves(self, run: str, rows: Sequence[Mapping[str, Any]], failed: int = 0) -> None:
        """Copy rows of a training that is under way, after so many that failed, into its stage's run."""
        self.store.log_metrics(self._stage_run(run, "train", failed), rows)

    def describe(
        self, configuration_yaml: str, parameters: Mapping[str, Any], dataset: "Dataset", description: str
    ) -> None:
        """What the run was made from: resolved configuration, parameters and the data set."""
        self.store.describe_run(self.parent, parameters, dataset, description)
        self.store.log_files(self.parent, {"configuration.yaml": configuration_yaml.encode()})

    def finish(self, metrics: Mapping[str, Any], files: Mapping[str, bytes], status: str = "FINISHED") -> None:
        """The run's headline numbers and pages, and its end."""
        self.store.log_metrics(self.parent, [{"step": 0, **_numbers(metrics)}])
        self.store.log_files(self.parent, files)
        self.store.end_run(self.parent, status)


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
