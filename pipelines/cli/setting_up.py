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
    from pipelines.doctor import Finding, examine

    def show(finding: Finding) -> Finding:
        advice = f"; {'needs' if finding.verdict == 'fail' else 'better'} {finding.advice}" if finding.advice else ""
        context.say(f"{finding.verdict:<5} {finding.part:<14} {finding.found}{advice}")
        return finding

    found = [show(finding) for finding in examine(context.storage, context.tracking_uri, start)]
    failed = [finding for finding in found if finding.verdict == "fail"]
    context.answer(
        {"verdict": "fail" if failed else "ok", "findings": [vars(finding) for finding in found]},
        "" if failed else "ready",
    )
    if failed:
        raise ConfigurationError(
            "not ready", "gan doctor", "; ".join(f"{one.part}: {one.found}" for one in failed), failed[0].advice
        )


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
    context.answer({"configuration": str(path)}, f"wrote {path}; next: gan run {path}")
