"""Approximate inference: a net trained to give the z of an image, once G is fixed (section 7)."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from gan_core.checkpoint import tensors_digest
from gan_core.conditions.settings import InferenceSettings
from gan_core.datasets import Dataset, Examples
from gan_core.errors import DataError, Diverged
from gan_core.metrics.sample_quality import nearest_neighbours
from gan_core.networks import GeneratorSettings
from gan_core.networks.dense import DenseGenerator, DenseGeneratorSettings
from gan_core.noise import NoiseSettings, draw_noise
from gan_core.optimizers import AdamSettings, Moments, adam_update, zero_moments
from gan_core.portable import PortableGenerator
from gan_core.randomness import stream
from gan_core.state import load_tensors
from gan_core.threads import one_thread
from gan_core.training import BatchSource, Report, sample

ADAM = AdamSettings(beta1=0.9)
HIDDEN = (1200, 1200)  # of the encoder of a convolutional generator, unless set
UNIFORM_BOUND = math.sqrt(3)  # of the uniform prior's support


class Encoder(nn.Module):
    """E(x): an image to the z that G may have made it from, within the prior's support."""

    def __init__(self, data_size: int, hidden: tuple[int, ...], noise: NoiseSettings) -> None:
        super().__init__()
        settings = DenseGeneratorSettings(hidden=hidden, output="linear", marginal_bias=False)
        self.net = DenseGenerator(data_size, 0, noise.size, settings)
        self.bounded = noise.prior == "uniform"

    def forward(self, images: Float[Tensor, "count pixels"]) -> Float[Tensor, "count size"]:
        """z, one a row."""
        z = self.net(images, images.new_empty(len(images), 0))
        return UNIFORM_BOUND * torch.tanh(z) if self.bounded else z


@dataclass(frozen=True)
class Inference:
    """A generator and the encoder that was trained for it."""

    model: PortableGenerator
    encoder: Encoder
    hidden: tuple[int, ...]

    @property
    def sha256(self) -> str:
        """Digest of the encoder's weights, in name order."""
        return tensors_digest(self.encoder.state_dict())

    def noise_of(self, images: Float[np.ndarray, "count pixels"]) -> Float[Tensor, "count size"]:
        """E(x) of each image.

        Raises:
            DataError: If the images are not as large as the generator's, or not finite.
        """
        pixels = math.prod(self.model.image_shape)
        if images.ndim != 2 or images.shape[1] != pixels:
            shape = list(self.model.image_shape)
            raise DataError(
                "images do not fit",
                "encoder",
                f"an array of shape {list(images.shape)}",
                f"images of {shape}, {pixels} numbers each",
            )
        if not np.isfinite(images).all():
            raise DataError(
                "pixels are not finite", "encoder", f"{int((~np.isfinite(images)).sum())} values", "numbers"
            )
        device = next(self.encoder.parameters()).device
        with torch.no_grad(), one_thread():
            blocks = torch.from_numpy(np.ascontiguousarray(images, np.float32)).to(device).split(1000)
            return torch.cat([self.encoder(block) for block in blocks])

    def reconstruct(self, images: Float[np.ndarray, "count pixels"]) -> Float[np.ndarray, "count *shape"]:
        """G(E(x)) of each image."""
        return self.model.images(self.noise_of(images))


@dataclass
class EncoderState:
    """What the encoder's training changes; `tensors()` names all of it."""

    encoder: Encoder
    moments: Moments
    step: Tensor  # updates done, int64

    @classmethod
    def initial(cls, encoder: Encoder, seed: int) -> "EncoderState":
        """The state before the first step: weights uniform with variance 2 / inputs, biases zero."""
        random = stream(seed, "encoder weights")
        with torch.no_grad():
            for weight in encoder.net.weights:
                drawn = (random.random(tuple(weight.shape), dtype=np.float32) * 2 - 1) * math.sqrt(6 / weight.shape[0])
                weight.copy_(torch.from_numpy(drawn))
        return cls(encoder, zero_moments("adam", list(encoder.parameters())), torch.zeros((), dtype=torch.int64))

    def to(self, device: torch.device) -> "EncoderState":
        """The same state on a device."""
        moments = {name: [tensor.to(device) for tensor in tensors] for name, tensors in self.moments.items()}
        return EncoderState(self.encoder.to(device), moments, self.step.to(device))

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All tensors by group and name (not copies): one group, one file of a checkpoint."""
        names = [name for name, _ in self.encoder.named_parameters()]
        moments = {
            f"{moment}.{name}": tensor
            for moment, tensors in self.moments.items()
            for name, tensor in zip(names, tensors, strict=True)
        }
        return {"encoder": dict(self.encoder.state_dict()), "optimizer": {"step": self.step, **moments}}

    def load(self, tensors: Mapping[str, Mapping[str, Tensor]], where: object) -> None:
        """Take over the values of `tensors`, whose groups, names and shapes must be this state's."""
        for group, mine in self.tensors().items():
            load_tensors(mine, tensors.get(group, {}), f"{where}: {group}")


def hidden_widths(settings: InferenceSettings, network: GeneratorSettings) -> tuple[int, ...]:
    """The encoder's hidden layers: as set, or a dense generator's own in reverse."""
    if settings.hidden or not isinstance(network, DenseGeneratorSettings):
        return settings.hidden or HIDDEN
    return tuple(reversed(network.hidden))


def encoder_of(model: PortableGenerator, hidden: tuple[int, ...]) -> Encoder:
    """An encoder for a generator, its weights not yet set."""
    return Encoder(math.prod(model.image_shape), hidden, model.noise)


def initial_encoder(settings: InferenceSettings, model: PortableGenerator, seed: int) -> EncoderState:
    """The encoder of a generator, and its optimizer, before the first step."""
    return EncoderState.initial(encoder_of(model, hidden_widths(settings, model.network)), seed)


def train_encoder(
    model: PortableGenerator,
    settings: InferenceSettings,
    seed: int,
    data: Examples,
    state: EncoderState,
    report_due: Callable[[int], bool],
) -> Iterator[Report[EncoderState]]:
    """Train E in place from `state.step` to `settings.steps`; G is not touched.

    Yields a report, of each error in units of its variance, where one is due and at the last step. A step's z and
    images are functions of (seed, step), so a resumed training has the bits of an undisturbed one.

    Raises:
        Diverged: If an error of a reported step is not finite.
    """
    generator, device = model.generator.to(state.step.device), state.step.device
    parameters = list(state.encoder.parameters())
    variance = (
        sample(generator, draw_noise(stream(seed, "encoder scale"), 1000, model.noise).to(device)).var(dim=0).sum()
    )
    batches = BatchSource(seed, data, min(settings.batch_size, len(data)), device) if settings.images_weight else None
    for step in range(int(state.step), settings.steps):
        z = draw_noise(stream(seed, "encoder noise", step), settings.batch_size, model.noise).to(device)
        samples = sample(generator, z)
        images = batches.at(step).data if batches else samples[:0]
        inferred = state.encoder(torch.cat([samples, images]))
        errors = (generator(inferred, inferred.new_empty(len(inferred), 0)) - torch.cat([samples, images])).square()
        metrics = {
            "noise_error": (inferred[: len(z)] - z).square().mean(),
            "reconstruction_error": errors[: len(z)].sum(dim=-1).mean() / variance,
            **({"images_error": errors[len(z) :].sum(dim=-1).mean() / variance} if batches else {}),
        }
        weights = (settings.noise_weight, settings.reconstruction_weight, settings.images_weight)
        loss = sum(weight * error for weight, error in zip(weights, metrics.values(), strict=False))
        gradients = torch.autograd.grad(loss, parameters)
        rate = torch.tensor(settings.learning_rate * (1 - step / settings.steps), device=device)
        adam_update(parameters, gradients, state.moments, rate, state.step, ADAM)
        state.step.add_(1)
        if step + 1 == settings.steps or report_due(step + 1):
            yield Report(step + 1, _finite(step + 1, metrics), state)


def _finite(step: int, metrics: Mapping[str, Tensor]) -> dict[str, float]:
    values = {name: float(error.detach()) for name, error in metrics.items()}
    broken = [f"{name} {value}" for name, value in values.items() if not math.isfinite(value)]
    if broken:
        expected = "finite errors; lower extension.inference.learning_rate"
        raise Diverged("the encoder's training diverged", f"step {step}", ", ".join(broken), expected)
    return values


@dataclass(frozen=True)
class Reconstruction:
    """How well E inverts G, and G(E(x)) the test images, each beside what needs no encoder.

    Distances are L2, over pixels as they were trained on; errors are their squares; both are means.
    """

    cycle_distance: float  # |G(E(G(z))) - G(z)|
    random_distance: float  # |G(z') - G(z)|, for another z'
    error: float  # |G(E(x)) - x|^2 over the test images
    mean_image_error: float  # of the training images' mean, in place of G(E(x))
    nearest_sample_error: float  # of the nearest of `samples` samples
    samples: int
    images: int


def evaluate_encoder(inference: Inference, dataset: Dataset, seed: int, samples: int = 10_000) -> Reconstruction:
    """Measure an encoder on samples it was not trained on, and on the test images."""
    model, images = inference.model, dataset.test.images
    z, other = (draw_noise(stream(seed, "encoder judged", index), 1000, model.noise) for index in (0, 1))
    drawn = model.images(z).reshape(len(z), -1)
    again = inference.reconstruct(drawn).reshape(len(z), -1)
    pool = model.draw(samples, seed).reshape(samples, -1)
    nearest = pool[nearest_neighbours(images, pool)]
    return Reconstruction(
        cycle_distance=_distance(again, drawn),
        random_distance=_distance(model.images(other).reshape(len(z), -1), drawn),
        error=squared_error(inference.reconstruct(images).reshape(len(images), -1), images),
        mean_image_error=squared_error(dataset.train.images.mean(axis=0, dtype=np.float64)[None], images),
        nearest_sample_error=squared_error(nearest, images),
        samples=samples,
        images=len(images),
    )


def squared_error(approximations: np.ndarray, images: Float[np.ndarray, "count pixels"]) -> float:
    """The mean squared L2 distance of images from their approximations."""
    return float(np.square(approximations - images, dtype=np.float64).sum(axis=1).mean())


def _distance(images: np.ndarray, others: np.ndarray) -> float:
    return float(np.linalg.norm(images.astype(np.float64) - others, axis=1).mean())
