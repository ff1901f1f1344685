"""From data sets' files to scores: colour images of one's own through every stage, TFD's five folds to one number."""

import io
import json

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from scipy.io import savemat

from gan_core.datasets import load
from gan_core.errors import ConfigurationError
from pipelines import config
from pipelines.cli import cli
from pipelines.evaluation.scores import evaluate_arrays
from pipelines.runs.run import Run
from pipelines.stages.train import gan_training
from pipelines.storage import Storage, save_checkpoint
from pipelines.storage.run_layout import CHECKPOINTS
from tests.pipelines.conftest import ANY_MODEL, gan, trained_alone

NETS = (
    """
noise: {prior: normal, size: 8}
network:
  generator: {hidden: [16], output: linear}
  discriminator: {units: [12], pieces: 2}
algorithm: {batch_size: 20, steps: 30, generator_learning_rate: 0.01, discriminator_learning_rate: 0.01}
evaluate: {samples: 60, folds: 2}
"""
    + f"registry: {{model: gan-own, gate: {json.dumps(ANY_MODEL)}}}\n"
)


def opened(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def in_process(*arguments: object) -> Result:
    """A command in this process, which spares the seconds that importing torch takes; errors are raised."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.mark.slow
def test_colour_folder_becomes_a_model_that_draws_colour(tmp_path, registry_uri):
    """A folder of colour images goes through every stage to a registered model that draws in colour."""
    folder, random = tmp_path / "pictures", np.random.default_rng(0)
    folder.mkdir()
    for index in range(80):
        Image.fromarray(random.integers(0, 256, (6, 4, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    (tmp_path / "own.yaml").write_text(
        f"data: {{name: images, root: {folder}, size: [5, 4], preprocessing: global_contrast_normalisation}}\n{NETS}"
    )
    where = ["--storage", tmp_path / "st", "--tracking-uri", registry_uri]
    done = gan("run", "own.yaml", "--name", "own", *where, "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    assert (done.json["model"], done.json["alias"]) == ("gan-own", "champion")
    report = tmp_path / "st" / "runs" / "own" / "report"
    assert opened((report / "samples.png").read_bytes()).shape == (11 * (2 + 8 * 7), 11 * (2 + 9 * 6 + 6), 3)
    assert opened((report / "interpolation.png").read_bytes()).ndim == 3
    in_process("sample", "gan-own@champion", "-n", 9, "--output", tmp_path / "s.npy", *where)
    samples = np.load(tmp_path / "s.npy")
    assert samples.shape == (9, 5, 4, 3)
    assert samples.min() < 0  # as trained on: contrast normalised
    in_process("sample", "own", "-n", 9, "--output", tmp_path / "grid.png", *where)
    picture = opened((tmp_path / "grid.png").read_bytes())[::11, ::11]
    low, high = (f(samples, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
    # The first of 3 x 3 images, stretched to its own range.
    assert np.array_equal(picture[2:7, 2:6], np.rint((samples - low) / (high - low) * 255)[0])


@pytest.fixture
def five_folds(tmp_path):
    """A small TFD, and a run trained on each of its folds, by name."""
    random = np.random.default_rng(0)
    folds = np.stack([random.permutation(np.arange(200) % 4) for _ in range(5)], axis=1)
    faces = {"images": random.integers(0, 256, (200, 48, 48), dtype=np.uint8), "folds": folds.astype(np.uint8)}
    savemat(tmp_path / "TFD_48x48.mat", {**faces, "labs_ex": np.full((200, 1), -1, np.int16)})
    document = config.parse_yaml(NETS, "NETS")
    runs = {}
    for fold in range(5):
        data = {"name": "tfd", "root": str(tmp_path), "fold": fold}
        configuration = config.build({**document, "data": data})
        run = Run.create(configuration, "tfd", f"tfd-{fold}", Storage.at(tmp_path / "st"))
        run.save()
        training, dataset = configuration.training(), load(configuration.data)
        state = trained_alone(training, dataset, 5)
        about = gan_training(run.folder, training, configuration.train, dataset.digest, dataset.shape).about
        save_checkpoint(run.folder.child(CHECKPOINTS), 5, state.tensors(), about, 2)
        runs[run.name] = run
    return runs


def test_five_folds_are_scored_alone_and_together(five_folds, tmp_path):
    """Five folds are scored each on its own data, and together with a standard error over folds."""
    options = ["--folds", 2, "--storage", tmp_path / "st"]
    answered = in_process("evaluate", *five_folds, *options, "--json")
    together = json.loads(answered.stdout.splitlines()[-1])
    assert "mean and standard error" not in answered.stderr
    assert [model["reference"] for model in together["models"]] == [f"tfd-{fold}" for fold in range(5)]
    scores = []
    for model, run in zip(together["models"], five_folds.values(), strict=True):
        dataset, samples = load(run.configuration.data), run.generator().draw(60, 0).reshape(60, -1)
        points, validation = dataset.test.images, dataset.validation.images
        alone = evaluate_arrays(samples, points, validation, None, 2, training=dataset.train.images)
        assert model == {"reference": run.name, "weights": "last", **json.loads(json.dumps(alone))}
        # Sigma on the whole valid set of the fold, and the score on its own test set.
        assert (model["paper"]["validation_points"], model["paper"]["points"]) == (50, 50)
        scores.append(model["paper"]["log_likelihood"])
    assert len(set(scores)) == 5
    assert together["log_likelihood"] == pytest.approx(np.mean(scores), rel=1e-12)
    assert together["standard_error"] == pytest.approx(np.std(scores) / np.sqrt(5), rel=1e-9)
    assert together["paper"]["models"] == together["cross_validated"]["models"] == 5


def test_one_model_has_its_own_answer_two_a_mean(five_folds, tmp_path):
    """One model's answer has no mean; two have the mean and error by each protocol; none may be given twice."""
    options = ["--folds", 2, "--storage", tmp_path / "st"]
    one = json.loads(in_process("evaluate", "tfd-3", *options, "--json").stdout.splitlines()[-1])
    protocols = {"log_likelihood", "standard_error", "sigma", "paper", "cross_validated", "quality"}
    assert set(one) == {*protocols, "weights"}
    two = in_process("evaluate", "tfd-3", "tfd-1", *options)
    lines = [line for line in two.stdout.splitlines() if "mean and standard error over 2 models" in line]
    assert [line.split()[0] for line in lines] == ["paper", "cross_validated"]
    assert f"{one['log_likelihood']:.2f}" in two.stdout + two.stderr  # of each model, and together
    with pytest.raises(ConfigurationError, match=r"a model given twice \(REF\): tfd-0 tfd-1 tfd-0; expected each once"):
        in_process("evaluate", "tfd-0", "tfd-1", "tfd-0", *options)
