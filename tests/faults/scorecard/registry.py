"""A registry that fails at random requests, and processes that move one champion at once: one version each, no move lost."""

import contextlib
import dataclasses
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from gan_core.errors import GanError, RegistryError
from pipelines.registry import Registry
from pipelines.registry.champion_history import PENDING_TAG, ChampionHistory
from pipelines.registry.mlflow_client import open_client
from tests.faults.proxy import Faults, Kind, failing
from tests.faults.scorecard.parts import Measures, Part, Row, of_all
from tests.pipelines.conftest import Place, serving_mlflow
from tests.pipelines.contenders import night, together

SHARE, TRIES = 0.06, 8  # of requests that fail; of the same command, until all of them have come through
PROCESSES, ROUNDS = 6, 3


@dataclass
class RandomFaults(Faults):
    """A share of all requests fails, each in a way of its own."""

    share: float = SHARE
    drawn: random.Random = dataclasses.field(default_factory=random.Random)
    delay: float = 0.5

    def due(self, method: str, path: str) -> bool:
        """Whether this request fails, and how; reads too."""
        self.kind = self.drawn.choice(get_args(Kind))
        due = self.drawn.random() < self.share and not path.startswith("/health")
        self.done += [f"{self.kind} {method} {path}"] if due else []
        return due


@dataclass
class Proxied:
    """A server, an address before it that fails, and what fails there."""

    server: Place
    address: str
    faults: RandomFaults
    folder: Path
    seed: int


@contextlib.contextmanager
def proxied(folder: Path, seed: int) -> Iterator[Proxied]:
    """A real MLflow server behind the proxy."""
    shutil.rmtree(folder / "server", ignore_errors=True)
    (folder / "server").mkdir()
    faults = RandomFaults()
    with serving_mlflow(folder / "server") as server, failing(server.uri, faults) as (address, _):
        yield Proxied(server, address, faults, folder, seed)


def register_through_faults(place: Proxied, number: int) -> Measures:
    """Register and promote one run's model, again until it is done: one version, one move, nothing announced."""
    name = f"gan-{place.seed}-{number}"
    place.faults.drawn = random.Random(f"{place.seed} {number}")
    place.faults.share, place.faults.done = SHARE, []
    tries, said = 0, ""
    while tries < TRIES:
        tries += 1
        place.faults.share = SHARE if tries < TRIES else 0.0
        try:
            night(place.address, str(place.folder / name), name, "run", 6)
            break
        except RegistryError:
            continue
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            break
    registry = Registry(place.server.uri)
    versions = registry.versions(name)
    moves = [(move.former, move.version) for move in ChampionHistory(registry, name).moves()]
    faults = [said] if said else []
    faults += [f"{len(versions)} versions"] if len(versions) != 1 else []
    faults += [f"moves {moves}"] if moves != [(None, 1)] else []
    faults += [f"runs {runs}"] if (runs := _unfinished_or_twice(registry, name)) else []
    return {
        "fault": "; ".join(faults),
        "duplicates": len(versions) - 1,
        "failed": len(place.faults.done),
        "tries": tries,
    }


def _unfinished_or_twice(registry: Registry, name: str) -> list[str]:
    client: Any = registry.backend.client  # type: ignore[attr-defined]
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    names = [run.info.run_name for run in runs]
    return sorted(one for one in set(names) if names.count(one) > 1)


def _proxy_rows(measures: Sequence[Measures]) -> list[Row]:
    duplicates = sum(max(0, one["duplicates"]) for one in measures)
    failed = sum(one["failed"] for one in measures)
    return [
        Row("duplicate versions under proxy faults", "0", f"{duplicates}; {len(measures)} runs, {failed} failed requests", not duplicates),
        of_all(measures, "one version, one move, one run of each kind", "all"),
    ]  # fmt: skip


def contend(uri: str, storage: str, name: str, worker: int, seed: int) -> dict[str, int]:
    """Register, promote, force and roll back at random; how many of each have succeeded, and versions made."""
    drawn, done = random.Random(f"{seed} {worker}"), {"moves": 0, "versions": 0, "errors": 0}
    for step in range(ROUNDS):
        try:
            number, _ = night(uri, storage, name, f"run-{worker}-{step}", drawn.randint(2, 10))
            done["versions"] += 1
            registry = Registry(uri)
            history = ChampionHistory(registry, name)
            if drawn.random() < 0.5:
                version = registry.version(name, number)
                assert version is not None
                history.force(version, f"by {worker}")
            else:
                history.rollback()
            done["moves"] += 1
        except RegistryError:  # champion already, nothing to roll back to, a champion that keeps changing
            done["errors"] += 1
        except GanError:
            done["errors"] += 1000
    return done


@contextlib.contextmanager
def database(folder: Path, seed: int) -> Iterator[tuple[Path, int]]:
    """An empty MLflow database to copy."""
    if not (folder / "template.db").exists():
        open_client(f"sqlite:///{folder}/new.db", create=True)
        (folder / "new.db").rename(folder / "template.db")
    yield folder, seed


def race(place: tuple[Path, int], number: int) -> Measures:
    """Six processes at one model: the chain of moves is whole, and none that was reported is missing."""
    folder, seed = place
    shutil.copy(folder / "template.db", folder / f"{number}.db")
    uri, name = f"sqlite:///{folder}/{number}.db", f"gan-{number}"
    Registry(uri).backend.create_model(name)
    jobs = [(uri, str(folder / "storage"), name, worker, 1000 * seed + number) for worker in range(PROCESSES)]
    done = together(contend, jobs)
    registry = Registry(uri)
    moves, tags = ChampionHistory(registry, name).moves(), registry.registered(name).tags
    reported = sum(one["moves"] for one in done)
    by_hand = sum(move.by in ("force", "rollback") for move in moves)
    versions = len(registry.versions(name))
    faults = [f"{by_hand} moves, {reported} reported"] if by_hand != reported else []
    faults += [f"{versions} versions of {PROCESSES * ROUNDS} runs"] if versions != PROCESSES * ROUNDS else []
    broken = [
        move.number
        for before, move in zip([None, *moves], moves, strict=False)
        if move.former != (before and before.version)
    ]
    faults += [f"broken at moves {broken}"] if broken else []
    numbers = [move.number for move in moves]
    faults += [f"numbers {numbers}"] if numbers != list(range(1, len(moves) + 1)) else []
    last = moves[-1].version if moves else None
    faults += ["the alias is elsewhere"] if registry.aliases(name).get("champion") != last else []
    faults += ["a move is still announced"] if PENDING_TAG in tags else []
    faults += [json.dumps(done)] if any(one["errors"] >= 1000 for one in done) else []
    (folder / f"{number}.db").unlink()
    return {"fault": "; ".join(faults), "moves": len(moves)}


def _race_rows(measures: Sequence[Measures]) -> list[Row]:
    moves = sum(one["moves"] for one in measures)
    return [
        of_all(measures, f"six processes registering, promoting, rolling back: the chain of {moves} moves whole", "all")
    ]


PROXY = Part("proxy", 25, proxied, register_through_faults, _proxy_rows)
CONTENDERS = Part("contenders", 5, database, race, _race_rows)
