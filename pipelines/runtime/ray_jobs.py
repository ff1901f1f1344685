"""Runs as jobs of a Ray cluster: submitted once for a name, followed over lost connections, ended with their own exit code."""

import asyncio
import contextlib
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gan_core.errors import ConfigurationError, first_line
from pipelines.config import ENVIRONMENT_NAME

CONFIGURATION = "GAN_SUBMITTED_CONFIGURATION"  # the resolved YAML, in the job's environment
RECONNECT_SECONDS = 300.0  # how long a cluster that does not answer is waited for
NOT_YET = "No available agent"  # what a head answers before the part of it that starts jobs is up
LARGEST = 64_000  # bytes of configuration that an environment variable carries
# The job writes its configuration down, where Python of the cluster's image finds it, and becomes gan.
ENTRY = f'file="$(mktemp -d)/run.yaml" && printf %s "${CONFIGURATION}" > "$file" && exec python -P -m pipelines.cli run "$file"'


@dataclass(frozen=True)
class Job:
    """A run's job on a cluster; `attached`: it was there already."""

    id: str
    attached: bool
    done: bool


class JobServer:
    """The job server of a Ray cluster."""

    def __init__(self, address: str, reconnect_seconds: float = RECONNECT_SECONDS) -> None:
        _use_token()
        self.address, self.reconnect_seconds = address, reconnect_seconds
        with self._errors():
            from ray.job_submission import JobSubmissionClient

            self.client = JobSubmissionClient(address)

    def submit(self, name: str, entrypoint: str, environment: Mapping[str, str], working_dir: str | None = None) -> Job:
        """The run's job: the one that runs or has succeeded, or a new one under the next free id."""
        runtime: dict[str, Any] = {"env_vars": dict(environment)}
        if working_dir is not None:
            runtime["working_dir"] = working_dir
        for attempt in range(1, 1000):
            job = f"gan-{name}" if attempt == 1 else f"gan-{name}.{attempt}"
            state = self._state(job)
            if state is None:
                if self._sent(job, entrypoint=entrypoint, runtime_env=runtime, metadata={"run": name}):
                    return Job(job, attached=False, done=False)
                state = self._state(job)  # of another submission of this name, which came first
            if state not in ("FAILED", "STOPPED"):
                return Job(job, attached=True, done=state == "SUCCEEDED")
        raise ConfigurationError("too many jobs", name, "999 of them failed", "another name: --name NAME")

    def _sent(self, job: str, **described: Any) -> bool:
        """Send a new job; False if one of this id is there. A cluster that has only just started is waited for."""
        end = time.monotonic() + self.reconnect_seconds
        while True:
            try:
                with self._errors():
                    self.client.submit_job(submission_id=job, **described)
                return True
            except ConfigurationError as error:
                if self._state(job) is not None:
                    return False
                if NOT_YET not in str(error) or time.monotonic() > end:
                    raise
            time.sleep(1)

    def follow(self, job: str, write: Callable[[str], None], log: Callable[[str], None]) -> int:
        """Write the job's log until it ends, and return its exit code; a lost connection is taken up where it was.

        Raises:
            ConfigurationError: If the cluster does not answer for longer than `reconnect_seconds`.
        """
        written, lost = 0, 0.0
        while True:
            try:
                for text in self._log(job, written):
                    write(text)
                    written += len(text)
                    lost = 0.0
                info = self.client.get_job_info(job)
                if info.status.is_terminal():
                    rest = self.client.get_job_logs(job)[written:]
                    if rest:
                        write(rest)
                    if info.status == "SUCCEEDED":
                        return 0
                    if info.driver_exit_code is None:
                        log(f"job {job}: {info.status}, {info.message}")
                    return int(info.driver_exit_code or 1)
            except Exception as error:  # requests', aiohttp's and Ray's own, which share no class
                now = time.monotonic()
                if not lost:
                    lost = now
                    log(
                        f"connection to {self.address} was lost ({type(error).__name__}); the job goes on; trying again"
                    )
                if now - lost > self.reconnect_seconds:
                    raise ConfigurationError(
                        "cluster does not answer", self.address, f"for {now - lost:.0f} s; job {job} may go on",
                        "the same command later attaches to it",
                    ) from error  # fmt: skip
            time.sleep(1)

    def _log(self, job: str, already: int) -> Iterator[str]:
        """The job's log as it grows, without what was written already: a new connection tells it from its beginning."""
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            lines = self.client.tail_job_logs(job)
            received = 0
            while True:
                try:
                    text = loop.run_until_complete(lines.__anext__())
                except StopAsyncIteration:
                    return
                received += len(text)
                if received > already:
                    yield text[max(0, len(text) - (received - already)) :]
                    already = received

    def _state(self, job: str) -> str | None:
        """The job's state; None if the cluster knows none of this id."""
        with self._errors():
            states = {info.submission_id: info.status for info in self.client.list_jobs()}
        return str(states[job].value) if job in states else None

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        from ray.exceptions import RayError

        try:
            yield
        except (ConnectionError, RuntimeError, ValueError, OSError, RayError) as error:  # the last: a wrong token
            raise ConfigurationError(
                "cluster refused", self.address, first_line(error),
                "the address of a Ray dashboard, such as http://head:8265; RAY_AUTH_MODE=token and RAY_AUTH_TOKEN if it asks",
            ) from error  # fmt: skip


def entrypoint(arguments: Sequence[str]) -> str:
    """The job's command: `gan run` on the configuration that travels in its environment."""
    return f"{ENTRY} {shlex.join(arguments)}"


def job_environment(yaml: str, passed: Sequence[str]) -> dict[str, str]:
    """What the job's environment has: its configuration, and the variables that were named, with their values here.

    Raises:
        ConfigurationError: If a variable is not set, or the configuration is too large.
    """
    if len(yaml.encode()) > LARGEST:
        raise ConfigurationError("configuration too large", "gan submit", f"{len(yaml)} characters", f"{LARGEST} bytes")
    for name in passed:
        if not ENVIRONMENT_NAME.fullmatch(name) or name not in os.environ:
            raise ConfigurationError(
                "not in the environment", f"--pass-env {name[:80]}", "not set", "a variable that is set"
            )
    return {**{name: os.environ[name] for name in passed}, CONFIGURATION: yaml}


def _use_token() -> None:
    """Send the token that there is: Ray's client does so only where the mode says it."""
    if os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} or Path("~/.ray/auth_token").expanduser().exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
