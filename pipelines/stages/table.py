"""The stages of a run, declared in their order: what each is a function of, and its work."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Protocol

from gan_core.checkpoint import checkpoint_step
from gan_core.datasets import Dataset
from gan_core.errors import CheckpointError, GanError, RegistryError
from gan_core.portable import PortableGenerator
from pipelines import config
from pipelines.config import EvaluateSettings, ResolvedConfiguration, Weights
from pipelines.registry import Registry, address
from pipelines.runs import code_version
from pipelines.runs.records import (
    EvaluateRecord,
    InferRecord,
    RegisterRecord,
    ReportRecord,
    TrainRecord,
    TuneRecord,
)
from pipelines.runs.run import BEFORE_0_3, Run
from pipelines.search.results_store import known_results
from pipelines.storage import checkpoint_names, run_layout

# What a stage works with is imported when it works: Ray, MLflow and the pictures take seconds.


class Context(Protocol):
    """What the stages of a run share, each part opened when it is first needed."""

    @property
    def run(self) -> Run:
        """The run."""

    @property
    def log(self) -> Callable[[str], None]:
        """Where progress goes, line by line."""

    @property
    def tracking_uri(self) -> str:
        """Of the registry; empty where no stage of this work needs one."""

    @property
    def dataset(self) -> Dataset:
        """The run's data set."""

    @property
    def opening_registry(self) -> "Future[Registry] | None":
        """The registry, while it is being opened in the background; None if no stage of this work needs one."""

    def registry(self) -> Registry:
        """The registry, once it is open."""


@dataclass(frozen=True)
class Stage:
    """One stage: done once for the same `inputs`, plain data of which its record is a function."""

    name: str
    record: type
    inputs: Callable[[Context], Any]
    run: Callable[[Context], Any]
    on_cluster: bool = True
    # Whether to do it again after an error, what is to be done otherwise having been set.
    recover: Callable[[Context, GanError], bool] = lambda context, error: False
    # What there is to go on with where a signal ends the stage, for people.
    kept: Callable[[Context], str] = lambda context: f"records kept: {', '.join(context.run.records()) or 'none'}"


def tune_inputs(configuration: ResolvedConfiguration, data_digest: str) -> Any:
    """What a search's record is a function of."""
    plain = config.to_plain(configuration)
    keys = ("seed", "data", "noise", "network", "algorithm", "extension", "tune")
    unknown_then = [key for key, value in BEFORE_0_3.items() if plain["tune"][key] == value]
    later = config.without_later(plain["tune"])
    plain["tune"] = {key: value for key, value in later.items() if key not in unknown_then}
    return [[plain[key] for key in keys], data_digest]


def _tune_inputs(context: Context) -> Any:
    return tune_inputs(context.run.configuration, context.dataset.digest)


def _tune(context: Context) -> TuneRecord:
    """Search the space, and choose the settings that are trained."""
    from pipelines.stages.tune import tune_run

    return tune_run(context.run.configuration, context.dataset, context.run.folder, context.log)


def _kept_results(context: Context) -> str:
    return f"results kept: {known_results(context.run.folder.child(run_layout.TUNE, run_layout.RESULTS))}"


def _kept_step(*folder: str) -> Callable[[Context], str]:
    def kept(context: Context) -> str:
        names = checkpoint_names(context.run.folder.child(*folder))
        return f"step {checkpoint_step(names[-1])} is saved" if names else "no checkpoint yet"

    return kept


def _train_inputs(context: Context) -> Any:
    run = context.run
    if run.configuration.tune.candidates and run.record("tune") is None:
        raise CheckpointError(
            "not searched yet", run.name, "no record of a search", "gan tune CONFIG, or gan run CONFIG"
        )
    inputs = [config.to_plain(run.chosen().training()), context.dataset.digest]
    return [*inputs, run.origin.digest] if run.origin else inputs


def _train(context: Context) -> TrainRecord:
    """Train G and D with the chosen settings."""
    from pipelines.stages.run_tracking import curves_follower
    from pipelines.stages.train import train_run

    run = context.run
    follow = curves_follower(run, context.opening_registry) if context.opening_registry else None
    # What a search has trained began from nothing: a warm start trains the chosen settings from its own origin.
    searched = run.record("tune") if run.configuration.tune.candidates and run.origin is None else None
    return train_run(run.chosen(), context.dataset, run.folder, context.log, follow, searched)


def _recover_training(context: Context, error: GanError) -> bool:
    """Let the search's runner-up go on where the training of its choice has failed."""
    from pipelines.stages.train import runner_up_goes_on

    return runner_up_goes_on(context.run, error, context.log)


def _infer_inputs(context: Context) -> Any:
    trained, settings = finished(context.run, "train"), context.run.configuration
    return [
        trained["generator_sha256"], trained["averaged_sha256"], _scored(context.run).weights,
        settings.evaluate.samples, settings.seed, config.to_plain(settings.extension.inference), context.dataset.digest,
    ]  # fmt: skip


def _infer(context: Context) -> InferRecord:
    """Train the net that gives the z of an image, G being fixed."""
    from pipelines.stages.train_encoder import infer_run

    return infer_run(context.run, context.dataset, context.log)


def _evaluate_inputs(context: Context) -> Any:
    trained, settings = finished(context.run, "train"), config.to_plain(_scored(context.run))
    return [trained["generator_sha256"], trained["averaged_sha256"], settings, context.dataset.digest]


def _evaluate(context: Context) -> EvaluateRecord:
    """Score the trained generator; where an average is kept, the other weights stand beside it as a row."""
    from pipelines.stages.evaluate import evaluate_generator

    run, settings = context.run, _scored(context.run)
    beside: dict[str, PortableGenerator] = {}
    if finished(run, "train")["averaged_sha256"]:
        other: Weights = "last" if settings.weights == "averaged" else "averaged"
        beside[f"{other} G"] = run.generator(other)
    return evaluate_generator(run.generator(), context.dataset, settings, run.configuration.seed, context.log, beside)


def _register_inputs(context: Context) -> Any:
    settings = config.to_plain(context.run.configuration.registry)
    return [finished(context.run, "evaluate"), settings, address.redacted(context.tracking_uri)]


def _register(context: Context) -> RegisterRecord:
    """Copy the run into MLflow, register the model, and let the gate decide on `champion`."""
    from pipelines.stages.register import publish

    run = context.run
    try:
        return publish(run, context.registry(), context.dataset, context.log)
    except RegistryError as error:
        raise RegistryError(
            "not registered",
            run.name,
            str(error),
            f"a registry that takes it; the run is kept, and gan register {run.name} completes it",
        ) from error


def _report_inputs(context: Context) -> Any:
    # By other code the page may be another: `gan report` then writes it anew.
    return {**context.run.records(), "report": None, "code": code_version.digest()}


def _report(context: Context) -> ReportRecord:
    """Write the run's page, and hand it to MLflow."""
    from pipelines.stages.report import write_report

    registry = context.registry() if context.run.record("register") else None
    return write_report(context.run, context.dataset, registry)


STAGES = {
    stage.name: stage
    for stage in (
        Stage("tune", TuneRecord, _tune_inputs, _tune, kept=_kept_results),
        Stage(
            "train",
            TrainRecord,
            _train_inputs,
            _train,
            recover=_recover_training,
            kept=_kept_step(run_layout.CHECKPOINTS),
        ),
        Stage("infer", InferRecord, _infer_inputs, _infer, kept=_kept_step(run_layout.ENCODER)),
        Stage("evaluate", EvaluateRecord, _evaluate_inputs, _evaluate),
        Stage("register", RegisterRecord, _register_inputs, _register, on_cluster=False),
        Stage("report", ReportRecord, _report_inputs, _report, on_cluster=False),
    )
}


def finished(run: Run, stage: str) -> dict[str, Any]:
    """The record of a stage that must be done by now.

    Raises:
        CheckpointError: If it is not.
    """
    record = run.record(stage)
    if record is None:
        raise CheckpointError(f"no {stage} stage yet", run.name, "no record of it", f"gan run CONFIG --name {run.name}")
    return record


def _scored(run: Run) -> EvaluateSettings:
    """How the run is evaluated, with the weights of G that are."""
    return replace(run.configuration.evaluate, weights=run.chosen().scored_weights)
