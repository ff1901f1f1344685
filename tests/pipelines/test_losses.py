"""A CPU that Ray has lost is found, said, and there again on a Ray started anew."""

import json
import subprocess
import sys

import pytest

from gan_core.checkpoint import tensors_digest
from tests.pipelines.conftest import SMALL, environment, trained_alone

# A training by the flow in a process of its own, in which a CPU is taken: before the stage, or when it has begun.
SCRIPT = """
import json, sys
from pipelines import config, losses, session
from pipelines.flow import Flow
from pipelines.run import Run
from pipelines.storage import Storage

path, folder, when = sys.argv[1:]
session.prepare_environment()
import ray

def take():
    @ray.remote(num_cpus=1)
    class Taker:
        def there(self):
            return True
    ray.get(Taker.options(name="taker", lifetime="detached").remote().there.remote())

def found_nothing():
    losses.still_unheld = look
    take()
    return ""

look, said = losses.still_unheld, []
run = Run.create(config.load(path, ["tune.candidates=0"]), "small", "it", Storage.at(folder))
flow = Flow(run, "", said.append)
with flow.working():
    flow.join_cluster()
    if when == "before":
        take()
    else:
        losses.still_unheld = found_nothing
    trained = flow.train()
    held = losses.unheld()
print(json.dumps({"said": said, "weights": trained.weights_sha256, "unheld": held}))
"""


@pytest.mark.timeout(1300)
@pytest.mark.parametrize("when", ["before", "within"])
def test_a_cpu_lost_to_a_training_is_there_on_a_ray_started_anew(when, small, digits, tmp_path):
    """Ray Train's placement group waited for it without end, and without a word, until its workers were late."""
    (tmp_path / "small.yaml").write_text(SMALL)
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "small.yaml", tmp_path, when],
        env=environment(), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout.splitlines()[-1])
    lines = [line for line in found["said"] if line.startswith("ray ")]
    assert len(lines) == 1, found["said"]
    assert "1 CPU" in lines[0]
    assert "started anew" in lines[0]
    assert found["unheld"] == ""
    tensors = trained_alone(small.training(), digits, 200).tensors()
    assert found["weights"] == tensors_digest(tensors["generator"], tensors["discriminator"])
