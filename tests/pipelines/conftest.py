"""What the pipeline's tests share: a small configuration, the `gan` command, one finished run, a server."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cluster.mlflow_server import ADMINISTRATOR, Service
from gan_core.datasets import Dataset, DataSettings, load
from gan_core.networks.dense import DenseGenerator, DenseGeneratorSettings
from gan_core.noise import NoiseSettings
from gan_core.portable import PortableGenerator
from gan_core.state import State
from gan_core.threads import one_thread
from gan_core.training import TrainingSettings, initial_state, train
from pipelines import config
from pipelines.cli import main
from pipelines.config import Configuration
from pipelines.storage import Storage
from tests.conftest import free_port
from tests.pipelines.in_memory_registry import in_memory

# A gate through which a model of a few seconds' training passes.
ANY_MODEL = {"min_points": 2, "max_duplicates": 1.0, "min_coverage": 0.0, "min_skill": None, "min_copying": 0.0}

# Real digits, nets of a few thousand weights: what the stages do, in seconds.
SMALL = (
    """
data: {name: digits}
noise: {size: 8}
network:
  generator: {hidden: [32]}
  discriminator: {units: [16, 16], pieces: 2}
algorithm: {batch_size: 50, steps: 200, generator_average: 0.95}
train: {workers: 2, checkpoint_every: 50, report_every: 10}
tune:
  candidates: 2
  rungs: [20, 40]
  samples: 200
  confirm: {best: 1, seeds: 1}
  space:
    algorithm.generator_learning_rate: {log_uniform: [0.03, 0.3]}
evaluate: {samples: 500, folds: 4, weights: last}
"""
    + f"registry: {{model: gan-small, gate: {json.dumps(ANY_MODEL)}}}\n"
)
# What a user's shell does not have: the test process's own cluster and places.
PRIVATE = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_URI", "GAN_STORAGE")


def environment(**more: str) -> dict[str, str]:
    """A user's environment."""
    return {**{key: value for key, value in os.environ.items() if key not in PRIVATE}, **more}


@dataclass(frozen=True)
class Answer:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out.splitlines()[-1])

    @property
    def error(self) -> str:
        """The last line of stderr, where an error is."""
        return self.err.splitlines()[-1]


def start_gan(*arguments: object, cwd: Path, **more: str) -> subprocess.Popen[str]:
    """Start the command as a process group of its own."""
    command = [sys.executable, "-m", "pipelines.cli", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=cwd, env=environment(**more), text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def gan(*arguments: object, cwd: Path, timeout: float | None = None, **more: str) -> Answer:
    """Run the command to its end."""
    process = start_gan(*arguments, cwd=cwd, **more)
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        kill_group(process)
    return Answer(process.returncode, out, err)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """The command in this process, which spares the seconds that importing torch takes."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "GAN_STORAGE"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["gan", *map(str, arguments)])
        monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # `main` sets another
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        with pytest.raises(SystemExit) as ended:
            main()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        return Answer(ended.value.code, *capsys.readouterr())

    return run


def failed(answer: Answer, code: int, *words: str) -> None:
    """The command ended with this code and one line on stderr that has these words."""
    assert answer.code == code, answer.err
    if answer.out:  # with --json: the same for programs
        assert answer.json == {**answer.json, "error": answer.error.removeprefix("error: "), "exit_code": code}
    lines = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    assert lines == [answer.error], answer.err
    assert "Traceback" not in answer.err
    assert [word for word in words if word not in answer.error] == [], answer.error


def kill_group(process: subprocess.Popen[str]) -> None:
    """SIGKILL to a command of ours and all that it started; nothing if it has ended."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def until(happened: Callable[[], Any], seconds: float = 400) -> Any:
    """Wait until something is true, and return it."""
    end = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="session")
def small_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small configuration, as a file."""
    path = tmp_path_factory.mktemp("configuration") / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="session")
def small() -> Configuration:
    """The small configuration."""
    return config.build(config.parse_yaml(SMALL, "SMALL"))


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """The embedded data set."""
    return load(DataSettings("digits"))


def trained_alone(settings: TrainingSettings, data: Dataset, steps: int) -> State:
    """The state after `steps`, by gan_core alone: in this process, on one thread, without Ray."""
    with one_thread():
        state = initial_state(settings, data.train, data.shape)
        for _ in train(settings, data.train, state, steps, lambda step: False):
            pass
    return state


def principal_generator(data: Dataset, components: int, width: int = 16) -> PortableGenerator:
    """A generator in closed form: x = mean + sum_i z_i sqrt(variance_i) component_i, z normal.

    With more components it is closer to the data, and with none it is the mean alone: collapsed.
    """
    images = data.train.images.astype(np.float64)
    _, lengths, directions = np.linalg.svd(images - images.mean(axis=0), full_matrices=False)
    scaled = directions[:width] * (lengths[:width, None] / np.sqrt(len(images)))
    scaled[components:] = 0
    settings = DenseGeneratorSettings(hidden=(width,), activation="linear", output="linear", marginal_bias=False)
    net = DenseGenerator(width, 0, images.shape[1], settings)
    with torch.no_grad():
        net.weights[0].copy_(torch.eye(width))
        net.weights[1].copy_(torch.from_numpy(scaled))
        net.biases[1].copy_(torch.from_numpy(images.mean(axis=0)))
    return PortableGenerator(net.eval(), NoiseSettings("normal", width), settings, data.shape)


@dataclass(frozen=True)
class Finished:
    """A run that `gan run` has finished."""

    name: str
    yaml: Path
    storage: Path
    answer: Answer
    listeners: frozenset[tuple[str, str]]  # names of its processes, and addresses on which they listened

    @property
    def folder(self) -> Path:
        return self.storage / "runs" / self.name

    def record(self, stage: str) -> dict[str, Any]:
        return json.loads((self.folder / "records" / f"{stage}.json").read_text())["record"]


@pytest.fixture(scope="session")
def finished(small_yaml: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """`gan run` on the small configuration: all five stages, two Ray Train workers, an sqlite MLflow."""
    storage = tmp_path_factory.mktemp("finished")
    process = start_gan("run", small_yaml, "--name", "small-run", "--storage", storage, "--json", cwd=storage)
    done, seen = threading.Event(), set()

    def watch() -> None:
        while not done.wait(0.5):
            seen.update(listeners(process.pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        out, err = process.communicate()
    finally:
        done.set()
        thread.join()
        kill_group(process)
    assert process.returncode == 0, err
    return Finished("small-run", small_yaml, storage, Answer(0, out, err), frozenset(seen))


def listeners(pid: int) -> set[tuple[str, str]]:
    """On which addresses a process and its descendants listen now, with their names."""
    import ray  # noqa: F401, brings psutil
    from psutil import NoSuchProcess, Process

    found = set()
    with contextlib.suppress(NoSuchProcess):
        for process in [root := Process(pid), *root.children(recursive=True)]:
            with contextlib.suppress(NoSuchProcess):
                sockets = [socket for socket in process.net_connections("inet") if socket.status == "LISTEN"]
                name = (process.cmdline() or [process.name()])[0]
                found |= {(name, socket.laddr.ip) for socket in sockets}
    return found


LOOPBACK = {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


@dataclass(frozen=True)
class Place:
    """An MLflow: its address, the storage whose runs are copied there, and where model files end up."""

    uri: str
    storage: Storage
    files: Path


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A real MLflow server, up for as long as the tests run."""
    with serving_mlflow(tmp_path_factory.mktemp("server")) as place:
        yield place


@contextlib.contextmanager
def serving_mlflow(folder: Path) -> Iterator[Place]:
    """A real MLflow server on a free port, with all that it keeps in a folder."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(**quiet), start_new_session=True, stdout=log, stderr=log
        )
        try:
            until(lambda: _healthy(f"http://127.0.0.1:{port}/health"))
            yield Place(f"http://127.0.0.1:{port}", Storage.at(folder / "storage"), folder / "files")
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="session")
def team(team_service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The service for a team, and a colleague's account in the environment."""
    with pytest.MonkeyPatch.context() as account:
        account.setenv("MLFLOW_TRACKING_USERNAME", ADMINISTRATOR)
        account.setenv("MLFLOW_TRACKING_PASSWORD", team_service.secret("admin_password"))
        storage = Storage.at(tmp_path_factory.mktemp("team"))
        yield Place(team_service.address, storage, team_service.folder / "artifacts")


@pytest.fixture(scope="module")
def mlflow_database(database_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """An MLflow database in a file."""
    folder = tmp_path_factory.mktemp("sqlite")
    shutil.copy(database_template, folder / "mlflow.db")
    return Place(f"sqlite:///{folder}/mlflow.db", Storage.at(folder), folder / "mlartifacts")


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A registry in memory, which is no MLflow."""
    folder = tmp_path_factory.mktemp("memory")
    with in_memory(folder.name) as uri:
        yield Place(uri, Storage.at(folder), folder)


TEAM = pytest.param("team", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=["mlflow_database", "mlflow_server", TEAM])
def place(request: pytest.FixtureRequest) -> Place:
    """A database in a file, a server, and one with accounts over PostgreSQL: what works with one works with all."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module", params=["mlflow_database", "mlflow_server", "memory", TEAM])
def any_place(request: pytest.FixtureRequest) -> Place:
    """The same, and another registry."""
    return request.getfixturevalue(request.param)


def _healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=20) as reply:
            return reply.status == 200
    except OSError:
        return False
