"""What this machine offers a run: each part with a verdict, and what to do about it."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from gan_core.errors import GanError
from pipelines import mlflow_client, session
from pipelines.storage import Storage, check_storage

PACKAGE = "adversarial-nets-on-ray"
# A training worker is 0.9 GB, Ray's own processes 2 GB.
MEMORY, DISK, SHARED = 4e9, 5e9, 1e9  # bytes, below which there is a warning
LEAST = 1e8  # bytes on the disk, without which nothing can be kept
ANSWER_SECONDS = 5


@dataclass(frozen=True)
class Finding:
    """One part, what was found, and what to do if it is not ok."""

    part: str
    verdict: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


def examine(storage: Storage, tracking_uri: Callable[[], str], start_ray: bool) -> Iterator[Finding]:
    """Look at each part in turn; nothing is created, and Ray is started only if asked for."""
    yield _python()
    yield from _packages()
    yield _cores()
    yield _memory()
    yield _shared_memory()
    yield _gpus()
    yield _ray(start_ray)
    yield _storage(storage)
    yield _mlflow(tracking_uri)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    from packaging.specifiers import SpecifierSet

    wanted = str(metadata.metadata(PACKAGE)["Requires-Python"])
    good = SpecifierSet(wanted).contains(version)
    return Finding("python", "ok" if good else "fail", version, "" if good else f"Python {wanted}")


def _packages() -> Iterator[Finding]:
    """Each package that ours asks for, against the versions that it allows."""
    from packaging.requirements import Requirement

    for text in metadata.requires(PACKAGE) or []:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": "pipelines"}):
            continue
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            yield Finding(
                wanted.name, "fail", "not installed", f"make setup, or pip install '{wanted.name}{wanted.specifier}'"
            )
            continue
        good = wanted.specifier.contains(version, prereleases=True)
        yield Finding(wanted.name, "ok" if good else "fail", version, "" if good else f"a version {wanted.specifier}")


def _cores() -> Finding:
    usable, all_cores = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    found = f"{usable} of {all_cores} may be used" if usable < all_cores else f"{usable}"
    return Finding(
        "cores", "ok" if usable > 1 else "warn", found, "" if usable > 1 else "train.workers: 1, or more cores"
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
    address = session.address()
    where = f"the cluster of RAY_ADDRESS {address}" if address else "this machine"
    if not start:
        return Finding("cluster", "ok", f"would use {where}; --start tries it")
    started = time.monotonic()
    try:
        with session.cluster():
            import ray

            resources = ray.cluster_resources()
            found = ", ".join(f"{resources.get(name, 0):g} {name}" for name in ("CPU", "GPU"))
        return Finding("cluster", "ok", f"{where} answers: {found}, after {time.monotonic() - started:.0f} s")
    except GanError as error:
        found, _, advice = str(error).partition("; expected ")
        return Finding("cluster", "fail", found, advice)


def _storage(storage: Storage) -> Finding:
    try:
        check_storage(storage, wanted=int(LEAST))
        runs = len(storage.within("runs").names())
    except (GanError, OSError) as error:
        return Finding("storage", "fail", str(error), "a folder that can be written: --storage PATH or GAN_STORAGE")
    if storage.local is None:
        return Finding("storage", "ok", f"{storage.uri}, {runs} runs")
    existing = next(folder for folder in [storage.local, *storage.local.parents] if folder.exists())
    free = shutil.disk_usage(existing).free
    found = f"{storage.local}, {runs} runs, {free / 1e9:.1f} GB free"
    advice = "" if free >= DISK else f"{DISK / 1e9:.0f} GB; gan runs prune makes room"
    return Finding("storage", "warn" if advice else "ok", found, advice)


def _mlflow(tracking_uri: Callable[[], str]) -> Finding:
    try:
        uri = tracking_uri()
        shown = mlflow_client.redacted(uri)
        if not mlflow_client.database_exists(uri):
            return Finding("tracking", "ok", f"{shown}, not there yet; the first gan run makes it")
        if uri.startswith("sqlite:///"):
            return _sqlite(uri, shown)
        mlflow_client.check_reachable(uri)
        if not uri.startswith(("http://", "https://")):
            mlflow_client.open_client(uri)
    except GanError as error:
        return Finding("tracking", "fail", str(error), "--tracking-uri or MLFLOW_TRACKING_URI of a server that answers")
    return Finding("tracking", "ok", f"{shown} answers")


def _sqlite(uri: str, shown: str) -> Finding:
    path = uri.removeprefix("sqlite:///")
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=ANSWER_SECONDS) as database:
            (count,) = database.execute("select count(*) from registered_models").fetchone()
        database.close()
    except sqlite3.Error as error:
        return Finding("tracking", "fail", f"{shown}: {error}", "a database of MLflow, or another --tracking-uri")
    return Finding("tracking", "ok", f"{shown}, {count} registered models")


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
