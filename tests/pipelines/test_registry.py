"""A model is registered once, found by name, number and alias, and never trusted when it is loaded."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_core.errors import CheckpointError, RegistryError
from pipelines.registry import registration
from pipelines.registry.champion_history import ChampionHistory
from pipelines.registry.registry import ARCHIVED_TAG, CHALLENGER, CHAMPION, DUPLICATE_TAG, KEY_TAG, Registry
from pipelines.registry.tracking import Tracking
from pipelines.storage import Storage
from tests.pipelines.conftest import Place, environment, gan, principal_generator
from tests.pipelines.contenders import Mortal

NAME = "gan-registry"


@pytest.fixture(scope="module")
def model(digits):
    return principal_generator(digits, 8)


def interrupt():
    raise KeyboardInterrupt


def register(place, model, run, name=NAME, end_before=None, **tags):
    registry = Registry(place.uri)
    runs = Tracking(registry.backend, name, run, place.storage.within("mlartifacts"))
    if end_before:
        registry.backend.client = Mortal(registry.backend.client, end_before, interrupt)
    known = {"run": run, "weights_sha256": model.sha256, "generator_sha256": model.sha256, "config_digest": "c0"}
    return registration.register(
        registry, name, runs.parent, model, {**known, "data_digest": "d0", "commit": "k0", **tags}
    )


@pytest.fixture(scope="module")
def versions(place, model, digits):
    """Three versions of one model; the second is champion, the third challenger."""
    first = register(place, model, "one", metrics=json.dumps({"log_likelihood": 7.0}))
    second = register(place, principal_generator(digits, 4), "two")
    third = register(place, model, "three")
    history = ChampionHistory(Registry(place.uri), NAME)
    history.force(first, "a test")
    history.force(second, "a test")
    history.challenge(third)
    return first, second, third


def files(place, version):
    """The folder of a version's generator, where the registry keeps it."""
    model_id = version.source.removeprefix("models:/")
    (folder,) = [path for path in place.files.rglob(f"{model_id}/artifacts/artifacts/generator") if path.is_dir()]
    return folder


@pytest.fixture
def tampered(place, versions):
    """The first version's files, put back as they were after the test."""
    folder = files(place, versions[0])
    before = {path: path.read_bytes() for path in folder.parents[1].rglob("*") if path.is_file()}
    yield folder
    for path in list(folder.parents[1].rglob("*")):
        if (path.is_file() or path.is_symlink()) and path not in before:
            path.unlink()
    for path, content in before.items():
        path.unlink(missing_ok=True)
        path.write_bytes(content)


def test_registering_again_gives_the_same_version_and_other_tags_or_weights_another(place, model, digits):
    first = register(place, model, "once", name="gan-once")
    assert register(place, model, "once", name="gan-once") == first
    assert first.version == 1
    assert register(place, model, "once", name="gan-once", config_digest="c1").version == 2
    assert register(place, principal_generator(digits, 2), "once", name="gan-once").version == 3
    assert register(place, model, "once", name="gan-once") == first
    assert [version.version for version in Registry(place.uri).versions("gan-once")] == [3, 2, 1]


def test_of_two_versions_with_one_key_the_lower_stays_and_the_other_is_marked(place, model):
    first = register(place, model, "twice", name="gan-twice")
    # A server that commits and then fails is sent the same request once more.
    client = Registry(place.uri).backend.client
    client.create_model_version("gan-twice", first.source, tags=dict(first.tags), model_id=first.source.split("/")[-1])
    assert register(place, model, "twice", name="gan-twice").version == 1
    second, kept = Registry(place.uri).versions("gan-twice")
    assert (second.tags[DUPLICATE_TAG], DUPLICATE_TAG in kept.tags) == ("1", False)
    assert second.tags[KEY_TAG] == kept.tags[KEY_TAG]


def test_a_version_is_found_by_number_and_by_alias_and_an_alias_moves(place, versions):
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


def test_a_version_is_shown_with_its_numbers_and_what_it_was_made_from(place, versions, model):
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
def test_what_is_not_there_is_refused_with_the_nearest_that_is(reference, words, place, versions):
    with pytest.raises(RegistryError) as caught:
        Registry(place.uri).resolve(reference)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.fixture(scope="module")
def searched(place):
    """Five versions of one model and one of another, with numbers and digests; nothing here loads them."""
    client = Registry(place.uri).backend.client
    numbers = [("gan-found", 1.0, "aa"), ("gan-found", 9.0, "bb"), ("gan-found", 9.0, "aa"), ("gan-found", 30.0, "bb"),
               ("gan-found", 40.0, "aa"), ("gan-also", 50.0, "aa")]  # fmt: skip
    for name in ("gan-found", "gan-also"):
        client.create_registered_model(name)
    for name, score, digest in numbers:
        tags = {
            "metrics": json.dumps({"log_likelihood": score, "coverage": -score}),
            "data_digest": digest,
            "config_digest": digest[::-1] + "c",
        }
        client.create_model_version(name, "s3://nowhere/model", tags=tags)
    client.set_model_version_tag("gan-found", "4", DUPLICATE_TAG, "2")
    client.set_model_version_tag("gan-found", "5", ARCHIVED_TAG, "2026-11-24")
    client.set_registered_model_alias("gan-found", CHAMPION, "2")


def test_searches_give_all_pages(place, searched):
    for size in (1, 2, 5, 100):
        registry = Registry(place.uri, page_size=size)
        assert [version.version for version in registry.versions("gan-found")] == [5, 4, 3, 2, 1]
        assert {"gan-found", "gan-also"} <= set(registry.models())
        assert len(registry.models()) == len(set(registry.models()))
        assert registry.versions("gan-found")[3].aliases == ("champion",)


def test_the_best_version_is_the_oldest_of_the_highest_and_neither_archived_nor_a_duplicate(place, searched):
    registry = Registry(place.uri)
    assert registry.best("gan-found").version == 2
    assert registry.best("gan-found", "coverage").version == 1
    assert registry.best("gan-found", "unheard_of") is None


def test_versions_are_found_by_the_digest_of_their_data_and_of_their_configuration(place, searched):
    registry = Registry(place.uri, page_size=2)
    found = registry.by_data_digest("aa")
    assert [(v.name, v.version) for v in found] == [
        ("gan-also", 1),
        ("gan-found", 5),
        ("gan-found", 3),
        ("gan-found", 1),
    ]
    assert [v.version for v in registry.by_data_digest("aa", "gan-found")] == [5, 3, 1]
    assert [v.version for v in registry.by_config_digest("bbc", "gan-found")] == [4, 2]
    assert registry.by_config_digest("bb") == registry.by_data_digest("zz") == []
    for digest in ("aa' or '1'='1", "", "a" * 200):
        with pytest.raises(RegistryError, match="not a digest"):
            registry.by_data_digest(digest)


def test_a_registration_that_died_before_a_write_is_done_once_by_the_next(registry_uri, tmp_path, model):
    # Two writes of the registry: the model's name, the version.
    place = Place(registry_uri, Storage.at(tmp_path), tmp_path)
    for writes in (1, 2):
        name = f"gan-died-{writes}"
        with pytest.raises(KeyboardInterrupt):
            register(place, model, "died", name, end_before=writes)
        assert Registry(registry_uri).search(f"name='{name}'") == []  # no reader meets half a version
        assert register(place, model, "died", name).version == 1
        assert register(place, model, "died", name).version == 1
        assert len(Registry(registry_uri).versions(name)) == 1


def test_a_look_up_creates_no_database(tmp_path):
    with pytest.raises(RegistryError, match="no such registry"):
        Registry(f"sqlite:///{tmp_path}/deep/mlflow.db")
    assert list(tmp_path.iterdir()) == []


def test_a_loaded_model_is_the_registered_one_to_the_bit(place, versions, model):
    registry = Registry(place.uri)
    loaded = registry.load(registry.resolve(f"{NAME}/1"))
    assert loaded.sha256 == model.sha256
    assert (loaded.noise, loaded.network, loaded.image_shape) == (model.noise, model.network, model.image_shape)
    assert np.array_equal(loaded.draw(5, seed=3), model.draw(5, seed=3))


@pytest.mark.parametrize("where", [0, -1], ids=["the first byte", "the last byte"])
@pytest.mark.parametrize("name", ["generator.safetensors", "MANIFEST.json"])
def test_a_model_of_which_one_bit_was_changed_is_refused(name, where, place, versions, tampered):
    content = bytearray((tampered / name).read_bytes())
    content[where] ^= 1
    (tampered / name).write_bytes(bytes(content))
    with pytest.raises(CheckpointError):
        Registry(place.uri).load(versions[0])


@pytest.mark.parametrize("name", ["generator.safetensors", "MANIFEST.json", "config.json"])
def test_a_model_without_one_of_its_files_is_refused(name, place, versions, tampered):
    (tampered / name).unlink()
    with pytest.raises((CheckpointError, RegistryError)):
        Registry(place.uri).load(versions[0])


def test_whole_weights_that_are_not_the_tagged_ones_are_refused(place, versions, tampered):
    for path in files(place, versions[1]).iterdir():  # a consistent model, but another one
        (tampered / path.name).write_bytes(path.read_bytes())
    with pytest.raises(CheckpointError, match=rf"weights differ from the tag \({NAME}/1\)"):
        Registry(place.uri).load(versions[0])


def test_a_version_whose_tag_was_changed_or_that_was_not_made_here_is_refused(place, model):
    registry = Registry(place.uri)
    version = register(place, model, "tags", name="gan-tags")
    registry.tag(version, {"generator_sha256": "0" * 64})
    with pytest.raises(CheckpointError, match="weights differ from the tag"):
        registry.load(registry.resolve("gan-tags/1"))
    registry.backend.client.delete_model_version_tag("gan-tags", "1", "generator_sha256")
    with pytest.raises(RegistryError, match=r"not a model of ours \(gan-tags/1\)"):
        registry.load(registry.resolve("gan-tags/1"))


class Bomb:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def test_nothing_that_lies_in_a_model_is_executed_when_it_is_loaded(place, versions, tampered, model, tmp_path):
    mark = tmp_path / "executed"
    code = f"import os; os.mkdir({str(mark)!r})\n"
    for planted in (tampered, tampered.parents[1]):  # beside the weights, and beside MLmodel
        for name in ("python_model.pkl", "state.pt", "model.pkl"):
            (planted / name).write_bytes(pickle.dumps(Bomb(mark)))
    for path in tampered.parents[1].rglob("*.py"):
        path.write_text(code)
    (tampered.parents[1] / "code" / "torch.py").write_text(code)
    assert Registry(place.uri).load(versions[0]).sha256 == model.sha256  # only three files are ever fetched
    for name in ("generator.safetensors", "MANIFEST.json", "config.json"):
        kept = (tampered / name).read_bytes()
        (tampered / name).write_bytes(pickle.dumps(Bomb(mark)))
        with pytest.raises(CheckpointError):
            Registry(place.uri).load(versions[0])
        (tampered / name).write_bytes(kept)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()  # the bomb was live


def test_a_link_in_place_of_a_file_shows_nothing_of_what_it_leads_to(place, versions, tampered, tmp_path):
    (tmp_path / "secret").write_text("the secret")
    for name in ("generator.safetensors", "MANIFEST.json", "config.json"):
        kept = (tampered / name).read_bytes()
        (tampered / name).unlink()
        (tampered / name).symlink_to(tmp_path / "secret")
        with pytest.raises((CheckpointError, RegistryError)) as caught:
            Registry(place.uri).load(versions[0])
        assert "the secret" not in str(caught.value)
        (tampered / name).unlink()
        (tampered / name).write_bytes(kept)


STRANGER = """
import json, sys
import mlflow, numpy
uri, name, output = sys.argv[1:]
mlflow.set_tracking_uri(uri)
version = mlflow.MlflowClient().get_model_version_by_alias(name, "champion")
model = mlflow.pyfunc.load_model(f"models:/{name}@champion")
z = numpy.random.default_rng(0).standard_normal((5, 16)).astype("float32")
drawn = model.predict(z[:1], params={"num_samples": 16, "seed": 11})
numpy.savez(output, z=z, given=model.predict(z), drawn=drawn)
print(json.dumps({"version": int(version.version), "tags": version.tags, "code": sys.modules["gan_core"].__file__}))
"""


def test_a_stranger_with_plain_mlflow_finds_reads_and_samples_the_champion_as_gan_does(place, model, digits, tmp_path):
    champion = register(place, model, "strange", name="gan-strange", data="digits")
    ChampionHistory(Registry(place.uri), "gan-strange").force(champion, "a test")
    stranger = subprocess.run(
        [sys.executable, "-c", STRANGER, place.uri, "gan-strange", "out.npz"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert stranger.returncode == 0, stranger.stderr
    told = json.loads(stranger.stdout.splitlines()[-1])
    assert told["version"] == champion.version
    assert (told["tags"]["data"], told["tags"]["generator_sha256"]) == ("digits", model.sha256)
    assert Path(told["code"]).parents[1] != Path(__file__).parents[2]  # the code that travels with the model
    arrays = np.load(tmp_path / "out.npz")
    assert np.allclose(arrays["given"], model.images(torch.from_numpy(arrays["z"])), rtol=0, atol=1e-6)  # float32 sums
    ours = gan("sample", "gan-strange@champion", "-n", 16, "--seed", 11, "--output", "ours.npy",
               "--tracking-uri", place.uri, cwd=tmp_path)  # fmt: skip
    assert ours.code == 0, ours.err
    pixels = np.load(tmp_path / "ours.npy")
    assert (pixels.shape, pixels.dtype) == ((16, 8, 8), np.float32)
    assert np.array_equal(np.rint(pixels * 255), np.rint(arrays["drawn"] * 255))
    assert np.array_equal(np.rint(pixels * 255), np.rint(model.draw(16, 11) * 255))
