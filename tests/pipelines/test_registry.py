"""A model is registered once, and found by name, number, alias, score and digest, in MLflow as in another registry."""

import json

import numpy as np
import pytest

from gan_core.errors import CheckpointError, RegistryError
from pipelines.registry import registration
from pipelines.registry.champion_history import ChampionHistory
from pipelines.registry.registry import ARCHIVED_TAG, CHALLENGER, CHAMPION, DUPLICATE_TAG, KEY_TAG, Registry
from pipelines.registry.tracking import Tracking
from pipelines.storage import Storage
from tests.pipelines.conftest import Place, principal_generator
from tests.pipelines.contenders import Mortal

NAME = "gan-registry"
METRICS = ("log_likelihood", "coverage", "unheard_of")


@pytest.fixture(scope="module")
def place(any_place):
    """Whatever the registry is kept in."""
    return any_place


@pytest.fixture(scope="module")
def model(digits):
    return principal_generator(digits, 8)


def interrupt():
    raise KeyboardInterrupt


def register(place, model, run, name=NAME, end_before=None, **tags):
    registry = Registry(place.uri)
    runs = Tracking(registry.backend, name, run, place.storage.child("mlartifacts"))
    if end_before:
        registry.backend = Mortal(registry.backend, end_before, interrupt)
    known = {"run": run, "weights_sha256": model.sha256, "generator_sha256": model.sha256, "config_digest": "c0"}
    return registration.register(
        registry, name, runs.parent, model, {**known, "data_digest": "d0", "commit": "k0", **tags}
    )


def three_versions(place, model, digits, name=NAME):
    """Three versions of one model; the second is champion, the third challenger."""
    first = register(place, model, "one", name, metrics=json.dumps({"log_likelihood": 7.0}))
    second = register(place, principal_generator(digits, 4), "two", name)
    third = register(place, model, "three", name)
    history = ChampionHistory(Registry(place.uri), name)
    history.force(first, "a test")
    history.force(second, "a test")
    history.challenge(third)
    return first, second, third


@pytest.fixture(scope="module")
def versions(place, model, digits):
    return three_versions(place, model, digits)


def files(place, version):
    """The folder of a version's generator, where the registry keeps it."""
    model_id = version.source.removeprefix("models:/")
    (folder,) = [path for path in place.files.rglob(f"{model_id}/artifacts/artifacts/generator") if path.is_dir()]
    return folder


def test_registering_again_gives_the_same_version(place, model, digits):
    """Registering again gives the same version; other tags or weights give another one."""
    first = register(place, model, "once", name="gan-once")
    assert register(place, model, "once", name="gan-once") == first
    assert first.version == 1
    assert register(place, model, "once", name="gan-once", config_digest="c1").version == 2
    assert register(place, principal_generator(digits, 2), "once", name="gan-once").version == 3
    assert register(place, model, "once", name="gan-once") == first
    assert [version.version for version in Registry(place.uri).versions("gan-once")] == [3, 2, 1]


def test_lower_duplicate_version_stays_the_other_is_marked(place, model):
    """Of two versions with one key, as a retried request makes them, the lower stays and the other is marked."""
    first = register(place, model, "twice", name="gan-twice")
    # A server that commits and then fails is sent the same request once more.
    Registry(place.uri).backend.create_version("gan-twice", first.source, first.tags)
    assert register(place, model, "twice", name="gan-twice").version == 1
    second, kept = Registry(place.uri).versions("gan-twice")
    assert (second.tags[DUPLICATE_TAG], DUPLICATE_TAG in kept.tags) == ("1", False)
    assert second.tags[KEY_TAG] == kept.tags[KEY_TAG]


def test_version_is_found_by_number_and_moving_alias(place, versions):
    """A version is found by number and by alias, and an alias moves."""
    registry = Registry(place.uri)
    _, second, third = versions
    assert NAME in registry.models()
    assert [registry.resolve(f"{NAME}/{number}").version for number in (1, 2, 3)] == [1, 2, 3]
    assert registry.resolve(f"{NAME}@champion").version == second.version
    assert registry.resolve(f"{NAME}@champion").aliases == ("champion",)
    assert registry.holder(NAME, CHALLENGER).version == third.version
    assert registry.holder(NAME, "other") is None
    ChampionHistory(registry, NAME).force(third, "a test")
    assert registry.resolve(f"{NAME}@champion").aliases == ("challenger", "champion")
    assert registry.resolve(f"{NAME}/2").aliases == ()
    ChampionHistory(registry, NAME).rollback()


def test_version_is_shown_with_numbers_and_sources(place, versions, model):
    """A version is shown with its numbers and what it was made from."""
    shown = Registry(place.uri).resolve(f"{NAME}/1").to_json()
    assert json.loads(json.dumps(shown)) == shown
    assert {key: shown[key] for key in shown if key != "tags"} == {
        "name": NAME, "version": 1, "aliases": [], "metrics": {"log_likelihood": 7.0},
        "generator_sha256": model.sha256, "data_digest": "d0", "config_digest": "c0", "commit": "k0",
    }  # fmt: skip
    assert shown["tags"]["run"] == "one"


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("gan-regstry@champion", ["no such model", "gan-regstry", "one of", NAME]),
        (f"{NAME}@champoin", ["no such alias", f"{NAME}@champoin", "challenger (3), champion (2)", f"{NAME}/3"]),
        (f"{NAME}/9", ["no such version", f"{NAME}/9", "has 3, 2, 1", f"{NAME}@champion"]),
        (f"{NAME}/one", ["no such version", "has 3, 2, 1"]),
        (NAME, ["no such version", "NAME/VERSION or NAME@ALIAS"]),
        ("a b@champion", ["not a model name", "1 to 128 of"]),
        ("x'; drop table--/1", ["not a model name"]),
        (f"{NAME}@latest", ["not an alias", "'latest'", "reserved", "NAME/VERSION"]),
        (f"{NAME}@v3", ["not an alias", "'v3'", "reserved"]),
        (f"{NAME}@", ["not an alias"]),
        (f"{NAME}/0", ["no such version", "has 3, 2, 1"]),
        (f"{NAME}/99999999999999999999", ["no such version", "has 3, 2, 1"]),
        ("é" * 200 + "@champion", ["not a model name"]),
        ("a\0b/1", ["not a model name"]),
    ],
)
def test_missing_reference_names_the_nearest(reference, words, place, versions):
    """A model, version or alias that is not there is refused with the nearest that is."""
    with pytest.raises(RegistryError) as caught:
        Registry(place.uri).resolve(reference)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.fixture(scope="module")
def searched(place):
    """Five versions of one model and one of another, with numbers and digests; nothing here loads them."""
    backend = Registry(place.uri).backend
    numbers = [("gan-found", 1.0, "aa"), ("gan-found", 9.0, "bb"), ("gan-found", 9.0, "aa"), ("gan-found", 30.0, "bb"),
               ("gan-found", 40.0, "aa"), ("gan-also", 50.0, "aa")]  # fmt: skip
    for name in ("gan-found", "gan-also"):
        backend.create_model(name)
    for name, score, digest in numbers:
        tags = {
            "metrics": json.dumps({"log_likelihood": score, "coverage": -score}),
            "data_digest": digest,
            "config_digest": digest[::-1] + "c",
        }
        backend.create_version(name, "s3://nowhere/model", tags)
    backend.set_version_tag("gan-found", 4, DUPLICATE_TAG, "2")
    backend.set_version_tag("gan-found", 5, ARCHIVED_TAG, "2026-11-24")
    backend.set_alias("gan-found", CHAMPION, 2)


def test_searches_give_all_pages(place, searched):
    for size in (1, 2, 5, 100):
        registry = Registry(place.uri)
        registry.backend.page_size = size  # of MLflow's
        assert [version.version for version in registry.versions("gan-found")] == [5, 4, 3, 2, 1]
        assert {"gan-found", "gan-also"} <= set(registry.models())
        assert len(registry.models()) == len(set(registry.models()))
        assert registry.versions("gan-found")[3].aliases == ("champion",)


def test_best_version_is_the_oldest_of_the_highest(place, searched):
    """The best version is the oldest of the highest, and neither archived nor a duplicate."""
    registry = Registry(place.uri)
    best = {metric: list(map(str, registry.find("gan-found", best=metric))) for metric in METRICS}
    assert best == {"log_likelihood": ["gan-found/2"], "coverage": ["gan-found/1"], "unheard_of": []}


def test_versions_are_found_by_data_and_config_digest(place, searched):
    """Versions are found by the digest of their data and of their configuration, over pages."""
    registry = Registry(place.uri)
    registry.backend.page_size = 2
    found = list(map(str, registry.find(data_digest="aa")))
    assert found == ["gan-also/1", "gan-found/5", "gan-found/3", "gan-found/1"]
    assert [v.version for v in registry.find("gan-found", data_digest="aa")] == [5, 3, 1]
    assert [v.version for v in registry.find("gan-found", config_digest="bbc")] == [4, 2]
    assert registry.find("gan-found", data_digest="aa", config_digest="bbc") == []
    assert registry.find(config_digest="bb") == registry.find(data_digest="zz") == []
    for digest in ("aa' or '1'='1", "", "a" * 200):
        with pytest.raises(RegistryError, match="not a digest"):
            registry.find(data_digest=digest)


def test_killed_registration_is_completed_once(registry_uri, tmp_path, model, monkeypatch):
    """A registration that died before a write is done once by the next, and no reader meets half a version."""
    place = Place(registry_uri, Storage.at(tmp_path), tmp_path)
    for writes in (1, 2, 3, 4):  # of the model, of the lease's tag twice, of the version
        name = f"gan-died-{writes}"
        monkeypatch.setattr(registration, "TERM", 120)  # no sign of life of the lease is among its writes
        with pytest.raises(KeyboardInterrupt):
            register(place, model, "died", name, end_before=writes)
        assert Registry(registry_uri).backend.versions(name) == []  # no reader meets half a version
        monkeypatch.setattr(registration, "TERM", 4)  # for so long the dead process is waited for
        assert register(place, model, "died", name).version == 1
        assert register(place, model, "died", name).version == 1
        assert len(Registry(registry_uri).versions(name)) == 1
        assert [tag for tag in Registry(registry_uri).registered(name).tags if tag.startswith("gan.")] == []


def test_a_look_up_creates_no_database(tmp_path):
    with pytest.raises(RegistryError, match="no such registry"):
        Registry(f"sqlite:///{tmp_path}/deep/mlflow.db")
    assert list(tmp_path.iterdir()) == []


def test_loaded_model_equals_the_registered_one(place, versions, model):
    """A loaded model is the registered one to the bit, and draws the same images."""
    registry = Registry(place.uri)
    loaded = registry.load(registry.resolve(f"{NAME}/1"))
    assert loaded.sha256 == model.sha256
    assert (loaded.noise, loaded.network, loaded.image_shape) == (model.noise, model.network, model.image_shape)
    assert np.array_equal(loaded.draw(5, seed=3), model.draw(5, seed=3))


def test_changed_tag_or_foreign_version_is_refused(place, model):
    """A version whose tag was changed, or that was not made here, is refused."""
    registry = Registry(place.uri)
    version = register(place, model, "tags", name="gan-tags")
    registry.tag(version, {"generator_sha256": "0" * 64})
    with pytest.raises(CheckpointError, match="weights differ from the tag"):
        registry.load(registry.resolve("gan-tags/1"))
    registry.backend.create_version("gan-tags", version.source, {})
    with pytest.raises(RegistryError, match=r"not a model of ours \(gan-tags/2\)"):
        registry.load(registry.resolve("gan-tags/2"))
