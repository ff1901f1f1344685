"""Commands that look up: models, runs."""

from typing import Any

import click

from pipelines.cli.context import Context, common, open_run


class ListByDefault(click.Group):
    """A group that lists when it is told nothing else."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Put `list` before options that are its own."""
        asks_for_list = not args or (args[0].startswith("-") and args[0] not in context.help_option_names)
        return super().parse_args(context, ["list", *args] if asks_for_list else args)


@click.group(cls=ListByDefault)
def models() -> None:
    """Look registered models up.

    \b
    Examples:
      gan models
      gan models show gan-digits@champion --json
    """


@models.command("list")
@common
def models_list(context: Context) -> None:
    """All versions of all models.

    \b
    Example:
      gan models list --json
    """
    from pipelines.registry import Registry

    registry = Registry(context.tracking_uri())
    versions = [version.to_json() for name in registry.models() for version in registry.versions(name)]
    lines = [
        f"{v['name']}/{v['version']:<4} {','.join(v['aliases']) or '-':<22} {v['metrics'].get('log_likelihood', float('nan')):8.1f} nats  "
        f"coverage {v['metrics'].get('coverage', float('nan')):.2f}  run {v['tags'].get('run', '-')}"
        for v in versions
    ]
    context.answer({"models": versions}, "\n".join(lines) or "no registered models")


@models.command("show")
@click.argument("reference", metavar="REF")
@common
def models_show(context: Context, reference: str) -> None:
    """One version: NAME@ALIAS or NAME/VERSION.

    \b
    Example:
      gan models show gan-digits@champion --json
    """
    from pipelines.registry import Registry

    version = Registry(context.tracking_uri()).resolve(reference).to_json()
    lines = [f"{version['name']}/{version['version']}  {', '.join(version['aliases'])}"]
    lines += [f"  {key:<24} {value}" for key, value in sorted(version["tags"].items()) if key != "metrics"]
    context.answer(version, "\n".join(lines))


@click.group(cls=ListByDefault)
def runs() -> None:
    """Look runs up.

    \b
    Examples:
      gan runs list
      gan runs status digits-1a2b3c4d --json
    """


@runs.command("list")
@common
def runs_list(context: Context) -> None:
    """All runs of the storage, with how far each has come.

    \b
    Example:
      gan runs list --json
    """
    from pipelines.run import Run, run_names

    found = [_status(Run.open(name, context.storage)) for name in run_names(context.storage)]
    lines = [
        f"{run['run']:<40} {run['state']:<10} {'' if run['log_likelihood'] is None else format(run['log_likelihood'], '.1f') + ' nats'}"
        for run in found
    ]
    context.answer({"runs": found}, "\n".join(lines) or f"no runs in {context.storage.uri}")


@runs.command("status")
@click.argument("name", metavar="RUN")
@common
def runs_status(context: Context, name: str) -> None:
    """One run: its stages, and the last step it has shown.

    \b
    Example:
      gan runs status digits-1a2b3c4d
    """
    status = _status(open_run(context, name))
    lines = [f"{key:<16} {value}" for key, value in status.items() if value is not None]
    context.answer(status, "\n".join(lines))


def _status(run: Any) -> dict[str, Any]:
    from pipelines.run import STAGES

    records = run.records()
    live = run.folder.read_json("live.json") or {}
    with run.folder.exclusively() as free:
        state = "done" if "report" in records else "stopped" if free else "running"
    return {
        "run": run.name,
        "state": state,
        "stages": [stage for stage in STAGES if stage in records],
        "step": records.get("train", {}).get("step", live.get("step")),
        "steps": run.configuration.algorithm.steps,
        "log_likelihood": records.get("evaluate", {}).get("log_likelihood"),
        "report": records.get("report", {}).get("report"),
    }
