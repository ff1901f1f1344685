"""State: all of it is named, moved and loaded, or refused with the first differences."""

from copy import deepcopy

import pytest
import torch

from gan_core.errors import CheckpointError
from gan_core.networks import build
from gan_core.networks.dense import DenseDiscriminatorSettings, DenseGeneratorSettings, NetworkSettings
from gan_core.state import State


def state(optimizer: str = "momentum", hidden: tuple[int, ...] = (4,), seed: int = 0) -> State:
    settings = NetworkSettings(
        generator=DenseGeneratorSettings(hidden=hidden), discriminator=DenseDiscriminatorSettings(units=(3,), pieces=2)
    )
    return State.initial(*build(settings, 2, 5, seed), optimizer)


def filled(made: State) -> State:
    with torch.no_grad():
        for number, tensor in enumerate(t for group in made.tensors().values() for t in group.values()):
            tensor.fill_(number + 1)
    return made


def names(made: State) -> dict[str, list[str]]:
    return {group: sorted(tensors) for group, tensors in made.tensors().items()}


@pytest.mark.parametrize(("optimizer", "moments"), [("momentum", 1), ("adam", 2)])
def test_tensors_are_all_parameters_all_moments_and_the_step(optimizer, moments):
    made = state(optimizer)
    tensors = made.tensors()
    assert len(tensors["generator"]) == len(tensors["discriminator"]) == 4
    assert len(tensors["optimizer"]) == 8 * moments + 1
    # Not copies: what is written into them is written into the state.
    filled(made)
    assert int(made.step) > 0
    for parameters, net in ((made.generator, made.generator_moments), (made.discriminator, made.discriminator_moments)):
        assert all(p.min() > 0 for p in parameters.parameters())
        assert all(t.min() > 0 for tensors in net.values() for t in tensors)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_load_takes_over_every_value(optimizer):
    source, target = filled(state(optimizer)), state(optimizer, seed=1)
    target.load(deepcopy(source.tensors()))
    for group, tensors in source.tensors().items():
        assert all(torch.equal(tensor, target.tensors()[group][name]) for name, tensor in tensors.items())


def test_moving_to_a_device_keeps_every_value():
    source = filled(state("adam"))
    moved = source.to(torch.device("cpu"))
    assert names(moved) == names(source)
    assert all(
        torch.equal(tensor, moved.tensors()[group][name])
        for group, tensors in source.tensors().items()
        for name, tensor in tensors.items()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["generator"]["weights.0"].fill_(float("nan")), "generator.: weights.0 is not finite"),
        (lambda t: t["discriminator"]["biases.1"].fill_(float("inf")), "discriminator.: biases.1 is not finite"),
        (lambda t: t["optimizer"]["generator.velocity.biases.0"].fill_(float("nan")), "biases.0 is not finite"),
        (lambda t: t["generator"].pop("biases.1"), "biases.1 is missing"),
        (lambda t: t["generator"].update(other=torch.zeros(1)), "other is unknown"),
        (lambda t: t["optimizer"].update(step=torch.tensor(1.0)), r"step is float32\[\] where the model has int64\[\]"),
        (lambda t: t.pop("discriminator"), "biases.0 is missing, biases.1 is missing, weights.0 is missing;"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, message):
    tensors = deepcopy(state().tensors())
    state().load(tensors)
    change(tensors)
    with pytest.raises(CheckpointError, match=message):
        state().load(tensors)


def test_other_architecture_is_refused_with_differences():
    """Weights of another architecture are refused with the first three differences."""
    with pytest.raises(CheckpointError) as raised:
        state(hidden=(4,)).load(state(hidden=(6, 7)).tensors(), "step=00000001")
    assert str(raised.value) == (
        "weights do not fit (step=00000001: generator): biases.0 is float32[6] where the model has float32[4], "
        "biases.1 is float32[7] where the model has float32[5], biases.2 is unknown; "
        "expected the architecture of this configuration"
    )


def test_the_moments_of_another_optimizer_are_refused():
    with pytest.raises(CheckpointError, match=r"optimizer\): .*first_moment.* is missing"):
        state("adam").load(state("momentum").tensors())
