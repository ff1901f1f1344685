"""Commands to set up: doctor, init."""

import math
from typing import TYPE_CHECKING, Any

import click

from gan_core.errors import CheckpointError, ConfigurationError
from pipelines.cli.context import Context, common

if TYPE_CHECKING:
    from pathlib import Path

STARTER = "gan.yaml"


@click.command()
@click.option("--start", is_flag=True, help="Start Ray, or join the cluster of RAY_ADDRESS, and leave it again.")
@common
def doctor(context: Context, start: bool) -> None:
    """Say what is installed and what there is: cores, memory, GPUs, Ray, storage, MLflow, each with a verdict.

    \b
    Examples:
      gan doctor
      gan doctor --start --json
    """
    from pipelines.diagnostics import examine, verdict

    findings = []
    for finding in examine(context.place, context.given_uri, start):
        findings.append(finding)
        context.show(str(finding))
    result, failure = verdict(findings)
    context.emit_result(result, "" if failure else "ready", failure)


@click.command()
@click.argument("folder", metavar="[FOLDER]", required=False)
@click.option("--output", metavar="FILE", default=STARTER, show_default=True, help="The configuration to write.")
@common
def init(context: Context, folder: str | None, output: str) -> None:
    """Write a commented configuration to start from; a file that is there is left alone.

    With a FOLDER of images (or a .npy or Parquet file) it is made for them: nets, noise, steps, batches and
    search by their size and colours, and how long that takes on this machine. Without, it is for the embedded digits.

    \b
    Examples:
      gan init
      gan init my-images
      gan init my-images --output configs/mine.yaml
    """
    from pathlib import Path

    path = Path(output)
    if path.exists():
        raise ConfigurationError("would overwrite", path, "it is there already", "another: --output FILE")
    text, result, lines = _starter() if folder is None else _for_images(Path(folder).expanduser())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise CheckpointError("storage refused", path, error.strerror or str(error), "a writable folder") from error
    lines.append(f"wrote {path}; next: gan run {path}")
    context.emit_result({"configuration": str(path), **result}, "\n".join(lines))


def _starter() -> tuple[str, dict[str, Any], list[str]]:
    """The configuration for the embedded digits."""
    from importlib.resources import files

    return (files("pipelines") / "starter.yaml").read_text(encoding="utf-8"), {}, []


def _for_images(root: "Path") -> tuple[str, dict[str, Any], list[str]]:
    """A configuration for these images: its text, and what was seen, for programs and for people."""
    from gan_core.datasets.images import split_sizes
    from pipelines import config
    from pipelines.config.recipes import configuration_text
    from pipelines.data.survey import survey
    from pipelines.names import model_name
    from pipelines.runs.estimate import processors, time_estimate
    from pipelines.runs.memory import machine_memory, memory_estimate
    from pipelines.runs.preview import gate_warning, nets_line
    from pipelines.runs.run_name import slug

    seen = survey(root)
    counts = split_sizes(seen.images, root)
    place = root.resolve()
    data: dict[str, Any] = {"name": "images", "root": str(place), "size": list(seen.size), "channels": seen.channels}
    if 8 * math.prod(seen.shape) * seen.images > machine_memory() / 2 and place.suffix.lower() != ".npy":
        data["streaming"] = True  # as float32, twice
    model = model_name(slug(place.stem).lower())
    threads = min(2, processors())
    text = configuration_text(data, seen.strokes, counts["train"], counts["validation"], threads, model)
    configuration = config.resolve(config.build(config.parse_yaml(text, root)), STARTER)
    estimate = time_estimate(configuration, seen.shape, counts, reading=seen.reading)
    memory = memory_estimate(configuration, seen.shape, counts)
    lines = [f"data   {seen}", *([f"       {seen.left_out}"] if seen.left_out else [])]
    if seen.size != seen.seen or seen.sizes > 1:
        lines.append(f"       resized to {seen.size[0]} x {seen.size[1]} (data.size)")
    network, noise_size = configuration.network, configuration.noise.size
    lines.append(nets_line(network.architecture, network.parameter_counts(noise_size, 0, seen.shape), noise_size))
    lines += [f"needs  about {memory / 1e9:.1f} GB of memory", f"time   {estimate}"]
    if note := gate_warning(counts["gate"], configuration.registry.gate.min_points):
        lines.append(f"note   {note}")
    about = "\n".join(f"# {line}" for line in lines)
    result = {
        "images": seen.images, "image_shape": list(seen.shape), "classes": seen.classes,
        "seconds": {**vars(estimate), "total": estimate.total}, "memory_bytes": round(memory),
    }  # fmt: skip
    return (
        f"# Written by gan init for these images and this machine; every setting can be changed.\n{about}\n\n{text}",
        result,
        lines,
    )
