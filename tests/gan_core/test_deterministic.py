"""cuDNN's deterministic kernels: on while a net computes, and for nobody else."""

import pytest
import torch

from gan_core.algorithm1 import AlgorithmSettings
from gan_core.datasets.digits import load_digits
from gan_core.deterministic import deterministic_convolutions
from gan_core.networks.convolutional import (
    ConvolutionalDiscriminatorSettings,
    ConvolutionalGeneratorSettings,
    ConvolutionalSettings,
)
from gan_core.training import TrainingSettings, initial_state, train

NETWORK = ConvolutionalSettings(
    generator=ConvolutionalGeneratorSettings(channels=(4, 3)),
    discriminator=ConvolutionalDiscriminatorSettings(channels=(3, 4)),
)


@pytest.mark.parametrize("before", [False, True])
def test_the_flag_is_as_it_was_afterwards_and_after_an_error(monkeypatch, before):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", before)

    @deterministic_convolutions()
    def fails() -> None:
        raise ZeroDivisionError(str(torch.backends.cudnn.deterministic))

    with pytest.raises(ZeroDivisionError, match="True"):
        fails()
    assert torch.backends.cudnn.deterministic is before


def test_only_passes_of_a_training_are_deterministic(monkeypatch, one_thread):
    """Forward and backward passes, of a step and of the reported samples; between reports the flag is the caller's."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    digits = load_digits()
    settings = TrainingSettings(network=NETWORK, algorithm=AlgorithmSettings(batch_size=20))
    state, seen = initial_state(settings, digits.train, digits.shape), []

    def look(*_: object) -> None:
        seen.append(torch.backends.cudnn.deterministic)

    for net in (state.generator, state.discriminator):
        net.register_forward_hook(look)
        for parameter in net.parameters():
            parameter.register_hook(look)  # when its gradient is there
    reports = train(settings, digits.train, state, 2, lambda step: True)
    outside = [torch.backends.cudnn.deterministic for _ in reports]
    # A step: G and D forward, a gradient of every parameter; a report: G forward.
    assert len(seen) >= 2 * (3 + len([*state.generator.parameters(), *state.discriminator.parameters()]))
    assert set(seen) == {True}
    assert outside == [False, False]
