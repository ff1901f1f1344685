"""Reaching MLflow: which server or database, whether it answers, a client, and its errors in one line."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from gan_core.errors import RegistryError
from pipelines.storage import Storage

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# The client's own retries can create a thing twice; ours look first.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")


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
