"""What a dry run says of time and memory: of each kind of nets its own time, of the encoder too, and no nets too large."""

import pytest

from gan_core.conditions.base import UNCONDITIONAL
from gan_core.conditions.settings import InferenceSettings
from gan_core.extensions.inference import initial_encoder
from gan_core.networks import make_generator
from gan_core.portable import PortableGenerator
from pipelines import config
from pipelines.runs import estimate, memory, preview

SHAPE = (8, 8)
COUNTS = {"train": 1000, "validation": 40, "gate": 40, "test": 40}


@pytest.fixture
def settings(small):
    """The small configuration with changes, by settings' dotted names."""
    return lambda **changes: config.override(
        config.resolve(small, "x"), {key.replace("__", "."): value for key, value in changes.items()}
    )


DIFFERENT = {
    "algorithm__gradient_penalty": 1.0,
    "algorithm__optimizer": "adam",
    "algorithm__scheme": "algorithm1",
    "algorithm__share_draws": False,
    "algorithm__generator_average": 0.0,
    "noise__size": 9,
    "network__generator__hidden": [33],
}
ALIKE = {
    "algorithm__generator_learning_rate": 0.01,
    "algorithm__discriminator_learning_rate": 0.01,
    "algorithm__learning_rate_decay": 1.1,
    "algorithm__adam__beta1": 0.1,
    "algorithm__steps": 7,
}


@pytest.mark.parametrize(("name", "value"), [*DIFFERENT.items(), *ALIKE.items()])
def test_what_changes_a_step_is_timed_anew(name, value, settings, monkeypatch):
    """Each setting that a step's time depends on is a kind of its own; rates and the number of steps are none."""
    timed = []
    monkeypatch.setattr(estimate._Clock, "_timed", lambda self, *given: timed.append(given) or 1.0)
    clock = estimate._Clock(SHAPE, UNCONDITIONAL)
    for each in (settings(), settings(**{name: value})):
        clock.step(each, 1, 1, "cpu")
    assert len(timed) == (2 if name in DIFFERENT else 1)


def test_a_dry_run_makes_no_nets_too_large(small_yaml, here, monkeypatch):
    """Where a run needs more memory than there is, a dry run says so, and times no step of its nets."""
    monkeypatch.setattr(preview, "machine_memory", lambda: 10**9)
    monkeypatch.setattr(preview, "time_estimate", lambda *given: pytest.fail("nets were made"))
    answer = here("run", small_yaml, "--dry-run", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["plan"]["seconds"] is None
    assert any("this machine has 1.0 GB of memory" in warning for warning in answer.json["plan"]["warnings"])


def test_the_encoders_training_takes_its_time(settings, monkeypatch):
    """It is in proportion to its steps, beside a worker's start, and a part of the whole; no encoder takes none."""
    monkeypatch.setattr(estimate, "SECONDS", 0.1)
    encoder = settings(extension={"name": "inference", "inference": {"steps": 10**7}})
    stages = ("train", "infer", "evaluate")
    found = estimate.time_estimate(encoder, SHAPE, COUNTS, stages=stages)
    assert 1e-5 < (found.inference - estimate.WORKERS_START) / 10**7 < 1.0
    assert found.total == pytest.approx(estimate.RAY_START + found.training + found.inference + found.scoring)
    assert f"encoder {estimate.duration(found.inference)}" in str(found)
    assert estimate.time_estimate(settings(), SHAPE, COUNTS, stages=("train", "evaluate")).inference == 0


def test_memory_of_the_encoder_is_its_weights(settings):
    """Four numbers a weight of E (weights, gradients, moments) and one a weight of G, where that is more than G's training."""
    encoder = settings(extension={"name": "inference", "inference": {"hidden": [2000, 1000]}}, train={"workers": 1})
    generator = make_generator(encoder.network.generator, encoder.noise.size, 0, SHAPE)
    model = PortableGenerator(generator, encoder.noise, encoder.network.generator, SHAPE)
    state = initial_encoder(InferenceSettings(hidden=(2000, 1000)), model, 0)
    weights, finished = (sum(part.numel() for part in net.parameters()) for net in (state.encoder, generator))
    single = {"train": {"workers": 1}, "tune__candidates": 0}
    one = memory.memory_estimate(settings(**single), SHAPE, COUNTS)
    nets = memory.memory_estimate(config.override(encoder, {"tune.candidates": 0}), SHAPE, COUNTS)
    own, discriminator = encoder.network.parameter_counts(encoder.noise.size, 0, SHAPE)
    assert own == finished
    training = 4 * (3 * (own + discriminator) + own)  # weights, gradients, momentum, and the average of G's
    assert nets - one == pytest.approx(4 * (4 * weights + finished) - training)
