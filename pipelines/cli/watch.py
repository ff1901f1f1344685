"""`gan runs watch`: a run as it goes on, on a terminal, as lines, as JSON, or as a page in the browser."""

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import click

from gan_core.errors import GanError
from pipelines.cli.context import Context, common
from pipelines.cli.live_display import REMOTE_SECONDS, LiveDisplay
from pipelines.cli.terminal import is_live


@click.command("watch")
@click.argument("name", metavar="RUN")
@click.option(
    "--interval", type=click.FloatRange(min=0.2), help="Seconds between looks  [default: 1, of a remote storage 5]."
)
@click.option(
    "--port", type=click.IntRange(0, 65535),
    help="Show it as a page too, on this port of 127.0.0.1, until Ctrl-C; 0 is any that is free.",
)  # fmt: skip
@common
def runs_watch(context: Context, name: str, interval: float | None, port: int | None) -> None:
    """Show a run as it goes on, whoever works on it and wherever: read from its own files, and nothing is changed.

    It ends with the run, or when nobody works on it any more. With --json, each change is an object on a line.

    \b
    Examples:
      gan runs watch digits-1a2b3c4d
      gan runs watch nightly --storage s3://bucket/runs --json
      gan runs watch digits-1a2b3c4d --port 8100
    """
    from pipelines.runs.observation import RunObserver
    from pipelines.runs.recorded_run import RecordedRun

    observer = RunObserver(RecordedRun(name, context.storage))
    pause = interval or (1.0 if context.storage.local is not None else REMOTE_SECONDS)
    with contextlib.ExitStack() as stack:
        if port is not None:
            from pipelines.reporting.live_server import serving

            address = stack.enter_context(serving(RunObserver(observer.run), port, pause))
            context.emit_result({"run": name, "url": address}, f"{name} at {address}; Ctrl-C ends it")
        if not context.as_json and not context.quiet and is_live():
            display = stack.enter_context(LiveDisplay(observer, interval=pause).shown())
            changes = display.looks()
        else:
            changes = _changes(context, observer, pause)
        last = None
        for last in changes:
            if context.as_json:
                context.emit_result(last.to_json(), "")
        if port is not None:
            while True:  # who reads the page ends it
                time.sleep(60)
    if last is not None and not context.as_json:
        context.emit_result(last.to_json(), _line(last))


def _changes(context: Context, observer: Any, pause: float) -> Iterator[Any]:
    """The run at first and at each change, until nobody works on it; a storage that fails is asked again, more rarely."""
    from pipelines.registry.polling import MAX_PAUSE

    shown, wait, seen = "", pause, observer.look()
    while True:
        if (now := _identity(seen)) != shown:
            shown = now
            if not context.as_json and seen.state == "running":
                context.log(_line(seen))
            yield seen
        if seen.state != "running":
            return
        time.sleep(wait)
        try:
            seen, wait = observer.look(), pause
        except GanError as error:
            wait = min(2 * wait, MAX_PAUSE)
            context.trouble(error, wait)


def _identity(seen: Any) -> str:
    """What of a run is a change: all but the time that passes."""
    stages = [(stage.name, stage.state) for stage in seen.stages]
    return json.dumps([seen.state, stages, seen.candidates, seen.training, seen.records], default=str)


def _line(seen: Any) -> str:
    """A run in a line, for a log."""
    from pipelines.reporting.live_panel import NAMES, clock

    words = [seen.run, seen.state]
    if seen.stage:
        words.append(NAMES[seen.stage])
    if "step" in seen.training:
        words.append(f"step {seen.training['step']}/{seen.steps}")
    elif seen.stage == "tune":
        words.append(f"{len(seen.candidates)} scores")
    if seen.seconds_left is not None:
        words.append(f"about {clock(seen.seconds_left)} left")
    score = seen.records.get("evaluate")
    if score:
        words.append(f"{score['log_likelihood']:.1f} ± {score['standard_error']:.1f} nats")
    return "  ".join([*words, *filter(None, [seen.records.get("report", {}).get("report")])])
