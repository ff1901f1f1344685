"""Generative adversarial nets (Goodfellow et al. 2014, arXiv 1406.2661) in PyTorch.

What a notebook needs is here by name, each imported when it is asked for: data sets, settings, training, sampling, scores.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gan_core.algorithm1 import AlgorithmSettings as AlgorithmSettings
    from gan_core.datasets import DataSettings as DataSettings
    from gan_core.datasets import load as load
    from gan_core.metrics.parzen import paper_protocol as paper_protocol
    from gan_core.metrics.parzen import parzen_log_density as parzen_log_density
    from gan_core.metrics.parzen import parzen_log_likelihood as parzen_log_likelihood
    from gan_core.networks.convolutional import ConvolutionalSettings as ConvolutionalSettings
    from gan_core.networks.dense import DenseDiscriminatorSettings as DenseDiscriminatorSettings
    from gan_core.networks.dense import DenseGeneratorSettings as DenseGeneratorSettings
    from gan_core.networks.dense import NetworkSettings as NetworkSettings
    from gan_core.noise import NoiseSettings as NoiseSettings
    from gan_core.noise import draw_noise as draw_noise
    from gan_core.randomness import stream as stream
    from gan_core.training import TrainingSettings as TrainingSettings
    from gan_core.training import initial_state as initial_state
    from gan_core.training import sample as sample
    from gan_core.training import train as train

MODULES = {
    "AlgorithmSettings": "algorithm1",
    "ConvolutionalSettings": "networks.convolutional",
    "DataSettings": "datasets",
    "DenseDiscriminatorSettings": "networks.dense",
    "DenseGeneratorSettings": "networks.dense",
    "NetworkSettings": "networks.dense",
    "NoiseSettings": "noise",
    "TrainingSettings": "training",
    "draw_noise": "noise",
    "initial_state": "training",
    "load": "datasets",
    "paper_protocol": "metrics.parzen",
    "parzen_log_density": "metrics.parzen",
    "parzen_log_likelihood": "metrics.parzen",
    "sample": "training",
    "stream": "randomness",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(MODULES)}")
    return getattr(import_module(f"gan_core.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *MODULES])
