"""What stages hand on: frozen records, each written last by its stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TuneRecord:
    """A search's outcome: the settings it chose, and how many candidates it saw."""

    chosen: Mapping[str, Any]  # configuration key -> value; of population based training, its last settings
    candidate: int
    log_likelihood: float | None  # validation, mean over the seeds; none, of a configuration that was not scored
    coverage: float | None
    candidates: int
    diverged: int
    failed: int
    seconds: float
    finished: int = 0  # candidates that reached the last rung
    step: int = 0  # the rung whose scores decided: the last, unless the time budget was over before
    rung_correlation: Mapping[str, float] = field(
        default_factory=dict
    )  # earlier rung -> rank correlation with the last
    schedule: Sequence[Mapping[str, Any]] = ()  # of population based training: from which step on, which settings
    rung_correlation_interval: Mapping[str, Sequence[float]] = field(default_factory=dict)  # 95 %, low and high
    against_configuration: Mapping[str, Any] | None = None  # the best candidate's paired test, gan_core's Comparison
    reason: str = ""  # of the choice
    segment: str | None = None  # of the search's results, at whose `step` the training goes on
    finalists: Sequence[Mapping[str, Any]] = ()  # the choice and, the best first, those that could go on in its place
    failed_trainings: Sequence[Mapping[str, Any]] = ()  # of earlier choices: candidate, chosen, error
    device_seconds: Mapping[str, float] = field(default_factory=dict)  # by candidate, over all its seeds


@dataclass(frozen=True)
class TrainRecord:
    """A training's outcome: the checkpoint and what its weights are."""

    run: str
    step: int
    checkpoint: str
    weights_sha256: str  # of G's and D's tensors in name order
    generator_sha256: str
    device: str
    seconds: float
    averaged_sha256: str | None = None  # of G's moving average, where one is kept


@dataclass(frozen=True)
class InferRecord:
    """An inference net's outcome: what its weights are, and how well it inverts G (gan_core's Reconstruction)."""

    step: int
    encoder_sha256: str
    generator_sha256: str
    reconstruction: Mapping[str, float]
    device: str
    seconds: float


@dataclass(frozen=True)
class EvaluateRecord:
    """A model's scores, each with its protocol, and the reference rows beside them."""

    log_likelihood: float
    standard_error: float
    sigma: float
    paper: Mapping[str, Any]
    cross_validated: Mapping[str, Any]
    coverage: float
    references: Mapping[str, Mapping[str, float]]  # row -> log_likelihood, standard_error, sigma, coverage
    data_digest: str
    generator_sha256: str
    seconds: float
    quality: Mapping[str, float | None] | None = None  # precision, recall, density, coverage, duplicates, memorisation
    weights: str = "last"  # of G: the last step's, or averaged
    extension: Mapping[str, Any] | None = None  # an extension's own measures (gan_core.extensions.measures)


@dataclass(frozen=True)
class RegisterRecord:
    """Where the model is in the registry, and what the gate said."""

    model: str
    version: int
    alias: str  # the highest it holds: champion or challenger
    promoted: bool
    reason: str
    collapsed: bool = False
    tracking_uri: str | None = None  # of the registry, without an account; an earlier version did not note it


@dataclass(frozen=True)
class ReportRecord:
    """The run's page."""

    report: str
    seconds: float


@dataclass(frozen=True)
class Origin:
    """What a run continues from, as it was when the run was first started."""

    reference: str  # as it was given
    taken: str  # state: all of a run's; generator: G's weights; layers: G's weights, as the last layers' of a deeper G
    resolved: str  # RUN/step=N, or NAME/VERSION
    step: int
    digest: str  # SHA-256 of the tensors that were taken
    data_digest: str | None
    settings: Mapping[str, Any]  # of the training, or of the generator
    chosen: Mapping[str, Any] = field(default_factory=dict)  # by the run's search


RECORDS: dict[str, Any] = {
    "tune": TuneRecord,
    "train": TrainRecord,
    "infer": InferRecord,
    "evaluate": EvaluateRecord,
    "register": RegisterRecord,
    "report": ReportRecord,
}
STAGES = tuple(RECORDS)
