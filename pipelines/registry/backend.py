"""What a registry has to offer, as Protocols: models with versions, tags and aliases, and runs with metrics and files."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from pipelines.registry.mlflow_backend import MlflowBackend
from pipelines.registry.model_version import ModelVersion, RegisteredModel
from pipelines.registry.tracked_run import ChildRun, RunSource, SamplePicture
from pipelines.storage import Storage

if TYPE_CHECKING:
    from gan_core.datasets import Dataset


class ModelReader(Protocol):
    """Named models with numbered versions; both carry tags, and a model's aliases are each on one of its versions.

    Names may be any text. Each method raises RegistryError, one line without credentials, if the registry refuses or
    does not answer, or if the answer cannot be true (`implausible_answer`): what it leaves out would count as not there.
    """

    uri: str

    def models(self) -> list[str]:
        """The names of all models, sorted."""

    def model(self, name: str) -> RegisteredModel | None:
        """A model's aliases and tags, read at once; None if there is no such model."""

    def versions(self, name: str | None = None, tag: tuple[str, str] | None = None) -> list[ModelVersion]:
        """All versions of one model or of all, with this tag and value if given, by name and then newest first."""

    def version(self, name: str, number: int) -> ModelVersion | None:
        """One version; None if there is none."""


class ModelStore(ModelReader, Protocol):
    """The same, to be written.

    A write needs no compare-and-set and no transaction: `Lease` orders writers by a model's tags alone, so what one
    process has written the next read of any other has to see. Errors as of `ModelReader`.
    """

    def create_model(self, name: str, description: str = "") -> None:
        """Create a model, unless it is there."""

    def create_version(
        self, name: str, source: str, tags: Mapping[str, str], run_id: str | None = None, description: str = ""
    ) -> None:
        """Create a version with its tags, in one request sent once: after an error it may be there all the same."""

    def show_version(self, version: ModelVersion, run_id: str, metrics: Mapping[str, float], time_ms: int) -> None:
        """Where the registry has a page for a source: say there which version it is, and its numbers of this time."""

    def delete_version(self, name: str, number: int) -> None:
        """Delete a version, whose number is never used again; its files stay."""

    def set_version_tag(self, name: str, number: int, tag: str, value: str) -> None:
        """Set a tag of a version."""

    def set_alias(self, name: str, alias: str, number: int) -> None:
        """Put an alias on a version; it leaves the one it was on."""

    def set_tag(self, name: str, tag: str, value: str) -> None:
        """Set a tag of a model."""

    def delete_tag(self, name: str, tag: str) -> None:
        """Remove a tag of a model, if it is there."""

    def upload(self, run_id: str, save: Callable[[Path], object], image_shape: Sequence[int]) -> str:
        """Keep the folder of files that `save` writes, and return the source to create a version with."""

    def download(self, source: str, names: Sequence[str], folder: Path) -> None:
        """Copy these files of a source to somewhere below a folder, and execute nothing of them."""

    def delete_files(self, source: str) -> None:
        """Delete a source's files."""


class RunStore(Protocol):
    """Runs in named experiments. Each write can be repeated, which changes nothing; errors as of `ModelStore`."""

    def experiment(self, name: str, artifacts: Storage | None) -> str:
        """The id of an experiment, created if it is not there; its files go to `artifacts` where a client decides."""

    def run(
        self, experiment: str, name: str, tags: Mapping[str, str], parent: str | None = None,
        source: RunSource | None = None, started_ms: int | None = None,
    ) -> str:  # fmt: skip
        """The id of the experiment's run with these tags: the one there is, or a new one of this name.

        A new one is by the user who runs this, and began at `started_ms` (milliseconds since 1970), else now.
        """

    def describe_run(self, run_id: str, parameters: Mapping[str, Any], dataset: "Dataset", note: str) -> None:
        """A run's parameters, those that it has left as they are, the data set it was trained on, and a note."""

    def log_children(
        self, experiment: str, parent: str, children: Sequence[ChildRun], source: RunSource | None = None
    ) -> None:
        """Runs inside another, in three requests each; those that are there and finished are left as they are."""

    def log_pictures(self, run_id: str, name: str, pictures: Sequence[SamplePicture]) -> None:
        """Pictures of one kind over a run's steps, two files each; those that are there are left as they are."""

    def log_metrics(self, run_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Numbers by name, each row of a `step`, measured at its `time_ms` or else at the run's start."""

    def log_files(self, run_id: str, files: Mapping[str, bytes]) -> None:
        """Files by name."""

    def end_run(self, run_id: str, status: str = "FINISHED", ended_ms: int | None = None) -> None:
        """The run's end, at this time (milliseconds since 1970), else now."""


class Backend(ModelStore, RunStore, Protocol):
    """A registry, opened by its URI."""

    @classmethod
    def open(cls, uri: str, create: bool = False) -> Self:
        """Open what is there; with `create`, it is made if it is not.

        Raises:
            RegistryError: If it cannot be reached, or is not there.
        """

    @classmethod
    def check_ready(cls, uri: str, experiment: str) -> None:
        """Refuse what the end of a run could not be registered with; nothing is written.

        Raises:
            RegistryError, CheckpointError: If so.
        """

    @classmethod
    def contents(cls, uri: str) -> tuple[str, list[str]] | None:
        """How many models there are and which experiments are in the trash; None if there is no registry yet.

        Raises:
            RegistryError: If it cannot be reached or used.
        """


# By the scheme of the URI; MLflow, which has many, takes all others.
BACKENDS: dict[str, type[Backend]] = {}


def backend_of(uri: str) -> type[Backend]:
    """The kind of registry at a URI."""
    return BACKENDS.get(uri.partition(":")[0], MlflowBackend)
