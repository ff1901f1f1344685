"""What the tests share: shape checks, seeds, one thread, a Ray cluster, an MLflow database to copy, PostgreSQL, and where MNIST is."""

import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from jaxtyping import install_import_hook

# Every annotated function of the core checks its shapes, under the tests only; an int is a float, as in PEP 484.
install_import_hook("gan_core", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from filelock import FileLock  # noqa: E402
from hypothesis import settings  # noqa: E402

from cluster import postgresql  # noqa: E402
from cluster.mlflow_server import RUNS, Service  # noqa: E402
from gan_core import threads  # noqa: E402
from pipelines.runtime.ray_session import prepare_environment  # noqa: E402

prepare_environment()
# Who starts the tests in the background has SIGINT ignored, and so would each command that is to be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if (
    signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
):  # by nohup: these tests go on, and a command of theirs has its own
    signal.signal(signal.SIGHUP, lambda *signal_and_frame: None)

# No test depends on luck: what one draws is a function of its name. Other draws, to look for luck: GAN_TEST_SEED=1 make test.
SEED = os.environ.get("GAN_TEST_SEED", "")
# How long an example takes depends on what else the machine does: no deadline.
settings.register_profile("tests", deadline=None, derandomize=not SEED)
settings.load_profile("tests")

MNIST = Path(__file__).parents[2] / "shared" / "data" / "mnist"


def pytest_configure(config: pytest.Config) -> None:
    """pytest-randomly's seed is of the order alone: it would make what a test draws a function of it."""
    config.option.randomly_reset_seed = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ten times what it takes alone: pyproject.toml has the limit of a test of seconds, an hour is that of one of minutes."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(3600))


def seed(name: str) -> None:
    """Make the next draws of the global generators a function of this name."""
    number = zlib.crc32(f"{SEED}{name}".encode())
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


@pytest.fixture(autouse=True)
def seeded(request: pytest.FixtureRequest) -> None:
    """A test draws the same alone, in any order and after any other."""
    seed(request.node.nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> None:
    """So does what several tests share, whichever of them asks for it first."""
    if fixturedef.scope != "function":
        seed(f"{fixturedef.baseid}::{fixturedef.argname}")


@pytest.fixture(scope="session")
def mnist_root() -> str:
    """A folder with MNIST in torchvision's layout."""
    root = Path(os.environ.get("GAN_TEST_MNIST", MNIST))
    if not (root / "MNIST" / "raw").is_dir():
        pytest.skip(f"no MNIST at {root}; set GAN_TEST_MNIST to a folder that holds MNIST/raw")
    return str(root)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums over one thread, as a Ray task has, so that what is equal is equal to the bit."""
    with threads.one_thread():
        yield


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A real Ray cluster on this machine, shared by the tests."""
    import ray

    for left in (2, 1, 0):  # on a busy machine Ray gives up after half a minute
        try:
            ray.init(
                "local", num_cpus=2, object_store_memory=200 * 2**20, include_dashboard=True, log_to_driver=False,
                logging_level="ERROR", _system_config={"metrics_report_interval_ms": 1000},
            )  # fmt: skip
            break
        except Exception:
            ray.shutdown()
            if not left:
                raise
    yield
    ray.shutdown()


def fork_server(*preloaded: str) -> Any:
    """Processes forked from one that has imported these modules, if it is not running yet.

    It imports from where the tests are, which else a child of ours does not: `tests` may be another package's too.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preloaded))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        forkserver.ensure_running()
    return context


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listening(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a bucket on a real S3-compatible server, which this process and all it starts are told of."""
    import boto3
    from botocore.config import Config

    port = free_port()
    told = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch, (tmp_path_factory.mktemp("s3") / "log").open("w") as log:
        for name, value in told.items():
            patch.setenv(name, value)
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
        )
        try:
            client = boto3.client("s3", config=Config(retries={"total_max_attempts": 60, "mode": "standard"}))
            client.create_bucket(Bucket="gan-tests")
            yield "s3://gan-tests"
        finally:
            server.kill()
            server.wait()


@pytest.fixture(scope="session")
def database_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: creating one takes seconds, copying it none."""
    from pipelines.registry.mlflow_client import open_client

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # one for all workers, made by the first
    path = folder / "mlflow-template.db"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            open_client(f"sqlite:///{path}.new", create=True)
            os.replace(f"{path}.new", path)
    return path


@pytest.fixture
def registry_uri(database_template: Path, tmp_path: Path) -> str:
    """The URI of a fresh MLflow database."""
    shutil.copy(database_template, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """The service for a team, in a folder of its own: nothing of it runs yet; all of it is stopped at the end."""
    if not postgresql.installed():
        pytest.skip("no PostgreSQL server on this machine")
    with tempfile.TemporaryDirectory(prefix="gan-") as place:  # not pytest's, which only its owner may enter
        os.chmod(place, 0o711)
        made = Service(Path(place) / "service", {"port": free_port(), "database_port": free_port(), "workers": 1})
        made.folder.mkdir()
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture(scope="session")
def postgresql_uri(service: Service) -> str:
    """An MLflow database in a real PostgreSQL, that tests may fill; or the one that GAN_TEST_POSTGRESQL names."""
    if "GAN_TEST_POSTGRESQL" in os.environ:
        return os.environ["GAN_TEST_POSTGRESQL"]
    service.start_database()
    return service.database.uri(RUNS, with_password=True)


@pytest.fixture(scope="session")
def team_service(service: Service) -> Service:
    """The same service, up: an MLflow server with accounts over PostgreSQL."""
    service.start()
    return service
