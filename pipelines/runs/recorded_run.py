"""A run as its folder tells it: its settings as plain data, and the records of its finished stages."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from gan_core.errors import CheckpointError, ConfigurationError, did_you_mean
from gan_core.manifest import MALFORMED
from pipelines.runs.records import RECORDS, STAGES
from pipelines.runs.run_name import checked_run_name
from pipelines.storage import Storage, run_layout

# Without the configuration's own classes, and so without torch: hundreds of runs are listed in a second.
Record = TypeVar("Record")


@dataclass(frozen=True)
class Plan:
    """What a run has to do: its stages in order, and the steps of G's training."""

    stages: tuple[str, ...]
    steps: int

    @classmethod
    def of(cls, candidates: int, extension: str, steps: int) -> "Plan":
        """The plan of these settings: without a search or an inference net, without their stages."""
        has = {"tune": candidates > 0, "infer": extension == "inference"}
        return cls(tuple(stage for stage in STAGES if has.get(stage, True)), steps)

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> "Plan":
        """The plan in a configuration's plain data; any of MALFORMED is raised if it is none."""
        candidates, steps = settings.get("tune", {}).get("candidates", 0), settings["algorithm"]["steps"]
        if not isinstance(steps, int):
            raise TypeError(f"algorithm.steps {steps!r}")
        return cls.of(candidates, settings.get("extension", {}).get("name", "none"), steps)


class RecordedRun:
    """A run to look at: its name, its folder, what it has to do, and the records of what is done."""

    extends = False  # whether the run in the storage has searched fewer candidates

    def __init__(self, name: str, storage: Storage) -> None:
        self.name, self.storage, self.folder = name, storage, storage.child("runs", name)

    @cached_property
    def plan(self) -> Plan:
        """What it has to do.

        Raises:
            ConfigurationError: If the run is not in the storage.
            CheckpointError: If its file is damaged.
        """
        known = read_run(self.name, self.storage)
        try:
            return Plan.read(known["configuration"])
        except MALFORMED as error:
            raise damaged_run(self.name, self.storage, error) from error

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages it has, in order."""
        return self.plan.stages

    def record(self, stage: str) -> dict[str, Any] | None:
        """A finished stage's record, as plain data; what an earlier version did not note has its default.

        Raises:
            CheckpointError: If it is not one.
        """
        known = None if self.extends else self.folder.read_json(run_layout.record(stage))
        return None if known is None else dataclasses.asdict(self.record_of(stage, RECORDS[stage], known))

    def record_of(self, stage: str, kind: type[Record], known: Any) -> Record:
        """The record in a stage's document; errors as of `record`."""
        try:
            return kind(**known["record"])
        except MALFORMED as error:
            raise CheckpointError(
                "damaged file", self.folder.child(run_layout.record(stage)).uri, f"{type(error).__name__}: {error}",
                f"a record of {stage}; remove the file to redo its stage",
            ) from error  # fmt: skip

    def records(self) -> dict[str, dict[str, Any]]:
        """The records of all finished stages."""
        return {stage: record for stage in STAGES if (record := self.record(stage)) is not None}


def run_names(storage: Storage) -> list[str]:
    """The storage's runs, by name."""
    return [name for name in storage.child("runs").names() if not name.startswith(".")]


def read_run(name: str, storage: Storage) -> Any:
    """What a run's own file says.

    Raises:
        ConfigurationError: If there is no such run.
        CheckpointError: If the file is damaged.
    """
    known = storage.child("runs", checked_run_name(name)).read_json(run_layout.RUN)
    if known is None:
        names = run_names(storage)
        expected = f"one of: {', '.join(names[-5:]) or 'none yet'}{did_you_mean(name, names)}"
        raise ConfigurationError("no such run", name, f"not in {storage.uri}", expected)
    return known


def damaged_run(name: str, storage: Storage, error: Exception) -> CheckpointError:
    """The error of a run whose own file cannot be read as one."""
    where = storage.child("runs", name, run_layout.RUN).uri
    return CheckpointError("damaged file", where, f"{type(error).__name__}: {error}", "what gan run writes")
