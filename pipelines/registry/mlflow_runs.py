"""The registry in MLflow: its runs, and whether it can take them."""

import contextlib
import getpass
import io
import json
import os
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from gan_core.errors import RegistryError
from pipelines.registry.address import implausible_answer, redacted
from pipelines.registry.mlflow_client import (
    ANOTHER_URI,
    check_reachable,
    has_tables,
    is_file_store,
    one_line_errors,
    open_client,
    registry_errors,
    unless_there,
)
from pipelines.registry.mlflow_database import MlflowDatabase
from pipelines.registry.tracked_run import ChildRun, RunSource, SamplePicture
from pipelines.storage import Storage, check_storage
from pipelines.storage.uri import without_options

if TYPE_CHECKING:
    from gan_core.datasets import Dataset

METRICS_PER_REQUEST, PARAMETERS_PER_REQUEST = 1000, 100  # as many as MLflow takes
IMAGES = "images"  # the folder in which MLflow's pages look for pictures over steps


class MlflowRuns:
    """A `RunStore`: runs behind MLflow's client."""

    def __init__(self, client: Any, uri: str) -> None:
        self.client, self.uri = client, uri

    @classmethod
    def open(cls, uri: str, create: bool = False) -> Self:
        return cls(open_client(uri, create), uri)

    @classmethod
    def check_ready(cls, uri: str, experiment: str) -> None:
        check_reachable(uri)
        if uri.startswith("sqlite:///"):
            path = Path(uri.removeprefix("sqlite:///"))
            check_storage(Storage.at(path.parent), wanted=0)
            if path.exists() and not os.access(path, os.W_OK):
                raise RegistryError("read-only database", uri, "it cannot be written", ANOTHER_URI)
        if is_file_store(uri) or not has_tables(uri):
            return
        if (database := MlflowDatabase.open(uri)) is not None:
            existing = next((one for one in database.experiments() if one.name == experiment), None)
        else:
            client = open_client(uri)
            with registry_errors(uri):
                existing = client.get_experiment_by_name(experiment)
        if existing is None:
            return
        if existing.lifecycle_stage == "deleted":
            restore = f"MLFLOW_TRACKING_URI={redacted(uri)} mlflow experiments restore --experiment-id"
            raise RegistryError(
                "experiment in the trash", f"{redacted(uri)}: {experiment}", "MLflow takes no run for it",
                f"another registry.model, or it restored: {restore} {existing.experiment_id}",
            )  # fmt: skip
        if (existing.artifact_location or "").startswith(("/", "file://")):
            check_storage(Storage.at(existing.artifact_location), wanted=0)

    @classmethod
    def contents(cls, uri: str) -> tuple[str, list[str]] | None:
        check_reachable(uri)
        if not has_tables(uri):
            return None
        if (database := MlflowDatabase.open(uri)) is not None:
            deleted = [one.name for one in database.experiments() if one.lifecycle_stage == "deleted"]
            return str(len(database.models())), deleted
        from mlflow.entities import ViewType

        client = open_client(uri)
        with registry_errors(uri):
            models = client.search_registered_models(max_results=1000)
            trash = client.search_experiments(view_type=ViewType.DELETED_ONLY)
        return f"{len(models)}{'+' if models.token else ''}", [experiment.name for experiment in trash]

    @one_line_errors
    def experiment(self, name: str, artifacts: Storage | None) -> str:
        is_server = self.uri.startswith(("http://", "https://"))  # which decides itself where files go
        location = without_options(artifacts.child(name).uri) if artifacts and not is_server else None
        existing = self.client.get_experiment_by_name(name)
        if existing is None:
            unless_there(lambda: self.client.create_experiment(name, artifact_location=location))
            existing = self.client.get_experiment_by_name(name)
        if existing is None or existing.name != name:
            raise implausible_answer(self.uri, f"nothing about experiment {name}")
        return str(existing.experiment_id)

    @one_line_errors
    def run(
        self, experiment: str, name: str, tags: Mapping[str, str], parent: str | None = None,
        source: RunSource | None = None, started_ms: int | None = None,
    ) -> str:  # fmt: skip
        from mlflow.exceptions import MlflowException

        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        oldest_first = ["attributes.start_time ASC", "attributes.run_id ASC"]
        found = self.client.search_runs([experiment], query, order_by=oldest_first)
        if not found:
            created = self._create(experiment, name, tags, parent, source, started_ms)
            found = self.client.search_runs([experiment], query, order_by=oldest_first)
            if created not in [run.info.run_id for run in found]:
                raise implausible_answer(self.uri, f"nothing of run {name}, which it has created")
        first, *others = found
        # That there was none may have been no answer, and a request whose reply was lost was sent again.
        for other in others:
            if not other.data.metrics and not other.data.params:
                with contextlib.suppress(MlflowException):
                    self.client.delete_run(other.info.run_id)
        return str(first.info.run_id)

    @one_line_errors
    def describe_run(self, run_id: str, parameters: Mapping[str, Any], dataset: "Dataset", note: str) -> None:
        from mlflow.entities import Dataset as DatasetEntity
        from mlflow.entities import DatasetInput, InputTag, Param, RunTag

        logged = self._run(run_id).data.params
        new = [Param(key, str(value)) for key, value in parameters.items() if key not in logged]
        tags = [RunTag("mlflow.note.content", note)]
        for start in range(0, len(new) or 1, PARAMETERS_PER_REQUEST):
            self.client.log_batch(run_id, params=new[start : start + PARAMETERS_PER_REQUEST], tags=tags)
            tags = []
        counts = {name: len(examples) for name, examples in dataset.splits().items()}
        entity = DatasetEntity(
            dataset.name,
            dataset.digest[:32],
            "code",
            json.dumps({"loader": "gan_core.datasets", "name": dataset.name}),
            profile=json.dumps(counts),
        )
        context = InputTag("mlflow.data.context", "training")
        self.client.log_inputs(run_id, datasets=[DatasetInput(entity, [context])])

    @one_line_errors
    def log_children(
        self, experiment: str, parent: str, children: Sequence[ChildRun], source: RunSource | None = None
    ) -> None:
        from mlflow.entities import Param

        known = self._children(experiment, parent)
        new = [child for child in children if known.get(child.name, (None, ""))[1] != child.status]
        for child in new:
            run_id = known[child.name][0] if child.name in known else None
            run_id = run_id or self._create(experiment, child.name, child.tags, parent, source, child.started_ms)
            parameters = [Param(key, str(value)) for key, value in child.parameters.items()]
            self.client.log_batch(run_id, metrics=_metrics(child.rows, child.ended_ms), params=parameters)
            self.client.set_terminated(run_id, child.status, child.ended_ms)
        if new:  # a request whose reply was lost was sent again
            self._children(experiment, parent)

    def _children(self, experiment: str, parent: str) -> dict[str, tuple[str, str]]:
        """Ids and states of a run's children by name: of several of a name the finished, or the oldest; others are deleted."""
        oldest_first = ["attributes.start_time ASC", "attributes.run_id ASC"]
        children: dict[str, tuple[str, str]] = {}
        found = self.client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'", order_by=oldest_first)
        # Those of one request that was sent twice began at once: the one that was filled stays.
        for run in sorted(found, key=lambda run: run.info.status not in ("FINISHED", "FAILED")):
            if run.info.run_name in children:
                self.client.delete_run(run.info.run_id)
            else:
                children[run.info.run_name] = (run.info.run_id, run.info.status)
        return children

    @one_line_errors
    def log_pictures(self, run_id: str, name: str, pictures: Sequence[SamplePicture]) -> None:
        """As `log_image` of MLflow's client would, whose random names make a picture twice if it is logged again."""
        known = {Path(file.path).name for file in self.client.list_artifacts(run_id, IMAGES)} if pictures else set()
        with tempfile.TemporaryDirectory() as folder:
            for picture in pictures:
                files: dict[str, bytes] = {}
                with contextlib.suppress(OSError, SyntaxError, ValueError):  # damaged: the run is whole without it
                    files = _image_files(run_id, name, picture)
                for file, content in files.items():
                    if file not in known:
                        (Path(folder) / file).write_bytes(content)
            if any(Path(folder).iterdir()):
                self.client.log_artifacts(run_id, folder, IMAGES)
                self.client.set_tag(run_id, "mlflow.loggedImages", "true")

    @one_line_errors
    def log_metrics(self, run_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
        # A row keeps the time it was measured at, or has the run's: copying it twice is copying it once.
        untimed = any("time_ms" not in row for row in rows)
        metrics = _metrics(rows, self._run(run_id).info.start_time if untimed else 0)
        for start in range(0, len(metrics), METRICS_PER_REQUEST):
            self.client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_REQUEST])

    @one_line_errors
    def log_files(self, run_id: str, files: Mapping[str, bytes]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            if files:
                self.client.log_artifacts(run_id, folder)

    @one_line_errors
    def end_run(self, run_id: str, status: str = "FINISHED", ended_ms: int | None = None) -> None:
        self.client.set_terminated(run_id, status, ended_ms)

    def _create(
        self, experiment: str, name: str, tags: Mapping[str, str], parent: str | None,
        source: RunSource | None, started_ms: int | None,
    ) -> str:  # fmt: skip
        """A new run's id."""
        all_tags = {**tags, "mlflow.user": _user(), **({"mlflow.parentRunId": parent} if parent else {})}
        if source is not None:
            all_tags |= {"mlflow.source.name": source.command, "mlflow.source.type": "LOCAL"}
            if source.commit != "unknown":
                all_tags["mlflow.source.git.commit"] = source.commit.removesuffix("-dirty")
        run = self.client.create_run(experiment, start_time=started_ms, tags=all_tags, run_name=name)
        return str(run.info.run_id)

    def _run(self, run_id: str) -> Any:
        """MLflow's entity of a run."""
        run = self.client.get_run(run_id)
        if run.info.run_id != run_id:
            raise implausible_answer(self.uri, f"nothing about run {run_id}")
        return run


def _metrics(rows: Sequence[Mapping[str, Any]], time_ms: int) -> list[Any]:
    """MLflow's entities of the numbers in rows, of which those without a time of their own have this one."""
    from mlflow.entities import Metric

    return [
        Metric(key, float(value), int(row.get("time_ms", time_ms)), int(row["step"]))
        for row in rows
        for key, value in row.items()
        if key not in ("step", "time_ms")
    ]


def _image_files(run_id: str, name: str, picture: SamplePicture) -> dict[str, bytes]:
    """A picture and its preview, by the names that MLflow's pages read step and time from."""
    from PIL import Image

    number = uuid.uuid5(uuid.NAMESPACE_OID, f"{run_id}/{name}/{picture.step}")
    stem, preview = f"{name}+step+{picture.step}+timestamp+{picture.time_ms}+{number}", io.BytesIO()
    Image.open(io.BytesIO(picture.png)).save(preview, "webp", lossless=True)
    return {f"{stem}.png": picture.png, f"{stem}+compressed.webp": preview.getvalue()}


def _user() -> str:
    """Whom MLflow's pages name: the account at the server, or the user of this machine."""
    with contextlib.suppress(OSError, KeyError):  # a container's user may have no name
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    return "unknown"
