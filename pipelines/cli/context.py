"""What every command shares: its options, how it answers, how it finds a run or a model."""

import contextlib
import functools
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gan_core.errors import CheckpointError, ConfigurationError, GanError, visible
from pipelines.cli.terminal import is_live, wrapped

if TYPE_CHECKING:
    import numpy as np

    from pipelines.cli.live_display import LiveDisplay
    from pipelines.storage import Storage


class Context:
    """What is the same for every command: how to speak, and where things are."""

    def __init__(self, place: str, given_uri: str | None, as_json: bool, quiet: bool) -> None:
        self.place, self.given_uri = place, given_uri
        self.as_json, self.quiet = as_json, quiet
        self.display: LiveDisplay | None = None  # of the run that is worked on, on a terminal

    @functools.cached_property
    def storage(self) -> "Storage":
        """Where runs are kept."""
        from pipelines.storage import Storage

        return Storage.at(self.place)

    def tracking_uri(self) -> str:
        """The MLflow server or database."""
        from pipelines.registry import address

        return address.tracking_uri(self.given_uri, self.storage)

    def log(self, text: str) -> None:
        """Progress and notes for people, on stderr."""
        if not self.quiet:
            self.log_warning(text)

    def log_warning(self, text: str) -> None:
        """What people should know even where they asked for quiet."""
        if self.display is not None:
            self.display.log(harmless(text))
        else:
            click.echo(wrapped(harmless(text), sys.stderr), err=True)

    @contextlib.contextmanager
    def watching(self, run: Any, stages: tuple[str, ...], current: Callable[[], str]) -> Iterator[None]:
        """Show, on a terminal, how a run goes on while the block works on it, and on its `current` stage."""
        if self.quiet or not is_live():
            yield
            return
        from pipelines.cli.live_display import LiveDisplay
        from pipelines.runs.observation import RunObserver
        from pipelines.runs.recorded_run import RecordedRun

        with LiveDisplay(RunObserver(RecordedRun(run.name, self.storage), stages, current)).shown() as self.display:
            try:
                yield
            finally:
                self.display = None

    def trouble(self, error: GanError, wait: float) -> None:
        """A failure that is not the end."""
        self.log(f"{error}; looking again in {wait:g} s")

    def show(self, text: str) -> None:
        """A line of the result as soon as it is known; progress with --json, whose object will say it too."""
        if self.as_json:
            self.log(text)
        else:
            click.echo(wrapped(harmless(text), sys.stdout))

    def emit_result(self, result: Any, text: str, failure: GanError | None = None) -> None:
        """The result, on stdout, in quiet too: one JSON object as the last line, or text for people.

        Raises:
            GanError: `failure`, for a result that is one as well: `main` prints both as one object.
        """
        if self.as_json and failure is None:
            click.echo(json.dumps(result))
        elif text and not self.as_json:
            click.echo(wrapped(harmless(text), sys.stdout))
        if failure is not None:
            failure.result = result
            raise failure


def harmless(text: str) -> str:
    """Lines for people, in which others may have written: a terminal obeys nothing but their ends."""
    return "\n".join(map(visible, text.split("\n")))


class ListByDefault(click.Group):
    """A group that lists when it is told nothing else."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Put `list` before options that are its own."""
        asks_for_list = not args or (args[0].startswith("-") and args[0] not in context.help_option_names)
        return super().parse_args(context, ["list", *args] if asks_for_list else args)


def common(command: Callable[..., None]) -> Callable[..., None]:
    """The options every command has."""
    options = [
        click.option("--storage", metavar="URI", envvar="GAN_STORAGE", default="gan-storage", show_default=True, help="Where runs are kept: a path, or a URI such as s3://bucket/folder."),
        click.option("--tracking-uri", metavar="URI", help="MLflow server or database  [default: MLFLOW_TRACKING_URI, or mlflow.db in the storage]."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line of stdout."),
        click.option("--debug", is_flag=True, help="Show a traceback with an error."),
        click.option("-q", "--quiet", is_flag=True, help="Say nothing while working."),
    ]  # fmt: skip

    @functools.wraps(command)
    def wrapped(
        storage: str, tracking_uri: str | None, as_json: bool, debug: bool, quiet: bool, **arguments: Any
    ) -> None:
        command(Context(storage, tracking_uri, as_json, quiet), **arguments)

    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def configured(command: Callable[..., None]) -> Callable[..., None]:
    """The arguments of commands that make a run from a configuration."""
    options = [
        click.argument("configuration", metavar="CONFIG"),
        click.option(
            "--set", "overrides", metavar="a.b=c", multiple=True, help="Replace a setting; can be given more than once."
        ),
        click.option(
            "--name", metavar="RUN", help="The run's name  [default: the file's name and the configuration's digest]."
        ),
        click.option("--dry-run", is_flag=True, help="Check everything and say what would be done."),
    ]
    for option in reversed(options):
        command = option(command)
    return common(command)


def open_run(context: Context, name: str) -> Any:
    """The run of this name in the storage."""
    from pipelines.runs.run import Run

    return Run.open(name, context.storage)


def load_model(context: Context, reference: str) -> Any:
    """The generator of a run, or of NAME@ALIAS or NAME/VERSION."""
    from pipelines.registry.reference import is_model_reference

    if is_model_reference(reference):
        from pipelines.registry import Registry

        registry = Registry(context.tracking_uri())
        return registry.load(registry.resolve(reference))
    return open_run(context, reference).generator()


def origin_run(context: Context, reference: str) -> Any:
    """The run of this name, or the one a registered version was made by, if it is in the storage."""
    from gan_core.errors import RegistryError
    from pipelines.registry import Registry
    from pipelines.registry.reference import is_model_reference

    if not is_model_reference(reference):
        return open_run(context, reference)

    name = Registry(context.tracking_uri()).resolve(reference).tags.get("run")
    if not name:
        raise RegistryError("not a model of ours", reference, "no run tag", "a version registered by gan")
    return open_run(context, name)


def load_dataset(context: Context, reference: str) -> Any:
    """The data set that a run or a registered model was trained on."""
    from pipelines.data.streaming import load

    run = origin_run(context, reference)
    return load(run.configuration.data, context.storage, context.log, run.name)


def check_output(output: str, suffixes: tuple[str, ...]) -> None:
    """Refuse, before any work, a file that could not be written.

    Raises:
        ConfigurationError: If its name ends otherwise, or its folder is not there.
    """
    path = Path(output)
    if path.suffix not in suffixes:
        raise ConfigurationError(
            "unknown kind of output", "--output", output, f"a name ending in {' or '.join(suffixes)}"
        )
    if not path.absolute().parent.is_dir():
        raise ConfigurationError("no such folder", "--output", output, "a file in a folder that exists")
    if path.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise ConfigurationError("cannot be written", "--output", output, "a file that may be written")


def write_output(output: str, content: bytes) -> None:
    """Write a file the user asked for.

    Raises:
        CheckpointError: If the disk refuses.
    """
    from gan_core.checkpoint import storage_error

    try:
        Path(output).write_bytes(content)
    except OSError as error:
        raise storage_error(Path(output), error, len(content)) from error


def write_array(output: str, shape: tuple[int, ...], parts: Iterable["np.ndarray"]) -> None:
    """Write a .npy file of float32 that the user asked for, part by part, whole or not at all.

    Raises:
        CheckpointError: If the disk has no room, or refuses.
    """
    import numpy as np

    from gan_core.checkpoint import storage_error

    path, wanted = Path(output).resolve(), 4 * math.prod(shape)
    whole = path.is_file() or not path.exists()  # else it is a device or a pipe, which nothing may take the place of
    written = path.with_name(f".{path.name}-{os.getpid()}") if whole else path
    if whole and (free := shutil.disk_usage(path.parent).free) < wanted:
        raise CheckpointError("disk full", output, f"{free:,} bytes free", f"{wanted:,}")
    try:
        with written.open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for part in parts:
                file.write(np.ascontiguousarray(part, dtype="<f4").data)
        if whole:
            os.replace(written, path)
    except OSError as error:
        raise storage_error(path, error, wanted) from error
    finally:
        if whole:
            written.unlink(missing_ok=True)
