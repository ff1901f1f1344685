"""What can be said of runs: how far each has come, how they differ, and which of them may go."""

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gan_core.errors import ConfigurationError, GanError, visible
from gan_core.manifest import MALFORMED, checkpoint_step
from pipelines.registry import Registry, address
from pipelines.runs import run_lease
from pipelines.runs.recorded_run import RecordedRun, run_names
from pipelines.storage import Storage, checkpoint_names, run_layout

if TYPE_CHECKING:
    from pipelines.runs.run import Run

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
SCORES = ("log_likelihood", "standard_error", "sigma", "coverage")


def status(run: RecordedRun) -> dict[str, Any]:
    """One run: its state and stages, the step it is at and, while it trains, its speed and the seconds left."""
    records, owner = run.records(), run_lease.owner(run.folder)
    state = "running" if owner is not None else "done" if "report" in records else "stopped"
    stages, steps = run.stages, run.plan.steps
    now = next((stage for stage in stages if stage not in records), None)
    live = (run.folder.read_json(run_layout.LIVE) or {}) if state == "running" and now == "train" else {}
    saved, speed = saved_step(run), live.get("steps_per_second")
    step = records.get("train", {}).get("step", live.get("step", saved))
    return {
        "run": run.name,
        "state": state,
        "stage": now if state == "running" else None,
        "stages": [stage for stage in stages if stage in records],
        "step": step,
        "steps": steps,
        "saved_step": saved,
        "images_per_second": live.get("images_per_second"),
        "seconds_left": (steps - live["step"]) / speed if speed else None,
        "owner": {key: owner[key] for key in ("host", "pid") if key in owner} if owner else None,
        "log_likelihood": records.get("evaluate", {}).get("log_likelihood"),
        "report": records.get("report", {}).get("report"),
    }


def entries(
    storage: Storage, opened: Callable[[str, Storage], RecordedRun] = RecordedRun
) -> list[tuple[dict[str, Any], str]]:
    """Every run's status, and the same in a line; of one that cannot be read, why, as its `reason`."""
    listed = []
    for name in run_names(storage):
        try:
            # A folder without run.json is that of a command killed before it had begun.
            if storage.child("runs", name).read(run_layout.RUN) is not None:
                state = status(opened(name, storage))
                listed.append((state, progress(state)))
        except (GanError, *MALFORMED) as error:
            reason = str(error) if isinstance(error, GanError) else f"{type(error).__name__}: {visible(error)}"
            state = {"run": name, "state": "unreadable", "reason": reason}
            listed.append((state, f"{visible(name):<40} unreadable  {reason}"))
    return listed


def saved_step(run: RecordedRun) -> int | None:
    """The step of the run's newest checkpoint; None before the first."""
    names = checkpoint_names(run.folder.child(run_layout.CHECKPOINTS))
    return checkpoint_step(names[-1]) if names else None


def compare(runs: "Sequence[Run]") -> dict[str, Any]:
    """The settings in which runs differ, by dotted name (a search's choice included), and their scores."""
    from pipelines import config

    settings = [config.flat(config.to_plain(run.chosen())) for run in runs]
    names = sorted({name for plain in settings for name in plain})
    values = {name: [plain.get(name) for plain in settings] for name in names}
    records = [run.records() for run in runs]
    evaluated = [of_run.get("evaluate", {}) for of_run in records]
    scores = {name: [record.get(name) for record in evaluated] for name in SCORES}
    scores["cross_validated_log_likelihood"] = [
        record.get("cross_validated", {}).get("log_likelihood") for record in evaluated
    ]
    trained = {name: [of_run.get("train", {}).get(name) for of_run in records] for name in ("step", "seconds")}
    return {
        "runs": [run.name for run in runs],
        "settings": {
            name: of_runs for name, of_runs in values.items() if any(value != of_runs[0] for value in of_runs)
        },
        "scores": {**scores, **{f"training_{name}": of_runs for name, of_runs in trained.items()}},
    }


@dataclass(frozen=True)
class PruneCriteria:
    """Which runs are to go: all that every given condition names."""

    older_than: float | None = None  # seconds since anything of the run was written
    keep: int | None = None  # of the newest, whatever their state
    state: str | None = None

    def __post_init__(self) -> None:
        if (self.older_than, self.keep, self.state) == (None, None, None):
            raise ConfigurationError(
                "nothing to choose by", "gan runs prune", "no condition", "--older-than, --keep or --state"
            )


def prunable(
    runs: Sequence[RecordedRun],
    leaving: PruneCriteria,
    protection: Callable[[RecordedRun], str | None] = lambda run: None,
) -> list[dict[str, Any]]:
    """Every run that the conditions name, with its bytes and age, and why it is kept if it is."""
    newest_first = []
    for run in runs:
        size, written = run.folder.size_and_mtime()
        newest_first.append((written, run, size))
    newest_first.sort(key=lambda item: (-item[0], item[1].name))
    now, chosen = time.time(), []
    for written, run, size in newest_first[leaving.keep or 0 :]:
        state = status(run)["state"]
        if leaving.state not in (None, state) or now - written < (leaving.older_than or 0):
            continue
        kept = "running" if state == "running" else protection(run)
        chosen.append({"run": run.name, "state": state, "bytes": size, "age_seconds": now - written, "kept": kept})
    return chosen


def remove(run: RecordedRun) -> bool:
    """Remove a run's folder, unless it is active; whether it was removed."""
    with run.folder.lock() as free:
        gone = free and (run.folder.local is not None or run_lease.owner(run.folder) is None)
        if gone:
            run.folder.remove()
        return gone


@dataclass(frozen=True)
class Protection:
    """What a registry, asked before anything is removed, says of runs; None: the storage's own, which is not there yet."""

    uri: str
    registry: Registry | None
    runs: Collection[str]  # that made versions which are needed, by the versions' tags

    @classmethod
    def ask(cls, uri: str, storage: Storage) -> "Protection":
        """Which runs made versions that hold an alias.

        Raises:
            RegistryError: If the registry does not answer, or what it answers cannot be true.
        """
        if uri == address.own_database(storage) and not address.database_exists(uri):
            return cls(uri, None, ())
        registry = Registry(uri)
        made = [runs_of(registry, name, set(registry.aliases_of(name).values())) for name in registry.models()]
        return cls(uri, registry, set().union(*made))

    def __call__(self, run: RecordedRun) -> str | None:
        """Why the run is kept, if it is. Its own record counts too: it may name a registry that was not asked.

        Raises:
            RegistryError: If the registry does not answer.
        """
        if run.name in self.runs:
            return "its version holds an alias"
        if (record := run.record("register")) is None:
            return None
        version = self.registry.version(record["model"], record["version"]) if self.registry else None
        if version is not None and version.aliases:
            return "its version holds an alias"
        where = record["tracking_uri"]
        asked = self.registry is not None and where == address.recorded(self.uri)
        if asked or (where is None and version is not None and version.tags.get("run") == run.name):
            return None
        return f"registered in {where or 'a registry it does not name'}, which has not answered: --tracking-uri asks it"


def runs_of(registry: Registry, model: str, numbers: Collection[int]) -> set[str]:
    """Names of the runs that made these versions of a model; of those that were deleted, none.

    Raises:
        RegistryError: If there is no version that an alias is on, which cannot be.
    """
    versions = {number: registry.version(model, number) for number in numbers}
    for alias, number in registry.aliases_of(model).items():
        if number in versions and versions[number] is None:
            raise address.implausible_answer(registry.uri, f"no version {model}/{number}, which is {alias}")
    return {version.tags["run"] for version in versions.values() if version and "run" in version.tags}


def seconds(text: str) -> float:
    """A time such as 90s, 12h, 30d or 2w, in seconds.

    Raises:
        ConfigurationError: If it is not one.
    """
    parts = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)([smhdw])", text)
    if not parts:
        raise ConfigurationError("not a time", "--older-than", repr(text)[:40], "a number and s, m, h, d or w: 30d")
    return float(parts[1]) * UNITS[parts[2]]


def bytes_text(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def progress(state: Mapping[str, Any]) -> str:
    """A status in one line."""
    parts = [f"{visible(state['run']):<40} {state['state']:<8}"]
    if state["state"] == "running":
        parts.append(str(state["stage"]))
    if state["state"] != "done" and state["step"] is not None:
        parts.append(f"step {state['step']}/{state['steps']}")
    if state["images_per_second"] is not None:
        parts.append(f"{state['images_per_second']:,.0f} images/s  about {state['seconds_left']:.0f} s left")
    if state["log_likelihood"] is not None:
        parts.append(f"{state['log_likelihood']:.1f} nats")
    return "  ".join(parts)
