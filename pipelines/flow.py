"""The one orchestrator: a run's stages in order, each once, resumable, and what follows them."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from gan_core.datasets import Dataset
from gan_core.errors import Collapsed, GanError
from pipelines import config
from pipelines.config import Configuration
from pipelines.data.streaming import load
from pipelines.registry import Registry, address
from pipelines.runs import code_version, preflight, warm_start
from pipelines.runs.retention import apply_retention
from pipelines.runs.run import Run, of_other_code
from pipelines.runs.run_lease import working_on
from pipelines.runtime import exit_codes, notifications, ray_session, supervisor
from pipelines.runtime.cluster import Cluster
from pipelines.stages import earlier_searches
from pipelines.stages.table import STAGES, Stage
from pipelines.storage import Storage

Log = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """How a call of the pipeline ended: the run, the stages that were asked for, and which had been done before.

    `unchanged` is the model version that a skipped run would have repeated, `dataset` what a planned one would be trained on, `failure` a model that the gate refused
    as collapsed, which stays registered.
    """

    run: Run
    stages: tuple[str, ...]
    state: Literal["done", "planned", "skipped", "running elsewhere"]
    done_before: tuple[str, ...] = ()
    tracking_uri: str = ""  # without an account
    unchanged: Any = None
    dataset: Dataset | None = None  # of a planned run
    failure: Collapsed | None = None

    @property
    def records(self) -> dict[str, dict[str, Any]]:
        """The records of all finished stages, by name: `outcome.records["evaluate"]["log_likelihood"]`, in nats."""
        return self.run.records()


@dataclass(frozen=True)
class Pipeline:
    """The pipeline in one storage, with one registry, and where it logs to."""

    storage: Storage
    tracking_uri: Callable[[], str]
    log: Log = lambda text: None
    log_warning: Log = lambda text: None
    watching: Callable[..., contextlib.AbstractContextManager[Any]] = lambda *of: (
        contextlib.nullcontext()
    )  # a run's work

    def run(
        self,
        configuration: Configuration,
        stem: str,
        *,
        name: str | None = None,
        stages: tuple[str, ...] | None = None,
        continue_from: str | None = None,
        overridden: Sequence[str] = (),
        skip_unchanged: bool = False,
        dry_run: bool = False,
    ) -> Outcome:
        """Do these stages of the configuration's run, or all that it has: the same call again resumes.

        The run is named `name`, or after `stem` and the configuration's digest. Settings `overridden` by hand are
        kept where `continue_from` brings settings of its own.

        Raises:
            GanError: Whatever cannot be done, in a line; what was done is kept.
        """
        name = supervisor.run_begun(self.log) or name
        with self._notifying(configuration, name or stem, dry_run) as active:
            run = self._created(configuration, stem, name, continue_from, overridden)
            active.run = run.name
            if name is None and not run.exists:
                for other in of_other_code(run, any_seed=configuration.seed == "name")[-1:]:
                    self.log(f"run    {other} is of this configuration, by other code: --name {other} goes on with it")
            return self._do(run, stages or run.stages, active, dry_run, skip_unchanged)

    def finish(self, run: Run, stages: tuple[str, ...]) -> Outcome:
        """Do the last stages of a run that is in the storage.

        Raises:
            GanError: Whatever cannot be done, in a line; what was done is kept.
        """
        with self._notifying(run.configuration, run.name) as active:
            return self._do(run, stages, active)

    def _notifying(
        self, configuration: Configuration, name: str, dry_run: bool = False
    ) -> contextlib.AbstractContextManager[notifications.ActiveRun]:
        active = notifications.ActiveRun(name, self.storage.uri)
        telling = notifications.notify_on_failure(configuration.notify, active, self.log_warning)
        return contextlib.nullcontext(active) if dry_run else telling

    def _created(
        self, settings: Configuration, stem: str, name: str | None, continue_from: str | None, overridden: Sequence[str]
    ) -> Run:
        known = tensors = document = None
        if continue_from is not None:
            if (known := warm_start.recorded(continue_from, name, self.storage)) is None:
                known, tensors = warm_start.find(continue_from, self.storage, self.tracking_uri, settings)
            settings = warm_start.adapt(settings, known, overridden)
        if settings.tune.learn_from and settings.tune.candidates:
            settings, document = earlier_searches.learned(settings, name, self.storage, self.log)
        run = Run.create(settings, stem, name, self.storage, known)
        run.origin_tensors, run.learned = tensors, document
        return run

    def _do(
        self,
        run: Run,
        stages: tuple[str, ...],
        active: notifications.ActiveRun,
        dry_run: bool = False,
        skip_unchanged: bool = False,
    ) -> Outcome:
        """Check all that can be checked, do the stages that are not done, and clean up after a success."""
        exit_codes.bound_the_end()
        for problem in notifications.preflight_problems(run.configuration.notify):
            self.log_warning(f"notify {problem}: nobody would be told of the run's end")
        tracked = bool({"register", "report"} & set(stages))
        flow = Flow(run, self.tracking_uri() if tracked else "", self.log, fetch=not dry_run)
        ray_session.check_resources(run.configuration)
        flow.check()
        ended = partial(Outcome, run, stages, tracking_uri=address.redacted(flow.tracking_uri))
        if skip_unchanged and not run.exists and (same := flow.unchanged()) is not None:
            return ended("skipped", unchanged=same)
        done = tuple(stage for stage in stages if run.record(stage) is not None)
        if dry_run:
            return ended("planned", done, dataset=flow.dataset)
        with flow.working() as free:
            if not free:
                return ended("running elsewhere", done)
            self.log(f"run    {run.name} in {run.folder.uri}")
            if len(done) < len(stages) and (other := run.begun_by) is not None:
                self.log(f"run    begun by {other}, goes on by {code_version.shown(code_version.commit())}")
            if tracked:
                flow.open_registry()
            with self.watching(run, stages, lambda: active.stage if active.stage in stages else stages[0]):
                for active.stage in stages:
                    flow.do(active.stage)
        done = tuple(stage for stage in stages if stage not in flow.worked_on)
        if "evaluate" in stages and len(done) < len(stages):
            apply_retention(run, flow.tracking_uri, self.log, self.log_warning)
        registered = (run.record("register") or {}) if "register" in stages else {}
        if registered.get("promoted") and "register" not in done:
            score = run.records()["evaluate"]
            promotion = {key: registered[key] for key in ("model", "version", "reason")}
            promotion |= {key: score[key] for key in ("log_likelihood", "standard_error")}
            notifications.notify(run.configuration.notify, "promoted", active, self.log_warning, **promotion)
        failure = None
        if registered.get("collapsed"):
            from pipelines.registry.promotion_gate import collapsed_model  # and with it SciPy

            failure = collapsed_model(f"{registered['model']}/{registered['version']}", registered["reason"])
            ending = {"stage": active.stage, "exit_code": failure.exit_code, "error": str(failure)}
            notifications.notify(run.configuration.notify, "failed", active, self.log_warning, **ending)
        return ended("done", done, failure=failure)


@dataclass
class Flow:
    """One pass over a run's stages, with what they share: data, cluster and registry, each when first needed."""

    run: Run
    tracking_uri: str
    log: Log
    fetch: bool = True  # data that are not there
    opening_registry: "Future[Registry] | None" = None
    worked_on: set[str] = field(default_factory=set)  # stages whose records are of this pass
    _at_end: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @contextlib.contextmanager
    def working(self) -> Iterator[bool]:
        """Hold the run while working on it; False if another process does."""
        with working_on(self.run.folder) as free, self._at_end:
            if free:
                self.run.save()
            yield free

    def check(self) -> None:
        """What can be known to be wrong before anything starts.

        Raises:
            GanError: The first fault found.
        """
        preflight.check(self.run, self.dataset, self.tracking_uri)
        earlier_searches.check_data(self.run, self.dataset)

    def do(self, name: str) -> Any:
        """A stage's record: the one there is for the same inputs, or that of doing it now.

        Raises:
            GanError: If a stage before it is missing, and what the stage itself raises.
        """
        stage = STAGES[name]
        work = partial(self._work, stage)
        work = partial(self.cluster.call, work) if stage.on_cluster else work
        while True:
            try:
                return self.run.stage(name, stage.record, stage.inputs(self), work)
            except GanError as error:
                if not stage.recover(self, error):
                    raise
            except (SystemExit, KeyboardInterrupt):
                with contextlib.suppress(GanError):
                    self.log(f"{name:<6} stopped; {stage.kept(self)}; the same command resumes")
                raise

    def _work(self, stage: Stage) -> Any:
        if not stage.on_cluster:
            self.cluster.leave()  # it has no part in what follows, and could only end it
        elif self.opening_registry is not None and self.opening_registry.done():
            self.opening_registry.result()  # a registry that cannot be opened is an error now, not after hours of work
        self.worked_on.add(stage.name)
        return stage.run(self)

    @cached_property
    def cluster(self) -> Cluster:
        """Ray, for the stages that work on it."""
        cluster = Cluster(self.run.name, self.run.configuration, self.log)
        self._at_end.callback(cluster.leave)
        return cluster

    @cached_property
    def dataset(self) -> Dataset:
        """The data set, read and verified once, on the driver; or by Ray Data, where it need not fit in memory."""
        data = self.run.configuration.data
        return load(data if self.fetch else replace(data, download=False), self.run.storage, self.log, self.run.name)

    def unchanged(self) -> Any:
        """The model's newest version, if this run would be made from the same data and settings, its seed apart."""
        from pipelines.stages.register import unchanged

        if not address.database_exists(self.tracking_uri):
            return None
        return unchanged(self.run, Registry(self.tracking_uri), self.dataset)

    def open_registry(self) -> "Future[Registry]":
        """Open the registry in the background: an sqlite database takes seconds to create."""
        pool = ThreadPoolExecutor(1)
        self.opening_registry = pool.submit(partial(Registry, self.tracking_uri, create=True))
        pool.shutdown(wait=False)
        self._at_end.callback(pool.shutdown)  # however the work ends: none is left half made
        return self.opening_registry

    def registry(self) -> Registry:
        """The registry, once it is open."""
        return (self.opening_registry or self.open_registry()).result()


def run(
    configuration: str | Path | Configuration,
    overrides: Sequence[str] = (),
    *,
    storage: str | Path | None = None,
    tracking_uri: str | None = None,
    log: Log = lambda text: None,
    log_warning: Log = lambda text: None,
    **how: Any,
) -> Outcome:
    """Search, train, evaluate, register and report, each once: what `gan run` does, from Python.

    `configuration` is a file or a `config.Configuration`, `overrides` are `a.b=c` texts; `storage` and
    `tracking_uri` are as on the command line (GAN_STORAGE, MLFLOW_TRACKING_URI), and `how` is what `Pipeline.run`
    takes: name, stages, continue_from, skip_unchanged, dry_run.

        outcome = pipelines.run("configs/digits.yaml", ["algorithm.steps=500"], log=print)
        outcome.records["evaluate"]["log_likelihood"]  # nats

    Raises:
        GanError: Whatever cannot be done, in a line; what was done is kept, and the same call resumes.
    """
    place = Storage.at(storage or os.environ.get("GAN_STORAGE") or "gan-storage")
    if isinstance(configuration, Configuration):
        stem, document = "run", config.to_plain(configuration)
        for text in overrides:
            config.apply_override(document, text)
        settings = config.build(document) if overrides else configuration
    else:
        stem, settings = Path(configuration).stem, config.load(configuration, overrides)
    pipeline = Pipeline(place, lambda: address.tracking_uri(tracking_uri, place), log, log_warning)
    with exit_codes.sigterm_as_exit():
        return pipeline.run(settings, stem, overridden=[text.partition("=")[0] for text in overrides], **how)
