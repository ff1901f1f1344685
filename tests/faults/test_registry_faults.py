"""F10: a registry that fails before or after it acted, or whose reply is lost: one version, or exit 5 and one version later."""

import random

import pytest

from gan_core.errors import RegistryError
from pipelines.registry import Registry
from pipelines.registry.champion_history import PENDING_TAG, ChampionHistory
from pipelines.registry.lease import PREFIX
from pipelines.registry.registration import LEASE_PREFIX
from tests.faults.proxy import failing
from tests.pipelines.contenders import night
from tests.pipelines.test_champion_history import tracked_runs

slow = pytest.mark.slow  # a minute of registrations, each through the proxy
KINDS = ("before", "after", "lost")
REGISTERING = ("registered-models/create", "model-versions/create")
MOVING = ("registered-models/alias", "registered-models/set-tag", "registered-models/delete-tag")
ALWAYS = 1000


@pytest.fixture
def proxy(mlflow_server):
    with failing(mlflow_server.uri) as (address, faults):
        yield address, faults


def settled(server, name, version):
    """One version, which is champion by one move; nothing is announced, and no one holds the lease."""
    registry = Registry(server)
    assert [found.version for found in registry.versions(name)] == [version]  # not even one marked as a duplicate
    assert registry.aliases(name) == {"champion": version, "challenger": version}
    assert [(move.former, move.version) for move in ChampionHistory(registry, name).moves()] == [(None, version)]
    assert [tag for tag in registry.registered(name).tags if tag.startswith((PREFIX, LEASE_PREFIX, PENDING_TAG))] == []


def finishes(address, place, name):
    """Whether the registering stage ends well; if not, by the registry's error, which is exit 5."""
    try:
        return night(address, str(place), name, "run", 6) == (1, True)
    except RegistryError:
        return False


@slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", REGISTERING + MOVING)
def test_one_registry_fault_leaves_one_champion(proxy, mlflow_server, path, kind, tmp_path):
    """One failure of any kind at any request leaves one version, the champion, at most after a second try."""
    (address, faults), name = proxy, f"gan-{path.replace('/', '-')}-{kind}"
    faults.path, faults.kind, faults.left = path, kind, 1
    if not finishes(address, tmp_path, name):
        assert finishes(address, tmp_path, name)  # as `gan register` does
    assert len(faults.done) == 1  # the fault was there
    settled(mlflow_server.uri, name, 1)


@slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["model-versions/create", "registered-models/alias"])
def test_persistent_registry_fault_creates_no_duplicate(proxy, mlflow_server, path, kind, tmp_path):
    """A registry that keeps failing is an error or done already; once it works again there is one version."""
    (address, faults), name = proxy, f"gan-always-{path.replace('/', '-')}-{kind}"
    faults.path, faults.kind, faults.left = path, kind, ALWAYS
    if (path, kind) in (("model-versions/create", "after"), ("model-versions/create", "lost")):
        night(address, str(tmp_path), name, "run", 6)  # it was created: a look shows it
    else:
        with pytest.raises(RegistryError, match="MLflow refused"):
            night(address, str(tmp_path), name, "run", 6)
    assert faults.done
    faults.left = 0
    night(address, str(tmp_path), name, "run", 6)
    settled(mlflow_server.uri, name, 1)


ASKED = ("model-versions/search", "registered-models/get", "experiments/get-by-name", "runs/search")
MADE = ("runs/create", "experiments/create", "registered-models/create", "model-versions/create")


FAST = [("runs/search", False), ("model-versions/search", True)]
REST = [(path, again) for path in ASKED for again in (False, True)] + [(path, False) for path in MADE]


@pytest.mark.parametrize(
    ("path", "again"), FAST + [pytest.param(*case, marks=slow) for case in REST if case not in FAST]
)
def test_an_empty_answer_is_asked_for_again(proxy, mlflow_server, path, again, tmp_path):
    """`{}` was read as "there is none": a run and a version more, when it was asked whether they are there."""
    (address, faults), name = proxy, f"gan-{path.replace('/', '-')}-{'again' if again else 'first'}"
    if again:
        night(mlflow_server.uri, str(tmp_path), name, "run", 6)
    faults.path, faults.kind, faults.left, faults.reads = path, "empty", 1, True
    if path == "model-versions/create":
        with pytest.raises(RegistryError, match="no registry's answer"):
            night(address, str(tmp_path), name, "run", 6)
    assert night(address, str(tmp_path), name, "run", 6) == (1, True)
    assert len(faults.done) == 1
    registry = Registry(mlflow_server.uri)
    assert ([version.version for version in registry.versions(name)], tracked_runs(registry, name)) == ([1], ["run"])


@slow
@pytest.mark.parametrize("seed", range(5))
def test_random_faults_leave_nothing_twice(proxy, mlflow_server, seed, tmp_path):
    """Of all requests 6 % fail, each in a way of its own: one version, one run, as soon as the command ends well."""
    (address, faults), name = proxy, f"gan-random-{seed}"
    faults.left, faults.reads, faults.rate, faults.draws = ALWAYS, True, 0.06, random.Random(seed)
    assert any(finishes(address, tmp_path, name) for _ in range(20))
    assert faults.done
    faults.left = 0
    night(address, str(tmp_path), name, "run", 6)
    registry = Registry(mlflow_server.uri)
    assert ([version.version for version in registry.versions(name)], tracked_runs(registry, name)) == ([1], ["run"])
