"""What an earlier version wrote is loaded to the bit, and a training it left goes on as it would have."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_core.checkpoint import tensors_digest
from gan_core.datasets import DataSettings, load
from gan_core.datasets.preprocessing import to_bytes
from gan_core.portable import load_generator
from gan_core.training import initial_state, train
from pipelines.runs.resume import resume
from pipelines.runs.run import Run
from pipelines.stages.train import gan_training
from pipelines.storage import Storage, latest_checkpoint
from tests.golden import RESUMED, SAVED

VERSIONS = sorted(path for path in Path(__file__).parent.glob("v*") if path.is_dir())


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
def golden(request):
    return request.param


@pytest.fixture(params=["momentum", "adam"])
def run(request, golden):
    return Run.open(request.param, Storage.at(golden))


@pytest.fixture(scope="module")
def digits():
    return load(DataSettings("digits"))


def expected(golden):
    return json.loads((golden / "expected.json").read_text())


def test_there_are_golden_files():
    assert [path.name for path in VERSIONS][:1] == ["v0.1.0"]


def test_old_checkpoint_has_its_weights_to_the_bit(golden, run):
    """A checkpoint of an earlier version has its weights to the bit."""
    _, manifest, tensors = latest_checkpoint(run.folder.child("checkpoints"))
    digests = expected(golden)[run.name]
    assert manifest.step == SAVED
    assert tensors_digest(tensors["generator"], tensors["discriminator"]) == digests["weights_sha256"]
    assert run.generator().sha256 == digests["generator_sha256"]


def test_old_training_resumes_as_it_would_have(golden, run, digits):
    """A training of an earlier version goes on as it would have, to the rounding of other processors."""
    settings = run.configuration.training()
    state = initial_state(settings, digits.train)
    resume(state, gan_training(run.folder, settings, run.configuration.train, digits.digest, digits.shape))
    assert int(state.step) == SAVED
    before = {name: tensor.clone() for name, tensor in state.tensors()["generator"].items()}
    for _ in train(settings, digits.train, state, RESUMED, lambda step: False):
        pass
    _, manifest, then = latest_checkpoint(run.folder.child("resumed"))
    assert manifest.step == RESUMED
    largest = max(float((then["generator"][name] - before[name]).abs().max()) for name in before)
    for group, tensors in state.tensors().items():
        for name, tensor in tensors.items():
            # Another processor or torch may add in another order: float32 rounding over three steps
            # whose updates are of the order `largest`, 1e-3 and more.
            torch.testing.assert_close(tensor, then[group][name], rtol=1e-4, atol=1e-6)
    assert largest > 1e-4  # a step that is not taken would be seen


def test_old_generator_draws_the_same_images(golden):
    """A generator of an earlier version draws the images that it drew, to one grey level."""
    model = load_generator(golden / "generator")
    assert model.sha256 == expected(golden)["adam"]["generator_sha256"]
    images, then = to_bytes(model.draw(4, seed=0)), np.load(golden / "images.npy")
    assert images.shape == then.shape == (4, 8, 8)
    assert len(np.unique(then)) > 50  # a picture, not a plain
    assert np.abs(images.astype(int) - then).max() <= 1  # a pixel on the edge between two bytes
