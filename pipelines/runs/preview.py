"""What a dry run says of a run: images and their splits, nets, memory, time, and what one should know before hours."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gan_core.conditions.settings import conditions_of
from gan_core.datasets import Dataset
from gan_core.datasets.image_listing import list_folder
from gan_core.errors import visible
from pipelines.config import ResolvedConfiguration
from pipelines.runs.estimate import TimeEstimate, time_estimate
from pipelines.runs.memory import machine_memory, memory_estimate

MOST_DENSE = 64 * 64  # pixels of an image, colours counted, from which on dense nets are not for it
SHOWN = 5  # classes


@dataclass(frozen=True)
class Preview:
    """A run before it starts. Memory is in bytes; without a time estimate, none was asked for, or there is too little memory."""

    images: dict[str, int]  # of each split
    shape: tuple[int, ...]
    classes: dict[str, int]  # images of each subfolder or label
    labelled: bool  # subfolders are none
    architecture: str
    parameters: tuple[int, int]  # of G and D
    noise_size: int
    memory: float
    time: TimeEstimate | None
    warnings: tuple[str, ...]

    @classmethod
    def of(
        cls, configuration: ResolvedConfiguration, dataset: Dataset, stages: Sequence[str], timed: bool
    ) -> "Preview":
        """Look at a run's data and settings; with `timed`, a few steps are trained and timed if there is the memory."""
        counts = {split: len(examples) for split, examples in dataset.splits().items()}
        conditions = conditions_of(configuration.extension, dataset)
        network, noise_size = configuration.network, configuration.noise.size
        memory = memory_estimate(configuration, dataset.shape, counts, conditions.size)
        timed = timed and memory <= machine_memory()  # else the nets that are timed may not fit either
        time = time_estimate(configuration, dataset.shape, counts, conditions, tuple(stages)) if timed else None
        return cls(
            counts,
            dataset.shape,
            _classes(configuration, dataset),
            configuration.data.name != "images",
            network.architecture,
            network.parameter_counts(noise_size, conditions.size, dataset.shape),
            noise_size,
            memory,
            time,
            tuple(_warnings(configuration, dataset, stages, memory)),
        )

    def to_json(self) -> dict[str, Any]:
        """The same for programs; times are in seconds."""
        time = self.time
        return {
            "images": self.images,
            "image_shape": list(self.shape),
            "classes": self.classes,
            "architecture": self.architecture,
            "generator_parameters": self.parameters[0],
            "discriminator_parameters": self.parameters[1],
            "memory_bytes": round(self.memory),
            "seconds": None if time is None else {**vars(time), "total": time.total},
            "warnings": list(self.warnings),
        }

    def lines(self) -> list[str]:
        """The same for people, in the columns of a run's progress."""
        images = self.images
        lines = [
            f"images {sum(images.values()):,} of {described(self.shape)}: {images['train']:,} to train, "
            f"{images['validation']:,} to choose by, {images['gate']:,} for the gate, {images['test']:,} to test"
        ]
        if self.classes:
            shown = ", ".join(f"{visible(name)} {count:,}" for name, count in list(self.classes.items())[:SHOWN])
            kind = "classes" if self.labelled else "subfolders"
            lines.append(f"       {len(self.classes)} {kind}: {shown}{', …' if len(self.classes) > SHOWN else ''}")
        lines.append(nets_line(self.architecture, self.parameters, self.noise_size))
        lines.append(f"needs  about {self.memory / 1e9:.1f} GB of memory")
        if self.time is not None:
            lines.append(f"time   {self.time}")
        return [*lines, *(f"note   {warning}" for warning in self.warnings)]


def described(shape: tuple[int, ...]) -> str:
    """The size and colours of images, for people."""
    height, width, *colours = shape
    return f"{height} x {width} {'colour' if colours else 'grey'} pixels"


def nets_line(architecture: str, parameters: tuple[int, int], noise_size: int) -> str:
    """The nets, for people."""
    generator, discriminator = parameters
    return f"nets   {architecture}: G {generator:,} weights, D {discriminator:,} weights, z of {noise_size}"


def gate_warning(gate: int, needed: int) -> str | None:
    """What the gate will say where it has too few images; None where they are enough."""
    if gate >= needed:
        return None
    return (
        f"the gate has {gate} held-out images and needs {needed}: no version becomes champion by itself; "
        "by hand: gan models promote REF --force"
    )


def _classes(configuration: ResolvedConfiguration, dataset: Dataset) -> dict[str, int]:
    """How many images each subfolder has or, of a data set with labels, how many of `train` each label."""
    root = Path(configuration.data.root).expanduser()
    if configuration.data.name == "images":
        return list_folder(root).by_subfolder(root) if root.is_dir() else {}
    counted: dict[str, int] = {}
    for label in dataset.train.labels.tolist():
        counted[str(label)] = counted.get(str(label), 0) + 1
    return dict(sorted(counted.items(), key=lambda item: int(item[0])))


def _warnings(
    configuration: ResolvedConfiguration, dataset: Dataset, stages: Sequence[str], memory: float
) -> list[str]:
    warnings, pixels = list[str](), dataset.train.images.shape[1]
    if configuration.network.architecture == "dense" and pixels >= MOST_DENSE:
        warnings.append(
            f"dense nets on {described(dataset.shape)}: convolutional ones are for such images; gan init FOLDER writes them"
        )
    if "register" in stages and (gate := gate_warning(len(dataset.gate), configuration.registry.gate.min_points)):
        warnings.append(gate)
    if memory > (here := machine_memory()):
        warnings.append(f"this machine has {here / 1e9:.1f} GB of memory: smaller data.size, nets or evaluate.samples")
    return warnings
