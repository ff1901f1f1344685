"""MLflow runs: what the driver, their one writer, copies from a run's own history and records."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gan_core.datasets import Dataset
from gan_core.errors import RegistryError
from pipelines.registry.mlflow_client import (
    ANOTHER,
    check_reachable,
    has_tables,
    is_file_store,
    open_client,
    redacted,
    registry_errors,
)
from pipelines.storage import Storage, check_storage
from pipelines.storage.uri import without_options

RUN_TAG, STAGE_TAG = "gan.run", "gan.stage"


class Tracking:
    """One run of the pipeline in MLflow: a parent run, and a child for each stage."""

    def __init__(self, client: Any, uri: str, experiment: str, run: str, artifacts: Storage | None) -> None:
        self.client, self.uri = client, uri
        with registry_errors(uri):
            location = (
                without_options(artifacts.within(experiment).uri)
                if artifacts and not uri.startswith(("http://", "https://"))
                else None
            )
            self.experiment = _experiment(client, experiment, location)
            self.parent = self._run({RUN_TAG: run}, run, {})

    def _run(self, tags: dict[str, str], name: str, more: dict[str, str]) -> str:
        """The id of the run with these tags: the one there is, or a new one."""
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        if STAGE_TAG not in tags:
            query += f" and tags.`{STAGE_TAG}` = 'all'"
            tags = {**tags, STAGE_TAG: "all"}
        found = self.client.search_runs([self.experiment], query, max_results=1)
        if found:
            return str(found[0].info.run_id)
        return str(self.client.create_run(self.experiment, tags={**tags, **more}, run_name=name).info.run_id)

    def stage(
        self,
        name: str,
        run: str,
        record: Mapping[str, Any],
        history: Sequence[Mapping[str, Any]] = (),
        files: Mapping[str, bytes] | None = None,
    ) -> str:
        """Copy a finished stage into its own child run; doing it again changes nothing."""
        with registry_errors(self.uri):
            run_id = self._run({RUN_TAG: run, STAGE_TAG: name}, f"{run}/{name}", {"mlflow.parentRunId": self.parent})
            self._metrics(run_id, [{"step": 0, **_numbers(record)}])
            self._metrics(run_id, history)
            self._metrics(self.parent, history)
            self._files(run_id, {**(files or {}), f"{name}.json": json.dumps(record, indent=1).encode()})
            self.client.set_terminated(run_id, "FINISHED")
            return run_id

    def curves(self, run: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Copy rows of a training that is under way into its stage's run."""
        with registry_errors(self.uri):
            tags = {RUN_TAG: run, STAGE_TAG: "train"}
            self._metrics(self._run(tags, f"{run}/train", {"mlflow.parentRunId": self.parent}), rows)

    def describe(
        self, configuration_yaml: str, parameters: Mapping[str, Any], dataset: Dataset, description: str
    ) -> None:
        """What the run was made from: resolved configuration, parameters and the data set."""
        from mlflow.entities import Dataset as DatasetEntity
        from mlflow.entities import DatasetInput, InputTag, Param

        with registry_errors(self.uri):
            known = self.client.get_run(self.parent).data.params
            new = [Param(key, str(value)) for key, value in parameters.items() if key not in known]
            if new:
                self.client.log_batch(self.parent, params=new)
            self._files(self.parent, {"configuration.yaml": configuration_yaml.encode()})
            counts = {name: len(examples) for name, examples in dataset.splits().items()}
            entity = DatasetEntity(
                dataset.name,
                dataset.digest[:32],
                "code",
                json.dumps({"loader": "gan_core.datasets", "name": dataset.name}),
                profile=json.dumps(counts),
            )
            self.client.log_inputs(
                self.parent, datasets=[DatasetInput(entity, [InputTag("mlflow.data.context", "training")])]
            )
            self.client.set_tag(self.parent, "mlflow.note.content", description)

    def finish(self, metrics: Mapping[str, Any], files: Mapping[str, bytes], status: str = "FINISHED") -> None:
        """The run's headline numbers and pages, and its end."""
        with registry_errors(self.uri):
            self._metrics(self.parent, [{"step": 0, **_numbers(metrics)}])
            self._files(self.parent, files)
            self.client.set_terminated(self.parent, status)

    def _metrics(self, run_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
        from mlflow.entities import Metric

        # A row keeps the time it was measured at, or has the run's: copying it twice is copying it once.
        started = self.client.get_run(run_id).info.start_time
        metrics = [
            Metric(key, float(value), int(row.get("time_ms", started)), int(row["step"]))
            for row in rows
            for key, value in row.items()
            if key not in ("step", "time_ms")
        ]
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(run_id, metrics=metrics[start : start + 1000])

    def _files(self, run_id: str, files: Mapping[str, bytes]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            if files:
                self.client.log_artifacts(run_id, folder)


def check_ready(uri: str, experiment: str) -> None:
    """Open what the end of a run will need, so that what is wrong with it is found before hours of work.

    Nothing is written: a database that is not there is made by the run.

    Raises:
        RegistryError: If it cannot be reached or used, or the experiment is in the trash.
        CheckpointError: If a local folder for the experiment's files, or for the database, cannot be written.
    """
    check_reachable(uri)
    if uri.startswith("sqlite:///"):
        path = Path(uri.removeprefix("sqlite:///"))
        check_storage(Storage.at(path.parent), wanted=0)
        if path.exists() and not os.access(path, os.W_OK):
            raise RegistryError("read-only database", uri, "it cannot be written", ANOTHER)
    if is_file_store(uri) or not has_tables(uri):
        return
    client = open_client(uri)
    with registry_errors(uri):
        found = client.get_experiment_by_name(experiment)
    if found is None:
        return
    if found.lifecycle_stage == "deleted":
        restore = f"MLFLOW_TRACKING_URI={redacted(uri)} mlflow experiments restore --experiment-id"
        raise RegistryError(
            "experiment in the trash", f"{redacted(uri)}: {experiment}", "MLflow takes no run for it",
            f"another registry.model, or it restored: {restore} {found.experiment_id}",
        )  # fmt: skip
    if (found.artifact_location or "").startswith(("/", "file://")):
        check_storage(Storage.at(found.artifact_location), wanted=0)


def _experiment(client: Any, name: str, location: str | None) -> str:
    """The experiment's id: of the one there is, or of a new one, which another process may have made first."""
    from mlflow.exceptions import MlflowException

    if (found := client.get_experiment_by_name(name)) is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return str(client.get_experiment_by_name(name).experiment_id)


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in record.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
