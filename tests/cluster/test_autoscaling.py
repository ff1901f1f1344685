"""A cluster that grows: nodes start when a run asks for them, and go when it has ended."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import ray
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
from ray.autoscaler._private.monitor import BASE_READONLY_CONFIG

from pipelines.storage import Storage
from tests.cluster.conftest import MIB, Joined, results
from tests.cluster.transcript import Shell
from tests.conftest import free_port
from tests.pipelines.conftest import environment, failed, until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
HEAD = "ray.head.default"
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"  # its own type lacks a file in Ray's wheel
# Ray's second autoscaler, which KubeRay and `ray up` use here, and its provider of nodes that are raylets of this machine.
GROWING = {
    "RAY_enable_autoscaler_v2": "1",
    "RAY_FAKE_CLUSTER": "1",
    "RAY_NODE_TYPE_NAME": HEAD,
    "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
}


def autoscaler(address):
    """Two nodes of one CPU at most and none at least; one that is idle for half a minute goes."""
    node = {"resources": {"CPU": 1, "object_store_memory": 150 * MIB}, "node_config": {}}
    return {
        **BASE_READONLY_CONFIG,  # for the many keys that are to be there, and empty
        "cluster_name": "growing",
        "max_workers": 2,
        "idle_timeout_minutes": 0.5,
        "provider": {
            "type": "external", "module": PROVIDER, "gcs_address": address, "head_node_id": FAKE_HEAD_NODE_ID, "launch_multiple": True,
            "disable_node_updaters": True, "disable_launch_config_check": True,
        },
        "head_node_type": HEAD,
        "available_node_types": {
            HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "small": {**node, "min_workers": 0, "max_workers": 2},
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def growing(tmp_path_factory):
    """The head of such a cluster. Ray's AutoscalingCluster would begin by ending every Ray on the machine."""
    place = Path(tempfile.mkdtemp(prefix="gan-"))  # short, for Ray's sockets
    cluster = Joined(tmp_path_factory.mktemp("growing"), f"{ray.util.get_node_ip_address()}:{free_port()}")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    joining = {name: value for name, value in cluster.environment.items() if name != "RAY_ADDRESS"}
    shell = Shell(place, environment(PATH=path, PYTHONPATH=str(ROOT), **joining, **GROWING))
    (place / "autoscaler.json").write_text(json.dumps(autoscaler(cluster.address)))
    try:
        code, answer = shell.run(
            f"ray start --head --port={cluster.address.split(':')[1]} --num-cpus=0 "
            f"--dashboard-port={free_port()} --ray-client-server-port={free_port()} --dashboard-agent-listen-port={free_port()} "
            f"--object-store-memory={150 * MIB} --temp-dir={place}/ray --autoscaling-config={place}/autoscaler.json"
        )
        assert code == 0, answer
        yield cluster
    finally:
        shell.close()
        shutil.rmtree(place, ignore_errors=True)


def workers(cluster, **state):
    """The nodes that the autoscaler has ever added, or that are in a state, by id."""
    from ray.util.state import list_nodes

    filters = [("is_head_node", "=", "False"), *(("state", "=", value) for value in state.values())]
    # Ray counts what a filter leaves out as missing.
    found = list_nodes(cluster.address, filters=filters, limit=1000, raise_on_missing_output=False)
    return {node.node_id for node in found}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("tune.candidates=0", "train.workers=4", "algorithm.batch_size=40"), ("4 CPU", "train.workers")),
        (("tune.candidates=0", "train.workers=2", "train.threads_per_worker=2"), ("4 CPU", "train.threads_per_worker")),
        (("train.workers=1", "tune.resources_per_trial.cpu=2"), ("2 CPU", "tune.resources_per_trial.cpu")),
    ],
)
def test_unplaceable_resources_are_refused_before_any_worker(growing, small_yaml, tmp_path, more, words):
    """Resources that no node the autoscaler could add would hold are refused before any worker starts."""
    settings = [part for one in more for part in ("--set", one)]
    answer = growing.gan("run", small_yaml, "--storage", tmp_path / "shared", *settings)
    failed(answer, 2, "not enough resources", *words, "what its autoscaler could add")
    assert growing.actors("ImplicitFunc") + growing.actors("RayTrainWorker") == {}


def test_autoscaled_run_equals_one_machine_and_nodes_go(growing, finished, small_yaml, tmp_path):
    """A run whose nodes the autoscaler starts ends with the bits of one machine; idle nodes go again."""
    until(lambda: workers(growing, state="ALIVE") == set())
    before = workers(growing)
    answer = growing.gan(
        "run", small_yaml, "--name", "small-run", "--storage", tmp_path / "shared",
        "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    run = Storage.at(tmp_path / "shared" / "runs" / "small-run")
    assert results(run) == results(Storage.at(finished.folder))
    added = workers(growing) - before
    assert len(added) >= 2, "no nodes were started"
    trials, trained = growing.actors("ImplicitFunc"), growing.actors("RayTrainWorker")
    assert set(trials) | set(trained) <= added
    assert trained == dict.fromkeys(trained, 1)  # one CPU, one worker
    assert len(trained) == 2
    until(lambda: workers(growing, state="ALIVE") == set())
