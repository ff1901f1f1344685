"""A second registry, in this process's memory: all that another backend takes, for the tests that both pass."""

import dataclasses
import itertools
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from gan_core.errors import RegistryError
from pipelines.registry.backend import BACKENDS
from pipelines.registry.model_version import ModelVersion, RegisteredModel

SCHEME = "memory"


@dataclasses.dataclass
class Run:
    """A run: metrics by name, step and time, so that logging a row again changes nothing."""

    name: str
    tags: dict
    status: str = "RUNNING"
    parameters: dict = dataclasses.field(default_factory=dict)
    metrics: dict = dataclasses.field(default_factory=dict)
    files: dict = dataclasses.field(default_factory=dict)
    note: str = ""
    times: tuple = (None, None)
    pictures: set = dataclasses.field(default_factory=set)


class InMemoryRegistry:
    """A `Backend` of dictionaries."""

    opened: ClassVar[dict] = {}

    def __init__(self, uri):
        self.uri, self.sources, self.runs = uri, {}, {}
        self.tags, self.aliases, self.stored = {}, {}, {}  # of each model
        self.numbers, self.ids = defaultdict(lambda: itertools.count(1)), itertools.count(1)

    @classmethod
    def open(cls, uri, create=False):
        if uri not in cls.opened and not create:
            raise RegistryError("no such registry", uri, "not created yet", "a run to have registered a model")
        return cls.opened.setdefault(uri, cls(uri))

    @classmethod
    def check_ready(cls, uri, experiment):
        pass

    @classmethod
    def contents(cls, uri):
        return (str(len(cls.opened[uri].tags)), []) if uri in cls.opened else None

    # Models

    def models(self):
        return sorted(self.tags)

    def model(self, name):
        return RegisteredModel(name, dict(self.aliases[name]), dict(self.tags[name])) if name in self.tags else None

    def versions(self, name=None, tag=None):
        numbers = [(model, number) for model, versions in self.stored.items() for number in versions]
        versions = [self.version(*pair) for pair in sorted(numbers, key=lambda pair: (pair[0], -pair[1]))]
        return [v for v in versions if name in (None, v.name) and (tag is None or v.tags.get(tag[0]) == tag[1])]

    def version(self, name, number):
        version = self.stored.get(name, {}).get(number)
        if version is None:
            return None
        aliases = sorted(alias for alias, holder in self.aliases[name].items() if holder == number)
        return dataclasses.replace(version, aliases=tuple(aliases), tags=dict(version.tags))

    def create_model(self, name, description=""):
        for parts in (self.tags, self.aliases, self.stored):
            parts.setdefault(name, {})

    def create_version(self, name, source, tags, run_id=None, description=""):
        number = next(self.numbers[name])
        self._of(self.stored, name)[number] = ModelVersion(name, number, (), dict(tags), source)

    def show_version(self, version, run_id, metrics, time_ms):
        pass

    def delete_version(self, name, number):
        del self._of(self.stored, name)[number]

    def set_version_tag(self, name, number, tag, value):
        self._of(self.stored, name)[number].tags[tag] = value

    def set_alias(self, name, alias, number):
        self._of(self.aliases, name)[alias] = number

    def set_tag(self, name, tag, value):
        self._of(self.tags, name)[tag] = value

    def delete_tag(self, name, tag):
        self._of(self.tags, name).pop(tag, None)

    def upload(self, run_id, save, image_shape):
        source = f"memory:/{next(self.ids)}"
        with tempfile.TemporaryDirectory() as folder:
            save(Path(folder) / "model")
            self.sources[source] = {path.name: path.read_bytes() for path in (Path(folder) / "model").iterdir()}
        return source

    def download(self, source, names, folder):
        for name in names:
            (folder / name).write_bytes(self.sources[source][name])

    def delete_files(self, source):
        del self.sources[source]

    def _of(self, parts, name):
        if name not in parts:
            raise RegistryError("no such model", name, "not registered", "a registered model")
        return parts[name]

    # Runs

    def experiment(self, name, artifacts):
        return name

    def run(self, experiment, name, tags, parent=None, source=None, started_ms=None):
        all_tags = {"experiment": experiment, **tags}
        for run_id, run in self.runs.items():
            if all_tags.items() <= run.tags.items():
                return run_id
        run_id = str(next(self.ids))
        self.runs[run_id] = Run(name, {**all_tags, "parent": parent}, times=(started_ms, None))
        return run_id

    def log_children(self, experiment, parent, children, source=None):
        for child in children:
            run_id = self.run(experiment, child.name, child.tags, parent, source, child.started_ms)
            self.runs[run_id].parameters.update(child.parameters)
            self.log_metrics(run_id, child.rows)
            self.end_run(run_id, child.status, child.ended_ms)

    def log_pictures(self, run_id, name, pictures):
        self.runs[run_id].pictures |= {(name, picture.step) for picture in pictures}

    def describe_run(self, run_id, parameters, dataset, note):
        run = self.runs[run_id]
        run.parameters, run.note = {**parameters, **run.parameters, "data": dataset.digest}, note

    def log_metrics(self, run_id, rows):
        for row in rows:
            for key in row.keys() - {"step", "time_ms"}:
                self.runs[run_id].metrics[key, row["step"], row.get("time_ms")] = row[key]

    def log_files(self, run_id, files):
        self.runs[run_id].files.update(files)

    def end_run(self, run_id, status="FINISHED", ended_ms=None):
        run = self.runs[run_id]
        run.status, run.times = status, (run.times[0], ended_ms)


@contextmanager
def in_memory(name: str) -> Iterator[str]:
    """The URI of a fresh registry, one line in the table of backends."""
    uri = f"{SCHEME}://{name}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKENDS, SCHEME, InMemoryRegistry)
        InMemoryRegistry.open(uri, create=True)
        yield uri
    del InMemoryRegistry.opened[uri]
