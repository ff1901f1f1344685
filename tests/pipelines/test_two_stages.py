"""TFD's two stages: new layers before a trained G, all of it trained on, over five folds to one number."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.io import savemat

from gan_core.checkpoint import tensors_digest
from gan_core.datasets import load
from gan_core.errors import CheckpointError, ConfigurationError
from gan_core.threads import one_thread
from gan_core.training import initial_state, train
from pipelines import config
from pipelines.cli import cli
from pipelines.runs import warm_start
from pipelines.runs.run import Run
from pipelines.storage import Storage, save_checkpoint
from tests.gan_core.test_network_recipes import CONFIGS
from tests.pipelines.conftest import failed, gan, trained_alone
from tests.pipelines.test_warm_start import begun, digest, job, no_registry

NEW = """
data: {name: digits}
noise: {prior: normal, size: 7}
network:
  generator:
    hidden: [12, 5, 9, 8]
    activations: [relu, sigmoid, relu, sigmoid]
    hidden_biases: [0.0, -2.0, 0.0, 0.0]
    init_range: 0.5
    max_column_norm: 1.5
    pretrained_layers: 3
  discriminator: {units: [6], pieces: 2, init_range: 0.5, max_column_norm: 1.5}
algorithm: {batch_size: 20, steps: 10}
"""
FIRST = {
    "noise.size": 5, "network.generator.hidden": [9, 8], "network.generator.activations": ["relu", "sigmoid"],
    "network.generator.hidden_biases": [0.0, -2.0], "network.generator.pretrained_layers": None,
}  # fmt: skip


@pytest.fixture
def storage(tmp_path):
    return Storage.at(tmp_path / "st")


@pytest.fixture
def second():
    """The second stage's configuration."""
    return config.build(config.parse_yaml(NEW, "NEW"))


def trained_run(configuration, name, storage, dataset, steps=10):
    """A run of so many steps, as `gan train` leaves it."""
    run = Run.create(configuration, "stem", name, storage)
    run.save()
    state = trained_alone(configuration.training(), dataset, steps)
    save_checkpoint(run.folder.child("checkpoints"), steps, state.tensors(), job(run, dataset).about, keep=2)
    return run


@pytest.fixture
def first(second, storage, digits):
    """A trained first stage: its last layers are what the second's shall be."""
    return trained_run(config.override(second, FIRST), "first", storage, digits)


def after(second, storage, name=None):
    """A run of the second stage, after the first."""
    found, tensors = warm_start.find("first", storage, no_registry, second)
    run = Run.create(warm_start.adapt(second, found), "stem", name, storage, found)
    run.origin_tensors = tensors
    return run


def test_second_stage_starts_with_first_g_as_last_layers(first, second, storage, digits):
    """The second stage begins with the first one's G as its last layers and all else new; all layers train."""
    second = config.override(second, {"algorithm.generator_average": 0.9})
    run = after(second, storage)
    warm_start.check_data(run, digits)
    run.save()
    assert (run.origin.taken, run.origin.digest) == ("layers", first.generator().sha256)
    assert warm_start.changes(run) == {}
    state, fresh = begun(run, digits), initial_state(second.training(), digits.train)
    assert int(state.step) == 0
    inner, none = first.generator().generator, torch.empty(4, 0)
    assert [bias[0].item() for bias in state.generator.biases[:2]] == [0, -2]
    for g in (state.generator, state.averaged):
        for layer in range(2):
            assert torch.equal(g.weights[layer], fresh.generator.weights[layer])
        # G(z) is the first stage's G of what the new layers make of z.
        z = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
        hidden = torch.sigmoid(torch.relu(z @ g.weights[0] + g.biases[0]) @ g.weights[1] + g.biases[1])
        assert torch.equal(g(z, none), inner(hidden, none))
    for group in ("discriminator", "optimizer"):
        assert tensors_digest(state.tensors()[group]) == tensors_digest(fresh.tensors()[group])
    before = [weight.detach().clone() for weight in state.generator.weights]
    for _ in train(second.training(), digits.train, state, 3, lambda step: False):
        pass
    assert not any(torch.equal(old, new) for old, new in zip(before, state.generator.weights, strict=True))
    for net in (state.generator, state.discriminator):
        # Every column of every layer is kept within the cap; float32.
        assert max(weight.norm(dim=0).max().item() for weight in net.weights) <= 1.5 * (1 + 1e-6)


def test_second_stage_is_continued_like_any_run(first, second, storage, digits):
    """A second stage is continued for more steps like any run, to the bits of one in one go."""
    run = after(second, storage, "second")
    run.save()
    state = begun(run, digits)
    for _ in train(second.training(), digits.train, state, 10, lambda step: False):
        pass
    save_checkpoint(run.folder.child("checkpoints"), 10, state.tensors(), job(run, digits).about, keep=2)
    longer = config.override(second, {"algorithm.steps": 15})
    found, tensors = warm_start.find("second", storage, no_registry, longer)
    more = Run.create(warm_start.adapt(longer, found), "stem", "more", storage, found)
    more.origin_tensors = tensors
    more.save()
    assert (found.taken, found.step) == ("state", 10)
    continued_state = begun(more, digits)
    for steps, one in ((15, state), (15, continued_state)):
        for _ in train(longer.training(), digits.train, one, steps, lambda step: False):
            pass
    assert digest(state) == digest(continued_state)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"network.generator.hidden": [12, 4, 9, 8]}, r"noise of 5 and \[9, 8\] .*; expected noise of 4 and \[9, 8\]"),
        ({"network.generator.hidden": [12, 5, 9, 7]}, r"noise of 5 and \[9, 8\] .*; expected noise of 5 and \[9, 7\]"),
        ({"network.generator.pretrained_layers": 2}, r"expected noise of 9 and \[8\] sigmoid sigmoid"),
        ({"network.generator.pretrained_layers": 4}, r"expected noise of 12 and \[5, 9, 8\] sigmoid relu sigmoid sigmoid"),
        ({"network.generator.output": "linear"}, "relu sigmoid sigmoid; expected .* relu sigmoid linear"),
    ],
)  # fmt: skip
def test_unfit_layers_are_refused_in_one_line(changed, words, first, second, storage):
    """Layers that do not fit are refused in one line."""
    with pytest.raises(CheckpointError, match=rf"other layers \(first/step=00000010\): .*{words}") as raised:
        after(config.override(second, changed), storage)
    assert len(str(raised.value).splitlines()) == 1


def test_foreign_or_no_layers_and_a_search_are_refused(second, storage, digits, first):
    """Layers of another architecture, no layers, and a search over pretrained layers are refused."""
    everyday = {
        "network.architecture": "convolutional",
        "network.generator.channels": [4],
        "network.discriminator.channels": [4],
    }
    convolutional = config.override(second, everyday)
    other = Run.create(convolutional, "stem", "other", storage)
    other.save()
    state = initial_state(convolutional.training(), digits.train, digits.shape)
    save_checkpoint(other.folder.child("checkpoints"), 1, state.tensors(), job(other, digits).about, keep=2)
    found, _ = warm_start.find("other", storage, no_registry, second)
    with pytest.raises(
        CheckpointError, match=r"other architecture \(other/step=00000001\): convolutional; expected noise of 5"
    ):
        warm_start.adapt(second, found)
    with pytest.raises(ConfigurationError, match=r"no generator to take layers from .*: 3, and no --continue-from"):
        warm_start.check_data(Run.create(second, "stem", "alone", storage), digits)
    search = {"tune.candidates": 2, "tune.space": {"algorithm.generator_learning_rate": {"choice": [0.1, 0.2]}}}
    with pytest.raises(ConfigurationError, match=r"tune.candidates\): 2; expected 0 with network.generator.pretrained"):
        after(config.override(second, search), storage)
    with pytest.raises(ConfigurationError, match="pretrained_layers 5 is not 1 to 4"):
        config.override(second, {"network.generator.pretrained_layers": 5})


def test_command_takes_layers_or_says_none_are_given(first, tmp_path, here):
    """The command takes layers, or says that there are none to take."""
    (tmp_path / "second.yaml").write_text(NEW)
    where = ("--name", "mine", "--storage", first.storage.uri)
    failed(here("train", "second.yaml", *where), 2, "no generator to take layers from", "--continue-from RUN")
    answer = here("train", "second.yaml", "--continue-from", "first", "--dry-run", "--json", *where)
    assert (answer.code, answer.json["stages"]) == (0, ["train"]), answer.err


@pytest.mark.slow
def test_command_trains_second_stage_as_gan_core_does(first, second, storage, digits, tmp_path):
    """The command trains the second stage to the bits of `gan_core` alone."""
    (tmp_path / "second.yaml").write_text(NEW)
    run = after(second, storage, "alone")
    run.save()
    state = begun(run, digits)
    with one_thread():
        for _ in train(second.training(), digits.train, state, 10, lambda step: False):
            pass
    command = ("train", "second.yaml", "--continue-from", "first", "--name", "it", "--storage", storage.uri, "--json")
    answer = gan(*command, cwd=tmp_path)
    assert answer.code == 0, answer.err
    tensors = state.tensors()
    assert answer.json["weights_sha256"] == tensors_digest(tensors["generator"], tensors["discriminator"])


NARROW = {
    "network.generator.hidden": [12, 9, 14, 16], "network.discriminator.units": [8, 8], "algorithm.steps": 5,
    "evaluate.samples": 60, "evaluate.folds": 2,
}  # fmt: skip


def test_face_recipe_stages_give_one_five_fold_number(tmp_path, storage):
    """Both stages of the recipe for faces, as in configs/ but narrow, give one number over five folds."""
    random = np.random.default_rng(0)
    folds = np.stack(
        [np.where(np.arange(200) < 80, 0, random.permutation(np.arange(200) % 3) + 1) for _ in range(5)], 1
    )
    faces = {"images": random.integers(0, 256, (200, 48, 48), dtype=np.uint8), "folds": folds.astype(np.uint8)}
    savemat(tmp_path / "TFD_48x48.mat", {**faces, "labs_ex": np.full((200, 1), -1, np.int16)})
    batch = {"data.root": str(tmp_path), "algorithm.batch_size": 20, "evaluate.folds": 2, "evaluate.samples": 60}
    stage = config.override(
        config.load(CONFIGS / "tfd_pretrain.yaml"),
        {**batch, "noise.size": 9, "network.generator.hidden": [14, 16], "network.generator.output_nonzeros": 10,
         "network.discriminator.units": [8, 8], "algorithm.steps": 5},
    )  # fmt: skip
    trained_run(stage, "first", storage, load(stage.data), 5)
    names = []
    for fold in range(5):
        settings = config.override(config.load(CONFIGS / "tfd.yaml"), {**NARROW, **batch, "data.fold": fold})
        run, dataset = after(settings, storage, f"tfd-{fold}"), load(settings.data)
        warm_start.check_data(run, dataset)
        run.save()
        state = begun(run, dataset)
        for _ in train(settings.training(), dataset.train, state, 5, lambda step: False):
            pass
        save_checkpoint(run.folder.child("checkpoints"), 5, state.tensors(), job(run, dataset).about, keep=2)
        names.append(run.name)
    command = ["evaluate", *names, "--folds", "2", "--storage", storage.uri, "--json"]
    answered = CliRunner().invoke(cli, command, catch_exceptions=False)
    together = json.loads(answered.stdout.splitlines()[-1])
    scores = [model["paper"]["log_likelihood"] for model in together["models"]]
    assert [model["reference"] for model in together["models"]] == names
    assert [model["paper"]["points"] for model in together["models"]] == [np.sum(folds[:, f] == 3) for f in range(5)]
    assert together["log_likelihood"] == pytest.approx(np.mean(scores), rel=1e-12)
    assert together["standard_error"] == pytest.approx(np.std(scores) / np.sqrt(5), rel=1e-9)
