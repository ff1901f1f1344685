"""--continue-from: a longer training has the bits of one in one go, a warm start has G's weights and no others."""

import json
import shutil

import pytest

from gan_core.checkpoint import tensors_digest
from gan_core.errors import CheckpointError, ConfigurationError
from gan_core.training import initial_state, train
from pipelines import config
from pipelines.registry import Registry
from pipelines.registry.champion_history import ChampionHistory
from pipelines.registry.registration import register
from pipelines.runs import warm_start
from pipelines.runs.resume import begin, resume
from pipelines.runs.run import Run
from pipelines.stages.train import gan_training
from pipelines.storage import Storage, checkpoint_names, latest_checkpoint, save_checkpoint
from tests.pipelines.conftest import failed, gan, principal_generator, trained_alone


def digest(state):
    return tensors_digest(*state.tensors().values())


def job(run, digits):
    settings = run.configuration
    return gan_training(run.folder, settings.training(), settings.train, digits.digest, digits.shape)


@pytest.fixture
def storage(tmp_path):
    return Storage.at(tmp_path / "st")


@pytest.fixture
def alone(small):
    """Without a search."""
    return config.override(small, {"tune.candidates": 0, "algorithm.steps": 30})


@pytest.fixture
def trained(alone, digits, storage):
    """A run of 30 steps, trained."""
    run = Run.create(alone, "stem", "trained", storage)
    run.save()
    state = trained_alone(alone.training(), digits, 30)
    save_checkpoint(run.folder.child("checkpoints"), 30, state.tensors(), job(run, digits).about, keep=2)
    return run


def no_registry():
    raise AssertionError("a run is not looked for in a registry")


def continued(configuration, reference, storage, name=None, uri=no_registry):
    """A run made as the command makes it."""
    found, tensors = warm_start.find(reference, storage, uri)
    run = Run.create(warm_start.adapt(configuration, found), "stem", name, storage, found)
    run.origin_tensors = tensors
    return run


def begun(run, digits):
    """The state in which the run's workers begin."""
    begin(job(run, digits), digits.train)
    state = initial_state(run.configuration.training(), digits.train, digits.shape)
    resume(state, job(run, digits))
    return state


# A run's whole state


def test_continued_steps_equal_one_training(trained, alone, digits, storage):
    """30 steps continued to 60 have the bits of 60 in one go, even when the origin is gone by then."""
    longer = config.override(alone, {"algorithm.steps": 60})
    run = continued(longer, "trained", storage)
    run.save()
    shutil.rmtree(trained.folder.local)
    state = begun(run, digits)
    assert int(state.step) == 30
    for _ in train(run.configuration.training(), digits.train, state, 60, lambda step: False):
        pass
    assert digest(state) == digest(trained_alone(longer.training(), digits, 60))
    assert digest(state) != digest(trained_alone(longer.training(), digits, 59))


def test_continued_run_prefers_its_own_checkpoints(trained, alone, digits, storage):
    """A run with checkpoints of its own goes on from those, and never silently from the origin again."""
    run = continued(config.override(alone, {"algorithm.steps": 60}), "trained", storage)
    run.save()
    state = begun(run, digits)
    state.step.add_(5)
    save_checkpoint(run.folder.child("checkpoints"), 35, state.tensors(), job(run, digits).about, keep=2)
    assert int(begun(run, digits).step) == 35
    run.folder.child("checkpoints", "step=00000030").remove()
    run.folder.child("checkpoints", "step=00000035").write("generator.safetensors", b"")
    with pytest.raises(CheckpointError, match="no valid checkpoint"):  # never a silent fresh start
        begun(run, digits)


def test_origin_is_part_of_a_runs_identity(trained, alone, storage):
    """The origin is part of a run's name and digest, and is written down with what changed."""
    longer = config.override(alone, {"algorithm.steps": 60, "algorithm.generator_learning_rate": 0.05})
    plain, run = Run.create(longer, "stem", None, storage), continued(longer, "trained", storage)
    again = continued(longer, "trained", storage)
    assert run.name == again.name != plain.name
    assert run.config_digest == again.config_digest != plain.config_digest
    run.save()
    written = json.loads((run.folder.local / "run.json").read_text())["origin"]
    _, _, tensors = latest_checkpoint(trained.folder.child("checkpoints"))
    assert written["digest"] == tensors_digest(*tensors.values())
    assert (written["resolved"], written["step"], written["taken"]) == ("trained/step=00000030", 30, "state")
    assert Run.open(run.name, storage).origin == run.origin
    assert warm_start.changes(run) == {
        "algorithm.generator_learning_rate": [0.1, 0.05],
        "algorithm.steps": [30, 60],
    }
    assert json.loads(warm_start.tags(run)["origin_changes"]) == warm_start.changes(run)
    assert warm_start.tags(run)["origin_digest"] == written["digest"]
    assert warm_start.tags(plain) == {}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seed": 1}, "seed was 0"),
        ({"noise.size": 9}, "noise.size was 8"),
        ({"algorithm.batch_size": 40}, "algorithm.batch_size was 50"),
        ({"algorithm.optimizer": "adam"}, "algorithm.optimizer was momentum"),
        ({"train.workers": 1}, "virtual_shards was 2"),
        ({"algorithm.steps": 30}, "nothing left to train .*: 30; expected more than 30"),
    ],
)
def test_settings_that_shape_weights_must_agree(changed, words, trained, alone, storage):
    """What shapes the weights must agree with the origin, and the first difference is named."""
    with pytest.raises(ConfigurationError, match=words):
        continued(config.override(alone, {"algorithm.steps": 60, **changed}), "trained", storage)


@pytest.mark.parametrize(
    "changed",
    [
        {"algorithm.discriminator_learning_rate": 0.01},
        {"algorithm.learning_rate_decay": 1.1},
        {"algorithm.momentum.final": 0.9},
        {"train.workers": 1, "train.virtual_shards": 2},
        {"registry.model": "another"},
    ],
)
def test_schedules_may_differ_from_the_origin(changed, trained, alone, digits, storage):
    """Schedules, and what does not shape the weights, may differ from the origin's."""
    run = continued(config.override(alone, {"algorithm.steps": 60, **changed}), "trained", storage)
    run.save()
    assert int(begun(run, digits).step) == 30


def test_origins_search_is_taken_over_but_overrides(trained, small, alone, storage):
    """The origin's search is not done again: its choice is taken over but for what is given."""
    searched = {"inputs": "", "record": {
        "chosen": {"algorithm.generator_learning_rate": 0.3, "noise.size": 8}, "candidate": 0, "log_likelihood": 0.0,
        "coverage": 1.0, "candidates": 2, "diverged": 0, "failed": 0, "seconds": 1.0,
    }}  # fmt: skip
    trained.folder.write_json("records/tune.json", searched)
    found, _ = warm_start.find("trained", storage, no_registry)
    longer = config.override(small, {"algorithm.steps": 60})
    assert longer.tune.candidates == 2
    adapted = warm_start.adapt(longer, found)
    assert (adapted.tune.candidates, adapted.algorithm.generator_learning_rate) == (0, 0.3)
    given = warm_start.adapt(longer, found, {"algorithm.generator_learning_rate"})
    assert given.algorithm.generator_learning_rate == 0.1


def test_a_seed_that_is_the_names_is_the_origins(trained, alone, storage):
    run = continued(config.override(alone, {"algorithm.steps": 60, "seed": "name"}), "trained", storage, "night")
    assert run.configuration.seed == 0


def test_other_data_cannot_be_continued_on(trained, alone, digits, storage):
    from dataclasses import replace

    run = continued(config.override(alone, {"algorithm.steps": 60}), "trained", storage)
    warm_start.check_data(run, digits)
    with pytest.raises(ConfigurationError, match=r"cannot be continued \(trained/step=00000030\): trained on data"):
        warm_start.check_data(run, replace(digits, train=replace(digits.train, images=digits.train.images[:-1], labels=digits.train.labels[:-1])))  # fmt: skip


def test_run_name_belongs_to_one_origin(trained, alone, digits, storage):
    """A name belongs to one origin, and a reference that has moved is still the recorded one."""
    longer = config.override(alone, {"algorithm.steps": 60})
    run = continued(longer, "trained", storage, "mine")
    run.save()
    with pytest.raises(ConfigurationError, match="--continue-from was trained/step=00000030; expected none"):
        Run.create(longer, "stem", "mine", storage)
    state = trained_alone(alone.training(), digits, 29)
    save_checkpoint(trained.folder.child("checkpoints"), 31, state.tensors(), job(trained, digits).about, keep=2)
    with pytest.raises(ConfigurationError, match="run of another origin"):
        continued(longer, "trained", storage, "mine")
    assert warm_start.recorded("trained", "mine", storage) == run.origin
    assert warm_start.recorded("other", "mine", storage) is warm_start.recorded("trained", None, storage) is None


def test_a_run_that_has_not_trained_cannot_be_continued(alone, storage):
    Run.create(alone, "stem", "fresh", storage).save()
    with pytest.raises(CheckpointError, match=r"not trained yet \(fresh\)"):
        warm_start.find("fresh", storage, no_registry)


# A registered generator


@pytest.fixture
def registered(digits, storage, registry_uri):
    """A version whose generator is a closed form."""
    model = principal_generator(digits, 16)
    registry = Registry(registry_uri, create=True)
    experiment = registry.backend.client.create_experiment("e", artifact_location=storage.child("files").uri)
    run_id = registry.backend.client.create_run(experiment).info.run_id
    tags = {"run": "r", "weights_sha256": "w", "config_digest": "c", "generator_sha256": model.sha256}
    ChampionHistory(registry, "gan-pca").force(register(registry, "gan-pca", run_id, model, tags), "the only one")
    return model, lambda: registry_uri


FITTING = {
    "noise.size": 16, "noise.prior": "normal", "network.generator.hidden": [16],
    "network.generator.activation": "linear", "network.generator.output": "linear",
}  # fmt: skip


def test_warm_start_takes_generator_weights_only(registered, alone, digits, storage):
    """A warm start has the generator's weights, also in its EMA, and all else fresh."""
    model, uri = registered
    settings = config.override(alone, {**FITTING, "algorithm.generator_average": 0.9})
    run = continued(settings, "gan-pca@champion", storage, uri=uri)
    assert (run.origin.resolved, run.origin.taken, run.origin.digest) == ("gan-pca/1", "generator", model.sha256)
    warm_start.check_data(run, digits)
    run.save()
    state, fresh = begun(run, digits), initial_state(settings.training(), digits.train)
    assert int(state.step) == 0
    assert tensors_digest(state.generator.state_dict()) == tensors_digest(state.averaged.state_dict()) == model.sha256
    for group in ("discriminator", "optimizer"):
        assert tensors_digest(state.tensors()[group]) == tensors_digest(fresh.tensors()[group])
    assert checkpoint_names(run.folder.child("checkpoints")) == ["step=00000000"]
    assert run.generator().sha256 == model.sha256
    assert warm_start.tags(run)["origin"] == "gan-pca/1"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"noise.size": 8}, "noise.size 16; expected 8, as configured"),
        ({"network.generator.hidden": [16, 16]}, r"generator.hidden \[16\]; expected \[16, 16\]"),
        ({"network.generator.output": "sigmoid"}, "generator.output linear"),
    ],
)
def test_other_generator_architecture_is_named(changed, words, registered, alone, storage):
    """A generator of another architecture is refused by the first difference."""
    with pytest.raises(CheckpointError, match=rf"other architecture \(gan-pca/1\): {words}"):
        continued(config.override(alone, {**FITTING, **changed}), "gan-pca/1", storage, uri=registered[1])


def test_unfit_candidates_are_refused_before_a_search(registered, small, digits, storage):
    """A search whose candidates do not all fit the origin's weights is refused before it starts."""
    space = {"tune.space": {"noise.size": {"choice": [7]}}}
    run = continued(config.override(small, {**FITTING, **space}), "gan-pca/1", storage, uri=registered[1])
    with pytest.raises(CheckpointError, match=r"weights do not fit \(gan-pca/1\)"):
        warm_start.check_data(run, digits)


# The command


@pytest.mark.slow
def test_continued_searched_run_equals_one_training(finished, digits, tmp_path):
    """The command continues a searched run to the bits of one training; the same again changes nothing."""
    command = ("train", finished.yaml, "--continue-from", "small-run", "--set", "algorithm.steps=260")
    where = ("--name", "longer", "--storage", finished.storage, "--json")
    answer = gan(*command, *where, cwd=tmp_path)
    assert answer.code == 0, answer.err
    chosen = {**finished.record("tune")["chosen"], "algorithm.steps": 260}
    tensors = trained_alone(config.override(config.load(finished.yaml), chosen).training(), digits, 260).tensors()
    assert answer.json["step"] == 260
    assert answer.json["weights_sha256"] == tensors_digest(tensors["generator"], tensors["discriminator"])
    again = gan(*command, *where, cwd=tmp_path)
    assert again.json == answer.json
    shutil.rmtree(finished.storage / "runs" / "longer")


def test_the_command_says_what_cannot_be_continued(trained, tmp_path, here):
    (tmp_path / "it.yaml").write_text("data: {name: digits}\n")
    where = ("--storage", trained.storage.uri)
    failed(here("train", "it.yaml", "--continue-from", "trained", *where), 2, "cannot be continued", "was")
    failed(here("train", "it.yaml", "--continue-from", "nosuch", *where), 2, "no such run (nosuch)")
    failed(here("train", "it.yaml", "--continue-from", "gan@champion", *where), 5, "no such registry")
