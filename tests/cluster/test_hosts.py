"""The pipeline on machines with addresses of their own: nothing but Ray's ports and the storage connects them."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from pipelines.storage import Storage
from tests.cluster import hosts
from tests.cluster.conftest import MIB, results
from tests.cluster.transcript import Shell
from tests.pipelines.conftest import environment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TOKEN = "0123456789abcdef" * 4
WHERE = """
import json
from ray.util.state import list_actors, list_nodes
addresses = {{node.node_id: node.node_ip for node in list_nodes("{address}")}}
filters = [("class_name", "=", "RayTrainWorker")]
print(json.dumps([sorted(addresses.values()), sorted(addresses[one.node_id] for one in list_actors("{address}", filters=filters))]))
"""


@pytest.fixture
def shell():
    """A shell in whose folder all lies that each machine has for itself."""
    place = Path(tempfile.mkdtemp(prefix="gan-"))  # short, for Ray's sockets
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    made = Shell(place, environment(PATH=path, PYTHONPATH=str(ROOT), RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN))
    yield made
    made.close()
    shutil.rmtree(place, ignore_errors=True)


def started(shell, count):
    """A head without CPUs and so many machines of one, each with its own address and folder."""
    if why := hosts.obstacle(shell):
        pytest.skip(why)
    head, *others = hosts.connected(shell, count + 1)
    common = f"--object-store-memory={150 * MIB} --disable-usage-stats"
    folder = shell.log.parent
    shell.run("export GLOO_SOCKET_IFNAME=eth0")  # where a machine's name is 127.0.0.1, gloo would listen there alone
    head.run(f"ray start --head --node-ip-address={head.address} --num-cpus=0 --temp-dir={folder}/head {common}")
    for number, other in enumerate(others):
        other.run(
            f"ray start --address={head.address}:6379 --node-ip-address={other.address} --num-cpus=1 "
            f"--temp-dir={folder}/{number} {common}"
        )
    return head, others


def test_pipeline_on_separate_hosts_equals_one_machine(shell, finished, small_yaml, tmp_path):
    """On hosts with addresses of their own the pipeline ends with the bits of one machine; every host works."""
    head, others = started(shell, 2)
    address = f"{head.address}:6379"
    head.run(
        f"env RAY_ADDRESS={address} gan run {small_yaml} --name small-run --storage {tmp_path}/shared "
        f"--tracking-uri sqlite:///{tmp_path}/mlflow.db"
    )
    run = Storage.at(tmp_path / "shared" / "runs" / "small-run")
    assert results(run) == results(Storage.at(finished.folder))
    (tmp_path / "where.py").write_text(WHERE.format(address=address))
    nodes, workers = json.loads(head.run(f"python {tmp_path}/where.py").splitlines()[-1])
    assert nodes == [host.address for host in (head, *others)]
    assert workers == [host.address for host in others]
