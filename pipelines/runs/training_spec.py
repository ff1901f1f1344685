"""What the training driver trains: a state, the steps that change it, and what a run's folder keeps of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from gan_core.checkpoint import Manifest
from gan_core.datasets import Examples
from gan_core.training import Report
from pipelines.config import TrainSettings
from pipelines.storage import Storage


class TrainingState(Protocol):
    """All that a training changes, as a checkpoint holds it."""

    step: Tensor  # steps done, int64

    def to(self, device: torch.device) -> Self:
        """The same state on a device."""

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All tensors by group and name: one group, one file of a checkpoint."""

    def load(self, tensors: Mapping[str, Mapping[str, Tensor]], where: object) -> None:
        """Take over values of the same groups, names and shapes."""


AnyState = TypeVar("AnyState", bound=TrainingState)


class TrainingSpec(ABC, Generic[AnyState]):
    """One kind of training, for the driver and its workers; it is sent to them, so it holds settings and no state."""

    stage: ClassVar[str]  # the first word of each log line
    title: ClassVar[str]  # of the training, in errors
    label: ClassVar[str] = ""  # before a checkpoint's name, in errors
    remedy: ClassVar[str]  # of a checkpoint of other settings
    may_differ: ClassVar[tuple[str, ...]] = ()  # what a resumed training need not agree with, by dotted name
    timed_history: ClassVar[bool] = False  # whether a row of the history has the time of day

    run: Storage  # the run's folder
    train: TrainSettings

    @property
    @abstractmethod
    def folder(self) -> Storage:
        """Where the history, the live row and a request to stop are."""

    @property
    @abstractmethod
    def checkpoints(self) -> Storage:
        """Where the checkpoints are."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """The step that ends the training."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What a checkpoint notes of its training, and a resumed one must agree with."""

    def noted(self, manifest: Manifest, where: str) -> dict[str, Any]:
        """What a checkpoint has noted, in the form of `about`, whichever version wrote it.

        Raises:
            CheckpointError: If it is no checkpoint of such a training.
        """
        return dict(manifest.about)

    @abstractmethod
    def initial_state(self, data: Examples) -> AnyState:
        """The state before the first step, on the CPU."""

    @abstractmethod
    def reports(
        self, data: Examples, state: AnyState, report_due: Callable[[int], bool], rank: int, workers: int
    ) -> Iterator[Report[AnyState]]:
        """Train in place from `state.step` to `steps`, as worker `rank` of so many; a report where one is due.

        Raises:
            Diverged: If a metric of a reported step is not finite.
        """

    @abstractmethod
    def progress_line(self, row: Mapping[str, Any]) -> str:
        """A report's step and metrics, for people."""
