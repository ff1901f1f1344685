"""Inference of z from x: exact where G is linear, learned where it is not, resumed to the bit, kept as data."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from gan_core.algorithm1 import AlgorithmSettings
from gan_core.checkpoint import tensors_digest, write_checkpoint
from gan_core.conditions.settings import ExtensionSettings, InferenceSettings
from gan_core.datasets import DataSettings, load
from gan_core.errors import CheckpointError, DataError, Diverged
from gan_core.extensions.inference import (
    Encoder,
    Inference,
    encoder_of,
    evaluate_encoder,
    initial_encoder,
    train_encoder,
)
from gan_core.extensions.portable_encoder import load_inference, save_inference
from gan_core.networks.dense import DenseDiscriminatorSettings, DenseGeneratorSettings, NetworkSettings
from gan_core.noise import NoiseSettings
from gan_core.portable import PortableGenerator, load_generator, save_generator
from gan_core.training import TrainingSettings
from tests.pipelines.conftest import principal_generator, trained_alone

SETTINGS = InferenceSettings(steps=300, learning_rate=2e-3)


@pytest.fixture(scope="module")
def digits():
    return load(DataSettings("digits"))


@pytest.fixture(scope="module")
def model(digits):
    """A small generator that has been trained for 300 steps of Algorithm 1."""
    network = NetworkSettings(
        generator=DenseGeneratorSettings(hidden=(64,)), discriminator=DenseDiscriminatorSettings((32, 32), 3, 0.05)
    )
    adam = AlgorithmSettings(optimizer="adam", generator_learning_rate=2e-3, discriminator_learning_rate=2e-3)
    settings = TrainingSettings(0, NoiseSettings("uniform", 8), network, adam)
    state = trained_alone(settings, digits, 300)
    return PortableGenerator(state.generator.eval(), settings.noise, network.generator, digits.shape)


def encoded(model, digits, settings=SETTINGS, until=None, state=None):
    """The encoder's state after training, or after its first steps."""
    state = state or initial_encoder(settings, model, 0)
    for report in train_encoder(model, settings, 0, digits.train, state, lambda step: step == until):
        if report.step == until:
            break
    return state


@pytest.fixture(scope="module")
def inference(model, digits):
    before = model.sha256
    state = encoded(model, digits)
    assert model.sha256 == before  # G is fixed
    return Inference(model, state.encoder.eval(), (64,))


def exact(model):
    """The encoder that inverts a linear generator with orthogonal rows: z = W+ (x - mean), as relu(a) - relu(-a)."""
    weight, mean = model.generator.weights[1].detach(), model.generator.biases[1].detach()
    kept = weight.norm(dim=1) > 0
    inverse = torch.zeros(weight.shape[1], weight.shape[0])
    inverse[:, kept] = weight[kept].T / weight[kept].square().sum(dim=1)
    width = weight.shape[0]
    encoder = encoder_of(model, (2 * width,))
    with torch.no_grad():
        encoder.net.weights[0].copy_(torch.cat([inverse, -inverse], dim=1))
        encoder.net.biases[0].copy_(-mean @ torch.cat([inverse, -inverse], dim=1))
        encoder.net.weights[1].copy_(torch.cat([torch.eye(width), -torch.eye(width)]))
    return Inference(model, encoder, (2 * width,))


def test_exact_linear_encoder_equals_pca(digits):
    """The exact encoder of a linear G reconstructs as PCA does, with PCA's errors and distances."""
    known = exact(principal_generator(digits, 8))
    images = digits.test.images
    principal = PCA(8, svd_solver="full").fit(digits.train.images)
    expected = principal.inverse_transform(principal.transform(images))
    again = known.reconstruct(images).reshape(len(images), -1)
    np.testing.assert_allclose(again, expected, atol=2e-5)  # float32, sums of 64 products of order 1
    seen = evaluate_encoder(known, digits, seed=0, samples=500)
    assert seen.error == pytest.approx(np.square(expected - images).sum(axis=1).mean(), rel=1e-4)
    mean = np.square(digits.train.images.mean(axis=0) - images).sum(axis=1).mean()
    assert seen.mean_image_error == pytest.approx(mean, rel=1e-4)
    assert seen.cycle_distance < 1e-4
    # G(z') - G(z) is normal with twice the components' variance: its mean square, and so its mean by Jensen at most.
    expected_square = 2 * principal.explained_variance_.sum() * (len(digits.train) - 1) / len(digits.train)
    assert 0.8 * math.sqrt(expected_square) < seen.random_distance < 1.02 * math.sqrt(expected_square)
    assert (seen.samples, seen.images) == (500, len(images))


def test_nearest_sample_error_is_the_minimum(digits):
    """The nearest sample's error is the least over all samples, as a direct search finds it."""
    model = principal_generator(digits, 8)
    pool = model.draw(200, 3).reshape(200, -1)
    distances = np.square(digits.test.images[:, None] - pool[None]).sum(axis=2).min(axis=1)
    seen = evaluate_encoder(exact(model), digits, seed=3, samples=200)
    assert seen.nearest_sample_error == pytest.approx(distances.mean(), rel=1e-4)


def test_trained_encoder_beats_random_z_and_mean_image(inference, digits):
    """Samples come back three times nearer than from a random z, and test images nearer than their mean."""
    seen = evaluate_encoder(inference, digits, seed=1, samples=2000)
    assert seen.cycle_distance < seen.random_distance / 3
    assert seen.error < seen.mean_image_error


def test_resumed_encoder_equals_the_undisturbed_one(model, digits, inference):
    """Stopped at step 200 and resumed, the encoder has the bits of an undisturbed training."""
    half = encoded(model, digits, until=200)
    assert int(half.step) == 200
    kept = {group: {name: tensor.clone() for name, tensor in named.items()} for group, named in half.tensors().items()}
    fresh = initial_encoder(SETTINGS, model, 0)
    fresh.load(kept, "a test")
    whole = encoded(model, digits, state=fresh)
    assert tensors_digest(whole.encoder.state_dict()) == inference.sha256
    other = initial_encoder(SETTINGS, model, 1)
    assert tensors_digest(other.encoder.state_dict()) != tensors_digest(
        initial_encoder(SETTINGS, model, 0).encoder.state_dict()
    )


def test_without_a_weight_for_images_the_data_decides_nothing(model, digits):
    settings = replace(SETTINGS, steps=20, images_weight=0.0)
    shifted = replace(digits, train=digits.train[100:300])
    one, other = (encoded(model, data, settings) for data in (digits, shifted))
    assert tensors_digest(one.encoder.state_dict()) == tensors_digest(other.encoder.state_dict())
    with_images = replace(settings, images_weight=0.3)
    one, other = (encoded(model, data, with_images) for data in (digits, shifted))
    assert tensors_digest(one.encoder.state_dict()) != tensors_digest(other.encoder.state_dict())


def test_z_is_bounded_by_a_uniform_prior_only():
    """The encoder's z stays within a uniform prior's range and is free under a normal one."""
    images = 100 * torch.ones(2, 4)
    for prior, bounded in (("uniform", True), ("normal", False)):
        encoder = Encoder(4, (3,), NoiseSettings(prior, 2))
        with torch.no_grad():
            for weight in encoder.net.weights:
                weight.fill_(1.0)
        z = encoder(images)
        assert bool((z.abs() <= math.sqrt(3)).all()) == bounded


def test_a_training_that_diverges_says_so(model, digits):
    settings = InferenceSettings(steps=50, learning_rate=1e20)
    normal = replace(model, noise=NoiseSettings("normal", 8))
    with pytest.raises(Diverged, match=r"the encoder's training diverged \(step \d+\): .*_error (nan|inf)"):
        list(train_encoder(normal, settings, 0, digits.train, initial_encoder(settings, normal, 0), lambda step: True))


def test_images_of_another_size_or_not_finite_are_refused(inference):
    with pytest.raises(DataError, match=r"images do not fit \(encoder\): an array of shape \[2, 63\]; expected .*64"):
        inference.noise_of(np.zeros((2, 63), np.float32))
    with pytest.raises(DataError, match=r"pixels are not finite \(encoder\): 1 values"):
        inference.noise_of(np.array([[math.nan] + [0.0] * 63], np.float32))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"hidden": ()}, r"inference.hidden \[\] is not a list of layer widths"),
        ({"hidden": (4, 0)}, r"inference.hidden \[4, 0\]"),
        ({"steps": 0}, "inference.steps 0 is not positive"),
        ({"batch_size": 0}, "inference.batch_size 0 is not positive"),
        ({"images_weight": -1.0}, "inference.images_weight -1.0 is not a number from 0 on"),
        ({"noise_weight": math.inf}, "inference.noise_weight inf"),
        ({"learning_rate": 0.0}, "inference.learning_rate 0.0 is not a positive number"),
        ({"noise_weight": 0.0, "reconstruction_weight": 0.0, "images_weight": 0.0}, "are all 0"),
    ],
)
def test_settings_out_of_range_are_named(given, words):
    with pytest.raises(ValueError, match=words):
        InferenceSettings(**given)


def test_inference_shapes_neither_net():
    assert ExtensionSettings("inference", inference=InferenceSettings(steps=7)).network_extension == ExtensionSettings()
    assert ExtensionSettings("conditional").network_extension == ExtensionSettings("conditional")
    with pytest.raises(ValueError, match=r"extension.inference is for extension.name inference, not none"):
        ExtensionSettings(inference=InferenceSettings(steps=7))


# As a folder


@pytest.fixture
def folder(inference, tmp_path):
    save_inference(tmp_path / "model", inference, {"run": "a"})
    return tmp_path / "model"


def test_encoder_is_loaded_to_the_bit_beside_g(folder, inference, digits):
    """A saved encoder comes back to the bit, and a reader that does not know it loads G from the same folder."""
    loaded = load_inference(folder)
    images = digits.test.images[:50]
    assert np.array_equal(loaded.reconstruct(images), inference.reconstruct(images))
    assert (loaded.sha256, loaded.hidden) == (inference.sha256, (64,))
    alone = load_generator(folder)
    assert alone.sha256 == loaded.model.sha256 == inference.model.sha256
    assert np.array_equal(alone.draw(5, 0), inference.model.draw(5, 0))


def test_a_model_without_an_encoder_gives_one_clear_line(tmp_path, inference, folder):
    save_generator(tmp_path / "alone", inference.model)
    (folder / "encoder.safetensors").unlink()
    for without in (tmp_path / "alone", folder):
        with pytest.raises(CheckpointError, match=r"no inference net \(.*\): no encoder.safetensors; expected a model"):
            load_inference(without)


def test_encoder_with_one_changed_bit_is_refused(folder):
    """One changed bit in the encoder's file is a damaged checkpoint."""
    path = folder / "encoder.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        load_inference(folder)


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"hidden": [63]}, "weights do not fit"),
        ({"hidden": []}, "unreadable encoder"),
        ({"hidden": [-1]}, "unreadable encoder"),
        ({"hidden": [64.0]}, "unreadable encoder"),
        ({"hidden": [2**31, 2**31]}, "unreadable encoder"),
        ({"hidden": 64}, "unreadable encoder"),
        ({"hidden": [64], "code": "x"}, "unreadable encoder"),
        (["hidden"], "unreadable encoder"),
    ],
)
def test_an_encoder_that_is_described_otherwise_is_refused(described, words, folder, inference):
    known = json.loads((folder / "MANIFEST.json").read_text())["about"]
    groups = {"generator": inference.model.generator.state_dict(), "encoder": inference.encoder.state_dict()}
    write_checkpoint(folder, 0, groups, {**known, "encoder": described})
    with pytest.raises(CheckpointError, match=words):
        load_inference(folder)
