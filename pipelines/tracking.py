"""MLflow runs: what the driver, their one writer, copies from a run's own history and records."""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from gan_core.datasets import Dataset
from gan_core.errors import RegistryError
from pipelines.places import without_options
from pipelines.storage import Storage

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# The client's own retries can create a thing twice; ours look first.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")

RUN_TAG, STAGE_TAG = "gan.run", "gan.stage"


def tracking_uri(given: str | None, storage: Storage) -> str:
    """The MLflow server or database to use: the one given, MLFLOW_TRACKING_URI, or one in the storage."""
    if given or os.environ.get("MLFLOW_TRACKING_URI"):
        return given or os.environ["MLFLOW_TRACKING_URI"]
    if storage.local is None:
        raise RegistryError(
            "no MLflow", storage.uri, "a storage without a database of its own", "--tracking-uri or MLFLOW_TRACKING_URI"
        )
    return f"sqlite:///{storage.local / 'mlflow.db'}"


def redacted(text: str) -> str:
    """A message without the passwords of the URIs in it."""
    return re.sub(r"(://)[^/\s]*@", r"\1***@", text)


def _without_secrets(text: str, uri: str) -> str:
    """A message without the credentials of the URI, whichever part of them a library took for a host."""
    found = re.search(r"://([^/\s]*)@", uri)
    secrets = re.split("[:@]", found.group(1)) if found else []
    for secret in sorted({unquote(part) for part in secrets} | set(secrets), key=len, reverse=True):
        text = text.replace(secret, "***") if len(secret) > 2 else text
    return redacted(text)


@contextlib.contextmanager
def registry_errors(uri: str) -> Iterator[None]:
    """MLflow's and its database's errors in one line, credentials removed."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, OSError, ImportError) as error:
        reason = _without_secrets((str(error).strip().splitlines() or [type(error).__name__])[0], uri)
        raise RegistryError(
            "MLflow refused",
            redacted(uri),
            reason,
            "a server that answers; all else is kept: gan register RUN completes it",
        ) from error


@contextlib.contextmanager
def without_retries() -> Iterator[None]:
    """For what must not be sent twice: a server may have done it, and then failed to say so."""
    name = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    before = os.environ[name]
    os.environ[name] = "0"
    try:
        yield
    finally:
        os.environ[name] = before


def database_exists(uri: str) -> bool:
    """False only for an sqlite file that is not there: a look-up must not create one."""
    return not uri.startswith("sqlite:///") or Path(uri.removeprefix("sqlite:///")).is_file()


def check_reachable(uri: str) -> None:
    """Ask a server for its health and whether it knows us, so that either is found before hours of work.

    Raises:
        RegistryError: If it does not answer within five seconds, or refuses the account.
    """
    if uri.startswith(("http://", "https://")):
        import requests

        server = uri.rstrip("/")
        account = (os.environ.get("MLFLOW_TRACKING_USERNAME", ""), os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))
        token = os.environ.get("MLFLOW_TRACKING_TOKEN")
        try:
            requests.get(f"{server}/health", timeout=5).raise_for_status()
            asked = requests.get(
                f"{server}/api/2.0/mlflow/experiments/search?max_results=1", timeout=5,
                auth=account if any(account) else None,
                headers={"Authorization": f"Bearer {token}"} if token and not any(account) else None,
            )  # fmt: skip
        except requests.RequestException as error:
            raise RegistryError(
                "MLflow does not answer",
                redacted(uri),
                type(error).__name__,
                "a server that is up, or another --tracking-uri",
            ) from error
        elsewhere = Path("~/.mlflow/credentials").expanduser().exists() and not any(account)
        if asked.status_code in (401, 403) and not elsewhere:
            raise RegistryError(
                "MLflow refused the account", redacted(uri), f"{asked.status_code} {asked.reason}",
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD of an account it knows",
            )  # fmt: skip
    _check_database(uri)


def _check_database(uri: str) -> None:
    """Connect to a database server once: MLflow itself would try for a hundred seconds.

    Raises:
        RegistryError: If it cannot be reached within five seconds.
    """
    if "://" in uri and not uri.startswith(("http://", "https://", "sqlite:", "file:", "databricks")):
        import sqlalchemy

        with registry_errors(uri):
            known = uri.startswith(("postgres", "mysql"))
            engine = sqlalchemy.create_engine(uri, connect_args={"connect_timeout": 5} if known else {})
            try:
                engine.connect().close()
            finally:
                engine.dispose()


def open_client(uri: str, create: bool = False) -> Any:
    """An MLflow client; with `create`, its database exists afterwards.

    Raises:
        RegistryError: If it cannot be reached, or is an sqlite file that is not there.
    """
    if not create and not database_exists(uri):
        raise RegistryError(
            "no such registry", redacted(uri), "no database there", "a run to have registered a model: gan run CONFIG"
        )
    _check_database(uri)
    import logging

    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with registry_errors(uri):
        if create and uri.startswith("sqlite:///"):
            Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
        return client


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
