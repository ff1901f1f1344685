"""tune -> train (-> infer) -> evaluate -> register -> report: once, in order, resumable."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import Any

from gan_core import networks
from gan_core.conditions.settings import conditions_of
from gan_core.datasets import Dataset
from gan_core.errors import CheckpointError, ConfigurationError, RegistryError
from gan_core.portable import PortableGenerator
from gan_core.training import initial_state
from pipelines import config
from pipelines.config import Configuration, EvaluateSettings, Weights
from pipelines.config.candidates import candidate_configurations
from pipelines.data.streaming import load
from pipelines.registry import mlflow_client
from pipelines.registry.tracking import check_ready
from pipelines.runs import warm_start
from pipelines.runs.records import EvaluateRecord, InferRecord, RegisterRecord, ReportRecord, TrainRecord, TuneRecord
from pipelines.runs.run import Record, Run
from pipelines.runs.run_lease import working_on
from pipelines.runtime import liveness, lost_resources, ray_session
from pipelines.storage import check_storage

RESTARTS = 3  # of a Ray of our own, in one stage


class Flow:
    """One pass over a run's stages, with what they share: data, cluster and MLflow, each when first needed."""

    def __init__(self, run: Run, tracking_uri: str, say: Callable[[str], None]) -> None:
        self.run, self.uri, self.say = run, tracking_uri, say
        self.stack = contextlib.ExitStack()
        self.registry: Future[Any] | None = None

    @contextlib.contextmanager
    def working(self) -> Iterator[bool]:
        """Hold the run while working on it; False if another process does."""
        with working_on(self.run.folder) as free, self.stack:
            if free:
                self.run.save()
            yield free

    def check(self) -> None:
        """What can be known to be wrong before anything starts: the data, the candidates, the registry.

        Raises:
            GanError: The first fault found.
        """
        candidates = candidate_configurations(self.run.configuration) if self.run.configuration.tune.candidates else []
        conditions = conditions_of(self.run.configuration.extension, self.dataset)
        for configuration in (self.run.configuration, *candidates):
            networks.check(configuration.network, configuration.noise.size, self.dataset.shape, conditions.size)
        smallest = min(len(examples) for examples in self.dataset.splits().values())
        batch, train = self.run.configuration.algorithm.batch_size, len(self.dataset.train)
        if batch > train:
            raise ConfigurationError(
                "batch too large", "algorithm.batch_size", f"{batch}", f"at most {train}, the training examples"
            )
        if self.run.configuration.evaluate.folds > smallest:
            raise ConfigurationError(
                "too many folds", "evaluate.folds", f"{self.run.configuration.evaluate.folds}", f"at most {smallest}"
            )
        if self.run.configuration.evaluate.neighbours >= smallest:
            raise ConfigurationError(
                "too many neighbours",
                "evaluate.neighbours",
                f"{self.run.configuration.evaluate.neighbours}",
                f"less than {smallest}",
            )
        training, shape = self.run.configuration.training(), self.dataset.shape
        initial = initial_state(training, self.dataset.train, shape, conditions)
        check_storage(self.run.folder, initial.nbytes * (self.run.configuration.train.keep_checkpoints + 1))
        warm_start.check_data(self.run, self.dataset)
        if self.uri:
            check_ready(self.uri, self.run.configuration.registry.model)

    @cached_property
    def dataset(self) -> Dataset:
        """The data set, read and verified once, on the driver; or by Ray Data, where it need not fit in memory."""
        return load(self.run.configuration.data, self.run.storage, self.say, self.run.name)

    def unchanged(self) -> Any:
        """The model's newest version, if this run would be made from the same data and settings, its seed apart."""
        from pipelines.registry import Registry
        from pipelines.stages.register import unchanged

        return (
            unchanged(self.run, Registry(self.uri), self.dataset) if mlflow_client.database_exists(self.uri) else None
        )

    def prepare_registry(self) -> None:
        """Open the registry in the background: an sqlite database takes seconds to create."""
        pool = ThreadPoolExecutor(1)
        self.registry = pool.submit(_open_registry, self.uri)
        pool.shutdown(wait=False)
        self.stack.callback(pool.shutdown)  # however the work ends: none is left half made

    def join_cluster(self) -> None:
        """Start or join Ray, once, and check that the run fits; a Ray of our own that lost something starts anew."""
        import ray

        if ray_session.started_here() and (lost := lost_resources.still_unheld()):
            self._leave_cluster(f"{lost} neither free nor held by anything that runs")
        if not ray.is_initialized():
            self.stack.enter_context(ray_session.cluster(self.say))
        ray_session.check_resources(self.run.configuration)
        if self.registry is not None and self.registry.done():
            self.registry.result()  # a registry that cannot be opened is an error now, not after hours of work

    def _leave_cluster(self, lost: str) -> None:
        self.say(f"ray    lost: {lost}; it is started anew")
        self.stack.close()

    def _on_cluster(self, work: Callable[[], Record]) -> Callable[[], Record]:
        """A stage's work, done on the cluster; again, from what it has saved, if a Ray of our own loses what it needs."""

        def tried() -> Record:
            for restarts in itertools.count():
                self.join_cluster()
                try:
                    with liveness.watched():
                        return work()
                except Exception as error:
                    lost = lost_resources.behind(error)
                    if lost is None or restarts == RESTARTS:
                        raise
                self._leave_cluster(lost)
            raise AssertionError("unreachable")

        return tried

    def chosen(self) -> Configuration:
        """The configuration with the search's choice, if the run searches."""
        if self.run.configuration.tune.candidates and self.run.record("tune") is None:
            raise CheckpointError(
                "not searched yet", self.run.name, "no record of a search", "gan tune CONFIG, or gan run CONFIG"
            )
        return self.run.chosen()

    def tune(self) -> TuneRecord | None:
        """Search, if the configuration asks for it."""
        plain = config.to_plain(self.run.configuration)
        if not self.run.configuration.tune.candidates:
            return None

        @self._on_cluster
        def work() -> TuneRecord:
            from pipelines.stages.tune import tune_run

            return tune_run(self.run.configuration, self.dataset, self.run.folder, self.say)

        inputs = [plain[key] for key in ("seed", "data", "noise", "network", "algorithm", "extension", "tune")]
        return self.run.stage("tune", TuneRecord, [inputs, self.dataset.digest], work)

    def train(self) -> TrainRecord:
        """Train with the chosen settings."""
        chosen = self.chosen()

        @self._on_cluster
        def work() -> TrainRecord:
            from pipelines.stages.mlflow_runs import curves_follower
            from pipelines.stages.train import train_run

            follow = curves_follower(self.run, self.registry) if self.registry else None
            return train_run(chosen, self.dataset, self.run.folder, self.say, follow)

        inputs = [config.to_plain(chosen.training()), self.dataset.digest]
        if self.run.origin:
            inputs.append(self.run.origin.digest)
        return self.run.stage("train", TrainRecord, inputs, work)

    def infer(self) -> InferRecord:
        """Train the net that gives the z of an image, G being fixed."""

        @self._on_cluster
        def work() -> InferRecord:
            from pipelines.stages.train_encoder import infer_run

            return infer_run(self.run, self.dataset, self.say)

        trained, settings = self._done("train"), self.run.configuration
        inputs = [
            trained["generator_sha256"], trained["averaged_sha256"], self._scored().weights, settings.evaluate.samples,
            settings.seed, config.to_plain(settings.extension.inference), self.dataset.digest,
        ]  # fmt: skip
        return self.run.stage("infer", InferRecord, inputs, work)

    def evaluate(self) -> EvaluateRecord:
        """Score the trained generator."""
        seed, settings = self.run.configuration.seed, self._scored()

        @self._on_cluster
        def work() -> EvaluateRecord:
            from pipelines.stages.evaluate import evaluate_generator

            model = self.run.generator()
            assert isinstance(seed, int)
            beside: dict[str, PortableGenerator] = {}
            if trained["averaged_sha256"]:
                other: Weights = "last" if settings.weights == "averaged" else "averaged"
                beside[f"{other} G"] = self.run.generator(other)
            return evaluate_generator(model, self.dataset, settings, seed, self.say, beside)

        trained = self._done("train")
        return self.run.stage(
            "evaluate",
            EvaluateRecord,
            [
                trained["generator_sha256"],
                trained["averaged_sha256"],
                config.to_plain(settings),
                self.dataset.digest,
            ],
            work,
        )

    def _scored(self) -> EvaluateSettings:
        """How the run is evaluated, with the weights of G that are."""
        return replace(self.run.configuration.evaluate, weights=self.run.chosen().scored_weights)

    def register(self) -> RegisterRecord:
        """Copy the run into MLflow, register the model, and let the gate decide on `champion`."""

        def work() -> RegisterRecord:
            from pipelines.stages.register import publish

            self.stack.close()  # Ray has no part in what follows, and could only end it
            try:
                return publish(self.run, self._registry(), self.dataset, self.say)
            except RegistryError as error:
                raise RegistryError(
                    "not registered", self.run.name, str(error),
                    f"that mended; all else is kept, and gan register {self.run.name} completes it",
                ) from error  # fmt: skip

        settings = config.to_plain(self.run.configuration.registry)
        return self.run.stage(
            "register", RegisterRecord, [self._done("evaluate"), settings, mlflow_client.redacted(self.uri)], work
        )

    def report(self) -> ReportRecord:
        """Write the run's page, and hand it to MLflow."""

        def work() -> ReportRecord:
            from pipelines.stages.report import write_report

            return write_report(self.run, self.dataset, self._registry() if self.run.record("register") else None)

        return self.run.stage("report", ReportRecord, {**self.run.records(), "report": None}, work)

    def _registry(self) -> Any:
        if self.registry is None:
            self.prepare_registry()
        assert self.registry is not None
        return self.registry.result()

    def _done(self, stage: str) -> dict[str, Any]:
        record = self.run.record(stage)
        if record is None:
            raise CheckpointError(
                f"no {stage} stage yet", self.run.name, "no record of it", f"gan run CONFIG --name {self.run.name}"
            )
        return record


def _open_registry(uri: str) -> Any:
    from pipelines.registry import Registry

    return Registry(uri, create=True)
