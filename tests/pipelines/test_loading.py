"""A registered model is never trusted when it is loaded, and plain MLflow loads it too."""

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
from pipelines.registry import Registry
from pipelines.registry.champion_history import ChampionHistory
from tests.pipelines.conftest import environment, gan, principal_generator
from tests.pipelines.test_registry import files, register, three_versions

NAME = "gan-loaded"


@pytest.fixture(scope="module")
def model(digits):
    return principal_generator(digits, 8)


@pytest.fixture(scope="module")
def versions(place, model, digits):
    return three_versions(place, model, digits, NAME)


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


@pytest.mark.parametrize("where", [0, -1], ids=["the first byte", "the last byte"])
@pytest.mark.parametrize("name", ["generator.safetensors", "MANIFEST.json"])
def test_model_with_one_changed_bit_is_refused(name, where, place, versions, tampered):
    """A model of which one bit was changed is refused, whichever file and end it is at."""
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


def test_a_file_too_large_is_refused_unfetched(place, versions, tampered):
    """A sparse file of 2^40 bytes is seen in the listing: to fetch it would fill the disk, or take for ever."""
    os.truncate(tampered / "generator.safetensors", 2**40)
    with pytest.raises(RegistryError, match=r"file too large \(.*generator.safetensors\): 1,099,511,627,776 bytes"):
        Registry(place.uri).load(versions[0])


def test_whole_weights_other_than_tagged_are_refused(place, versions, tampered):
    """Weights that are whole but not those of the version's tag are refused."""
    for path in files(place, versions[1]).iterdir():  # a consistent model, but another one
        (tampered / path.name).write_bytes(path.read_bytes())
    with pytest.raises(CheckpointError, match=rf"weights differ from the tag \({NAME}/1\)"):
        Registry(place.uri).load(versions[0])


class Bomb:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def test_loading_executes_nothing_in_the_model(place, versions, tampered, model, tmp_path):
    """Nothing that lies in a model is executed when it is loaded, though each planted bomb is live."""
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


def test_link_for_a_file_shows_nothing_of_its_target(place, versions, tampered, tmp_path):
    """A link in place of a file is refused, and shows nothing of what it leads to."""
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


def test_plain_mlflow_samples_the_champion_as_gan_does(place, model, digits, tmp_path):
    """A stranger with plain MLflow finds, reads and samples the champion as `gan` does."""
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
