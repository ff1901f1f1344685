"""Notifications of a run's end: to a command or a web address, in bounded time, and with no say in how the run ended."""

import contextlib
import datetime
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.config import Event, NotifySettings
from pipelines.runtime import exit_codes, import_path

SHOWN = 200  # characters of what a command said about its failure


@dataclass
class ActiveRun:
    """What is known of a run while it is worked on, for those who are notified if it ends badly."""

    run: str
    storage: str
    stage: str = "start"  # or the stage it is in


def message(event: Event, run: str, storage: str, **more: Any) -> dict[str, Any]:
    """What is told: the event, where it was and when, and a line for people as `text`.

    Of a run that failed or was preempted `more` is stage, exit_code and error; of a new champion, the
    record of its registration and its score.
    """
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    what = "" if event == "promoted" else f" in {more['stage']} (exit code {more['exit_code']}): {more['error']}"
    if event == "promoted":
        what = f": {more['model']}/{more['version']} is champion, {more['reason']}"
    known = {"event": event, "run": run, "storage": storage, "host": socket.gethostname(), "time": when}
    return {**known, **more, "text": f"{run} {event}{what}"}


def notify(
    settings: NotifySettings, event: Event, active: ActiveRun, log_warning: Callable[[str], None], **more: Any
) -> None:
    """Send the message of an event, if it is one of the settings'. What goes wrong is logged, in a line, and no more."""
    if event not in settings.events:
        return
    content = json.dumps(message(event, active.run, active.storage, **more)).encode()
    with exit_codes.last_words:
        for name, send in (("command", _run_command), ("webhook", _post)):
            try:
                problem = send(settings, content)
            except Exception as error:  # whatever it is: the run has ended as it has
                problem = type(error).__name__
            if problem:
                log_warning(f"notify {name}: not told of the run's end, {problem}")


@contextlib.contextmanager
def notify_on_failure(
    settings: NotifySettings, active: ActiveRun, log_warning: Callable[[str], None]
) -> Iterator[ActiveRun]:
    """Notify whom the configuration names if the block fails or is preempted. Ctrl-C is news to nobody."""
    try:
        yield active
    except SystemExit:  # of SIGTERM; Ray turns ours into its own
        code, line = exit_codes.PREEMPTED, exit_codes.PREEMPTED_LINE
        notify(settings, "preempted", active, log_warning, stage=active.stage, exit_code=code, error=line)
        raise
    except Exception as error:
        if (failure := exit_codes.failure(error)) is not None:
            code, line = failure
            notify(settings, "failed", active, log_warning, stage=active.stage, exit_code=code, error=line)
        raise


def preflight_problems(settings: NotifySettings) -> list[str]:
    """What can be known beforehand to be in the way: a variable that is not set, a program that is not there."""
    missing = [f"webhook: {name} is not set" for name in _unset(settings)]
    if settings.command and shutil.which(settings.command[0]) is None:
        missing.append(f"command: no program {settings.command[0]}")
    return missing


def _unset(settings: NotifySettings) -> list[str]:
    named = (settings.webhook_variable, settings.token_variable)
    return [name for name in named if name is not None and not os.environ.get(name)]


def _run_command(settings: NotifySettings, content: bytes) -> str | None:
    """Run the command in a process group of its own; what went wrong, if anything did."""
    if not settings.command:
        return None
    # Files, not pipes: what the command leaves running in the background keeps nobody waiting.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(content)
        given.seek(0)
        try:
            process = subprocess.Popen(
                settings.command, stdin=given, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True,
                env=import_path.environment_of_user(),
            )  # fmt: skip
        except OSError as error:
            return f"{settings.command[0]} cannot be started: {error.strerror}"
        try:
            code = process.wait(settings.timeout_s)
        except subprocess.TimeoutExpired:
            return f"{settings.command[0]} was not done after {settings.timeout_s:g} s"
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
        return f"{settings.command[0]} ended with exit code {code}: {lines[-1][:SHOWN]}" if code else None


def _post(settings: NotifySettings, content: bytes) -> str | None:
    """POST to the address; what went wrong, if anything did: never the address, which may be a secret."""
    if settings.webhook is None and settings.webhook_variable is None:
        return None
    if unset := _unset(settings):
        return f"{unset[0]} is not set"
    address = settings.webhook or os.environ[settings.webhook_variable or ""]
    token = os.environ[settings.token_variable] if settings.token_variable else None
    outcome: list[str | None] = []

    def post() -> None:
        import requests

        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        try:
            reply = requests.post(
                address, data=content, headers=headers, timeout=settings.timeout_s, allow_redirects=False
            )
            outcome.append(None if reply.ok and not reply.is_redirect else f"it answered {reply.status_code}")
        except (requests.RequestException, ValueError) as error:
            outcome.append(f"it did not answer: {type(error).__name__}")

    # A thread, since the library bounds the wait for each part of an answer, and not for all of it.
    asking = threading.Thread(target=post, daemon=True)
    asking.start()
    asking.join(settings.timeout_s)
    return outcome[0] if outcome else f"it did not answer within {settings.timeout_s:g} s"
