"""Diagnose this machine for `gan doctor`: each part with a verdict and a remedy, even where little is installed."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from gan_core.errors import ConfigurationError, GanError, visible
from pipelines.runtime import installed

# All else is imported by the part that needs it, and may be missing.

# A training worker is 0.9 GB, Ray's own processes 2 GB.
MEMORY, DISK, SHARED = 4e9, 5e9, 1e9  # bytes, below which there is a warning
MIN_DISK = 1e8  # bytes, without which nothing can be kept
ANSWER_SECONDS = 5


@dataclass(frozen=True)
class Finding:
    """One part, what was found, and what to do if it is not ok."""

    part: str
    verdict: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""

    def __str__(self) -> str:
        advice = f"; {'needs' if self.verdict == 'fail' else 'better'} {self.advice}" if self.advice else ""
        return f"{self.verdict:<5} {self.part:<14} {self.found}{advice}"


def verdict(findings: list[Finding]) -> tuple[dict[str, Any], ConfigurationError | None]:
    """All findings as one result, and the failure they are, if one is."""
    failed = [finding for finding in findings if finding.verdict == "fail"]
    result = {"verdict": "fail" if failed else "ok", "findings": [vars(finding) for finding in findings]}
    if not failed:
        return result, None
    got = "; ".join(f"{finding.part}: {finding.found}" for finding in failed)
    return result, ConfigurationError("not ready", "gan doctor", got, failed[0].advice)


def examine(storage: str, tracking_uri: str | None, start_ray: bool) -> Iterator[Finding]:
    """Look at each part in turn; nothing is created, and Ray is started only if asked for."""
    yield _python()
    yield from _packages()
    yield _cores()
    yield _memory()
    yield _shared_memory()
    yield _examined("gpus", _gpus)
    yield _examined("cluster", lambda: _ray(start_ray))
    yield _examined("storage", lambda: _storage(storage))
    yield _examined("tracking", lambda: _mlflow(tracking_uri, storage))


def _examined(part: str, examine_part: Callable[[], Finding]) -> Finding:
    """The finding of a part that needs packages to be looked at."""
    try:
        return examine_part()
    except ImportError as error:
        return Finding(part, "fail", f"cannot be looked at: {error}", installed.remedy())


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    required = str(metadata.metadata(installed.PACKAGE)["Requires-Python"])
    good = installed.allows(required, version)
    return Finding("python", "ok" if good else "fail", version, "" if good else f"Python {required}")


def _packages() -> Iterator[Finding]:
    """Each package that ours asks for, against the versions that it allows."""
    for package in installed.requirements("pipelines"):
        try:
            version = metadata.version(package.name)
        except metadata.PackageNotFoundError:
            yield Finding(package.name, "fail", "not installed", installed.remedy())
            continue
        good = package.allows(version)
        yield Finding(package.name, "ok" if good else "fail", version, "" if good else f"a version {package.versions}")


def _cores() -> Finding:
    usable, all_cores = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    count = f"{usable} of {all_cores} may be used" if usable < all_cores else f"{usable}"
    return Finding(
        "cores", "ok" if usable > 1 else "warn", count, "" if usable > 1 else "train.workers: 1, or more cores"
    )


def _memory() -> Finding:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in _lines("/proc/meminfo"):  # counts what caches would give back
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    (limit,), (used,) = (_lines(f"/sys/fs/cgroup/memory.{name}") or ["max"] for name in ("max", "current"))
    if limit.isdigit() and used.isdigit():
        free = min(free, int(limit) - int(used))
    return Finding(
        "memory", "ok" if free >= MEMORY else "warn", f"{free / 1e9:.1f} GB available",
        "" if free >= MEMORY else f"{MEMORY / 1e9:.0f} GB, or fewer train.workers",
    )  # fmt: skip


def _shared_memory() -> Finding:
    path = Path("/dev/shm")
    if not path.is_dir():
        return Finding("/dev/shm", "ok", "none; Ray uses files")
    free = shutil.disk_usage(path).free
    advice = "" if free >= SHARED else f"{SHARED / 1e9:.0f} GB: in a container --shm-size; Ray is slow without"
    return Finding("/dev/shm", "warn" if advice else "ok", f"{free / 1e9:.1f} GB free", advice)


def _gpus() -> Finding:
    import torch

    driver = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return Finding("gpus", "ok", f"{names}; CUDA {torch.version.cuda}, driver {driver or 'unknown'}")
    if driver:
        return Finding(
            "gpus", "warn", f"driver {driver}, and none that torch {torch.__version__} can use",
            f"a driver for CUDA {torch.version.cuda}, or train.gpu: false",
        )  # fmt: skip
    return Finding("gpus", "ok", "none; training uses the cores")


def _ray(start: bool) -> Finding:
    from pipelines.runtime import ray_session

    address = ray_session.address()
    where = f"the cluster of RAY_ADDRESS {address}" if address else "this machine"
    if not start:
        return Finding("cluster", "ok", f"would use {where}; --start tries it")
    started = time.monotonic()
    try:
        with ray_session.cluster():
            import ray

            resources = ray.cluster_resources()
            counts = ", ".join(f"{resources.get(name, 0):g} {name}" for name in ("CPU", "GPU"))
        return Finding("cluster", "ok", f"{where} answers: {counts}, after {time.monotonic() - started:.0f} s")
    except GanError as error:
        refusal, _, advice = str(error).partition("; expected ")
        return Finding("cluster", "fail", refusal, advice)


def _storage(place: str) -> Finding:
    from pipelines.storage import Storage, check_storage

    try:
        storage = Storage.at(place)
        check_storage(storage, wanted=int(MIN_DISK))
        runs = len(storage.child("runs").names())
    except (GanError, OSError) as error:
        return Finding("storage", "fail", str(error), "a folder that can be written: --storage PATH or GAN_STORAGE")
    if storage.local is None:
        return Finding("storage", "ok", f"{storage.uri}, {runs} runs")
    existing = next(folder for folder in [storage.local, *storage.local.parents] if folder.exists())
    free = shutil.disk_usage(existing).free
    summary = f"{storage.local}, {runs} runs, {free / 1e9:.1f} GB free"
    advice = "" if free >= DISK else f"{DISK / 1e9:.0f} GB; gan runs prune makes room"
    return Finding("storage", "warn" if advice else "ok", summary, advice)


def _mlflow(given_uri: str | None, place: str) -> Finding:
    from pipelines.registry.address import redacted, tracking_uri
    from pipelines.registry.backend import backend_of
    from pipelines.storage import Storage

    try:
        uri = tracking_uri(given_uri, Storage.at(place))
        shown, contents = redacted(uri), backend_of(uri).contents(uri)
    except GanError as error:
        return Finding("tracking", "fail", str(error))
    if contents is None:
        return Finding("tracking", "ok", f"{shown}, not there yet; the first gan run makes it")
    count, deleted = contents
    if not deleted:
        return Finding("tracking", "ok", f"{shown}, {count} registered models")
    named = ", ".join(map(visible, deleted[:5]))
    return Finding(
        "tracking", "warn", f"{shown}, {count} registered models, in its trash: {named}",
        "mlflow experiments restore, before a run registers a model of such a name",
    )  # fmt: skip


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _output(*command: str) -> str:
    """The first line a command prints, if it is installed and succeeds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else ""
