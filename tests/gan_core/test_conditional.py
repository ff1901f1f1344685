"""A conditional model: registered and read back with its classes, and of the class that it is asked for."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from gan_core.conditions.classes import Classes, class_condition, classes_of
from gan_core.conditions.settings import ExtensionSettings, conditions_from, described
from gan_core.datasets.digits import load_digits
from gan_core.errors import CheckpointError, ConfigurationError
from gan_core.extensions.measures import described_measures, extension_measures, headline
from gan_core.extensions.recognition import recognition
from gan_core.metrics.classifier import ClassifierSettings, train_classifier
from gan_core.networks.dense import DenseGenerator, DenseGeneratorSettings
from gan_core.noise import NoiseSettings
from gan_core.portable import PortableGenerator, load_generator, save_generator

DIGITS = load_digits()
CLASSES = classes_of(DIGITS)


def mean_digits(shift: int = 0) -> PortableGenerator:
    """A conditional generator in closed form: the mean image of the class `shift` after the one asked for, whatever z."""
    settings = DenseGeneratorSettings(hidden=(10,), output="linear", marginal_bias=False)
    net = DenseGenerator(2, 10, 64, settings)
    means = [DIGITS.train.images[DIGITS.train.labels == (label + shift) % 10].mean(axis=0) for label in range(10)]
    with torch.no_grad():
        net.weights[0][2:] = torch.eye(10)
        net.weights[1].copy_(torch.from_numpy(np.stack(means)))
    return PortableGenerator(net.eval(), NoiseSettings("normal", 2), settings, (8, 8), conditions=CLASSES)


def test_saved_model_keeps_classes_and_images(tmp_path):
    """A saved conditional model has the same classes and the same images when it is loaded."""
    model = mean_digits()
    save_generator(tmp_path, model)
    loaded = load_generator(tmp_path)
    assert loaded.conditions == CLASSES
    assert np.array_equal(loaded.draw(20, 3), model.draw(20, 3))
    assert conditions_from(json.loads(json.dumps(described(CLASSES)))) == CLASSES


def test_samples_have_the_class_asked_or_the_prior():
    """Samples are of the class asked for; without one the classes have the training data's frequencies."""
    model = mean_digits()
    threes = model.draw(5, 0, condition=class_condition(model.conditions, 3, 5))
    mean = DIGITS.train.images[DIGITS.train.labels == 3].mean(axis=0).reshape(8, 8)
    np.testing.assert_allclose(threes, np.broadcast_to(mean, (5, 8, 8)), rtol=0, atol=1e-6)  # one float32 product
    kinds, counts = np.unique(model.draw(5000, 1).reshape(5000, -1).round(4), axis=0, return_counts=True)
    assert len(kinds) == 10
    # Ten classes of 0.1 and less: standard errors up to 0.0043 of the shares; four of them.
    np.testing.assert_allclose(sorted(counts / 5000), sorted(CLASSES.frequencies), rtol=0, atol=0.018)
    with pytest.raises(CheckpointError, match=r"condition does not fit .*\[4, 0\]; expected \(count, 10\)"):
        model.images(torch.zeros(4, 2))
    with pytest.raises(ConfigurationError, match=r"no such class \(condition\): 10; expected one of 0, 1"):
        class_condition(model.conditions, 10, 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(condition_size=9), lambda c: c.pop("conditions"), lambda c: c["conditions"].update(kind="os"),
        lambda c: c["conditions"].update(kind=["classes"]), lambda c: c["conditions"].update(more=1),
        lambda c: c["conditions"].update(labels=["0"] * 10), lambda c: c["conditions"].update(labels=[1, 2]),
        lambda c: c["conditions"].update(frequencies=[2.0] + 9 * [0.0]), lambda c: c.update(conditions=[1]),
        lambda c: c.update(conditions={"kind": "observed pixels", "image_shape": [1, 5], "masks": ["all"]}),
    ],
)  # fmt: skip
def test_conditions_that_are_not_ours_are_refused(tmp_path, change):
    save_generator(tmp_path, mean_digits())
    document = json.loads((tmp_path / "config.json").read_text())
    change(document)
    (tmp_path / "config.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="unreadable generator"):
        load_generator(tmp_path)


@pytest.mark.parametrize("shift", [0, 1])
def test_recognition_is_one_for_right_classes_else_zero(monkeypatch, shift):
    """A classifier recognises the classes asked for nearly always, and never those of shifted labels."""
    quick = ClassifierSettings(hidden=(32,), least_steps=150, epochs=1)
    monkeypatch.setattr("gan_core.extensions.recognition.train_classifier", lambda e, s: train_classifier(e, s, quick))
    seen = recognition(mean_digits(shift), DIGITS, 95, 0)
    assert seen.samples == 100
    assert set(seen.by_class.values()) <= {0.0, 1.0}  # a class has one image
    # Means of classes are easier than images: at most one of ten is taken for another.
    assert seen.recognised == pytest.approx(1 - shift, abs=0.11)
    assert 0.8 < seen.classifier_accuracy < 1
    (line,) = described_measures({"recognition": seen.__dict__})
    assert headline({"recognition": seen.__dict__}) == {"recognised": seen.recognised}
    assert f"{seen.recognised:.1%}" in line


def test_unconditional_model_has_no_measures_or_class():
    """An unconditional model has no conditional measures, and refuses a class in one line."""
    net = DenseGenerator(2, 0, 64, DenseGeneratorSettings(hidden=(3,)))
    model = PortableGenerator(net, NoiseSettings(size=2), DenseGeneratorSettings(hidden=(3,)), (8, 8))
    assert extension_measures(model, DIGITS, 10, 0) is None
    assert described_measures(None) == []
    assert headline(None) == {}
    with pytest.raises(
        ConfigurationError, match=r"not a conditional model .*condition 3; expected a model trained with"
    ):
        class_condition(model.conditions, 3, 1)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": "imputation", "masks": ()}, "one or more kinds"),
        ({"name": "imputation", "masks": ("all", "all")}, "each once"),
        ({"name": "conditional", "masks": ("all",)}, "for extension.name imputation, not conditional"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, says):
    with pytest.raises(ValueError, match=says):
        ExtensionSettings(**given)
    assert replace(ExtensionSettings(), name="conditional").name == "conditional"
    assert isinstance(CLASSES, Classes)
