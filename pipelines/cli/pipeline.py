"""Pipeline commands: run, tune, train, register, report."""

import os
import signal
from typing import TYPE_CHECKING, Any

import click

from gan_core.errors import ConfigurationError
from pipelines.cli.context import Context, common, configured, open_run
from pipelines.cli.outcome import emit

if TYPE_CHECKING:
    from pipelines.flow import Pipeline

continuing = click.option(
    "--continue-from", metavar="REF",
    help="Go on from a run's state, for more steps, or start with the generator of NAME@ALIAS or NAME/VERSION;"
    " with network.generator.pretrained_layers, put new layers before either's.",
)  # fmt: skip


@click.command()
@continuing
@click.option(
    "--skip-unchanged", is_flag=True,
    help="Do nothing if the model's newest version was made from the same data and settings, its seed apart.",
)  # fmt: skip
@configured
def run(
    context: Context,
    configuration: str,
    overrides: tuple[str, ...],
    name: str | None,
    dry_run: bool,
    continue_from: str | None,
    skip_unchanged: bool,
) -> None:
    """Search, train, evaluate, register and report, each once: the same command again resumes.

    With extension.name=inference, a net that gives the z of an image is trained after G, and registered beside it.

    \b
    Examples:
      gan run configs/digits.yaml
      gan run configs/digits.yaml --set algorithm.steps=500 --set tune.candidates=0 --json
      gan run configs/digits.yaml --continue-from digits-1a2b3c4d --set algorithm.steps=5000
      gan run configs/tfd.yaml --continue-from tfd-pretrain --set data.fold=3
      gan run configs/digits.yaml --set extension.name=inference
    """
    _make(
        context, configuration, overrides, name=name, dry_run=dry_run, continue_from=continue_from,
        skip_unchanged=skip_unchanged,
    )  # fmt: skip


@click.command()
@configured
def tune(context: Context, configuration: str, overrides: tuple[str, ...], name: str | None, dry_run: bool) -> None:
    """Search only; `gan run` with the same arguments goes on from it.

    A search that was killed resumes. One that is finished and not trained yet can be given more candidates.

    \b
    Examples:
      gan tune configs/digits.yaml --name mine
      gan tune configs/digits.yaml --name mine --set tune.candidates=12 --json
      gan tune configs/digits.yaml --set tune.searcher=tpe --set tune.scheduler=asha --set tune.time_budget_s=60
    """
    _make(context, configuration, overrides, ("tune",), name=name, dry_run=dry_run)


@click.command()
@continuing
@configured
def train(
    context: Context,
    configuration: str,
    overrides: tuple[str, ...],
    name: str | None,
    dry_run: bool,
    continue_from: str | None,
) -> None:
    """Train with the configuration's own settings, without a search.

    \b
    Examples:
      gan train configs/digits.yaml --set train.workers=1 --set train.virtual_shards=2 --json
      gan train configs/digits.yaml --continue-from gan-digits@champion
    """
    _make(
        context, configuration, (*overrides, "tune.candidates=0"), ("train",), name=name, dry_run=dry_run,
        continue_from=continue_from,
    )  # fmt: skip


@click.command()
@click.argument("name", metavar="RUN")
@common
def register(context: Context, name: str) -> None:
    """Register a run that was evaluated, if it is not registered yet.

    \b
    Example:
      gan register digits-1a2b3c4d --tracking-uri http://mlflow:5000
    """
    _finish(context, name, ("register", "report"))


@click.command()
@click.argument("name", metavar="RUN")
@common
def report(context: Context, name: str) -> None:
    """Write a run's page of scores, pictures and curves.

    \b
    Example:
      gan report digits-1a2b3c4d
    """
    _finish(context, name, ("report",))


def _make(
    context: Context,
    configuration: str,
    overrides: tuple[str, ...],
    stages: tuple[str, ...] | None = None,
    **how: Any,
) -> None:
    """Do these stages of the configuration's run, or all that it has."""
    from pathlib import Path

    if Path(configuration).is_file():
        context.log(f"run    reading {configuration}")  # importing torch takes seconds
    from pipelines import config

    settings, overridden = config.load(configuration, overrides), [text.partition("=")[0] for text in overrides]
    if stages == ("tune",) and not settings.tune.candidates:
        expected = "1 or more, and tune.space: --set tune.candidates=8"
        raise ConfigurationError("nothing to search", configuration, "tune.candidates is 0", expected)
    pipeline = _pipeline(context)
    emit(context, pipeline.run(settings, Path(configuration).stem, stages=stages, overridden=overridden, **how))


def _finish(context: Context, name: str, stages: tuple[str, ...]) -> None:
    """Do the last stages of a run that is in the storage."""
    run = open_run(context, name)
    emit(context, _pipeline(context).finish(run, stages))


def _pipeline(context: Context) -> "Pipeline":
    from pipelines.flow import Pipeline

    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        context.log(f"run    Ctrl-C is ignored, as a shell asks of a background job: kill {os.getpid()} ends it")
    return Pipeline(context.storage, context.tracking_uri, context.log, context.log_warning, context.watching)
