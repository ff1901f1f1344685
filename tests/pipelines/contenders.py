"""What processes that race for one registry do; kept apart so that a fork server can import it once."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from gan_core.datasets import DataSettings, load
from pipelines import config
from pipelines.registry import Registry
from pipelines.registry.champion_history import ChampionHistory
from pipelines.registry.lease import Lease
from pipelines.registry.promotion_gate import Verdict, judge_version
from pipelines.registry.registration import register, registering
from pipelines.registry.tracking import Tracking
from pipelines.storage import Storage
from tests.conftest import fork_server
from tests.pipelines.conftest import principal_generator

SIGMA = 0.2154
COUNTER = "test.counter"
PRELOADED = (__name__, "mlflow.pyfunc", "mlflow.store.model_registry.sqlalchemy_store")


class Mortal:
    """A registry's backend whose process ends just before its n-th write, by an exception or for good."""

    def __init__(self, backend: Any, writes: int, end: Callable[[], Any]) -> None:
        self.backend, self.left, self.end = backend, writes, end

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.backend, name)
        if not name.startswith(("set_", "delete_", "create_")):
            return method

        def write(*arguments: Any, **named: Any) -> Any:
            self.left -= 1
            if self.left <= 0:  # nothing that comes after is written either
                self.end()
            return method(*arguments, **named)

        return write


def kill_self() -> None:
    """What the machine does when it loses power."""
    os.kill(os.getpid(), signal.SIGKILL)


def together(worker: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Run a worker in as many processes as there are arguments, at once, and return what each of them gave."""
    context = fork_server(*PRELOADED)
    with context.Pool(len(arguments), maxtasksperchild=1) as pool:
        return pool.starmap(worker, arguments, chunksize=1)


def alone(worker: Callable[..., Any], *arguments: Any) -> int | None:
    """Run a worker in a process of its own, and return how it ended."""
    process = fork_server(*PRELOADED).Process(target=worker, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def count(uri: str, name: str, rounds: int) -> None:
    """Add to a tag, by reading and writing it, which loses counts unless one process at a time does."""
    backend = Registry(uri).backend
    for _ in range(rounds):
        with Lease(backend, name, term=20).held():
            value = int(backend.model(name).tags.get(COUNTER, 0))
            time.sleep(0.02)
            backend.set_tag(name, COUNTER, str(value + 1))


def die_after(uri: str, name: str, number: int, writes: int) -> None:
    """Promote a version, and be killed before the n-th write."""
    registry = Registry(uri)
    version = registry.resolve(f"{name}/{number}")
    registry.backend = Mortal(registry.backend, writes, kill_self)
    ChampionHistory(registry, name).promote(version, lambda champion: Verdict(True, "better, in a test"))


def night(uri: str, storage: str, name: str, run: str, components: int, **gate: Any) -> tuple[int, bool]:
    """Register a model and ask the gate, of some settings, about it, as a run's last stage does."""
    registry, digits = Registry(uri), load(DataSettings("digits"))
    model = principal_generator(digits, components)
    with registering(registry, name, run):
        runs = Tracking(registry.backend, name, run, Storage.at(storage))
    known = {"run": run, "weights_sha256": model.sha256, "generator_sha256": model.sha256, "config_digest": "c0"}
    version = register(
        registry, name, runs.parent, model, {**known, "sigma": SIGMA, "data": "digits", "data_digest": digits.digest}
    )
    configuration = config.build({"evaluate": {"samples": 300}, "registry": {"gate": {"min_margin": 0.0, **gate}}})
    history = ChampionHistory(registry, name)
    history.challenge(version)
    verdict = history.promote(
        version, lambda champion: judge_version(registry, version, champion, configuration, digits)
    )
    return version.version, verdict.promoted
