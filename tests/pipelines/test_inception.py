"""Inception's FID, KID and score are torch-fidelity's own, of weights from a file of which only tensors are read."""

import io
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity import calculate_metrics
from torchvision.models import inception_v3

from gan_core.datasets import load
from gan_core.datasets.preprocessing import to_bytes
from gan_core.errors import CheckpointError, ConfigurationError, DataError
from gan_core.metrics.feature_quality import frechet_distance
from pipelines import config
from pipelines.evaluation.inception import Inception, inception_quality, inception_scores
from pipelines.runs.run import Run
from pipelines.stages.train import gan_training
from pipelines.storage import Storage, save_checkpoint
from pipelines.storage.run_layout import CHECKPOINTS
from tests.pipelines.conftest import SMALL, environment, failed, trained_alone

SAMPLES, TEST_IMAGES = 20, 10  # Inception takes a fifth of a second for one


def random_inception(seed: int) -> dict[str, torch.Tensor]:
    """The tensors of an Inception-v3 of as many classes as FID's, weights drawn so that neither it nor its classes vanish."""
    net = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    random = torch.Generator().manual_seed(seed)
    for name, tensor in net.state_dict().items():
        if tensor.dim() > 1:
            scale = 100 if name == "fc.weight" else 1  # or all images would be of all classes alike
            tensor.normal_(0, scale * (2 / tensor[0].numel()) ** 0.5, generator=random)
        elif name.endswith("running_mean"):
            tensor.normal_(0, 0.1, generator=random)
    return net.state_dict()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of Inception's weights, drawn at random."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(random_inception(seed=0), path)
    return path


@pytest.fixture(scope="module")
def inception(weights: Path) -> Inception:
    return Inception(str(weights))


class Pictures(torch.utils.data.Dataset):
    """Rows of pixels as the library takes images: 8 bits, red, green, blue."""

    def __init__(self, grey: np.ndarray) -> None:
        self.images = torch.from_numpy(grey)[:, None].repeat(1, 3, 1, 1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index]


def test_inception_scores_equal_torch_fidelity(inception, weights, digits):
    """The scores are to the bit those that torch-fidelity computes of the same images."""
    samples, test = (
        to_bytes(rows).reshape(-1, *digits.shape)
        for rows in (digits.train.images[:SAMPLES] * np.float32(0.8), digits.test.images[:TEST_IMAGES])
    )
    features, of_test_images = inception.features(samples), inception.features(test)
    found = inception_scores(features, of_test_images, TEST_IMAGES)
    theirs = calculate_metrics(
        input1=Pictures(samples), input2=Pictures(test), fid=True, kid=True, isc=True, kid_subset_size=TEST_IMAGES,
        feature_extractor_weights_path=str(weights), cuda=torch.cuda.is_available(), save_cpu_ram=True, verbose=False,
    )  # fmt: skip
    assert theirs == {  # to the bit: the same arithmetic
        "frechet_inception_distance": found.fid,
        "kernel_inception_distance_mean": found.kid,
        "kernel_inception_distance_std": found.kid_deviation,
        "inception_score_mean": found.inception_score,
        "inception_score_std": found.inception_score_deviation,
    }
    assert min(found.inception_score - 1, abs(found.kid), found.kid_deviation) > 1e-6  # none is trivial
    # The same by another formula: roots of the eigenvalues of a symmetric matrix, in float64 throughout.
    assert found.fid == pytest.approx(frechet_distance(features[0].numpy(), of_test_images[0].numpy()), rel=1e-4)


def test_grey_images_are_colour_images_of_three_equal_channels(inception, digits):
    grey = to_bytes(digits.test.images[:2]).reshape(-1, *digits.shape)
    for alone, repeated in zip(
        inception.features(grey), inception.features(np.stack([grey] * 3, axis=-1)), strict=True
    ):
        assert torch.equal(alone, repeated)


def test_too_few_samples_are_refused_first(inception, digits):
    """Too few samples are refused before any features are computed."""
    told = []
    with pytest.raises(DataError, match=r"too few images \(--inception\): 19 samples; expected 20 or more"):
        inception_quality(inception, digits, digits.train.images[:19], told.append)
    assert told == []


class Opens:
    """What a pickle can do to who loads it: it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def scripted() -> bytes:
    """A program of TorchScript, which other sites' Inception files are."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its deprecation
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "case", ["other", "missing", "shape", "nan", "list", "text", "half", "empty", "module", "script"]
)
def test_foreign_weights_file_is_refused_in_one_line(case, weights, tmp_path):
    """A file that is not those weights is refused in one line, and no code in it runs."""
    tensors = torch.load(weights, weights_only=True)
    first = next(iter(tensors))
    content, words = {
        "other": lambda: (saved({"weight": torch.zeros(3)}), "Missing key(s)"),
        "missing": lambda: (saved({name: tensors[name] for name in tensors if name != first}), first),
        "shape": lambda: (saved({**tensors, first: tensors[first][:, :1]}), f"size mismatch for {first}"),
        "nan": lambda: (saved({**tensors, first: tensors[first] * np.nan}), f"weights are not finite .*{first}"),
        "list": lambda: (saved([torch.zeros(3)]), "a list"),
        "text": lambda: (b"not weights at all", "not a file of tensors alone"),
        "half": lambda: (weights.read_bytes()[: weights.stat().st_size // 2], "not a file of tensors alone"),
        "empty": lambda: (b"", "not a file of tensors alone"),
        "script": lambda: (scripted(), "not a file of tensors alone (RuntimeError)"),
        "module": lambda: (saved(torch.nn.Linear(2, 2)), "not a file of tensors alone"),
    }[case]()
    path = tmp_path / "it.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words.replace("(", r"\(").replace(")", r"\)")) as refused:
        Inception(str(path))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500
    assert str(path) in str(refused.value)


def test_a_pickle_among_the_weights_is_not_run(weights, tmp_path):
    path, made = tmp_path / "it.pth", tmp_path / "made"
    path.write_bytes(saved({**torch.load(weights, weights_only=True), "more": Opens(made)}))
    with pytest.raises(CheckpointError, match="not a file of tensors alone"):
        Inception(str(path))
    assert not made.exists()
    torch.load(path, weights_only=False)["more"].close()  # it would have been
    assert made.exists()


def test_missing_weights_or_package_says_what_to_give(weights, tmp_path):
    """Without the file or the package one line says what to give or install."""
    with pytest.raises(ConfigurationError, match=r"no readable file .*nosuch.pth.*6726825d\.pth"):
        Inception(str(tmp_path / "nosuch.pth"))
    script = "import sys; sys.modules['torch_fidelity'] = None; from pipelines.evaluation.inception import Inception; Inception('it')"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment())
    assert "ConfigurationError: a package is missing (--inception): no torch-fidelity" in answer.stderr.splitlines()[-1]
    assert "pip install 'torch-fidelity" in answer.stderr.splitlines()[-1]


@pytest.fixture
def run(digits, tmp_path):
    """A run on 100 images of digits, of 10 steps, as `gan train` leaves it, to be scored by few samples."""
    np.save(tmp_path / "few.npy", digits.train.images[:100].reshape(-1, *digits.shape))
    changes = {"data": {"name": "images", "root": str(tmp_path / "few.npy")}, "evaluate": {"samples": SAMPLES}}
    settings = config.build({**config.parse_yaml(SMALL, "SMALL"), **changes})
    data, run = load(settings.data), Run.create(settings, "few", "few", Storage.at(tmp_path / "st"))
    run.save()
    state = trained_alone(settings.training(), data, 10)
    job = gan_training(run.folder, settings.training(), settings.train, data.digest, data.shape)
    save_checkpoint(run.folder.child(CHECKPOINTS), 10, state.tensors(), job.about, 2)
    return run


def test_command_scores_a_run_and_names_fid(run, weights, here):
    """The command scores a run and its training images, and only Inception's distance is named FID."""
    answer = here("evaluate", run.name, "--inception", weights, "--storage", run.storage.uri, "--json")
    assert answer.code == 0, answer.err
    found = answer.json["inception"]
    assert answer.err.count("inception  features of") == 3
    assert set(found["samples"]) == set(found["training_images"]) > {"fid", "kid", "inception_score"}
    assert found["samples"]["fid"] > found["training_images"]["fid"] > 0
    assert (found["count"], found["test_images"], found["published_weights"]) == (SAMPLES, TEST_IMAGES, False)
    assert "fid" not in json.dumps({key: answer.json[key] for key in answer.json if key != "inception"}).lower()


def test_arrays_and_missing_weights_are_refused_first(run, here):
    """--inception refuses arrays, and a file that is not there, before any work."""
    arrays = here("evaluate", "--samples", "s.npy", "--points", "t.npy", "--inception", "w.pth")
    failed(arrays, 2, "--inception needs a REF")
    missing = here("evaluate", run.name, "--storage", run.storage.uri, "--inception", "w.pth")
    failed(missing, 2, "no readable file (--inception w.pth)")


def test_images_of_equal_contrast_are_refused(run, weights, here):
    document = run.folder.read_json("run.json")
    document["configuration"]["data"]["preprocessing"] = "global_contrast_normalisation"
    document["configuration"]["network"]["generator"]["output"] = "linear"
    run.folder.write_json("run.json", document)
    answer = here("evaluate", run.name, "--inception", weights, "--storage", run.storage.uri)
    failed(answer, 2, f"not pixels (--inception, {run.name}): images of equal contrast")
