"""What goes when a night has succeeded: older nights and versions beyond the number, and nothing that is needed."""

import os
import time

import pytest

from gan_core.errors import ConfigurationError
from pipelines import config
from pipelines.registry import Registry
from pipelines.registry.champion_history import ChampionHistory
from pipelines.registry.retention import delete, prune
from pipelines.runs import run_lease
from pipelines.runs.retention import apply_retention, family
from pipelines.runs.run import Run
from pipelines.storage import Storage, image_cache
from tests.pipelines import contenders

NAME = "gan-small"


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("nightly-2026-11-24", "nightly"),
        ("nightly-2026-11-24.2", "nightly"),
        ("digits-1a2b3c4d", "digits"),
        ("night_7", "night"),
        ("my-gan-of-2026-11-24", "my-gan-of"),
        ("a-1-b-2", "a-1-b"),
        ("2026-11-24", ""),
        ("mine", "mine"),
        ("mnist2", "mnist2"),
        ("small-run", "small-run"),
        ("digits-1a2b3c", "digits-1a2b3c"),
    ],
)
def test_date_number_or_digest_names_a_family(name, of):
    """A name's date, number or digest makes it one of a family; other names are their own."""
    assert family(name) == of


@pytest.fixture
def registry(registry_uri):
    return Registry(registry_uri)


@pytest.fixture
def nights(small, registry, tmp_path):
    """Makes runs, each an hour newer than the one before; a done one is registered."""
    storage, hours, made = Storage.at(tmp_path / "st"), iter(range(1, 100)), {}
    registry.backend.client.create_registered_model(NAME)
    start = time.time() - 100 * 3600

    def make(name, done=True, **changes):
        run = Run.create(config.override(small, changes), "stem", name, storage)
        run.save()
        if done:
            run.folder.write_json("records/report.json", {"inputs": "", "record": {"report": "", "seconds": 0.0}})
            registry.backend.client.create_model_version(NAME, "file:///nowhere", tags={"run": name})
        then = start + 3600 * next(hours)
        for path in run.folder.local.rglob("*"):
            os.utime(path, (then, then))
        made[name] = run
        return run

    make.storage = storage
    return make


def left(nights):
    return set(os.listdir(nights.storage.local / "runs"))


def tidied(run, registry):
    said, warned = [], []
    apply_retention(run, registry.uri, said.append, warned.append)
    return said, warned


def test_retention_keeps_the_newest_of_the_family(nights, registry):
    """The newest of the family are kept, and runs of others are not touched."""
    for day in range(20, 25):
        nights(f"nightly-2026-11-{day}")
    nights("digits-1a2b3c4d")
    nights("nightly-2026-11-01", **{"registry.model": "gan-other"})
    (nights.storage.local / "runs" / "nightly-2026-11-02").mkdir()  # of a command killed before it had begun
    run = nights("nightly-2026-11-25", **{"retention.keep_runs": 3})
    said, warned = tidied(run, registry)
    assert left(nights) == {
        "nightly-2026-11-23", "nightly-2026-11-24", "nightly-2026-11-25", "digits-1a2b3c4d", "nightly-2026-11-01",
        "nightly-2026-11-02",
    }  # fmt: skip
    assert [line.split(",")[0] for line in said] == [
        f"prune  removed run nightly-2026-11-{day}" for day in (22, 21, 20)
    ]
    assert warned == []
    assert tidied(run, registry) == ([], [])
    assert len(registry.versions(NAME)) == 8  # versions were not asked for


def test_cached_rows_go_with_their_last_reader(nights, registry):
    """Rows of streamed images go with the last of the runs that read them."""
    for name in ("night-1", "night-2", "night-3", "other"):
        nights(name)
    read_by = {"old": ["night-1", "night-2"], "shared": ["night-1", "night-3"], "others": ["other"]}
    for folder, readers in read_by.items():
        nights.storage.child("rows", folder).write("000000-000", b"rows")
        for reader in readers:
            image_cache.description(nights.storage, folder, reader)
    for path in (nights.storage.local / "rows").rglob("*"):
        os.utime(path, (time.time() - 7200,) * 2)
    said, warned = tidied(nights("night-4", **{"retention.keep_runs": 2}), registry)
    assert image_cache.names(nights.storage) == ["others", "shared"]
    assert said[-1] == "prune  removed rows old, which no run reads, 4 B"
    assert (len(said), warned) == (3, [])


def test_without_numbers_nothing_goes_and_no_registry_is_asked(nights, registry):
    nights("night-1")
    said = []
    apply_retention(nights("night-2"), "sqlite:////nowhere/mlflow.db", said.append, said.append)
    assert (left(nights), said) == ({"night-1", "night-2"}, [])


def test_active_aliased_and_rollback_runs_stay(nights, registry):
    """What is worked on, what an alias is on and what a rollback needs stays."""
    for number in range(1, 7):
        nights(f"night-{number}")
    history = ChampionHistory(registry, NAME)
    history.force(registry.version(NAME, 1), "a test")
    history.force(registry.version(NAME, 2), "a test")  # champion; 1 is what it could be undone to
    registry.backend.client.set_registered_model_alias(NAME, "tried", "4")
    busy = Run.open("night-5", nights.storage)
    run = nights("night-7", **{"retention.keep_runs": 1})
    with run_lease.working_on(busy.folder) as free:
        assert free
        said, warned = tidied(run, registry)
    assert left(nights) == {"night-1", "night-2", "night-4", "night-5", "night-7"}
    assert (len(said), warned) == (2, [])
    assert history.rollback().version == 1


def test_resumable_runs_are_counted_apart(nights, registry):
    """Runs that can be resumed are counted apart, and cost no finished one its place."""
    for number in range(1, 6):
        nights(f"night-{number}", done=number % 2 == 1)  # 2 and 4 failed
    nights("night-6", done=False)
    tidied(nights("night-7", **{"retention.keep_runs": 2}), registry)
    assert left(nights) == {"night-5", "night-7", "night-4", "night-6"}


def test_old_versions_go_by_the_rules_of_prune(nights, registry):
    """Old versions go after a run by the same rules as by hand."""
    for number in range(1, 7):
        nights(f"night-{number}")
    history = ChampionHistory(registry, NAME)
    for number in (1, 2):
        history.force(registry.version(NAME, number), "a test")
    run = nights("night-7", **{"retention.keep_versions": 2})
    said, _ = tidied(run, registry)
    assert said == [f"prune  deleted {NAME}/5, {NAME}/4, {NAME}/3; the newest 2 are kept"]
    assert [version.version for version in registry.versions(NAME)] == [7, 6, 2, 1]
    assert len(left(nights)) == 7  # runs were not asked for


def test_silent_registry_costs_a_line_and_no_run(nights, registry, tmp_path):
    """A registry that does not answer costs a line and no run."""
    nights("night-1")
    run = nights("night-2", **{"retention.keep_runs": 1, "retention.keep_versions": 1})
    said, warned = [], []
    apply_retention(run, f"sqlite:///{tmp_path}/none.db", said.append, warned.append)
    assert left(nights) == {"night-1", "night-2"}
    assert (len(warned), said) == (1, [])
    assert warned[0].startswith("prune  nothing was removed after night-2: no such registry")


def files_of(registry, version):
    return registry.backend.client.get_logged_model(version.source.removeprefix("models:/")).artifact_location


def test_pruned_files_go_unless_shared_with_a_version(registry, tmp_path):
    """A pruned version's files go with it, unless another version is of the same files."""
    uri, name = registry.uri, "gan-files"
    for run, components in (("one", 2), ("two", 4), ("three", 6)):
        contenders.night(uri, str(tmp_path), name, run, components)
    one, two, three = registry.versions(name)[::-1]
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file() and "mlflow.db" not in path.name)
    places = {version.version: files_of(registry, version) for version in (one, two, three)}
    assert all(os.path.isdir(place.removeprefix("file://")) for place in places.values())
    registry.backend.create_version(name, three.source, three.tags)
    delete(registry, registry.versions(name)[0])
    assert registry.load(three).sha256 == three.tags["generator_sha256"]
    for version in (one, two):  # no recent move names them any more
        assert version.version not in registry.aliases(name).values()
    history = ChampionHistory(registry, name)
    for _ in range(6):
        history.force(registry.version(name, 2 if registry.aliases(name)["champion"] == 3 else 3), "a test")
    assert [version.version for version in prune(registry, name, 1)] == [1]
    assert not os.path.exists(places[1].removeprefix("file://"))
    assert registry.load(two).sha256 == two.tags["generator_sha256"]
    now = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file() and "mlflow.db" not in path.name)
    assert now < 0.75 * size  # a third, and what else there is


@pytest.mark.parametrize("values", [{"keep_runs": 0}, {"keep_versions": 0}, {"keep_runs": -1}])
def test_keeping_none_is_refused(values):
    with pytest.raises(ConfigurationError, match=r"retention\.keep_"):
        config.build({"retention": values})
