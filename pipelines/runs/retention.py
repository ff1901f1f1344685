"""Retention after a successful run: older runs like it, the decoded images that only they read, and older versions."""

import contextlib
import re
from collections.abc import Callable
from typing import Any

from gan_core.errors import GanError
from gan_core.manifest import MALFORMED
from pipelines.registry import Registry, mlflow_client
from pipelines.registry.retention import needed, prune
from pipelines.runs import status
from pipelines.runs.recorded_run import run_names
from pipelines.runs.run import Run
from pipelines.storage import image_cache

# A name, and the date, number or digest that makes it one of many: nightly-2026-11-24, digits-1a2b3c4d, mine_3.
ONE_OF_MANY = re.compile(r"(?:(.*?)[-_.=])??(?:[0-9a-f]{8}|\d[\d._=-]*)")


def apply_retention(run: Run, uri: str, log: Callable[[str], None], log_warning: Callable[[str], None]) -> None:
    """Remove what is more than the run's settings keep. That it cannot be done is said, and is no failure of the run.

    The registry is asked for all that protects a run or a version before the first of them goes.
    """
    settings, model = run.configuration.retention, run.configuration.registry.model
    if settings.keep_runs is None and settings.keep_versions is None:
        return
    removed = 0
    try:
        with mlflow_client.without_waiting():
            registry = Registry(uri)
            surplus = [] if settings.keep_runs is None else surplus_runs(run, settings.keep_runs, registry)
            if settings.keep_versions is not None and (gone := prune(registry, model, settings.keep_versions)):
                removed += len(gone)
                log(f"prune  deleted {', '.join(map(str, gone))}; the newest {settings.keep_versions} are kept")
        for one in surplus:
            if status.remove(Run.open(one["run"], run.storage)):
                removed += 1
                log(f"prune  removed run {one['run']}, {status.bytes_text(one['bytes'])}")
        for unread in (
            image_cache.remove_unread(run.storage, run_names(run.storage)) if settings.keep_runs is not None else ()
        ):
            removed += 1
            log(f"prune  removed rows {unread.rows}, which no run reads, {status.bytes_text(unread.bytes)}")
    except (GanError, *MALFORMED) as error:  # whatever is wrong with the registry's answers
        log_warning(f"prune  {'not finished' if removed else 'nothing was removed'} after {run.name}: {error}")


def surplus_runs(run: Run, keep: int, registry: Registry) -> list[dict[str, Any]]:
    """Runs like this one to remove: all but the `keep` newest that are done, and but the `keep` newest that are not.

    One that is not done can be resumed until so many newer ones are not done either. Never among them are
    this run itself, an active one and one whose version a registry needs, or may need.
    """
    model = run.configuration.registry.model
    needed_runs = status.runs_of(registry, model, needed(registry, model)) | {run.name}
    protection = status.Protection(registry.uri, registry, needed_runs)
    states: dict[str, list[Run]] = {"done": [], "stopped": [], "running": []}
    for other, state in like(run):
        states[state].append(other)
    chosen = [
        one
        for state in ("done", "stopped")
        for one in status.prunable(states[state], status.PruneCriteria(keep=keep), protection)
    ]
    return [one for one in chosen if not one["kept"]]


def like(run: Run) -> list[tuple[Run, str]]:
    """The storage's runs of the same family and model, this one among them, with their states; not what cannot be read."""
    found = []
    for name in run_names(run.storage):
        if family(name) == family(run.name):
            with contextlib.suppress(GanError):
                other = Run.open(name, run.storage)
                if other.configuration.registry.model == run.configuration.registry.model:
                    found.append((other, str(status.status(other)["state"])))
    return found


def family(name: str) -> str:
    """A run's name without the date, number or digest at its end."""
    found = ONE_OF_MANY.fullmatch(name)
    return found[1] or "" if found else name
