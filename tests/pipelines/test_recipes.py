"""The recipes that `gan init FOLDER` writes are those of configs/, where they were tuned."""

from pathlib import Path

import pytest

from pipelines import config
from pipelines.config.recipes import configuration_text

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("name", "side", "channels", "strokes"),
    [
        ("digits", 8, "grey", False), ("mnist", 28, "grey", True), ("fashion_mnist", 28, "grey", False),
        ("mnist_convolutional", 28, "colour", False),
    ],
)  # fmt: skip
def test_recipes_are_those_that_were_tuned(name, side, channels, strokes):
    """For as many images noise, nets and algorithm are the file's, setting by setting: neither changes alone."""
    data = {"name": "images", "root": "folder", "size": [side, side], "channels": channels}
    text = configuration_text(data, strokes, training_images=1000, choosing_images=100, threads=2, model="gan-mine")
    written, tuned = config.build(config.parse_yaml(text, name)), config.load(CONFIGS / f"{name}.yaml")
    assert (written.noise, written.network, written.algorithm) == (tuned.noise, tuned.network, tuned.algorithm)
