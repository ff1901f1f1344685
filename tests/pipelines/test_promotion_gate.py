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
from gan_core.metrics.parzen import PAPER_GRID, parzen_log_density
from gan_core.training import initial_state
from pipelines import config
from pipelines.config import GateSettings
from pipelines.evaluation.scores import evaluate_arrays
from pipelines.registry import Registry
from pipelines.registry.promotion_gate import Contender, judge, sample_seed
from pipelines.runs.records import EvaluateRecord, TrainRecord
from pipelines.runs.run import Run
from pipelines.stages.register import publish
from pipelines.stages.report import write_report
from pipelines.stages.train import gan_training
from pipelines.storage import latest_checkpoint, save_checkpoint
from pipelines.storage.metric_log import append_history
from tests.pipelines.conftest import ANY_MODEL, principal_generator

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
        GateSettings(**{**ANY_MODEL, **settings}),
        SAMPLES,
        SEED,
    )


def judged(model, champion, data, **settings):
    """The verdict at the default settings."""
    rival = champion and contender(champion)
    return judge(contender(model, "gan/2"), rival, data, GateSettings(**settings), SAMPLES, SEED)


def test_generator_ignoring_z_is_refused_even_as_first(digits):
    """A generator that ignores z is refused as collapsed, even as the first version."""
    collapsed = principal_generator(digits, 0)
    said = judged(collapsed, None, digits)
    assert (said.promoted, said.collapsed, said.test) == (False, True, None)
    assert said.reason == "collapsed: 100% of samples are duplicates, at most 50% allowed"
    assert not judged(collapsed, principal_generator(digits, 2), digits).promoted
    assert verdict(collapsed, None, digits).promoted  # where anything is let in


def test_each_threshold_refuses_alone(digits):
    """One principal component: few duplicates, a fifth of the coverage, a skill above the mean image's."""
    flat = principal_generator(digits, 1)
    seen = judged(flat, None, digits).diagnosis
    assert seen["duplicates"] > 0.5 > seen["coverage"]
    assert 0 < seen["skill"] < 0.5
    for name, loose, tight, reason in (
        ("max_duplicates", 1.0, 0.1, "collapsed: "),
        ("min_points", 300, 301, "not enough held-out images to judge (300; 301 needed)"),
        ("min_coverage", 0.0, 0.9, f"collapsed: coverage {seen['coverage']:.2f} of 300 held-out images"),
        ("min_skill", 0.0, 0.9, f"far from the data: skill {seen['skill']:.2f} where"),
        ("min_copying", 0.0, 1.0, "copies: samples are "),
    ):
        assert verdict(flat, None, digits, **{name: loose}).promoted
        model = flat if name != "min_copying" else copying(digits)
        refused = verdict(model, None, digits, **{name: tight})
        assert not refused.promoted
        assert refused.reason.startswith(reason)
        assert refused.collapsed == reason.startswith(("collapsed", "far"))


def copying(digits):
    """A model that draws training images, which its noise chooses."""

    class Copies:
        image_shape, sha256 = digits.shape, "c" * 64

        def draw(self, count, seed, sample_set=0):
            chosen = np.random.default_rng([seed, sample_set]).choice(len(digits.train), count, replace=False)
            return digits.train.images[chosen].reshape(count, *self.image_shape)

    return Copies()


def test_copies_of_training_images_are_refused(digits):
    said = judged(copying(digits), None, digits)
    assert (said.promoted, said.collapsed) == (False, False)
    assert said.reason.startswith("copies: samples are 0.00 times as far from the training images")


def test_too_few_held_out_images_are_their_own_verdict(digits):
    """Too few held-out images are a verdict of their own; a collapse shows without any."""
    few = dataclasses.replace(digits, gate=digits.gate[:30])
    said = judged(principal_generator(digits, 8), None, few)
    assert (said.promoted, said.collapsed) == (False, False)
    assert said.reason.startswith("not enough held-out images to judge (30; 200 needed)")
    assert judged(principal_generator(digits, 0), None, few).collapsed  # which shows without any


def test_the_first_that_is_fit_passes(digits):
    said = judged(principal_generator(digits, 8), None, digits)
    assert (said.promoted, said.test) == (True, None)
    covered = 100 * said.diagnosis["coverage"] / said.diagnosis["reference_coverage"]
    assert said.reason == f"first version to pass the gate, {covered:.0f} % of the training images' coverage"


def test_clearly_better_passes_with_its_difference(digits):
    """A clearly better model passes with the difference in nats, by hand; the worse one does not."""
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


def test_equal_model_and_champion_itself_do_not_pass(digits):
    """An equal model does not pass, and neither does the champion itself."""
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


def test_samples_are_fresh_for_every_pair(digits):
    """Samples are fresh for every pair, and the same for the same pair, so none has a second chance."""
    one, two, three = (contender(principal_generator(digits, count)) for count in (2, 4, 8))
    seeds = {sample_seed(SEED, *pair) for pair in [(one, two), (two, one), (one, three), (two, three), (one, None)]}
    assert len(seeds | {sample_seed(SEED + 1, one, two)}) == 6
    assert verdict(two.model, one.model, digits) == verdict(two.model, one.model, digits)  # no second chance


def test_changed_data_rescores_the_champion(digits):
    """When the data changed, the champion is scored again at a sigma for the new data, and the reason says so."""
    challenger, champion = principal_generator(digits, 8), principal_generator(digits, 2)
    wide = 1.0  # a sigma that suits no digits: what it was on other data
    stale = Contender("gan/1", champion, wide, "0ld" * 8)
    current = dataclasses.replace(stale, data_digest=digits.digest)
    said = judge(contender(challenger, "gan/2"), stale, digits, GateSettings(), SAMPLES, SEED)
    assert f"; the data changed (0ld0ld0l to {digits.digest[:8]}): champion scored again" in said.reason
    kept = judge(contender(challenger, "gan/2"), current, digits, GateSettings(), SAMPLES, SEED)
    assert "the data changed" not in kept.reason
    assert kept.test["difference"] > said.test["difference"]
    # The paper's protocol on the new validation points, by hand.
    drawn = champion.draw(SAMPLES, sample_seed(SEED, stale, contender(challenger)), 1).reshape(SAMPLES, -1)
    curve = parzen_log_density(digits.validation.images, drawn, PAPER_GRID).mean(axis=0)
    by_hand = Contender("gan/1", champion, PAPER_GRID[int(curve.argmax())], digits.digest)
    again = judge(contender(challenger, "gan/2"), by_hand, digits, GateSettings(), SAMPLES, SEED)
    assert again.test == said.test


def test_champion_of_another_shape_is_not_compared(digits):
    """A champion that draws images of another shape, or other pixels, is not compared."""
    challenger = principal_generator(digits, 2)
    champion = dataclasses.replace(principal_generator(digits, 3), image_shape=(4, 16))
    said = verdict(challenger, champion, digits)
    assert (said.promoted, said.test) == (False, None)
    assert said.reason == "not comparable with the champion: gan/1 draws images of 4x16, digits's are of 8x8"
    other_pixels = dataclasses.replace(principal_generator(digits, 3), pixels="contrast_normalised")
    said = verdict(challenger, other_pixels, digits)
    assert (said.promoted, said.test) == (False, None)
    assert said.reason.endswith("gan/2 draws pixels that are unit, gan/1 draws pixels that are contrast_normalised")


# Publishing: runs made by hand, of generators in closed form, to a server (a whole run's database is sqlite).

LINEAR = {
    "noise": {"prior": "normal", "size": 16},
    "network": {
        "generator": {"hidden": [16], "activation": "linear", "output": "linear", "marginal_bias": False},
        "discriminator": {"units": [4], "pieces": 2},
    },
    "evaluate": {"samples": 300},
}


def finished_run(mlflow_server, digits, name, model, registered="gan-published"):
    """A run whose training ended with the weights of `model`."""
    gate = {**ANY_MODEL, "min_coverage": 0.1}  # flat models, but not the mean image
    settings = config.build({**LINEAR, "registry": {"model": registered, "gate": gate}})
    run = Run.create(settings, "linear", name, mlflow_server.storage)
    run.save()
    settings = run.configuration
    state = initial_state(settings.training(), digits.train)
    state.generator.load_state_dict(model.generator.state_dict())
    about = gan_training(run.folder, settings.training(), settings.train, digits.digest, digits.shape).about
    save_checkpoint(run.folder.child("checkpoints"), 10, state.tensors(), about, keep=2)
    append_history(
        run.folder.child("history"),
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


@pytest.fixture(params=["mlflow_server", "memory"])
def kept_in(request):
    """Where the models are registered: MLflow, and another registry."""
    return request.getfixturevalue(request.param)


def five_nights(kept_in, digits, name):
    """Five nights of one model: what each one's gate said, and who held the aliases after it."""
    registry, best, nights = Registry(kept_in.uri), principal_generator(digits, 8), []
    for night, model in [("fair", principal_generator(digits, 2)), ("collapsed", principal_generator(digits, 0)),
                        ("best", best), ("equal", mirrored(best)), ("worse", principal_generator(digits, 3))]:  # fmt: skip
        said = []
        run = finished_run(kept_in, digits, f"{name}-{night}", model, name)
        record = publish(run, registry, digits, said.append)
        nights.append((record, said, registry.aliases(name)))
    return nights


def test_nights_leave_the_best_as_champion(mlflow_server, digits):
    """Nights of models leave the best as champion and the newest as challenger."""
    registry, nights = Registry(mlflow_server.uri), five_nights(mlflow_server, digits, "gan-left")
    for number, (record, said, aliases) in enumerate(nights, 1):
        promoted = number in (1, 3)
        assert (record.model, record.version, record.promoted) == ("gan-left", number, promoted), record.reason
        assert record.alias == ("champion" if promoted else "challenger")
        assert said == [f"gate   gan-left/{number}: {record.reason}"]
        assert aliases == {"challenger": number, "champion": 1 if number < 3 else 3}
        assert registry.resolve(f"gan-left/{number}").tags["gate"] == record.reason
    assert registry.load(registry.resolve("gan-left@champion")).sha256 == principal_generator(digits, 8).sha256


def test_models_commands_compare_promote_and_roll_back(kept_in, digits, here):
    """Models are compared, promoted, rolled back, archived and deleted by commands, each refusal in one line."""
    nights = five_nights(kept_in, digits, "gan-nights")
    where = ("--tracking-uri", kept_in.uri, "--storage", kept_in.storage.uri, "--json")

    def models(*arguments, code=0):
        answer = here("models", *arguments, *where)
        assert answer.code == code, answer.err
        return answer.json if code == 0 else answer.error

    compared = models("compare", "gan-nights/3", "gan-nights/1")
    assert (compared["a"]["reference"], compared["b"]["reference"]) == ("gan-nights/3", "gan-nights/1")
    up, down = compared["a_over_b"], compared["b_over_a"]
    assert (up["better"], down["better"]) == (True, False)
    assert up["difference"] == pytest.approx(compared["a"]["log_likelihood"] - compared["b"]["log_likelihood"])
    assert down["difference"] == pytest.approx(-up["difference"])
    assert down["lower_bound"] < -up["difference"] < 0 < up["lower_bound"] < up["difference"]
    assert (up["points"], up["sample_sets"], compared["samples"], compared["min_margin"]) == (300, 4, 300, 2.0)
    mirror = models("compare", "gan-nights/1", "gan-nights@champion")
    assert (mirror["a_over_b"], mirror["b_over_a"]) == (down, up)

    refused = models("promote", "gan-nights/4")
    assert (refused["promoted"], refused["champion"], refused["by"]) == (False, 3, "gate")
    assert refused["reason"].startswith("not better than gan-nights/3: ")
    assert refused["test"]["sample_sets"] == 4
    assert (refused["diagnosis"]["points"], refused["diagnosis"]["count"]) == (300, 300)
    strict = models("promote", "gan-nights/4", "--set", "registry.gate.min_coverage=1.0", code=6)
    assert strict.startswith("error: a collapsed model (gan-nights/4): coverage 0.")
    assert "100% of it needed; expected another seed" in strict
    assert "a collapsed model (gan-nights/2): coverage 0.0" in models("promote", "gan-nights/2", code=6)
    forced = models("promote", "gan-nights/4", "--force", "--reason", "the best draws no fours")
    assert (forced["promoted"], forced["champion"], forced["by"]) == (True, 4, "force")
    told = models("history", "gan-nights")
    assert told["name"] == "gan-nights"
    assert [(move["from"], move["to"], move["by"]) for move in told["moves"]] == [
        (None, 1, "gate"), (1, 3, "gate"), (3, 4, "force"),
    ]  # fmt: skip
    assert told["moves"][1]["reason"] == nights[2][0].reason
    assert told["moves"][2]["reason"] == "the best draws no fours"
    assert [models("rollback", "gan-nights")["version"] for _ in range(2)] == [3, 1]
    assert "nothing to roll back to (gan-nights): 1 was the first champion" in models("rollback", "gan-nights", code=5)

    assert "version in use (gan-nights/1): it is champion" in models("archive", "gan-nights@champion", code=5)
    assert models("archive", "gan-nights/2") == {"name": "gan-nights", "version": 2, "archived": True}
    assert "it was archived" in models("promote", "gan-nights/2", "--force", code=5)
    assert "--yes to do it, or gan models archive" in models("delete", "gan-nights/2", code=2)
    assert models("delete", "gan-nights/2", "--yes") == {"name": "gan-nights", "version": 2, "deleted": True}
    assert "no such version (gan-nights/2): has 5, 4, 3, 1" in models("show", "gan-nights/2", code=5)
    assert "version in use (gan-nights/1)" in models("delete", "gan-nights/1", "--yes", code=5)
    for command in ("rollback", "history", "prune"):
        assert "no such model (gan-nihgts): not registered; expected one of gan-nights" in models(
            command, "gan-nihgts", code=5
        )
    dry = {"name": "gan-nights", "keep": 1, "versions": [], "deleted": False}
    assert models("prune", "gan-nights", "--keep", "1") == dry  # the last moves name all the others


def test_publishing_twice_changes_nothing(mlflow_server, digits):
    registry, model = Registry(mlflow_server.uri), principal_generator(digits, 2)
    run = finished_run(mlflow_server, digits, "night", model)
    first = publish(run, registry, digits, lambda line: None)
    before = len(registry.versions("gan-published"))
    again = publish(run, registry, digits, lambda line: None)
    assert dataclasses.asdict(again) == dataclasses.asdict(first)
    assert len(registry.versions("gan-published")) == before
    experiment = registry.backend.client.get_experiment_by_name("gan-published").experiment_id
    (parent,) = registry.backend.client.search_runs(
        [experiment], "tags.`gan.run` = 'night' and tags.`gan.stage` = 'all'"
    )
    points = registry.backend.client.get_metric_history(parent.info.run_id, "value")
    assert sorted(point.step for point in points) == [5, 10]
    children = registry.backend.client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert sorted(child.info.run_name for child in children) == ["night/evaluate", "night/train"]


def test_version_carries_sources_and_protocol(mlflow_server, digits):
    """A version carries what it was made from, and its numbers with their protocol."""
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
    # Enough to judge it on its own data where its run is not: all of the section but places on this machine.
    rebuilt = config.build({"data": json.loads(shown["tags"]["data_settings"])})
    assert config.first_difference(config.to_plain(rebuilt.data), config.to_plain(run.configuration.data)) is None
    assert "root" not in json.loads(shown["tags"]["data_settings"])


def test_no_mlflow_run_is_left_running_after_the_report(mlflow_server, digits):
    registry = Registry(mlflow_server.uri)
    run = finished_run(mlflow_server, digits, "ended", principal_generator(digits, 2))
    publish(run, registry, digits, lambda line: None)
    report = write_report(run, digits, registry)
    assert report.report.endswith("runs/ended/report/report.html")
    experiment = registry.backend.client.get_experiment_by_name("gan-published").experiment_id
    runs = registry.backend.client.search_runs([experiment], "tags.`gan.run` = 'ended'")
    assert len(runs) == 3
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_damaged_checkpoint_publishes_no_other_weights(mlflow_server, digits):
    """A run whose last checkpoint is damaged publishes no older weights instead."""
    run = finished_run(mlflow_server, digits, "damaged", principal_generator(digits, 2))
    folder = run.folder.child("checkpoints")
    _, manifest, tensors = latest_checkpoint(folder)
    tensors["generator"]["biases.1"].add_(0.5)
    save_checkpoint(folder, 5, tensors, manifest.about, keep=3)
    folder.child("step=00000010").write("generator.safetensors", b"")
    assert run.record("train")["generator_sha256"] != tensors_digest(latest_checkpoint(folder)[2]["generator"])
    with pytest.raises(
        CheckpointError, match=r"not the trained weights \(damaged: step=00000005\).*remove records/train.json"
    ):
        publish(run, Registry(mlflow_server.uri), digits, lambda line: None)
    assert "damaged" not in json.dumps([v.to_json() for v in Registry(mlflow_server.uri).versions("gan-published")])
