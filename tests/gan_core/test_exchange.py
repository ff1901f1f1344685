"""Exported generators give the images of the nets they are from, in PyTorch's own format and in ONNX."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from gan_core import exchange
from gan_core.conditions.base import UNCONDITIONAL
from gan_core.conditions.classes import Classes
from gan_core.conditions.observed import Observed
from gan_core.errors import CheckpointError, ConfigurationError
from gan_core.networks import make_generator
from gan_core.networks.convolutional import ConvolutionalGeneratorSettings
from gan_core.networks.dense import DenseGeneratorSettings
from gan_core.noise import NoiseSettings
from gan_core.portable import PortableGenerator

SHAPE = (8, 8)
KINDS = {
    "dense": (DenseGeneratorSettings(hidden=(16,)), SHAPE, UNCONDITIONAL),
    "colour": (
        ConvolutionalGeneratorSettings(hidden=(12,), channels=(8, 4), output="linear"),
        (7, 7, 3),
        UNCONDITIONAL,
    ),
    "classes": (
        DenseGeneratorSettings(hidden=(16, 16), activations=("relu", "tanh")),
        SHAPE,
        Classes((0, 1, 2), (0.5, 0.25, 0.25)),
    ),
    "observed": (ConvolutionalGeneratorSettings(channels=(8,)), SHAPE, Observed(SHAPE, ("halves",))),
}


def model(kind):
    settings, shape, conditions = KINDS[kind]
    net = make_generator(settings, 5, conditions.size, shape)
    net.initialize(np.random.default_rng(7), np.full(int(np.prod(shape)), 0.4))
    return PortableGenerator(
        conditions.wrap(net).eval(), NoiseSettings("normal", 5), settings, shape, conditions=conditions
    )


@pytest.mark.parametrize("suffix", exchange.SUFFIXES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_generator_draws_the_same_images(kind, suffix, tmp_path):
    """Of any of our nets, conditional ones too, and of any count of z, not only those it was made with."""
    generator, path = model(kind), tmp_path / f"g{suffix}"
    assert exchange.export(generator, path) <= exchange.TOLERANCE
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    read = (exchange._read_onnx if suffix == ".onnx" else exchange._read_pt2)(path)
    for count in (1, 130):
        noise, condition = torch.randn(count, 5), generator.prior_condition(count, 3)
        inputs = {"noise": noise, "condition": condition} if generator.conditions.size else {"noise": noise}
        with torch.no_grad():
            images = read(inputs)
        # Sums of float32 in another order, of pixels of about 1.
        np.testing.assert_allclose(images, generator.images(noise, condition), atol=1e-5, rtol=1e-5)


def test_a_file_that_differs_is_refused(tmp_path, monkeypatch):
    """What does not draw G's images takes no name, and what was there stays."""
    path = tmp_path / "g.pt2"
    path.write_text("of before")
    read = exchange._read_pt2
    monkeypatch.setattr(exchange, "_read_pt2", lambda part: lambda inputs: read(part)(inputs) + 2e-5)
    with pytest.raises(
        CheckpointError, match=r"export differs .*pixels that differ by 2\.0e-05; expected at most 1e-05"
    ):
        exchange.export(model("dense"), path)
    assert path.read_text() == "of before"
    assert list(tmp_path.iterdir()) == [path]


def test_other_names_and_missing_packages_are_refused(tmp_path, monkeypatch):
    """By a line that says which names there are, or what to install."""
    with pytest.raises(ConfigurationError, match=r"unknown kind of export .*ending in \.pt2 or \.onnx"):
        exchange.export(model("dense"), tmp_path / "g.pt")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigurationError, match=r"not installed \(ONNX\): no package onnxscript; .*or a \.pt2 file"):
        exchange.export(model("dense"), tmp_path / "g.onnx")
    assert list(tmp_path.iterdir()) == []


def test_onnx_runs_without_torch(tmp_path):
    """A program that has NumPy and an ONNX runtime, and neither PyTorch nor us, draws images."""
    exchange.export(model("classes"), tmp_path / "g.onnx")
    program = (
        "import sys, numpy as np, onnxruntime as o; s = o.InferenceSession('g.onnx');"
        "x = s.run(None, {'noise': np.zeros((3, 5), 'f4'), 'condition': np.eye(3, dtype='f4')})[0];"
        "print(x.shape, [i.name for i in s.get_outputs()], 'torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert answer.stdout.strip() == "(3, 8, 8) ['images'] False", answer.stderr
