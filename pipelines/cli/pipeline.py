"""Commands that make: run, tune, train, register, report."""

from typing import Any

import click

from gan_core.errors import ConfigurationError
from pipelines.cli.context import Context, common, configured, open_run
from pipelines.cli.outcome import Work, collapsed, result_of, summary_of, tell_promotion, telling

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
    _make(context, configuration, overrides, name, None, dry_run, continue_from, skip_unchanged)


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
    from pipelines import config

    settings = config.load(configuration, overrides)
    if not settings.tune.candidates:
        raise ConfigurationError(
            "nothing to search",
            configuration,
            "tune.candidates is 0",
            "1 or more, and tune.space: --set tune.candidates=8",
        )
    _make(context, configuration, overrides, name, ("tune",), dry_run)


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
    _make(context, configuration, (*overrides, "tune.candidates=0"), name, ("train",), dry_run, continue_from)


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
    name: str | None,
    stages: tuple[str, ...] | None,
    dry_run: bool,
    continue_from: str | None = None,
    skip_unchanged: bool = False,
) -> None:
    """Do these stages of the configuration's run, or all that it has, and tell whom it names if that fails."""
    from pathlib import Path

    from pipelines import config

    settings, stem = config.load(configuration, overrides), Path(configuration).stem
    with telling(context, settings.notify, name or stem, dry_run) as work:
        run = _new_run(context, settings, stem, overrides, name, continue_from)
        work.run = run.name
        _work(context, run, stages or run.stages, work, dry_run, skip_unchanged)


def _finish(context: Context, name: str, stages: tuple[str, ...]) -> None:
    """Do the last stages of a run that is in the storage."""
    run = open_run(context, name)
    with telling(context, run.configuration.notify, name) as work:
        _work(context, run, stages, work)


def _new_run(
    context: Context, settings: Any, stem: str, overrides: tuple[str, ...], name: str | None, continue_from: str | None
) -> Any:
    from pipelines.runs import warm_start
    from pipelines.runs.run import Run

    if continue_from is None:
        return Run.create(settings, stem, name, context.storage)
    known, tensors = warm_start.recorded(continue_from, name, context.storage), None
    if known is None:
        known, tensors = warm_start.find(continue_from, context.storage, context.tracking_uri, settings)
    settings = warm_start.adapt(settings, known, {text.partition("=")[0] for text in overrides})
    run = Run.create(settings, stem, name, context.storage, known)
    run.origin_tensors = tensors
    return run


def _work(
    context: Context, run: Any, stages: tuple[str, ...], work: Work, dry_run: bool = False, skip_unchanged: bool = False
) -> None:
    """Do the stages that are not done, and show the result."""
    from pipelines.flow import Flow
    from pipelines.registry import mlflow_client
    from pipelines.runs.retention import tidy
    from pipelines.runtime import notifications, ray_session

    for obstacle in notifications.obstacles(run.configuration.notify):
        context.warn(f"notify {obstacle}: nobody would be told of the run's end")
    tracked = bool({"register", "report"} & set(stages))
    flow = Flow(run, context.tracking_uri() if tracked else "", context.say)
    ray_session.check_resources(run.configuration)
    flow.check()
    if skip_unchanged and run.folder.read("run.json") is None and (same := flow.unchanged()) is not None:
        context.answer(
            {"run": run.name, "skipped": True, "model": same.name, "version": same.version},
            f"{run.name} is skipped: data and settings are those of {same}, the newest version",
        )
        return
    done = [stage for stage in stages if run.record(stage) is not None]
    if dry_run:
        plan = {
            "run": run.name,
            "stages": list(stages),
            "done": done,
            "storage": run.folder.uri,
            "tracking_uri": mlflow_client.redacted(flow.uri),
        }
        context.answer(
            plan,
            f"{run.name}: would do {', '.join(s for s in stages if s not in done) or 'nothing'} in {run.folder.uri}",
        )
        return
    with flow.working() as free:
        if not free:
            context.answer(
                {"run": run.name, "state": "running"},
                f"{run.name} is being worked on by another process; nothing to do here",
            )
            return
        context.say(f"run    {run.name} in {run.folder.uri}")
        if tracked:
            flow.prepare_registry()
        for stage in stages:
            work.stage = stage
            getattr(flow, stage)()
    already = " was done already" if len(done) == len(stages) else ""
    result = result_of(run, stages)
    if "evaluate" in stages and not already:
        tidy(run, flow.uri, context.say, context.warn)
    if result.get("promoted") and "register" not in done:
        tell_promotion(context, run.configuration.notify, work, result)
    failure = None
    if (registered := run.record("register")) and "register" in stages and registered["collapsed"]:
        failure = collapsed(f"{registered['model']}/{registered['version']}", registered["reason"])
    context.answer(result, summary_of(run, stages, already), failure)
