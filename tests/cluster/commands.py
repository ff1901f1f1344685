"""Commands that `cluster/` gives, read by the programs' own parsers."""

import re
import shlex
import warnings

import click
import pytest
import yaml

from tests.cluster.documents import CLUSTER, NIGHT, Document, containers, of_kind, single_run, templates

ASSIGNMENT = re.compile(r"[A-Z_]+=\S*$")


def program(name: str) -> click.Command:
    """The command tree of a program of the image."""
    if name == "gan":
        from pipelines.cli import cli

        return cli
    if name == "ray":
        from ray.scripts.scripts import cli as ray

        return ray
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own, when its command line is imported
        from mlflow.cli import cli as mlflow
        from mlflow.server.auth.cli import commands

    return mlflow if name == "mlflow" else commands


def parse(line: str) -> click.Context:
    """Parse a command line as the program would, without running it.

    Raises:
        click.UsageError: If it is not one of the program's commands, or has an option that the command has not.
    """
    words = shlex.split(line, comments=True)
    while ASSIGNMENT.match(words[0]):
        words.pop(0)
    if words[:3] == ["python", "-m", "mlflow.server.auth"]:
        words = ["mlflow.server.auth", *words[3:]]
    command, context = program(words[0]), None
    name, *words = words
    while isinstance(command, click.Group):
        context = click.Context(command, parent=context, info_name=name)
        name, *words = words
        found = command.get_command(context, name)
        if found is None:
            raise click.UsageError(f"no command {name!r} in {context.command_path!r}")
        command = found
    return command.make_context(name, words, parent=context)


def night(arguments: str, run: str = "nightly-2026-11-23") -> str:
    """night.yaml as submit_night.sh fills it in; tests of the script itself run it."""
    names = {"RUN": run, "JOB_NAME": "gan-nightly-29399130", "JOB_UID": "0-0", "ARGUMENTS": arguments}
    return re.sub(r"\$([A-Z_]+)", lambda match: names[match[1]], (NIGHT / "night.yaml").read_text())


def in_documents(documents: list[Document]) -> list[str]:
    """Every command of the image's programs in a rendered set, and in the RayJobs submitted to it."""
    lines = []
    for document in documents:
        for _, template in templates(document):
            for container in containers(template):
                words = [*container.get("command", []), *container.get("args", [])]
                lines += words[2].splitlines() if words[:2] == ["sh", "-ec"] else [shlex.join(words)]
    for cron_job in of_kind(documents, "CronJob"):
        [container] = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        [arguments] = [variable["value"] for variable in container["env"] if variable["name"] == "ARGUMENTS"]
        lines.append(yaml.safe_load(night(arguments))["spec"]["entrypoint"])
        lines.append(single_run()["spec"]["entrypoint"])
    return [line for line in lines if re.match(r"(gan|ray|mlflow|python -m mlflow\.server\.auth) ", line)]


def in_readme() -> list[str]:
    """The commands of cluster/README.md's blocks that are ours or Ray's."""
    blocks = re.findall(r"^```\n(.*?)^```", (CLUSTER / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if re.match(r"([A-Z_]+=\S+ )*(gan|ray) ", line)]


def skip_if_not_yet(line: str) -> None:
    """`gan submit` lands with its own change."""
    if " submit " in line and "submit" not in getattr(program("gan"), "commands", {}):
        pytest.skip("gan submit is not registered yet")
