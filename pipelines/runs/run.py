"""A run: a name, a resolved configuration and a folder where finished stages leave their records."""

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable
from functools import cached_property
from typing import Any

from gan_core.conditions.settings import conditions_from
from gan_core.errors import CheckpointError, ConfigurationError, GanError
from gan_core.manifest import MALFORMED, checkpoint_name
from gan_core.networks import make_generator
from gan_core.portable import PortableGenerator
from gan_core.state import AVERAGED, load_tensors
from pipelines import config
from pipelines.config import Configuration, ResolvedConfiguration, Weights
from pipelines.runs import code_version, environment
from pipelines.runs.recorded_run import Plan, Record, RecordedRun, damaged_run, read_run, run_names
from pipelines.runs.records import Origin
from pipelines.runs.resume import training_settings_from_manifest
from pipelines.runs.run_name import checked_run_name, slug
from pipelines.storage import Storage, Tensors, latest_checkpoint, run_layout, save_checkpoint

CANDIDATES = "tune.candidates"
# Settings of a search that versions before 0.3 did not have, with the values of which it does as it did then.
BEFORE_0_3 = {"include_default": False, "points": [], "sample_sets": 1}


class Run(RecordedRun):
    """A run: its name, its resolved configuration and its folder, where finished stages leave records."""

    def __init__(
        self, name: str, configuration: ResolvedConfiguration, storage: Storage, origin: Origin | None = None
    ) -> None:
        super().__init__(name, storage)
        self.configuration, self.origin = configuration, origin
        self.origin_tensors: Tensors | None = None  # of the origin, until they are in the run's folder
        self.learned: dict[str, Any] | None = None  # from earlier searches, until it is there

    @classmethod
    def create(
        cls,
        configuration: Configuration,
        stem: str,
        name: str | None,
        storage: Storage,
        origin: Origin | None = None,
    ) -> "Run":
        """The run of this name, or of the configuration's digest if it has none; not yet in the storage.

        One setting may differ from the run in the storage: `tune.candidates` may be raised until the run
        is trained, where candidates are known up front. The search is then done again with what it found.

        Raises:
            ConfigurationError: If the name cannot be one, or is a run of another configuration or origin.
        """
        made_from: list[Any] = [config.identity(configuration), code_version.digest()]
        identity = config.digest([*made_from, origin.digest] if origin else made_from)
        name = checked_run_name(name or f"{slug(stem)}-{identity[:8]}")
        run = cls(name, config.resolve(configuration, name), storage, origin)
        if run.exists:
            known = cls.open(name, storage)
            if (known.origin and known.origin.digest) != (origin and origin.digest):
                then, now = (one.resolved if one else "none" for one in (known.origin, origin))
                raise ConfigurationError(
                    "run of another origin", name, f"--continue-from was {then}", f"{now}; start a new run: --name NAME"
                )
            run.origin = known.origin
            ours, theirs = config.to_compare(run.configuration), config.to_compare(known.configuration)
            run.extends = config.first_difference(ours, theirs, ignore=[CANDIDATES]) is None and _raises(ours, theirs)
            if run.extends and run.folder.child(run_layout.CHECKPOINTS).names():
                raise ConfigurationError(
                    "run is trained already", name, f"{CANDIDATES} {ours['tune']['candidates']}",
                    f"{theirs['tune']['candidates']}, what it was trained after; start a new run: --name NAME",
                )  # fmt: skip
            changed = config.first_difference(ours, theirs)
            if changed and not run.extends:
                key, now, then = changed
                raise ConfigurationError(
                    "run of another configuration", name, f"{key} was {then}", f"{now}; start a new run: --name NAME"
                )
        return run

    @classmethod
    def open(cls, name: str, storage: Storage) -> "Run":
        """A run that is in the storage.

        Raises:
            ConfigurationError: If it is not.
        """
        known = read_run(name, storage)
        try:
            origin = Origin(**known["origin"]) if known.get("origin") else None
            document = dict(known["configuration"])
            if document.get("tune", {}).get("candidates"):
                document["tune"] = {**BEFORE_0_3, **document["tune"]}
            return cls(name, config.resolve(config.build(document, name), name), storage, origin)
        except MALFORMED as error:
            raise damaged_run(name, storage, error) from error

    @property
    def exists(self) -> bool:
        """Whether it is in the storage."""
        return self.folder.read(run_layout.RUN) is not None

    def save(self) -> None:
        """Write the run's own file, and before it where it begins and what its origin gives, if it is not there.

        A search that is to have more candidates is not done any more, and the file is written again.
        """
        if self.extends:
            self.folder.write_json(run_layout.record("tune"), None)
            known = self.folder.read_json(run_layout.RUN)
            self.folder.write_json(run_layout.RUN, {**known, "configuration": config.to_plain(self.configuration)})
            self.extends = False
        if not self.exists:
            plain = config.to_plain(self.configuration)
            code = {"commit": code_version.commit(), "code": code_version.digest()}
            document: dict[str, Any] = {"run": self.name, **code, "configuration": plain}
            if self.origin is not None:
                document["origin"] = dataclasses.asdict(self.origin)
                assert self.origin_tensors is not None
                about = {key: document["origin"][key] for key in ("reference", "taken", "resolved")}
                save_checkpoint(
                    self.folder.child(run_layout.ORIGIN), self.origin.step, self.origin_tensors, about, keep=1
                )
            if self.learned is not None:
                self.folder.write_json(run_layout.LEARNED, self.learned)
            self.folder.write_json(run_layout.ENVIRONMENT, environment.describe())
            self.folder.write_json(run_layout.RUN, document)

    @cached_property
    def commit(self) -> str:
        """The commit the run started from."""
        known = self.folder.read_json(run_layout.RUN)
        return str(known["commit"]) if known else code_version.commit()

    @property
    def begun_by(self) -> str | None:
        """The code that has begun the run, if it was other than this."""
        known = self.folder.read_json(run_layout.RUN)
        if known is None or known.get("code") == code_version.digest():
            return None
        return code_version.shown(str(known.get("commit", "unknown")))

    @cached_property
    def plan(self) -> Plan:
        """What it has to do, by its configuration."""
        settings = self.configuration
        return Plan.of(settings.tune.candidates, settings.extension.name, settings.algorithm.steps)

    @property
    def config_digest(self) -> str:
        """Digest of the resolved configuration, and of the run's origin if it has one."""
        plain = config.identity(self.configuration)
        return config.digest([plain, self.origin.digest] if self.origin else plain)

    def chosen(self) -> ResolvedConfiguration:
        """The configuration, with the search's choice once there is one."""
        searched = self.record("tune") if self.configuration.tune.candidates else None
        return config.override(self.configuration, searched["chosen"]) if searched else self.configuration

    def stage(self, stage: str, kind: type[Record], inputs: Any, work: Callable[[], Record]) -> Record:
        """The stage's record: the one there is for the same inputs, or that of doing the work now."""
        inputs_digest = config.digest(inputs)
        known = self.folder.read_json(run_layout.record(stage))
        if isinstance(known, dict) and known.get("inputs") == inputs_digest:
            return self.record_of(stage, kind, known)
        record = work()
        document = {"inputs": inputs_digest, "record": dataclasses.asdict(record)}  # type: ignore[call-overload]
        self.folder.write_json(run_layout.record(stage), document)
        return kind(**json.loads(json.dumps(document["record"])))

    def revise(self, stage: str, **changes: Any) -> None:
        """Change what a finished stage's record says."""
        known = self.folder.read_json(run_layout.record(stage))
        self.folder.write_json(run_layout.record(stage), {**known, "record": {**known["record"], **changes}})

    def generator(self, weights: Weights | None = None) -> PortableGenerator:
        """G of the run's last verified checkpoint, with its last or its averaged weights (default: as evaluated).

        Raises:
            CheckpointError: If there is none.
        """
        saved = latest_checkpoint(self.folder.child(run_layout.CHECKPOINTS))
        if saved is None:
            raise CheckpointError(
                "not trained yet", self.name, "no checkpoint", f"a training: gan train CONFIG --name {self.name}"
            )
        name, manifest, tensors = saved
        noted = training_settings_from_manifest(manifest.about, name)
        training = config.build({key: value for key, value in noted.items() if key != "virtual_shards"}, name)
        shape = tuple(manifest.about["image_shape"])
        conditions = conditions_from(manifest.about.get("conditions"))
        net = conditions.wrap(make_generator(training.network.generator, training.noise.size, conditions.size, shape))
        averaged = (weights or self.chosen().scored_weights) == "averaged"
        group, digest = (AVERAGED, "averaged_sha256") if averaged else ("generator", "generator_sha256")
        load_tensors(net.state_dict(), tensors.get(group, {}), name)
        pixels, trained = self.configuration.data.pixels, self.record("train")
        model = PortableGenerator(net.eval(), training.noise, training.network.generator, shape, pixels, conditions)
        if trained is not None and model.sha256 != trained[digest]:
            raise CheckpointError(
                "not the trained weights",
                f"{self.name}: {name}",
                f"generator {model.sha256[:12]}",
                f"{trained[digest][:12]} of {checkpoint_name(trained['step'])}, which is damaged or gone: "
                "remove records/train.json, and the same command trains the last steps again",
            )
        return model


def of_other_code(run: Run, any_seed: bool) -> list[str]:
    """The storage's runs of the same configuration and origin that were named after other code, the newest last.

    `any_seed`: where the seed is a function of the name, it differs and means nothing.
    """

    def made_from(one: Run) -> Any:
        plain = config.identity(one.configuration)
        return {**plain, "seed": None} if any_seed else plain, one.origin and one.origin.digest

    found, stem = [], run.name.rpartition("-")[0]
    for name in run_names(run.storage):
        if name != run.name and re.fullmatch(re.escape(stem) + "-[0-9a-f]{8}", name):
            with contextlib.suppress(GanError, *MALFORMED):
                other = Run.open(name, run.storage)
                if made_from(other) == made_from(run):
                    found.append(other)
    return [other.name for other in sorted(found, key=lambda other: other.folder.size_and_mtime()[1])]


def _raises(ours: Any, theirs: Any) -> bool:
    """Whether a search of candidates that are known up front is to have more of them."""
    return bool(ours["tune"]["searcher"] != "tpe" and ours["tune"]["candidates"] > theirs["tune"]["candidates"] > 0)
