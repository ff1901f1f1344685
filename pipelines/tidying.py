"""What goes when a run has succeeded: older runs like it, rows only they read, and older versions, as `retention` says."""

import contextlib
import re
from collections.abc import Callable, Iterator

from gan_core.errors import GanError
from pipelines import overview, rows
from pipelines.registry import Registry
from pipelines.registry.retention import needed, prune
from pipelines.run import Run, run_names

# A name, and the date, number or digest that makes it one of many: nightly-2026-11-24, digits-1a2b3c4d, mine_3.
ONE_OF_MANY = re.compile(r"(?:(.*?)[-_.=])??(?:[0-9a-f]{8}|\d[\d._=-]*)")


def tidy(run: Run, uri: str, say: Callable[[str], None], warn: Callable[[str], None]) -> None:
    """Remove what is more than the run's settings keep. That it cannot be done is said, and is no failure of the run."""
    settings, model = run.configuration.retention, run.configuration.registry.model
    if settings.keep_runs is None and settings.keep_versions is None:
        return
    try:
        registry = Registry(uri)
        if settings.keep_versions is not None and (gone := prune(registry, model, settings.keep_versions)):
            say(f"tidy   deleted {', '.join(map(str, gone))}; the newest {settings.keep_versions} are kept")
        if settings.keep_runs is not None:
            for name, size in remove_surplus(run, settings.keep_runs, registry):
                say(f"tidy   removed run {name}, {overview.bytes_text(size)}")
            for one in rows.remove_unread(run.storage, run_names(run.storage)):
                say(f"tidy   removed rows {one.rows}, which no run reads, {overview.bytes_text(one.bytes)}")
    except GanError as error:
        warn(f"tidy   not done after {run.name}: {error}")


def remove_surplus(run: Run, keep: int, registry: Registry) -> Iterator[tuple[str, int]]:
    """Remove runs like this one: all but the `keep` newest that are done, and but the `keep` newest that are not.

    One that is not done can be resumed until so many newer ones are not done either. This run itself,
    one that is being worked on and one whose version the registry needs are never removed.
    """
    wanted = runs_of(registry, run.configuration.registry.model)
    states: dict[str, list[Run]] = {"done": [], "stopped": [], "running": []}
    for other in like(run):
        states[str(overview.status(other)["state"])].append(other)
    for state in ("done", "stopped"):
        for one in overview.prunable(states[state], overview.Leaving(keep=keep), wanted | {run.name}):
            if not one["kept"] and overview.remove(Run.open(one["run"], run.storage)):
                yield one["run"], one["bytes"]


def like(run: Run) -> list[Run]:
    """The storage's runs of the same family and model, this one among them; what cannot be read is not ours to judge."""
    found = []
    for name in run_names(run.storage):
        if family(name) == family(run.name):
            with contextlib.suppress(GanError):
                other = Run.open(name, run.storage)
                if other.configuration.registry.model == run.configuration.registry.model:
                    found.append(other)
    return found


def family(name: str) -> str:
    """A run's name without the date, number or digest at its end."""
    found = ONE_OF_MANY.fullmatch(name)
    return found[1] or "" if found else name


def runs_of(registry: Registry, model: str) -> set[str]:
    """Names of the runs whose versions hold an alias, or that the champion's last moves name."""
    numbers = needed(registry, model)
    return {version.tags.get("run", "") for version in registry.versions(model) if version.version in numbers}
