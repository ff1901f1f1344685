"""A trained generator as a folder of data: config.json, generator.safetensors, MANIFEST.json."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gan_core.checkpoint import MALFORMED, MAX_JSON, read_checkpoint, tensors_digest, write_checkpoint, write_durably
from gan_core.conditions.base import UNCONDITIONAL, Conditions
from gan_core.conditions.observed import Observed
from gan_core.conditions.settings import conditions_from, described
from gan_core.datasets import PixelRange
from gan_core.errors import CheckpointError, ConfigurationError
from gan_core.networks import GENERATOR_SETTINGS, GeneratorSettings, architecture_of, make_generator
from gan_core.networks.base import GeneratorNet
from gan_core.noise import NoiseSettings, draw_noise
from gan_core.randomness import stream
from gan_core.state import load_tensors
from gan_core.strict_json import read_settings
from gan_core.threads import one_thread
from gan_core.training import sample

CONFIG, WEIGHTS = "config.json", "generator.safetensors"
FILES = (CONFIG, "MANIFEST.json", WEIGHTS)  # all that is ever read of such a folder
MAX_BYTES = 2**31  # of a file of weights


PART = 10_000  # samples at a time: whole blocks of those in which `sample` evaluates G, so that no bit depends on it


@dataclass(frozen=True)
class PortableGenerator:
    """G with what it takes to sample from it: the prior, the shape of its images, what they are conditioned on."""

    generator: GeneratorNet
    noise: NoiseSettings
    network: GeneratorSettings
    image_shape: tuple[int, ...]
    pixels: PixelRange = "unit"
    conditions: Conditions = UNCONDITIONAL

    @property
    def sha256(self) -> str:
        """Digest of the weights, in name order."""
        return tensors_digest(self.generator.state_dict())

    def draw(
        self, count: int, seed: int, sample_set: int = 0, condition: Float[Tensor, "count width"] | None = None
    ) -> Float[np.ndarray, "count *shape"]:
        """`count` images, a function of the seed (and of the number of the set) and of the condition alone.

        Without a condition they are of p(x): a conditional model's classes are drawn as the data has them.
        """
        condition = self.prior_condition(count, seed, sample_set) if condition is None else condition
        return self.images(draw_noise(stream(seed, "samples", sample_set), count, self.noise), condition)

    def draw_parts(
        self, count: int, seed: int, condition_of: Callable[[int], Tensor] | None = None
    ) -> Iterator[Float[np.ndarray, "part *shape"]]:
        """The images of `draw`, to the bit, a part at a time, however many; `condition_of` gives that many conditions."""
        noise, conditions = stream(seed, "samples"), stream(seed, "samples' conditions")
        for start in range(0, count, PART):
            part = min(PART, count - start)
            given = condition_of(part) if condition_of else self.conditions.sample_prior(part, conditions)
            yield self.images(draw_noise(noise, part, self.noise), given)

    def prior_condition(self, count: int, seed: int, sample_set: int = 0) -> Float[Tensor, "count width"]:
        """The conditions of `count` samples of p(x), a function of the seed (and of the number of the set) alone."""
        return self.conditions.sample_prior(count, stream(seed, "samples' conditions", sample_set))

    def images(
        self, noise: Float[Tensor, "count size"], condition: Float[Tensor, "count width"] | None = None
    ) -> Float[np.ndarray, "count *shape"]:
        """G(z | c) as images, of `pixels` as the training images were; c may be left out if its width is 0.

        Raises:
            CheckpointError: If the noise or the condition is of another shape than G's.
        """
        condition = noise.new_empty(len(noise), 0) if condition is None else condition
        for name, given, size in (("noise", noise, self.noise.size), ("condition", condition, self.conditions.size)):
            if given.shape != (len(noise), size):
                shape, expected = f"an array of shape {list(given.shape)}", f"(count, {size})"
                raise CheckpointError(f"{name} does not fit", "generator", shape, expected)
        device = next(self.generator.parameters()).device
        with one_thread():
            pixels = sample(self.generator, noise.to(device), condition.to(device)).cpu().numpy()
        return pixels.reshape(len(pixels), *self.image_shape)


def save_generator(
    folder: Path,
    model: PortableGenerator,
    about: Mapping[str, Any] | None = None,
    beside: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> None:
    """Write the folder, with other groups of tensors `beside` the generator's: who does not know them reads past them."""
    document = {
        "architecture": architecture_of(model.network),
        "noise": asdict(model.noise),
        "generator": asdict(model.network),
        "condition_size": model.conditions.size,
        **({"conditions": described(model.conditions)} if model.conditions.size else {}),
        "image_shape": list(model.image_shape),
        "pixels": model.pixels,
    }
    content = json.dumps(document, indent=1).encode()
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / CONFIG, content)
    about = {**(about or {}), "config_sha256": hashlib.sha256(content).hexdigest()}
    write_checkpoint(folder, 0, {"generator": dict(model.generator.state_dict()), **(beside or {})}, about)


def most_bytes(name: str) -> int:
    """The size of the largest file of this name that is read: what is parsed is small, what is hashed may be large."""
    return MAX_JSON if name.endswith(".json") else MAX_BYTES


def load_generator(folder: Path) -> PortableGenerator:
    """Read such a folder, trusting nothing in it: data only, sizes capped, keys and shapes exact.

    Raises:
        CheckpointError: If a file is missing, damaged, too large, or not what this package writes.
    """
    for name in FILES:
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise CheckpointError("not a generator", path, "no plain file of this name", ", ".join(FILES))
        if path.stat().st_size > most_bytes(name):
            raise CheckpointError("file too large", path, f"{path.stat().st_size} bytes", f"at most {most_bytes(name)}")
    noise, network, shape, pixels, conditions = _parse(folder / CONFIG)
    manifest, tensors = read_checkpoint(folder, ["generator"])
    digest, expected = hashlib.sha256((folder / CONFIG).read_bytes()).hexdigest(), manifest.about.get("config_sha256")
    if digest != expected:
        raise CheckpointError("damaged generator", folder / CONFIG, f"SHA-256 {digest[:12]}", str(expected)[:12])
    generator = conditions.wrap(make_generator(network, noise.size, conditions.size, shape))
    load_tensors(generator.state_dict(), tensors["generator"], folder / WEIGHTS)
    return PortableGenerator(generator.eval(), noise, network, shape, pixels, conditions)


def _parse(path: Path) -> tuple[NoiseSettings, GeneratorSettings, tuple[int, ...], PixelRange, Conditions]:
    try:
        document = json.loads(path.read_bytes())
        architecture, condition_size = document.pop("architecture"), document.pop("condition_size")
        conditions = conditions_from(document.pop("conditions", None))
        if architecture not in GENERATOR_SETTINGS or condition_size != conditions.size:
            raise ValueError(f"architecture {architecture!r} with condition size {condition_size!r}")
        noise = read_settings(NoiseSettings, document.pop("noise"))
        network: GeneratorSettings = read_settings(GENERATOR_SETTINGS[architecture], document.pop("generator"))
        shape = tuple(document.pop("image_shape"))
        pixels = document.pop("pixels", "unit")  # a folder of an earlier version does not say
        if document:
            raise ValueError(f"unknown keys {', '.join(sorted(document))}")
        if pixels not in get_args(PixelRange):
            raise ValueError(f"pixels {pixels!r}")
        if isinstance(conditions, Observed) and conditions.image_shape != shape:
            raise ValueError(f"images of {list(shape)} and masks of {list(conditions.image_shape)}")
        if not all(type(length) is int for length in shape):
            raise ValueError(f"images of {shape!r}")
        if not shape or min(shape) < 1 or 4 * _weights(network, noise.size, conditions.size, shape) > MAX_BYTES:
            raise ValueError(f"layers of {network}, noise of {noise.size} and images of {list(shape)}")
        return noise, network, shape, pixels, conditions
    except (*MALFORMED, ConfigurationError) as error:
        raise CheckpointError(
            "unreadable generator", path, f"{type(error).__name__}: {error}", "what this package writes"
        ) from error


def _weights(network: GeneratorSettings, noise_size: int, condition_size: int, shape: tuple[int, ...]) -> int:
    """How many weights such a generator has, none of which is made.

    Raises:
        ValueError: If one of its layers is too large for any tensor.
    """
    try:
        with torch.device("meta"):
            generator = make_generator(network, noise_size, condition_size, shape)
    except (RuntimeError, TypeError) as error:  # of torch, for sizes beyond 2^63
        raise ValueError(f"layers of {network}, noise of {noise_size} and images of {list(shape)}") from error
    return sum(parameter.numel() for parameter in generator.parameters())
