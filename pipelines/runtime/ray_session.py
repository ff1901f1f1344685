"""The Ray cluster a run works on: this machine's, or the one of RAY_ADDRESS."""

import contextlib
import logging
import os
import secrets
import signal
import socket
import threading
import traceback
import urllib.parse
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from gan_core.errors import ConfigurationError, first_line
from pipelines.config import Configuration
from pipelines.runtime import autoscaler, exit_codes, import_path, liveness, own_session, ray_parts

logger = logging.getLogger(__name__)

# Read when Ray is imported, so set before. A value the user has set stays.
ENVIRONMENT = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else `uv run` makes workers build a second environment
    "RAY_worker_niceness": "0",  # Ray's 15 lets its own daemons interrupt a step: 0.85 of the bare loop's speed
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_COLOR_PREFIX": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # reports are throttled by this poll
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "120",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would end a search early, as if it were finished
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "0",
}
# The same of a Ray of our own: how long it waits for its parts, whose 30 s are too short on a busy machine, and no watch
# for machines that are taken away.
OWN_RAY = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_gcs_server_port_wait_time_s": "90",
    "RAY_raylet_start_wait_time_s": "90",
    "RAY_worker_register_timeout_seconds": "180",
}
STARTS = 3
REACHED_WITHIN_S = 10.0
SOCKET_BYTES = 107  # the longest path of a socket
SOCKET = "/session_2026-01-01_00-00-00_000000_4194304/sockets/dash_MetricsHead"  # Ray's longest under its folder


def address() -> str | None:
    """The cluster that the user names, or None for a Ray of our own; set to nothing it is not set, as for Ray."""
    return os.environ.get("RAY_ADDRESS") or None


def prepare_environment() -> None:
    """Quiet, quick defaults for Ray, to be called before it is imported."""
    for name, value in (ENVIRONMENT | (OWN_RAY if address() is None else {})).items():
        os.environ.setdefault(name, value)
    import_path.leave_out_current_folder()
    if address() is None and os.getppid() == 1:  # in a container, say: Ray takes such a driver's raylet for dead
        os.environ["RAY_RAYLET_PID"] = str(os.getpid())
    if address() is None and "RAY_AUTH_MODE" not in os.environ:  # our own cluster: its token lives as long as it does
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))


def started_here() -> bool:
    """Whether the Ray that is joined is one that `cluster` has started, and may start anew."""
    return own_session.held_here()


@contextlib.contextmanager
def cluster(log: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Join the cluster of RAY_ADDRESS, or start one on this machine for as long as the block runs.

    Raises:
        ConfigurationError: If there is none, or it does not start.
    """
    prepare_environment()
    import ray

    if ray.is_initialized():  # the caller's own
        yield
        return
    named = address()
    if named is None:
        _check_sockets()
    else:
        _join(named)
    with contextlib.nullcontext() if named else own_session.holding(partial(_start, log)):
        try:
            yield
        except liveness.RayLost:
            if exit_codes.is_own_process():
                own_session.end()
            raise
        finally:
            # A Ray of our own has nothing to be told and takes seconds, a dead one a minute, and then ends this process.
            if named or (own_session.held_here() and not exit_codes.is_ending()):
                ray.shutdown()


def _init(where: str, **more: Any) -> None:
    import ray

    with _own_termination():
        ray.init(
            where,
            **more,
            log_to_driver=False,
            logging_level=_quiet_ray(),
            namespace="gan",
            job_config=import_path.ray_job(where),
        )


def _join(named: str) -> None:
    try:
        _reach(named)
        _init(named)
    except Exception as error:  # Ray raises bare ones too
        raise ConfigurationError(
            "no Ray cluster", named, first_line(error).rstrip("."), "a running cluster in RAY_ADDRESS, or none"
        ) from error


def _start(log: Callable[[str], None]) -> None:
    """Start a Ray on this machine, and again if it did not come up, which on a busy machine it may not.

    Raises:
        ConfigurationError: If it did not come up however often it was tried, or never can.
    """
    for start in range(1, STARTS + 1):
        try:
            with ray_parts.of_one_machine():
                # Without an address Ray would join whatever `ray start` was last used for, alive or not. Its dashboard
                # would be eleven processes and 1 GB, of a Ray that ends with its run.
                return _init("local", include_dashboard=False)
        except Exception as error:  # a bare one where a part of it was too slow
            _end_parts(error)
            if start == STARTS:
                raise ConfigurationError(
                    "Ray did not start", f"this machine, {start} times", first_line(error).rstrip("."),
                    "a machine that is less busy; run the same command again, or set RAY_ADDRESS to a running cluster",
                ) from error  # fmt: skip
            reason = first_line(error).rstrip(".")
            log(f"ray    did not start: {reason}; tried again, {start + 1} of at most {STARTS} times")


def _end_parts(error: Exception) -> None:
    """End the processes of a start that failed: Ray's own shutdown knows only of those that came up."""
    import ray
    from ray._private.node import Node

    for frame, _ in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("self")
        if isinstance(node, Node):
            node.kill_all_processes(check_alive=False, wait=True)
            break
    ray.shutdown()


def _check_sockets() -> None:
    """Refuse a folder whose name is too long for Ray's sockets, which Ray finds out after half a minute.

    Raises:
        ConfigurationError: If it is.
    """
    from ray._common.utils import get_default_ray_temp_dir

    folder, longest = get_default_ray_temp_dir(), SOCKET_BYTES - len(SOCKET)
    if (length := len(os.fsencode(folder))) > longest:
        raise ConfigurationError(
            "path too long for Ray's sockets", "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR",
            f"{folder}, {length} bytes", f"at most {longest}: a shorter one in RAY_TMPDIR",
        )  # fmt: skip


@contextlib.contextmanager
def _own_termination() -> Iterator[None]:
    """Let SIGTERM end this process in its own way: ray.init() puts another in place, which exits with 15."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        if callable(handler):
            handler(signal.SIGTERM, None)
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _quiet_ray() -> str:
    """Keep what Ray says of failures off the terminal, unless our own log is for debugging: we say it in a line.

    Returns the level of Ray's own log. What its daemons report Ray prints on stdout, where a result belongs.
    """
    from ray._private import worker

    debugging = logger.isEnabledFor(logging.DEBUG)
    worker._worker_logs_enabled = debugging
    return "ERROR" if debugging else "CRITICAL"


def _reach(address: str) -> None:
    """Connect to the head of `host:port` or `ray://host:port`, once: Ray would go on trying for minutes.

    Raises:
        OSError: If it does not answer.
        ValueError: If the port is no number.
    """
    head = urllib.parse.urlsplit(address if "://" in address else f"//{address}")
    if head.hostname and head.port:
        socket.create_connection((head.hostname, head.port), REACHED_WITHIN_S).close()


def check_resources(configuration: Configuration) -> None:
    """Refuse a configuration that the machine or cluster can never run, with what its autoscaler could add neither.

    Raises:
        ConfigurationError: If workers or a trial ask for more CPUs or GPUs than there are.
    """
    available, where = _available()
    for settings, bundles in _requests(configuration):
        required = {resource: len(bundles) * amount for resource, amount in bundles[0].items()}
        lacking = [resource for resource, amount in required.items() if amount > available.get(resource, 0)]
        if not lacking:
            continue
        resource, grows = lacking[0], autoscaler.present()
        if grows and autoscaler.could_hold(bundles):
            continue
        raise ConfigurationError(
            "not enough resources",
            settings[resource],
            f"{required[resource]:g} {resource}",
            f"at most {available.get(resource, 0):g}, what {where} has" + ", or what its autoscaler could add" * grows,
        )


def _requests(configuration: Configuration) -> Iterator[tuple[dict[str, str], list[dict[str, float]]]]:
    """What each stage requests of the cluster at once, in equal bundles, and the settings that say so."""
    train, trial = configuration.train, configuration.tune.resources_per_trial
    worker = {"CPU": float(train.threads_per_worker)} | ({"GPU": 1.0} if train.gpu is True else {})
    settings = {"CPU": "train.workers x train.threads_per_worker", "GPU": "train.workers with train.gpu"}
    yield settings, [worker] * train.workers
    if configuration.tune.candidates:
        settings = {"CPU": "tune.resources_per_trial.cpu", "GPU": "tune.resources_per_trial.gpu"}
        yield settings, [{"CPU": trial.cpu} | ({"GPU": trial.gpu} if trial.gpu else {})]


def resources() -> dict[str, float]:
    """What the cluster that is joined has, or could have by autoscaling."""
    import ray
    from ray._private.state import state  # Ray Train asks the same of it: nothing public knows

    there, could_be = ray.cluster_resources(), state.get_max_resources_from_cluster_config() or {}
    return {name: max(there.get(name, 0), could_be.get(name, 0)) for name in there | could_be}


def _available() -> tuple[dict[str, float], str]:
    prepare_environment()
    import ray

    if ray.is_initialized():
        return resources(), "the cluster"
    if address() is not None:
        return {"CPU": float("inf"), "GPU": float("inf")}, "the cluster"  # asked again once it is joined
    import torch

    return {"CPU": float(len(os.sched_getaffinity(0))), "GPU": float(torch.cuda.device_count())}, "this machine"
