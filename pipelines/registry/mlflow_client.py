"""Reach MLflow: whether the server or database answers, a client for it, and its errors in one line."""

import contextlib
import functools
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar
from urllib.parse import quote

from gan_core.errors import RegistryError, first_line
from pipelines.registry.address import ImplausibleAnswer, database_exists, redacted, without_credentials
from pipelines.registry.mlflow_database import MlflowDatabase
from pipelines.storage import file_lock
from pipelines.storage.uri import make_private

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# The client's own retries can create a thing twice; ours look first.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
PAUSES = (0.1, 0.3)  # seconds before an answer that cannot be true is asked for again
ANSWER_SECONDS = 30  # for an answer to what deletes; an upload may take longer
ANOTHER_URI = "another --tracking-uri: a server, or sqlite:////folder/mlflow.db"


class _HasUri(Protocol):
    uri: str


Owner = TypeVar("Owner", bound=_HasUri)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@contextlib.contextmanager
def registry_errors(uri: str) -> Iterator[None]:
    """MLflow's and its database's errors in one line, credentials removed."""
    from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (
        MlflowException, RequestException, SQLAlchemyError, OSError, ImportError, ParseError, json.JSONDecodeError,
    ) as error:  # fmt: skip
        reason = without_credentials(first_line(error), uri)
        raise RegistryError(
            "MLflow refused", redacted(uri), reason, "a server or a database that answers, or another --tracking-uri"
        ) from error


def one_line_errors(
    method: Callable[Concatenate[Owner, Arguments], Result],
) -> Callable[Concatenate[Owner, Arguments], Result]:
    """A method whose errors are those of `registry_errors`, at its object's URI; after an answer that cannot be true, again."""

    @functools.wraps(method)
    def call(self: Owner, /, *arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        with registry_errors(self.uri):
            for pause in PAUSES:
                with contextlib.suppress(ImplausibleAnswer):
                    return method(self, *arguments, **named)
                time.sleep(pause)
            return method(self, *arguments, **named)

    return call


def unless_there(create: Callable[[], Any]) -> Any:
    """What `create` gives, or None if MLflow says that it is there, perhaps made by another process meanwhile."""
    from mlflow.exceptions import MlflowException

    try:
        return create()
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return None


@contextlib.contextmanager
def without_retries() -> Iterator[None]:
    """For what must not be sent twice: a server may have done it, and then failed to say so."""
    with _variables(MLFLOW_HTTP_REQUEST_MAX_RETRIES="0"):
        yield


@contextlib.contextmanager
def without_waiting() -> Iterator[None]:
    """For what deletes: a server that is slow to answer counts as one that does not, and nothing is sent twice."""
    timeout = os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", str(ANSWER_SECONDS))
    with _variables(MLFLOW_HTTP_REQUEST_TIMEOUT=timeout), without_retries():
        yield


@contextlib.contextmanager
def _variables(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def check_reachable(uri: str) -> None:
    """Ask a server for its health and whether it knows us, and a database for its tables.

    Raises:
        RegistryError: If it does not answer within five seconds, refuses the account, or is of no use to MLflow.
    """
    _check_usable(uri)
    if uri.startswith(("http://", "https://")):
        import requests

        server = uri.rstrip("/")
        account = (os.environ.get("MLFLOW_TRACKING_USERNAME", ""), os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))
        token = os.environ.get("MLFLOW_TRACKING_TOKEN")
        try:
            requests.get(f"{server}/health", timeout=5).raise_for_status()
            answer = requests.get(
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
        has_credentials_file = Path("~/.mlflow/credentials").expanduser().exists() and not any(account)
        if answer.status_code in (401, 403) and not has_credentials_file:
            raise RegistryError(
                "MLflow refused the account", redacted(uri), f"{answer.status_code} {answer.reason}",
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD of an account it knows",
            )  # fmt: skip
    has_tables(uri)


def is_file_store(uri: str) -> bool:
    """Whether MLflow would keep a folder of files there, as before it had databases."""
    return uri.startswith("file:") or (":" not in uri and uri not in ("databricks", "databricks-uc", "uc"))


def _check_usable(uri: str) -> None:
    """Refuse what MLflow 3.17 refuses when a run ends, and a database that is gone when its process is."""
    if uri in ("sqlite:", "sqlite://", "sqlite:///", "sqlite:///:memory:"):
        raise RegistryError("nothing would be kept", uri, "a database in memory", ANOTHER_URI)
    if is_file_store(uri) and os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() not in ("true", "1"):
        raise RegistryError(
            "MLflow refuses a folder of files", uri, "its file store takes no more runs",
            f"{ANOTHER_URI}; mlflow migrate-filestore moves what is there",
        )  # fmt: skip


def has_tables(uri: str) -> bool:
    """Whether a server or MLflow's tables are there; a run makes what is not, a look-up may not. It only reads.

    MLflow itself would wait a hundred seconds for a database server, and migrate some older tables unanswer.

    Raises:
        RegistryError: If a database cannot be reached within five seconds, or is of another version of MLflow.
    """
    if is_file_store(uri) or uri.startswith(("http://", "https://", "databricks", "uc:")):
        return True
    if not database_exists(uri):
        return False
    if MlflowDatabase.open(uri) is not None:
        return True
    current, tables = _schema(uri)
    known_revisions, newest = _revisions()
    if current is None and tables and uri.startswith("sqlite:"):  # a database server may be shared with others
        raise RegistryError("not MLflow's database", redacted(uri), f"it holds {', '.join(tables[:3])}", ANOTHER_URI)
    if current not in (None, newest):
        whose, remedy = "a newer", ANOTHER_URI
        if current in known_revisions:
            whose, remedy = "an older", f"back it up, then mlflow db upgrade {redacted(uri)}"
        raise RegistryError(
            f"database of {whose} MLflow", redacted(uri), f"tables of revision {current}", f"{newest}; {remedy}"
        )
    return current is not None


def _schema(uri: str) -> tuple[str | None, list[str]]:
    """The revision of MLflow's tables in a database, and the names of all its tables."""
    import sqlalchemy
    from alembic.migration import MigrationContext

    options: dict[str, Any] = {}
    if uri.startswith("sqlite:///"):
        place = f"file:{quote(uri.removeprefix('sqlite:///'))}?mode=ro"
        options["creator"] = lambda: sqlite3.connect(place, uri=True, timeout=5)
    elif uri.startswith(("postgres", "mysql")):
        options["connect_args"] = {"connect_timeout": 5}
    with registry_errors(uri):
        engine = sqlalchemy.create_engine(uri, **options)
        try:
            with engine.connect() as connection:
                names = sqlalchemy.inspect(connection).get_table_names()
                tables = sorted(name for name in names if not name.startswith("alembic_"))
                return MigrationContext.configure(connection).get_current_revision(), tables
        finally:
            engine.dispose()


@functools.cache
def _revisions() -> tuple[set[str], str]:
    """The revisions of its tables that this MLflow knows, and the one it needs."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    scripts = ScriptDirectory.from_config(_get_alembic_config(db_url=""))
    return {script.revision for script in scripts.walk_revisions()}, str(scripts.get_current_head())


def open_client(uri: str, create: bool = False) -> Any:
    """An MLflow client; with `create`, its database exists afterwards.

    Raises:
        RegistryError: If it cannot be reached, or is an sqlite file that is not there.
    """
    _check_usable(uri)
    if not has_tables(uri) and not create:
        raise RegistryError(
            "no such registry", redacted(uri), "no database there", "a run to have registered a model: gan run CONFIG"
        )
    import logging

    import mlflow

    for name in ("mlflow", "alembic"):  # of an error they have pages, of which ours is the line
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with registry_errors(uri):
        if create and uri.startswith("sqlite:///"):
            path = Path(uri.removeprefix("sqlite:///"))
            make_private(path.parent)
            if "?" not in path.name:
                _create_database(path)
        client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
        return client


def _create_database(path: Path) -> None:
    """Make a database of MLflow's tables, if there is none: beside its place, so that whoever is killed leaves no half of it."""
    staging = path.with_name(f".{path.name}.new")
    while not path.exists():
        with file_lock.holding(staging) as free:
            if not free:  # another process makes it
                continue
            try:
                if not path.exists():
                    _create_tables(staging / path.name)
                    (staging / path.name).rename(path)
            finally:
                shutil.rmtree(staging, ignore_errors=True)


def _create_tables(path: Path) -> None:
    """What MLflow does where it finds no tables, in a file that nobody has begun."""
    import sqlalchemy
    from mlflow.store.db.utils import _initialize_tables

    for left in path.parent.glob(f"{path.name}*"):  # by a process that was killed
        left.unlink()
    engine = sqlalchemy.create_engine(sqlalchemy.URL.create("sqlite", database=str(path)))
    try:
        _initialize_tables(engine)
    finally:
        engine.dispose()
