"""An MLflow service for a team on one machine: `python -m cluster.local_service start FOLDER`, stop, status."""

import json
import sys
from pathlib import Path
from typing import Any

from gan_core.errors import ConfigurationError, GanError, RegistryError
from pipelines.runtime import installed

try:
    import click
    import psycopg  # noqa: F401  # looked for now: not once a database runs that nothing can ask
except ModuleNotFoundError as error:
    sys.stderr.write(f"error: {installed.missing(error, 'services')}\n")
    sys.exit(2)

from cluster.mlflow_server import ADMINISTRATOR, Service

folder_argument = click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """MLflow over PostgreSQL, with accounts, for a team on one machine. All of it lies in FOLDER.

    \b
    Examples:
      python -m cluster.local_service start /srv/mlflow --host 0.0.0.0 --allowed-host mlflow.lab
      python -m cluster.local_service status /srv/mlflow
      python -m cluster.local_service stop /srv/mlflow
    """


@commands.command()
@folder_argument
@click.option("--host", help="The address to listen on  [default: 127.0.0.1, this machine only]")
@click.option("--port", type=int, help="MLflow's port  [default: 5000]")
@click.option("--database-port", type=int, help="PostgreSQL's port, on this machine only  [default: 5433]")
@click.option("--allowed-host", "allowed_hosts", multiple=True, help="A name by which clients call the server.")
@click.option("--artifacts", metavar="URI", help="Where the server keeps artifacts  [default: FOLDER/artifacts]")
@click.option("--workers", type=int, help="Processes that answer requests  [default: 2]")
def start(folder: Path, **options: Any) -> None:
    """Start what does not run, with what it was started with before unless an option says otherwise.

    The first start makes the database and its tables, and passwords in FOLDER/secrets, unless you
    have put your own there: admin_password, database_password.
    """
    service = Service(folder, {name: value for name, value in options.items() if value not in (None, ())})
    started = service.start()
    click.echo(
        f"MLflow {'is up' if started else 'was up already'} at {service.address}\n\n"
        f"export MLFLOW_TRACKING_URI={service.address}\n"
        f"export MLFLOW_TRACKING_USERNAME={ADMINISTRATOR}\n"
        f'export MLFLOW_TRACKING_PASSWORD="$(cat {service.folder}/secrets/admin_password)"\n\n'
        f"An account for each colleague: {service.address}/signup, or MLflow's AuthServiceClient.create_user."
    )


@commands.command()
@folder_argument
def stop(folder: Path) -> None:
    """Stop the server and its database."""
    click.echo("stopped" if _existing(folder).stop() else "was not running")


@commands.command()
@folder_argument
def status(folder: Path) -> None:
    """Print what runs as JSON; exit code 5 unless all of it does."""
    found = _existing(folder).status()
    click.echo(json.dumps(found))
    if not all((found["database"], found["server"], found["healthy"])):
        raise RegistryError(
            "service is down", folder, json.dumps(found), f"python -m cluster.local_service start {folder}"
        )


def _existing(folder: Path) -> Service:
    if not (folder / "settings.json").exists():
        raise ConfigurationError("no service", folder, "never started there", "the folder it was started in")
    return Service(folder)


def main() -> None:
    """Run the command; errors are one line on stderr and an exit code."""
    try:
        commands()
    except GanError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        if (missing := installed.missing(error, "services")) is None:
            raise
        click.echo(f"error: {missing}", err=True)
        sys.exit(missing.exit_code)


if __name__ == "__main__":
    main()
