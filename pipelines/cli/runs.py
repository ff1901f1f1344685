"""Commands on runs: list, status."""

from typing import Any

import click

from pipelines.cli.context import Context, ListByDefault, common, open_run


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
