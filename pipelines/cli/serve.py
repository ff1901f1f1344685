"""The command that serves: serve."""

from typing import Any

import click

from pipelines.cli.context import Context, common


@click.command()
@click.argument("reference", metavar="NAME@ALIAS|NAME/VERSION")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="The address to listen on; 0.0.0.0 is all of them."
)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="The port.")
@click.option("--replicas", type=click.IntRange(min=1), default=1, show_default=True, help="Processes, a CPU each.")
@click.option("--max-samples", type=click.IntRange(min=1), default=1024, show_default=True, help="In one request.")
@click.option(
    "--max-waiting", type=click.IntRange(min=0), default=16, show_default=True,
    help="Requests that may wait at a replica; others are answered 503.",
)  # fmt: skip
@click.option("--follow", is_flag=True, help="Serve what the alias names later, too, without a pause.")
@click.option(
    "--interval", type=click.FloatRange(min=0, min_open=True), default=30.0, show_default=True,
    help="Seconds between looks at the alias, with --follow.",
)  # fmt: skip
@common
def serve(
    context: Context,
    reference: str,
    host: str,
    port: int,
    replicas: int,
    max_samples: int,
    max_waiting: int,
    follow: bool,
    interval: float,
) -> None:
    """Draw samples of a registered model over HTTP, with Ray Serve, until Ctrl-C.

    POST /samples {"count": 64, "seed": 0, "format": "npy"|"png"|"json"} answers with the bits of
    gan sample, of one class of a conditional model with "condition": 3; GET /model says which version it is, GET /health that it is there.

    \b
    Examples:
      gan serve gan-digits@champion --follow
      curl -d '{"count": 16, "seed": 7, "format": "png"}' localhost:8000/samples > grid.png
    """
    from contextlib import suppress

    from pipelines.registry import Registry
    from pipelines.registry.polling import changes
    from pipelines.runtime import liveness, ray_session
    from pipelines.serving.app import ServeSettings, service
    from pipelines.serving.http_server import listening_socket

    settings = ServeSettings(host, port, replicas, max_samples, max_waiting)
    registry = Registry(context.tracking_uri())
    version = registry.resolve(reference)
    model = registry.load(version)
    with (
        suppress(KeyboardInterrupt),
        listening_socket(host, port) as held,  # refused before the seconds that Ray takes
        ray_session.cluster(),
        liveness.watched(),
        service(settings, version.name, held) as running,
    ):
        about = running.show(version, model)
        url = f"http://{host}:{port}"
        context.emit_result({"url": url, **about}, f"{version} at {url}; Ctrl-C ends it")
        if not follow:
            running.wait()
        for version in changes(lambda: registry.resolve(reference), str, interval, context.trouble, running.wait):
            about = _replace(context, running, registry, version, about)


def _replace(context: Context, running: Any, registry: Any, version: Any, about: dict[str, Any]) -> dict[str, Any]:
    """Serve another version, or go on with the one that `about` describes where it cannot be."""
    from gan_core.errors import GanError

    if version.version == about["version"]:
        return about
    try:
        about = running.show(version, registry.load(version))
        context.log(f"now {version}")
    except GanError as error:
        context.log(f"{error}; still {about['name']}/{about['version']}")
    return about
