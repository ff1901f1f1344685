"""Commands that make: run, tune, train, register, report."""

from typing import Any

import click

from gan_core.errors import ConfigurationError
from pipelines.cli.context import Context, common, configured, open_run

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

    \b
    Examples:
      gan run configs/digits.yaml
      gan run configs/digits.yaml --set algorithm.steps=500 --set tune.candidates=0 --json
      gan run configs/digits.yaml --continue-from digits-1a2b3c4d --set algorithm.steps=5000
    """
    _work(
        context,
        _new_run(context, configuration, overrides, name, continue_from),
        ("tune", "train", "evaluate", "register", "report"),
        dry_run,
        skip_unchanged,
    )


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
    _work(context, _new_run(context, configuration, overrides, name), ("tune",), dry_run)


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
    run = _new_run(context, configuration, (*overrides, "tune.candidates=0"), name, continue_from)
    _work(context, run, ("train",), dry_run)


@click.command()
@click.argument("name", metavar="RUN")
@common
def register(context: Context, name: str) -> None:
    """Register a run that was evaluated, if it is not registered yet.

    \b
    Example:
      gan register digits-1a2b3c4d --tracking-uri http://mlflow:5000
    """
    _work(context, open_run(context, name), ("register", "report"), dry_run=False)


@click.command()
@click.argument("name", metavar="RUN")
@common
def report(context: Context, name: str) -> None:
    """Write a run's page of scores, pictures and curves.

    \b
    Example:
      gan report digits-1a2b3c4d
    """
    _work(context, open_run(context, name), ("report",), dry_run=False)


def _new_run(
    context: Context, configuration: str, overrides: tuple[str, ...], name: str | None, continue_from: str | None = None
) -> Any:
    from pathlib import Path

    from pipelines import config, origin
    from pipelines.run import Run

    settings, stem = config.load(configuration, overrides), Path(configuration).stem
    if continue_from is None:
        return Run.create(settings, stem, name, context.storage)
    known, tensors = origin.recorded(continue_from, name, context.storage), None
    if known is None:
        known, tensors = origin.find(continue_from, context.storage, context.tracking_uri, settings)
    settings = origin.adapt(settings, known, {text.partition("=")[0] for text in overrides})
    run = Run.create(settings, stem, name, context.storage, known)
    run.origin_tensors = tensors
    return run


def _work(context: Context, run: Any, stages: tuple[str, ...], dry_run: bool, skip_unchanged: bool = False) -> None:
    """Do the stages that are not done, and show the result."""
    from pipelines import session, tracking
    from pipelines.flow import Flow

    tracked = bool({"register", "report"} & set(stages))
    flow = Flow(run, context.tracking_uri() if tracked else "", context.say)
    session.check_resources(run.configuration)
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
            "tracking_uri": tracking.redacted(flow.uri),
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
            getattr(flow, stage)()
    already = " was done already" if len(done) == len(stages) else ""
    context.answer(_result(run, stages), _summary(run, stages, already))


def _result(run: Any, stages: tuple[str, ...]) -> dict[str, Any]:
    records = run.records()
    if stages == ("train",):
        return {
            key: records["train"][key] for key in ("run", "step", "checkpoint", "weights_sha256", "generator_sha256")
        }
    if stages == ("tune",):
        return {"run": run.name, **records["tune"]}
    score, registered = records.get("evaluate", {}), records.get("register", {})
    names = ("log_likelihood", "standard_error", "sigma", "coverage")
    return {
        "run": run.name,
        **{key: registered.get(key) for key in ("model", "version", "alias", "promoted", "reason")},
        **{key: score.get(key) for key in names},
        "report": records.get("report", {}).get("report"),
    }


def _summary(run: Any, stages: tuple[str, ...], already: str) -> str:
    result = _result(run, stages)
    lines = [f"done   {run.name}{already}"]
    if "log_likelihood" in result and result["log_likelihood"] is not None and "sigma" in result:
        lines.append(
            f"       {result['log_likelihood']:.1f} ± {result['standard_error']:.1f} nats (Parzen, test set, sigma {result['sigma']:.4f}), "
            f"coverage {result['coverage']:.2f}"
        )
        if result["model"]:
            lines.append(f"       {result['model']}/{result['version']} is {result['alias']}: {result['reason']}")
        lines.append(f"       {result['report']}")
    elif "weights_sha256" in result:
        lines.append(f"       step {result['step']}, weights {result['weights_sha256'][:12]}, {result['checkpoint']}")
    elif "chosen" in result:
        lines.append(f"       chosen: {', '.join(f'{key} {value}' for key, value in result['chosen'].items())}")
    return "\n".join(lines)
