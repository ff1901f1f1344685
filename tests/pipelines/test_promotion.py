"""The gate: collapsed models are refused, the first passes, then only a clearly better one; and what is published."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from gan_core.checkpoint import tensors_digest
from gan_core.errors import CheckpointError
from gan_core.training import initial_state
from pipelines import config
from pipelines.evaluate import evaluate_arrays
from pipelines.promotion import Contender, judge, sample_seed
from pipelines.publish import publish, write_report
from pipelines.records import EvaluateRecord, TrainRecord
from pipelines.registry import Registry
from pipelines.run import Run
from pipelines.settings import GateSettings
from pipelines.storage import append_history, latest_checkpoint, save_checkpoint
from pipelines.train import Job
from tests.pipelines.conftest import principal_generator

SAMPLES, SEED, SIGMA = 400, 5, 0.2154


def contender(model, name="gan/1", sigma=SIGMA):
    return Contender(name, model, sigma)


def mirrored(model):
    """Other weights, the same distribution: z has no preferred sign."""
    other = principal_generator_like(model)
    with torch.no_grad():
        other.generator.weights[0].neg_()
    return other


def principal_generator_like(model):
    net = type(model.generator)(model.noise.size, 0, math.prod(model.image_shape), model.network)
    net.load_state_dict(model.generator.state_dict())
    return dataclasses.replace(model, generator=net)


def verdict(challenger, champion, digits, **settings):
    return judge(
        contender(challenger, "gan/2"),
        champion and contender(champion),
        digits,
        GateSettings(**settings),
        SAMPLES,
        SEED,
    )


def test_a_generator_that_ignores_z_is_refused_even_as_the_first(digits):
    collapsed = principal_generator(digits, 0)
    said = verdict(collapsed, None, digits)
    assert (said.promoted, said.test) == (False, None)
    assert said.reason.startswith("collapsed: coverage 0.0")
    assert "0.1 needed" in said.reason
    assert not verdict(collapsed, principal_generator(digits, 2), digits).promoted
    assert verdict(collapsed, None, digits, min_coverage=0.0).promoted  # it is coverage that refuses it


def test_the_first_that_covers_the_data_passes(digits):
    said = verdict(principal_generator(digits, 2), None, digits)
    assert (said.promoted, said.test) == (True, None)
    assert said.reason.startswith("first version to pass the gate, coverage 0.")


def test_a_clearly_better_one_passes_with_the_difference_in_nats_and_the_worse_one_does_not(digits):
    worse, better = principal_generator(digits, 2), principal_generator(digits, 8)
    up, down = verdict(better, worse, digits), verdict(worse, better, digits)
    assert (up.promoted, down.promoted) == (True, False)
    assert up.reason.startswith("better than gan/1: +")
    assert down.reason.startswith("not better than gan/1: -")
    assert "more than 2 needed" in down.reason

    def log_density(model, other, number):
        seed = sample_seed(SEED, contender(model), contender(other))
        samples, points = model.draw(SAMPLES, seed, number).reshape(SAMPLES, 1, -1), digits.gate.images[:, None, :]
        squares = ((points.astype(float) - samples.transpose(1, 0, 2)) ** 2).sum(axis=2)
        return logsumexp(-squares / (2 * SIGMA**2), axis=1) - math.log(SAMPLES) - 32 * math.log(2 * math.pi * SIGMA**2)

    # Four sets of samples of each, challenger's and champion's from different seeds; float32 distances.
    differences = [log_density(better, worse, r) - log_density(worse, better, r) for r in (1, 2, 3, 4)]
    assert up.test["difference"] == pytest.approx(np.mean(differences), abs=1e-3)
    assert up.test["lower_bound"] < up.test["difference"]
    assert (up.test["points"], up.test["sample_sets"], up.test["confidence"]) == (300, 4, 0.95)


def test_an_equal_one_and_the_champion_itself_do_not_pass(digits):
    champion = principal_generator(digits, 8)
    equal = verdict(mirrored(champion), champion, digits)
    assert not equal.promoted
    assert abs(equal.test["difference"]) < 5 * equal.test["standard_error"]
    same = verdict(champion, champion, digits)
    assert (same.promoted, same.reason) == (False, "the same weights as the champion, gan/1")


def test_the_margin_is_asked_for_on_top(digits):
    worse, better = principal_generator(digits, 2), principal_generator(digits, 8)
    bound = verdict(better, worse, digits).test["lower_bound"]
    assert verdict(better, worse, digits, min_margin=bound - 0.01).promoted
    refused = verdict(better, worse, digits, min_margin=bound + 0.01)
    assert not refused.promoted
    assert refused.reason.startswith("not better than gan/1: +")


def test_each_model_is_scored_at_its_own_sigma(digits):
    model, champion = principal_generator(digits, 8), principal_generator(digits, 2)
    sharp = judge(contender(model, "gan/2", 0.02), contender(champion), digits, GateSettings(), SAMPLES, SEED)
    assert not sharp.promoted  # a window far too narrow spoils the better model
    assert sharp.test["difference"] < -100


# Publishing: runs made by hand, of generators in closed form, to a server (a whole run's database is sqlite).

LINEAR = {
    "noise": {"prior": "normal", "size": 16},
    "network": {
        "generator": {"hidden": [16], "activation": "linear", "output": "linear", "marginal_bias": False},
        "discriminator": {"units": [4], "pieces": 2},
    },
    "evaluate": {"samples": 300},
    "registry": {"model": "gan-published"},
}


def finished_run(mlflow_server, digits, name, model):
    """A run whose training ended with the weights of `model`."""
    run = Run.create(config.build(LINEAR), "linear", name, mlflow_server.storage)
    run.save()
    settings = run.configuration
    state = initial_state(settings.training(), digits.train)
    state.generator.load_state_dict(model.generator.state_dict())
    about = Job(run.folder, settings.training(), settings.train, digits.digest, digits.shape).about()
    save_checkpoint(run.folder.within("checkpoints"), 10, state.tensors(), about, keep=2)
    append_history(
        run.folder.within("history"),
        [{"step": step, "time_ms": step, "value": -1.4, "generator_loss": 0.7, "real_accuracy": 0.5, "fake_accuracy": 0.5,
          "discriminator_gradient_norm": 1.0, "generator_gradient_norm": 1.0} for step in (5, 10)],
    )  # fmt: skip
    sha = tensors_digest(state.tensors()["generator"])
    run.stage("train", TrainRecord, {}, lambda: TrainRecord(name, 10, "checkpoint", sha[::-1], sha, "cpu", 1.0))
    score = evaluate_arrays(model.draw(300, 0).reshape(300, -1), digits.test.images, digits.validation.images, None, 2)
    row = {key: score["paper"][key] for key in ("log_likelihood", "standard_error", "sigma")}
    run.stage("evaluate", EvaluateRecord, {}, lambda: EvaluateRecord(
        **row, paper=score["paper"], cross_validated=score["cross_validated"], coverage=0.5,
        references={"training data": {**row, "coverage": 1.0}}, data_digest=digits.digest, generator_sha256=sha, seconds=1.0,
    ))  # fmt: skip
    return run


def test_nights_of_models_leave_the_best_as_champion_and_the_newest_as_challenger(mlflow_server, digits):
    registry, best = Registry(mlflow_server.uri), principal_generator(digits, 8)
    nights = [("fair", principal_generator(digits, 2), True), ("collapsed", principal_generator(digits, 0), False),
              ("best", best, True), ("equal", mirrored(best), False), ("worse", principal_generator(digits, 3), False)]  # fmt: skip
    for number, (name, model, promoted) in enumerate(nights, 1):
        said = []
        record = publish(finished_run(mlflow_server, digits, name, model), registry, digits, said.append)
        assert (record.model, record.version, record.promoted) == ("gan-published", number, promoted), record.reason
        assert record.alias == ("champion" if promoted else "challenger")
        assert said == [f"gate   gan-published/{number}: {record.reason}"]
        assert registry.resolve("gan-published@challenger").version == number
        assert registry.resolve(f"gan-published/{number}").tags["gate"] == record.reason
        assert registry.resolve("gan-published@champion").version == (1 if number < 3 else 3)
    assert registry.load(registry.resolve("gan-published@champion")).sha256 == best.sha256


def test_publishing_twice_changes_nothing(mlflow_server, digits):
    registry, model = Registry(mlflow_server.uri), principal_generator(digits, 2)
    run = finished_run(mlflow_server, digits, "night", model)
    first = publish(run, registry, digits, lambda line: None)
    before = len(registry.versions("gan-published"))
    again = publish(run, registry, digits, lambda line: None)
    assert dataclasses.asdict(again) == dataclasses.asdict(first)
    assert len(registry.versions("gan-published")) == before
    experiment = registry.client.get_experiment_by_name("gan-published").experiment_id
    (parent,) = registry.client.search_runs([experiment], "tags.`gan.run` = 'night' and tags.`gan.stage` = 'all'")
    points = registry.client.get_metric_history(parent.info.run_id, "value")
    assert sorted(point.step for point in points) == [5, 10]
    children = registry.client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert sorted(child.info.run_name for child in children) == ["night/evaluate", "night/train"]


def test_a_version_carries_what_it_was_made_from_and_its_numbers_with_their_protocol(mlflow_server, digits):
    registry, model = Registry(mlflow_server.uri), principal_generator(digits, 4)
    run = finished_run(mlflow_server, digits, "tagged", model)
    record = publish(run, registry, digits, lambda line: None)
    shown, score = registry.resolve(f"gan-published/{record.version}").to_json(), run.record("evaluate")
    assert shown["generator_sha256"] == model.sha256
    assert (shown["data_digest"], shown["config_digest"], shown["commit"]) == (
        digits.digest,
        run.config_digest,
        run.commit,
    )
    assert {key: shown["metrics"][key] for key in ("log_likelihood", "standard_error", "sigma", "coverage")} == {
        key: score[key] for key in ("log_likelihood", "standard_error", "sigma", "coverage")
    }
    assert shown["tags"]["protocol"] == "paper: 300 samples, sigma from 200 validation points"
    assert (shown["tags"]["run"], shown["tags"]["data"], shown["tags"]["step"]) == ("tagged", "digits", "10")


def test_no_mlflow_run_is_left_running_after_the_report(mlflow_server, digits):
    registry = Registry(mlflow_server.uri)
    run = finished_run(mlflow_server, digits, "ended", principal_generator(digits, 2))
    publish(run, registry, digits, lambda line: None)
    report = write_report(run, digits, registry)
    assert report.report.endswith("runs/ended/report/report.html")
    experiment = registry.client.get_experiment_by_name("gan-published").experiment_id
    runs = registry.client.search_runs([experiment], "tags.`gan.run` = 'ended'")
    assert len(runs) == 3
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_run_whose_last_checkpoint_is_damaged_publishes_no_other_weights_instead(mlflow_server, digits):
    run = finished_run(mlflow_server, digits, "damaged", principal_generator(digits, 2))
    folder = run.folder.within("checkpoints")
    _, manifest, tensors = latest_checkpoint(folder)
    tensors["generator"]["biases.1"].add_(0.5)
    save_checkpoint(folder, 5, tensors, manifest.about, keep=3)
    folder.within("step=00000010").write("generator.safetensors", b"")
    assert run.record("train")["generator_sha256"] != tensors_digest(latest_checkpoint(folder)[2]["generator"])
    with pytest.raises(
        CheckpointError, match=r"not the trained weights \(damaged: step=00000005\).*remove records/train.json"
    ):
        publish(run, Registry(mlflow_server.uri), digits, lambda line: None)
    assert "damaged" not in json.dumps([v.to_json() for v in Registry(mlflow_server.uri).versions("gan-published")])
