"""Commands on runs: list, status, stop, compare, prune."""

from dataclasses import asdict
from typing import Any

import click

from gan_core.errors import CheckpointError, RegistryError, visible
from pipelines.cli.context import Context, ListByDefault, check_output, common, open_run, write_output


@click.group(cls=ListByDefault)
def runs() -> None:
    """Look runs up, watch one, stop one, compare some, remove old ones.

    \b
    Examples:
      gan runs list
      gan runs status digits-1a2b3c4d --json
      gan runs watch digits-1a2b3c4d
      gan runs prune --older-than 30d --state done
    """


@runs.command("list")
@common
def runs_list(context: Context) -> None:
    """All runs of the storage, with how far each has come.

    \b
    Example:
      gan runs list --json
    """
    from pipelines.runs import status

    found = status.entries(context.storage)
    if not found:
        context.log(f"no runs in {context.storage.uri}")
    context.emit_result({"runs": [run for run, _ in found]}, "\n".join(line for _, line in found))


@runs.command("status")
@click.argument("name", metavar="RUN")
@common
def runs_status(context: Context, name: str) -> None:
    """One run: its stages, the step it is at, how fast it trains and how long it still will.

    \b
    Example:
      gan runs status digits-1a2b3c4d
    """
    from pipelines.runs import status
    from pipelines.runs.recorded_run import RecordedRun

    found = status.status(RecordedRun(name, context.storage))
    lines = [f"{key:<18} {_shown(value)}" for key, value in found.items() if value is not None]
    context.emit_result(found, "\n".join(lines))


@runs.command("stop")
@click.argument("name", metavar="RUN")
@click.option(
    "--timeout", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Seconds to wait for its end."
)
@common
def runs_stop(context: Context, name: str, timeout: float) -> None:
    """Let a running run save a checkpoint and end, on whatever machine it runs; the same command resumes it.

    \b
    Example:
      gan runs stop digits-1a2b3c4d --timeout 120
    """
    from pipelines.runs import run_lease, status

    run = open_run(context, name)
    running = run_lease.owner(run.folder) is not None
    if running and not run_lease.request_stop(run.folder, timeout):
        raise CheckpointError(
            "still running", name, f"not ended {timeout:g} s after it was asked to", "patience: gan runs status"
        )
    step = status.saved_step(run)
    saved = f"step {step} is saved" if step is not None else "no checkpoint yet"
    context.emit_result(
        {"run": name, "stopped": running, "state": status.status(run)["state"], "saved_step": step},
        f"{name} {'has stopped' if running else 'was not running'}; {saved}",
    )


@runs.command("compare")
@click.argument("names", metavar="RUN RUN...", nargs=-1, required=True)
@click.option("--html", "page", metavar="FILE.html", help="Write a page with samples and curves beside them.")
@common
def runs_compare(context: Context, names: tuple[str, ...], page: str | None) -> None:
    """The settings in which runs differ, and their scores, side by side.

    \b
    Examples:
      gan runs compare digits-1a2b3c4d digits-5e6f7a8b
      gan runs compare digits-1a2b3c4d digits-5e6f7a8b --html compare.html
    """
    from pipelines.runs import status

    if len(names) < 2:
        raise click.UsageError("give two runs or more")
    if page is not None:
        check_output(page, (".html",))
    opened = [open_run(context, name) for name in names]
    found = status.compare(opened)
    if page is not None:
        from pipelines.reporting.comparison import comparison_page

        write_output(page, comparison_page(opened, found).encode())
        found = {**found, "page": page}
        context.log(f"wrote {page}")
    rows = [("", *names)]
    for part in ("settings", "scores"):
        rows += [(name, *map(_shown, values)) for name, values in found[part].items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    context.emit_result(found, "\n".join(lines))


@runs.command("prune")
@click.option("--older-than", metavar="TIME", help="Runs of which nothing was written for so long: 12h, 30d, 8w.")
@click.option("--keep", type=click.IntRange(min=0), help="All but so many of the newest.")
@click.option("--state", type=click.Choice(["stopped", "done"]), help="Only runs in this state.")
@click.option("--yes", is_flag=True, help="Remove them; without it, say which would go.")
@common
def runs_prune(context: Context, older_than: str | None, keep: int | None, state: str | None, yes: bool) -> None:
    """Remove the folders of runs that every given condition names; never one that runs or whose version holds an alias.

    A registry that does not answer is asked in vain, and nothing is removed; what cannot be read is kept.
    With the runs go rows of streamed images that no run reads any more.

    \b
    Examples:
      gan runs prune --older-than 30d --state stopped
      gan runs prune --keep 10 --yes
    """
    from pipelines.registry import mlflow_client
    from pipelines.runs import status
    from pipelines.runs.run import Run

    leaving = status.PruneCriteria(status.seconds(older_than) if older_than else None, keep, state)
    entries = [entry for entry, _ in status.entries(context.storage, Run.open)]
    unreadable = [entry for entry in entries if entry["state"] == "unreadable"]
    runs = [Run.open(entry["run"], context.storage) for entry in entries if entry["state"] != "unreadable"]
    try:
        with mlflow_client.without_waiting():
            protection = status.Protection.ask(context.tracking_uri(), context.storage)
            chosen = status.prunable(runs, leaving, protection)
    except RegistryError as error:
        raise RegistryError("nothing was removed", "gan runs prune", str(error)) from error
    if protection.registry is None:
        context.log(f"no registry in {context.storage.uri} yet: no version holds an alias")
    for entry in unreadable:
        context.log(f"{visible(entry['run']):<40} kept: {entry['reason']}")
    for one in chosen:
        if yes and not one["kept"] and not status.remove(open_run(context, one["run"])):
            one["kept"] = "running"
        fate = f"kept: {one['kept']}" if one["kept"] else "removed" if yes else "would go"
        context.show(f"{one['run']:<40} {one['state']:<8} {status.bytes_text(one['bytes']):>9}  {fate}")
    gone = {one["run"] for one in chosen if not one["kept"]}
    unread = _prune_images(context, gone, leaving.older_than, yes)
    freed = sum(one["bytes"] for one in chosen if not one["kept"]) + sum(images.bytes for images in unread)
    context.emit_result(
        {
            "runs": chosen,
            "rows": list(map(asdict, unread)),
            "bytes": freed,
            "removed": yes,
            "registry_asked": protection.registry is not None,
            "unreadable": unreadable,
        },
        f"{status.bytes_text(freed)} {'freed' if yes else 'would be freed; --yes does it'}",
    )


def _prune_images(context: Context, gone: set[str], older_than: float | None, yes: bool) -> list[Any]:
    """The decoded images that no run but those that are `gone` reads, removed if `yes`."""
    from pipelines.runs.recorded_run import run_names
    from pipelines.runs.status import bytes_text
    from pipelines.storage import image_cache

    readers = [name for name in run_names(context.storage) if name not in gone]
    unread = list((image_cache.remove_unread if yes else image_cache.unread)(context.storage, readers, older_than))
    for images in unread:
        fate = "removed" if yes else "would go"
        context.show(f"rows {images.rows:<35} {'unread':<8} {bytes_text(images.bytes):>9}  {fate}")
    return unread


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    return "-" if value is None else visible(value)
