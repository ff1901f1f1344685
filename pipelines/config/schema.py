"""What the stages can be told: one frozen dataclass for each, with its ranges."""

import re
import urllib.parse
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from gan_core.algorithm1 import AlgorithmSettings
from gan_core.conditions.settings import ExtensionSettings
from gan_core.data_parallel import Shards
from gan_core.datasets import DataSettings
from gan_core.networks import Architecture
from gan_core.networks.dense import NetworkSettings
from gan_core.noise import NoiseSettings
from gan_core.training import TrainingSettings
from pipelines.config.tune_schema import TuneSettings, at_least
from pipelines.names import MODEL_NAME

Weights = Literal["last", "averaged"]
Event = Literal["failed", "preempted", "promoted"]
ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
AFTERWARDS = ("notify", "retention")  # sections: what follows a run, not what it is; a run's digest leaves them out


@dataclass(frozen=True)
class TrainSettings:
    """Ray Train: how many workers, what they checkpoint and report."""

    workers: int = 1
    virtual_shards: int | None = None  # default: as many as workers
    threads_per_worker: int = 1
    gpu: Literal["auto", True, False] = "auto"
    checkpoint_every: int = 1000  # steps
    checkpoint_seconds: float = 300.0
    keep_checkpoints: int = 2
    report_every: int = 100  # steps
    max_failures: int = 3
    start_timeout_s: float = 120.0
    hang_timeout_s: float = 300.0  # a worker that says nothing for so long is taken for dead

    def __post_init__(self) -> None:
        for name in ("workers", "threads_per_worker", "checkpoint_every", "report_every"):
            at_least(1, f"train.{name}", getattr(self, name))
        if self.virtual_shards is not None:
            at_least(1, "train.virtual_shards", self.virtual_shards)
        at_least(2, "train.keep_checkpoints", self.keep_checkpoints)
        at_least(0, "train.max_failures", self.max_failures)
        for name in ("checkpoint_seconds", "start_timeout_s", "hang_timeout_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"train.{name} {getattr(self, name)} is not positive")

    @property
    def shards(self) -> int:
        """V, the number of virtual shards that a batch is divided into."""
        return self.virtual_shards or self.workers


@dataclass(frozen=True)
class EvaluateSettings:
    """The Parzen score: samples of G, folds of the cross-validation, neighbours for coverage."""

    samples: int = 10_000
    folds: int = 5
    neighbours: int = 5
    weights: Weights | None = None  # of G: the last step's or their moving average; none: the average where one is kept

    def __post_init__(self) -> None:
        at_least(10, "evaluate.samples", self.samples)
        at_least(2, "evaluate.folds", self.folds)
        at_least(1, "evaluate.neighbours", self.neighbours)
        at_least(self.neighbours + 1, "evaluate.samples", self.samples)


@dataclass(frozen=True)
class GateSettings:
    """When a challenger becomes champion: better by `min_margin` nats at this confidence, and fit to be one at all.

    A simulated year of equal models moves the champion 2.1 times with no margin (6 at most, in 20
    years), never with 2 nats; 10 nats pass at once (tests/pipelines/nights.py). A model that has collapsed, that
    draws noise or that copies is refused by measures on the gate's points (gan_core/metrics/diagnosis.py); their
    thresholds part such models from good ones on three kinds of images (tests/benchmarks/gate.py).
    """

    confidence: float = 0.95
    min_margin: float = 2.0
    sample_sets: int = 4
    min_points: int = 200  # held-out images; with fewer, collapse is seen by duplicates alone
    max_duplicates: float = 0.5  # of samples
    min_coverage: float = 0.6  # of the training images' own
    min_skill: float | None = 0.25  # 0: as good as the mean image, 1: as the training images; none: any
    min_copying: float = 0.25  # distance to the training images, of that of held-out images

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"registry.gate.confidence {self.confidence} is not in [0.5, 1)")
        if not self.min_margin >= 0:
            raise ValueError(f"registry.gate.min_margin {self.min_margin} is negative")
        for name in ("max_duplicates", "min_coverage", "min_copying"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"registry.gate.{name} {getattr(self, name)} is not in [0, 1]")
        if self.min_skill is not None and not self.min_skill <= 1:
            raise ValueError(f"registry.gate.min_skill {self.min_skill} is more than 1, the training images' own")
        at_least(2, "registry.gate.sample_sets", self.sample_sets)
        at_least(2, "registry.gate.min_points", self.min_points)


@dataclass(frozen=True)
class RegistrySettings:
    """The registered model's name, and the gate before its `champion` alias."""

    model: str = "gan"
    gate: GateSettings = field(default_factory=GateSettings)

    def __post_init__(self) -> None:
        if not MODEL_NAME.fullmatch(self.model):
            raise ValueError(f"registry.model {self.model!r} is not a model name; use 1 to 128 of A-Z a-z 0-9 _ . -")


@dataclass(frozen=True)
class NotifySettings:
    """Who is told of a run's end, as JSON: a command by its stdin, a web address by POST, or both.

    `failed` is any error, `preempted` an end by SIGTERM (exit code 143), `promoted` a new champion.
    What is secret is given by the name of the environment variable that holds it.
    """

    events: tuple[Event, ...] = ("failed",)
    command: tuple[str, ...] = ()
    webhook: str | None = None
    webhook_variable: str | None = None  # instead of `webhook`, where the address itself is a secret
    token_variable: str | None = None  # sent as `Authorization: Bearer`
    timeout_s: float = 10.0  # for each of the two

    def __post_init__(self) -> None:
        if not self.events:
            raise ValueError("notify.events is empty; use failed, preempted or promoted")
        if self.command and not self.command[0]:
            raise ValueError("notify.command does not name a program")
        if self.webhook is not None:
            if self.webhook_variable is not None:
                raise ValueError("notify.webhook and notify.webhook_variable are given; use one of them")
            address = urllib.parse.urlsplit(self.webhook)
            if address.scheme not in ("http", "https") or not address.hostname:
                raise ValueError("notify.webhook is not an address such as https://host/path")
            if "@" in address.netloc:
                raise ValueError(
                    "notify.webhook holds a password; use notify.webhook_variable or notify.token_variable"
                )
        for name in ("webhook_variable", "token_variable"):
            value = getattr(self, name)
            if value is not None and not ENVIRONMENT_NAME.fullmatch(value):
                raise ValueError(f"notify.{name} is not the name of an environment variable, such as GAN_NOTIFY_TOKEN")
        if not 0 < self.timeout_s <= 300:
            raise ValueError(f"notify.timeout_s {self.timeout_s} is not in (0, 300]")


@dataclass(frozen=True)
class RetentionSettings:
    """How many are left when a run has succeeded, the newest; none: all.

    Runs count that share this one's name but for a date, number or digest at its end, and its model.
    """

    keep_runs: int | None = None  # that are done, and as many that are not
    keep_versions: int | None = None  # of the model

    def __post_init__(self) -> None:
        for name in ("keep_runs", "keep_versions"):
            if getattr(self, name) is not None:
                at_least(1, f"retention.{name}", getattr(self, name))


@dataclass(frozen=True)
class Configuration:
    """Everything a run is made from."""

    seed: int | Literal["name"] = 0
    data: DataSettings = field(default_factory=DataSettings)
    noise: NoiseSettings = field(default_factory=NoiseSettings)
    network: Annotated[Architecture, Field(discriminator="architecture")] = field(default_factory=NetworkSettings)
    algorithm: AlgorithmSettings = field(default_factory=AlgorithmSettings)
    extension: ExtensionSettings = field(default_factory=ExtensionSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    tune: TuneSettings = field(default_factory=TuneSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    registry: RegistrySettings = field(default_factory=RegistrySettings)
    notify: NotifySettings = field(default_factory=NotifySettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)

    def __post_init__(self) -> None:
        if isinstance(self.seed, int) and not 0 <= self.seed < 2**63:
            raise ValueError(f"seed {self.seed} is not in [0, 2^63)")
        Shards(self.algorithm.batch_size, self.train.shards, self.train.workers)
        if self.evaluate.weights == "averaged" and not self.algorithm.generator_average:
            raise ValueError(
                "evaluate.weights averaged, but algorithm.generator_average is 0; set it to 0.999, say, or use last"
            )
        if self.data.pixels == "contrast_normalised" and self.network.generator.output != "linear":
            raise ValueError(
                f"network.generator.output {self.network.generator.output} cannot make contrast normalised pixels; use linear"
            )

    @property
    def scored_weights(self) -> Weights:
        """Which of G's weights are scored and registered: `evaluate.weights`, or the average where one is kept."""
        return self.evaluate.weights or ("averaged" if self.algorithm.generator_average else "last")


@dataclass(frozen=True)
class ResolvedConfiguration(Configuration):
    """A configuration whose seed is a number: what a run, its stages and its candidates have."""

    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.seed, int):
            raise ValueError(f"seed {self.seed} is not a number")
        super().__post_init__()

    def training(self) -> TrainingSettings:
        """What decides the weights, for gan_core."""
        shards, extension = self.train.shards, self.extension.network_extension
        return TrainingSettings(self.seed, self.noise, self.network, self.algorithm, shards, extension)
