"""Ray Serve: a registered generator on replicas that are started again, behind an HTTP server of our own."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gan_core.conditions.classes import Classes
from gan_core.errors import CheckpointError, ConfigurationError, GanError
from gan_core.portable import PortableGenerator
from pipelines.registry import ModelVersion
from pipelines.runtime import installed, ray_session
from pipelines.serving.requests import SampleRequest, answer_request

if TYPE_CHECKING:
    from pipelines.serving.http_server import Drawn

logger = logging.getLogger(__name__)

QUIET = {"log_level": "ERROR", "enable_access_log": False}
REQUEST_SECONDS = 60.0  # then a request is told to come again
FETCH_SECONDS = 30.0  # for a replica to fetch a model that it does not hold; a lost one may never come
LOOK_SECONDS = 1.0  # between two looks at the replicas
SILENT_SECONDS = 10.0  # without an answer to a look: not healthy
RESTART_SECONDS = 120.0  # without one: nothing starts again any more, and the command ends


@dataclass(frozen=True)
class ServeSettings:
    """Where to listen, on how many replicas, and what one request and one replica may be asked for."""

    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int = 1
    max_samples: int = 1024
    max_waiting: int = 16  # requests for samples at a replica, beside the one that is worked on

    def __post_init__(self) -> None:
        for name, least in {"port": 1, "replicas": 1, "max_samples": 1, "max_waiting": 0}.items():
            if getattr(self, name) < least:
                raise ConfigurationError(f"too small a {name}", "serve", str(getattr(self, name)), f"at least {least}")
        if self.port > 65535:
            raise ConfigurationError("not a port", "serve", str(self.port), "1 to 65535")


class Replica:
    """Draws, one request at a time. It keeps nothing that a new one could not have: each request says of which model."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        self.drawing = asyncio.Lock()
        self.held: tuple[Any, Any] = (None, None)
        _listen_on_loopback()

    async def draw(self, reference: list[Any], asked: SampleRequest) -> bytes | GanError:
        """Samples of the model in the object store; in a list, because Ray would fetch it for every request."""
        async with self.drawing:
            if self.held[0] != reference[0]:
                async with asyncio.timeout(FETCH_SECONDS):
                    self.held = reference[0], await reference[0]
            try:
                return await asyncio.to_thread(answer_request, self.held[1], asked)
            except GanError as error:  # raised, it would be one of Ray's
                return error

    async def look(self) -> None:
        """Answer, beside whatever is drawn: this replica is there."""


def _listen_on_loopback() -> None:
    """Let a replica of a Ray that is on loopback listen there alone: Serve lets it do so on every interface."""
    import ray
    from ray._common.network_utils import is_localhost
    from ray.serve._private import replica

    if is_localhost(ray.util.get_node_ip_address()):
        add = replica.add_port_to_grpc_server
        replica.add_port_to_grpc_server = lambda server, address: add(server, "127.0.0.1:0")


class Service:
    """A running Serve application; `show` puts another model in its place without a pause."""

    def __init__(self, settings: ServeSettings, name: str, held: socket.socket) -> None:
        from ray import serve

        from pipelines.serving.http_server import Application, Server

        self.settings, admitted = settings, settings.replicas * (settings.max_waiting + 1)
        deployment = serve.deployment(
            Replica,
            name="samples",
            num_replicas=settings.replicas,
            ray_actor_options={"num_cpus": 1},
            max_ongoing_requests=admitted + 16,  # of all replicas but one dead, say
            health_check_period_s=2.0,
            health_check_timeout_s=15.0,  # a replica that hangs is replaced too
            graceful_shutdown_timeout_s=1.0,
        )
        self.replicas = serve.run(deployment.bind(), name=name, route_prefix=None, logging_config=QUIET)
        self.shown: tuple[dict[str, Any], Any, Any] = ({}, None, None)
        self.showing = threading.Lock()
        self.answered = time.monotonic()
        application = Application(self.draw, lambda: self.shown[0], self.alive, settings.max_samples, admitted)
        self.server = Server(application, held, self.watch)

    def show(self, version: ModelVersion, model: PortableGenerator) -> dict[str, Any]:
        """Serve this version from now on, and return what /model says of it."""
        import ray

        about = {
            "name": version.name,
            "version": version.version,
            "generator_sha256": model.sha256,
            "image_shape": list(model.image_shape),
            "pixels": model.pixels,
            **({"classes": list(model.conditions.labels)} if isinstance(model.conditions, Classes) else {}),
            "max_samples": self.settings.max_samples,
        }
        reference = ray.put(model)
        with self.showing:
            self.shown = about, model, reference
        self.server.start()
        return about

    def wait(self, seconds: float | None = None) -> None:
        """Let requests be answered for so long, or for ever.

        Raises:
            CheckpointError: If nothing answers them any more.
        """
        if self.server.ended.wait(seconds):
            raise CheckpointError(
                "the service has died", "this cluster", f"no replica answers for {RESTART_SECONDS:g} s",
                "replicas that Ray starts again; run the same command again",
            )  # fmt: skip

    async def draw(self, asked: SampleRequest) -> "Drawn":
        """Samples by a replica, or by the next one where it dies: the same request has the same bits.

        Raises:
            TimeoutError: If there are none in time.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError
        from ray.serve.exceptions import RayServeException

        about, model, reference = self.shown  # of one moment: the alias may move while this one is drawn
        async with asyncio.timeout(REQUEST_SECONDS):
            while True:
                try:
                    response = self.replicas.draw.remote([reference], asked)
                    return about, await response
                except asyncio.CancelledError:  # given up, or its client has gone: nobody else is to wait for it
                    response.cancel()
                    raise
                except RayTaskError as error:  # out of memory, or the model lost with a node: the next one has a copy
                    again = ray.put(model)
                    with self.showing:
                        self.shown = (about, model, again) if self.shown[0] is about else self.shown
                    raise TimeoutError from error
                except (RayError, RayServeException):
                    await asyncio.sleep(0.2)

    def alive(self) -> bool:
        """Whether a replica has answered a moment ago."""
        return time.monotonic() - self.answered < SILENT_SECONDS

    async def watch(self) -> None:
        """Look at the replicas for as long as they answer, or may be started again."""
        while time.monotonic() - self.answered < RESTART_SECONDS:
            try:
                async with asyncio.timeout(SILENT_SECONDS):
                    await self.replicas.look.remote()
                self.answered = time.monotonic()
            except Exception as error:  # of Ray, of Serve, or no answer in time
                logger.debug("no replica answers: %r", error)
            await asyncio.sleep(LOOK_SECONDS)


@contextmanager
def service(settings: ServeSettings, name: str, held: socket.socket) -> Iterator[Service]:
    """A Serve application on the cluster that is joined, answering on a socket of ours for as long as the block runs.

    Raises:
        ConfigurationError: If the cluster has no room for the replicas, or Ray has no Serve.
    """
    import ray

    try:
        from ray import serve
    except ModuleNotFoundError as error:  # Ray raises its own, which names no module
        raise installed.not_installed("ray[serve]", "services") from error

    cpus = ray.cluster_resources().get("CPU", 0)
    if settings.replicas > cpus:
        raise ConfigurationError(
            "not enough resources", "--replicas", f"{settings.replicas} CPU", f"at most {cpus:g}, what the cluster has"
        )
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(proxy_location="Disabled", logging_config=QUIET)
    try:
        running = Service(settings, f"gan-{name}", held)
        try:
            yield running
        finally:
            running.server.stop()
    finally:
        if ray_session.address() is not None:  # our own cluster ends as a whole
            serve.delete(f"gan-{name}")
