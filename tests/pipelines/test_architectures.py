"""A convolutional run: made from a configuration, trained, read back, sampled, warm-started from, refused where it does not fit."""

import json

import numpy as np
import pytest

from gan_core.errors import CheckpointError
from gan_core.portable import load_generator, save_generator
from pipelines import config
from pipelines.runs import warm_start
from pipelines.runs.run import Run
from pipelines.storage import Storage, save_checkpoint
from tests.pipelines.conftest import ANY_MODEL, failed, gan, trained_alone
from tests.pipelines.test_warm_start import begun, digest, job, no_registry

EVERYDAY = (
    """
data: {name: digits}
noise: {size: 8}
network:
  architecture: convolutional
  generator: {channels: [8, 4]}
  discriminator: {channels: [4, 8], spectral_norm: true}
algorithm: {batch_size: 50, steps: 30, optimizer: adam, generator_learning_rate: 0.002, discriminator_learning_rate: 0.002}
train: {workers: 2, checkpoint_every: 10}
tune: {rungs: [5, 10], samples: 200, space: {network.generator.channels: {choice: [[8, 4], [4]]}}}
evaluate: {samples: 200}
"""
    + f"registry: {{model: gan-convolutional, gate: {json.dumps(ANY_MODEL)}}}\n"
)
MAXOUT = """
data: {name: digits}
noise: {size: 8}
network:
  architecture: maxout_convolutional
  generator: {hidden: [12], maps: 4, output: sigmoid}
  discriminator: {channels: [3], kernels: [3], paddings: [1], pools: [2], pool_strides: [2], units: [6]}
algorithm: {batch_size: 50, steps: 30}
"""


@pytest.fixture(params=[EVERYDAY, MAXOUT], ids=["convolutional", "maxout_convolutional"])
def run(request, tmp_path, digits):
    """A run of 10 steps, as `gan train` leaves it."""
    configuration = config.build(config.parse_yaml(request.param, "it"))
    made = Run.create(configuration, "stem", "it", Storage.at(tmp_path / "st"))
    made.save()
    state = trained_alone(configuration.training(), digits, 10)
    save_checkpoint(made.folder.child("checkpoints"), 10, state.tensors(), job(made, digits).about, keep=2)
    return made


def test_run_generator_has_its_architecture(run, digits, tmp_path):
    """A convolutional run's generator has its weights, and a saved copy draws the same images."""
    reopened = Run.open(run.name, run.storage)
    assert reopened.configuration == run.configuration
    model, state = reopened.generator(), trained_alone(run.configuration.training(), digits, 10)
    for name, tensor in state.generator.state_dict().items():
        assert np.array_equal(model.generator.state_dict()[name], tensor)
    images = model.draw(9, 0)
    assert images.shape == (9, 8, 8)
    save_generator(tmp_path / "portable", model)
    assert np.array_equal(load_generator(tmp_path / "portable").draw(9, 0), images)


def test_continued_run_equals_one_in_one_go(run, digits):
    """A run continued to more steps begins with the bits that one in one go has there."""
    longer = config.override(run.configuration, {"algorithm.steps": 12})
    found, tensors = warm_start.find("it", run.storage, no_registry, longer)
    more = Run.create(warm_start.adapt(longer, found), "stem", "more", run.storage, found)
    more.origin_tensors = tensors
    more.save()
    warm_start.check_data(more, digits)
    state = begun(more, digits)
    assert digest(state) == digest(trained_alone(run.configuration.training(), digits, 10))


def test_a_generator_of_another_architecture_is_no_warm_start(run, digits):
    about = warm_start.Origin(
        "gan/1",
        "generator",
        "gan/1",
        0,
        "",
        None,
        {"noise": {"prior": "uniform", "size": 8}, "generator": {"hidden": [8]}},
    )
    with pytest.raises(
        CheckpointError, match=r"other architecture \(gan/1\): architecture dense; expected .*convolutional"
    ):
        warm_start.adapt(run.configuration, about)


def test_unfit_images_are_refused_before_anything_starts(tmp_path, here):
    """Images that do not fit the architecture, or a candidate's, are one line before anything starts."""
    (tmp_path / "it.yaml").write_text(EVERYDAY)
    where = ("--storage", tmp_path / "st")
    fit = here(
        "run",
        "it.yaml",
        "--set",
        "tune.candidates=2",
        "--dry-run",
        "--tracking-uri",
        f"sqlite:///{tmp_path}/m.db",
        *where,
    )
    assert fit.code == 0, fit.err
    space = "tune.space={network.generator.channels: {choice: [[4]]}, network.discriminator.channels: {choice: [[2, 2, 2, 2]]}}"
    answer = here("tune", "it.yaml", "--set", "tune.candidates=2", "--set", space, *where)
    failed(answer, 2, "images too small (network.discriminator.channels): 4 halvings of [8, 8]; expected at most 3")
    (tmp_path / "it.yaml").write_text(MAXOUT)
    answer = here("train", "it.yaml", "--set", "network.generator.kernel=4", *where)
    failed(answer, 2, "images do not fit the deconvolution", "a side of 8 pixels; expected 7 or 10")


@pytest.mark.slow
def test_convolutional_pipeline_ignores_worker_count(tmp_path, digits, registry_uri):
    """A convolutional run goes through every stage, and its weights do not depend on the number of workers."""
    (tmp_path / "it.yaml").write_text(EVERYDAY)
    where = ("--storage", tmp_path / "st", "--tracking-uri", registry_uri, "--json")
    done = gan("run", "it.yaml", "--name", "it", "--set", "tune.candidates=2", *where, cwd=tmp_path)
    assert done.code == 0, done.err
    assert (done.json["model"], done.json["alias"]) == ("gan-convolutional", "champion")
    shards = ("--set", "train.workers=1", "--set", "train.virtual_shards=2")
    one, two = (
        gan("train", "it.yaml", "--name", name, *more, *where, cwd=tmp_path)
        for name, more in (("one", shards), ("two", ()))
    )
    assert one.json["weights_sha256"] == two.json["weights_sha256"]
    warm = gan("train", "it.yaml", "--name", "warm", "--continue-from", "gan-convolutional@champion", "--set",
               f"network.generator.channels={config.to_plain(Run.open('it', Storage.at(tmp_path / 'st')).chosen())['network']['generator']['channels']}",
               *where, cwd=tmp_path)  # fmt: skip
    assert warm.code == 0, warm.err
