"""A run with an inference net: trained once, resumed to the bit, registered beside G, and what is made of it."""

import shutil

import numpy as np
import pytest
from PIL import Image

from gan_core.checkpoint import tensors_digest
from gan_core.conditions.settings import InferenceSettings
from gan_core.errors import ConfigurationError
from gan_core.extensions.inference import initial_encoder, train_encoder
from gan_core.threads import one_thread
from pipelines import config
from pipelines.flow import Flow
from pipelines.registry import Registry, registration
from pipelines.registry.tracking import Tracking
from pipelines.runs.run import Run
from pipelines.runs.trained_models import trained_inference
from pipelines.stages.train_encoder import infer_run
from pipelines.storage import Storage, checkpoint_names
from pipelines.storage.metric_log import read_history
from tests.pipelines.conftest import failed, principal_generator

STEPS = 120
SET = (
    "extension.name=inference", f"extension.inference.steps={STEPS}", "tune.candidates=0", "train.workers=1",
    "algorithm.steps=60", "algorithm.generator_average=0.0",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(small_yaml, ray_cluster, database_template, tmp_path_factory):
    """A storage with one finished run, `inferred`."""
    folder = tmp_path_factory.mktemp("inferred")
    shutil.copy(database_template, folder / "mlflow.db")
    made = Run.create(config.load(small_yaml, SET), "small", "inferred", Storage.at(folder))
    flow = Flow(made, f"sqlite:///{folder}/mlflow.db", lambda line: None)
    flow.check()
    with flow.working():
        for stage in made.stages:
            flow.do(stage)
    return folder


@pytest.fixture(scope="module")
def run(place):
    return Run.open("inferred", Storage.at(place))


def alone(run, digits):
    """The digest of the encoder as gan_core alone trains it."""
    settings, model = run.configuration.extension.inference, run.generator()
    state = initial_encoder(settings, model, run.configuration.seed)
    with one_thread():
        for _ in train_encoder(model, settings, run.configuration.seed, digits.train, state, lambda step: False):
            pass
    return tensors_digest(state.encoder.state_dict())


def test_encoder_of_a_run_equals_gan_core_alone(place, run, digits):
    """A run trains its encoder with the bits of `gan_core` alone, and its report shows reconstructions."""
    record = run.record("infer")
    assert run.stages == ("train", "infer", "evaluate", "register", "report")
    assert (record["step"], record["encoder_sha256"]) == (STEPS, alone(run, digits))
    assert record["generator_sha256"] == run.record("evaluate")["generator_sha256"]
    assert record["reconstruction"]["images"] == len(digits.test)
    assert [row["step"] for row in read_history(run.folder.child("encoder", "history"))] == list(range(10, 121, 10))
    assert (place / "runs" / "inferred" / "report" / "reconstructions.png").is_file()
    assert "E was trained for 120 steps once G was fixed" in (place / "runs/inferred/report/report.html").read_text()


def test_the_same_command_again_says_that_all_is_done(place, small_yaml, here):
    overrides = [word for text in SET for word in ("--set", text)]
    before = (place / "runs/inferred/records/infer.json").read_bytes()
    answer = here("run", small_yaml, "--name", "inferred", "--storage", place, *overrides)
    assert (answer.code, "was done already" in answer.out) == (0, True), answer.err
    assert (place / "runs/inferred/records/infer.json").read_bytes() == before


def test_encoder_is_registered_beside_g(place, run, digits):
    """An encoder lies beside G in the registry, and a reader of G alone reads past it."""
    registry = Registry(f"sqlite:///{place}/mlflow.db")
    version = registry.resolve("gan-small/1")
    inference, images = registry.load_inference(version), digits.test.images[:20]
    assert version.tags["encoder_sha256"] == inference.sha256 == run.record("infer")["encoder_sha256"]
    assert np.array_equal(inference.reconstruct(images), trained_inference(run).reconstruct(images))
    assert registry.load(version).sha256 == run.generator().sha256 == inference.model.sha256


def test_reconstruct_is_the_same_for_run_and_version(place, run, digits, here, tmp_path):
    """`gan reconstruct` gives the same bits for the run and for its version, and pairs as a picture."""
    np.save(tmp_path / "images.npy", digits.test.images[:10].reshape(-1, 8, 8))
    given = [("inferred", "test", "a.npy"), ("gan-small/1", "images.npy", "b.npy"), ("inferred", "test", "c.png")]
    answers = [
        here("reconstruct", reference, "--storage", place, "--input", source, "-n", 10, "--output", output, "--json")
        for reference, source, output in given
    ]
    assert [answer.code for answer in answers] == [0, 0, 0], [answer.err for answer in answers]
    first, second = np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy")
    assert np.array_equal(first, second)
    assert np.array_equal(first, trained_inference(run).reconstruct(digits.test.images[:10]))
    error = float(np.square(first.reshape(10, -1) - digits.test.images[:10]).sum(axis=1).mean())
    assert [answer.json["squared_error"] for answer in answers] == pytest.approx([error] * 3, rel=1e-5)
    assert answers[0].json["encoder_sha256"] == run.record("infer")["encoder_sha256"]
    scale, width, height = 7, 8 * (16 + 2) + 2, 2 * (8 + 2) + 2  # ten pairs in rows of eight, two pixels between
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.size == (scale * width, scale * height)


def test_damaged_newest_encoder_checkpoint_is_skipped(place, run, digits, ray_cluster, tmp_path):
    """A damaged newest checkpoint is passed over, and the stage ends with the same encoder."""
    shutil.copytree(place / "runs" / "inferred", tmp_path / "runs" / "inferred")
    copy = Run.open("inferred", Storage.at(tmp_path))
    folder = copy.folder.child("encoder")
    assert checkpoint_names(folder) == ["step=00000100", "step=00000120"]
    (tmp_path / "runs/inferred/records/infer.json").unlink()
    newest = folder.child("step=00000120")
    newest.write("encoder.safetensors", newest.read("encoder.safetensors")[:-1])
    said = []
    again = infer_run(copy, digits, said.append)
    assert (again.encoder_sha256, again.step) == (run.record("infer")["encoder_sha256"], STEPS)
    assert again.reconstruction == run.record("infer")["reconstruction"]
    assert "|G(E(G(z))) - G(z)|" in said[-1]


def test_a_model_without_an_encoder_gives_one_clear_line(place, here, small, digits):
    plain = Run.create(small, "small", "plain", Storage.at(place))
    plain.save()
    registry = Registry(f"sqlite:///{place}/mlflow.db")
    runs = Tracking(registry.backend, "gan-plain", "plain", Storage.at(place).child("mlartifacts"))
    model = principal_generator(digits, 4)
    tags = {"run": "plain", "weights_sha256": "w", "generator_sha256": model.sha256, "config_digest": "c"}
    registration.register(registry, "gan-plain", runs.parent, model, tags)
    options = ("--storage", place, "--input", "test", "--output", "out.png")
    failed(
        here("reconstruct", "plain", *options), 2, "no inference net (plain): extension.name none; expected a run with"
    )
    failed(
        here("reconstruct", "gan-plain/1", *options), 5, "no inference net (gan-plain/1): registered without an encoder"
    )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere.npy", "unreadable array (--input nowhere.npy)"),
        ("wide.npy", "images do not fit (encoder): an array of shape [3, 63]"),
        ("bright.npy", "pixels out of range (--input bright.npy): 0 to 16"),
    ],
)
def test_unfit_images_to_reconstruct_are_refused(source, words, place, here, tmp_path):
    """Images that cannot be reconstructed are refused in one line, and nothing is written."""
    made = {"wide.npy": np.linspace(0, 1, 189).reshape(3, 63), "bright.npy": np.linspace(0, 16, 192).reshape(3, 8, 8)}
    if source in made:
        np.save(tmp_path / source, made[source])
    answer = here("reconstruct", "inferred", "--storage", place, "--input", source, "--output", "out.png")
    failed(answer, 3, words)
    assert not (tmp_path / "out.png").exists()


def test_classify_shows_every_feature_set(place, here):
    """`gan classify` shows every set of features, the same for the run and for its version."""
    asked = ("--storage", place, "--labels", 50, "--labels", 100, "--draws", 2, "--json")
    run, version = here("classify", "inferred", *asked), here("classify", "gan-small/1", *asked)
    assert run.code == 0, run.err
    rows = run.json["accuracies"]
    names = ["pixels", "50 principal components", "D, layer 1", "D, layer 2"]
    names += ["D untrained, layer 1", "D untrained, layer 2", "E, layer 1", "E untrained, layer 1"]
    assert [(row["features"], row["labels"]) for row in rows] == [(name, n) for name in names for n in (50, 100)]
    assert version.json["accuracies"] == rows
    assert all(0.2 < row["mean"] < 1 and 0 <= row["standard_error"] < 0.2 for row in rows)
    pixels = [row["mean"] for row in rows[:2]]
    assert pixels[1] > pixels[0] > 0.7  # twice the labels


def test_classify_refuses_in_one_line_what_cannot_be(place, here):
    failed(here("classify", "inferred", "--storage", place, "--labels", 5), 2, "labels (--labels): 5; expected 10 to")
    failed(here("classify", "nobody", "--storage", place), 2, "no such run (nobody)")
    failed(here("classify", "inferred", "--storage", place, "--labels", "many"), 2, "usage (gan)")


def test_inference_settings_are_read_or_named():
    """Settings of inference are read from a file, and wrong ones are refused by name."""
    document = {"extension": {"name": "inference", "inference": {"hidden": [64, 32], "images_weight": 0}}}
    assert config.build(document).extension.inference == InferenceSettings(hidden=(64, 32), images_weight=0.0)
    for inference, words in (
        ({"step": 5}, "did you mean extension.inference.steps"),
        ({"steps": 0}, "inference.steps 0"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            config.build({"extension": {"name": "inference", "inference": inference}})
