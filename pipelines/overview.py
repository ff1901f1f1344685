"""What can be said of runs: how far each has come, how they differ, and which of them may go."""

import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gan_core.checkpoint import checkpoint_step
from gan_core.errors import ConfigurationError
from pipelines import config, ownership
from pipelines.registry import Registry
from pipelines.run import Run
from pipelines.storage import checkpoint_names

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
SCORES = ("log_likelihood", "standard_error", "sigma", "coverage")


def status(run: Run) -> dict[str, Any]:
    """One run: its state and stages, the step it is at and, while it trains, its speed and the seconds left."""
    records, owner = run.records(), ownership.owner(run.folder)
    settings = run.configuration
    state = "running" if owner is not None else "done" if "report" in records else "stopped"
    stages = run.stages
    now = next((stage for stage in stages if stage not in records), None)
    live = (run.folder.read_json("live.json") or {}) if state == "running" and now == "train" else {}
    saved, speed = saved_step(run), live.get("steps_per_second")
    step = records.get("train", {}).get("step", live.get("step", saved))
    return {
        "run": run.name,
        "state": state,
        "stage": now if state == "running" else None,
        "stages": [stage for stage in run.stages if stage in records],
        "step": step,
        "steps": settings.algorithm.steps,
        "saved_step": saved,
        "images_per_second": live.get("images_per_second"),
        "seconds_left": (settings.algorithm.steps - live["step"]) / speed if speed else None,
        "owner": {key: owner[key] for key in ("host", "pid") if key in owner} if owner else None,
        "log_likelihood": records.get("evaluate", {}).get("log_likelihood"),
        "report": records.get("report", {}).get("report"),
    }


def saved_step(run: Run) -> int | None:
    """The step of the run's newest checkpoint; None before the first."""
    names = checkpoint_names(run.folder.within("checkpoints"))
    return checkpoint_step(names[-1]) if names else None


def compare(runs: Sequence[Run]) -> dict[str, Any]:
    """The settings in which runs differ, by dotted name (a search's choice included), and their scores."""
    settings = [config.flat(config.to_plain(run.chosen())) for run in runs]
    names = sorted({name for one in settings for name in one})
    values = {name: [one.get(name) for one in settings] for name in names}
    records = [run.records() for run in runs]
    scores = {name: [one.get("evaluate", {}).get(name) for one in records] for name in SCORES}
    scores["cross_validated_log_likelihood"] = [
        one.get("evaluate", {}).get("cross_validated", {}).get("log_likelihood") for one in records
    ]
    trained = {name: [one.get("train", {}).get(name) for one in records] for name in ("step", "seconds")}
    return {
        "runs": [run.name for run in runs],
        "settings": {name: found for name, found in values.items() if any(value != found[0] for value in found)},
        "scores": {**scores, **{f"training_{name}": found for name, found in trained.items()}},
    }


@dataclass(frozen=True)
class Leaving:
    """Which runs are to go: all that every given condition names."""

    older_than: float | None = None  # seconds since anything of the run was written
    keep: int | None = None  # of the newest, whatever their state
    state: str | None = None

    def __post_init__(self) -> None:
        if (self.older_than, self.keep, self.state) == (None, None, None):
            raise ConfigurationError(
                "nothing to choose by", "gan runs prune", "no condition", "--older-than, --keep or --state"
            )


def prunable(runs: Sequence[Run], leaving: Leaving, aliased: Collection[str]) -> list[dict[str, Any]]:
    """Every run that the conditions name, with its bytes and age, and why it is kept if it is."""
    found = []
    for run in runs:
        size, written = run.folder.extent()
        found.append((written, run, size))
    found.sort(key=lambda item: (-item[0], item[1].name))
    now, chosen = time.time(), []
    for written, run, size in found[leaving.keep or 0 :]:
        state = status(run)["state"]
        if leaving.state not in (None, state) or now - written < (leaving.older_than or 0):
            continue
        kept = "running" if state == "running" else "its version holds an alias" if run.name in aliased else None
        chosen.append({"run": run.name, "state": state, "bytes": size, "age_seconds": now - written, "kept": kept})
    return chosen


def remove(run: Run) -> bool:
    """Remove a run's folder, unless it is being worked on; whether it was."""
    with run.folder.exclusively() as free:
        gone = free and (run.folder.local is not None or ownership.owner(run.folder) is None)
        if gone:
            run.folder.remove()
        return gone


def runs_with_alias(registry: Registry) -> set[str]:
    """Names of the runs whose registered versions hold an alias."""
    versions = [version for name in registry.models() for version in registry.versions(name)]
    return {version.tags["run"] for version in versions if version.aliases and "run" in version.tags}


def seconds(text: str) -> float:
    """A time such as 90s, 12h, 30d or 2w, in seconds.

    Raises:
        ConfigurationError: If it is not one.
    """
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)([smhdw])", text)
    if not found:
        raise ConfigurationError("not a time", "--older-than", repr(text)[:40], "a number and s, m, h, d or w: 30d")
    return float(found[1]) * UNITS[found[2]]


def bytes_text(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def progress(found: Mapping[str, Any]) -> str:
    """A status in one line."""
    parts = [f"{found['run']:<40} {found['state']:<8}"]
    if found["state"] == "running":
        parts.append(str(found["stage"]))
    if found["state"] != "done" and found["step"] is not None:
        parts.append(f"step {found['step']}/{found['steps']}")
    if found["images_per_second"] is not None:
        parts.append(f"{found['images_per_second']:,.0f} images/s  about {found['seconds_left']:.0f} s left")
    if found["log_likelihood"] is not None:
        parts.append(f"{found['log_likelihood']:.1f} nats")
    return "  ".join(parts)
