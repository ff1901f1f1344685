"""What Ray has lost is found, said, and there again on a Ray started anew."""

import json
import subprocess
import sys

import pytest

from gan_core.checkpoint import tensors_digest
from pipelines import config
from tests.pipelines.conftest import SMALL, environment, trained_alone

STEPS = 1500  # some seconds: it is not over before it is disturbed
# A training by the flow in a process of its own. A CPU is taken before the stage, or when it has begun; or the raylet is
# killed in the middle.
SCRIPT = """
import json, signal, sys, threading, time
from pipelines import config
from pipelines.runtime import lost_resources, ray_session
from pipelines.flow import Flow
from pipelines.runs.run import Run
from pipelines.storage import Storage, checkpoint_names

path, folder, steps, when = sys.argv[1:]
ray_session.prepare_environment()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as `gan` does
import ray, psutil

def take():
    @ray.remote(num_cpus=1)
    class Taker:
        def there(self):
            return True
    ray.get(Taker.options(name="taker", lifetime="detached").remote().there.remote())

def found_nothing():
    lost_resources.still_unheld = look
    take()
    return ""

def kill_raylet():
    while not checkpoint_names(run.folder.child("checkpoints"))[1:]:
        time.sleep(0.05)
    [raylet] = [child for child in psutil.Process().children() if child.name() == "raylet"]
    raylet.kill()

look, said = lost_resources.still_unheld, []
run = Run.create(config.load(path, ["tune.candidates=0", "algorithm.steps=" + steps]), "small", "it", Storage.at(folder))
flow = Flow(run, "", said.append)
with flow.working():
    flow.cluster.join()
    if when == "before":
        take()
    elif when == "killed":
        threading.Thread(target=kill_raylet, daemon=True).start()
    else:
        lost_resources.still_unheld = found_nothing
    trained = flow.do("train")
    held = look()
print(json.dumps({"said": said, "weights": trained.weights_sha256, "unheld": held}))
"""


@pytest.mark.timeout(1300)
@pytest.mark.parametrize(
    ("when", "lost"),
    [
        ("before", "1 CPU"),
        pytest.param("within", "1 CPU", marks=pytest.mark.slow),
        pytest.param("killed", "its raylet", marks=pytest.mark.slow),
    ],
)
def test_what_ray_loses_is_there_on_one_started_anew(when, lost, small, digits, tmp_path):
    """Ray Train waited for a lost CPU without end, and without a word, until its workers were late."""
    (tmp_path / "small.yaml").write_text(SMALL)
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "small.yaml", tmp_path, str(STEPS), when],
        env=environment(), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout.splitlines()[-1])
    lines = [line for line in found["said"] if line.startswith("ray    lost")]
    assert len(lines) == 1, found["said"]
    assert f"lost: {lost}" in lines[0]
    assert "started anew" in lines[0]
    assert found["unheld"] == ""
    settings = config.override(small, {"algorithm.steps": STEPS}).training()
    tensors = trained_alone(settings, digits, STEPS).tensors()
    assert found["weights"] == tensors_digest(tensors["generator"], tensors["discriminator"])
