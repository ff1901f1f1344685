"""Conditional and imputing runs through the commands: sampled by class, completed, measured, refused in one line."""

import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_core.checkpoint import tensors_digest
from gan_core.conditions.settings import conditions_of
from gan_core.errors import CheckpointError, ConfigurationError, DataError
from gan_core.threads import one_thread
from gan_core.training import initial_state, train
from pipelines import config
from pipelines.registry import Registry
from pipelines.registry.mlflow_backend import PREDICT_PARAMETERS
from pipelines.registry.registration import register
from pipelines.reporting import html_report
from pipelines.runs.resume import resume
from pipelines.runs.run import Run
from pipelines.serving.requests import SampleRequest, answer_request, parse_request
from pipelines.stages.train import gan_training, train_run
from pipelines.storage import Storage, save_checkpoint
from pipelines.storage.run_layout import CHECKPOINTS
from tests.pipelines.conftest import SMALL, failed, gan

KINDS = ("none", "conditional", "imputation")


def settings_of(kind: str):
    return config.override(config.build(config.parse_yaml(SMALL, "SMALL")), {"extension.name": kind})


def trained(settings, digits, steps):
    """The state after `steps`, and what it is conditioned on, by gan_core alone."""
    conditions, training = conditions_of(settings.extension, digits), settings.training()
    state = initial_state(training, digits.train, digits.shape, conditions)
    with one_thread():
        for _ in train(training, digits.train, state, steps, lambda step: False, conditions=conditions):
            pass
    return state, conditions


@pytest.fixture(scope="module")
def runs(digits, tmp_path_factory):
    """A storage with a run of each kind, trained for a few steps in this process."""
    storage = Storage.at(tmp_path_factory.mktemp("storage"))
    for kind in KINDS:
        settings = settings_of(kind)
        run = Run.create(settings, "x", kind, storage)
        run.save()
        state, conditions = trained(settings, digits, 10)
        job = gan_training(run.folder, settings.training(), settings.train, digits.digest, digits.shape, conditions)
        save_checkpoint(run.folder.child(CHECKPOINTS), 10, state.tensors(), job.about, 2)
    return storage


@pytest.fixture
def ask(here, runs):
    """The command on these runs."""
    return lambda *arguments: here(*arguments, "--storage", runs.uri)


def opened(path):
    return np.asarray(Image.open(path))


def test_class_is_chosen_by_label_or_drawn(ask, runs, tmp_path):
    """A class is asked for by its label, and without one classes are drawn."""
    model = Run.open("conditional", runs).generator()
    assert model.conditions.labels == tuple(range(10))
    assert ask("sample", "conditional", "-n", 5, "--condition", 3, "--output", "threes.npy").code == 0
    expected = model.draw(5, 0, condition=model.conditions.all_of(3, 5))
    assert np.array_equal(np.load(tmp_path / "threes.npy"), expected)
    assert ask("sample", "conditional", "-n", 5, "--output", "any.npy").code == 0
    assert np.array_equal(np.load(tmp_path / "any.npy"), model.draw(5, 0))
    assert not np.array_equal(np.load(tmp_path / "any.npy"), expected)
    answer = ask("sample", "conditional", "--condition", 9, "--interpolate", "--output", "lines.png", "--json")
    assert answer.json["condition"] == 9
    assert opened(tmp_path / "lines.png").ndim == 2


def test_a_figure_has_a_row_for_each_class(ask, runs, tmp_path):
    assert ask("figure", "classes", "conditional", "--output", "classes.png").code == 0
    picture = opened(tmp_path / "classes.png")[::7, ::7]
    assert picture.shape == (2 + 10 * 10, 2 + 10 * 10)
    model = Run.open("conditional", runs).generator()
    sevens = model.draw(10, 0, condition=model.conditions.all_of(7, 10))  # a column's z is the sample's of its number
    assert np.abs(picture[72:80, 2:10] - np.rint(sevens[0] * 255)).max() <= 1


def test_completions_keep_observed_pixels(ask, digits, tmp_path):
    """Completions are a file or a picture, and keep what is observed."""
    np.save(tmp_path / "images.npy", digits.test.images[:3].reshape(3, 8, 8))
    for source in ("test", "images.npy"):
        answer = ask("impute", "imputation", "--input", source, "-n", 3, "--mask", "top", "--completions", 4,
                     "--output", f"{source[:4]}.npy", "--json")  # fmt: skip
        assert (answer.code, answer.json["images"]) == (0, 3), answer.err
    filled = np.load(tmp_path / "test.npy")
    assert filled.shape == (3, 4, 8, 8)
    assert np.array_equal(filled, np.load(tmp_path / "imag.npy"))
    real = digits.test.images[:3].reshape(3, 1, 8, 8)
    assert np.array_equal(filled[:, :, 4:], np.repeat(real[:, :, 4:], 4, axis=1))
    assert filled[:, :, :4].var(axis=1).max() > 0
    assert ask("impute", "imputation", "-n", 2, "--completions", 3, "--output", "grid.png").code == 0
    picture = opened(tmp_path / "grid.png")[::7, ::7]
    assert picture.shape == (2 + 2 * 10, 2 + 5 * 10)
    assert (picture[2:10, 16:20] == 128).all()  # the right half of what is observed
    assert np.array_equal(picture[2:10, 2:10], np.rint(real[0, 0] * 255))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("sample", "none", "--condition", 3, "--output", "x.npy"), 2, ["not a conditional model", "condition 3"]),
        (("sample", "imputation", "--condition", 3, "--output", "x.npy"), 2, ["not a conditional model"]),
        (("sample", "conditional", "--condition", 10, "--output", "x.npy"), 2, ["no such class", "one of 0, 1, 2"]),
        (("figure", "classes", "none", "--output", "x.png"), 2, ["not a conditional model"]),
        (("impute", "conditional", "--output", "x.png"), 2, ["not a model that completes images"]),
        (("impute", "imputation", "--input", "none.npy", "--output", "x.png"), 3, ["unreadable array", "none.npy"]),
        (("impute", "imputation", "--input", "wide.npy", "--output", "x.png"), 3, ["images do not fit", "64, of 8x8"]),
        (("impute", "imputation", "--input", "loud.npy", "--output", "x.png"), 3, ["pixels out of range"]),
    ],
)
def test_what_a_model_cannot_do_is_refused(ask, tmp_path, arguments, code, words):
    """A class, a completion or an input that the model is not for is refused in one line."""
    np.save(tmp_path / "wide.npy", np.zeros((2, 9, 9)))
    np.save(tmp_path / "loud.npy", np.full((2, 8, 8), 7.0))
    failed(ask(*arguments), code, *words)


def test_images_without_labels_cannot_be_conditioned_on(here, tmp_path):
    np.save(tmp_path / "own.npy", np.random.default_rng(0).random((60, 4, 4), np.float32))
    (tmp_path / "own.yaml").write_text(
        "data: {name: images, root: own.npy}\nextension: {name: conditional}\nalgorithm: {batch_size: 10}\n"
        "evaluate: {folds: 2}\n"
    )
    failed(here("train", "own.yaml", "--dry-run"), 3, "labels are missing", "images of your own have none")
    failed(here("train", "own.yaml", "--set", "extension.name=condition"), 2, "extension.name", "'condition'")


def test_a_checkpoint_of_other_conditions_is_not_resumed(runs, digits):
    run, settings = Run.open("conditional", runs), settings_of("conditional")
    conditions = conditions_of(settings.extension, digits)
    state = initial_state(settings.training(), digits.train, conditions=conditions)
    resume(
        state, gan_training(run.folder, settings.training(), settings.train, digits.digest, digits.shape, conditions)
    )
    assert int(state.step) == 10
    with pytest.raises(CheckpointError, match="checkpoint of another training"):
        resume(state, gan_training(run.folder, settings.training(), settings.train, digits.digest, digits.shape))


def test_a_request_over_http_may_ask_for_a_class(runs):
    model, alone = (Run.open(kind, runs).generator() for kind in ("conditional", "none"))
    wanted = parse_request(b'{"count": 4, "condition": 6, "format": "json"}', 10)
    assert wanted == SampleRequest(4, 0, "json", 6)
    answer = json.loads(answer_request(model, wanted))
    assert answer["condition"] == 6
    drawn = model.draw(4, 0, condition=model.conditions.all_of(6, 4))
    assert np.array_equal(np.array(answer["images"], np.float32), drawn)
    with pytest.raises(ConfigurationError, match="not a conditional model"):
        answer_request(alone, wanted)
    for body in (b'{"condition": "6"}', b'{"condition": true}', b'{"condition": 1.5}'):
        with pytest.raises(ConfigurationError, match=r"condition \(POST /samples\)"):
            parse_request(body, 64)
    npy = answer_request(model, SampleRequest(4, 0, "npy", 6))
    assert np.array_equal(np.load(io.BytesIO(npy)), drawn)


def test_registered_model_keeps_classes_in_plain_mlflow(runs, registry_uri, monkeypatch):
    """A registered model keeps its classes, for us and for plain MLflow, whose z must fit."""
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry_uri)
    registry, model = Registry(registry_uri, create=True), Run.open("conditional", runs).generator()
    experiment = registry.backend.client.create_experiment("gan-classes")
    run_id = registry.backend.client.create_run(experiment).info.run_id
    tags = {"run": "conditional", "weights_sha256": tensors_digest(model.generator.state_dict()), "config_digest": "c",
            "generator_sha256": model.sha256}  # fmt: skip
    version = register(registry, "gan-classes", run_id, model, tags)
    loaded = registry.load(version)
    assert loaded.conditions == model.conditions
    plain = mlflow.pyfunc.load_model(f"models:/gan-classes/{version.version}")
    z = np.zeros((2, 8), np.float32)
    params = {**PREDICT_PARAMETERS, "seed": 5, "condition": 4}
    images = plain.predict(z, params=params)
    assert np.array_equal(images, model.images(torch.zeros(2, 8), model.conditions.all_of(4, 2)))
    for none_or_any in (None, [], np.zeros((1, 1))):
        drawn = plain.predict(none_or_any, params={"num_samples": 3, "seed": 5})
        assert np.array_equal(drawn, model.draw(3, 5))
    for wrong, got in (
        (z[:, :7], r"an array of shape \[2, 7\]"),
        (z[0], r"an array of shape \[8\]"),
        (None, "nothing"),
    ):
        with pytest.raises(
            DataError, match=rf"no z of this model \(predict\): {got}; expected \(count, 8\), or num_samples"
        ):
            plain.predict(wrong)
    assert np.array_equal(
        plain.predict(z, params=PREDICT_PARAMETERS), model.images(torch.zeros(2, 8), model.prior_condition(2, 0))
    )


def test_the_page_has_an_extension_s_measures_and_picture():
    seen = {"recognised": 0.875, "standard_error": 0.01, "samples": 100, "by_class": {}, "classifier_accuracy": 0.5}
    score = {
        "protocol": "paper", "log_likelihood": 1.0, "standard_error": 0.5, "sigma": 0.2, "samples": 9,
        "validation_points": 9, "fold_sigmas": [],
    }  # fmt: skip
    records = {
        "train": {"step": 1, "device": "cpu", "seconds": 1.0, "weights_sha256": "w"},
        "evaluate": {
            **score, "paper": score, "cross_validated": score, "coverage": 0.5, "references": {}, "data_digest": "d",
            "weights": "last", "quality": None, "extension": {"recognition": seen},
        },
    }  # fmt: skip
    page = html_report.render(html_report.RunPage("r", "digits", records, {"classes.png": b"picture"}, "", "c", 5))
    assert "87.5% ± 1.0% of 100 samples are recognised" in page
    assert "Samples of each class" in page
    records["evaluate"]["extension"] = None
    assert "Samples of each class" not in html_report.render(
        html_report.RunPage("r", "digits", records, {}, "", "c", 5)
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["conditional", "imputation"])
def test_two_workers_equal_gan_core_alone(kind, digits, ray_cluster, tmp_path):
    """Two Ray workers end with the bits of `gan_core` alone, for each extension."""
    settings = config.override(settings_of(kind), {"algorithm.steps": 60})
    record = train_run(settings, digits, Storage.at(tmp_path / "run"), lambda line: None)
    tensors = trained(settings, digits, 60)[0].tensors()
    assert record.weights_sha256 == tensors_digest(tensors["generator"], tensors["discriminator"])


@pytest.mark.slow
def test_conditional_run_reaches_ninety_percent(tmp_path, registry_uri):
    """A conditional run goes through every stage, and nine of ten samples are of their class."""
    shipped = config.load(Path(__file__).parents[2] / "configs" / "digits_conditional.yaml")
    (tmp_path / "c.yaml").write_text(config.to_yaml(shipped))
    where = ["--storage", tmp_path / "st", "--tracking-uri", registry_uri]
    done = gan("run", "c.yaml", "--name", "c", *where, "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "st/runs/c/records/evaluate.json").read_text())["record"]
    # 96 to 98 % after 1,000 to 3,000 steps; 10,000 samples, so the rest of the distance is the training's own.
    assert record["extension"]["recognition"]["recognised"] > 0.9
    assert (tmp_path / "st/runs/c/report/classes.png").is_file()
    threes = gan(
        "sample", "gan-digits-conditional@champion", "--condition", 3, "--output", "3.npy", *where, cwd=tmp_path
    )
    assert threes.code == 0, threes.err
    assert asdict(shipped.extension)["name"] == "conditional"
