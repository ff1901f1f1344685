"""The command that runs a run elsewhere: submit."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gan_core.errors import ConfigurationError
from pipelines.cli.context import Context, configured
from pipelines.runtime.exit_codes import INTERRUPTED

if TYPE_CHECKING:
    from pipelines.runtime import ray_jobs


@click.command()
@click.option(
    "--address",
    metavar="URL",
    envvar="RAY_API_SERVER_ADDRESS",
    required=True,
    help="The cluster's dashboard, such as http://head:8265.",
)
@click.option(
    "--pass-env", "passed", metavar="NAME", multiple=True, help="Give the job this environment variable's value."
)
@click.option("--working-dir", metavar="DIR", help="Send this folder along; the job runs in it.")
@configured
def submit(
    context: Context,
    configuration: str,
    overrides: tuple[str, ...],
    name: str | None,
    dry_run: bool,
    address: str,
    passed: tuple[str, ...],
    working_dir: str | None,
) -> None:
    """Run `gan run` as a job of a Ray cluster, show its log, and end with its exit code.

    The same name again attaches to its job, or says that it is done; one that failed is submitted anew
    and resumes. Ctrl-C detaches and the job goes on: `ray job stop ID` ends it. Storage and
    MLflow must be where the cluster reaches them; credentials go by name: --pass-env.

    \b
    Example:
      gan submit configs/digits.yaml --address http://head:8265 --name nightly-2026-11-24 \\
        --storage s3://bucket/gan --tracking-uri http://mlflow:5000 \\
        --pass-env MLFLOW_TRACKING_USERNAME --pass-env MLFLOW_TRACKING_PASSWORD
    """
    from pipelines import config
    from pipelines.runs.run import Run
    from pipelines.runtime import ray_jobs

    _check_shared(click.get_current_context().params["storage"])
    settings = config.load(configuration, overrides)
    run = Run.create(settings, Path(configuration).stem, name, context.storage)
    environment = ray_jobs.job_environment(config.to_yaml(settings), passed)
    entry = ray_jobs.entrypoint(["--name", run.name, "--storage", context.storage.uri, "--json", *_tracking(context)])
    if dry_run:
        context.emit_result(
            {"run": run.name, "entrypoint": entry, "environment": sorted(environment)}, f"would submit: {entry}"
        )
        return
    cluster = ray_jobs.JobServer(address)
    job = cluster.submit(run.name, entry, environment, working_dir)
    result = {"run": run.name, "job": job.id, "attached": job.attached}
    if job.done:
        context.emit_result({**result, "exit_code": 0}, f"{run.name} is done: job {job.id} has succeeded")
        return
    context.log(f"{'attached to' if job.attached else 'submitted'} job {job.id}; Ctrl-C leaves it running")
    _follow(context, cluster, address, result)


def _follow(context: Context, cluster: "ray_jobs.JobServer", address: str, result: dict[str, Any]) -> None:
    """Show the job's log until it ends, or until Ctrl-C, which leaves it running."""
    job = result["job"]

    def show(text: str) -> None:
        if not context.quiet:
            click.echo(text, nl=False, err=True)

    try:
        code = cluster.follow(job, show, context.log)
    except KeyboardInterrupt:
        text = (
            f"left job {job} running; the same command attaches again; ray job stop {job} --address {address} ends it"
        )
        context.emit_result({**result, "error": text, "exit_code": INTERRUPTED}, text)
        sys.exit(INTERRUPTED)
    text = f"job {job} has ended with exit code {code}"
    context.emit_result({**result, **({"error": text} if code else {}), "exit_code": code}, text)
    sys.exit(code)


def _check_shared(storage: str) -> None:
    """Refuse a storage that means another folder on another machine.

    Raises:
        ConfigurationError: If it is a relative path.
    """
    if "://" not in storage and not Path(storage).is_absolute():
        expected = "an absolute path that every machine has, or a URI: s3://bucket/folder"
        raise ConfigurationError("storage is not shared", "--storage", storage, expected)


def _tracking(context: Context) -> list[str]:
    """The option that names the registry to the job, which others can read.

    Raises:
        ConfigurationError: If its address holds a password.
    """
    from pipelines.registry.address import redacted

    uri = context.tracking_uri()
    if uri != redacted(uri):
        expected = "MLFLOW_TRACKING_PASSWORD, by --pass-env"
        raise ConfigurationError("password in an address", "--tracking-uri", redacted(uri), expected)
    return ["--tracking-uri", uri] if uri else []
