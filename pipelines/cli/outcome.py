"""How a command that makes a run ends: its result, or its exit code and line, and who is told of it."""

import contextlib
import select
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from gan_core.errors import Diverged, GanError, visible
from pipelines.runtime import installed

if TYPE_CHECKING:
    from pipelines.cli.context import Context
    from pipelines.config import NotifySettings

PREEMPTED, INTERRUPTED = 143, 130
PREEMPTED_LINE = "preempted (gan): by SIGTERM; the same command resumes"


def failure(error: Exception) -> tuple[int, str] | None:
    """The exit code and the line of an error that ends a command; None where it is no failure of the command's."""
    if isinstance(error, GanError):
        return error.exit_code, str(error)
    if isinstance(error, click.exceptions.ClickException | click.Abort):
        return None
    if isinstance(error, BrokenPipeError) and _reader_has_left():
        return None
    if isinstance(error, ModuleNotFoundError) and (known := installed.missing(error)) is not None:
        return known.exit_code, str(known)
    first = visible(str(error).splitlines()[0]) if str(error) else ""
    return 1, f"unexpected {type(error).__name__} (gan): {first}; --debug shows where"


def _reader_has_left() -> bool:
    """Whether nobody reads any more what is written to stdout."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return bool(poll.poll(0))


@dataclass
class Work:
    """What is known of a run's work while it lasts, for those who are told if it ends badly."""

    run: str
    storage: str
    stage: str = "start"  # or the stage it is in


@contextlib.contextmanager
def telling(context: "Context", settings: "NotifySettings", name: str, dry_run: bool = False) -> Iterator[Work]:
    """Tell whom the configuration names if the block fails or is preempted. Ctrl-C is news to nobody."""
    work = Work(name, context.storage.uri)
    if dry_run:
        yield work
        return
    try:
        yield work
    except SystemExit:  # of SIGTERM; Ray turns ours into its own
        _tell(context, settings, "preempted", work, stage=work.stage, exit_code=PREEMPTED, error=PREEMPTED_LINE)
        raise
    except Exception as error:
        if (known := failure(error)) is not None:
            _tell(context, settings, "failed", work, stage=work.stage, exit_code=known[0], error=known[1])
        raise


def tell_promotion(context: "Context", settings: "NotifySettings", work: Work, result: dict[str, Any]) -> None:
    """Tell of a new champion."""
    names = ("model", "version", "reason", "log_likelihood", "standard_error")
    _tell(context, settings, "promoted", work, **{name: result[name] for name in names})


def _tell(context: "Context", settings: "NotifySettings", event: Any, work: Work, **more: Any) -> None:
    from pipelines.runtime import notifications

    notifications.tell(settings, notifications.message(event, work.run, work.storage, **more), context.warn)


def collapsed(version: str, reason: str) -> Diverged:
    """What a command ends with, after its result, whose model the gate refused as collapsed."""
    what, _, got = reason.partition(": ")
    what = "a collapsed model" if what == "collapsed" else f"a model {what}"
    return Diverged(what, version, got, "another seed or other rates; it stays registered, not promoted")


def result_of(run: Any, stages: tuple[str, ...]) -> dict[str, Any]:
    """What `--json` prints of a run whose stages are done."""
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
        "weights": score.get("weights"),
        "compared": (score.get("quality") or {}).get("count"),
        "report": records.get("report", {}).get("report"),
    }


def summary_of(run: Any, stages: tuple[str, ...], already: str) -> str:
    """The same for people."""
    result = result_of(run, stages)
    lines = [f"done   {run.name}{already}"]
    if "log_likelihood" in result and result["log_likelihood"] is not None and "sigma" in result:
        lines.append(
            f"       {result['log_likelihood']:.1f} ± {result['standard_error']:.1f} nats (Parzen, test set, {result['weights']} G, "
            f"sigma {result['sigma']:.4f}), coverage {result['coverage']:.2f} (of {result['compared']} images and samples)"
        )
        if result["model"]:
            lines.append(f"       {result['model']}/{result['version']} is {result['alias']}: {result['reason']}")
        lines.append(f"       {result['report']}")
    elif "weights_sha256" in result:
        lines.append(f"       step {result['step']}, weights {result['weights_sha256'][:12]}, {result['checkpoint']}")
    elif "chosen" in result:
        lines.append(f"       chosen: {', '.join(f'{key} {value}' for key, value in result['chosen'].items())}")
    return "\n".join(lines)
