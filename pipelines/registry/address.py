"""The address of a registry: the one given, the environment's or the storage's, as it is shown and as it is recorded."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from gan_core.errors import RegistryError
from pipelines.storage import Storage


def tracking_uri(given: str | None, storage: Storage) -> str:
    """The MLflow server or database to use: the one given, MLFLOW_TRACKING_URI, or one in the storage.

    Raises:
        RegistryError: If there is none: a bucket has no database of its own.
    """
    if given or os.environ.get("MLFLOW_TRACKING_URI"):
        return given or os.environ["MLFLOW_TRACKING_URI"]
    if storage.local is None:
        raise RegistryError(
            "no MLflow", storage.uri, "a storage without a database of its own", "--tracking-uri or MLFLOW_TRACKING_URI"
        )
    return own_database(storage)


def own_database(storage: Storage) -> str:
    """The database that a storage on a disk has, from the first run on that is registered there."""
    return f"sqlite:///{storage.local}/mlflow.db" if storage.local else ""


def database_exists(uri: str) -> bool:
    """False only for an sqlite file that is not there: a look-up must not create one."""
    return not uri.startswith("sqlite:///") or Path(uri.removeprefix("sqlite:///")).is_file()


def recorded(uri: str) -> str:
    """An address as a record keeps it: without an account, and the same from every folder."""
    if uri.startswith("sqlite:///"):
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
    return redacted(uri).rstrip("/")


def redacted(text: str) -> str:
    """A message without the passwords of the URIs in it."""
    return re.sub(r"(://)[^/\s]*@", r"\1***@", text)


def without_credentials(text: str, uri: str) -> str:
    """A message without the credentials of the URI, whichever part of them a library took for a host."""
    account = re.search(r"://([^/\s]*)@", uri)
    secrets = re.split("[:@]", account.group(1)) if account else []
    for secret in sorted({unquote(part) for part in secrets} | set(secrets), key=len, reverse=True):
        text = text.replace(secret, "***") if len(secret) > 2 else text
    return redacted(text)


class ImplausibleAnswer(RegistryError):
    """An answer that cannot be true: asked again, a registry that is up tells the truth."""


def implausible_answer(uri: str, answer: str) -> ImplausibleAnswer:
    """The error of a registry whose answers cannot be true."""
    return ImplausibleAnswer("no registry's answer", redacted(uri), answer, "an MLflow server that is up: gan doctor")
