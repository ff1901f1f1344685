"""MLflow's models in an sqlite file, read as they are: importing MLflow takes longer than any look-up."""

import contextlib
import os
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from gan_core.errors import RegistryError
from pipelines.registry.address import redacted
from pipelines.registry.model_version import ModelVersion, RegisteredModel

# `import mlflow` brings pandas, FastAPI and its language model judges with it: 1.5 s of CPU time, whatever is asked of it.
# The tables are MLflow's own, so nothing is written, and of another revision than these nothing is read: then its client is asked.
REVISIONS = (["dc11669786a5"],)  # of MLflow 3.17
# As MLflow leaves out what was deleted, and prompts, which share the tables.
LISTED = """
    from model_versions as version
    where version.workspace = 'default' and version.current_stage != 'Deleted_Internal' and not exists (
        select 1 from model_version_tags as prompt where prompt.workspace = version.workspace
        and prompt.name = version.name and prompt.version = version.version
        and prompt.key = 'mlflow.prompt.is_prompt' and prompt.value = 'true')
"""
TAGGED = """
    and exists (select 1 from model_version_tags as tag where tag.workspace = version.workspace
        and tag.name = version.name and tag.version = version.version and tag.key = :tag and tag.value = :value)
"""
MODELS = """
    select name from registered_models as model where workspace = 'default' and not exists (
        select 1 from registered_model_tags as prompt where prompt.workspace = model.workspace
        and prompt.name = model.name and prompt.key = 'mlflow.prompt.is_prompt' and prompt.value = 'true')
    order by name
"""
WORKSPACES = ("MLFLOW_ENABLE_WORKSPACES", "MLFLOW_WORKSPACE")  # with either, names mean what only MLflow knows


class Experiment(NamedTuple):
    """One of MLflow's experiments, in its client's words."""

    experiment_id: int
    name: str
    lifecycle_stage: str
    artifact_location: str


class MlflowDatabase:
    """A `ModelReader` of an sqlite file. Each question takes at most three queries, however many versions there are."""

    def __init__(self, path: str, uri: str) -> None:
        self.path, self.uri = path, uri

    @classmethod
    def open(cls, uri: str) -> "MlflowDatabase | None":
        """A reader of the file at this address; None if it is another kind of registry, or not of a revision known here."""
        path = uri.removeprefix("sqlite:///")
        if path == uri or "?" in path or not Path(path).is_file() or any(map(os.environ.get, WORKSPACES)):
            return None
        reader = cls(path, uri)
        with contextlib.suppress(RegistryError):  # what is wrong with it MLflow's client will say
            if [row[0] for row in reader.query("select version_num from alembic_version")] in REVISIONS:
                return reader
        return None

    def models(self) -> list[str]:
        return [name for (name,) in self.query(MODELS)]

    def model(self, name: str) -> RegisteredModel | None:
        where = "where workspace = 'default' and name = :name"
        with self.connected() as connection:
            if not connection.execute(f"select 1 from registered_models {where}", {"name": name}).fetchone():
                return None
            aliases = connection.execute(f"select alias, version from registered_model_aliases {where}", {"name": name})
            tags = connection.execute(f"select key, value from registered_model_tags {where}", {"name": name})
            return RegisteredModel(name, dict(aliases.fetchall()), dict(tags.fetchall()))

    def versions(self, name: str | None = None, tag: tuple[str, str] | None = None) -> list[ModelVersion]:
        which = " and version.name = :name" * (name is not None) + TAGGED * (tag is not None)
        key, value = tag or ("", "")
        return self._versions(which, {"name": name, "tag": key, "value": value})

    def version(self, name: str, number: int) -> ModelVersion | None:
        which = " and version.name = :name and version.version = :number"
        return next(iter(self._versions(which, {"name": name, "number": number})), None)

    def _versions(self, which: str, values: dict[str, Any]) -> list[ModelVersion]:
        """The listed versions of this condition, with their tags and aliases as of one moment."""
        chosen = f"{LISTED} {which}"
        numbers = f"(select version.name, version.version {chosen})"
        tags: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
        aliases: dict[tuple[str, int], list[str]] = defaultdict(list)
        with self.connected() as connection:
            rows = connection.execute(
                f"select version.name, version.version, version.source, version.creation_time {chosen} "
                "order by version.name, version.version desc",
                values,
            ).fetchall()
            for name, number, key, text in connection.execute(
                "select name, version, key, value from model_version_tags "
                f"where workspace = 'default' and (name, version) in {numbers}",
                values,
            ):
                tags[name, number][key] = text
            for name, number, alias in connection.execute(
                "select name, version, alias from registered_model_aliases where workspace = 'default' order by alias"
            ):
                aliases[name, number].append(alias)
        return [
            ModelVersion(name, number, tuple(aliases[name, number]), tags[name, number], source, created)
            for name, number, source, created in rows
        ]

    def experiments(self) -> list[Experiment]:
        """All experiments, those in the trash among them."""
        columns = "experiment_id, name, lifecycle_stage, coalesce(artifact_location, '')"
        return [
            Experiment(*row) for row in self.query(f"select {columns} from experiments where workspace = 'default'")
        ]

    def query(self, text: str) -> list[Any]:
        """All rows of a query."""
        with self.connected() as connection:
            return connection.execute(text).fetchall()

    @contextlib.contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        """The database, read-only, as of one moment.

        Raises:
            RegistryError: If it refuses.
        """
        try:
            with contextlib.closing(
                sqlite3.connect(f"file:{quote(self.path)}?mode=ro", uri=True, timeout=5, isolation_level=None)
            ) as connection:
                connection.execute("begin")
                yield connection
        except sqlite3.Error as error:
            raise RegistryError(
                "MLflow refused", redacted(self.uri), str(error), "a database that answers, or another --tracking-uri"
            ) from error
