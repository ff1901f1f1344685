"""A trained generator as a folder of data: config.json, generator.safetensors, MANIFEST.json."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gan_core.checkpoint import MALFORMED, read_checkpoint, tensors_digest, write_checkpoint, write_durably
from gan_core.datasets import PixelRange
from gan_core.errors import CheckpointError, ConfigurationError
from gan_core.networks import GENERATOR_SETTINGS, Generator, GeneratorSettings, architecture_of, make_generator
from gan_core.noise import NoiseSettings, draw_noise
from gan_core.plain_settings import read_settings
from gan_core.randomness import stream
from gan_core.state import load_tensors
from gan_core.training import sample

CONFIG, WEIGHTS = "config.json", "generator.safetensors"
FILES = (CONFIG, "MANIFEST.json", WEIGHTS)  # all that is ever read of such a folder
MAX_BYTES = 2**31  # of one file


@dataclass(frozen=True)
class PortableGenerator:
    """G with what it takes to sample from it: the prior, and the shape of its images."""

    generator: Generator
    noise: NoiseSettings
    network: GeneratorSettings
    image_shape: tuple[int, ...]
    pixels: PixelRange = "unit"

    @property
    def sha256(self) -> str:
        """Digest of the weights, in name order."""
        return tensors_digest(self.generator.state_dict())

    def draw(self, count: int, seed: int, sample_set: int = 0) -> Float[np.ndarray, "count *shape"]:
        """`count` images, a function of the seed (and of the number of the set) alone."""
        return self.images(draw_noise(stream(seed, "samples", sample_set), count, self.noise))

    def images(self, noise: Float[Tensor, "count size"]) -> Float[np.ndarray, "count *shape"]:
        """G(z) as images, of `pixels` as the training images were."""
        if noise.dim() != 2 or noise.shape[1] != self.noise.size:
            raise CheckpointError(
                "noise does not fit",
                "generator",
                f"an array of shape {list(noise.shape)}",
                f"(count, {self.noise.size})",
            )
        device = next(self.generator.parameters()).device
        # A product's last bits differ with the number of threads, and so with the machine: one, always.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            pixels = sample(self.generator, noise.to(device)).cpu().numpy()
        finally:
            torch.set_num_threads(threads)
        return pixels.reshape(len(pixels), *self.image_shape)


def save_generator(folder: Path, model: PortableGenerator, about: Mapping[str, Any] | None = None) -> None:
    """Write the folder."""
    described = {
        "architecture": architecture_of(model.network),
        "noise": asdict(model.noise),
        "generator": asdict(model.network),
        "condition_size": 0,
        "image_shape": list(model.image_shape),
        "pixels": model.pixels,
    }
    content = json.dumps(described, indent=1).encode()
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / CONFIG, content)
    about = {**(about or {}), "config_sha256": hashlib.sha256(content).hexdigest()}
    write_checkpoint(folder, 0, {"generator": dict(model.generator.state_dict())}, about)


def load_generator(folder: Path) -> PortableGenerator:
    """Read such a folder, trusting nothing in it: data only, sizes capped, keys and shapes exact.

    Raises:
        CheckpointError: If a file is missing, damaged, too large, or not what this package writes.
    """
    for name in FILES:
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise CheckpointError("not a generator", path, "no plain file of this name", ", ".join(FILES))
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError("file too large", path, f"{path.stat().st_size} bytes", f"at most {MAX_BYTES}")
    noise, network, shape, pixels = _parse(folder / CONFIG)
    manifest, tensors = read_checkpoint(folder, ["generator"])
    digest, expected = hashlib.sha256((folder / CONFIG).read_bytes()).hexdigest(), manifest.about.get("config_sha256")
    if digest != expected:
        raise CheckpointError("damaged generator", folder / CONFIG, f"SHA-256 {digest[:12]}", str(expected)[:12])
    generator = make_generator(network, noise.size, 0, shape)
    load_tensors(generator.state_dict(), tensors["generator"], folder / WEIGHTS)
    return PortableGenerator(generator.eval(), noise, network, shape, pixels)


def _parse(path: Path) -> tuple[NoiseSettings, GeneratorSettings, tuple[int, ...], PixelRange]:
    try:
        document = json.loads(path.read_bytes())
        architecture, condition_size = document.pop("architecture"), document.pop("condition_size")
        if architecture not in GENERATOR_SETTINGS or condition_size != 0:
            raise ValueError(f"architecture {architecture!r} with condition size {condition_size!r}")
        noise = read_settings(NoiseSettings, document.pop("noise"))
        network: GeneratorSettings = read_settings(GENERATOR_SETTINGS[architecture], document.pop("generator"))
        shape = tuple(int(length) for length in document.pop("image_shape"))
        pixels = document.pop("pixels", "unit")  # a folder of an earlier version does not say
        if document:
            raise ValueError(f"unknown keys {', '.join(sorted(document))}")
        if pixels not in get_args(PixelRange):
            raise ValueError(f"pixels {pixels!r}")
        if not shape or min(shape) < 1 or 4 * _weights(network, noise.size, shape) > MAX_BYTES:
            raise ValueError(f"layers of {network}, noise of {noise.size} and images of {list(shape)}")
        return noise, network, shape, pixels
    except (*MALFORMED, ConfigurationError) as error:
        raise CheckpointError(
            "unreadable generator", path, f"{type(error).__name__}: {error}", "what this package writes"
        ) from error


def _weights(network: GeneratorSettings, noise_size: int, shape: tuple[int, ...]) -> int:
    """How many weights such a generator has, none of which is made.

    Raises:
        ValueError: If one of its layers is too large for any tensor.
    """
    try:
        with torch.device("meta"):
            generator = make_generator(network, noise_size, 0, shape)
    except (RuntimeError, TypeError) as error:  # of torch, for sizes beyond 2^63
        raise ValueError(f"layers of {network}, noise of {noise_size} and images of {list(shape)}") from error
    return sum(parameter.numel() for parameter in generator.parameters())
