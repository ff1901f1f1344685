"""Commands to set up: doctor, init."""

import click

from gan_core.errors import CheckpointError, ConfigurationError
from pipelines.cli.context import Context, common

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
@click.argument("folder", metavar="[DIR]", default=".")
@common
def init(context: Context, folder: str) -> None:
    """Write a commented configuration to start from, gan.yaml; one that is there is left alone.

    \b
    Examples:
      gan init
      gan init my-images
    """
    from importlib.resources import files
    from pathlib import Path

    path = Path(folder) / STARTER
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write((files("pipelines") / "starter.yaml").read_text(encoding="utf-8"))
    except FileExistsError as error:
        raise ConfigurationError("would overwrite", path, "it is there already", "another folder") from error
    except OSError as error:
        raise CheckpointError("storage refused", path, error.strerror or str(error), "a writable folder") from error
    context.emit_result({"configuration": str(path)}, f"wrote {path}; next: gan run {path}")
