"""Ray clusters of several raylets on this machine, each with a folder and a home of its own."""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from pipelines.storage import Storage
from tests.conftest import free_port
from tests.pipelines.conftest import Answer, digits, finished, gan, here, small_yaml, start_gan

__all__ = ["digits", "finished", "here", "small_yaml"]  # fixtures of the pipelines' tests

MIB = 2**20
RESULTS = {
    "tune": ("chosen", "candidate", "log_likelihood", "coverage", "rung_correlation"),
    "train": ("weights_sha256", "generator_sha256", "averaged_sha256", "step"),
    "evaluate": ("log_likelihood", "standard_error", "sigma", "coverage"),
}


def results(run: Storage) -> dict[str, dict[str, Any]]:
    """What a finished run has found, which does not depend on where it ran."""
    records = {stage: run.child("records").read_json(f"{stage}.json")["record"] for stage in RESULTS}
    return {stage: {key: records[stage][key] for key in keys} for stage, keys in RESULTS.items()}


@dataclass
class Joined:
    """A cluster, as one who joins it sees it."""

    folder: Path
    address: str

    @property
    def environment(self) -> dict[str, str]:
        """What a user's shell has to join."""
        names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
        return {"RAY_ADDRESS": self.address, **{name: os.environ[name] for name in names if name in os.environ}}

    def gan(self, *arguments: object) -> Answer:
        """The command, on this cluster."""
        return gan(*arguments, cwd=self.folder, **self.environment)

    def start_gan(self, *arguments: object) -> Any:
        """The command, started."""
        return start_gan(*arguments, cwd=self.folder, **self.environment)

    def actors(self, class_name: str, **state: str) -> Counter[str]:
        """How many actors of a class each node has had, or has in this state, by node id."""
        from ray.util.state import list_actors

        filters = [("class_name", "=", class_name), *(("state", "=", value) for value in state.values())]
        return Counter(actor.node_id for actor in list_actors(self.address, filters=filters, limit=1000))


@dataclass
class Machines(Joined):
    """A head without CPUs, where the driver is, and nodes of one CPU each. To be used in the main thread (Ray's own rule)."""

    cluster: Cluster
    nodes: list[Any] = field(default_factory=list)

    def add(self) -> None:
        """One more node, which was started elsewhere and has another home: nothing relative reaches it."""
        place, before = Path(tempfile.mkdtemp(prefix="node-", dir=self.folder)), Path.cwd()
        (place / "home").mkdir()
        os.chdir(place)
        try:
            variables = {"HOME": str(place / "home"), "GAN_STORAGE": "/nowhere"}
            self.nodes.append(self.cluster.add_node(num_cpus=1, env_vars=variables))
        finally:
            os.chdir(before)

    def lose(self, node_id: str) -> None:
        """A node and all its processes end at once."""
        (node,) = [node for node in self.nodes if node.node_id == node_id]
        self.nodes.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Machines]]:
    """Starts a cluster of this many nodes."""
    started = []
    # Ray notes there which cluster to join by default: none of these. A socket's path must be short.
    own = Path(tempfile.mkdtemp(prefix="gan-"))
    (own / "ray").mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(own))

    def start(count: int) -> Machines:
        arguments = {
            "num_cpus": 0,
            "include_dashboard": True,
            "dashboard_port": free_port(),
            "object_store_memory": 150 * MIB,
        }
        cluster = Cluster(initialize_head=True, head_node_args=arguments)
        started.append(cluster)
        machines = Machines(tmp_path, cluster.address, cluster)
        for _ in range(count):
            machines.add()
        return machines

    yield start
    for cluster in started:
        cluster.shutdown()
    shutil.rmtree(own, ignore_errors=True)
