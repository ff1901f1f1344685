"""A generator as a folder: the same images again, and nothing else is ever taken for one."""

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gan_core.checkpoint import tensors_digest, write_checkpoint
from gan_core.errors import CheckpointError
from gan_core.networks import make_generator
from gan_core.networks.convolutional import ConvolutionalGeneratorSettings
from gan_core.networks.dense import DenseGenerator, DenseGeneratorSettings
from gan_core.networks.maxout_convolutional import MaxoutConvolutionalGeneratorSettings
from gan_core.noise import NoiseSettings
from gan_core.portable import FILES, MAX_BYTES, PART, PortableGenerator, load_generator, save_generator


def model(prior: str = "uniform", **settings) -> PortableGenerator:
    network = DenseGeneratorSettings(hidden=(5, 4), init_range=0.1, **settings)
    generator = DenseGenerator(3, 0, 6, network)
    random = torch.Generator().manual_seed(0)
    for parameter in generator.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random)
    return PortableGenerator(generator.eval(), NoiseSettings(prior, 3), network, (2, 3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_generator(tmp_path / "model", model(), {"run": "a"})
    return tmp_path / "model"


def rewrite(folder: Path, change) -> None:
    document = json.loads((folder / "config.json").read_text())
    change(document)
    (folder / "config.json").write_text(json.dumps(document))


@pytest.mark.parametrize("prior", ["uniform", "normal"])
def test_parts_are_the_whole_to_the_bit(prior):
    """However many samples there are, a part at a time is what they are at once; given conditions are asked for by part."""
    net, count = model(prior), 2 * PART + 1234
    parts = list(net.draw_parts(count, seed=7))
    assert [len(part) for part in parts] == [PART, PART, 1234]
    assert np.array_equal(np.concatenate(parts), net.draw(count, seed=7))
    asked = []
    list(net.draw_parts(PART + 5, 7, lambda part: asked.append(part) or torch.empty(part, 0)))
    assert asked == [PART, 5]


@pytest.mark.parametrize("prior", ["uniform", "normal"])
def test_round_trip_gives_the_same_images_to_the_bit(tmp_path, prior):
    original = model(prior)
    save_generator(tmp_path, original)
    loaded = load_generator(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    assert np.array_equal(loaded.draw(20, seed=7), original.draw(20, seed=7))
    assert loaded.sha256 == original.sha256 == tensors_digest(original.generator.state_dict())
    assert (loaded.noise, loaded.network, loaded.image_shape) == (original.noise, original.network, (2, 3))
    assert not loaded.generator.training


def test_generator_with_own_layers_is_loaded_unchanged(tmp_path):
    """A colour generator with activations and biases of its own for each layer comes back as it was."""
    settings = {"activations": ("relu", "sigmoid"), "hidden_biases": (0.0, -2.0), "output_nonzeros": 2}
    original = replace(model(output="linear", **settings), image_shape=(1, 2, 3), pixels="contrast_normalised")
    save_generator(tmp_path, original)
    loaded = load_generator(tmp_path)
    assert (loaded.network, loaded.image_shape, loaded.pixels) == (original.network, (1, 2, 3), "contrast_normalised")
    assert np.array_equal(loaded.draw(20, seed=7), original.draw(20, seed=7))
    assert loaded.draw(4, 0).shape == (4, 1, 2, 3)


CONVOLUTIONAL = [
    ConvolutionalGeneratorSettings(channels=(4, 3), leak=0.1),
    MaxoutConvolutionalGeneratorSettings(hidden=(5,), maps=3, kernel=3, stride=1),
]


@pytest.mark.parametrize("network", CONVOLUTIONAL, ids=["convolutional", "maxout_convolutional"])
def test_convolutional_generator_is_loaded_or_refused(tmp_path, network):
    """A convolutional generator comes back as it was; hostile sizes in its configuration are refused."""
    original = convolutional(network)
    save_generator(tmp_path, original)
    loaded = load_generator(tmp_path)
    assert (loaded.network, loaded.image_shape, loaded.sha256) == (network, (6, 5, 3), original.sha256)
    assert np.array_equal(loaded.draw(20, seed=7), original.draw(20, seed=7))
    assert loaded.draw(4, 0).shape == (4, 6, 5, 3)
    whole = (tmp_path / "config.json").read_bytes()
    size = "channels" if "channels" in json.loads(whole)["generator"] else "hidden"
    for change, says in [
        (lambda c: c["generator"].update({size: [2**40, 2**40]}), "layers of .*1099511627776"),
        (lambda c: c["generator"].update({size: [2**70]}), "layers of "),
        (lambda c: c["generator"].update({size: [1.5]}), rf"{size} \(1.5,\)"),
        (lambda c: c["generator"].update({size: [True]}), rf"{size} \(True,\)"),
        (lambda c: c["generator"].update({size: []}), f"network.generator.{size}"),
        (lambda c: c["generator"].update(output=["relu"]), "output"),
        (lambda c: c["generator"].update(module="os"), "unknown key module"),
        (lambda c: c.update(image_shape=[90]), "not images"),
        (lambda c: c.update(image_shape=[2**31, 2**31, 3]), "ValueError|ConfigurationError"),
        (lambda c: c.update(architecture="dense"), "unknown key"),
    ]:
        rewrite(tmp_path, change)
        with pytest.raises(CheckpointError, match=rf"unreadable generator .*{says}"):
            load_generator(tmp_path)
        (tmp_path / "config.json").write_bytes(whole)
    load_generator(tmp_path)


@pytest.mark.parametrize("network", CONVOLUTIONAL, ids=["convolutional", "maxout_convolutional"])
def test_convolution_bits_do_not_depend_on_threads(network):
    """The number of threads changes no bit of a convolutional generator's images."""
    wide, before = convolutional(network), torch.get_num_threads()
    try:
        drawn = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            drawn.append(wide.draw(40, 5).tobytes())
    finally:
        torch.set_num_threads(before)
    assert drawn[0] == drawn[1]


def convolutional(network) -> PortableGenerator:
    generator = make_generator(network, 3, 0, (6, 5, 3))
    random = torch.Generator().manual_seed(0)
    for parameter in generator.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random)
    return PortableGenerator(generator.eval(), NoiseSettings("normal", 3), network, (6, 5, 3))


def test_first_version_folder_still_loads(folder):
    """A folder of the first version, which lacks the later keys, still loads and draws the same images."""

    def forget(config):
        del config["pixels"]
        for key in ("activations", "hidden_biases", "output_init_range", "output_nonzeros"):
            del config["generator"][key]
        for key in ("max_column_norm", "pretrained_layers"):
            del config["generator"][key]

    rewrite(folder, forget)
    signed = {"config_sha256": hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()}
    write_checkpoint(folder, 0, {"generator": dict(model().generator.state_dict())}, signed)
    loaded = load_generator(folder)
    assert (loaded.pixels, loaded.network) == ("unit", model().network)
    assert np.array_equal(loaded.draw(5, 7), model().draw(5, 7))


def test_images_are_a_function_of_seed_and_set_alone():
    one, other = model(), model()
    first = one.draw(20, 7)
    one.draw(5, 8)
    torch.rand(3)
    assert np.array_equal(first, one.draw(20, 7))
    assert np.array_equal(first, other.draw(20, 7, sample_set=0))
    assert first.shape == (20, 2, 3)
    assert first.min() >= 0
    assert first.max() <= 1
    for different in (one.draw(20, 8), one.draw(20, 7, 1)):
        assert not np.array_equal(first, different)
    # The first draws are the same however many follow; blocks of other sizes may round otherwise.
    np.testing.assert_allclose(one.draw(3, 7), first[:3], rtol=1e-5, atol=1e-6)


def test_images_are_g_of_noise_of_the_right_width():
    """Images are G of the noise, and noise of another width is refused with both shapes."""
    noise = torch.randn(4, 3)
    expected = model().generator(noise, torch.empty(4, 0)).detach().numpy().reshape(4, 2, 3)
    assert np.array_equal(model().images(noise), expected)
    with pytest.raises(CheckpointError, match=r"noise does not fit .*\[4, 5\]; expected \(count, 3\)"):
        model().images(torch.randn(4, 5))


def test_the_digest_sees_one_bit():
    changed = model()
    with torch.no_grad():
        changed.generator.weights[0][0, 0] = torch.nextafter(changed.generator.weights[0][0, 0], torch.tensor(9.0))
    assert changed.sha256 != model().sha256


# What is changed in config.json, and what the refusal says.
BAD_CONFIGURATIONS = [
    (lambda c: c.update(extra=1), "unknown keys extra"),
    (lambda c: c.update(architecture="pickle"), "architecture 'pickle'"),
    (lambda c: c.update(condition_size=2), "condition size 2"),
    (lambda c: c.pop("noise"), "KeyError: 'noise'"),
    (lambda c: c["noise"].update(scale=2), "unknown key scale"),
    (lambda c: c["noise"].update(prior="relu"), "prior 'relu'"),
    (lambda c: c["noise"].update(size=3.0), "size 3.0"),
    (lambda c: c["noise"].update(size=True), "size True"),
    (lambda c: c["noise"].update(size="3"), "size '3'"),
    (lambda c: c["generator"].update(module="os"), "unknown key module"),
    (lambda c: c["generator"].update(activation="eval"), "activation 'eval'"),
    (lambda c: c["generator"].update(activations=["relu"]), "network.generator.activations"),
    (lambda c: c["generator"].update(activations=["relu", "eval"]), "activations .*'eval'"),
    (lambda c: c["generator"].update(hidden_biases=["0", "1"]), "hidden_biases"),
    (lambda c: c.update(pixels="rgb"), "pixels 'rgb'"),
    (lambda c: c.update(pixels=["unit"]), "pixels"),
    (lambda c: c["generator"].update(output="normal"), "output 'normal'"),
    (lambda c: c["generator"].update(output=["relu"]), "output"),
    (lambda c: c["generator"].update(hidden=[]), "network.generator.hidden"),
    (lambda c: c["generator"].update(hidden=[float("inf")]), "hidden .*inf"),
    (lambda c: c["generator"].update(hidden=[2**20, 2**20]), "layers of .*1048576, 1048576"),
    (lambda c: c["generator"].update(init_range=-1.0), "network.generator.init_range"),
    (lambda c: c.update(image_shape=[-2, -3]), r"images of \[-2, -3\]"),
    (lambda c: c.update(image_shape=[2**32, 2**32]), "images of "),
    (lambda c: c.update(image_shape=6), "TypeError"),
    (lambda c: c.update(image_shape="23"), r"images of \('2', '3'\)"),
]


def test_foreign_configuration_is_refused_before_build(tmp_path):
    """A configuration that is not ours is refused in one line before any net is built."""
    for number, (change, _) in enumerate(BAD_CONFIGURATIONS):
        save_generator(tmp_path / f"{number:02}", model())
        rewrite(tmp_path / f"{number:02}", change)
    # In a process of its own, since the tests' type checks would refuse some of them first.
    script = """
import sys
from pathlib import Path
from gan_core.errors import CheckpointError
from gan_core.portable import load_generator
for folder in sorted(Path(sys.argv[1]).iterdir()):
    try:
        print("accepted", load_generator(folder))
    except CheckpointError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    for line, (_, message) in zip(done.stdout.splitlines(), BAD_CONFIGURATIONS, strict=True):
        assert re.match(rf"unreadable generator \(.*config.json\): .*{message}.*; expected what this", line), line


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
keys = [("noise",), ("generator",), ("image_shape",), ("condition_size",), ("architecture",), ("new",), ()]
keys += [("pixels",), ("generator", "activations")]
keys += [("noise", "prior"), ("noise", "size"), ("generator", "hidden"), ("generator", "init_range")]


# The folder is put back after each example.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(keys), documents)
def test_any_json_configuration_is_ours_or_refused(folder, key, document):
    """Any JSON in the configuration's place gives the same images or our error."""
    whole = (folder / "config.json").read_bytes()

    def change(config):
        for name in key[:-1]:
            config = config[name]
        config[key[-1]] = document

    try:
        rewrite(folder, change) if key else (folder / "config.json").write_text(json.dumps(document))
        try:
            loaded = load_generator(folder)
        except CheckpointError:
            return
        assert np.array_equal(loaded.draw(2, 0).ravel(), model().draw(2, 0).ravel())
    finally:
        (folder / "config.json").write_bytes(whole)


@pytest.mark.parametrize("name", FILES)
def test_each_file_must_be_plain_and_of_sane_size(folder, name):
    """Each file of the folder must be there, be a plain file and be no larger than the limit."""
    path, aside = folder / name, folder.parent / "aside"
    path.rename(aside)
    refused = rf"not a generator \(.*{name}\): no plain file"
    with pytest.raises(CheckpointError, match=refused):
        load_generator(folder)
    path.symlink_to(aside)
    with pytest.raises(CheckpointError, match=refused):
        load_generator(folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(CheckpointError, match=refused):
        load_generator(folder)
    path.rmdir()
    aside.rename(path)
    load_generator(folder)
    os.truncate(path, MAX_BYTES + 1)  # sparse
    with pytest.raises(CheckpointError, match=rf"file too large \(.*{name}\): 2147483649 bytes; expected at most"):
        load_generator(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["weights.0"].fill_(float("nan")), "weights.0 is not finite"),
        (lambda t: t.pop("biases.2"), "biases.2 is missing"),
        (lambda t: t.update(code=torch.zeros(1)), "code is unknown"),
        (
            lambda t: t.update({"biases.0": torch.zeros(7)}),
            r"biases.0 is float32\[7\] where the model has float32\[5\]",
        ),
        (lambda t: t.update({"biases.0": torch.zeros(5).double()}), r"float64\[5\] where the model has float32\[5\]"),
    ],
)
def test_unfit_weights_are_refused_despite_their_digest(folder, change, message):
    """Weights that are not this model's, or not finite, are refused though their digest is right."""
    tensors = {name: tensor.clone() for name, tensor in model().generator.state_dict().items()}
    change(tensors)
    signed = {"config_sha256": hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()}
    write_checkpoint(folder, 0, {"generator": tensors}, signed)
    with pytest.raises(CheckpointError, match=rf"weights do not fit \(.*generator.safetensors\): .*{message}"):
        load_generator(folder)


def test_changed_weights_are_refused_and_others_ignored(folder):
    """Weights whose bytes changed are refused, and files that are not ours are never looked at."""
    (folder / "MLmodel").write_text("loader_module: os")
    (folder / "extra.safetensors").mkdir()
    load_generator(folder)
    content = bytearray((folder / "generator.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "generator.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged checkpoint \(.*generator.safetensors\): SHA-256"):
        load_generator(folder)


def test_other_valid_configuration_is_refused(folder):
    """A valid configuration other than the written one is damage, as its digest is in the manifest."""
    rewrite(folder, lambda config: config["generator"].update(activation="tanh"))
    with pytest.raises(CheckpointError, match=r"damaged generator .*config\.json"):
        load_generator(folder)


def test_bits_do_not_depend_on_threads_which_stay():
    """The number of threads changes no bit of the images, and stays what it was."""
    network = DenseGeneratorSettings(hidden=(16,), activation="linear", output="linear")
    net = DenseGenerator(16, 0, 64, network)
    random = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random)
    wide = PortableGenerator(net.eval(), NoiseSettings("normal", 16), network, (8, 8))
    before = torch.get_num_threads()
    try:
        drawn = []
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            drawn.append(wide.draw(9, 5).tobytes())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert len(set(drawn)) == 1
