"""A run: a name, a resolved configuration and a folder where finished stages leave their records."""

import dataclasses
import hashlib
import json
import math
import re
import subprocess
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from gan_core.errors import CheckpointError, ConfigurationError
from gan_core.networks import DenseGenerator
from gan_core.portable import PortableGenerator
from gan_core.state import AVERAGED, load_tensors
from pipelines import config
from pipelines.settings import Configuration, Weights
from pipelines.storage import Storage, latest_checkpoint

STAGES = ("tune", "train", "evaluate", "register", "report")
RUN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]{0,127}")
Record = TypeVar("Record")


class Run:
    """A run: its name, its resolved configuration and its folder, where finished stages leave records."""

    def __init__(self, name: str, configuration: Configuration, storage: Storage) -> None:
        self.name, self.configuration, self.storage = name, configuration, storage
        self.folder = storage.within("runs", name)

    @classmethod
    def create(cls, configuration: Configuration, stem: str, name: str | None, storage: Storage) -> "Run":
        """The run of this name, or of the configuration's digest if it has none; not yet in the storage.

        Raises:
            ConfigurationError: If the name cannot be one, or is a run of another configuration.
        """
        identity = config.digest([config.to_plain(configuration), config.sources_digest()])
        name = checked_run_name(name or f"{stem}-{identity[:8]}")
        if configuration.seed == "name":
            seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
            configuration = config.override(configuration, {"seed": seed})
        run = cls(name, configuration, storage)
        known = run.folder.read_json("run.json")
        if known is not None:
            changed = config.first_difference(config.to_plain(configuration), known["configuration"])
            if changed:
                key, ours, theirs = changed
                raise ConfigurationError(
                    "run of another configuration", name, f"{key} was {theirs}", f"{ours}; start a new run: --name NAME"
                )
        return run

    @classmethod
    def open(cls, name: str, storage: Storage) -> "Run":
        """A run that is in the storage.

        Raises:
            ConfigurationError: If it is not.
        """
        known = storage.within("runs", checked_run_name(name)).read_json("run.json")
        if known is None:
            names = ", ".join(run_names(storage)[-5:]) or "none yet"
            raise ConfigurationError("no such run", name, f"not in {storage.uri}", f"one of: {names}")
        return cls(name, config.build(known["configuration"], name), storage)

    def save(self) -> None:
        """Write the run's own file, if it is not there."""
        if self.folder.read_json("run.json") is None:
            document = {"run": self.name, "commit": commit(), "configuration": config.to_plain(self.configuration)}
            self.folder.write_json("run.json", document)

    @cached_property
    def commit(self) -> str:
        """The commit the run started from."""
        known = self.folder.read_json("run.json")
        return str(known["commit"]) if known else commit()

    @property
    def config_digest(self) -> str:
        """Digest of the resolved configuration."""
        return config.digest(config.to_plain(self.configuration))

    def record(self, stage: str) -> dict[str, Any] | None:
        """A finished stage's record, as plain data."""
        known = self.folder.read_json(f"records/{stage}.json")
        return known["record"] if known else None

    def records(self) -> dict[str, dict[str, Any]]:
        """The records of all finished stages."""
        return {stage: record for stage in STAGES if (record := self.record(stage)) is not None}

    def chosen(self) -> Configuration:
        """The configuration, with the search's choice once there is one."""
        searched = self.record("tune") if self.configuration.tune.candidates else None
        return config.override(self.configuration, searched["chosen"]) if searched else self.configuration

    def stage(self, stage: str, kind: type[Record], inputs: Any, work: Callable[[], Record]) -> Record:
        """The stage's record: the one there is for the same inputs, or that of doing the work now."""
        inputs_digest = config.digest(inputs)
        known = self.folder.read_json(f"records/{stage}.json")
        if known and known["inputs"] == inputs_digest:
            return kind(**known["record"])
        record = work()
        document = {"inputs": inputs_digest, "record": dataclasses.asdict(record)}  # type: ignore[call-overload]
        self.folder.write_json(f"records/{stage}.json", document)
        return kind(**json.loads(json.dumps(document["record"])))

    def generator(self, weights: Weights | None = None) -> PortableGenerator:
        """G of the run's last verified checkpoint, with its last or its averaged weights (default: as evaluated).

        Raises:
            CheckpointError: If there is none.
        """
        saved = latest_checkpoint(self.folder.within("checkpoints"))
        if saved is None:
            raise CheckpointError(
                "not trained yet", self.name, "no checkpoint", f"a training: gan train CONFIG --name {self.name}"
            )
        name, manifest, tensors = saved
        training = config.build(
            {key: value for key, value in manifest.about["training"].items() if key != "virtual_shards"}, name
        )
        shape = tuple(manifest.about["image_shape"])
        net = DenseGenerator(training.noise.size, 0, math.prod(shape), training.network.generator)
        averaged = (weights or self.configuration.evaluate.weights) == "averaged"
        group, digest = (AVERAGED, "averaged_sha256") if averaged else ("generator", "generator_sha256")
        load_tensors(net.state_dict(), tensors.get(group, {}), name)
        model, trained = (
            PortableGenerator(net.eval(), training.noise, training.network.generator, shape),
            self.record("train"),
        )
        if trained is not None and model.sha256 != trained[digest]:
            raise CheckpointError(
                "not the trained weights",
                f"{self.name}: {name}",
                f"generator {model.sha256[:12]}",
                f"{trained[digest][:12]} of step {trained['step']}; its checkpoint is damaged: "
                "remove records/train.json, and the same command trains the last steps again",
            )
        return model


def checked_run_name(name: str) -> str:
    """A name that is one folder everywhere.

    Raises:
        ConfigurationError: If it is not.
    """
    if not RUN_NAME.fullmatch(name):
        raise ConfigurationError(
            "not a run name", "--name", repr(name)[:80], "1 to 128 of A-Z a-z 0-9 _ . = -, not starting with . = or -"
        )
    return name


def run_names(storage: Storage) -> list[str]:
    """The storage's runs, by name."""
    return [name for name in storage.within("runs").names() if not name.startswith(".")]


def commit() -> str:
    """The commit of the checkout this runs from, `-dirty` if it was changed; `unknown` elsewhere."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() or "unknown"
